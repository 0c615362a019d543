### what a server of datagrams can do
(def [server client] (datagrams))
(show (net/write server "x"))
(show (ev/write server "x"))
(show (net/flush server))
(show (net/accept server))
(show (net/accept-loop server identity))
(show (net/peername server))
(show (first (net/localname server)))
(net/write client "by read")
(show (net/read server 100))
(net/write client "by ev/read")
(show (ev/read server 100))
(net/write client "by chunk")
(show (net/chunk server 8))
(show (keys server))
(show (type server))
(print server)
(:close client)
(:close server)

### what a client of datagrams can do
(def [server client] (datagrams))
(show (net/accept client))
(show (net/accept-loop client identity))
(show (= client (net/flush client)))
(show (= (net/peername client) (net/localname server)))
(show (first (net/localname client)))
(show (keys client))
(print client)
(net/send-to server (address-of client) "by recv-from")
(def buffer @"")
(def who (net/recv-from client 100 buffer))
(show (= (net/address-unpack who) (net/localname server)))
(show buffer)
(:close client)
(:close server)

### datagrams on a connection of streams
(def [client peer] (connected))
(def there (net/address "127.0.0.1" "9"))
(show (net/send-to client there "x"))
(show (net/recv-from client 10 @""))
(show (:send-to client there "x"))
(show (:recv-from client 10 @""))
(def [reader writer] (os/pipe))
(show (net/send-to writer there "x"))
(show (net/recv-from reader 10 @""))
(each stream [client peer reader writer] (:close stream))

### closing wakes who receives
(def [server client] (datagrams))
(background (net/recv-from server 10 @""))
(background (net/read client 10))
(:close server)
(:close client)
(settle)
(print "after")

### closing wakes a chunk that has something
(def [server client] (datagrams))
(def buffer @"")
(background (net/chunk client 10 buffer))
(net/send-to server (address-of client) "some")
(settle)
(:close client)
(settle)
(show buffer)
(:close server)

### every operation on closed sockets
(def [server client] (datagrams))
(def there (address-of server))
(:close server)
(:close client)
(each stream [server client]
  (show (net/recv-from stream 10 @""))
  (show (net/send-to stream there "x"))
  (show (:recv-from stream 10 @""))
  (show (:send-to stream there "x"))
  (show (net/read stream 10))
  (show (net/chunk stream 10))
  (show (net/write stream "x"))
  (show (net/localname stream))
  (show (net/peername stream))
  (show (net/flush stream))
  (show (net/shutdown stream))
  (show (net/setsockopt stream :so-broadcast true)))

### a cancelled receiver loses no datagram
(def [server client] (datagrams))
(def fiber (background (net/recv-from server 10 @"")))
(ev/cancel fiber "enough")
(settle)
(net/write client "for the next")
(def buffer @"")
(net/recv-from server 100 buffer)
(show buffer)
(:close client)
(:close server)

### a deadline ends a receive
(def [server client] (datagrams))
(show (ev/with-deadline 0.002 (net/recv-from server 10 @"")))
(show (ev/with-deadline 0.002 (net/read client 10)))
(net/write client "still here")
(show (type (ev/with-deadline 60 (net/recv-from server 10 @""))))
(:close client)
(:close server)

### a receiver waits while others work
(def [server client] (datagrams))
(def done (ev/chan))
(ev/spawn
  (repeat 3
    (def buffer @"")
    (def who (net/recv-from server 100 buffer))
    (net/send-to server who (string "echo " buffer)))
  (ev/give done :done))
(repeat 3
  (ev/sleep 0.001)
  (net/write client "hello")
  (show (net/read client 100)))
(show (ev/take done))
(:close client)
(:close server)

### one fiber receives and another sends on the same socket
(def [server client] (datagrams))
(def there (address-of client))
(background (type (net/recv-from server 100 @"")))
(background (net/read client 100))
(show (net/send-to server there "to the client"))
(settle)
(show (net/write client "to the server"))
(settle)
(:close client)
(:close server)

### several clients are told apart by their addresses
(def server (net/listen "127.0.0.1" "0" :datagram))
(def clients (seq [_ :range [0 5]] (net/connect ;(net/localname server) :datagram)))
(eachp [number client] clients (net/write client (string "client " number)))
(def senders
  (seq [_ :in clients]
    (def buffer @"")
    [(net/recv-from server 100 buffer) (string buffer)]))
(each [who name] (reverse senders) (net/send-to server who (string "hello, " name)))
(each client clients (show (net/read client 100)))
(show (= ;(map first senders)))
(each client clients (:close client))
(:close server)

### an address can be used for as long as it is kept
(def [server client] (datagrams))
(net/write client "x")
(def who (net/recv-from server 10 @""))
(gccollect)
(repeat 3 (net/send-to server who "again"))
(show (net/chunk client 15))
(show (= who (net/recv-from server 10 (do (net/write client "y") @""))))
(:close client)
(:close server)

### many sockets wait at once
(def servers (seq [_ :range [0 20]] (net/listen "127.0.0.1" "0" :datagram true)))
(def heard (ev/chan 20))
(eachp [number server] servers
  (ev/spawn
    (def buffer @"")
    (net/recv-from server 10 buffer)
    (ev/give heard [number (string buffer)])))
(settle)
(def sender (net/socket :datagram :ipv4))
(eachp [number server] servers (net/send-to sender (address-of server) (string "for " number)))
(show (sort (seq [_ :in servers] (ev/take heard))))
(each server servers (:close server))
(:close sender)

### IPv6
(unless ((protect (:close (net/listen "::1" "0" :datagram))) 0)
  (print "SKIPPED: this machine has no IPv6")
  (os/exit 0))
(def [server client] (datagrams "::1"))
(net/write client "six")
(def buffer @"")
(def who (net/recv-from server 100 buffer))
(show (= (net/address-unpack who) (net/localname client)))
(show (first (net/address-unpack who)))
(net/send-to server who "back")
(show (net/read client 100))
(show (net/send-to server (net/address "127.0.0.1" "9") "x"))
(:close client)
(:close server)

### a server on every address
(def server (net/listen "0.0.0.0" "0" :datagram))
(def [host port] (net/localname server))
(show host)
(each there ["127.0.0.1" "127.0.0.2" "0.0.0.0"]
  (with [client (net/connect there port :datagram)]
    (show (first (net/peername client)))
    (net/write client there)
    (def buffer @"")
    (net/recv-from server 100 buffer)
    (show buffer)))
(:close server)

### a client binds where it is told
(def server (net/listen "127.0.0.1" "0" :datagram))
(def [host port] (net/localname server))
(with [client (net/connect host port :datagram "127.0.0.2")]
  (show (first (net/localname client)))
  (net/write client "x")
  (show (first (net/address-unpack (net/recv-from server 10 @"")))))
(def free (with [other (net/listen "127.0.0.3" "0" :datagram)] ((net/localname other) 1)))
(with [client (net/connect host port :datagram "127.0.0.3" free)]
  (show (= (net/localname client) ["127.0.0.3" free])))
(show (net/connect host port :datagram "192.0.2.1"))
(show (net/connect host port :datagram "::1"))
(show (net/connect host port :datagram "127.0.0.1" @[]))
(:close server)

### a port is shared by those who allow it
(def server (net/listen "127.0.0.1" "0" :datagram))
(def [host port] (net/localname server))
(with [second (net/listen host port :datagram)]
  (show (= (net/localname server) (net/localname second))))
(show (net/listen host port :datagram true))
(:close server)
(with [alone (net/listen "127.0.0.1" "0" :datagram true)]
  (show (net/listen ;(net/localname alone) :datagram)))

### addresses that cannot be bound
(show (net/listen "192.0.2.1" "0" :datagram))
(show (net/listen "127.0.0.1" "no-such-service" :datagram))
(show (net/listen "127.0.0.1" "0" "datagram"))
(show (net/listen "127.0.0.1" "0" :Datagram))
(show (net/connect "127.0.0.1" "no-such-service" :datagram))
(show (net/connect "255.255.255.255" "9" :datagram))

### shutting a datagram socket down
(def [server client] (datagrams))
(show (net/shutdown server))
(show (= client (net/shutdown client :w)))
(show (net/write client "x"))
(show (net/send-to server (address-of client) "x"))
(show (net/read client 100 @"" 0.002))
(:close client)
(:close server)

### a supervisor hears of a receiver's end
(def [server client] (datagrams))
(def supervisor (ev/chan 10))
(ev/go (fiber/new (fn [] (net/recv-from server 10 @"" 0.002)) :tp) nil supervisor)
(def [kind fiber] (ev/take supervisor))
(show kind)
(show (fiber/last-value fiber))
(ev/go (fiber/new (fn [] (net/recv-from server 10 @"") :received) :tp) nil supervisor)
(settle)
(net/write client "x")
(def [kind fiber] (ev/take supervisor))
(show kind)
(show (fiber/last-value fiber))
(:close client)
(:close server)

### receives are gathered
(def [server client] (datagrams))
(def [second other] (datagrams))
(ev/spawn (net/write client "first") (net/write other "second"))
(def buffers [@"" @""])
(show (map type (ev/gather (net/recv-from server 10 (buffers 0)) (net/recv-from second 10 (buffers 1)))))
(show buffers)
(each stream [server client second other] (:close stream))

### a thread has datagrams of its own
(def answers (ev/thread-chan 10))
(ev/thread
  (fn []
    (def server (net/listen "127.0.0.1" "0" :datagram))
    (def client (net/connect ;(net/localname server) :datagram))
    (ev/spawn (net/write client "in a thread"))
    (def buffer @"")
    (net/recv-from server 100 buffer)
    (ev/give answers (string buffer))
    (:close server)
    (:close client)))
(show (ev/take answers))

### a sandbox forbids datagrams too
(sandbox :net-listen)
(show (net/listen "127.0.0.1" "0" :datagram))
(show (net/address "127.0.0.1" "0"))
(sandbox :net-connect)
(show (net/connect "127.0.0.1" "9" :datagram))
(show (net/address "127.0.0.1" "0"))
(show (type (net/socket :datagram)))

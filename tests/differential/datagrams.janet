### a server receives and answers
(def [server client] (datagrams))
(show (net/write client "question"))
(def buffer @"")
(def who (net/recv-from server 100 buffer))
(show buffer)
(show who)
(show (= (net/address-unpack who) (net/localname client)))
(show (net/send-to server who "answer"))
(show (net/read client 100))
(:close client)
(:close server)

### received bytes go behind those that are in the buffer
(def [server client] (datagrams))
(def buffer @"before:")
(repeat 3 (net/write client "abc") (net/recv-from server 100 buffer))
(show buffer)
(:close client)
(:close server)

### of a datagram that is too long, the rest is dropped
(def [server client] (datagrams))
(net/write client "0123456789")
(net/write client "next")
(def buffer @"")
(net/recv-from server 4 buffer)
(show buffer)
(net/recv-from server 100 buffer)
(show buffer)
(net/send-to server (address-of client) "abcdefgh")
(net/send-to server (address-of client) "next")
(show (net/read client 3))
(show (net/read client 3))
(:close client)
(:close server)

### none of a datagram's bytes are asked for
(def [server client] (datagrams))
(net/write client "dropped")
(net/write client "kept")
(def buffer @"")
(show (type (net/recv-from server 0 buffer)))
(show buffer)
(net/recv-from server 10 buffer)
(show buffer)
(net/send-to server (address-of client) "dropped")
(net/send-to server (address-of client) "kept")
(show (net/read client 0))
(show (net/read client 10))
(:close client)
(:close server)

### amounts to receive
(def [server client] (datagrams))
(each amount [-1 1.5 "10" nil :all :some 3000000000 math/nan true]
  (printf "%q: %q" amount (protect (net/recv-from server amount @"")))
  (printf "%q: %q" amount (protect (:recv-from server amount @""))))
(each amount [-1 1.5 "10" nil :some]
  (printf "%q: %q" amount (protect (net/read client amount)))
  (printf "%q: %q" amount (protect (net/chunk client amount))))
(:close client)
(:close server)

### buffers to receive into
(def [server client] (datagrams))
(each buffer ["text" nil 5 :word @[] true]
  (printf "%q: %q" buffer (protect (net/recv-from server 10 buffer))))
(show (net/recv-from))
(show (net/recv-from server))
(show (net/recv-from server 10))
(show (net/recv-from server 10 @"" 1 1))
(:close client)
(:close server)

### timeouts of receiving
(def [server client] (datagrams))
(show (net/recv-from server 10 @"" 0.002))
(show (:recv-from server 10 @"" 0.002))
(show (net/read client 10 @"" 0.002))
(show (net/chunk client 10 @"" 0.002))
(show (ev/read server 10 @"" 0.002))
(each timeout ["1" :soon @[] true]
  (printf "%q" (protect (net/recv-from server 10 @"" timeout)))
  (printf "%q" (protect (net/send-to server (address-of client) "x" timeout))))
(show (net/read client 10 @"" 0.002))
(:close client)
(:close server)

### a timeout leaves the next datagram to the next who receives
(def [server client] (datagrams))
(def buffer @"")
(show (net/recv-from server 10 buffer 0.002))
(net/write client "late")
(show (type (net/recv-from server 10 buffer 1)))
(show buffer)
(show (net/recv-from server 10 buffer 0.002))
(show buffer)
(:close client)
(:close server)

### a timeout of nothing takes what is there
(def [server client] (datagrams))
(net/write client "here")
(def buffer @"")
(show (net/recv-from server 10 buffer 0))
(show buffer)
(show (net/recv-from server 10 buffer 0))
(show buffer)
(:close client)
(:close server)

### timeouts of sending
(def [server client] (datagrams))
(show (net/send-to server (address-of client) "one" 1))
(show (net/send-to client (address-of server) "two" nil))
(show (net/write client "three" 1))
(show (net/read client 10))
(def buffer @"")
(repeat 2 (net/recv-from server 10 buffer))
(show buffer)
(:close client)
(:close server)

### destinations that are none
(def [server client] (datagrams))
(each destination [nil "127.0.0.1" (net/localname server) server 80 @"" true]
  (def [_ fault] (protect (net/send-to client destination "x")))
  (print (string/replace-all (describe server) "a stream" fault)))
(show (net/send-to))
(show (net/send-to client))
(show (net/send-to client (address-of server)))
(show (net/send-to client (address-of server) "x" 1 1))
(show (net/send-to 5 (address-of server) "x"))
(:close client)
(:close server)

### what can be sent
(def [server client] (datagrams))
(def there (address-of server))
(each data ["string" @"buffer" :keyword 'symbol]
  (show (net/send-to client there data))
  (def buffer @"")
  (net/recv-from server 100 buffer)
  (show buffer)
  (net/write client data)
  (net/recv-from server 100 buffer)
  (show buffer))
(each data [nil 5 @[] {} true print]
  (printf "%q" (protect (net/send-to client there data)))
  (printf "%q" (protect (net/write client data))))
(:close client)
(:close server)

### several arguments are wrong: which one is named
(def [server client] (datagrams))
(show (net/recv-from server "ten" "buffer" "timeout"))
(show (net/recv-from server 10 "buffer" "timeout"))
(show (net/recv-from server 10 @"" "timeout"))
(show (net/send-to server "there" 5 "timeout"))
(show (net/send-to server (address-of client) 5 "timeout"))
(show (net/send-to server (address-of client) 5))
(:close server)
(show (net/recv-from server "ten" "buffer"))
(show (net/send-to server "there" 5))
(:close client)

### bytes of every value
(def [server client] (datagrams))
(def all (string/from-bytes ;(range 256)))
(net/write client all)
(def buffer @"")
(net/recv-from server 1000 buffer)
(show (= all (string buffer)))
(:close client)
(:close server)

### the longest datagram arrives whole
(def [server client] (datagrams))
(def data (string/repeat "0123456789a" 5960))
(def longest (string/slice data 0 65507))
(def there (address-of server))
(each send [|(net/write client $) |(net/send-to client there $) |(ev/write client $)]
  (show (send longest))
  (def buffer @"")
  (net/recv-from server 70000 buffer)
  (show (= longest (string buffer))))
(:close client)
(:close server)

### a datagram that is too long is not sent
(def [server client] (datagrams))
(def data (string/repeat "x" 65508))
(show (net/write client data))
(show (ev/write client (buffer data)))
(show (net/send-to client (address-of server) data))
(show (net/send-to server (address-of client) data))
(show (net/recv-from server 10 @"" 0.002))
(net/write client "short")
(show (type (net/recv-from server 10 @"")))
(:close client)
(:close server)

### datagrams come in the order in which they were sent
(def [server client] (datagrams))
(for number 0 100 (net/write client (string number)))
(def numbers
  (seq [_ :range [0 100]]
    (def buffer @"")
    (net/recv-from server 10 buffer)
    (scan-number buffer)))
(show (deep= numbers (range 100)))
(:close client)
(:close server)

### each read is one datagram
(def [server client] (datagrams))
(def there (address-of client))
(each word ["one" "two" "three"] (net/send-to server there word))
(show (net/read client 100))
(show (ev/read client 100))
(show (:evread client 100))
(:close client)
(:close server)

### a chunk is made of several datagrams
(def [server client] (datagrams))
(def there (address-of client))
(each word ["abc" "def" "ghi"] (net/send-to server there word))
(show (net/chunk client 9))
(each word ["abc" "def" "ghi"] (net/send-to server there word))
(show (ev/chunk client 6))
(show (:chunk client 3))
(:close client)
(:close server)

### a chunk cuts its last datagram short
(def [server client] (datagrams))
(def there (address-of client))
(each word ["abc" "def" "ghi"] (net/send-to server there word))
(show (net/chunk client 5))
(show (net/read client 10))
(:close client)
(:close server)

### a chunk waits for more datagrams
(def [server client] (datagrams))
(def there (address-of client))
(background (net/chunk client 6))
(net/send-to server there "abc")
(ev/sleep 0.002)
(print "half")
(net/send-to server there "def")
(ev/sleep 0.002)
(:close client)
(:close server)

### reading to the end has no end
(def [server client] (datagrams))
(def there (address-of client))
(each word ["abc" "def"] (net/send-to server there word))
(def buffer @"")
(show (net/read client :all buffer 0.005))
(show buffer)
(:close client)
(:close server)

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

### nobody receives
(def [server client] (datagrams))
(:close server)
(show (net/write client "lost"))
(show (net/read client 10 @"" 0.5))
(show (net/write client "lost"))
(show (net/write client "not sent"))
(show (net/write client "lost"))
(show (net/send-to client (net/address ;(net/peername client) :datagram false) "not sent"))
(show (net/recv-from client 10 @"" 0.002))
(:close client)

### nobody receives what a socket without a peer sends
(def [server client] (datagrams))
(def there (address-of client))
(:close client)
(repeat 3 (show (net/send-to server there "lost")))
(show (net/recv-from server 10 @"" 0.002))
(:close server)

### after nobody was there, somebody is
(def [server client] (datagrams))
(def [host port] (net/localname server))
(:close server)
(net/write client "lost")
(show (net/write client "not sent"))
(def again (net/listen host port :datagram))
(show (net/write client "received"))
(def buffer @"")
(net/recv-from again 100 buffer)
(show buffer)
(:close client)
(:close again)

### a connected socket receives from its peer only
(def [server client] (datagrams))
(def other (net/listen "127.0.0.1" "0" :datagram))
(net/send-to other (address-of client) "from a stranger")
(net/send-to server (address-of client) "from the peer")
(show (net/read client 100))
(show (net/read client 100 @"" 0.002))
(each stream [server client other] (:close stream))

### a connected socket sends to others too
(def [server client] (datagrams))
(def other (net/listen "127.0.0.1" "0" :datagram))
(show (net/send-to client (address-of other) "to another"))
(def buffer @"")
(show (= (net/address-unpack (net/recv-from other 100 buffer)) (net/localname client)))
(show buffer)
(show (net/recv-from server 100 buffer 0.002))
(each stream [server client other] (:close stream))

### destinations of another family
(def [server client] (datagrams))
(show (net/send-to server (net/address "::1" "9") "x"))
(show (net/send-to server (net/address :unix "no-such-socket") "x"))
(show (net/send-to client (net/address "::1" "9") "x"))
(:close client)
(:close server)

### destinations that cannot be reached
(def [server client] (datagrams))
(show (net/send-to server (net/address "127.0.0.1" 0) "to port 0"))
(show (net/send-to server (net/address "127.255.255.255" "9") "a broadcast that is not allowed"))
(def nowhere (net/connect "127.0.0.1" 0 :datagram))
(show (net/write nowhere "to port 0"))
(each stream [server client nowhere] (:close stream))

### a broadcast that is allowed
(def server (net/listen "0.0.0.0" "0" :datagram))
(def [_ port] (net/localname server))
(def sender (net/socket :datagram :ipv4))
(show (net/setsockopt sender :so-broadcast true))
(show (net/send-to sender (net/address "127.255.255.255" port) "to all"))
(show (net/setsockopt sender :so-broadcast false))
(show (net/send-to sender (net/address "127.255.255.255" port) "to all"))
(show (protect (net/recv-from server 10 (def buffer @"") 0.02)))
(:close sender)
(:close server)

### a socket that was never bound sends, and hears the answer
(def server (net/listen "127.0.0.1" "0" :datagram))
(def sender (net/socket :datagram :ipv4))
(show (net/localname sender))
(show (net/peername sender))
(show (net/write sender "without a destination"))
(show (net/send-to sender (address-of server) "question"))
(def buffer @"")
(def who (net/recv-from server 100 buffer))
(show (= ((net/address-unpack who) 1) ((net/localname sender) 1)))
(net/send-to server who "answer")
(net/recv-from sender 100 buffer)
(show buffer)
(:close sender)
(:close server)

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
(ev/sleep 0.002)
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
(show (type (ev/with-deadline 1 (net/recv-from server 10 @""))))
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
(ev/sleep 0.002)
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
(def servers (seq [_ :range [0 20]] (net/listen "127.0.0.1" "0" :datagram)))
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

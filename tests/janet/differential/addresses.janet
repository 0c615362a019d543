### addresses of every type
(each kind [:stream :datagram nil]
  (show (net/address-unpack (net/address "127.0.0.1" "80" kind false)))
  (show (net/address-unpack (net/address "127.0.0.1" "80" kind nil))))
(each kind [:seqpacket "stream" 5 @[] :Stream]
  (printf "%q" (protect (net/address "127.0.0.1" "80" kind false))))

### one address or all of them
(show (map net/address-unpack (net/address "127.0.0.1" "80" :stream true)))
(show (map net/address-unpack (net/address "127.0.0.1" "80" :datagram 1)))
(show (map net/address-unpack (net/address "::1" "80" nil "yes")))
(show (type (net/address "127.0.0.1" "80" :stream true)))
(show (type (net/address "127.0.0.1" "80" :stream false)))
(show (type (net/address "127.0.0.1" "80")))

### too few and too many arguments
(show (net/address))
(show (net/address "127.0.0.1"))
(show (net/address "127.0.0.1" "80" :stream true 1))
(show (net/address-unpack))
(show (net/address-unpack (net/address "127.0.0.1" "80") 1))
(show (net/localname))
(show (net/peername 1 2))

### hosts by number
(each host ["127.0.0.1" "0.0.0.0" "255.255.255.255" "127.1" "0x7f.0.0.1" "2130706433" "0177.0.0.1" "1"]
  (printf "%q %q" host (net/address-unpack (net/address host "80"))))

### hosts of IPv6 by number
(each host ["::" "::1" "0:0:0:0:0:0:0:1" "2001:DB8::00FF" "::ffff:127.0.0.1" "64:ff9b::1.2.3.4" "fe80::"]
  (printf "%q %q" host (net/address-unpack (net/address host "80"))))

### hosts with a scope
(show (net/address-unpack (net/address "fe80::1%lo" "80")))
(show (net/address-unpack (net/address "fe80::1%1" 80)))
(show (net/address-unpack (net/address "ff02::1%lo" 80 :datagram false)))
(show (net/address "fe80::1%no-such-link" "80"))
(show (net/address "::1%lo" "80"))
(show (net/connect "fe80::1%no-such-link" "80"))
(show (net/listen "fe80::1%no-such-link" "0"))

### nobody is there in a scope
(each call [|(net/connect "fe80::1%lo" "9") |(net/connect "fe80::1%lo" "9" :datagram)
            |(net/listen "fe80::1%lo" "0") |(net/listen "fe80::1%lo" "0" :datagram)]
  (show (call)))

### datagrams into a scope
(def sender (net/socket :datagram :ipv6))
(show (net/send-to sender (net/address "fe80::1%lo" "9") "x"))
(show (net/send-to sender (net/address "fe80::1" "9") "x"))
(:close sender)

### names of the hosts file
(def hosts (map |(first (net/address-unpack $)) (net/address "localhost" "80" :stream true)))
(show (all |(index-of $ ["127.0.0.1" "::1"]) hosts))
(show (= (first hosts) (first (net/address-unpack (net/address "localhost" "80")))))
(show (deep= hosts (map |(first (net/address-unpack $)) (net/address "LOCALHOST" "80" :stream true))))
(with [listener (net/listen "localhost" "0")]
  (def [host port] (net/localname listener))
  (show (index-of host ["127.0.0.1" "::1"]))
  (with [client (net/connect "localhost" port)]
    (show (= (net/peername client) [host port]))))

### datagrams to names of the hosts file
(def server (net/listen "localhost" "0" :datagram))
(def [_ port] (net/localname server))
(with [client (net/connect "localhost" port :datagram)]
  (net/write client "connected"))
(def buffer @"")
(net/recv-from server 100 buffer)
(show buffer)
(def sender (net/listen "localhost" "0" :datagram))
(net/send-to sender (net/address "localhost" port :datagram false) " sent")
(net/recv-from server 100 buffer)
(show buffer)
(:close sender)
(:close server)

### names that are not known
# No resolver asks the network for these.
(each host [(string/repeat "x" 64) (string/repeat "x." 200)]
  (each call [net/address net/connect net/listen]
    (printf "%q" (protect (call host "80")))
    (printf "%q" (protect (call host "80" :datagram)))))

### services by name
(each service ["http" "domain" "no-such-service" "HTTP" "80x" "-1" "65536" "" "00080" "+80"]
  (each kind [:stream :datagram]
    (def [_ outcome] (protect (net/address "127.0.0.1" service kind false)))
    (printf "%q %q %q" service kind (if (bytes? outcome) outcome (net/address-unpack outcome)))))

### services as values of other types
(each service [:http :80 80 80.0 80.5 -1 0 65535 65536 70000 math/nan math/inf @"80" 'http nil true @[] {}]
  (def [_ outcome] (protect (net/address "127.0.0.1" service)))
  (printf "%q %q" service (if (bytes? outcome) outcome (net/address-unpack outcome))))

### hosts as values of other types
(each host [nil 5 :localhost 'localhost @"127.0.0.1" true @[] {} :ipv4 :ipv6]
  (printf "%q %q" host (protect (net/address host "80"))))
(show (net/address "127.0.0.1\0" "80"))
(show (net/address "127.0.0.1" "80\0"))

### an empty host
(each call [net/address net/connect net/listen]
  (printf "%q" (protect (call "" "no-such-service"))))

### what an address is
(def address (net/address "127.0.0.1" "80"))
(show address)
(print (describe address))
(print (type address) " " (abstract? address))
(show (= address address))
(show (= address (net/address "127.0.0.1" "80")))
(show (deep= address (net/address "127.0.0.1" "80")))
(def table @{address :there})
(show (table address))
(show (table (net/address "127.0.0.1" "80")))
(show (get address :host))
(show (keys address))
(show (length address))
(show (marshal address))

### what is not an address cannot be unpacked
(def [client peer] (connected))
(each value [nil 5 "127.0.0.1" ["127.0.0.1" 80] :address @"" true]
  (printf "%q" (protect (net/address-unpack value))))
(show (net/address-unpack client))
(:close client)
(:close peer)

### an address outlives a collection
(def addresses (seq [port :range [1 200]] (net/address "127.0.0.1" port)))
(gccollect)
(show (all |(= ((net/address-unpack $) 0) "127.0.0.1") addresses))
(show (sum (map |((net/address-unpack $) 1) addresses)))

### addresses are no hosts
(def address (net/address "127.0.0.1" "80"))
(show (net/connect address))
(show (net/connect address "80"))
(show (net/listen address "0"))

### IPv4 any and IPv6 any
(each host ["0.0.0.0" "::"]
  (def [made listener] (protect (net/listen host "0")))
  (if made
    (do
      (show (first (net/localname listener)))
      (with [client (net/connect "127.0.0.1" ((net/localname listener) 1))]
        (show (first (net/peername client))))
      (with [peer (net/accept listener)]
        (show (first (net/localname peer)))
        (show (first (net/peername peer))))
      (:close listener))
    (print "SKIPPED: this machine has no IPv6")))

### a datagram server of IPv6 hears IPv4 too
(def [made server] (protect (net/listen "::" "0" :datagram)))
(unless made (print "SKIPPED: this machine has no IPv6") (os/exit 0))
(def [_ port] (net/localname server))
(with [client (net/connect "127.0.0.1" port :datagram)]
  (net/write client "from IPv4")
  (def buffer @"")
  (def who (net/recv-from server 100 buffer))
  (show buffer)
  (show (first (net/address-unpack who)))
  (net/send-to server who "answer")
  (show (net/read client 100)))
(:close server)

### connecting to any address is connecting to this machine
(with [listener (net/listen "127.0.0.1" "0")]
  (with [client (net/connect "0.0.0.0" ((net/localname listener) 1))]
    (show (first (net/peername client)))
    (with [peer (net/accept listener)]
      (net/write peer "reached")
      (show (net/read client 100)))))

### names of what is no socket
(def [reader writer] (os/pipe))
(show (net/localname reader))
(show (net/peername writer))
(show (net/localname stdout))
(show (net/peername 5))
(:close reader)
(show (net/localname reader))
(:close writer)

### names of closed sockets
(def [client peer] (connected))
(:close client)
(show (net/localname client))
(show (net/peername client))
(:close peer)

### many addresses at once
(def answers
  (ev/gather
    (net/address "127.0.0.1" "1")
    (net/address "127.0.0.1" "2")
    (net/address "::1" "3")))
(show (map net/address-unpack answers))

### a thread looks addresses up
(def answers (ev/thread-chan 1))
(ev/thread (fn [] (ev/give answers (net/address-unpack (net/address "127.0.0.1" "80")))))
(show (ev/take answers))

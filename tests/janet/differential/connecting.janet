### a connection is refused
(def listener (net/listen "127.0.0.1" "0" :stream true))
(def [host port] (net/localname listener))
(:close listener)
(show (net/connect host port))
(show (net/connect host (string port) :stream))

### refused in a fiber of its own
(def listener (net/listen "127.0.0.1" "0" :stream true))
(def [host port] (net/localname listener))
(:close listener)
(def done (ev/chan))
(ev/spawn (ev/give done (protect (net/connect host port))))
(show (ev/take done))

### a port is in use
(def listener (net/listen "127.0.0.1" "0" :stream true))
(def [host port] (net/localname listener))
(show (net/listen host port :stream true))
(show (net/listen host port))
(:close listener)

### a port is shared by those who allow it
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(def second (net/listen host port))
(show (= (net/localname listener) (net/localname second)))
(show (net/listen host port :stream true))
(:close listener)
(:close second)

### a port by number, by text, and by keyword
(def listener (net/listen "127.0.0.1" 0))
(def [host port] (net/localname listener))
(each form [port (string port) (keyword port)]
  (def outcome (protect (net/connect host form)))
  # The text of the error has the port in it.
  (printf "%s: %q" (type form) (if (outcome 0) (type (outcome 1)) (string/slice (outcome 1) 0 28))))
(:close listener)

### a port has no such name
(show (net/connect "127.0.0.1" "no-such-service"))
(show (net/listen "127.0.0.1" "no-such-service"))
(show (net/address "127.0.0.1" "no-such-service"))

### a port is empty
(show (net/connect "127.0.0.1" ""))
(with [listener (net/listen "127.0.0.1" "")]
  (show (first (net/localname listener))))

### a port is out of range
(show (net/listen "127.0.0.1" -1))
(show (net/connect "127.0.0.1" -1))
(show (net/connect "127.0.0.1" "-1"))
(show (net/connect "127.0.0.1" 1.5))
(show (net/connect "127.0.0.1" "80 "))
(show (net/connect "127.0.0.1" 99999999999))

### a port of no type that ports have
(show (net/connect "127.0.0.1" @[]))
(show (net/connect "127.0.0.1" true))
(show (net/connect "127.0.0.1" :http-no-such))
(show (net/connect "127.0.0.1" @"80"))
(show (net/connect "127.0.0.1" 'symbol))
(show (net/listen "127.0.0.1" {}))
(show (net/listen "127.0.0.1" "8\0"))

### a host is not known
# A name that cannot be: no resolver asks the network for it.
(def host (string/repeat "x" 64))
(show (net/connect host "80"))
(show (net/listen host "80"))
(show (net/address host "80"))

### a host of no type that hosts have
(show (net/connect nil "80"))
(show (net/connect 127 "80"))
(show (net/connect :localhost "80"))
(show (net/connect 'symbol "80"))
(show (net/connect @"127.0.0.1" "80"))
(show (net/listen nil "80"))
(show (net/listen 0 "0"))
(show (net/connect "127.0.0.1\0" "80"))

### an address that is not ours
(show (net/listen "192.0.2.1" "0"))
(show (net/listen "2001:db8::1" "0"))

### a type that is not known
(show (net/connect "127.0.0.1" "80" :seqpacket))
(show (net/listen "127.0.0.1" "0" :seqpacket))
(show (net/connect "127.0.0.1" "80" "stream"))
(show (net/listen "127.0.0.1" "0" 5))
(with [listener (net/listen "127.0.0.1" "0" nil)]
  (show (type listener)))

### a connection binds where it is told
(with [listener (net/listen "127.0.0.1" "0")]
  (def [host port] (net/localname listener))
  (with [client (net/connect host port :stream "127.0.0.2")]
    (show (first (net/localname client)))
    (with [peer (net/accept listener)]
      (show (= (net/localname client) (net/peername peer))))))

### a connection binds to a host and a port
(with [listener (net/listen "127.0.0.1" "0")]
  (def [host port] (net/localname listener))
  # A port that was free a moment ago.
  (def free (with [other (net/listen "127.0.0.3" "0" :stream true)] ((net/localname other) 1)))
  (with [client (net/connect host port :stream "127.0.0.3" free)]
    (show (= (net/localname client) ["127.0.0.3" free])))
  (with [other (net/listen "127.0.0.3" "0" :stream true)]
    (def taken ((net/localname other) 1))
    (show (net/connect host port :stream "127.0.0.3" (string taken)))))

### a connection cannot bind there
(with [listener (net/listen "127.0.0.1" "0")]
  (def [host port] (net/localname listener))
  (show (net/connect host port :stream "192.0.2.1"))
  (show (net/connect host port :stream (string/repeat "x" 64)))
  (show (net/connect host port :stream "127.0.0.1" "no-such-service"))
  (show (net/connect host port :stream 5))
  (show (net/connect host port :stream "127.0.0.1" @[]))
  (show (net/connect host port :stream "::1"))
  (show (net/connect host port nil "127.0.0.1" nil)))

### IPv6
(unless ((protect (:close (net/listen "::1" "0"))) 0)
  (print "SKIPPED: this machine has no IPv6")
  (os/exit 0))
(with [listener (net/listen "::1" "0")]
  (def [host port] (net/localname listener))
  (show host)
  (with [client (net/connect "::1" port)]
    (with [peer (net/accept listener)]
      (show (first (net/localname client)))
      (show (= (net/peername client) (net/localname listener)))
      (show (= (net/peername peer) (net/localname client)))
      (net/write client "six")
      (show (net/read peer 10)))))

### names of both ends
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(def client (net/connect host port))
(def peer (net/accept listener))
(show (= (net/peername client) [host port] (net/localname peer)))
(show (= (net/localname client) (net/peername peer)))
(show (net/peername listener))
(:close client)
(show (net/peername client))
(show (net/localname client))
(show (net/localname))
(show (net/localname 5))
(show (net/peername client client))
(:close peer)
(:close listener)

### a peer's name after the peer has left
(def [client peer] (connected))
(def name (net/peername client))
(:close peer)
(show (net/read client 10))
(show (= name (net/peername client)))
(:close client)

### a listener on every address
(with [listener (net/listen "0.0.0.0" "0")]
  (def [host port] (net/localname listener))
  (show host)
  (with [client (net/connect "127.0.0.1" port)]
    (show (first (net/peername client)))))

### addresses
(show (net/address-unpack (net/address "127.0.0.1" "80")))
(show (net/address-unpack (net/address "::1" 80)))
(show (map net/address-unpack (net/address "127.0.0.1" "80" :stream true)))
(show (net/address-unpack (net/address :unix "/tmp/no.socket")))
(show (net/address-unpack "127.0.0.1"))

### a server handles each connection in its own fiber
(def server
  (net/server "127.0.0.1" "0"
    (fn [connection]
      (defer (:close connection)
        (net/write connection (string "hello " (net/read connection 100)))))))
(def [host port] (net/localname server))
(def answers
  (seq [name :in ["one" "two" "three"]]
    (with [client (net/connect host port)]
      (net/write client name)
      (net/read client :all))))
(show answers)
(:close server)

### a server without a handler is a listener
(def server (net/server "127.0.0.1" "0"))
(def [host port] (net/localname server))
(with [client (net/connect host port)]
  (with [peer (net/accept server)]
    (net/write peer "by hand")
    (show (net/read client 10))))
(:close server)

### a server's handlers run side by side
(def entered (ev/chan 10))
(def gate (ev/chan))
(def server
  (net/server "127.0.0.1" "0"
    (fn [connection]
      (ev/give entered :in)
      (ev/take gate)
      (net/write connection "out")
      (:close connection))))
(def [host port] (net/localname server))
(def clients (seq [_ :range [0 5]] (net/connect host port)))
(repeat 5 (ev/take entered))
(print "all five are in")
(repeat 5 (ev/give gate true))
(show (map |(net/read $ 10) clients))
(:close server)

### connections are accepted in the order in which they were made
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(defn numbered [number] (def client (net/connect host port)) (net/write client (string number)) client)
(def clients (map numbered (range 20)))
(show (seq [_ :range [0 20]] (with [peer (net/accept listener)] (string (net/read peer 10)))))
(:close listener)
(each client clients (:close client))

### an accept with a timeout that it does not need
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(with [client (net/connect host port)]
  (with [peer (net/accept listener 60)]
    (show (= (net/localname client) (net/peername peer)))))
(:close listener)

### three hundred connections at once
(var handled 0)
(def server
  (net/server "127.0.0.1" "0"
    (fn [connection]
      (++ handled)
      (net/write connection (net/read connection 100))
      (:close connection))))
(def [host port] (net/localname server))
(def clients (seq [_ :range [0 300]] (net/connect host port)))
(eachp [number client] clients (net/write client (string number)))
(show (deep= (map |(string (net/read $ 100)) clients) (map string (range 300))))
(show (deep= (map |(net/read $ 100) clients) (map (fn [_] nil) clients)))
(show handled)
(each client clients (:close client))
(:close server)

### connecting from many fibers at once
(def server (net/server "127.0.0.1" "0" (fn [connection] (net/write connection "hi") (:close connection))))
(def [host port] (net/localname server))
(def finished (ev/chan 100))
(repeat 100
  (ev/spawn (with [client (net/connect host port)] (ev/give finished (string (net/read client 10))))))
(show (frequencies (seq [_ :range [0 100]] (ev/take finished))))
(:close server)

### an accept, then an accept loop on the same listener
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(def client (net/connect host port))
(def peer (net/accept listener))
(net/write peer "first")
(:close peer)
(show (net/read client :all))
(:close client)
(background (net/accept-loop listener (fn [connection] (net/write connection "second") (:close connection))))
(with [client (net/connect host port)] (show (net/read client :all)))
(:close listener)
(settle)

### addresses that nobody can connect to
(show (net/connect "255.255.255.255" "80"))
(show (net/connect "224.0.0.1" "80"))
(show (net/connect "127.0.0.1" "0"))
(show (net/connect "fe80::1" "80"))

### ports that are numbers in other ways
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(each [way text] [["number" port] ["text" (string port)] ["leading zero" (string "0" port)]
                  ["one round more" (+ port 65536)] ["one round more as text" (string (+ port 65536))]
                  ["plus" (string "+" port)] ["leading space" (string " " port)]
                  ["hexadecimal" (string/format "0x%x" port)] ["decimal point" (string port ".0")]
                  ["very large" (string port "00000000000000000000")]]
  (def outcome (protect (net/connect host text)))
  (printf "%s: %q" way (if (outcome 0) (type (outcome 1)) (outcome 1))))
(:close listener)

### hosts that are numbers in other ways
(def listener (net/listen "127.0.0.1" "0"))
(def [_ port] (net/localname listener))
(each host ["127.0.0.1" "127.1" "2130706433" "0x7f.1" "0177.0.0.1" "127.0.0.01" "::ffff:127.0.0.1"]
  (def outcome (protect (net/connect host port)))
  (printf "%q: %q" host (if (outcome 0) ((net/peername (outcome 1)) 0) (outcome 1))))
(:close listener)

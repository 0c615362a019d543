### every option of every kind of socket
(def sockets
  (map |(try ($) ([fault] (print "SKIPPED: " fault) (os/exit 0)))
       [|(net/socket :stream :ipv4) |(net/socket :datagram :ipv4) |(net/socket :stream :ipv6)
        |(net/socket :datagram :ipv6) |(net/listen "127.0.0.1" "0") |(net/listen "127.0.0.1" "0" :datagram)]))
(def options [:so-broadcast :so-reuseaddr :so-keepalive :ip-multicast-ttl :ip-add-membership :ip-drop-membership
              :ipv6-join-group :ipv6-leave-group :ipv6-multicast-hops :ipv6-unicast-hops])
(eachp [number stream] sockets
  (each option options
    (each value [true false 5 "text"]
      (printf "%d %q %q: %q" number option value (protect (net/setsockopt stream option value))))))

### options that are true or false
(def [client peer] (connected))
(each option [:so-broadcast :so-reuseaddr :so-keepalive]
  (show (net/setsockopt client option true))
  (show (net/setsockopt client option false))
  (each value [nil 0 1 "true" :true @[] {} math/nan]
    (printf "%q %q" value (protect (net/setsockopt client option value)))))
(:close client)
(:close peer)

### options that are numbers
(def stream (net/socket :datagram :ipv4))
(each value [0 1 255 256 -1 -2 1.5 1e10 math/nan math/inf nil "5" true :five]
  (printf "%q %q" value (protect (net/setsockopt stream :ip-multicast-ttl value))))
(:close stream)

### options that are numbers, of IPv6
(def [made stream] (protect (net/socket :datagram :ipv6)))
(unless made (print "SKIPPED: this machine has no IPv6") (os/exit 0))
(each option [:ipv6-multicast-hops :ipv6-unicast-hops]
  (each value [0 1 255 256 -1 -2 1.5 nil "5" true]
    (printf "%q %q" value (protect (net/setsockopt stream option value)))))
(:close stream)

### groups that cannot be joined
(def stream (net/socket :datagram :ipv4))
(each option [:ip-add-membership :ip-drop-membership]
  (each group ["127.0.0.1" "not an address" "" "::1" "224.0.0" nil 5 :group @"224.0.0.1" "224.0.0.1\0"]
    (printf "%q %q" group (protect (net/setsockopt stream option group)))))
(show (net/setsockopt stream :ip-drop-membership "224.0.0.251"))
(:close stream)

### groups of IPv6 that cannot be joined
(def [made stream] (protect (net/socket :datagram :ipv6)))
(unless made (print "SKIPPED: this machine has no IPv6") (os/exit 0))
(each option [:ipv6-join-group :ipv6-leave-group]
  (each group ["::1" "not an address" "" "127.0.0.1" nil 5 :group @"ff02::1"]
    (printf "%q %q" group (protect (net/setsockopt stream option group)))))
(show (net/setsockopt stream :ipv6-leave-group "ff02::fb"))
(:close stream)

### a group is joined and left
(def stream (net/listen "0.0.0.0" "0" :datagram))
(each option [:ip-add-membership :ip-add-membership :ip-drop-membership :ip-drop-membership]
  (show (net/setsockopt stream option "224.0.0.251")))
(:close stream)

### options that are not known
(def [client peer] (connected))
(each option [:no-such-option :SO-KEEPALIVE : "so-keepalive" 'so-keepalive nil 5 @[]]
  (printf "%q %q" option (protect (net/setsockopt client option true))))
(show (net/setsockopt))
(show (net/setsockopt client))
(show (net/setsockopt client :so-keepalive true true))
(:close client)
(:close peer)

### options of what is no socket
(def [reader writer] (os/pipe))
(show (net/setsockopt reader :so-keepalive true))
(show (net/setsockopt reader :no-such-option true))
(show (net/setsockopt stdout :so-keepalive true))
(show (net/setsockopt nil :so-keepalive true))
(show (net/shutdown reader))
(show (net/flush writer))
(:close reader)
(:close writer)

### options of closed sockets
(def [client peer] (connected))
(def listener (net/listen "127.0.0.1" "0"))
(each stream [client peer listener] (:close stream))
(each stream [client listener]
  (show (net/setsockopt stream :so-keepalive true))
  (show (net/setsockopt stream :no-such-option true))
  (show (net/setsockopt stream "so-keepalive" true))
  (show (:setsockopt stream :so-keepalive 5))
  (show (net/setsockopt stream)))

### options while a fiber waits
(def [client peer] (connected))
(background (net/read client 10))
(show (net/setsockopt client :so-keepalive true))
(show (= client (net/flush client)))
(net/write peer "bytes")
(settle)
(:close client)
(:close peer)

### sockets of every kind
(each kind [:stream :datagram nil]
  (each family [:ipv4 :ipv6 nil :no-such-family "ipv4" 5]
    (def [made stream] (protect (net/socket kind family)))
    (printf "%q %q: %q" kind family (if made (type stream) stream))
    (if made (:close stream))))
(each kind [:seqpacket "stream" 5 @[]]
  (printf "%q" (protect (net/socket kind)))
  (printf "%q" (protect (net/socket kind :ipv4))))
(show (net/socket :stream :unix))
(show (net/socket :datagram :unix))
(show (net/socket :stream :ipv4 1))

### names of a socket that is not connected
(each [kind family] [[:stream :ipv4] [:datagram :ipv4] [:stream :ipv6] [:datagram :ipv6]]
  (def [made stream] (protect (net/socket kind family)))
  (if made
    (do
      (show (net/localname stream))
      (show (net/peername stream))
      (:close stream)
      (show (net/localname stream)))
    (print "SKIPPED: this machine has no IPv6")))

### what a socket that is not connected can do
(def stream (net/socket :stream :ipv4))
(print stream)
(show (keys stream))
(show (net/read stream 10))
(show (net/chunk stream 10))
(show (net/read stream :all))
(show (net/write stream "x"))
(show (ev/read stream 10))
(show (= stream (net/flush stream)))
(show (net/accept stream))
(show (net/accept-loop stream identity))
(show (net/recv-from stream 10 @""))
(show (net/send-to stream (net/address "127.0.0.1" "9") "x"))
(show (net/shutdown stream))
(show (net/setsockopt stream :so-keepalive true))
(show (= stream (:close stream)))
(show (net/read stream 10))
(show (net/write stream "x"))

### what a datagram socket that is not connected can do
(def stream (net/socket :datagram :ipv4))
(show (net/read stream 10 @"" 0.002))
(show (net/recv-from stream 10 @"" 0.002))
(show (net/write stream "x"))
(show (net/accept stream))
(show (= stream (net/flush stream)))
(show (net/shutdown stream))
(:close stream)
(show (net/recv-from stream 10 @""))

### two sockets that were never bound talk
(def sockets [(net/socket :datagram :ipv4) (net/socket :datagram :ipv4)])
(def server (net/listen "127.0.0.1" "0" :datagram))
(each stream sockets (net/send-to stream (address-of server) "hello"))
(def addresses (seq [_ :in sockets] (net/recv-from server 10 @"")))
(net/send-to (sockets 0) (addresses 1) "from the first")
(net/send-to (sockets 1) (addresses 0) "from the second")
(each stream sockets
  (def buffer @"")
  (net/recv-from stream 100 buffer)
  (show buffer))
(each stream [server ;sockets] (:close stream))

### a socket that is forgotten is closed
(defn descriptors [] (length (os/dir "/proc/self/fd")))
(def before (descriptors))
(repeat 100 (net/socket :stream :ipv4) (net/socket :datagram :ipv4))
(gccollect)
(show (< (- (descriptors) before) 20))

### every mode of a shutdown
(each mode [:r :w :rw]
  (def [client peer] (connected))
  (show (= client (net/shutdown client mode)))
  (show (net/write client "x"))
  (if-not (= mode :w) (show (net/read client 10)))
  (if-not (= mode :r) (show (net/read peer 10)))
  (show (= client (net/shutdown client mode)))
  (:close client)
  (:close peer))
(def [client peer] (connected))
(show (= client (:shutdown client)))
(show (net/read peer 10))
(:close client)
(:close peer)

### modes of a shutdown that are none
(def [client peer] (connected))
(each mode [:wr :rd :RW "rw" nil 5 'r @[] true]
  (printf "%q %q" mode (protect (net/shutdown client mode))))
(show (net/shutdown))
(show (net/shutdown client :r :w))
(net/write peer "nothing was shut down")
(show (net/read client 100))
(:close client)
(:close peer)

### each direction for itself
(def [client peer] (connected))
(show (= client (net/shutdown client :w)))
(show (net/read peer 10))
(net/write peer "the other way")
(show (net/read client 100))
(show (= peer (net/shutdown peer :w)))
(show (net/read client 10))
(show (= client (net/shutdown client :r)))
(:close client)
(:close peer)

### a shutdown after the other side has left
(def [client peer] (connected))
(:close peer)
(show (net/read client 10))
(show (= client (net/shutdown client :w)))
(:close client)
(show (net/shutdown client))

### a shutdown wakes a reader
(each mode [:r :rw]
  (def [client peer] (connected))
  (background (net/read client 10))
  (net/shutdown client mode)
  (settle)
  (:close client)
  (:close peer))

### bytes written before a shutdown arrive
(def [client peer] (connected))
(def size 1000000)
(ev/spawn (net/write client (buffer/new-filled size)) (net/shutdown client :w))
(show (length (net/read peer :all)))
(:close client)
(:close peer)

### flushing
(def [client peer] (connected))
(def listener (net/listen "127.0.0.1" "0"))
(repeat 3 (net/write client "x") (net/flush client))
(show (net/chunk peer 3))
(show (net/flush listener))
(show (net/flush))
(show (net/flush 5))
(show (net/flush client client))
(each stream [client peer listener] (:close stream))
(show (net/flush client))

### a listener that does not share its port
(def listener (net/listen "127.0.0.1" "0" :stream true))
(def [host port] (net/localname listener))
(show (net/listen host port :stream true))
(show (net/listen host port :stream false))
(show (net/listen host port :stream 5))
(with [client (net/connect host port)]
  (with [peer (net/accept listener)]
    (net/write peer "served")
    (show (net/read client 100))))
(:close listener)

### servers of every type
(def handler (fn [connection] (:close connection)))
(with [server (net/server "127.0.0.1" "0" handler)]
  (show (type server))
  (with [client (net/connect ;(net/localname server))] (show (net/read client 10))))
(with [server (net/server "127.0.0.1" "0" handler :stream true)]
  (settle)
  (show (net/listen ;(net/localname server))))
(with [server (net/server "127.0.0.1" "0")] (show (net/accept server 0.002)))
(with [server (net/server "127.0.0.1" "0" nil :datagram)] (show (net/recv-from server 10 @"" 0.002)))
(show (net/server "127.0.0.1" "0" handler :seqpacket))
(show (net/server "127.0.0.1" "no-such-service" handler))

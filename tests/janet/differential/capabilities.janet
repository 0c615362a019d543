### a listener neither reads nor writes
(def listener (net/listen "127.0.0.1" "0"))
(show (net/read listener 10))
(show (net/read listener :all))
(show (net/chunk listener 10))
(show (net/write listener "x"))
(show (net/flush listener))
(show (ev/read listener 10))
(show (ev/chunk listener 10))
(show (ev/write listener "x"))
(show (:read listener 10))
(show (:write listener "x"))
(show (:evread listener 10))
(show (:evwrite listener "x"))
(show (net/send-to listener (net/address "127.0.0.1" "80") "x"))
(show (net/recv-from listener 10 @""))
(:close listener)

### a connection does not accept
(def [client peer] (connected))
(show (net/accept client))
(show (net/accept-loop client identity))
(show (:accept client))
(show (net/send-to client (net/address "127.0.0.1" "80") "x"))
(show (net/recv-from client 10 @""))
(:close client)
(:close peer)

### methods by name
(def [client peer] (connected))
(each name [:chunk :close :read :write :flush :accept :accept-loop :send-to :recv-from :evread :evchunk
            :evwrite :shutdown :setsockopt]
  (printf "%q %q" name (get client name)))
(show (get client :foo))
(show (get client "read"))
(show (get client 0))
(show (in client :foo))
(show (in client "read"))
(show (get client :foo :default))
(show (:foo client))
(show (put client :foo 1))
(show (length client))
(:close client)
(:close peer)

### keys and next
(def [client peer] (connected))
(def listener (net/listen "127.0.0.1" "0"))
(show (keys client))
(show (keys listener))
(show (= (values client) (values listener)))
(show (map type (values client)))
(show (next client))
(show (next client :close))
(show (next client :setsockopt))
(show (eachk key client (prin key " ")))
(:close client)
(:close peer)
(:close listener)

### how streams and functions print
(def [client peer] (connected))
(def listener (net/listen "127.0.0.1" "0"))
(print (describe client))
(print client)
(print listener)
(printf "%q %v %j" client client (string listener))
(pp [client {:a listener}])
(print (type client) " " (type listener) " " (type net/read))
(each function [net/listen net/connect net/accept net/accept-loop net/read net/chunk net/write ev/read
                ev/chunk ev/write ev/close net/flush net/address net/shutdown]
  (print function " " (describe function)))
(:close client)
(:close peer)
(:close listener)

### functions are the same by every way to them
(def [client peer] (connected))
(show (= net/read (client :read)))
(show (= net/chunk (client :chunk)))
(show (= net/write (client :write)))
(show (= net/flush (client :flush)))
(show (= net/accept (client :accept)))
(show (= net/accept-loop (client :accept-loop)))
(show (= net/shutdown (client :shutdown)))
(show (= ev/close (client :close)))
(show (= ev/read (client :evread)))
(show (= ev/chunk (client :evchunk)))
(show (= ev/write (client :evwrite)))
(show (= net/read (get (curenv) 'net/read) ((dyn 'net/read) :value)))
(:close client)
(:close peer)

### documentation is there
(each name '[net/listen net/connect net/accept net/accept-loop net/read net/chunk net/write ev/read ev/chunk
             ev/write ev/close net/server net/flush net/socket net/address]
  (def entry (dyn name))
  (printf "%q %q" name (first (string/split "\n" (or (get entry :doc) "nothing")))))

### functions know where they come from
(each name '[net/listen net/connect net/accept net/accept-loop net/read net/chunk net/write ev/read ev/chunk
             ev/write ev/close]
  (printf "%q %q" name (sort (keys (dyn name)))))

### equality, order and hashing of streams
(def [client peer] (connected))
(show (= client client))
(show (= client peer))
(show (compare client client))
(def table @{client :client peer :peer})
(show (table client))
(:close client)
(show (table client))
(show (table peer))
(:close peer)

### the functions of ev on a socket
(def [client peer] (connected))
(show (ev/write client "by ev/write"))
(show (ev/read peer 100))
(show (ev/write peer @"a buffer"))
(show (ev/chunk client 8))
(show (ev/write peer "all of it"))
(show (= peer (ev/close peer)))
(show (ev/read client :all))
(show (ev/read client 10))
(show (ev/chunk client 10))
(:close client)

### the methods of ev on a socket
(def [client peer] (connected))
(show (:evwrite client "by :evwrite"))
(show (:evread peer 100))
(show (:evwrite peer "chunk"))
(show (:evchunk client 5))
(show (:evread client 5 @"" 0.01))
(:close client)
(:close peer)

### streams are marshalled only when asked to be unsafe
(def [client peer] (connected))
(show (marshal client))
(:close client)
(:close peer)

### a sandbox forbids what it names
(sandbox :net-listen)
(show (net/listen "127.0.0.1" "0"))
(show (net/connect "127.0.0.1" "no-such-service"))
(sandbox :net-connect)
(show (net/connect "127.0.0.1" "80"))
(show (net/connect))
(show (net/listen))

### functions survive marshalling
(each function [net/read net/listen net/connect ev/read ev/close net/accept-loop]
  (show (= function (unmarshal (marshal function make-image-dict) load-image-dict))))

### a new environment has the same functions
(def environment (make-env))
(show (= net/read ((environment 'net/read) :value)))
(show (= net/read (eval-string "net/read")))
(show ((compile '(do (def l (net/listen "127.0.0.1" "0")) (:close l) :compiled) environment)))

### no socket blocks code that is lent its descriptor
(defn blocks? [stream]
  (def descriptor (first (peg/match ~(* (thru "fd=") (<- :d+)) (string/format "%q" stream))))
  (def state (slurp (string "/proc/self/fdinfo/" descriptor)))
  (def flags (first (peg/match ~(* (thru "flags:\t") (<- (some :d))) state)))
  (zero? (band 8r4000 (scan-number (string "8r" flags)))))
(def [client peer] (connected))
(def listener (net/listen "127.0.0.1" "0"))
(def name (string "@ringspun-blocks-" (os/getpid)))
(def unix-listener (net/listen :unix name))
(def unix-client (net/connect :unix name))
(def unix-peer (net/accept unix-listener))
(def receiver (net/listen "127.0.0.1" "0" :datagram))
(def sender (net/connect ;(net/localname receiver) :datagram))
(each stream [client peer listener unix-client unix-peer unix-listener receiver sender]
  (show (blocks? stream))
  (:close stream))

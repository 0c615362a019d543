# A module that is loaded when streams are in use already, and busy.

(defn settle [] (repeat 5 (ev/sleep 0)))

(def tcp (net/listen "127.0.0.1" "0"))

(defn pair []
  (def client (net/connect ;(net/localname tcp)))
  [client (net/accept tcp)])

(defn busy-pair []
  (def [near far] (pair))
  (repeat 100 (net/write far "ping") (net/chunk near 4) (net/write near "pong") (net/chunk far 4))
  [near far])

(def quiet (busy-pair))
(def read-ahead (seq [_ :range [0 5]] (busy-pair)))
(def parked (busy-pair))
(def writing (busy-pair))
(def written (busy-pair))

(def datagrams (net/listen "127.0.0.1" "0" :datagram))
(def sender (net/connect ;(net/localname datagrams) :datagram))
(repeat 100 (net/write sender "x") (net/recv-from datagrams 10 @""))

(def listener (net/listen "127.0.0.1" "0"))
(repeat 50 (def client (net/connect ;(net/localname listener))) (:close (net/accept listener)) (:close client))

# What nobody has asked for, some of it received already.
(each [near far] read-ahead (net/write far "unread"))
(def results @{})
(ev/go (fn [] (put results :parked (string (net/read (parked 0) 10)))))
(def large (string ;(seq [i :range [0 100_000]] (string/format "%06x " i))))
(ev/go (fn [] (put results :written (net/write (writing 0) large))))
(settle)
(net/write (written 0) "before ")

(import ./events)

(events/raw-send (written 0) "after")
(print "order of small writes: " (net/chunk (written 1) 12))

(net/write (quiet 1) "quiet")
(print "a quiet stream: " (events/recv (quiet 0) 10))
(net/write (quiet 1) "again")
(events/arrived (quiet 0))
(print "its descriptor: " (events/raw-recv (quiet 0) 10))

(each [[near far] name f]
  (map tuple read-ahead ["recv" "read" "recvchunk" "readchunk" "cfun-read"]
       [events/recv events/read events/recvchunk events/readchunk events/cfun-read])
  (print "unread bytes by " name ": " (f near 6))
  (net/write far "and on")
  (print "and later ones: " (f near 6)))

(net/write (parked 1) "parked")
(settle)
(while (nil? (results :parked)) (ev/sleep 0))
(print "a reader that waited: " (results :parked))

(def mixed (ev/go (fn [] (events/send-string (writing 0) "<mark>") (put results :marked true))))
(print "a large write that waited: " (= large (string (net/chunk (writing 1) (length large)))))
(while (nil? (results :marked)) (ev/sleep 0))
(print "and what C writes then: " (net/chunk (writing 1) 6))

(net/write sender "datagram")
(print "a datagram: " (events/recv datagrams 10))

(def client (net/connect ;(net/localname listener)))
(def server (events/async-accept listener))
(net/write server "hello")
(print "a connection: " (net/read client 10))
(os/exit 0)

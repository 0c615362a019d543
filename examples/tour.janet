# A tour of Janet's networking on Ringspun: servers and clients in one program, on loopback.
#
#   ./scripts/run janet examples/tour.janet

(defn step [& words] (print "\n== " ;words))

(defn port-of "The port that a server was given."
  [server]
  (get (net/localname server) 1))

(defn connect [server] (net/connect "127.0.0.1" (port-of server)))

(step "Sockets in this program are served by " (ringspun/backend) ".")

(step "A server with one fiber per connection, and a client that talks to it.")
(def echo
  (net/server "127.0.0.1" "0"
              (fn [connection]
                (defer (:close connection)
                  (def buffer @"")
                  (while (:read connection 1024 buffer)
                    (:write connection buffer)
                    (buffer/clear buffer))))))
(with [connection (connect echo)]
  (:write connection "Echo...")
  (print "the echo server answered: " (:read connection 1024)))

(step "Two hundred clients at once, each with fifty messages.")
(defn chat [id]
  (with [connection (connect echo)]
    (var bytes 0)
    (for round 0 50
      (def message (string "client " id ", message " round))
      (:write connection message)
      (assert (= message (string (:chunk connection (length message)))))
      (+= bytes (length message)))
    bytes))
(def answers (ev/chan 200))
(for id 0 200 (ev/spawn (ev/give answers (chat id))))
(var total 0)
(repeat 200 (+= total (ev/take answers)))
(print "all 10000 messages came back, " total " bytes in all")

(step "Slow connections hold up nobody: three clients that take their time, one that does not.")
(def order @[])
(ev/gather
  (do (ev/sleep 0.15) (chat 1) (array/push order :slow))
  (do (ev/sleep 0.10) (chat 2) (array/push order :slower-than-most))
  (do (ev/sleep 0.05) (chat 3) (array/push order :a-little-slow))
  (do (chat 4) (array/push order :quick)))
(print "they finished in this order: " (string/join order ", "))

(step "A megabyte in one write, read back as one chunk.")
(with [connection (connect echo)]
  (def data (string/repeat "0123456789abcdef" 65536))
  (def [sent received]
    (ev/gather (:write connection data) (:chunk connection (length data))))
  (print (length received) " bytes came back, " (if (= data (string received)) "unchanged" "CHANGED")))

(step "A server that never answers, and a client with a timeout of 50 ms.")
(def silent
  (net/server "127.0.0.1" "0" (fn [connection] (with [_ connection] (:read connection 1)))))
(with [connection (connect silent)]
  (print "reading gave the error: " (get (protect (:read connection 10 nil 0.05)) 1)))

(step "Cancelling a fiber that waits for bytes.")
(with [connection (connect echo)]
  (def reader (ev/go (fn [] (protect (:read connection 10)))))
  (ev/sleep 0)
  (ev/cancel reader "changed my mind")
  (ev/sleep 0)
  (:write connection "still here")
  (print "the next read gets what came later: " (:read connection 10)))

(step "Closing the servers.")
(def port (port-of echo))
(:close echo)
(:close silent)
(print "a client that comes now gets: " (get (protect (net/connect "127.0.0.1" port)) 1))

(step "That was the tour: nothing is left to do, so the program ends.")

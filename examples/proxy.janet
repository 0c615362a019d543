# A TCP proxy: whoever connects to it talks to the target.
#
#   ./scripts/run janet examples/proxy.janet [TARGET-HOST TARGET-PORT [HOST [PORT]]]
#
# The end of one direction is passed on by a half-close, and the other direction goes on: a client may send
# its whole question, end it, and then read the answer.

(def [_ target-host target-port host port] (dyn :args))
(def target-address [(or target-host "127.0.0.1") (or target-port "8000")])

(defn carry
  "Writes all that comes from one stream to another, and then its end."
  [from to]
  (def buffer @"")
  (while (:read from 65536 buffer)
    (:write to buffer) # waits while the receiver does not read, so nothing piles up here
    (buffer/clear buffer))
  (net/shutdown to :w))

(defn serve [client]
  (with [_ client]
    (with [target (net/connect ;target-address)]
      # An error in one direction cancels the other, and both streams are closed.
      (ev/gather
        (carry client target)
        (carry target client)))))

(def server (net/listen (or host "127.0.0.1") (or port "8001")))
(printf "listening at %s:%d" ;(net/localname server))
(flush)
(net/accept-loop server
  (fn [client]
    (try
      (serve client)
      ([fault] (eprintf "a connection to %s:%s failed: %s" ;target-address (string fault))))))

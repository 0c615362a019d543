# An echo server: one fiber per connection. Prints the address that it listens at.
(def server (net/listen "127.0.0.1" (get (dyn :args) 1 "0")))
(printf "listening at %s:%d" ;(net/localname server))
(flush)

(defn serve [connection]
  (def buffer @"")
  (defer (:close connection)
    (while (net/read connection 4096 buffer)
      (net/write connection buffer)
      (buffer/clear buffer))))

(net/accept-loop server serve)

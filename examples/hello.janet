# An echo server: one fiber per connection.
(defn serve [connection]
  (defer (:close connection)
    (def buffer @"")
    (while (:read connection 4096 buffer)
      (:write connection buffer)
      (buffer/clear buffer))))

(def server (net/listen "127.0.0.1" "0")) # 0: a port that is free
(printf "listening at %s:%d" ;(net/localname server))
(flush)
(net/accept-loop server serve)

# An echo server on every core: one fiber per connection.
(import ringspun)

(defn echo [connection]
  (defer (:close connection)
    (def buffer @"")
    (while (:read connection 4096 buffer)
      (:write connection buffer)
      (buffer/clear buffer))))

(def server (ringspun/serve "127.0.0.1" "0" echo)) # 0: a port that is free
(printf "listening at %s:%d" ;(:localname server))
(flush)

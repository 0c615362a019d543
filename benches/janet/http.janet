# A server of HTTP/1.1 that keeps connections, in plain Janet: what `scripts/compare` runs on the event loop of
# Ringspun and on Janet's own. Prints the address that it listens at.
(def answer "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nhello\n")
(def end-of-head "\r\n\r\n")

(defn serve [connection]
  (def pending @"")
  (defer (:close connection)
    (while (net/read connection 4096 pending)
      (while (def end (string/find end-of-head pending))
        (net/write connection answer)
        (def next (+ end (length end-of-head)))
        (buffer/blit pending pending 0 next)
        (buffer/popn pending next)))))

(def server (net/listen "127.0.0.1" (get (dyn :args) 1 "0")))
(printf "listening at %s:%d" ;(net/localname server))
(flush)
(net/accept-loop server serve)

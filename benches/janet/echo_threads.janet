# The echo server of examples/echo.janet on several threads, two unless the second argument says otherwise, as stock
# Janet can have them: each listens at the same port, and the kernel distributes connections. Prints the address.
(defn serve [connection]
  (def buffer @"")
  (defer (:close connection)
    (while (net/read connection 4096 buffer)
      (net/write connection buffer)
      (buffer/clear buffer))))

(defn accept [[host port]]
  (net/accept-loop (net/listen host port) serve))

(def server (net/listen "127.0.0.1" (get (dyn :args) 1 "0")))
(def address (net/localname server))
(repeat (dec (scan-number (get (dyn :args) 2 "2")))
  (ev/thread accept address :n))
(printf "listening at %s:%d" ;address)
(flush)
(net/accept-loop server serve)

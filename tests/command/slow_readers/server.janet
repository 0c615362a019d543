# Serves clients that never read: the first word of each says whether it wants to be sent to without end ("send"), or to
# have its bytes sent back ("echo").
(def message (string/repeat "x" 65536))
(def server (net/listen "127.0.0.1" "0"))
(printf "listening at %s:%d" ;(net/localname server))
(flush)

(defn serve [connection]
  (def buffer (net/chunk connection 4))
  (if (= "send" (string buffer))
    (forever (net/write connection message))
    (forever
      (buffer/clear buffer)
      (net/read connection 65536 buffer)
      (net/write connection buffer))))

(net/accept-loop server serve)

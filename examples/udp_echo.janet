# Datagrams: a server that sends each back to where it came from, and a client that asks again when no
# answer comes, as datagrams may get lost.
#
#   ./scripts/run janet examples/udp_echo.janet serve [HOST [PORT]]
#   ./scripts/run janet examples/udp_echo.janet ask TEXT [HOST [PORT]]

(def attempts 5)
(def patience "How many seconds an answer may take." 0.5)

(defn serve [host port]
  (def server (net/listen host port :datagram))
  (printf "listening at %s:%d" ;(net/localname server))
  (flush)
  (forever
    (def datagram @"")
    (def sender (:recv-from server 65536 datagram))
    (printf "%d bytes from %s:%d" (length datagram) ;(net/address-unpack sender))
    (flush)
    # There are senders that cannot be answered, such as a port 0; they must not end the server.
    (def [sent fault] (protect (:send-to server sender datagram)))
    (unless sent (eprint "no answer was sent: " fault))))

(defn ask [text host port]
  (with [connection (net/connect host port :datagram)]
    (defn attempt []
      (try
        (do
          (:write connection text)
          (:read connection 65536 nil patience))
        # Nobody is there, which the kernel tells at once, or nothing came in time.
        ([fault] (eprint "no answer: " fault) (ev/sleep (/ patience 10)))))
    (var answer nil)
    (repeat attempts
      (unless answer (set answer (attempt))))
    (unless answer (os/exit 1))
    (print answer)))

(defn usage []
  (eprint "expected: serve [HOST [PORT]], or: ask TEXT [HOST [PORT]]")
  (os/exit 2))

(match (drop 1 (dyn :args))
  ["serve" & place] (serve (get place 0 "127.0.0.1") (get place 1 "8009"))
  ["ask" text & place] (ask text (get place 0 "127.0.0.1") (get place 1 "8009"))
  _ (usage))

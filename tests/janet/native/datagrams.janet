# Every function that receives or sends datagrams, in every state of the socket, in every situation.

(import ./events)
(use ./matrix)

(def at-start (events/registrations))

(defn- text [f] (fn [stream limit] (string (f stream limit))))

(defn- from
  "The bytes of a function that tells the sender, and whether it has a name."
  [f]
  (fn [stream limit]
    (def buffer @"")
    (def sender (f stream limit buffer))
    (if (= (type sender) :core/socket-address) (string buffer) sender)))

(defn- polling [f]
  (fn [stream limit]
    (var bytes (f stream limit))
    (while (= bytes :again) (ev/sleep 0) (set bytes (f stream limit)))
    bytes))

(def receivers
  [["janet_ev_recvfrom" (from events/recvfrom)]
   ["janet_ev_recv" events/recv]
   ["janet_ev_read" events/read]
   ["janet_ev_recvchunk" events/recvchunk]
   ["janet_async_start" events/async-read]
   ["recv" (polling events/raw-recv)]
   ["net/recv-from" (from net/recv-from)]])

# Whether the function gets an address, and the function.
(def senders
  [["janet_ev_sendto_buffer" true (fn [stream to data] (events/sendto-buffer stream to (buffer data)))]
   ["janet_ev_sendto_string" true events/sendto-string]
   ["janet_ev_send_buffer" false (fn [stream data] (events/send-buffer stream (buffer data)))]
   ["janet_ev_send_string" false events/send-string]
   ["janet_ev_write_string" false events/write-string]
   ["janet_ev_write_buffer" false (fn [stream data] (events/write-buffer stream (buffer data)))]
   ["janet_async_start" false (fn [stream data] (events/async-write stream (buffer data)))]
   ["send" false (fn [stream data] (do (events/raw-send stream data) nil))]
   ["net/send-to" true net/send-to]
   ["net/write" false net/write]])

(var count 0)

# Two servers with their addresses, and a client of the first. On a port that may be reused, Linux can bind two sockets
# of one user, even if it chooses the port, and only one of them gets the datagrams.
(def kinds
  [["udp" (fn []
            (def servers (seq [_ :range [0 2]] (net/listen "127.0.0.1" "0" :datagram true)))
            (def names (map net/localname servers))
            [;servers (net/connect ;(first names) :datagram)
             ;(map (fn [name] (net/address ;name :datagram false)) names)])]
   ["unix" (fn []
             (def names (seq [name :in ["a" "b"]] (string "@native-" (os/getpid) "-" (++ count) name)))
             [;(seq [name :in names] (net/listen :unix name :datagram))
              (net/connect :unix (first names) :datagram)
              ;(seq [name :in names] (net/address :unix name :datagram false))])]])

(defn- once [{:near near :far far :near-address to}] (net/send-to far to "x") (net/recv-from near 10 @""))

(def states
  [["fresh" (fn [sockets])]
   ["received 3" (fn [sockets] (repeat 3 (once sockets)))]
   ["received 100" (fn [sockets] (repeat 100 (once sockets)))]
   ["received by C"
    (fn [{:near near :far far :near-address to}] (repeat 3 (net/send-to far to "x") (events/recv near 10)))]
   ["level-triggered and back" (fn [{:near near}] (events/level near) (events/edge near))]])

(defn- waits-until [happens]
  (fn [receive {:near near :far far :near-address to}]
    (def receiving (started (receive near 5)))
    (def waits ((receiving :waits)))
    [waits ;(happens receiving receive near (fn [data] (net/send-to far to data)))]))

(def receiving
  [["some are there"
    (fn [receive {:near near :far far :near-address to}]
      (each data ["one  " "two  " "three" "too long" "four "] (net/send-to far to data))
      (seq [read :in [receive (from net/recv-from) receive receive (from net/recv-from)]] (outcome (read near 5))))]
   ["one comes late" (waits-until (fn [receiving receive near send] (gccollect) (send "late!") [(result receiving)]))]
   ["cancelled"
    (waits-until (fn [receiving receive near send]
                   (ev/cancel (receiving :fiber) "stop")
                   (def stopped (result receiving))
                   (send "after")
                   [stopped (outcome (net/read near 5))]))]
   ["at a deadline"
    (fn [receive {:near near :far far :near-address to}]
      (def late (outcome (ev/with-deadline 0.001 (receive near 5))))
      (net/send-to far to "again")
      [late (outcome (receive near 5))])]
   ;(seq [[title end] :in (slice endings 0 3)]
      [title (waits-until (fn [receiving receive near send] (end near nil) [(result receiving)]))])])

(def sending
  [["to the other"
    (fn [send {:near near :far far}]
      [(outcome (send "sent")) (string (net/read far 10)) (outcome (send "again"))
       (outcome (net/recv-from far 10 @""))])]
   ["while one is received"
    (fn [send {:near near :far far :near-address to :client client}]
      (def receiving (started (net/read near 10)))
      (def sent (outcome (send "sent")))
      (def got (string (net/read far 10)))
      (net/send-to far to "answer")
      [sent got (result receiving)])]
   ["too large" (fn [send sockets] [(outcome (send (string/repeat "x" 70_000)))])]])

(defn- run [title make prepare f]
  (run-cell title
            (fn []
              (def [near far client near-address far-address] (make))
              (def sockets {:near near :far far :client client :near-address near-address :far-address far-address})
              (defer (each it [near far client] (:close it))
                (prepare sockets)
                (f sockets)))))

(each [kind make] kinds
  (each [state prepare] states
    (each [name receive] receivers
      (each [title situation] receiving
        (run (string/join [kind state name title] ", ") make prepare (fn [sockets] (situation receive sockets)))))
    (each [name has-address send] senders
      (each [title situation] sending
        # Without an address, the client sends to the first server.
        (defn situated [{:near near :far far :client client :far-address to :near-address back}]
          (if has-address
            (situation (fn [data] (send near to data)) {:near near :far far :near-address back})
            (situation (fn [data] (send client data)) {:near far :far near :near-address to})))
        (run (string/join [kind state name title] ", ") make prepare situated)))))
(say-what-is-left at-start)

# Every way to accept connections, in every state of the listener, in every situation.

(import ./events)
(use ./matrix)

(def at-start (events/registrations))

(defn- polling [listener]
  (var connection (events/raw-accept listener))
  (while (= connection :again) (ev/sleep 0) (set connection (events/raw-accept listener)))
  connection)

(defn- loop-once
  "One connection of C's accept loop."
  [listener]
  (var connection nil)
  (def ended (events/accept-loop listener (fn [it] (set connection it)) 1))
  (if (number? ended) (do (while (nil? connection) (ev/sleep 0)) connection) ended))

(def accepters
  [["janet_async_start" events/async-accept]
   ["janet_stream_level_triggered" loop-once]
   ["accept" polling]
   ["net/accept" net/accept]])

(def path (string "native-listener-" (os/getpid)))

# A listener, and a function that connects to it.
(def kinds
  [["tcp" (fn []
            (def listener (net/listen "127.0.0.1" "0"))
            (def address (net/localname listener))
            [listener (fn [] (net/connect ;address))])]
   ["unix" (fn []
             (when (os/stat path) (os/rm path))
             [(net/listen :unix path) (fn [] (net/connect :unix path))])]])

(defn- talk
  "What goes over an accepted connection in both directions."
  [client server]
  (def said
    (if (= (type server) :core/stream)
      (do
        (net/write client "to the server")
        (net/write server "to the client")
        [(string (net/read server 100)) (string (net/read client 100))])
      server))
  (:close client)
  (if (= (type server) :core/stream) (:close server))
  said)

(def states
  [["fresh" (fn [listener connect])]
   ["accepted before" (fn [listener connect] (repeat 3 (talk (connect) (net/accept listener))))]
   ["accepted 100 times" (fn [listener connect] (repeat 100 (talk (connect) (net/accept listener))))]
   ["after an accept loop of Janet"
    (fn [listener connect]
      (def accepting (started (net/accept-loop listener (fn [server] (:close server)))))
      (repeat 20 (with [client (connect)] (net/read client 10)))
      (ev/cancel (accepting :fiber) "stop")
      (result accepting))]
   ["after an accept loop of C"
    (fn [listener connect]
      (def accepting (started (events/accept-loop listener (fn [server] (:close server)) 20)))
      (repeat 20 (with [client (connect)] (net/read client 10)))
      (result accepting))]
   ["edge-triggered again" (fn [listener connect] (events/level listener) (events/edge listener))]])

(defn- waiting [happens]
  (fn [accept listener connect]
    (def accepting (started (accept listener)))
    (def waits ((accepting :waits)))
    [waits ;(happens accepting listener connect)]))

(def situations
  [["a connection is there"
    (fn [accept listener connect] (def client (connect)) (talk client (accept listener)))]
   ["a connection comes late"
    (fn [accept listener connect]
      (def server @[])
      (def accepting (ev/go (fn [] (array/push server (accept listener)))))
      (settle)
      (gccollect)
      (def client (connect))
      (finish accepting)
      (talk client (first server)))]
   ["ten connections"
    (fn [accept listener connect]
      (def clients (seq [i :range [0 10]] (def client (connect)) (net/write client (string i)) client))
      (def servers (seq [i :range [0 10]] ((if (odd? i) net/accept accept) listener)))
      (def told (map (fn [it] (string (net/read it 1))) servers))
      (each it [;clients ;servers] (:close it))
      told)]
   ["cancelled"
    (waiting (fn [accepting listener connect]
               (ev/cancel (accepting :fiber) "stop")
               (def stopped (result accepting))
               (def client (connect))
               [stopped (talk client (net/accept listener))]))]
   ["at a deadline"
    (fn [accept listener connect]
      (def late (outcome (ev/with-deadline 0.001 (accept listener))))
      (def client (connect))
      [late (talk client (accept listener))])]
   ;(seq [[title end] :in (slice endings 0 3)]
      [title (waiting (fn [accepting listener connect] (end listener nil) [(result accepting)]))])])

(each [kind make] kinds
  (each [state prepare] states
    (each [name accept] accepters
      (each [title situation] situations
        (run-cell (string/join [kind state name title] ", ")
                  (fn []
                    (def [listener connect] (make))
                    (defer (:close listener)
                      (prepare listener connect)
                      (situation accept listener connect))))))))
(os/rm path)
(say-what-is-left at-start)

# What C code does with the event loop besides reading and writing: fibers, threads, timeouts, its own streams, and
# descriptors that have several owners.

(import ./events)
(use ./matrix)

(def at-start (events/registrations))

(defmacro case-of [title & body] ~(run-cell ,title (fn [] ,;body)))

# Threads

(case-of "janet_ev_threaded_call" (events/threaded-call -1 21))
(case-of "janet_ev_threaded_await" (events/threaded-await -1 21))
(case-of "janet_ev_post_event" (events/post 5))
(case-of "a hundred threads"
  (sum (seq [running :in (seq [i :range [0 100]] (started (events/threaded-await -1 i)))] (result running))))
(case-of "sockets while a thread blocks"
  (def [reader writer] (os/pipe :R))
  (def blocked (started (events/threaded-call (events/descriptor reader) 4)))
  (def trips (closing tcp-pair (fn [&]) (fn [near far] (repeat 50 (round-trip near far)) ((blocked :waits)))))
  (ev/write writer "x")
  [trips (result blocked) (do (:close reader) (:close writer) nil)])

# Fibers

(each how [:schedule :signal :soon :error :cancel]
  (case-of (string "a fiber by " how)
    (def waiting (started (events/await)))
    (events/schedule (waiting :fiber) how "value")
    (result waiting))
  (case-of (string "a reader by " how)
    (closing tcp-pair (fn [&])
             (fn [near far]
               (def waiting (started (net/read near 10)))
               (events/schedule (waiting :fiber) how "value")
               [(result waiting) (do (net/write far "later") (outcome (events/recv near 10)))]))))
(case-of "janet_schedule_soon goes first"
  (def order @[])
  (def fibers (seq [name :in [:a :b]] (started (events/await) (array/push order name))))
  (events/schedule ((fibers 0) :fiber) :schedule nil)
  (events/schedule ((fibers 1) :fiber) :soon nil)
  (each fiber fibers (result fiber))
  order)
(case-of "janet_sleep_await" (events/sleep 0.001))
(each [name read] [["Janet" net/read] ["C" events/recv]]
  (case-of (string "janet_addtimeout before a read of " name)
    (closing tcp-pair (fn [&]) (fn [near far]
                                 [(result (started (events/timeout 0.001) (read near 10)))
                                  (do (net/write far "later") (outcome (read near 10)))])))
  (case-of (string "janet_addtimeout_nil before a read of " name)
    (closing tcp-pair (fn [&]) (fn [near far]
                                 [(result (started (events/timeout-nil 0.001) (read near 10)))
                                  (do (net/write far "later") (outcome (read near 10)))]))))

# Streams

(case-of "own streams"
  (def [a b] (events/pair))
  (def texts @[])
  (def ways
    [[ev/write ev/read] [net/write net/read] [events/send-string events/recv] [events/write-string ev/chunk]])
  (each [write read] ways
    (def reading (started (read b 4)))
    (write a "text")
    (array/push texts (result reading)))
  (:close a)
  [;texts (outcome (ev/read b 10)) (do (:close b) nil)])
(case-of "own streams are collected" (repeat 50 (events/pair)) (gccollect) (events/registrations) nil)
(each [kind make] [["tcp" tcp-pair] ["unix" unix-pair]]
  (case-of (string kind ", closed in the middle of a callback")
    (closing make (fn [&])
             (fn [near far]
               (def reading (started (events/async-close near)))
               (net/write far "bytes")
               [(result reading) (outcome (net/read near 10)) (outcome (net/read far 10))])))
  (case-of (string kind ", peeked, then read")
    (closing make (fn [&])
             (fn [near far]
               (net/write far "bytes")
               (events/arrived near)
               [(outcome (events/peek near 3)) (outcome (net/read near 10))])))
  (case-of (string kind ", closed by C, which shows immediately")
    (closing make (fn [near far] (repeat 20 (round-trip near far)))
             (fn [near far] [(events/close near) (do (events/arrived far) (events/raw-recv far 10))])))
  (case-of (string kind ", closed by C while Janet reads and writes")
    (closing make (fn [near far] (events/small-buffers near))
             (fn [near far]
               (def reading (started (net/read near 10)))
               (def writing (started (net/write near (string/repeat "w" 600_000))))
               [(events/close near) (result reading) (result writing)]))))
(case-of "a listener closed by C"
  (def listener (net/listen "127.0.0.1" "0"))
  (def address (net/localname listener))
  (def accepting (started (net/accept listener)))
  [(events/close listener) (outcome (net/connect ;address)) (result accepting)
   (with [again (net/listen ;address)] (= address (net/localname again)))])
(each [name f] [["janet_cfun_stream_read" events/cfun-read] ["janet_cfun_stream_chunk" events/cfun-chunk]
                ["janet_cfun_stream_write" events/cfun-write] ["janet_stream_flags" events/readable-stream?]]
  (case-of (string name " of other things")
    (def arguments (if (= f events/readable-stream?) [] [1]))
    (with [datagrams (net/listen "127.0.0.1" "0" :datagram)]
      (with [closed (net/connect ;(net/localname tcp))]
        (:close (net/accept tcp))
        (:close closed)
        (seq [it :in [tcp datagrams closed]]
          (if (and (= it datagrams) (not= f events/readable-stream?)) nil (outcome (f it ;arguments))))))))
(case-of "janet_cfun_stream_close twice"
  (def [near far] (tcp-pair))
  (def results [(outcome (events/cfun-close near)) (outcome (events/cfun-close near)) (outcome (net/read far 10))])
  (:close far)
  results)

# Triggers

(case-of "a listener stays level-triggered"
  (with [listener (net/listen "127.0.0.1" "0")]
    (events/level listener)
    (def address (net/localname listener))
    (def first-client (net/connect ;address))
    (:close (net/accept listener))
    (def clients (seq [_ :range [0 5]] (net/connect ;address)))
    (def accepted @[])
    (def count (events/accept-each listener (fn [it] (array/push accepted it)) 5))
    (while (< (length accepted) 5) (ev/sleep 0))
    (each it [first-client ;clients ;accepted] (:close it))
    count))

# Descriptors

(each [name make] kinds
  (case-of (string name ", is non-blocking")
    (closing make (fn [near far] (repeat 20 (round-trip near far)))
             (fn [near far] (map events/nonblocking? [near far])))))
(case-of "listeners and datagram sockets are non-blocking"
  (with [listener (net/listen "127.0.0.1" "0")]
    (with [server (net/listen "127.0.0.1" "0" :datagram)]
      (with [client (net/connect ;(net/localname server) :datagram)]
        (map events/nonblocking? [listener server client])))))
(each [kind make] [["tcp" tcp-pair] ["unix" unix-pair]]
  (case-of (string kind ", given to a process")
    (closing make (fn [near far] (repeat 20 (round-trip near far)))
             (fn [near far]
               (net/write near "before ")
               (def status (os/execute ["sh" "-c" "echo from the process"] :p {:out near}))
               (events/raw-send near "after")
               [status (outcome (net/chunk far 29)) (events/nonblocking? near)
                (do (net/write far "back") (outcome (events/recv near 10)))])))
  (case-of (string kind ", made a file")
    (closing make (fn [near far] (repeat 20 (round-trip near far)))
             (fn [near far]
               (net/write near "before ")
               (def file (ev/to-file near))
               (file/write file "file ")
               (file/flush file)
               (events/raw-send near "raw ")
               (net/write near "end")
               (def bytes (outcome (net/chunk far 19)))
               (:close file)
               (net/write far "back")
               [bytes (outcome (events/recv near 10))])))
  (case-of (string kind ", with the methods of another stream")
    (closing make (fn [&])
             (fn [near far]
               (def [like other] (events/like near))
               (events/raw-send other "one")
               (def texts @[(outcome (events/recv like 10))])
               (events/raw-send other "two")
               (array/push texts (outcome (:read like 10)))
               (def reading (started (events/recv like 10)))
               (events/raw-send other "three")
               (array/push texts (result reading))
               (:close like)
               (events/close-descriptor other)
               texts))))
(say-what-is-left at-start)

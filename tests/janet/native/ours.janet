# What the VM's own network code loses or hangs on: several waiters of one direction, streams in threads and in forked
# children, bytes of reads that were cancelled, descriptors that C code takes over. Each line starts with `ok` if it is
# as it has to be.

(import ./calling)
(import ./events)
(use ./matrix)

(defmacro check
  "Prints whether forms come to what is expected."
  [title expected & body]
  (with-syms [results]
    ~(do
       (def ,results (outcome (ev/with-deadline 20 ,;body)))
       (if (deep= ,results ,expected)
         (print "ok " ,title)
         (printf "WRONG %s: %q, expected %q" ,title ,results ,expected))
       (flush))))

(defn arrived [descriptor] (events/arrived descriptor) descriptor)

(def readers
  [["janet_ev_read" events/read] ["janet_ev_readchunk" events/readchunk] ["janet_ev_recv" events/recv]
   ["janet_ev_recvchunk" events/recvchunk] ["janet_cfun_stream_read" events/cfun-read]
   ["janet_cfun_stream_chunk" events/cfun-chunk]])

# Reads that are given up

(each [kind make] kinds
  (each [name read] readers
    (each [how give-up] [["cancelled" (fn [reading] (ev/cancel (reading :fiber) "stop"))]
                         ["at a deadline" (fn [reading] (ev/deadline 0.001 (reading :fiber)))]]
      (check (string/join [kind name "after a read of Janet" how] ", ") ["kept " "later"]
        (closing make (fn [&])
                 (fn [near far]
                   (def reading (started (net/chunk near 100)))
                   (net/write far "kept ")
                   (settle)
                   (give-up reading)
                   (result reading)
                   (def kept (outcome (read near 5)))
                   (net/write far "later")
                   [kept (outcome (read near 5))]))))))

(each [kind make] kinds
  (check (string kind ", a chunk of C goes on after what was kept") "kept later"
    (closing make (fn [&])
             (fn [near far]
               (def reading (started (net/chunk near 100)))
               (net/write far "kept ")
               (settle)
               (ev/cancel (reading :fiber) "stop")
               (result reading)
               (def chunk (started (events/recvchunk near 10)))
               (net/write far "later")
               (result chunk)))))

# Several waiters

(each [kind make] kinds
  (check (string kind ", readers of Janet and of C") (sorted ["one" "two" "thr" "fou"])
    (closing make (fn [near far] (repeat 20 (round-trip near far)))
             (fn [near far]
               (def readings (seq [read :in [net/read events/recv net/read]] (started (read near 3))))
               (net/write far "one")
               (settle)
               (net/write far "two")
               (settle)
               (net/write far "thr")
               (def texts (map result readings))
               (net/write far "fou")
               (sorted [;texts (outcome (net/read near 3))]))))
  (check (string kind ", a large write of Janet and one of C") [700_000 true nil nil]
    (closing make (fn [near far] (events/small-buffers near))
             (fn [near far]
               (def writings [(started (net/write near (string/repeat "a" 400_000)))
                              (started (events/send-string near (string/repeat "b" 300_000)))])
               (def bytes (net/chunk far 700_000))
               [(length bytes) (= 300_000 (length (filter (fn [byte] (= byte 98)) bytes))) ;(map result writings)])))
  (check (string kind ", closed while readers of Janet and of C wait") @[nil nil nil]
    (closing make (fn [&])
             (fn [near far]
               (def readings (seq [read :in [net/read events/recv net/read]] (started (read near 3))))
               (events/close near)
               (map result readings)))))

# Threads

(defn in-thread
  "What a function comes to in another thread, which has a VM of its own."
  [f & arguments]
  (def channel (ev/thread-chan 1))
  (ev/spawn-thread (ev/give channel (try (f ;arguments) ([fault] [:error fault]))))
  (ev/take channel))

(each [kind make] kinds
  (check (string kind ", C code reads and writes in a thread") ["from the thread" "answer"]
    (closing make (fn [near far] (repeat 20 (round-trip near far)))
             (fn [near far]
               (def said
                 (started (in-thread
                            (fn [stream]
                              (events/send-string stream "from the thread")
                              (string (events/recv stream 100)))
                            near)))
               (def heard (outcome (events/recv far 100)))
               (net/write far "answer")
               [heard (result said)]))))

(check "a listener, C code accepts in a thread" ["hello" nil]
  (with [listener (net/listen "127.0.0.1" "0")]
    (def address (net/localname listener))
    (def served
      (started (in-thread
                 (fn [stream]
                   (def connection (events/async-accept stream))
                   (events/send-string connection "hello")
                   (:close connection)
                   nil)
                 listener)))
    (def client (net/connect ;address))
    (def texts [(outcome (net/read client 10)) (outcome (net/read client 10))])
    (result served)
    (:close client)
    texts))

(check "a datagram socket, C code receives in a thread" "datagram"
  (with [server (net/listen "127.0.0.1" "0" :datagram)]
    (def received (started (in-thread (fn [stream] (string (events/recv stream 10))) server)))
    (with [client (net/connect ;(net/localname server) :datagram)] (net/write client "datagram"))
    (result received)))

(check "streams given to threads leave no registration" true
  (do
    (def before (events/registrations))
    (repeat 5
      (def [reader writer] (os/pipe))
      (in-thread (fn [stream] nil) reader)
      (:close reader)
      (:close writer)
      (def [near far] (tcp-pair))
      (started (events/recv near 10))
      (in-thread (fn [stream] nil) near)
      (:close near)
      (:close far)
      (settle))
    # Those of the threads go with them.
    (while (> (events/registrations) before) (ev/sleep 0))
    true))

# Forked children

(defn in-child
  "Runs a function in a forked child; the child's exit status is 0 if it comes to true."
  [f]
  (def child (os/posix-fork))
  (if child
    (os/proc-wait child)
    (os/exit (if (= true (try (f) ([_] false))) 0 1))))

(each [kind make] kinds
  (each [state prepare]
    [["fresh" (fn [near far])]
     ["busy" (fn [near far] (repeat 50 (round-trip near far)))]
     ["lent" (fn [near far] (net/write far "x") (events/recv near 1))]
     ["waited for" (fn [near far] (started (events/recv near 1)))]]
    (def closers [events/close |(:close $) events/cfun-close])
    (check (string/join [kind state "used by C in a forked child"] ", ") [0 "from the child" "pong"]
      (closing make prepare
               (fn [near far]
                 (def status
                   (in-child
                     (fn []
                       (events/send-string near "from the child")
                       (each close closers
                         (def [a b] (make))
                         (def reading (started (events/recv a 10)))
                         (close a)
                         (result reading)
                         (:close b)
                         (settle))
                       # Those of cancelled operations of ours go in a turn of the loop.
                       (while (> (events/registrations :closed) 0) (ev/sleep 0))
                       true)))
                 (def heard (outcome (net/read far 100)))
                 (if (= state "waited for") (do (net/write far "x") (settle)))
                 (net/write far "ping")
                 (events/recvchunk near 4)
                 (net/write near "pong")
                 [status heard (outcome (events/recv far 4))])))
    (check (string/join [kind state "closed in a forked child"] ", ") [0 "pong"]
      (closing make prepare
               (fn [near far]
                 (def status
                   (in-child
                     (fn []
                       (each close closers (close near))
                       (gccollect)
                       (net/write far "")
                       (events/close far)
                       true)))
                 (if (= state "waited for") (do (net/write far "x") (settle)))
                 [status (outcome (round-trip near far))])))))

# Descriptors that C code takes over

(each [kind make] kinds
  (check (string kind ", whose descriptor is taken over") [[:error "Bad file descriptor"] "there" "back"]
    (do
      (def [near far] (make))
      (repeat 20 (round-trip near far))
      (def descriptor (events/take-over near))
      (def fault (outcome (net/read near 10)))
      (:close near)
      (gccollect)
      (settle)
      (net/write far "there")
      (events/raw-send descriptor "back")
      (def texts [(events/raw-recv (arrived descriptor) 10) (string (net/read far 10))])
      (events/close-descriptor descriptor)
      (:close far)
      [fault ;texts]))
  (check (string kind ", whose descriptor another closes") [nil ["pong" "pong" "pong"]]
    (do
      (def [near far] (make))
      (repeat 20 (round-trip near far))
      (events/close-descriptor (events/take-over near))
      (def pairs (seq [_ :range [0 3]] (make)))
      (def ended (outcome (net/read far 10)))
      (:close near)
      (gccollect)
      (settle)
      (def trips (seq [[a b] :in pairs] (outcome (round-trip a b))))
      (each pair pairs (each it pair (:close it)))
      (:close far)
      [ended (tuple ;trips)]))
  (each [how close] [["by Janet" |(:close $)] ["by C" events/close]]
    (check (string kind ", kept open when closed " how) ["there" "back"]
      (do
        (def [near far] (make))
        (repeat 20 (round-trip near far))
        (def descriptor (events/keep-open near))
        (close near)
        (settle)
        (net/write far "there")
        (events/raw-send descriptor "back")
        (def texts [(events/raw-recv (arrived descriptor) 10) (string (net/read far 10))])
        (events/close-descriptor descriptor)
        (:close far)
        texts))))

(defn- taken [take make]
  (def [near far] (make))
  (round-trip near far)
  (net/write far "x")
  (events/recv near 10)
  [(take near) far])

(check "the collector takes what was taken over or kept open" (seq [_ :range [0 8]] "there")
  (do
    (def descriptors (seq [take :in [events/take-over events/keep-open] [_ make] :in kinds] (taken take make)))
    (repeat 3 (gccollect) (settle))
    (seq [[descriptor far] :in descriptors]
      (net/write far "there")
      (defer (do (events/close-descriptor descriptor) (:close far)) (events/raw-recv (arrived descriptor) 10)))))

(defn- lend-and-drop [make]
  (def [near far] (make))
  (net/write far "x")
  (events/recv near 1)
  (events/level near)
  (events/edge far))

(check "the collector takes lent streams" true
  (do
    (def before (events/registrations))
    (repeat 20 (each [_ make] kinds (lend-and-drop make)))
    (repeat 3 (gccollect) (settle))
    # What is still on the stack may be one.
    (<= (events/registrations) (+ 2 before))))

# The VM's own code ends the process here.
(each [kind make] kinds
  (check (string kind ", a wait after one that C code has left behind")
    [false "by" "tes"]
    (closing make (fn [&])
             (fn [near far]
               (def waiting
                 (started (def [returned] (calling/try (fn [] (net/read near 5))))
                          [returned (string (net/read near 2)) (string (net/read near 5))]))
               (net/write far "bytes")
               (result waiting)))))

(:close tcp)
(:close unix)
(os/rm unix-path)

# A storm of cancellations: every operation on a socket, ended by every means, at random moments.
#
# storm.rs puts definitions of `seed`, `target` and `full-port` in front of this text. The value is the
# count of each kind of cancellation that hit, and what went wrong.

(def random (math/rng seed))
(defn below [n] (math/rng-int random n))
(defn chance [n] (zero? (below n)))

(def hits @{})
(var total 0)
(def mismatches @[])
(defn check [ok & text] (unless ok (array/push mismatches (string ;text))))

(defn hit [operation means]
  (++ total)
  (update hits (string operation "/" means) (fn [count] (inc (or count 0)))))

(def means-of
  {"cancelled by the storm" :cancel
   "deadline expired" :deadline
   "timeout" :timeout
   "stream closed" :close
   "stream is closed" :close
   "Connection reset by peer" :reset
   "Broken pipe" :reset
   "disconnect" :reset
   "Connection refused" :refused
   # A Unix socket for datagrams is told once that its peer is gone, which may be in a send that was given up.
   "Transport endpoint is not connected" :refused})

# An operation gives [:ok value], or [means]. Nothing is raised.
(defn attempt [operation thunk]
  (try
    [:ok (thunk)]
    ([error]
      (def means (get means-of error))
      (check means operation " failed: " error)
      (unless (= means :refused) (hit operation means))
      [means])))

(defn over? [means] (index-of means [:close :reset :refused nil]))

# A name in the abstract namespace that nobody else uses: nothing is left of it.
(var names 0)
(defn unix-name [] (++ names) (string "@ringspun-janet-storm-" (os/getpid) "-" seed "-" names))

# Under no limit, a deadline, or one that names the fiber to cancel and the one to check.
(defn limited [thunk]
  (case (below 3)
    0 (thunk)
    1 (ev/with-deadline (/ (below 3) 1000) (thunk))
    (let [inner (fiber/new thunk)]
      (ev/deadline (/ (below 3) 1000) (fiber/root) inner)
      (resume inner))))

(defn timeout [] (if (chance 2) (/ (below 3) 1000)))

(defn rest []
  (case (below 6)
    0 (attempt :sleep |(ev/sleep (/ (below 3) 1000)))
    1 (attempt :sleep |(ev/sleep 0))
    2 (when (chance 100) (gccollect))))

# A fiber that can be cancelled once it has begun, and that tells `done` when it has ended.
(defn worker [done body]
  (def state @{})
  (put state :fiber
    (ev/spawn
      (put state :running true)
      (put state :outcome
        (try (body)
          ([error fiber] (check false "a worker failed: " error) (debug/stacktrace fiber error ""))))
      (put state :running false)
      (ev/give done state)))
  state)

(defn cancel [state]
  (when (state :running) (ev/cancel (state :fiber) "cancelled by the storm")))

# Cancels at random until all have ended, or so many times.
(defn harass [workers &opt times]
  (var left (or times math/inf))
  (while (and (pos? left) (some |($ :running) workers))
    (-- left)
    (cancel (in workers (below (length workers))))
    (ev/sleep (if (chance 2) 0 0.001))))

(defn take-all [done workers] (each _ workers (ev/take done)))

# The byte at each position of a stream.
(def period 65521)
(def pattern-bytes
  (let [once (buffer/new period)]
    (for i 0 period (buffer/push-byte once (band (bxor i (brshift i 8)) 0xFF)))
    (string/repeat once 64)))
(defn pattern [start size]
  (def from (% start period))
  (string/slice pattern-bytes from (+ from size)))

(defn unix-pair []
  (def name (unix-name))
  (with [listener (net/listen :unix name)]
    (def client (net/connect :unix name))
    [client (net/accept listener)]))

(defn pair []
  (def listener (net/listen "127.0.0.1" "0"))
  (def [host port] (net/localname listener))
  (def client (net/connect host port))
  (var served (net/accept listener))
  # Ports are reused: a client of an earlier listener may have found this one.
  (while (not= (net/peername served) (net/localname client))
    (:close served)
    (set served (net/accept listener)))
  (:close listener)
  [client served])

# Writes until a write is interrupted: how much of it was taken is not told. Gives the bounds.
(defn send [stream pieces]
  (var written 0)
  (var uncertain 0)
  (for _ 0 pieces
    (def large (chance 10))
    (def operation (if large :large-write :write))
    # More than the kernel takes at once, unless it is read meanwhile.
    (def size (inc (below (if large 4000000 300))))
    (def data (pattern written size))
    # A buffer may be changed while it is written from; here it is dropped.
    (def [means] (attempt operation |(limited |(:write stream (if (chance 2) data (buffer data)) (timeout)))))
    (if (= means :ok)
      (+= written size)
      (do (set uncertain size) (break)))
    (rest))
  [written (+ written uncertain)])

# Reads to the end, whatever interrupts it. What an interrupted read has is in its buffer.
(defn receive [stream]
  (var received 0)
  (var ended false)
  (while (not ended)
    (def buffer @"")
    (def size (inc (below (if (chance 2) 2000 200000))))
    (def operation (if (chance 2) :read :chunk))
    (def [means value]
      (attempt operation
        |(limited
           |(if (= operation :read)
              (:read stream size buffer (timeout))
              (:chunk stream size buffer (timeout))))))
    (def count (length buffer))
    (check (= (string buffer) (pattern received count)) "wrong bytes at " received)
    (+= received count)
    (set ended (or (over? means) (and (= means :ok) (nil? value))))
    (rest))
  received)

(defn transfer []
  (def [client served] (if (chance 4) (unix-pair) (pair)))
  (def done (ev/chan 2))
  (def properly (chance 2))
  (def sender
    (worker done
      (fn []
        (def sent (send client (+ 5 (below 60))))
        (if properly
          (protect (net/shutdown client :w))
          (:close client))
        sent)))
  (def receiver (worker done |(receive served)))
  (def cut-short (chance 3))
  # Without a pause at the start, so that fibers are cancelled that have just begun.
  (ev/sleep 0)
  (harass [sender receiver receiver receiver] (if cut-short (below 20) (below 200)))
  (when cut-short
    (case (below 3)
      0 (:close client)
      1 (:close served)
      (do (:close served) (:close client))))
  (take-all done [sender receiver])
  (def [least most] (sender :outcome))
  (def received (receiver :outcome))
  (unless cut-short (check (>= received least) received " bytes received, at least " least " written"))
  (check (<= received most) received " bytes received, at most " most " written")
  # The rest is left to the collector.
  (when (chance 2) (:close client) (:close served)))

(defn connect-and-read [host port]
  (def [means stream] (attempt :connect |(limited |(net/connect host port))))
  (when stream
    (attempt :read |(net/read stream 10 @"" (/ (below 3) 1000)))
    (when (chance 2) (:close stream)))
  means)

(defn accepting []
  (def listener (net/listen "127.0.0.1" "0"))
  (def [host port] (net/localname listener))
  (def done (ev/chan 6))
  (defn accept []
    (var going true)
    (while going
      (def [means stream] (attempt :accept |(limited |(net/accept listener (timeout)))))
      (when (and (= means :ok) (nil? stream)) (hit :accept :close))
      (when (and stream (chance 2)) (:close stream))
      (set going (not (or (over? means) (and (= means :ok) (nil? stream)))))
      (rest)))
  (defn connect []
    (for _ 0 10 (if (= :refused (connect-and-read host port)) (break))))
  (def workers (seq [body :in [accept accept accept connect connect connect]] (worker done body)))
  (ev/sleep 0)
  (harass workers (below 40))
  (:close listener)
  (take-all done workers))

(defn serving []
  (def listener (net/listen "127.0.0.1" "0"))
  (def [host port] (net/localname listener))
  (def done (ev/chan 5))
  (defn handle [stream]
    (def buffer @"")
    (var going true)
    (while going
      (buffer/clear buffer)
      (def [means value] (attempt :read |(net/read stream 1000 buffer)))
      (set going (and (= means :ok) value (= :ok (first (attempt :write |(net/write stream buffer)))))))
    (when (chance 2) (:close stream)))
  (def server
    (worker done
      (fn []
        (var ended false)
        (while (not ended)
          (def [means] (attempt :accept-loop |(net/accept-loop listener handle)))
          (set ended (or (= means :ok) (= means :close))))
        (hit :accept-loop :close))))
  (defn ask []
    (for _ 0 5
      (def [_ stream] (attempt :connect |(limited |(net/connect host port))))
      (when stream
        (def data (pattern 0 (inc (below 2000))))
        (def [means] (attempt :write |(net/write stream data (timeout))))
        (when (= means :ok)
          (def answer @"")
          (attempt :chunk |(net/chunk stream (length data) answer (/ (below 20) 1000)))
          (check (string/has-prefix? answer data) "a wrong answer"))
        (:close stream))))
  (def clients (seq [_ :range [0 4]] (worker done ask)))
  (ev/sleep 0)
  (while (some |($ :running) clients)
    (cancel (if (chance 3) server (in clients (below 4))))
    (ev/sleep (if (chance 2) 0 0.001)))
  (:close listener)
  (take-all done [server ;clients]))

# Connects to a listener that answers nobody.
(defn connecting []
  (def done (ev/chan 6))
  (def workers
    (seq [_ :range [0 6]]
      (worker done (fn [] (for _ 0 8 (attempt :connect |(limited |(net/connect "127.0.0.1" full-port))))))))
  (ev/sleep 0)
  (harass workers)
  (take-all done workers))

# Sends datagrams with their numbers in front, until so many have gone. One that was interrupted may have been
# sent all the same, which nobody tells, so its number is not used again.
(defn send-datagrams [socket to id]
  (var certain 0)
  (def count (+ 10 (below 40)))
  (var ended false)
  (for number 0 count
    (unless ended
      (def size (below (if (chance 16) 60000 2000)))
      (def data (buffer/push (buffer id " " number " ") (pattern number size)))
      (def [means]
        (attempt :send-to
          |(limited |(if to (net/send-to socket to data (timeout)) (net/write socket data (timeout))))))
      (if (= means :ok) (++ certain))
      (set ended (over? means))
      (when (chance 4) (rest))))
  certain)

# Receives until the socket is closed; `received` has each datagram's sender and number, and their count. One that
# a fiber was to get that something else has resumed goes back, behind the back of those that read meanwhile.
(defn receive-datagrams [socket received]
  (var ended false)
  (while (not ended)
    (def buffer @"")
    (def own (chance 2))
    (def [means value]
      (attempt (if own :read-datagram :receive-from)
        |(limited
           |(if own
              (net/read socket 70000 nil (timeout))
              (net/recv-from socket 70000 buffer (timeout))))))
    # What an interrupted one has taken is in its buffer, if that is the program's.
    (def datagram (if own (if (bytes? value) value @"") buffer))
    (unless (empty? datagram)
      (def [id number] (map scan-number (string/split " " datagram 0 3)))
      (def head (length (string id " " number " ")))
      (check (not (in received [id number])) "datagram " number " of " id " came twice")
      (check (= (string/slice datagram head) (pattern number (- (length datagram) head))) "wrong bytes")
      (put received [id number] true)
      (update received :count inc))
    (set ended (or (over? means) (and (= means :ok) (nil? value))))
    # Longer than it takes to fill the queue of a Unix socket.
    (repeat (* (below 3) (below 3)) (rest)))
  true)

(defn datagrams []
  # Unix sockets lose nothing.
  (def lossless (not (chance 3)))
  (defn bound [] (if lossless (net/listen :unix (unix-name) :datagram) (net/listen "127.0.0.1" 0 :datagram)))
  (def server (bound))
  (def place (if lossless [:unix (first (net/localname server))] (net/localname server)))
  (def to (net/address ;place :datagram))
  (def shared (bound))
  (def received @{:count 0})
  (def done (ev/chan 6))
  (def senders
    (seq [id :range [0 4]]
      (worker done
        (if (even? id)
          |(send-datagrams shared to id)
          (let [socket (net/connect ;place :datagram)] |(send-datagrams socket nil id))))))
  (def receivers (seq [_ :range [0 2]] (worker done |(receive-datagrams server received))))
  (def cut-short (chance 3))
  (ev/sleep 0)
  (if cut-short
    (do
      (harass [;senders ;receivers] (below 40))
      (:close (if (chance 2) shared server))
      (:close server))
    (while (some |($ :running) senders) (harass [;senders ;receivers] 1)))
  (unless cut-short
    (def certain (sum (map |(or ($ :outcome) 0) senders)))
    (var rounds 0)
    (while (and lossless (< rounds 60000) (< (received :count) certain))
      (++ rounds)
      (ev/sleep 0.001))
    (when lossless
      (check (>= (received :count) certain) (received :count) " received, at least " certain " sent"))
    (:close server))
  (take-all done [;senders ;receivers])
  (when (chance 2) (:close shared)))

# Fibers that wait for names, and that connect by them.
(defn lookups []
  (def listener (net/listen "localhost" "0"))
  (def port (in (net/localname listener) 1))
  (def accepting (ev/spawn (net/accept-loop listener (fn [stream] (:close stream)))))
  (def done (ev/chan 6))
  (defn look-up []
    (for _ 0 8
      (case (below 3)
        0 (attempt :look-up |(limited |(net/address "localhost" port)))
        1 (attempt :look-up |(limited |(net/connect "localhost" port :datagram)))
        (attempt :connect |(limited |(net/connect "localhost" port :stream (if (chance 2) "localhost")))))))
  (def workers (seq [_ :range [0 6]] (worker done look-up)))
  (ev/sleep 0)
  (harass workers)
  (:close listener)
  (take-all done workers))

(def scenes
  [transfer transfer transfer transfer transfer transfer accepting serving connecting datagrams datagrams
   lookups])
(while (< total target)
  (def done (ev/chan 40))
  (for _ 0 40
    (def scene (in scenes (below (length scenes))))
    (ev/spawn
      (try (scene) ([error fiber] (check false "a scene failed: " error) (debug/stacktrace fiber error "")))
      (ev/give done true)))
  (for _ 0 40 (ev/take done)))

# A connect whose result was overtaken by a cancel leaves a stream to the collector, and a handler that
# waits for its end.
(var rounds 0)
(while (and (< rounds 60000) (> (length (ev/all-tasks)) 1))
  (++ rounds)
  (gccollect)
  (ev/sleep 0.001))
(check (= 1 (length (ev/all-tasks))) (length (ev/all-tasks)) " fibers are left")

(def kinds (sort (pairs hits)))
(string total " " (length mismatches) "\n"
  (string/join (map (fn [[kind count]] (string/format "%-24s%8d" kind count)) kinds) "\n")
  "\n"
  (string/join (take 10 mismatches) "\n"))

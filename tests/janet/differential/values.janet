### how every kind of stream shows itself
(def [client peer] (connected))
(def [server sender] (datagrams))
(def path (socket-path))
(def unix (net/listen :unix path))
(def [reader writer] (os/pipe))
(def streams [client (net/listen "127.0.0.1" "0") server sender unix (net/socket :stream :ipv4) reader])
(each stream streams
  (print stream)
  (print (describe stream))
  (printf "%q %p %V %v %t" stream stream stream stream stream)
  (print (type stream) " " (abstract? stream) " " (bytes? stream) " " (indexed? stream) " " (dictionary? stream)))
(each stream [peer writer ;streams] (:close stream))
(each stream streams (printf "%s %q %t" (string stream) stream stream))
(os/rm path)

### streams in data
(def [client peer] (connected))
(def data @{:client client :both [client peer] client :by-itself})
(show (data client))
(show (= client (data :client) (get-in data [:both 0])))
(show (index-of peer (data :both)))
(show (deep= [client] [client]))
(show (deep= [client] [peer]))
(show (= (hash client) (hash client)))
(show (has-value? (data :both) client))
(show (distinct [1 2 1]))
(show (= 2 (length (distinct [client peer client peer]))))
(:close client)
(show (data client))
(:close peer)

### order among streams is total
(def [client peer] (connected))
(show (= (< client peer) (> peer client)))
(show (not= (< client peer) (< peer client)))
(show (= 0 (compare client client)))
(show (= 2 (length (sort @[client peer]))))
(show (type (first (sorted [client 5]))))
(show (type (first (sorted [client "text"]))))
(:close client)
(:close peer)

### closing twice, by every way
(def [client peer] (connected))
(show (= client (:close client)))
(show (= client (:close client) (ev/close client) ((client :close) client)))
(show (= peer (with [stream peer] stream)))
(show (= peer (:close peer)))
(def listener (net/listen "127.0.0.1" "0"))
(repeat 2 (show (= listener (:close listener))))

### a closed stream still has its methods
(def [client peer] (connected))
(:close client)
(:close peer)
(show (keys client))
(show (= net/read (client :read)))
(show (client :no-such-method))
(show (:read client 10))
(show (:evread client 10))
(show (:evchunk client 10))
(show (:evwrite client "x"))
(show (:accept client))
(show (:shutdown client))
(show (:recv-from client 10 @""))

### methods are called with what they are given
(def [client peer] (connected))
(show (:write client))
(show (:read client))
(show (:chunk client))
(show (:accept-loop client))
(show (:no-such-method client 1 2))
(show (client :read 1))
(show (client))
(def method :write)
(show (method client "by a keyword in a variable"))
(show (:read peer 100))
(show (map |($ client) [:flush]))
(:close client)
(:close peer)

### streams are no functions, tables or buffers
(def [client peer] (connected))
(show (put client :key "value"))
(show (set (client :key) "value"))
(show (length client))
(show (empty? client))
(show (next client :no-such-key))
(show (buffer/push @"" client))
(show (string/bytes client))
(show (+ client 1))
(show (merge @{} client))
(show (table/to-struct client))
(:close client)
(:close peer)

### a stream that is forgotten is closed
(defn descriptors [] (length (os/dir "/proc/self/fd")))
(connected)
(gccollect)
(def before (descriptors))
(repeat 50 (connected))
(gccollect)
(settle)
(gccollect)
(show (< (- (descriptors) before) 20))

### the other side sees a forgotten stream's end
(def listener (net/listen "127.0.0.1" "0"))
(defn forget [] (net/write (net/connect ;(net/localname listener)) "last words") nil)
(forget)
(def peer (net/accept listener))
# Whatever the stack still holds is written over.
(defn deep [n] (if (> n 0) (+ 1 (deep (- n 1))) 0))
(deep 100)
(gccollect)
(show (net/chunk peer 10))
(show (net/read peer 10 @"" 60))
(:close peer)
(:close listener)

### a stream in which a fiber waits is not forgotten
(def answers (ev/chan 10))
(do
  (def listener (net/listen "127.0.0.1" "0"))
  (def client (net/connect ;(net/localname listener)))
  (def peer (net/accept listener))
  (:close listener)
  (ev/spawn (ev/give answers (net/read client 100)))
  (ev/spawn (ev/sleep 0.005) (net/write peer "not forgotten")))
(repeat 3 (settle) (gccollect))
(show (ev/take answers))

### streams cannot be marshalled
(def [client peer] (connected))
(def listener (net/listen "127.0.0.1" "0"))
(show (marshal client))
(show (marshal [1 listener]))
(show (marshal @{:stream peer}))
(show (marshal (fn [] client)))
(show (unmarshal "\xd9"))
(:close client)
(show (marshal client))
(:close peer)
(:close listener)

### a closure over a stream cannot be marshalled, but a fiber can use it
(def [client peer] (connected))
(defn make [] (fn [] (net/write client "by a closure")))
(def fiber (fiber/new (make) :e))
(show (marshal fiber))
(resume fiber)
(show (fiber/status fiber))
(show (net/read peer 100))
(:close client)
(:close peer)

### streams go through channels
(def channel (ev/chan 10))
(def [client peer] (connected))
(ev/give channel client)
(show (= client (ev/take channel)))
(ev/give channel [peer :with "company"])
(show (= peer (first (ev/take channel))))
(:close client)
(:close peer)

### select between channels that readers feed
(def [a b] (connected))
(def [c d] (connected))
(def from-a (ev/chan))
(def from-c (ev/chan))
(ev/spawn (while (def bytes (net/read a 100)) (ev/give from-a (string bytes))) (ev/chan-close from-a))
(ev/spawn (while (def bytes (net/read c 100)) (ev/give from-c (string bytes))) (ev/chan-close from-c))
(net/write b "to a")
(def [kind channel bytes] (ev/select from-a from-c))
(show [kind (= channel from-a) bytes])
(net/write d "to c")
(def [kind channel bytes] (ev/select from-a from-c))
(show [kind (= channel from-c) bytes])
(:close b)
(def [kind channel] (ev/select from-a from-c))
(show [kind (= channel from-a)])
(net/write d "still")
(def [kind channel bytes] (ev/rselect from-c))
(show [kind bytes])
(each stream [a c d] (:close stream))

### select between what was read and being told to stop
(def [client peer] (connected))
(def stop (ev/chan 1))
(def received (ev/chan 1))
(ev/spawn (while (def bytes (net/read client 10)) (ev/give received (string bytes))))
(defn next-event []
  (match (ev/select received stop)
    [:take channel value] (string (if (= channel stop) "told " "read ") value)))
(ev/spawn (ev/sleep 0.001) (net/write peer "bytes"))
(show (next-event))
(ev/spawn (ev/sleep 0.001) (ev/give stop "enough"))
(show (next-event))
(net/write peer "more")
(show (next-event))
(:close client)
(:close peer)

### the winner of a race
(def [a b] (connected))
(def [c d] (connected))
(def winner (ev/chan 10))
(each [name stream] [[:a a] [:c c]] (ev/spawn (ev/give winner [name (string (net/read stream 100))])))
(settle)
(net/write d "first")
(show (ev/take winner))
(net/write b "second")
(show (ev/take winner))
(each stream [a b c d] (:close stream))

### many readers feed one channel
(def pairs (seq [_ :range [0 20]] (connected)))
(def channel (ev/chan))
(each [client _] pairs (ev/spawn (ev/give channel (scan-number (net/read client 10)))))
(eachp [number [_ peer]] pairs (net/write peer (string number)))
(show (deep= (range 20) (sort (seq [_ :in pairs] (ev/take channel)))))
(each [client peer] pairs (:close client) (:close peer))

### a pipeline of a process, a file and a socket
(def [client peer] (connected))
(def path (socket-path "-file"))
(def process (os/spawn ["tr" "a-z" "A-Z"] :p {:in :pipe :out :pipe}))
(def file (os/open path :wct))
(ev/spawn
  (while (def bytes (net/read client 100)) (ev/write (process :in) bytes))
  (:close (process :in)))
(net/write peer "through everything\n")
(:close peer)
(while (def bytes (ev/read (process :out) 100)) (ev/write file bytes))
(:close file)
(show (os/proc-wait process))
(show (slurp path))
(os/rm path)
(:close client)

### several processes talk to a server through pipes
(def server
  (net/server "127.0.0.1" "0"
    (fn [connection]
      (defer (:close connection)
        (net/write connection (string/ascii-upper (net/chunk connection 5)))))))
(def answers
  (seq [word :in ["hello" "world" "again"]]
    (def process (os/spawn ["sh" "-c" (string "printf " word)] :p {:out :pipe}))
    (def word (ev/read (process :out) :all))
    (os/proc-wait process)
    (with [client (net/connect ;(net/localname server))]
      (net/write client word)
      (string (net/read client :all)))))
(show answers)
(:close server)

### a process reads from a socket and writes to it
(def [client peer] (connected))
(net/write peer "b\na\n")
(net/shutdown peer :w)
(show (os/execute ["sort"] :p {:in client :out client}))
(:close client)
(show (net/read peer :all))
(:close peer)

### pipes beside sockets, in many fibers
(def pairs (seq [_ :range [0 10]] (os/pipe)))
(def [client peer] (connected))
(each [reader _] pairs (ev/spawn (net/write client (ev/read reader 1))))
(eachp [number [_ writer]] pairs (ev/write writer (string number)) (:close writer))
(show (sort (array ;(string/bytes (net/chunk peer 10)))))
(each [reader _] pairs (:close reader))
(:close client)
(:close peer)

### a socket as a file, by line
(def [client peer] (connected))
(def file (ev/to-file peer))
(show (type file))
(net/write client "one\ntwo\nthree")
(net/shutdown client :w)
(settle)
(show (file/read file :line))
(show (file/read file :line))
(show (file/read file :all))
(show (file/read file :line))
(file/close file)
(show (= client (:close client)))
(:close peer)

### what cannot be a file
(def [client peer] (connected))
(:close client)
(show (ev/to-file client))
(show (ev/to-file 5))
(show (ev/to-file))
(:close peer)

### writing to a socket as a file
(def [client peer] (connected))
(def file (ev/to-file client))
(xprintf file "%s and %d" "formatted" 5)
(xprin file " and more")
(file/flush file)
(show (net/read peer 100))
(file/close file)
(:close client)
(show (net/read peer 10))
(:close peer)

### output goes to a socket through a buffer
(def [client peer] (connected))
(def buffer @"")
(with-dyns [:out buffer] (print "printed") (prin "without an end"))
(net/write client buffer)
(show (net/read peer 100))
(with-dyns [:out (fn [bytes] (buffer/push buffer "|" bytes))] (prin "by a function"))
(net/write client buffer)
(show (net/read peer 100))
(:close client)
(:close peer)

### deadlines of several fibers
(def [client peer] (connected))
(def [second other] (connected))
(def results (ev/chan 10))
(ev/spawn (ev/give results [:short (protect (ev/with-deadline 0.002 (net/read client 10)))]))
(ev/spawn (ev/give results [:long (protect (ev/with-deadline 60 (net/read second 10)))]))
(show (ev/take results))
(net/write other "in time")
(show (ev/take results))
(each stream [client peer second other] (:close stream))

### a deadline around several operations
(def [client peer] (connected))
(show
  (ev/with-deadline 60
    (net/write peer "one")
    (def first (net/read client 10))
    (net/write peer "two")
    [first (net/read client 10)]))
(show (ev/with-deadline 0.005 (forever (net/write peer "x") (net/read client 10) (ev/sleep 0.001))))
# The deadline may have come between a write and its read: others have what is left.
(:close client)
(:close peer)
(def [client peer] (connected))
(show (ev/with-deadline 0.005 (ev/with-deadline 60 (net/read client 10))))
(show (ev/with-deadline 60 (protect (ev/with-deadline 0.005 (net/read client 10)))))
(:close client)
(:close peer)

### a deadline of a task
(def [client peer] (connected))
(def done (ev/chan))
(def task (ev/go (fn [] (ev/give done (protect (net/read client 10))))))
(ev/deadline 0.002 task task)
(show (ev/take done))
(net/write peer "after")
(show (net/read client 10))
(:close client)
(:close peer)

### a supervisor hears what becomes of net fibers
(def [client peer] (connected))
(def supervisor (ev/chan 10))
(defn supervised [task] (ev/go (fiber/new task :tp) nil supervisor))
(supervised (fn [] (net/read client "ten")))
(supervised (fn [] (net/read client 10 @"" 0.002)))
(supervised (fn [] (net/connect "127.0.0.1" "no-such-service")))
(supervised (fn [] (net/write client "fine") :written))
(def events (seq [_ :range [0 4]] (let [[kind fiber] (ev/take supervisor)] [kind (fiber/last-value fiber)])))
(each event (sort-by |(string/format "%q" $) events) (show event))
(:close client)
(:close peer)

### a supervisor of an accept loop hears its end
(def supervisor (ev/chan 10))
(def listener (net/listen "127.0.0.1" "0"))
(defn handle [connection] (:close connection))
(ev/go (fiber/new (fn [] (net/accept-loop listener handle)) :tp) nil supervisor)
(repeat 3
  (with [client (net/connect ;(net/localname listener))]
    (show (net/read client 10))))
(show (ev/count supervisor))
(:close listener)
(def [kind fiber] (ev/take supervisor))
(show [kind (fiber/last-value fiber)])

### a supervisor hears the errors that handlers pass on
(def supervisor (ev/chan 10))
(def listener (net/listen "127.0.0.1" "0"))
(defn handle [connection]
  (try (error "a handler fails") ([fault] (ev/give supervisor fault)))
  (:close connection))
(ev/go (fn [] (net/accept-loop listener handle)))
(repeat 2
  (with [client (net/connect ;(net/localname listener))]
    (show (ev/take supervisor))))
(:close listener)

### a supervisor hears user signals between reads
(def [client peer] (connected))
(def supervisor (ev/chan 10))
(def task (fn [] (signal 0 (string (net/read client 10))) (print "never")))
(ev/go (fiber/new task :tp0) nil supervisor)
(net/write peer "one")
(def [kind fiber] (ev/take supervisor))
(show [kind (fiber/last-value fiber) (fiber/status fiber)])
(:close client)
(:close peer)

### errors reach the fiber that waits
(def [client peer] (connected))
(def fiber
  (ev/go
    (fn []
      (try (net/read client 10) ([fault] (show fault)))
      (defer (print "deferred") (protect (net/read client 10)))
      (print "on"))))
(settle)
(ev/cancel fiber "cancelled once")
(settle)
(ev/cancel fiber "cancelled twice")
(settle)
(show (fiber/status fiber))
(:close client)
(:close peer)

### a fiber waits only while the loop runs it
(def [client peer] (connected))
(def fiber (fiber/new (fn [] (net/read client 10)) :e))
(net/write peer "bytes")
(show (resume fiber))
(show (fiber/status fiber))
(:close client)
(:close peer)

### generators over a stream
(def [client peer] (connected))
(net/write peer "a\nb\nc\n")
(:close peer)
(def lines
  (coro
    (def buffer @"")
    (while (net/read client 2 buffer)
      (while (def end (string/find "\n" buffer))
        (yield (string/slice buffer 0 end))
        (let [rest (string/slice buffer (+ end 1))] (buffer/clear buffer) (buffer/push buffer rest))))))
(show (seq [line :in lines] line))
(:close client)

### locks around a shared stream
(def [client peer] (connected))
(def turn (ev/chan 1))
(ev/give turn :free)
(defn exchange [word]
  (ev/take turn)
  (net/write client word)
  (def answer (string (net/chunk client (length word))))
  (ev/give turn :free)
  answer)
(ev/spawn (while (def bytes (net/read peer 100)) (net/write peer (string/ascii-upper bytes))) (:close peer))
(show (ev/gather (exchange "one") (exchange "two") (exchange "three")))
(:close client)
(settle)

### two machines in threads, each with its sockets
(def answers (ev/thread-chan 10))
(def ports (ev/thread-chan 10))
(ev/spawn-thread
  (def server (net/listen "127.0.0.1" "0"))
  (ev/give ports ((net/localname server) 1))
  (with [peer (net/accept server)]
    (while (def bytes (net/read peer 100)) (net/write peer (string/reverse bytes))))
  (ev/give answers :server-done))
(ev/spawn-thread
  (with [client (net/connect "127.0.0.1" (ev/take ports))]
    (net/write client "abc")
    (ev/give answers (string (net/read client 100))))
  (ev/give answers :client-done))
(def all (seq [_ :range [0 3]] (ev/take answers)))
(show (sort-by string all))

### an error in a thread with open sockets
(def supervisor (ev/thread-chan 10))
(def listener (net/listen "127.0.0.1" "0"))
(def address (net/localname listener))
(ev/thread
  (fn []
    (def client (net/connect ;address))
    (net/write client "before the error")
    (error "a thread fails"))
  nil :tn supervisor)
(show (tuple/slice (ev/take supervisor) 0 2))
(with [peer (net/accept listener)] (show (net/read peer :all)))
(:close listener)

### a thread that waits does not hold up the others
(def answers (ev/thread-chan 10))
(def listener (net/listen "127.0.0.1" "0"))
(def address (net/localname listener))
(ev/spawn-thread
  (with [client (net/connect ;address)]
    (ev/give answers :connected)
    (ev/give answers (string (net/read client 100)))))
(show (ev/take answers))
(def [client peer] (connected))
(net/write client "meanwhile")
(show (net/read peer 100))
(with [other (net/accept listener)] (net/write other "to the thread"))
(show (ev/take answers))
(each stream [client peer listener] (:close stream))

### a lock and a signal beside sockets
(def [client peer] (connected))
(def lock (ev/lock))
(def order @[])
(def holder
  (ev/spawn (ev/acquire-lock lock) (array/push order (string (net/read client 10))) (ev/release-lock lock)))
(settle)
(net/write peer "locked")
(finish holder)
(ev/acquire-lock lock)
(array/push order :after)
(ev/release-lock lock)
(show order)
(:close client)
(:close peer)

### all tasks are listed while they wait
(def [client peer] (connected))
(def fiber (ev/go (fn [] (net/read client 10))))
(settle)
(show (truthy? (index-of fiber (ev/all-tasks))))
(net/write peer "x")
(finish fiber)
(show (truthy? (index-of fiber (ev/all-tasks))))
(:close client)
(:close peer)

### dynamic variables travel with the fiber that waits
(def [client peer] (connected))
(setdyn :name "outer")
(def reader
  (ev/spawn
    (with-dyns [:name "inner"]
      (net/read client 10)
      (show (dyn :name)))))
(settle)
(net/write peer "x")
(finish reader)
(show (dyn :name))
(:close client)
(:close peer)

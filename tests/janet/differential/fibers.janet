### a reader is cancelled
(def [client peer] (connected))
(def reader (background (net/read client 10)))
(ev/cancel reader "no more")
(settle)
(net/write peer "for the next reader")
(show (net/read client 100))
(:close client)
(:close peer)

### a chunk is cancelled, and keeps what it had
(def [client peer] (connected))
(def buffer @"")
(def reader (background (net/chunk client 10 buffer)))
(net/write peer "some")
(settle)
(ev/cancel reader "no more")
(settle)
(show buffer)
(net/write peer "rest")
(show (net/read client 10))
(:close client)
(:close peer)

### a writer is cancelled
(def [client peer] (connected))
(def writer (background (net/write client (buffer/new-filled 50000000))))
(ev/cancel writer "no more")
(settle)
(print "after")
(:close client)
(:close peer)

### an acceptor is cancelled
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(def acceptor (background (net/accept listener)))
(ev/cancel acceptor "no more")
(settle)
(def client (net/connect host port))
(show (type (net/accept listener)))
(:close client)
(:close listener)

### an accept loop is cancelled
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(defn handler [connection] (net/write connection "looped") (:close connection))
(def acceptor (background (net/accept-loop listener handler)))
(with [client (net/connect host port)] (show (net/read client 10)))
(ev/cancel acceptor "no more")
(settle)
(def client (net/connect host port))
(with [peer (net/accept listener)] (net/write peer "by hand"))
(show (net/read client 10))
(:close client)
(:close listener)

### a connector is cancelled
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(def connector (ev/go (fn [] (show (net/connect host port)))))
(ev/cancel connector "no more")
(settle)
(print "after")
(:close listener)

### a connector that waits is cancelled
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(def [started release] [(ev/chan 1) (ev/chan 1)])
(var connector nil)
(ev/spawn (ev/take started) (ev/cancel connector "no more"))
(set connector (ev/go (fn [] (ev/give started true) (show (net/connect host port)))))
(settle)
(print "after")
(:close listener)

### a cancelled reader's stream is closed afterwards
(def [client peer] (connected))
(def reader (background (net/read client 10)))
(ev/cancel reader "no more")
(:close client)
(settle)
(show (net/read peer 10))
(:close peer)

### a stream is closed, then its reader cancelled
(def [client peer] (connected))
(def reader (background (net/read client 10)))
(:close client)
(ev/cancel reader "no more")
(settle)
(:close peer)

### data and a cancel in the same turn
(def [client peer] (connected))
(def reader (background (net/read client 10)))
(net/write peer "bytes")
(settle)
(show (fiber/status reader))
(show (ev/cancel reader "too late"))
(settle)
(:close client)
(:close peer)

### a fiber that waits cannot be started again
(def [client peer] (connected))
(def reader (background (net/read client 10)))
(show (ev/go reader "another value"))
(show (resume reader))
(net/write peer "later")
(settle)
(:close client)
(:close peer)

### select takes from a channel that a socket feeds
(def [client peer] (connected))
(def from-socket (ev/chan 10))
(def other (ev/chan))
(ev/spawn
  (while (def bytes (net/read client 100)) (ev/give from-socket (string bytes)))
  (ev/chan-close from-socket))
(net/write peer "first")
(show (match (ev/select from-socket other) [:take _ value] value event event))
(net/write peer "second")
(show (match (ev/select other from-socket) [:take _ value] value event event))
(:close peer)
(show (first (ev/select other from-socket)))
(:close client)

### gather reads from several sockets
(def pairs (seq [_ :range [0 4]] (connected)))
(ev/spawn (eachp [index [_ peer]] pairs (net/write peer (string "to " index)) (:close peer)))
(show
  (ev/gather
    (net/read ((pairs 3) 0) 10) (net/read ((pairs 2) 0) 10)
    (net/read ((pairs 1) 0) 10) (net/read ((pairs 0) 0) 10)))
(each [client _] pairs (:close client))

### gather is cancelled by one that fails
(def [client peer] (connected))
(show (ev/gather (net/read client 10) (error "the other one")))
(net/write peer "still there")
(show (net/read client 100))
(:close client)
(:close peer)

### a supervisor hears of the handlers of an accept loop
(def supervisor (ev/chan 10))
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(ev/go
  (fiber/new
    (fn [] (net/accept-loop listener
      (fn [connection]
        (def word (string (net/read connection 10)))
        (:close connection)
        (case word
          "fail" (error "the handler failed")
          "tell" (ev/give-supervisor :told "by the handler"))
        word)))
    :t)
  nil supervisor)
(defn next-event []
  (def [event what] (ev/take supervisor))
  (printf "%q %q" event (if (fiber? what) (fiber/last-value what) what)))
(defn say [word] (with [client (net/connect host port)] (net/write client word) (net/read client 1)))
(say "good")
(next-event)
# The handler's fiber catches no errors, so this one is printed and no event.
(say "fail")
(say "tell")
(next-event)
(next-event)
(:close listener)
(next-event)

### a handler's error without a supervisor leaves the loop alone
(def server
  (net/server "127.0.0.1" "0" (fn [connection] (:close connection) (error "the handler failed"))))
(def [host port] (net/localname server))
(repeat 3 (with [client (net/connect host port)] (show (net/read client 10))))
(:close server)

### a task's error is its supervisor's event
(def [client peer] (connected))
(def supervisor (ev/chan 10))
(ev/go (fn [] (net/read client "ten")) nil supervisor)
(def [event fiber] (ev/take supervisor))
(printf "%q %q" event (fiber/last-value fiber))
(ev/go (fn [] (net/read client 10 @"" 0.01)) nil supervisor)
(def [event fiber] (ev/take supervisor))
(printf "%q %q" event (fiber/last-value fiber))
(:close client)
(:close peer)

### dynamic bindings in a handler
(setdyn :colour "blue")
(def server
  (net/server "127.0.0.1" "0"
    (fn [connection] (net/write connection (string (dyn :colour "none"))) (:close connection))))
(def [host port] (net/localname server))
(with [client (net/connect host port)] (show (net/read client 10)))
(:close server)

### a socket in a fiber that is not a task
(def [client peer] (connected))
(def fiber (fiber/new (fn [] (show (net/read client 10)) :result) :e))
(net/write peer "inner")
(show (resume fiber))
(:close client)
(:close peer)

### a fiber that reads in a generator
(def [client peer] (connected))
(net/write peer "abc")
(def letters (generate [_ :range [0 3]] (string (net/chunk client 1))))
(show (seq [letter :in letters] letter))
(:close client)
(:close peer)

### defer and edefer run when a reader is cancelled
(def [client peer] (connected))
(def reader
  (ev/go (fn []
    (try
      (defer (print "deferred")
        (edefer (print "because of an error") (net/read client 10)))
      ([fault] (print "caught " fault))))))
(settle)
(ev/cancel reader "stop")
(settle)
(:close client)
(:close peer)

### locks and sockets
(def [client peer] (connected))
(def lock (ev/lock))
(def order @[])
(ev/spawn (ev/acquire-lock lock) (net/read client 10) (array/push order :reader) (ev/release-lock lock))
(settle)
(net/write peer "go")
(settle)
(show (net/write peer "more"))
(show order)
(:close client)
(:close peer)

### sleeping beside sockets
(def [client peer] (connected))
(def order @[])
(def reader (ev/spawn (net/read client 10) (array/push order :read)))
(ev/spawn (ev/sleep 0.01) (array/push order :slept) (net/write peer "now"))
(finish reader)
(show order)
(:close client)
(:close peer)

### tasks that wait are known
(def [client peer] (connected))
(def reader (background (net/read client 10)))
(show (length (filter |(= $ reader) (ev/all-tasks))))
(show (fiber/status reader))
(show (fiber/can-resume? reader))
(:close client)
(settle)
(show (fiber/status reader))
(show (length (filter |(= $ reader) (ev/all-tasks))))
(:close peer)

### the stack of a fiber that waits
(def [client peer] (connected))
(def reader (ev/go (fn waiting [] (net/read client 10))))
(settle)
(show (map |($ :name) (debug/stack reader)))
(:close client)
(:close peer)

### a handler is cancelled
(var handler nil)
(def server
  (net/server "127.0.0.1" "0"
    (fn [connection]
      (set handler (fiber/root))
      (defer (:close connection)
        (try (net/read connection 10) ([fault] (net/write connection (string "cancelled: " fault))))))))
(def [host port] (net/localname server))
(with [client (net/connect host port)]
  (settle)
  (ev/cancel handler "stop")
  (show (net/read client :all)))
(:close server)

### writers who come one after the other do not wait for each other
(def [client peer] (connected))
(each text ["a" "b" "c"] (ev/spawn (net/write client text)))
(settle)
(show (net/read peer 10))
(:close client)
(:close peer)

### readers who come one after the other find what is there
(def [client peer] (connected))
(net/write peer "0123456789")
(ev/spawn (show (net/read client 4)))
(ev/spawn (show (net/read client 4)))
(settle)
(:close client)
(:close peer)

### a read that could end at once is not undone by a cancel in the next turn
(def [client peer] (connected))
(net/write peer "0123456789")
(def reader (ev/go (fn [] (show (net/read client 4)))))
(ev/sleep 0)
(ev/cancel reader "stop")
(settle)
(:close client)
(:close peer)

### a stream that nobody holds is closed by the collector
(def [client peer] (connected))
(defn forget [] (def [other-client other-peer] (connected)) other-peer)
(def kept (forget))
(gccollect)
(settle)
(show (net/read kept 10 @"" 60))
(:close kept)
(:close client)
(:close peer)

### a listener that nobody holds is closed by the collector
(defn forget [] (net/localname (net/listen "127.0.0.1" "0" :stream true)))
(def [host port] (forget))
(gccollect)
(settle)
(show (net/connect host port))

### what is waited on is not collected
(def [client peer] (connected))
(def results (ev/chan 10))
(defn start []
  (def [one two] (connected))
  (ev/spawn (ev/give results (string (net/chunk one 8))))
  two)
(def other (start))
(settle)
(repeat 3 (gccollect) (settle))
(net/write other "kept")
(repeat 3 (gccollect) (settle))
(net/write other "safe")
(show (ev/take results))
(:close other)

### what is written is not collected
(def [client peer] (connected))
(def size 20000000)
(ev/spawn (net/write client (string (buffer/new-filled size (chr "q")))) (:close client))
(settle)
(repeat 3 (gccollect) (settle))
(def received (net/read peer :all))
(show (length received))
(show (all |(= $ (chr "q")) received))

### an accept loop's handler is not collected
(def server (net/server "127.0.0.1" "0" (fn [connection] (net/write connection "alive") (:close connection))))
(def [host port] (net/localname server))
(repeat 5
  (repeat 100 (string/repeat "garbage" 1000))
  (gccollect)
  (with [client (net/connect host port)] (show (net/read client 10))))
(:close server)

### collections in the middle of traffic
(def server
  (net/server "127.0.0.1" "0"
    (fn [connection]
      (while (def bytes (net/read connection 100)) (gccollect) (net/write connection bytes))
      (:close connection))))
(def [host port] (net/localname server))
(def clients (seq [_ :range [0 10]] (net/connect host port)))
(repeat 5
  (each client clients (net/write client "ping"))
  (gccollect)
  (each client clients (assert (= "ping" (string (net/read client 10))))))
(print "all answered")
(each client clients (:close client))
(:close server)

### descriptors return to where they were
(defn count-descriptors [] (length (os/dir "/proc/self/fd")))
(connected)
(gccollect)
(settle)
(def before (count-descriptors))
(repeat 20
  (def pairs (seq [_ :range [0 20]] (connected)))
  (each [client peer] pairs (net/write client "x") (net/read peer 1) (:close client) (:close peer)))
(settle)
(show (- (count-descriptors) before))

### descriptors return after cancels, timeouts and closes
(defn count-descriptors [] (length (os/dir "/proc/self/fd")))
(connected)
(gccollect)
(settle)
(def before (count-descriptors))
(repeat 20
  (def [client peer] (connected))
  (def reader (ev/go (fn [] (protect (net/read client 10)))))
  (def listener (net/listen "127.0.0.1" "0"))
  (protect (net/accept listener 0))
  (settle)
  (ev/cancel reader "stop")
  (settle)
  (:close client)
  (:close peer)
  (:close listener))
(settle)
(show (- (count-descriptors) before))

### descriptors return after refused connections
(defn count-descriptors [] (length (os/dir "/proc/self/fd")))
(def listener (net/listen "127.0.0.1" "0" :stream true))
(def [host port] (net/localname listener))
(:close listener)
(protect (net/connect host port))
(gccollect)
(settle)
(def before (count-descriptors))
(repeat 20 (protect (net/connect host port)))
(gccollect)
(settle)
(show (- (count-descriptors) before))

### descriptors return when streams are forgotten
(defn count-descriptors [] (length (os/dir "/proc/self/fd")))
(connected)
(gccollect)
(settle)
(def before (count-descriptors))
(defn waste [] (repeat 50 (connected)) nil)
(waste)
(gccollect)
(settle)
(gccollect)
(settle)
(show (<= (- (count-descriptors) before) 2))

### sockets are not handed on to programs that are started
(def [client peer] (connected))
(def process (os/spawn ["ls" "/proc/self/fd"] :p {:out :pipe}))
(def listing (ev/read (process :out) :all))
(os/proc-wait process)
(show (length (string/split "\n" (string/trim listing))))
(:close client)
(:close peer)

### descriptors run out, and come back
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(def waste @[])
(protect (forever (array/push waste (os/open "/dev/null"))))
(show (net/connect host port))
(show (net/listen host "0"))
(each stream waste (:close stream))
(with [client (net/connect host port)]
  (with [peer (net/accept listener)]
    (net/write peer "as before")
    (show (net/read client 100))))
(:close listener)

### an accept loop survives that descriptors run out
(defn handler [connection] (net/write connection "served") (:close connection))
(def server (net/server "127.0.0.1" "0" handler))
(def [host port] (net/localname server))
(def waste @[])
(protect (forever (array/push waste (os/open "/dev/null"))))
(:close (array/pop waste))
(def client (net/connect host port))
(ev/sleep 0.02)
(each stream waste (:close stream))
(show (net/read client 100))
(:close client)
(:close server)

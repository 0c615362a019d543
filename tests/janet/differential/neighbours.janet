### pipes work beside sockets
(def [client peer] (connected))
(def [reader writer] (os/pipe))
(ev/spawn (ev/write writer "through the pipe") (:close writer))
(net/write peer "through the socket")
(show (ev/gather (ev/read reader :all) (net/read client 100)))
(show (net/read reader 10))
(show (:read reader 10))
(show (keys reader))
(:close reader)
(:close client)
(:close peer)

### closing a pipe wakes its reader
(def [client peer] (connected))
(def [reader writer] (os/pipe))
(background (ev/read reader 10))
(:close reader)
(settle)
(show (ev/write client "x"))
(:close writer)
(:close client)
(:close peer)

### processes work beside sockets
(def [client peer] (connected))
(def process (os/spawn ["cat"] :p {:in :pipe :out :pipe}))
(ev/spawn
  (while (def bytes (net/read client 100)) (ev/write (process :in) bytes))
  (:close (process :in)))
(net/write peer "from the socket to the process")
(:close peer)
(show (ev/read (process :out) :all))
(show (os/proc-wait process))
(:close client)

### a process ends while a socket waits
(def [client peer] (connected))
(background (net/read client 10))
(show (os/execute ["true"] :p))
(show (os/execute ["false"] :p))
(net/write peer "done")
(settle)
(:close client)
(:close peer)

### files work beside sockets
(def [client peer] (connected))
(def path (string "file-" (os/getpid)))
(def file (os/open path :wct))
(ev/write file "written to a file")
(:close file)
(def file (os/open path :r))
(net/write peer (ev/read file :all))
(show (net/read client 100))
(:close file)
(os/rm path)
(:close client)
(:close peer)

### a thread has sockets of its own
(def answers (ev/thread-chan 10))
(ev/thread
  (fn []
    (def listener (net/listen "127.0.0.1" "0"))
    (def [host port] (net/localname listener))
    (def client (net/connect host port))
    (def peer (net/accept listener))
    (net/write client "in a thread")
    (ev/give answers (string (net/read peer 100)))
    (:close client)
    (:close peer)
    (:close listener)))
(show (ev/take answers))

### a thread serves and the main thread asks
(def ports (ev/thread-chan 10))
(ev/spawn-thread
  (def listener (net/listen "127.0.0.1" "0"))
  (ev/give ports ((net/localname listener) 1))
  (with [peer (net/accept listener)]
    (net/write peer (string "you said " (net/read peer 100))))
  (:close listener))
(with [client (net/connect "127.0.0.1" (ev/take ports))]
  (net/write client "hello")
  (show (net/read client :all)))

### several threads with sockets at once
(def answers (ev/thread-chan 10))
(for number 0 4
  (ev/spawn-thread
    (def server
      (net/server "127.0.0.1" "0"
        (fn [connection] (net/write connection (string "thread " number)) (:close connection))))
    (def [host port] (net/localname server))
    (repeat 10 (with [client (net/connect host port)] (assert (net/read client 100))))
    (with [client (net/connect host port)] (ev/give answers (string (net/read client 100))))
    (:close server)))
(show (sort (seq [_ :range [0 4]] (ev/take answers))))

### a thread ends with its sockets open
(def answers (ev/thread-chan 10))
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(ev/thread
  (fn []
    (def client (net/connect host port))
    (net/write client "left open")
    (ev/give answers :done)))
(show (ev/take answers))
(with [peer (net/accept listener)]
  (show (net/read peer :all)))
(:close listener)

### an error in a thread
(show (ev/thread (fn [] (net/read 5 5))))
(def supervisor (ev/thread-chan 10))
(ev/thread (fn [] (net/connect "127.0.0.1" "no-such-service")) nil :tn supervisor)
(show (ev/take supervisor))

### unix sockets
(def path (string "socket-" (os/getpid)))
(def server
  (net/server :unix path
    (fn [connection] (net/write connection (string "unix " (net/read connection 100))) (:close connection))))
(show (= path (first (net/localname server))))
(with [client (net/connect :unix path)]
  (show (= path (first (net/peername client))))
  (net/write client "client")
  (show (net/read client 100))
  (show (net/read client 100))
  (show (keys client)))
(:close server)
(os/rm path)

### abstract unix sockets
(def name (string "@ringspun-" (os/getpid)))
(def listener (net/listen :unix name))
(def client (net/connect :unix name :stream))
(def peer (net/accept listener))
(ev/write client "abstract")
(show (ev/read peer 100))
(background (net/read client 10))
(:close peer)
(settle)
(show (net/read client 10 @"" 60))
(show (net/accept listener 0.01))
(:close client)
(:close listener)
(show (net/connect :unix name))

### errors of unix sockets
(show (net/connect :unix "/no/such/socket"))
(show (net/listen :unix "/no/such/folder/socket"))
(show (net/connect :unix 5))
(show (net/connect :unix "@x" :stream "127.0.0.1"))

### datagrams
(def server (net/listen "127.0.0.1" "0" :datagram))
(def [host port] (net/localname server))
(def client (net/connect host port :datagram))
(net/write client "one")
(def buffer @"")
(def who (net/recv-from server 100 buffer))
(show buffer)
(show (= (net/address-unpack who) (net/localname client)))
(net/send-to server who "two")
(show (net/read client 100))
(show (net/recv-from server 100 @"" 0.01))
(show (net/read client 100 @"" 0.01))
(show (net/accept server))
(show (net/write server "x"))
(:close client)
(:close server)

### datagrams beside streams
(def server (net/listen "127.0.0.1" "0" :datagram))
(def [host port] (net/localname server))
(def [client peer] (connected))
(ev/spawn
  (def buffer @"")
  (def who (net/recv-from server 100 buffer))
  (net/write client buffer)
  (net/send-to server who "acknowledged"))
(def sender (net/connect host port :datagram))
(:write sender "from a datagram")
(show (net/read peer 100))
(show (:read sender 100))
(each stream [server sender client peer] (:close stream))

### a socket without a peer
(def stream (net/socket))
(show (type stream))
(show (net/peername stream))
(show (net/write stream "x"))
(show (keys stream))
(:close stream)
(show (net/read stream 10))
(show (net/socket :seqpacket))

### channels, sleeps and tasks work as ever
(def channel (ev/chan 2))
(ev/spawn (for number 0 3 (ev/give channel number)) (ev/chan-close channel))
(show (seq [_ :range [0 4]] (ev/take channel)))
(show (ev/with-deadline 0.01 (ev/sleep 5)))
(show (first (ev/select channel)))

### a socket as the output of a process
(def [client peer] (connected))
(show (os/execute ["sh" "-c" "echo to the socket"] :p {:out peer}))
(:close peer)
(show (net/read client :all))
(:close client)

### signals arrive while a socket waits
(def [client peer] (connected))
(os/sigaction :usr1 (fn [] (print "signal") (net/write peer "because of a signal")))
(def process (os/spawn ["sh" "-c" (string "kill -USR1 " (os/getpid))] :p))
(show (net/read client 100))
(os/proc-wait process)
(os/sigaction :usr1)
(:close client)
(:close peer)

### signals that reach another thread
(def tgkill (ffi/lookup (ffi/native) "tgkill"))
(def signature (ffi/signature :default :int :int :int :int))
(def usr1 10)
(defn threads [] (map scan-number (os/dir "/proc/self/task")))
(defn tell [threads] (each thread threads (ffi/call tgkill signature (os/getpid) thread usr1)))
(defn not-of [before] (filter |(not (index-of $ before)) (threads)))
(def handled (ev/chan 10))
(os/sigaction :usr1 (fn [] (ev/give handled true)))
# The VM waits for a process in a thread that has no VM.
(def before (threads))
(def process (os/spawn ["cat"] :p {:in :pipe}))
(ev/go (fn [] (os/proc-wait process)))
(while (empty? (not-of before)) (ev/sleep 0.001))
(tell (not-of before))
(show (ev/with-deadline 60 (ev/take handled)))
(:close (process :in))
# Another VM.
(def ready (ev/thread-chan 10))
(def end (ev/thread-chan 10))
(def before (threads))
(ev/spawn-thread (ev/give ready true) (ev/take end))
(ev/take ready)
(tell (not-of before))
(show (ev/with-deadline 60 (ev/take handled)))
(ev/give end true)
# Its own handler, where it has one.
(ev/spawn-thread
  (os/sigaction :usr1 (fn [] (ev/give ready :there)))
  (ev/give ready true)
  (ev/take end))
(ev/take ready)
(tell (filter |(not= $ (os/getpid)) (threads)))
(show (ev/with-deadline 60 (ev/take ready)))
(tell [(os/getpid)])
(show (ev/with-deadline 60 (ev/take handled)))
(os/exit 0)

### what is printed last, into a pipe whose reader has left
(def code `(def listener (net/listen "127.0.0.1" "0")) (file/read stdin :line) (print "last")`)
(def process (os/spawn [(dyn :executable) "-e" code] :p {:in :pipe :out :pipe}))
(:close (process :out))
(:write (process :in) "go\n")
(show (os/proc-wait process))

### code is compiled while a server runs
(def server (net/server "127.0.0.1" "0" (fn [c] (net/write c "served") (:close c))))
(def [host port] (net/localname server))
(def value (eval-string (string/format "(with [c (net/connect %q %q)] (string (net/read c 100)))" host port)))
(show value)
(:close server)

### a socket as a file
(def [client peer] (connected))
(def file (ev/to-file client))
(show (type file))
(file/write file "as a file")
(file/flush file)
(show (net/read peer 100))
(file/close file)
(net/write client "still a stream")
(show (net/read peer 100))
(:close client)
(show (net/read peer 100))
(:close peer)

### sockets in a subprocess of the same program
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(def code
  (string/format "(with [c (net/connect %q %q)] (net/write c (net/read c 100)))" host port))
(def process (os/spawn [(dyn :executable) "-e" code] :p))
(with [peer (net/accept listener)]
  (net/write peer "yes")
  (show (net/read peer :all)))
(show (os/proc-wait process))
(:close listener)

### a stream may be given to a thread that does not use it
(def [client peer] (connected))
(def answers (ev/thread-chan 10))
(ev/thread (fn [stream] (ev/give answers :given)) client)
(show (ev/take answers))
(net/write peer "still here")
(show (net/read client 100))
(:close client)
(:close peer)

### what cannot be given to a channel leaves its lock free
(def values (ev/thread-chan 1))
(def answers (ev/thread-chan 2))
(defn relay [[values answers]] (ev/give answers :ready) (ev/give answers (ev/take values)))
(ev/thread relay [values answers] :n)
(show (ev/take answers))
(show (get (protect (ev/give values (parser/new))) 0))
(show (get (protect (ev/select [values (parser/new)])) 0))
(show (get (protect (ev/rselect [values (parser/new)])) 0))
(ev/give values "can be given")
(show (ev/with-deadline 60 (ev/take answers)))

# Streams that are read again and again, whose small writes may return before the kernel has their bytes.
### a busy stream takes no write for a success after its shutdown
(def [client peer] (busy))
(net/shutdown client :w)
(show (net/write client "too late"))
(net/write peer "still read")
(:close peer)
(show (net/read client :all))
(:close client)

### a busy stream takes no write for a success after the end of its peer
(def [client peer] (busy))
(:close peer)
(show (net/read client 10))
(net/write client "resets")
(while (first (protect (net/write client "too late"))) (ev/sleep 0.001))
(print "the error is raised")
(:close client)

### what was shut down in one direction answers in the other
(def [client peer] (busy))
(net/shutdown client :r)
(show (net/write client "on"))
(show (net/read peer 10))
(:close client)
(:close peer)

### a write is not held up by a lock
(def lock (ev/lock))
(def held (ev/thread-chan 1))
(def listener (net/listen "127.0.0.1" "0"))
(ev/acquire-lock lock)
(defn talk [[port lock held]]
  (def stream (net/connect "127.0.0.1" port))
  (repeat 10 (net/write stream "?") (net/read stream 1))
  (net/write stream "before the lock")
  (ev/give held true)
  (ev/acquire-lock lock)
  (ev/release-lock lock)
  (:close stream))
(ev/thread talk [((net/localname listener) 1) lock held] :n)
(def peer (net/accept listener))
(repeat 10 (net/chunk peer 1) (net/write peer "!"))
(ev/take held)
(show (net/read peer 100))
(ev/release-lock lock)
(show (net/read peer 100))

### a write is not held up by a read lock, nor by a write lock
(each [release acquire] [[ev/release-wlock ev/acquire-rlock] [ev/release-wlock ev/acquire-wlock]]
  (def lock (ev/rwlock))
  (def listener (net/listen "127.0.0.1" "0"))
  (ev/acquire-wlock lock)
  (defn talk [[port lock acquire]]
    (def stream (net/connect "127.0.0.1" port))
    (repeat 10 (net/write stream "?") (net/read stream 1))
    (net/write stream "before the lock")
    (acquire lock)
    (:close stream))
  (ev/thread talk [((net/localname listener) 1) lock acquire] :n)
  (def peer (net/accept listener))
  (repeat 10 (net/chunk peer 1) (net/write peer "!"))
  (show (net/read peer 100))
  (release lock)
  (show (net/read peer 100)))

### a write is not held up by standard input
(def [process peer] (talker "(file/read stdin 1)"))
(show (net/read peer 100))
(ev/write (process :in) "x")
(show (net/read peer 100))
(show (os/proc-wait process))

### a write is not held up by a line of standard input
(def [process peer] (talker "(file/read stdin :line)"))
(show (net/read peer 100))
(ev/write (process :in) "x\n")
(show (net/read peer 100))
(show (os/proc-wait process))

### a write is not held up by standard output
(def [process peer] (talker "(prin (string/repeat `x` 1000000))"))
(show (net/read peer 100))
(var printed 0)
(while (def bytes (ev/read (process :out) 100000)) (+= printed (length bytes)))
(show printed)
(show (os/proc-wait process))

### a write is not held up by the opening of a pipe
(def path (string "pipe-" (os/getpid)))
(os/execute ["mkfifo" path] :p)
(def [process peer] (talker (string/format "(slurp %q)" path)))
(show (net/read peer 100))
(spit path "")
(show (net/read peer 100))
(show (os/proc-wait process))
(os/rm path)

### the last words of a program that exits
(def [process peer] (talker "(os/exit 3)"))
(show (net/read peer 100))
(show (os/proc-wait process))

### the last words of a program that exits at once
(def [process peer] (talker "(os/exit 3 true)"))
(show (net/read peer 100))
(show (net/read peer 100))
(show (os/proc-wait process))

### the last words of a program that fails
(def [process peer] (talker "(error `on purpose`)"))
(show (net/read peer 100))
(show (os/proc-wait process))

### the last words of a program that computes until it is terminated
(def [process peer] (talker "(prin `x`) (flush) (forever)"))
(ev/read (process :out) 1)
(os/proc-kill process false :term)
(show (net/read peer 100))
(show (os/proc-wait process))

### the last words of a program that becomes another
(def [process peer] (talker "(os/posix-exec [`true`] :p)"))
(show (net/read peer 100))
(show (os/proc-wait process))

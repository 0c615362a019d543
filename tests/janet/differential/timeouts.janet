### a read times out
(def [client peer] (connected))
(show (net/read client 10 @"" 0.01))
(show (net/read client :all @"" 0.01))
(show (net/chunk client 10 @"" 0.01))
(show (ev/read client 10 @"" 0.01))
(show (ev/chunk client 10 @"" 0.01))
(:close client)
(:close peer)

### a read times out at once
(def [client peer] (connected))
(show (net/read client 10 @"" 0))
(show (net/chunk client 10 @"" 0))
(show (net/read client 10 @"" -1))
(show (net/chunk client 10 @"" -1))
(show (net/read client 10 @"" (- math/inf)))
(show (net/read client 10 @"" 0.0001))
(:close client)
(:close peer)

### a timeout of nil, of infinity, and of a million years never comes
(def [client peer] (connected))
(each timeout [nil math/inf 3e13]
  (def reader (background (net/read client 10 @"" timeout)))
  (net/write peer "in time")
  (finish reader))
(:close client)
(:close peer)

### bytes that are there come before the timeout
(def [client peer] (connected))
(each timeout [0 0.01 60]
  (net/write peer "0123456789")
  (show (net/read client 4 @"" 60))
  (show (net/read client 4 @"" timeout))
  (show (net/read client 4 @"" timeout)))
(:close client)
(:close peer)

### nothing is lost by a timeout
(def [client peer] (connected))
(show (net/read client 10 @"" 0.01))
(net/write peer "after the timeout")
(show (net/read client 100))
(:close client)
(:close peer)

### a chunk that times out has put what came into its buffer
(def [client peer] (connected))
(def buffer @"")
(net/write peer "some")
(show (net/chunk client 10 buffer 0.05))
(show buffer)
(net/write peer "more")
(show (net/chunk client 4 buffer))
(:close client)
(:close peer)

### a timeout that was not needed does not fire later
(def [client peer] (connected))
(net/write peer "first")
(show (net/read client 10 @"" 0.02))
(background (net/read client 10 @"" 60))
(ev/sleep 0.05)
(net/write peer "second")
(settle)
(:close client)
(:close peer)

### a write times out
(def [client peer] (connected))
(show (net/write client (buffer/new-filled 50000000) 0.05))
(show (net/write client (string (buffer/new-filled 50000000)) 0.05))
(show (ev/write client (buffer/new-filled 50000000) 0.05))
(:close client)
(:close peer)

### a write that has room does not time out
(def [client peer] (connected))
(show (net/write client "at once" 60))
(show (net/write client @"at once" 60))
(show (net/chunk peer 14))
(:close client)
(:close peer)

### a write after one that timed out
(def [client peer] (connected))
(show (net/write client (buffer/new-filled 20000000 (chr "a")) 0.05))
(ev/spawn (show (net/write client "end")) (:close client))
(def received (net/read peer :all))
(show (string/slice received 0 5))
(show (string/slice received -4))
(show (all |(= $ (chr "a")) (buffer/slice received 0 -4)))
(:close peer)

### an accept times out
(def listener (net/listen "127.0.0.1" "0"))
(show (net/accept listener 0.01))
(show (net/accept listener 0))
(show (net/accept listener -1))
(show (:accept listener 0.01))
(:close listener)

### an accept after one that timed out
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(show (net/accept listener 0.01))
(def client (net/connect host port))
(with [peer (net/accept listener 60)]
  (show (= (net/localname client) (net/peername peer))))
(:close client)
(:close listener)

### an accept with a connection waiting
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(def first-client (net/connect host port))
(def second-client (net/connect host port))
(show (type (net/accept listener 60)))
(show (type (net/accept listener 60)))
(show (net/accept listener 0.01))
(:close listener)

### a read with a timeout on a stream that ends
(def [client peer] (connected))
(:close peer)
(show (net/read client 10 @"" 60))
(show (net/read client 10 @"" 0.01))
(show (net/chunk client 10 @"" 0.01))
(:close client)

### a timeout on a stream that is closed meanwhile
(def [client peer] (connected))
(background (net/read client 10 @"" 0.02))
(:close client)
(settle)
(ev/sleep 0.05)
(print "after")
(:close peer)

### many timeouts come in their order
(def pairs (seq [_ :range [0 5]] (connected)))
# Again, if the machine paused between the first and the last of them for as long as two of the timeouts are apart.
(var order nil)
(while (nil? order)
  (def finished (ev/chan 5))
  (def started @[])
  (eachp [index [client _]] pairs
    (ev/spawn
      (array/push started (os/clock :monotonic))
      (protect (net/read client 1 @"" (/ (- 6 index) 20)))
      (ev/give finished index)))
  (def found (seq [_ :range [0 5]] (ev/take finished)))
  (when (< (- (last started) (first started)) 0.04) (set order found)))
(show order)

### a deadline around a read
(def [client peer] (connected))
(show (ev/with-deadline 0.01 (net/read client 10)))
(net/write peer "still works")
(show (net/read client 100))
(show (ev/with-deadline 0.01 (net/chunk client 10)))
(show (ev/with-deadline 60 (do (net/write peer "in time") (net/read client 10))))
(:close client)
(:close peer)

### a deadline around a write
(def [client peer] (connected))
(show (ev/with-deadline 0.05 (net/write client (buffer/new-filled 50000000))))
(:close client)
(:close peer)

### a deadline around an accept and an accept loop
(def listener (net/listen "127.0.0.1" "0"))
(show (ev/with-deadline 0.01 (net/accept listener)))
(show (ev/with-deadline 0.01 (net/accept-loop listener (fn [connection] (:close connection)))))
(def [host port] (net/localname listener))
(def client (net/connect host port))
(show (type (net/accept listener 60)))
(:close client)
(:close listener)

### a deadline around a connect that is quick enough
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(show (type (ev/with-deadline 60 (net/connect host port))))
(show (type (net/accept listener 60)))
(:close listener)

### a read's own timeout inside a deadline
(def [client peer] (connected))
(show (ev/with-deadline 60 (net/read client 10 @"" 0.01)))
(show (ev/with-deadline 0.01 (net/read client 10 @"" 60)))
(:close client)
(:close peer)

### a deadline set from another fiber
(def listener (net/listen "127.0.0.1" "0"))
(def worker (ev/go (fn [] (show (net/accept listener)))))
(ev/deadline 0.02 worker worker)
(finish worker)
(print "after")
(:close listener)

### a timeout in a handler
(def server
  (net/server "127.0.0.1" "0"
    (fn [connection]
      (defer (:close connection)
        (def outcome (protect (net/read connection 10 @"" 0.01)))
        (net/write connection (string/format "%q" outcome))))))
(def [host port] (net/localname server))
(with [client (net/connect host port)] (show (net/read client :all)))
(:close server)

### bytes that the kernel has come before a timeout of nothing
(each timeout [0 -1]
  (def [client peer] (connected))
  (net/write peer "0123456789")
  (show (net/read client 4 @"" timeout))
  (:close client)
  (:close peer))
(def [client peer] (connected))
(net/write peer "0123456789")
(show (net/chunk client 4 @"" 0))
(:close peer)
(:close client)
(def [client peer] (connected))
(:close peer)
(show (net/read client 1 @"" 0))
(:close client)

### connections that the kernel has come before a timeout of nothing
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(def first-client (net/connect host port))
(def second-client (net/connect host port))
(show (net/accept listener 0))
(show (net/accept listener 0))
(show (net/accept listener 0))
(:close listener)

### a small write with a timeout of nothing
(def [client peer] (connected))
(show (net/write client "abc" 0))
(show (net/write client "def" -1))
(show (net/read peer 10))
(:close client)
(:close peer)

### a timeout of nothing is for what the kernel has now, and for the end of the stream behind it
(def [client peer] (connected))
(net/write peer "0123456789")
(:close peer)
(def buffer @"")
(show (net/read client :all buffer 0))
(show buffer)
(show (net/read client :all buffer 0))

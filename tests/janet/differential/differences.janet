### several fibers may read from one stream
# Stock keeps one reader per stream: the first is never resumed.
(def [client peer] (connected))
(def first-reader (background (net/read client 4)))
(def second-reader (background (net/read client 4)))
(net/write peer "bothread")
(finish-within patience first-reader second-reader)
(os/exit 0)
--- ring
(net/read client 4) => @"both"
(net/read client 4) => @"read"
--- stock
(net/read client 4) => @"both"

### a chunk that times out half way loses no byte
# Stock has the first half in a buffer that nobody sees.
(def [client peer] (connected))
(net/write peer "first half, ")
(show (net/chunk client 23 nil 0.05))
(net/write peer "second half")
(show (net/chunk client 23 nil patience))
(os/exit 0)
--- ring
(net/chunk client 23 nil 0.05) !! "timeout"
(net/chunk client 23 nil patience) => @"first half, second half"
--- stock
(net/chunk client 23 nil 0.05) !! "timeout"
(net/chunk client 23 nil patience) !! "timeout"

### several fibers may write to one stream, and take turns
# Stock keeps one writer per stream: the first is never resumed, and its last bytes are never sent.
(def [client peer] (connected))
(def size 5000000)
(background (net/write client (buffer/new-filled size (chr "a"))))
(background (net/write client (buffer/new-filled size (chr "b"))))
(def received @"")
(show (= received (net/chunk peer (* 2 size) received patience)))
(show (deep= received (buffer (buffer/new-filled size (chr "a")) (buffer/new-filled size (chr "b")))))
(os/exit 0)
--- ring
(net/write client (buffer/new-filled size (chr "a"))) => nil
(net/write client (buffer/new-filled size (chr "b"))) => nil
(= received (net/chunk peer (* 2 size) received patience)) => true
(deep= received (buffer (buffer/new-filled size (chr "a")) (buffer/new-filled size (chr "b")))) => true
--- stock
(net/write client (buffer/new-filled size (chr "b"))) => nil
(= received (net/chunk peer (* 2 size) received patience)) !! "timeout"
(deep= received (buffer (buffer/new-filled size (chr "a")) (buffer/new-filled size (chr "b")))) => false

### several fibers may accept from one listener
# Stock keeps one acceptor per listener: the first is never resumed.
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(def first-acceptor (background (net/accept listener)))
(def second-acceptor (background (net/accept listener)))
(def clients [(net/connect host port) (net/connect host port)])
(finish-within patience first-acceptor second-acceptor)
(os/exit 0)
--- ring
(net/accept listener) => <core/stream [fd=N]>
(net/accept listener) => <core/stream [fd=N]>
--- stock
(net/accept listener) => <core/stream [fd=N]>

### an accept tells that descriptors have run out
# Stock ignores the error and goes on waiting.
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(def client (net/connect host port))
(def waste @[])
(protect (forever (array/push waste (os/open "/dev/null"))))
(show (net/accept listener patience))
(each stream waste (:close stream))
(show (net/accept listener 60))
(os/exit 0)
--- ring
(net/accept listener patience) !! "Too many open files"
(net/accept listener 60) => <core/stream [fd=N]>
--- stock
(net/accept listener patience) !! "timeout"
(net/accept listener 60) => <core/stream [fd=N]>

### the first socket of a program tells that descriptors have run out
# It needs an event loop; stock tells nothing of the reason.
(def files @[])
(protect (forever (array/push files (os/open "/dev/null" :r))))
(show (net/listen "127.0.0.1" "0"))
(repeat 20 (:close (array/pop files)))
(show (type (net/listen "127.0.0.1" "0")))
--- ring
(net/listen "127.0.0.1" "0") !! "an event loop cannot be made: Too many open files"
(type (net/listen "127.0.0.1" "0")) => :core/stream
--- stock
(net/listen "127.0.0.1" "0") !! "could not bind to any sockets"
(type (net/listen "127.0.0.1" "0")) => :core/stream

### an accept tells that its listener was shut down
# Stock ignores the error and goes on waiting.
(def listener (net/listen "127.0.0.1" "0"))
(def acceptor (background (net/accept listener patience)))
(net/shutdown listener :rw)
(finish acceptor)
(os/exit 0)
--- ring
(net/accept listener patience) !! "Invalid argument"
--- stock
(net/accept listener patience) !! "timeout"

### a connection works in the thread that it is given to
# Stock never registers the stream with the event loop of its new thread.
(def [client peer] (connected))
(def answers (ev/thread-chan 10))
(ev/spawn (ev/sleep 0.02) (net/write peer "across"))
(ev/thread (fn [stream] (ev/give answers (protect (net/read stream 100 @"" patience)))) client)
(show (ev/take answers))
--- ring
(ev/take answers) => (true @"across")
--- stock
(ev/take answers) => (false "timeout")

### an empty datagram is sent
# Stock returns without sending anything.
(def server (net/listen "127.0.0.1" "0" :datagram))
(def client (net/connect ;(net/localname server) :datagram))
(def to-server (net/address ;(net/localname server) :datagram))
(show (net/write client ""))
(show (net/recv-from server 10 @"" patience))
(show (net/send-to client to-server @""))
(show (net/read server 10 nil patience))
--- ring
(net/write client "") => nil
(net/recv-from server 10 @"" patience) => <core/socket-address 0xN>
(net/send-to client to-server @"") => nil
(net/read server 10 nil patience) => nil
--- stock
(net/write client "") => nil
(net/recv-from server 10 @"" patience) !! "timeout"
(net/send-to client to-server @"") => nil
(net/read server 10 nil patience) !! "timeout"

### a chunk takes datagrams whole
# Stock takes 4,096 bytes of each at most, and drops the rest.
(def server (net/listen "127.0.0.1" "0" :datagram))
(def client (net/connect ;(net/localname server) :datagram))
(net/write client (string/repeat "a" 5000))
(net/write client (string/repeat "b" 5000))
(show (frequencies (net/chunk server 6000 nil 60)))
--- ring
(frequencies (net/chunk server 6000 nil 60)) => @{97 5000 98 1000}
--- stock
(frequencies (net/chunk server 6000 nil 60)) => @{97 4096 98 1904}

### a reader that waits is told that nobody is there
# Stock returns nil, as at the end of a stream.
(def gone (net/listen "127.0.0.1" "0" :datagram))
(def client (net/connect ;(net/localname gone) :datagram))
(:close gone)
(background (net/read client 10))
(net/write client "anyone?")
(settle)
--- ring
(net/read client 10) !! "Connection refused"
--- stock
(net/read client 10) => nil

### names of Unix sockets that are too long
# Stock cuts a path to what fits, and uses that.
(def path (string "long-" (os/getpid) "-" (string/repeat "x" 120)))
(defn try-it [action] (string/replace path "PATH" (string (last (protect (action))))))
(print (try-it |(do (net/listen :unix path) (os/rm (string/slice path 0 107)))))
(print (try-it |(net/connect :unix (string "@" path))))
--- ring
unix socket name "PATH": expected 1 to 107 bytes, none of them zero
unix socket name "@PATH": expected 1 to 107 bytes, none of them zero
--- stock

could not connect socket: Invalid argument

### options that stock does not know
(def [client peer] (connected))
(show (net/setsockopt client :tcp-nodelay true))
(show (net/setsockopt client :tcp-nodelay 1))
(show (= client (net/flush client)))
(show (net/setsockopt client :so-rcvbuf 65536))
(show (net/setsockopt client :so-sndbuf 65536))
(show (net/setsockopt client :so-sndbuf "much"))
(show (net/setsockopt client :so-reuseport true))
(show (not (nil? (string/find ":tcp-nodelay" ((dyn 'net/setsockopt) :doc)))))
--- ring
(net/setsockopt client :tcp-nodelay true) => nil
(net/setsockopt client :tcp-nodelay 1) !! "bad slot #2, expected boolean, got 1"
(= client (net/flush client)) => true
(net/setsockopt client :so-rcvbuf 65536) => nil
(net/setsockopt client :so-sndbuf 65536) => nil
(net/setsockopt client :so-sndbuf "much") !! "bad slot #2, expected 32 bit signed integer, got \"much\""
(net/setsockopt client :so-reuseport true) => nil
(not (nil? (string/find ":tcp-nodelay" ((dyn (quote net/setsockopt)) :doc)))) => true
--- stock
(net/setsockopt client :tcp-nodelay true) !! "unknown socket option :tcp-nodelay"
(net/setsockopt client :tcp-nodelay 1) !! "unknown socket option :tcp-nodelay"
(= client (net/flush client)) => true
(net/setsockopt client :so-rcvbuf 65536) !! "unknown socket option :so-rcvbuf"
(net/setsockopt client :so-sndbuf 65536) !! "unknown socket option :so-sndbuf"
(net/setsockopt client :so-sndbuf "much") !! "unknown socket option :so-sndbuf"
(net/setsockopt client :so-reuseport true) !! "unknown socket option :so-reuseport"
(not (nil? (string/find ":tcp-nodelay" ((dyn (quote net/setsockopt)) :doc)))) => false

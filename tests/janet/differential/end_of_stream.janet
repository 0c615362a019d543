### read at the end of the stream is nil, and stays nil
(def [client peer] (connected))
(net/write peer "last words")
(:close peer)
(show (net/read client 100))
(show (net/read client 100))
(show (net/read client 100))
(show (net/chunk client 100))
(show (net/read client :all))
(:close client)

### chunk is cut short by the end of the stream
(def [client peer] (connected))
(net/write peer "short")
(:close peer)
(show (net/chunk client 100))
(show (net/chunk client 100))
(:close client)

### chunk takes what it asked for and leaves the rest
(def [client peer] (connected))
(net/write peer "0123456789")
(show (net/chunk client 4))
(show (net/chunk client 4))
(:close peer)
(show (net/chunk client 4))
(show (net/chunk client 4))
(:close client)

### a chunk collects what comes in pieces
(def [client peer] (connected))
(def done (ev/chan 1))
(ev/spawn (ev/give done (net/chunk client 12)))
(each piece ["one " "two " "three"] (net/write peer piece) (settle))
(show (ev/take done))
(show (net/read client 10))
(:close peer)
(:close client)

### all reads to the end of the stream
(def [client peer] (connected))
(ev/spawn
  (each piece ["some " "more " "most"] (net/write peer piece) (ev/sleep 0))
  (:close peer))
(show (net/read client :all))
(show (net/read client :all))
(:close client)

### all appends to the buffer that it is given
(def [client peer] (connected))
(def buffer @"before, ")
(net/write peer "after")
(:close peer)
(show (= buffer (net/read client :all buffer)))
(show buffer)
(show (net/read client :all buffer))
(show buffer)
(:close client)

### all on a stream that ends at once
(def [client peer] (connected))
(:close peer)
(show (net/read client :all))
(def buffer @"kept")
(show (net/read client :all buffer))
(show buffer)
(:close client)

### the end of the stream reaches a reader that waits
(def [client peer] (connected))
(background (net/read client 10))
(:close peer)
(settle)
(show (net/read client 10))
(:close client)

### the end of the stream reaches a chunk that waits, with what it has
(def [client peer] (connected))
(background (net/chunk client 10 @"had "))
(net/write peer "some")
(:close peer)
(settle)
(:close client)

### a buffer is filled by several reads
(def [client peer] (connected))
(def buffer @"")
(net/write peer "abcdef")
(show (net/read client 2 buffer))
(show (net/read client 2 buffer))
(show (net/read client 2 buffer))
(:close peer)
(show (net/read client 2 buffer))
(show buffer)
(:close client)

### half-close of the writing side: the other side reads to the end and answers
(def [client peer] (connected))
(net/write client "question")
(show (= client (net/shutdown client :w)))
(show (net/read peer :all))
(net/write peer "answer")
(:close peer)
(show (net/read client 100))
(show (net/read client 100))
(show (net/write client "too late"))
(:close client)

### half-close of the reading side
(def [client peer] (connected))
(net/shutdown client :r)
(show (net/read client 10))
(show (net/write client "still writes"))
(show (net/read peer 100))
(:close client)
(:close peer)

### half-close of the reading side keeps what has come
(def [client peer] (connected))
(net/write peer "already here")
(net/shutdown client :r)
(show (net/read client 100))
(show (net/read client 100))
(:close client)
(:close peer)

### shutdown of both sides is the default
(def [client peer] (connected))
(show (= client (net/shutdown client)))
(show (net/read client 10))
(show (net/write client "no"))
(show (net/read peer 10))
(:close client)
(:close peer)

### shutdown of both sides by name, and as a method
(def [client peer] (connected))
(show (= client (:shutdown client :rw)))
(show (:read client 10))
(show (:read peer 10))
(:close client)
(:close peer)

### shutdown twice
(def [client peer] (connected))
(show (= client (net/shutdown client :w)))
(show (= client (net/shutdown client :w)))
(show (net/read peer 10))
(:close client)
(:close peer)

### shutdown wakes a reader that waits
(def [client peer] (connected))
(background (net/read client 10))
(net/shutdown client :r)
(settle)
(print "after")
(:close client)
(:close peer)

### shutdown of a socket that is not connected, and words that it does not know
(def [client peer] (connected))
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(show (net/shutdown client :x))
(show (net/shutdown client "w"))
(show (net/shutdown client nil))
(show (net/shutdown client :r :w))
(show (= listener (net/shutdown listener :rw)))
(:close client)
(show (net/shutdown client))
(:close listener)

### a reset is an error to the reader, then the end
(def [client peer] (connected))
(net/write client "unread bytes make the kernel send a reset")
(settle)
(:close peer)
(show (net/read client 10))
(show (net/read client 10))
(:close client)

### a reset is an error to the writer
(def [client peer] (connected))
(net/write client "unread bytes make the kernel send a reset")
(:close peer)
(show (net/write client "into the void"))
(show (net/write client "into the void again"))
(:close client)

### a reset reaches a reader that waits
(def [client peer] (connected))
(net/write client "unread")
(background (net/read client 10))
(:close peer)
(settle)
(print "after")
(:close client)

### a reset reaches a chunk that has something
(def [client peer] (connected))
(net/write client "unread")
(net/write peer "some")
(background (net/chunk client 10))
(:close peer)
(settle)
(show (net/read client 10))
(:close client)

### a peer that leaves stops a writer that waits
(def [client peer] (connected))
(def writer (background (net/write client (buffer/new-filled 50000000))))
(:close peer)
(finish writer)
(print "after")
(:close client)

### shutdown stops a writer that waits
(def [client peer] (connected))
(def writer (background (net/write client (buffer/new-filled 50000000))))
(net/shutdown client :w)
(finish writer)
(:close client)
(:close peer)

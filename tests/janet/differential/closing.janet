### every operation on a closed stream
(def [client peer] (connected))
(show (= client (:close client)))
(show (net/read client 10))
(show (net/read client :all))
(show (net/chunk client 10))
(show (net/write client "x"))
(show (net/flush client))
(show (net/shutdown client))
(show (net/setsockopt client :so-keepalive true))
(show (net/localname client))
(show (net/peername client))
(show (net/accept client))
(show (ev/read client 10))
(show (ev/chunk client 10))
(show (ev/write client "x"))
(show (:evread client 10))
(show (:read client 10))
(:close peer)

### a closed stream with other arguments wrong too
(def [client peer] (connected))
(:close client)
(show (net/read client))
(show (net/read client "ten"))
(show (net/write client 10))
(show (net/chunk client -1))
(show (net/accept-loop client 10))
(:close peer)

### every operation on a closed listener
(def listener (net/listen "127.0.0.1" "0"))
(show (= listener (:close listener)))
(show (net/accept listener))
(show (net/accept-loop listener (fn [connection])))
(show (net/read listener 10))
(show (net/write listener "x"))
(show (net/localname listener))
(show (net/peername listener))

### closing again changes nothing
(def [client peer] (connected))
(show (= client (:close client)))
(show (= client (:close client)))
(show (= client (ev/close client)))
(show (net/read peer 10))
(show (= peer (ev/close peer)))
(show (= peer (ev/close peer)))

### a closed stream shows no descriptor
(def [client peer] (connected))
(:close client)
(show (describe client))
(show (string client))
(show (type client))
(:close peer)

### with closes the stream, also after an error
(def [client peer] (connected))
(show (with [stream client] (net/write stream "inside") :value))
(show (net/read client 10))
(show (net/read peer 10))
(show (net/read peer 10))
(show (with [stream peer] (error "broken")))
(show (net/read peer 10))

### closing wakes a reader
(def [client peer] (connected))
(background (net/read client 10))
(:close client)
(settle)
(print "after")
(:close peer)

### closing wakes a chunk that has something
(def [client peer] (connected))
(def buffer @"")
(background (net/chunk client 10 buffer))
(net/write peer "some")
(settle)
(:close client)
(settle)
(show buffer)
(:close peer)

### closing wakes who reads to the end
(def [client peer] (connected))
(background (net/read client :all))
(:close client)
(settle)
(:close peer)

### closing wakes a writer
(def [client peer] (connected))
(background (net/write client (buffer/new-filled 50000000)))
(:close client)
(settle)
(print "after")
(:close peer)

### closing wakes who accepts
(def listener (net/listen "127.0.0.1" "0"))
(background (net/accept listener))
(:close listener)
(settle)
(print "after")

### closing ends an accept loop
(def listener (net/listen "127.0.0.1" "0"))
(background (net/accept-loop listener (fn [connection] (:close connection))))
(:close listener)
(settle)
(print "after")

### closing wakes a reader and a writer at once
(def [client peer] (connected))
(background (net/read client 10))
(background (net/write client (buffer/new-filled 50000000)))
(:close client)
(settle)
(:close peer)

### a handler closes its listener
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(def finished (ev/chan))
(ev/spawn
  (show (net/accept-loop listener (fn [connection] (:close connection) (:close listener))))
  (ev/give finished :finished))
(def client (net/connect host port))
(show (net/read client 10))
(show (ev/take finished))
(:close client)

### the program ends when nothing is left to wait for
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(def client (net/connect host port))
(print "the end, with a listener and a connection open")

### a program ends by os/exit while fibers wait [exit status 3]
(def [client peer] (connected))
(background (net/read client 10))
(print "leaving")
(os/exit 3)

### an error at the top level is the exit status [exit status 1]
(def [client peer] (connected))
(print "before")
(net/read client "ten")
(print "never")

### an error in one fiber leaves the others alone
(def [client peer] (connected))
(ev/spawn (error "one fiber fails"))
(ev/spawn (net/write peer "still here"))
(show (net/read client 100))
(:close client)
(:close peer)

### a port is free again as soon as its listener is closed
(def listener (net/listen "127.0.0.1" "0" :stream true))
(def [host port] (net/localname listener))
(background (net/accept listener))
(:close listener)
(def again (net/listen host port :stream true))
(show (= [host port] (net/localname again)))
(:close again)

### connections that nobody has accepted end with their listener
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(def client (net/connect host port))
(:close listener)
(show (net/read client 10))
(:close client)

### nobody listens any more
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(:close listener)
(show (net/connect host port))

### bytes written before a close arrive
(def [client peer] (connected))
(ev/spawn (show (net/write client "abc")))
(ev/spawn (:close client))
(settle)
(show (net/read peer 10))
(:close peer)

### what was written arrives, though the program exits
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(def code (string/format "(def c (net/connect %q %q)) (net/write c `bye`) (os/exit 5)" host port))
(def process (os/spawn [(dyn :executable) "-e" code] :p))
(with [peer (net/accept listener)] (show (net/read peer :all)))
(show (os/proc-wait process))
(:close listener)

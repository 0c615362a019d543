### nothing to write
(def [client peer] (connected))
(show (net/write client ""))
(show (net/write client @""))
(show (net/write client "" 0))
(show (ev/write client ""))
(net/write client "something")
(show (net/read peer 100))
(:close client)
(:close peer)

### reading nothing
(def [client peer] (connected))
(net/write peer "here")
(show (net/read client 1))
(show (net/read client 0))
(show (net/chunk client 0))
(show (net/read client 0 @"kept"))
(show (net/read client 10))
(show (net/read client 0 @"" 0.01))
(show (net/chunk client 0 @"" 0.01))
(:close peer)
(show (net/read client 0))
(:close client)

### every kind of value with bytes
(def [client peer] (connected))
(each value ["string" @"buffer" :keyword 'symbol]
  (show (net/write client value))
  (show (net/read peer 100)))
(:close client)
(:close peer)

### values without bytes
(def [client peer] (connected))
(each value [nil 5 1.5 true @[] [1 2] @{} {} identity client (int/u64 5) (ev/chan)]
  (def [good fault] (protect (net/write client value)))
  (print good " " (type value) " " (if (function? value) (string/slice fault 0 8) fault))
  (def [good fault] (protect (ev/write client value)))
  (print good " " (type value) " " (if (function? value) (string/slice fault 0 8) fault)))
(:close client)
(:close peer)

### every byte arrives as it is
(def [client peer] (connected))
(def bytes (string/from-bytes ;(range 256)))
(net/write client bytes)
(show (= bytes (string (net/chunk peer 256))))
(:close client)
(:close peer)

### ten MiB of string, read to the end
(def [client peer] (connected))
(def size (* 10 1024 1024))
(def text (string/repeat "0123456789abcdef" (/ size 16)))
(ev/spawn (net/write client text) (:close client))
(def received (net/read peer :all))
(show (length received))
(show (= text (string received)))
(:close peer)

### ten MiB of buffer, in one chunk
(def [client peer] (connected))
(def size (* 10 1024 1024))
(def data (buffer/new-filled size (chr "x")))
(ev/spawn (net/write client data) (print "written"))
(def received (net/chunk peer size))
(settle)
(show (length received))
(show (deep= data received))
(:close client)
(:close peer)

### ten MiB by the functions of ev
(def [client peer] (connected))
(def size (* 10 1024 1024))
(def data (buffer/new-filled size (chr "y")))
(ev/spawn (ev/write client data) (:close client))
(def received (ev/read peer :all))
(show (length received))
(show (deep= data received))
(:close peer)

### large data in both directions at once
(def [client peer] (connected))
(def size (* 4 1024 1024))
(def there (string/repeat "a" size))
(def back (string/repeat "b" size))
(ev/gather
  (net/write client there)
  (net/write peer back)
  (assert (= there (string (net/chunk peer size))))
  (assert (= back (string (net/chunk client size)))))
(print "both arrived")
(:close client)
(:close peer)

### many small messages keep their order
(def [client peer] (connected))
(ev/spawn
  (for number 0 1000 (net/write client (string number ";")))
  (:close client))
(show (= (string (net/read peer :all)) (string/join (seq [number :range [0 1000]] (string number ";")))))
(:close peer)

### an echo, many times
(def server
  (net/server "127.0.0.1" "0"
    (fn [connection]
      (def buffer @"")
      (while (net/read connection 1024 buffer)
        (net/write connection buffer)
        (buffer/clear buffer))
      (:close connection))))
(def [host port] (net/localname server))
(def finished (ev/chan))
(for number 0 20
  (ev/spawn
    (with [client (net/connect host port)]
      (for round 0 20
        (def message (string number " " round))
        (net/write client message)
        (assert (= message (string (net/chunk client (length message)))))))
    (ev/give finished number)))
(show (sort (seq [_ :range [0 20]] (ev/take finished))))
(:close server)

### a buffer written in place of itself
(def [client peer] (connected))
(def buffer @"read into the buffer that is written")
(net/write client buffer)
(buffer/clear buffer)
(show (net/read peer 100 buffer))
(net/write peer buffer)
(show (net/read client 100 buffer))
(:close client)
(:close peer)

### a buffer that is read into grows meanwhile
(def [client peer] (connected))
(def buffer @"")
(background (net/chunk client 6 buffer))
(net/write peer "abc")
(settle)
(buffer/push buffer (string/repeat "-" 10))
(net/write peer "def")
(settle)
(show buffer)
(:close client)
(:close peer)

### a buffer that is read into is cleared meanwhile
(def [client peer] (connected))
(def buffer @"")
(background (net/chunk client 6 buffer))
(net/write peer "abc")
(settle)
(buffer/clear buffer)
(net/write peer "def")
(settle)
(show buffer)
(:close client)
(:close peer)

### a buffer that cannot hold what is read grows
(def [client peer] (connected))
(def buffer (buffer/new 1))
(net/write peer "more than one byte")
(show (net/read client 100 buffer))
(:close client)
(:close peer)

### reads ask for more than there is, and for less
(def [client peer] (connected))
(net/write peer (string/repeat "z" 3000))
(def sizes @[])
(var left 3000)
(while (pos? left)
  (def got (net/read client 1000))
  (-= left (length got)))
(show left)
(net/write peer "end")
(show (net/read client 2147483647))
(:close client)
(:close peer)

### the same buffer for two streams
(def [client peer] (connected))
(def [other-client other-peer] (connected))
(def buffer @"")
(net/write peer "one")
(net/write other-peer "two")
(net/read client 10 buffer)
(net/read other-client 10 buffer)
(show buffer)
(each stream [client peer other-client other-peer] (:close stream))

### one fiber writes while another reads on the same stream
(def [client peer] (connected))
(background (net/read client 100))
(show (net/write client "to the peer"))
(show (net/read peer 100))
(net/write peer "to the client")
(settle)
(:close client)
(:close peer)

### a buffer is cleared while it is written
(def [client peer] (connected))
(def data (buffer/new-filled 20000000 (chr "a")))
(def written (ev/chan 1))
(ev/spawn (ev/give written (protect (net/write client data))))
(settle)
(buffer/clear data)
(def received (net/read peer 1000))
(show (string/slice received 0 5))
(ev/spawn (while (net/read peer 1000000)))
(show (ev/take written))
(:close client)
(:close peer)

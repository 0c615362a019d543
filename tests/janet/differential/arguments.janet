### too few and too many arguments
(def [client peer] (connected))
(show (net/listen))
(show (net/listen "127.0.0.1"))
(show (net/listen "127.0.0.1" "0" :stream false nil))
(show (net/connect))
(show (net/connect "127.0.0.1"))
(show (net/connect "127.0.0.1" "80" :stream nil nil nil))
(show (net/accept))
(show (net/accept client 1 2))
(show (net/accept-loop))
(show (net/accept-loop client))
(show (net/accept-loop client identity 3))
(show (net/read))
(show (net/read client))
(show (net/read client 1 @"" 1 1))
(show (net/chunk))
(show (net/chunk client))
(show (net/chunk client 1 @"" 1 1))
(show (net/write))
(show (net/write client))
(show (net/write client "x" 1 1))
(show (net/flush))
(show (net/flush client 1))
(show (net/setsockopt client :so-keepalive))
(show (ev/read client))
(show (ev/chunk client))
(show (ev/write client))
(show (ev/close))
(show (ev/close client 1))
(show (:close client 1))
(:close client)
(:close peer)

### the first argument is no stream
(each call [net/accept |(net/accept-loop $ identity) |(net/read $ 10) |(net/chunk $ 10)
            |(net/write $ "x") net/flush net/shutdown net/localname net/peername
            |(net/setsockopt $ :so-keepalive true) |(ev/read $ 10) |(ev/chunk $ 10)
            |(ev/write $ "x") ev/close]
  (each value [nil 5 "text" @{} stdout]
    (def [_ fault] (protect (call value)))
    (print (if (string/find "core/file" (string fault)) "about a file" fault))))

### amounts to read
(def [client peer] (connected))
(each amount [-1 1.5 "10" nil :some :ALL @"all" "all" 3000000000 math/inf math/nan true]
  (each call [net/read net/chunk ev/read ev/chunk]
    (printf "%q: %q" amount (protect (call client amount)))))
(show (net/chunk client :all))
(show (ev/chunk client :all))
(:close client)
(:close peer)

### buffers to read into
(def [client peer] (connected))
(each buffer ["text" 5 :word @[] true]
  (each call [net/read net/chunk ev/read ev/chunk]
    (printf "%q: %q" buffer (protect (call client 10 buffer)))))
(net/write peer "nil is a new buffer")
(show (net/read client 100 nil))
(:close client)
(:close peer)

### timeouts of other types
(def [client peer] (connected))
(def listener (net/listen "127.0.0.1" "0"))
(each timeout ["1" :soon @[] true]
  (printf "%q" (protect (net/read client 10 @"" timeout)))
  (printf "%q" (protect (net/read client :all @"" timeout)))
  (printf "%q" (protect (net/chunk client 10 @"" timeout)))
  (printf "%q" (protect (net/write client "x" timeout)))
  (printf "%q" (protect (net/accept listener timeout)))
  (printf "%q" (protect (ev/read client 10 @"" timeout)))
  (printf "%q" (protect (ev/write client "x" timeout))))
(:close client)
(:close peer)
(:close listener)

### several arguments are wrong: which one is named
(def [client peer] (connected))
(def listener (net/listen "127.0.0.1" "0"))
(show (net/read client "ten" "buffer" "timeout"))
(show (net/read client 10 "buffer" "timeout"))
(show (net/read client "ten" @"" "timeout"))
(show (net/read client :all "buffer" "timeout"))
(show (net/chunk client "ten" "buffer" "timeout"))
(show (net/chunk client 10 "buffer" "timeout"))
(show (net/write client 5 "timeout"))
(show (net/write listener 5 "timeout"))
(show (net/read listener "ten"))
(show (ev/read client "ten" "buffer" "timeout"))
(show (ev/chunk client "ten" "buffer" "timeout"))
(show (ev/write client 5 "timeout"))
(show (net/connect 5 @[] "type" 6 @[]))
(show (net/connect 5 @[] :stream 6 @[]))
(show (net/connect 5 @[] :stream "127.0.0.1" @[]))
(show (net/connect 5 @[]))
(show (net/listen 5 @[] "type"))
(show (net/listen 5 @[]))
(show (net/accept-loop client 5))
(:close client)
(:close peer)
(:close listener)

### handlers of an accept loop
(def listener (net/listen "127.0.0.1" "0"))
(show (net/accept-loop listener (fn [])))
(show (net/accept-loop listener (fn [&])))
(show (net/accept-loop listener (fn [&opt connection])))
(show (net/accept-loop listener print))
(show (net/accept-loop listener nil))
(show (net/accept-loop listener :handler))
(show (net/accept-loop listener @{}))
(:close listener)

### a handler may take more than one argument if it can do with one
(def listener (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname listener))
(background
  (net/accept-loop listener
    (fn [connection &opt more & rest] (net/write connection (describe [more rest])) (:close connection))))
(with [client (net/connect host port)] (show (net/read client 100)))
(:close listener)
(settle)

### options of sockets
(def [client peer] (connected))
(show (net/setsockopt client :so-keepalive true))
(show (net/setsockopt client :so-keepalive false))
(show (net/setsockopt client :so-reuseaddr true))
(show (net/setsockopt client :so-broadcast true))
(show (:setsockopt client :so-keepalive true))
(show (net/setsockopt client :so-keepalive 1))
(show (net/setsockopt client :so-keepalive nil))
(show (net/setsockopt client :no-such-option true))
(show (net/setsockopt client "so-keepalive" true))
(show (net/setsockopt client :ip-multicast-ttl 5))
(show (net/setsockopt client :ip-multicast-ttl 1000))
(show (net/setsockopt client :ip-add-membership "224.0.0.1"))
(show (net/setsockopt client :ipv6-unicast-hops 5))
(:close client)
(:close peer)

### options of listeners
(def listener (net/listen "127.0.0.1" "0"))
(show (net/setsockopt listener :so-keepalive true))
(show (net/setsockopt listener :so-reuseaddr false))
(:close listener)

### flush returns the stream
(def [client peer] (connected))
(show (= client (net/flush client)))
(show (= client (:flush client)))
(net/write client "flushed")
(show (= client (net/flush client)))
(show (net/read peer 10))
(:close client)
(show (net/flush client))
(:close peer)

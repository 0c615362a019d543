# What the RPC library does, as a transcript.

(import ./rpc)

(defmacro show [title form]
  ~(let [[ok value] (protect ,form)] (printf "%s: %s %q" ,title (if ok "gives" "raises") value)))

# The encoding, there and back.
(each value [nil true false 0 127 128 -1 -32 -33 65536 4294967295 1.5 -2.25 1e300 5e-324 math/inf
             "" "text" :word 'symbol @"buffer" (string/repeat "x" 40) [] [1 [2 [3]]] @{"a" 1 "b" [true nil]} {:k "v"}]
  (def bytes (rpc/encode value))
  (def [back end] (rpc/decode bytes))
  (assert (= end (length bytes)))
  (printf "%q is %d bytes and %q" value (length bytes) back))
(each number [400 70000]
  (def text (string/repeat "y" number))
  (def array (range (min number 1000)))
  (printf "%d bytes: %q" number (= text (first (rpc/decode (rpc/encode text)))))
  (printf "%d elements: %q" (length array) (deep= array (first (rpc/decode (rpc/encode array))))))
(show "a function" (rpc/encode print))
(show "no type" (rpc/decode "\xC1"))
(show "nothing" (rpc/decode ""))

# A server; the slow function waits until it is released.
(def release (ev/chan))
(def log @[])
(def server
  (rpc/server "127.0.0.1" "0"
    {"add" + "upper" string/ascii-upper
     "slow" (fn [word] (array/push log (string "began " word)) (ev/take release) (string "slow " word))
     "release" (fn [] (ev/give release true) "released")
     "fail" (fn [& why] (error (string/join why " ")))
     "count" (fn [word] (frequencies (map string/from-bytes word)))
     "nothing" (fn [])}))
(def [host port] (net/localname server))
(def client (rpc/connect host port))

(show "add" (rpc/call client "add" 1 2 3.5))
(show "upper" (rpc/call client "upper" "shout"))
(show "nothing" (rpc/call client "nothing"))
(def counted (rpc/call client "count" "banana"))
(printf "count: %q" (sort (pairs counted)))
(show "fail" (rpc/call client "fail" "for" "a" "reason"))
(show "wrong arguments" (rpc/call client "upper" 5))
(show "unknown" (rpc/call client "no-such-function"))
(show "what cannot be sent" (rpc/call client "add" print))
(show "after the errors" (rpc/call client "add" 1 1))

# A slow call does not hold up the others on the same stream.
(def results (ev/chan 10))
(ev/spawn (ev/give results [:slow (rpc/call client "slow" "snail")]))
(while (empty? log) (ev/sleep 0))
(show "meanwhile" (rpc/call client "upper" "quick"))
(printf "waiting: %d" (ev/count results))
(show "release" (rpc/call client "release"))
(printf "then: %q" (ev/take results))

# Many fibers share one client.
(for number 0 100 (ev/spawn (ev/give results (= (+ number 1) (rpc/call client "add" number 1)))))
(printf "a hundred calls: %q" (frequencies (seq [_ :range [0 100]] (ev/take results))))
(def long (string/repeat "long " 20000))
(show "a long argument" (= (string/ascii-upper long) (rpc/call client "upper" long)))

# Several clients.
(def clients (seq [_ :range [0 5]] (rpc/connect host port)))
(printf "clients: %q" (seq [[number c] :pairs clients] (rpc/call c "add" number 10)))
(each c clients (:close c))

# A server that does not keep to the protocol: what waits is told.
(def broken (net/server "127.0.0.1" "0" (fn [stream] (net/read stream 4) (net/write stream "\xFF\xFF\xFF\xFF"))))
(def misled (rpc/connect ;(net/localname broken)))
(show "a broken server" (rpc/call misled "add" 1))
(show "and then" (rpc/call misled "add" 1))
(:close misled)
(:close broken)

# A server that leaves in the middle of a call.
(def leaving (net/server "127.0.0.1" "0" (fn [stream] (rpc/receive-message stream) (:close stream))))
(def left (rpc/connect ;(net/localname leaving)))
(show "a server that leaves" (rpc/call left "add" 1))
(:close left)
(:close leaving)

# A client that leaves while its call runs harms nobody.
(def rude (rpc/connect host port))
(ev/spawn (show "the rude call" (rpc/call rude "slow" "rude")))
(while (< (length log) 2) (ev/sleep 0))
(:close rude)
(show "release" (rpc/call client "release"))
(show "the others" (rpc/call client "add" 20 22))
(:close client)
(while (not (client :ended)) (ev/sleep 0))
(show "a closed client" (rpc/call client "add" 1))
(:close server)
(printf "log: %q" log)

### sockets are of streams unless told otherwise
(def server (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname server))
(each client [(net/connect host port) (net/connect host port :stream) (net/connect host port nil)]
  (def peer (net/accept server))
  (net/write client "one ")
  (net/write client "sequence")
  (show (net/chunk peer 12))
  (show (net/recv-from peer 10 @""))
  (:close client)
  (:close peer))
(def client (net/connect host port :datagram))
(show (net/write client "to nobody, as the server takes no datagrams"))
(show (net/accept server 0.002))
(:close client)
(:close server)

### other fibers run while an operation waits
(defmacro beside
  "Runs an operation that waits until the release, with another fiber beside it."
  [operation release]
  ~(do
     (var outcome nil)
     (var turns 0)
     (ev/spawn (set outcome (protect ,operation)))
     (ev/spawn (while (nil? outcome) (++ turns) (ev/sleep 0)))
     (repeat 10 (ev/sleep 0))
     (printf "%q waits: %q, others run: %q" ',operation (nil? outcome) (> turns 3))
     ,release
     (while (nil? outcome) (ev/sleep 0.001))
     (printf "%q" outcome)))

(def server (net/listen "127.0.0.1" "0"))
(def clients @[])
(beside (type (net/accept server)) (array/push clients (net/connect ;(net/localname server))))
(def [client peer] (connected))
(beside (net/read client 10) (net/write peer "to be read"))
(beside (net/chunk client 6) (net/write peer "chunks"))
(def much (string/repeat "much " 4000000))
(beside (net/write client much) (net/chunk peer (length much)))
(def [receiver sender] (datagrams))
(beside (type (net/recv-from receiver 10 @"")) (net/write sender "x"))
(each stream [server client peer receiver sender ;clients] (:close stream))

### a function that blocks the loop holds up the network
(def answers @[])
(def server
  (net/server "127.0.0.1" "0"
    (fn [connection]
      (defer (:close connection)
        (while (def bytes (net/read connection 100))
          (net/write connection (string "echo " bytes)))))))
(def client (net/connect ;(net/localname server)))
(ev/spawn
  (net/write client "hello")
  (array/push answers (net/read client 100)))
(os/sleep 0.05)
(show answers)
(while (empty? answers) (ev/sleep 0.001))
(show answers)
(:close client)
(:close server)

# A program to be packed: it uses the core, PEGs, timers and sockets.

(def- words (peg/compile '(any (+ (* (<- :a+) (any :s)) 1))))

(defn- echo [text]
  (def server (net/listen "127.0.0.1" "0"))
  (def [host port] (net/localname server))
  (ev/spawn (with [peer (net/accept server)] (net/write peer (net/read peer 100))))
  (defer (:close server)
    (with [stream (net/connect host port)]
      (net/write stream text)
      (string (net/read stream 100)))))

(defn main [_ & arguments]
  (ev/sleep 0.001)
  (pp (mapcat |(peg/match words $) arguments))
  (print (echo "echoed"))
  (os/exit (length arguments)))

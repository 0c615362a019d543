# Cancels a reader whose bytes have arrived but which has not run yet: the next reader gets them.
(def listener (net/listen "127.0.0.1" "0"))
(def client (net/connect ;(net/localname listener)))
(def served (net/accept listener))

(defn read-or [fallback] (try (net/read served 100 nil 1) ([_] fallback)))

(var [missing overtaken] [0 0])
(repeat 200
  (def out @[])
  (def reader (ev/spawn (array/push out (read-or nil))))
  (ev/sleep 0)
  (net/write client "hello")
  (try (ev/cancel reader "overtaken") ([_] nil))
  (ev/sleep 0)
  (ev/sleep 0)
  (unless (first out)
    (++ overtaken)
    (unless (= "hello" (string (read-or "nothing"))) (++ missing))))
(:close client)
(:close served)
(:close listener)
(string/format "%d missing, overtaken: %q" missing (pos? overtaken))

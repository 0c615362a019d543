# Fan-out: jobs go through a channel to some workers, which fetch from several servers at once; the results
# come back through another channel, in the order in which they are ready.
#
#   ./scripts/run janet examples/fan_out.janet [WORKERS]
#
# The servers are in this program too, so it needs no network; it ends by itself.

(def workers (scan-number (get (dyn :args) 1 "4")))
(unless (and (int? workers) (pos? workers))
  (eprintf "%q: expected how many workers there are to be" (get (dyn :args) 1))
  (os/exit 2))

(defn start-server
  "A server that takes its time, and then answers each question with its name."
  [name seconds]
  (net/server "127.0.0.1" "0"
              (fn [stream]
                (defer (:close stream)
                  (def question (:read stream 100))
                  (ev/sleep seconds)
                  (:write stream (string name " on " question))))))

(def servers
  [(start-server "quick" 0)
   (start-server "steady" 0.01)
   (start-server "slow" 0.03)])

(defn fetch [{:server server :question question}]
  (with [stream (net/connect ;(net/localname server))]
    (:write stream question)
    (string (or (:read stream 100 nil 10) (error "the server said nothing")))))

# Both channels are bounded: who gives to a full one waits, so nothing piles up, however many jobs there are.
(def jobs (ev/chan 8))
(def results (ev/chan 8))

(repeat workers
  (ev/spawn
    (while (def job (ev/take jobs)) # nil, once the channel is closed
      # A job that fails is a result like any other: nobody waits for one that never comes.
      (ev/give results [job (protect (fetch job))]))))

(def questions (seq [number :range [0 10]] (string "question " number)))
(def total (* (length servers) (length questions)))
(ev/spawn
  (loop [question :in questions server :in servers]
    (ev/give jobs {:server server :question question})))

(def answers @{})
(repeat total
  (def [{:question question} [is-good answer]] (ev/take results))
  (def text (if is-good answer (string "no answer: " answer)))
  (update answers question |(array/push (or $ @[]) text)))

(ev/chan-close jobs)
(each server servers (:close server))
(each question questions
  (print question ": " (string/join (sorted (answers question)) ", ")))
(printf "%d answers by %d workers" total workers)

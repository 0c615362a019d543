# A REPL over the network: every client has an environment of its own.
#
# A client sends a line of text, and gets what it came to: messages that begin with their length. Text
# that is not complete yet is answered with :more.

(defn- send [stream & parts]
  (def body (buffer ;parts))
  (:write stream (buffer/push (buffer/push-uint32 @"" :le (length body)) body)))

(defn- receive [stream]
  (when-let [head (:chunk stream 4)]
    (def [a b c d] head)
    (def size (+ a (* 256 b) (* 65536 c) (* 16777216 d)))
    (if (zero? size) @"" (:chunk stream size))))

# An answer is one letter, and the text that belongs to it: v for a value, e for an error, o for output,
# m for more, and a dot behind the last.

(def- answer-peg
  (peg/compile
    ~{:kind (+ (* "v" (constant :value)) (* "e" (constant :error)) (* "o" (constant :output))
               (* "m" (constant :more)) (* "." (constant :end)))
      :main (* :kind '(any 1))}))

(defn- evaluate
  "What one piece of source comes to: a list of answers, in order."
  [env source results]
  (def output @"")
  (defn answer [letter text]
    (unless (empty? output)
      (array/push results (string "o" output))
      (buffer/clear output))
    (array/push results (string letter text)))
  (var sent false)
  (put env :out output)
  (put env :err output)
  (def fiber
    (fiber/new
      (fn []
        (run-context
          {:env env
           :source "repl"
           :chunks (fn [chunk _] (unless sent (set sent true) (buffer/push chunk source "\n")))
           :on-status
           (fn [fiber value]
             (if (= (fiber/status fiber) :dead)
               (do (put env '_ @{:value value}) (answer "v" (string/format "%q" value)))
               (answer "e" (if (bytes? value) value (string/format "%q" value)))))
           :on-compile-error (fn [message & _] (answer "e" (string "compile error: " message)))
           :on-parse-error (fn [parser _] (answer "e" (string "parse error: " (parser/error parser))))}))
      :e))
  (resume fiber)
  (if (= :error (fiber/status fiber)) (answer "e" (string (fiber/last-value fiber))))
  (unless (empty? output) (answer "o" "")))

(defn- complete? [source]
  (def parser (parser/new))
  (parser/consume parser (string source "\n"))
  (not= :pending (parser/status parser)))

(defn- serve-connection [stream make-env]
  (defer (:close stream)
    (def name (receive stream))
    (def env (make-env (string name)))
    (send stream "v" "welcome, " (or name "nobody"))
    (def pending @"")
    (while (def line (receive stream))
      (buffer/push pending line "\n")
      (if (complete? pending)
        (do
          (def results @[])
          (def source (string pending))
          (buffer/clear pending)
          (evaluate env source results)
          (each result results (send stream result))
          (send stream "." ""))
        (send stream "m" "")))))

(defn server
  "Serves until the listener that it returns is closed; `make-env` gets the name of each client."
  [host port &opt make-env]
  (default make-env (fn [_] (make-env)))
  (net/server host port (fn [stream] (protect (serve-connection stream make-env)))))

# The client.

(defn connect [host port name]
  (def client @{:stream (net/connect host port) :close (fn [self] (:close (self :stream)))})
  (send (client :stream) name)
  (put client :greeting (string/slice (receive (client :stream)) 1))
  client)

(defn ask
  "Sends a line; gives what came of it, in order, as pairs like [:value \"3\"] and [:output \"text\"]."
  [client line]
  (send (client :stream) line)
  (def results @[])
  (var more true)
  (while more
    (def [kind text] (peg/match answer-peg (or (receive (client :stream)) ".")))
    (if (= kind :end) (set more false) (array/push results [kind text]))
    (if (= kind :more) (set more false)))
  results)

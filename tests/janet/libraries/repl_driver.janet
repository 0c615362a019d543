# What the REPL library does, as a transcript.

(import ./repl)

(def visits @[])
(def server
  (repl/server "127.0.0.1" "0"
    (fn [name]
      (array/push visits name)
      (def env (make-env))
      (put env 'my-name @{:value name})
      env)))
(def [host port] (net/localname server))

(defn show [client & lines]
  (each line lines
    (def results (repl/ask client line))
    (printf "%s> %s" (client :name) line)
    (each [kind text] results (printf "  %q %s" kind (string/replace-all "\n" "|" text)))))

(defn visitor [name]
  (def client (repl/connect host port name))
  (put client :name name)
  (print (client :greeting))
  client)

(def ann (visitor "ann"))
(def bob (visitor "bob"))

# Values, definitions, and what was asked last.
(show ann "(+ 1 2)" "(* _ _)" "my-name" "(def x 10)" "(defn double [n] (* 2 n))" "(double x)")
# Several forms in one line, and one form in several lines.
(show ann "1 2 (def y 3)" "(map" "  double" "  [1 2 3])" "@{:a [1 2] :b \"text\"}")
# Each client has an environment of its own.
(show bob "my-name" "x" "(def x :bob)" "x" "(double 1)")
(show ann "x")
# Output comes in its place.
(show ann
  "(print \"printed\") (do (prin \"and \") (print \"more\") :value)"
  "(eprint \"to err\")"
  "(printf \"%d%%\" 50)")
# Errors of every kind leave the session as it was.
(show ann
  "(error \"raised\")"
  "(error [:structured 5])"
  "(undefined-function 1)"
  ")"
  "(+ 1 :a)"
  "((fn f [n] (if (= n 0) (error \"deep\") (f (- n 1)))) 50)"
  "x")
# Macros, and modules of the core.
(show bob
  "(defmacro twice [form] ~(do ,form ,form))"
  "(do (var n 0) (twice (++ n)) n)"
  "(string/split \",\" \"a,b,c\")"
  "(peg/match '(some (* (number :d+) (? \",\"))) \"1,22,333\")")
# A session uses sockets and the event loop of the server.
(show bob
  "(do (ev/sleep 0.001) :slept)"
  (string "(do (def l (net/listen \"127.0.0.1\" \"0\")) (def c (net/connect ;(net/localname l)))"
          " (net/write (net/accept l) \"inner\") (string (net/read c 10)))"))
(show bob "(do (def channel (ev/chan)) :made)" "(do (ev/spawn (ev/give channel :given)) (ev/take channel))")
# A session that sleeps does not hold up the other.
(def slow (ev/chan))
(ev/spawn (ev/give slow (repl/ask bob "(do (ev/sleep 0.02) :awake)")))
(show ann "(+ x 1)")
(printf "bob: %q" (ev/take slow))
# Long values come whole.
(printf "long: %d bytes" (length ((first (repl/ask ann "(string/repeat \"long\" 50000)")) 1)))
# A client that leaves in the middle of a form is forgotten.
(def eve (visitor "eve"))
(show eve "(def unfinished")
(:close eve)
(show ann ":still-here")
# Many clients at once.
(def done (ev/chan))
(for number 0 30
  (ev/spawn
    (def client (repl/connect host port (string "guest " number)))
    (defer (:close client)
      (repl/ask client (string "(def n " number ")"))
      (repl/ask client "(ev/sleep 0)")
      (ev/give done (= [:value (string (* number number))] (first (repl/ask client "(* n n)")))))))
(printf "thirty guests: %q" (frequencies (seq [_ :range [0 30]] (ev/take done))))
(printf "visits: %d, the first %q" (length visits) (slice visits 0 3))
(:close ann)
(:close bob)
(:close server)

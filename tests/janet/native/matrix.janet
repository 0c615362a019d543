# What the programs that go through kinds, states and functions have in common.

(import ./events)

(defn settle
  "Lets every other fiber run until it waits."
  []
  (repeat 5 (ev/sleep 0)))

(defn finish
  "Waits until a fiber has ended."
  [fiber]
  (while (nil? (index-of (fiber/status fiber) [:dead :error])) (ev/sleep 0)))

(defn plain
  "A result without what no two runs have in common."
  [value]
  (case (type value)
    :buffer (string value)
    :core/stream :stream
    :core/socket-address :address
    value))

(defmacro outcome
  "The value of forms, or their error."
  [& body]
  (with-syms [fault] ~(try (,plain (do ,;body)) ([,fault] [:error ,fault]))))

(defmacro started
  "Runs forms in a fiber until it waits; gives a function that waits for what they come to."
  [& body]
  (with-syms [result fiber]
    ~(let [,result @[]
           ,fiber (ev/go (fn [] (array/push ,result (outcome ,;body))))]
       (,settle)
       {:fiber ,fiber :result (fn [] (,finish ,fiber) (first ,result)) :waits (fn [] (,empty? ,result))})))

(defn result [running] ((running :result)))

# Kinds of streams: each gives the one that is tested, and its peer.

(def tcp (net/listen "127.0.0.1" "0"))
(def unix-path (string "native-" (os/getpid)))
(def unix (net/listen :unix unix-path))

(defn tcp-pair []
  (def client (net/connect ;(net/localname tcp)))
  [client (net/accept tcp)])

(defn unix-pair []
  (def client (net/connect :unix unix-path))
  [client (net/accept unix)])

(def- all-kinds
  [["tcp, connected" tcp-pair]
   ["tcp, accepted" (fn [] (reverse (tcp-pair)))]
   ["unix, connected" unix-pair]
   ["unix, accepted" (fn [] (reverse (unix-pair)))]])

(def kinds
  "All kinds, or those whose name starts as the program's argument says."
  (filter (fn [[kind]] (string/has-prefix? (get (dyn :args) 1 "") kind)) all-kinds))

(defn round-trip [near far]
  (net/write far "ping")
  (net/chunk near 4)
  (net/write near "pong")
  (net/chunk far 4))

# Ways to end a connection while something waits on it.

(def endings
  [["closed by Janet" (fn [near far] (:close near))]
   ["closed by the function of C" (fn [near far] (events/cfun-close near))]
   ["closed by C" (fn [near far] (events/close near))]
   ["closed by the peer" (fn [near far] (:close far))]
   ["reset by the peer" (fn [near far] (events/reset-at-close far) (:close far))]])

(defn run-cell
  "Prints what a cell of the matrix comes to."
  [title cell]
  (def results (outcome (ev/with-deadline 60 (cell))))
  (printf "%s: %q" title results)
  (flush))

(defn closing
  "Runs a function on the two ends of a new connection, and closes both."
  [make prepare f]
  (def [near far] (make))
  (defer (do (:close near) (:close far))
    (prepare near far)
    (f near far)))

(defn say-what-is-left
  "Prints whether there are as many registrations with epoll as at the start."
  [at-start]
  (:close tcp)
  (:close unix)
  (os/rm unix-path)
  (settle)
  (gccollect)
  (settle)
  (print "registrations left: " (max 0 (- (events/registrations) at-start))))

# What every program of the comparison begins with.

(defmacro show
  "Prints a form and what it comes to: its value, or its error."
  [form]
  (with-syms [value fault]
    ~(try
       (let [,value ,form] (printf "%s => %q" ,(string/format "%q" form) ,value))
       ([,fault] (printf "%s !! %q" ,(string/format "%q" form) ,fault)))))

(defn connected
  "Two ends of a connection."
  []
  (with [listener (net/listen "127.0.0.1" "0")]
    (def [host port] (net/localname listener))
    (def client (net/connect host port))
    [client (net/accept listener)]))

(defn busy
  "Two ends of a connection that have exchanged messages."
  []
  (def [client peer] (connected))
  (repeat 10 (net/write client "?") (net/read peer 1) (net/write peer "!") (net/read client 1))
  [client peer])

(defn talker
  "Another process, which exchanges messages with this one, writes some last words, and runs some code; and the
  connection to it."
  [code]
  (def listener (net/listen "127.0.0.1" "0"))
  (def [host port] (net/localname listener))
  (def code
    (string/format
      `(def stream (net/connect %q %q))
      (repeat 10 (net/write stream "?") (net/read stream 1))
      (net/write stream "last words")
      %s
      (:close stream)`
      host port code))
  (def process (os/spawn [(dyn :executable) "-e" code] :p {:in :pipe :out :pipe :err :pipe}))
  (def peer (net/accept listener))
  (:close listener)
  (repeat 10 (net/chunk peer 1) (net/write peer "!"))
  [process peer])

# No program depends on how fast it runs. A timeout is either expected to pass, or so long that it never does; where
# fibers are to have come to some point, the program waits for that, and not for some time.

(def patience
  "How long ours may take, in seconds, for what the VM's own code never does."
  (if (= (os/getenv "RINGSPUN_NET") "stock") 3 60))

(defn settle
  "Lets every other fiber run until it waits, and take what is there for it: a number of turns of the loop."
  []
  (repeat 5 (ev/sleep 0)))

(defn- running? [fiber] (nil? (index-of (fiber/status fiber) [:dead :error])))

(defn finish
  "Waits until fibers have ended."
  [& fibers]
  (while (some running? fibers) (ev/sleep 0.001)))

(defn finish-within
  "Waits until fibers have ended, or some seconds have passed."
  [seconds & fibers]
  (def end (+ seconds (os/clock :monotonic)))
  (while (and (some running? fibers) (< (os/clock :monotonic) end)) (ev/sleep 0.001)))

(defmacro background
  "Runs a form in a fiber of its own, which shows what it came to, up to the point where it waits."
  [form]
  ~(do (def fiber (ev/go (fn [] (show ,form)))) (settle) fiber))

(defn datagrams
  "A datagram server, and a client that is connected to it."
  [&opt host]
  # On a port that may be reused, the VM's own code can share it with another socket.
  (def server (net/listen (or host "127.0.0.1") "0" :datagram true))
  [server (net/connect ;(net/localname server) :datagram)])

(defn address-of
  "The address of a stream, as a destination of datagrams."
  [stream]
  (net/address ;(net/localname stream) :datagram false))

(defn socket-path
  "A path for a unix socket that no other process uses, in the program's folder."
  [&opt name]
  (string "socket-" (os/getpid) (or name "")))

(defmacro hiding
  "Shows a form with a path in it replaced by PATH."
  [path form]
  (with-syms [value fault]
    ~(let [hide (fn [what] (string/replace-all ,path "PATH" (string/format "%q" what)))]
       (try
         (let [,value ,form] (printf "%s => %s" ,(string/format "%q" form) (hide ,value)))
         ([,fault] (printf "%s !! %s" ,(string/format "%q" form) (hide ,fault)))))))

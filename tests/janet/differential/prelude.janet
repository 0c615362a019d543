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

(defn settle
  "Lets every other fiber run until it waits."
  []
  (repeat 3 (ev/sleep 0)))

(defmacro background
  "Runs a form in a fiber of its own, which shows what it came to, up to the point where it waits."
  [form]
  ~(do (def fiber (ev/go (fn [] (show ,form)))) (settle) fiber))

(defn datagrams
  "A datagram server, and a client that is connected to it."
  [&opt host]
  (def server (net/listen (or host "127.0.0.1") "0" :datagram))
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

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

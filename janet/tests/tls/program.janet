# What programs do with ringspun/tls. The names of the parts that hold are the result.
(import ringspun/tls)

(def [cert key] (tls/self-signed "localhost" "127.0.0.1"))
(def config (tls/client-config :ca cert))

(defn port-of [listener] ((net/localname listener) 1))

(def held @[])
(defn part [name ok] (if ok (array/push held name) (errorf "%s: failed" name)))

(defn text-of [f & args] (let [[ok error] (protect (f ;args))] (if ok (errorf "no error") (string error))))

# An echo server, and what clients see of it.
(def server
  (tls/server "127.0.0.1" "0"
    (fn [conn]
      (defer (:close conn)
        (def buffer @"")
        (while (first (protect (assert (:read conn 4096 buffer))))
          (:write conn buffer)
          (buffer/clear buffer))))
    :cert cert :key key :alpn ["echo/1"]))
(def port (port-of server))

(with [conn (tls/connect "localhost" port :config config)]
  (:write conn "hello")
  (part "echo" (= "hello" (string (:read conn 100))))
  (part "prints as a stream" (and (= :core/stream (type conn)) (string/has-prefix? "<core/stream" (describe conn))))
  (part "names" (and (= port ((net/peername conn) 1)) (= "127.0.0.1" ((net/localname conn) 0))))
  (part "info" (let [info (tls/info conn)]
                 (and (= (info :version) "TLSv1_3") (= (info :key-exchange) "X25519MLKEM768"))))
  (def big (string/repeat "0123456789abcdef" 100_000))
  (def writer (ev/spawn (net/write conn big)))
  (part "both directions at once" (= big (string (net/chunk conn (length big)))))
  (ev/write conn "by ev")
  (part "ev/read" (= "by ev" (string (ev/read conn 100)))))

# A deadline and a timeout lose nothing.
(with [conn (tls/connect "localhost" port :config config)]
  (part "timeout" (= "timeout" (text-of :read conn 10 nil 0.01)))
  (part "deadline" (string? (text-of |(ev/with-deadline 0.01 (:chunk conn 10)))))
  (:write conn "0123456789")
  (part "nothing is lost" (= "0123456789" (string (:chunk conn 10))))
  (def reader (ev/go (fn [] (protect (:chunk conn 10)))))
  (:write conn "abc")
  (ev/sleep 0.05)
  (ev/cancel reader "enough")
  (part "nor by a cancel" (= "abc" (string (:read conn 10)))))

# Ends.
(def ending
  (tls/server "127.0.0.1" "0"
    (fn [conn]
      (case (string (:read conn 100))
        "close" (do (:write conn "all") (:close conn))
        "half" (do (:write conn "yours: ") (:write conn (:read conn :all)) (:close conn))))
    :cert cert :key key))
(with [conn (tls/connect "localhost" (port-of ending) :config config)]
  (:write conn "close")
  (part "close" (and (= "all" (string (:read conn 100))) (nil? (:read conn 100)))))
(with [conn (tls/connect "localhost" (port-of ending) :config config)]
  (:write conn "half")
  # Before the answer, the server might read "mine" with it.
  (def begun (string (:chunk conn 7)))
  (:write conn "mine")
  (:shutdown conn :w)
  (part "half-close" (= "yours: mine" (string begun (:read conn :all)))))
(def conn (tls/connect "localhost" port :config config))
(:close conn)
(part "closed" (string/find "closed" (text-of :read conn 1)))

# Wrong certificates and options.
(def stranger ((tls/self-signed "x") 0))
(part "not trusted" (string/find "certificate is not trusted" (text-of tls/connect "localhost" port :ca stranger)))
(part "another name"
      (string/find "is for localhost, " (text-of tls/connect "127.0.0.1" port :ca cert :server-name "elsewhere")))
(part "another protocol" (string/find "(ALPN)" (text-of tls/connect "localhost" port :ca cert :alpn ["h2"])))
(part "insecure" (with [conn (tls/connect "localhost" port :insecure true)] (:write conn "x") (:read conn 1)))
(part "unknown option"
      (string/find "unknown option :cacert, expected one of :config :ca"
                   (text-of tls/connect "localhost" port :cacert cert)))
(part "no file" (string/find ":ca: could not open file" (text-of tls/connect "localhost" port :ca "/nonexistent")))
(part "no key" (string/find "expected :cert and :key" (text-of tls/server-config :cert cert)))
(part "another key"
      (string/find "does not belong" (text-of tls/server-config :cert cert :key ((tls/self-signed "x") 1))))
(part "no configuration" (string/find "ringspun/tls-config" (text-of tls/connect "localhost" port :config 5)))

# Certificates of clients, several by name, renewal.
(def [my-cert my-key] (tls/self-signed "me"))
(def other (tls/self-signed "other.example"))
(def strict (tls/server-config :certs [[cert key] other] :client-ca my-cert))
(defn tell-name [conn]
  (defer (:close conn)
    # The handshake fails here for those that are refused.
    (when (first (protect (:read conn 5))) (:write conn ((tls/info conn) :server-name)))))
(def names (tls/server "127.0.0.1" "0" tell-name :config strict))
(defn greeting [& options]
  (with [conn (tls/connect "localhost" (port-of names) ;options)]
    (:write conn "hello")
    (string (:read conn 100))))
(part "by name" (= "other.example" (greeting :ca (other 0) :server-name "other.example" :cert my-cert :key my-key)))
(part "with a certificate" (= "localhost" (greeting :ca cert :cert my-cert :key my-key)))
(part "without one" (string/find "it requires a certificate of ours" (text-of greeting :ca cert)))
(def [new-cert new-key] (tls/self-signed "localhost"))
(tls/renew strict :cert new-cert :key new-key)
(part "renewed" (= "localhost" (greeting :ca new-cert :cert my-cert :key my-key)))

# STARTTLS.
(def mail
  (net/server "127.0.0.1" "0"
    (fn [conn]
      (assert (= "STARTTLS\n" (string (:read conn 100))))
      (:write conn "OK\n")
      (tls/accept conn :cert cert :key key)
      (:write conn "inside")
      (:close conn))))
(def plain (net/connect "127.0.0.1" (port-of mail)))
(:write plain "STARTTLS\n")
(assert (= "OK\n" (string (:read plain 100))))
(part "wrap" (= plain (tls/wrap plain "localhost" :config config)))
(part "inside" (= "inside" (string (:read plain 100))))
(:close plain)
(part "wrapped twice" (let [conn (tls/connect "localhost" port :config config)]
                        (string/find "without TLS" (text-of tls/wrap conn "localhost" :config config))))

# The collector, a resumed session, many connections.
(repeat 100 (tls/connect "localhost" port :config config))
(gccollect)
(def shared (tls/client-config :ca cert))
(defn ask-once []
  (with [conn (tls/connect "localhost" port :config shared)]
    (:write conn "x")
    (:read conn 1)
    ((tls/info conn) :resumed)))
(part "full" (nil? (ask-once)))
(part "resumed" (ask-once))
(def counts @{:answers 0})
(def done (ev/chan))
(def many 1000)
(for i 0 many
  (ev/spawn
    (with [conn (tls/connect "localhost" port :config config)]
      (:write conn (string i))
      (when (= (string i) (string (:read conn 100))) (update counts :answers inc)))
    (ev/give done i)))
(repeat many (ev/take done))
(part "a thousand connections" (= many (counts :answers)))

# Threads.
(def answers (ev/thread-chan 2))
(defn ask [_]
  (with [conn (tls/connect "localhost" port :ca cert)]
    (:write conn "thread")
    (ev/give answers (string (:read conn 100)))))
(ev/thread ask nil :n)
(part "threads" (= "thread" (ev/take answers)))
(with [conn (tls/connect "localhost" port :config config)]
  (:write conn "secret")
  (ev/thread (fn [conn] (ev/give answers (string/format "%q" (protect (:read conn 100))))) conn :n)
  (part "a session stays in its thread" (string/find "belongs to the thread that made it" (ev/take answers)))
  (part "and goes on there" (= "secret" (string (:read conn 100)))))

(:close server)
(:close ending)
(:close names)
(:close mail)
(def result (string/join held "\n"))

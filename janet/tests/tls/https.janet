# A server and a client of HTTP/1.1 in pure Janet, in the style of its libraries: they take a stream, whichever it is.
# What they exchange over TLS is what they exchange over TCP.
(import ringspun/tls)

(def body-bytes 5_000_000)
(def body (string/repeat "0123456789" (/ body-bytes 10)))

(defn read-head
  # The lines of a head, and what was received behind it.
  [conn buffer]
  (var end nil)
  (while (nil? (set end (string/find "\r\n\r\n" buffer)))
    (unless (:read conn 4096 buffer) (break)))
  (when end
    (def lines (string/split "\r\n" (string/slice buffer 0 end)))
    (def rest (buffer/slice buffer (+ end 4)))
    (buffer/clear buffer)
    (buffer/push buffer rest)
    lines))

(defn content-length [lines]
  (or (some |(if (string/has-prefix? "Content-Length: " $) (scan-number (string/slice $ 16))) lines) 0))

(defn take-body [conn buffer size]
  (def missing (- size (length buffer)))
  (when (pos? missing) (:chunk conn missing buffer))
  (def taken (string/slice buffer 0 (min size (length buffer))))
  (def rest (buffer/slice buffer (length taken)))
  (buffer/clear buffer)
  (buffer/push buffer rest)
  taken)

(defn handler [conn]
  (defer (:close conn)
    (def buffer @"")
    (while (def lines (read-head conn buffer))
      (def [method path] (string/split " " (first lines)))
      (def sent (take-body conn buffer (content-length lines)))
      (def answer (case path "/big" body "/echo" sent (string method " " path)))
      (:write conn (string "HTTP/1.1 200 OK\r\nContent-Length: " (length answer) "\r\n\r\n"))
      (:write conn answer))))

(defn ask [conn buffer method path &opt sent]
  (default sent "")
  (def head (string method " " path " HTTP/1.1\r\nHost: localhost\r\nContent-Length: " (length sent) "\r\n\r\n"))
  (:write conn (string head sent))
  (def lines (read-head conn buffer))
  [(first lines) (take-body conn buffer (content-length lines))])

(defn exchange [conn]
  (def buffer @"")
  (with [conn conn]
    (seq [[method path sent] :in [["GET" "/"] ["GET" "/big"] ["POST" "/echo" body] ["GET" "/last"]]]
      (ask conn buffer method path sent))))

(def [cert key] (tls/self-signed "localhost"))
(def plain (net/server "127.0.0.1" "0" handler))
(def secured (tls/server "127.0.0.1" "0" handler :cert cert :key key :alpn ["http/1.1"]))
(defn port-of [listener] ((net/localname listener) 1))

(def over-tcp (exchange (net/connect "127.0.0.1" (port-of plain))))
(def over-tls (exchange (tls/connect "localhost" (port-of secured) :ca cert :alpn ["http/1.1"])))
(assert (= (length body) (length ((over-tcp 1) 1))))
(assert (deep= over-tcp over-tls))

# Several clients at once, with connections that are kept.
(def config (tls/client-config :ca cert))
(def done (ev/chan))
(repeat 8
  (ev/spawn
    (ev/give done (deep= over-tcp (exchange (tls/connect "localhost" (port-of secured) :config config))))))
(repeat 8 (assert (= true (ev/take done))))
(:close plain)
(:close secured)
(def result "equal")

# An HTTP/1.1 server on every core, with persistent connections: it tells what each request has asked for.
#
#   ./scripts/run janet examples/http.janet [HOST [PORT]]    and then:    curl -i http://127.0.0.1:8000/some/path

(import ringspun)

(def head-max "How long the head of a request may be, in bytes." 8192)
(def body-max "The same of a body." 1000000)
(def patience "For how many seconds a client may send nothing." 30)

(def head
  (peg/compile
    ~{:token (some (if-not (set " \t\r\n:") 1))
      :header (group (* (<- :token) ":" (<- (to "\r\n")) "\r\n"))
      :main (* (<- :token) " " (<- (to " ")) " HTTP/1." (<- (set "01")) "\r\n"
               (group (any :header)) "\r\n" (position))}))

(defn fill
  "Reads into the buffer until it has enough; false if the stream ends before."
  [stream buffer has-enough]
  (while (and (not (has-enough)) (:read stream 4096 buffer patience)))
  (has-enough))

(defn answer [stream status text &opt closes has-no-body]
  (:write stream
    (string "HTTP/1.1 " status "\r\nContent-Type: text/plain\r\nContent-Length: " (length text)
      (if closes "\r\nConnection: close" "") "\r\n\r\n" (if has-no-body "" text)))
  (not closes))

(defn answer-request
  "Answers the request at the beginning of the buffer, and removes it; true if another one may follow."
  [stream buffer]
  (def [method target minor headers end] (or (peg/match head buffer) []))
  (defn header [name]
    (some (fn [[key value]] (if (= name (string/ascii-lower key)) (string/ascii-lower (string/trim value)))) headers))
  (def size (and method (scan-number (or (header "content-length") "0"))))
  (cond
    (not (and (nat? size) (nil? (header "transfer-encoding"))))
    (answer stream "400 Bad Request" "a request of HTTP/1 was expected, with the length of its body\n" true)

    (> size body-max)
    (answer stream "413 Content Too Large" (string "at most " body-max " bytes\n") true)

    (fill stream buffer |(>= (length buffer) (+ end size)))
    (let [rest (buffer/slice buffer (+ end size))
          closes (or (= "0" minor) (= "close" (header "connection")))]
      (buffer/clear buffer)
      (buffer/push buffer rest)
      (answer stream "200 OK" (string method " " target ", with " size " bytes\n") closes (= "HEAD" method)))))

(defn serve [stream]
  (defer (:close stream)
    (def buffer @"")
    (defn has-head [] (or (string/find "\r\n\r\n" buffer) (> (length buffer) head-max)))
    # A client that is silent for too long, or breaks the connection, is of no interest.
    (protect (while (and (fill stream buffer has-head) (answer-request stream buffer))))))

(def [_ host port] (dyn :args))
(def server (ringspun/serve (or host "127.0.0.1") (or port "8000") serve))
(printf "listening at %s:%d" ;(:localname server))
(flush)

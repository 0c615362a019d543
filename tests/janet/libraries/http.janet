# HTTP/1.1: a server and a client, with keep-alive, pipelining and chunked bodies.

(def- max-head 8192)

(def- head-grammar
  ~{:sp (some " ")
    :token (some (if-not (set " \t\r\n:") 1))
    :rest (any (if-not "\r\n" 1))
    :header (group (* '(some (if-not (set ":\r\n") 1)) ":" (any (set " \t")) '(any (if-not "\r\n" 1)) "\r\n"))
    :headers (group (any :header))
    :request (* '(some (range "AZ")) :sp ':token :sp "HTTP/1." '(range "01") "\r\n" :headers "\r\n" ($))
    :response (* "HTTP/1." :d :sp (number (3 :d)) (any " ") ':rest "\r\n" :headers "\r\n" ($))})

(def- request-peg (peg/compile (merge head-grammar {:main :request})))
(def- response-peg (peg/compile (merge head-grammar {:main :response})))
(def- chunk-peg (peg/compile ~{:main (* (number (some :h) 16) (any (if-not "\r\n" 1)) "\r\n" ($))}))

(def- reasons {200 "OK" 204 "No Content" 400 "Bad Request" 404 "Not Found" 413 "Content Too Large"
               500 "Internal Server Error"})

# A reader: a stream together with what has been read from it and not been used yet.

(defn- reader [stream] @{:stream stream :buffer @""})

(defn- fill
  "Reads more; is false at the end of the stream."
  [r]
  (truthy? (:read (r :stream) 4096 (r :buffer))))

(defn- drop-bytes [r n]
  (def buffer (r :buffer))
  (def rest (buffer/slice buffer n))
  (buffer/clear buffer)
  (buffer/push buffer rest))

(defn- take-bytes [r n]
  (while (< (length (r :buffer)) n)
    (unless (fill r) (error "the stream ends within a body")))
  (def bytes (string/slice (r :buffer) 0 n))
  (drop-bytes r n)
  bytes)

(defn- take-match
  "What a PEG that ends in its position captures, as soon as enough has been read up to `stop`."
  [r peg stop]
  (var at nil)
  (while (not (set at (string/find stop (r :buffer))))
    (if (> (length (r :buffer)) max-head) (error "the head is too long"))
    (unless (fill r)
      (if (empty? (r :buffer)) (break) (error "the stream ends within a head"))))
  (when at
    (def captures (peg/match peg (r :buffer)))
    (unless captures (error "the head is malformed"))
    (drop-bytes r (last captures))
    captures))

(defn- headers-of [pairs]
  (def headers @{})
  (each [name value] pairs (put headers (string/ascii-lower name) (string/trimr value)))
  headers)

(defn- take-chunks [r]
  (def body @"")
  (forever
    (def [size] (or (take-match r chunk-peg "\r\n") (error "the stream ends before a chunk")))
    (buffer/push body (take-bytes r size))
    (unless (= "\r\n" (take-bytes r 2)) (error "a chunk does not end where it should"))
    (if (zero? size) (break)))
  (string body))

(defn- take-body [r headers]
  (cond
    (= "chunked" (headers "transfer-encoding")) (take-chunks r)
    (headers "content-length") (take-bytes r (or (scan-number (headers "content-length"))
                                                 (error "the length is no number")))
    ""))

# Messages to send: a body that is a fiber goes out in chunks, one for each value it yields.

(defn- send [stream start headers body]
  (def head (buffer start "\r\n"))
  (eachp [name value] headers (buffer/push head name ": " (string value) "\r\n"))
  (if (fiber? body)
    (do
      (:write stream (buffer head "transfer-encoding: chunked\r\n\r\n"))
      (each part body
        (unless (empty? part) (:write stream (string/format "%x\r\n%s\r\n" (length part) part))))
      (:write stream "0\r\n\r\n"))
    (:write stream (buffer head "content-length: " (string (length body)) "\r\n\r\n" body))))

(defn- respond [stream response keep]
  (def {:status status :headers headers :body body} response)
  (default status 200)
  (send stream (string "HTTP/1.1 " status " " (get reasons status "Unknown"))
        (merge {} (or headers {}) (if keep {} {"connection" "close"}))
        (or body "")))

(defn- take-request [r]
  (when-let [[method path minor pairs] (take-match r request-peg "\r\n\r\n")]
    (def headers (headers-of pairs))
    (def wish (string/ascii-lower (get headers "connection" "")))
    @{:method method :path path :headers headers
      :keep (if (= minor "1") (not= wish "close") (= wish "keep-alive"))
      :body (take-body r headers)}))

(defn serve-connection
  "Answers the requests of one connection in their order, until it ends or does not make sense."
  [stream handler]
  (defer (:close stream)
    (def r (reader stream))
    (var keep true)
    (while keep
      (def [understood request] (protect (take-request r)))
      (cond
        (not understood) (do (respond stream {:status 400 :body (string request "\n")} false) (break))
        (nil? request) (break))
      (set keep (request :keep))
      (def [ok response] (protect (handler request)))
      (respond stream (if ok response {:status 500 :body (string response "\n")}) keep))))

(defn server
  "Serves until the listener that it returns is closed."
  [host port handler]
  (net/server host port (fn [stream] (protect (serve-connection stream handler)))))

(defn router
  "A handler of a table of handlers by method and path."
  [routes]
  (fn [request]
    (if-let [handler (get routes (string (request :method) " " (request :path)))]
      (handler request)
      {:status 404 :body (string "nothing at " (request :path) "\n")})))

# The client.

(defn connect [host port]
  @{:reader (reader (net/connect host port)) :host host
    :close (fn [self] (:close (get-in self [:reader :stream])))})

(defn send-request
  "Sends a request and does not wait for the answer, so that more can follow it."
  [client method path &named headers body]
  (def stream (get-in client [:reader :stream]))
  (send stream (string method " " path " HTTP/1.1") (merge {"host" (client :host)} (or headers {})) (or body "")))

(defn receive
  "The answer to the first request that has none yet; nil if the server has left."
  [client]
  (def r (client :reader))
  (when-let [[status reason pairs] (take-match r response-peg "\r\n\r\n")]
    (def headers (headers-of pairs))
    @{:status status :reason reason :headers headers :body (take-body r headers)}))

(defn request [client method path &named headers body]
  (send-request client method path :headers headers :body body)
  (receive client))

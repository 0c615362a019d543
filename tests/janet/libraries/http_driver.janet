# What the HTTP library does, as a transcript.

(import ./http)

(var served 0)

(defn show-request [request]
  (string/format "%s %s %q" (request :method) (request :path) (request :body)))

(def server
  (http/server "127.0.0.1" "0"
    (http/router
      {"GET /" (fn [request] (++ served) {:body "welcome\n" :headers {"content-type" "text/plain"}})
       "POST /echo" (fn [request] (++ served) {:body (show-request request)})
       "GET /count" (fn [request] {:body (coro (for number 0 5 (ev/sleep 0) (yield (string "line " number "\n"))))})
       "GET /large" (fn [request] {:body (string/repeat "0123456789" 30000)})
       "GET /error" (fn [request] (error "the handler failed"))
       "GET /empty" (fn [request] {:status 204})})))
(def [host port] (net/localname server))

(defn show [title answer]
  (if answer
    (printf "%s: %d %s %q" title (answer :status) (answer :reason) (answer :body))
    (printf "%s: no answer" title)))

# Keep-alive: several requests on one connection.
(def client (http/connect host port))
(def welcome (http/request client "GET" "/"))
(show "first" welcome)
(print "type: " (get-in welcome [:headers "content-type"]))
(show "second" (http/request client "POST" "/echo" :body "a body"))
(show "missing" (http/request client "GET" "/nowhere"))
(show "failed" (http/request client "GET" "/error"))
(show "empty" (http/request client "GET" "/empty"))
(show "chunked answer" (http/request client "GET" "/count"))
(show "chunked question" (http/request client "POST" "/echo" :body (coro (each part ["in " "" "parts"] (yield part)))))
(def large (http/request client "GET" "/large"))
(printf "large: %d bytes, %q" (length (large :body)) (string/slice (large :body) -6))

# Pipelining: the answers come in the order of the requests.
(for number 0 10 (http/send-request client "POST" "/echo" :body (string "pipelined " number)))
(for number 0 10 (show (string "pipelined " number) (http/receive client)))

# The client asks for the end.
(def farewell (http/request client "GET" "/" :headers {"connection" "close"}))
(show "last" farewell)
(print "connection: " (get-in farewell [:headers "connection"]))
(show "after the last" (http/receive client))
(:close client)

# Requests that come in small pieces, and several in one.
(with [stream (net/connect host port)]
  (each byte "GET / HTTP/1.1\r\nHost: x\r\n\r\n" (net/write stream (string/from-bytes byte)) (ev/sleep 0))
  (printf "byte by byte: %q" (first (string/split "\r\n" (net/read stream 4096))))
  (net/write stream "GET /empty HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n")
  (def both (net/read stream :all))
  (printf "two at once: %d answers, and the end" (length (string/find-all "HTTP/1.1 2" both))))

# What is no HTTP.
(each text ["nonsense\r\n\r\n" "GET / HTTP/1.1\r\nContent-Length: many\r\n\r\n" "GET / HT"
            "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]
  (with [stream (net/connect host port)]
    (net/write stream text)
    (net/shutdown stream :w)
    (def lines (string/split "\r\n" (or (net/read stream :all) "")))
    (printf "%q: %s, %q" text (first lines) (last lines))))

# Many clients at once.
(def answers
  (ev/gather
    (let [c (http/connect host port)] (defer (:close c) ((http/request c "POST" "/echo" :body "one") :body)))
    (let [c (http/connect host port)] (defer (:close c) ((http/request c "POST" "/echo" :body "two") :body)))))
(printf "two clients: %q" answers)
(def done (ev/chan))
(for number 0 40
  (ev/spawn
    (def c (http/connect host port))
    (defer (:close c)
      (var right true)
      (repeat 5
        (def body (string "client " number))
        (def answer (http/request c "POST" "/echo" :body body))
        (unless (string/find (string/format "%q" body) (answer :body)) (set right false)))
      (ev/give done right))))
(printf "forty clients: %q" (frequencies (seq [_ :range [0 40]] (ev/take done))))

(:close server)
(printf "served: %d" served)
(printf "afterwards: %s" (get (protect (net/connect host port)) 1))

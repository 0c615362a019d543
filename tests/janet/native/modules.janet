# Modules in the style of real ones, alone and with 200 connections at once.

(import ./json)
(import ./cipher)
(import ./web)
(import ./database)

(def many 200)

(defn all
  "What a function comes to for each number, in fibers that run at once."
  [count f]
  (def results (array/new-filled count))
  (def done (ev/chan count))
  (for i 0 count (ev/go (fn [] (put results i (try (f i) ([fault] [:error fault]))) (ev/give done i))))
  (repeat count (ev/take done))
  results)

(defn summary [results] (frequencies results))

# JSON

(each value [nil true 1.5 "a \"text\"\n" [] {} [1 [2 [3]]] {"a" {"b" [true false]}}]
  (def text (json/encode value))
  (printf "%q -> %s -> %q" value text (json/decode text)))
(each text ["[1 2]" "{\"a\"}" "\"" "" "1 2" "[[[["]
  (printf "%q !! %q" text (try (json/decode text) ([fault] fault))))

(def json-server
  (net/server "127.0.0.1" "0"
    (fn [stream]
      (defer (:close stream)
        (while (def line (net/read stream 4096))
          (def request (json/decode (string/trim line)))
          (net/write stream (string (json/encode {"sum" (sum (request "numbers"))}) "\n")))))))

(defn ask-json [i]
  (with [stream (net/connect ;(net/localname json-server))]
    (var total 0)
    (for j 0 10
      (net/write stream (string (json/encode {"numbers" [i j 1]}) "\n"))
      (+= total (- ((json/decode (string/trim (net/read stream 4096))) "sum") i j)))
    total))
(printf "json, one: %q" (ask-json 3))
(printf "json, %d: %q" many (summary (all many ask-json)))
(:close json-server)

# STARTTLS

(defn- read-all [stream count]
  (def bytes @"")
  (while (and (< (length bytes) count) (cipher/read stream (- count (length bytes)) bytes)))
  bytes)

(def cipher-server
  (net/server "127.0.0.1" "0"
    (fn [stream]
      (net/write stream "220 hello\n")
      (assert (= "STARTTLS\n" (string (net/read stream 9))))
      (net/write stream "220 go on\n")
      (def secret (cipher/upgrade stream "of the server"))
      # The client sends a large message while it reads another.
      (def written (ev/chan 1))
      (ev/spawn (cipher/write secret (string/repeat "from the server " 5_000)) (ev/give written true))
      (def received (read-all secret 80_000))
      (ev/take written)
      (def is-right (= (string received) (string/repeat "from the client " 5_000)))
      (cipher/write secret (string "got " (length received) " " is-right))
      (assert (= nil (cipher/read secret 100)))
      (cipher/close secret))))

(defn upgrade [i]
  (def stream (net/connect ;(net/localname cipher-server)))
  (assert (= "220 hello\n" (string (net/read stream 10))))
  (net/write stream "STARTTLS\n")
  (assert (= "220 go on\n" (string (net/read stream 10))))
  (def secret (cipher/upgrade stream (string "of client " i)))
  (ev/spawn (cipher/write secret (string/repeat "from the client " 5_000)))
  (def received (read-all secret 80_000))
  (def answer (read-all secret 14))
  (if (odd? i) (cipher/close secret) (:close stream))
  [(= (string received) (string/repeat "from the server " 5_000)) (string answer)])
(printf "a cipher, one: %q" (upgrade 1))
(printf "a cipher, %d: %q" many (summary (all many upgrade)))
(:close cipher-server)

# HTTP

(def listener (net/listen "127.0.0.1" "0"))
(def accepting (ev/go (fn [] (web/accept-loop listener (fn [stream] (web/serve stream))))))

(defn- request [i j] (string "GET /" i "/" j " HTTP/1.1\r\nHost: test\r\n\r\n"))
(defn- answer [i j]
  (def path (string "/" i "/" j))
  (string "HTTP/1.1 200 OK\r\nContent-Length: " (length path) "\r\n\r\n" path))

(defn fetch [i]
  (with [stream (net/connect ;(net/localname listener))]
    (def one-by-one
      (every? (seq [j :range [0 10]]
                    (net/write stream (request i j))
                    (= (answer i j) (string (net/chunk stream (length (answer i j))))))))
    (def expected (string ;(seq [j :range [0 50]] (answer i j))))
    (net/write stream (string ;(seq [j :range [0 50]] (request i j))))
    [one-by-one (= expected (string (net/chunk stream (length expected))))]))
(printf "http, one: %q" (fetch 1))
(printf "http, %d: %q" many (summary (all many fetch)))
(:close listener)

# Queries on threads

(def database-server
  (net/server "127.0.0.1" "0"
    (fn [stream]
      (defer (:close stream)
        (while (def name (net/read stream 100))
          (net/write stream (string (database/add (string name) 1))))))))

(defn query [i]
  (with [stream (net/connect ;(net/localname database-server))]
    (last (seq [_ :range [0 5]] (net/write stream (string "name " i)) (string (net/read stream 100))))))
(printf "a database, one: %q" (query 9999))
(printf "a database, %d: %q" many (summary (all many query)))
(printf "a database, one number: %q" (max ;(all many (fn [_] (database/add "shared" 1)))))
(:close database-server)
(print "the end")

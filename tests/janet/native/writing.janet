# Every function that writes to a stream, in every state of the stream, in every situation.

(import ./events)
(use ./matrix)

(def at-start (events/registrations))

(defn- polling
  "A function that does not wait, called until everything is written."
  [f]
  (fn [stream data]
    (var rest data)
    (var fault nil)
    (while (and (not fault) (not (empty? rest)))
      (def written (f stream rest))
      (cond
        (= written :again) (ev/sleep 0)
        (number? written) (set rest (string/slice rest written))
        (set fault written)))
    fault))

(defn- with-string [f] (fn [stream data] (f stream (string data))))
(defn- with-buffer [f] (fn [stream data] (f stream (buffer data))))

(def writers
  [["janet_ev_write_buffer" (with-buffer events/write-buffer)]
   ["janet_ev_write_string" (with-string events/write-string)]
   ["janet_ev_send_buffer" (with-buffer events/send-buffer)]
   ["janet_ev_send_string" (with-string events/send-string)]
   ["janet_async_start" (with-buffer events/async-write)]
   ["janet_cfun_stream_write" events/cfun-write]
   ["send" (polling events/raw-send)]
   ["write" (polling events/raw-write)]
   ["net/write" net/write]])

(def states
  [["fresh" (fn [near far])]
   ["written 100 times" (fn [near far] (repeat 100 (net/write near "x") (net/read far 10)))]
   ["read and written" (fn [near far] (repeat 50 (round-trip near far)))]
   ["written by C before" (fn [near far] (events/send-string near "x") (net/read far 10) (round-trip near far))]
   ["with unread bytes" (fn [near far] (repeat 20 (round-trip near far)) (net/write far "unread"))]
   ["being read" (fn [near far] (started (net/read near 100)))]
   ["being read by C" (fn [near far] (started (events/recv near 100)))]])

(def- large
  "Not the same in any two places, so that a byte out of order shows."
  (string ;(seq [i :range [0 50_000]] (string/format "%06x " i))))

(defn- waiting
  "A writer that waits for its peer, after which something happens."
  [happens]
  (fn [writer near far]
    (events/small-buffers near)
    (def writing (started (writer near large)))
    (def waits ((writing :waits)))
    [waits ;(happens writing near far)]))

(defn- read-up-to
  "Everything that comes, up to a mark."
  [stream mark]
  (def bytes @"")
  (while (not (string/has-suffix? mark bytes)) (net/read stream 100_000 bytes))
  bytes)

(defn- told-alike
  "The result of a writer whose peer has left: one of the kernel's errors, or that the stream has hung up."
  [result]
  (def fault (if (tuple? result) (result 1) result))
  (def known ["Connection reset by peer" "Broken pipe" "stream hup" "stream err" "hup"])
  (if (and fault (index-of (string fault) known)) :disconnected result))

(defn- mark-after
  "Whether the peer gets a part of what was written, in order, and what Janet writes next."
  [near far]
  (def marked (started (net/write near "<mark>")))
  (def bytes (read-up-to far "<mark>"))
  [(string/has-prefix? (string/slice bytes 0 -7) large) (result marked)])

(def situations
  [["between writes of Janet"
    (fn [writer near far]
      (def results (seq [[write text] :in [[net/write "one "] [writer "two "] [net/write "three "] [writer "four"]]]
                     (outcome (write near text))))
      [;results (outcome (net/chunk far 18))])]
   ["nothing"
    (fn [writer near far] [(outcome (writer near "")) (outcome (net/write near "more")) (outcome (net/chunk far 4))])]
   ["more than there is room for"
    (waiting (fn [writing near far] [(= large (string (net/chunk far (length large)))) (result writing)]))]
   ["the collector runs"
    (waiting (fn [writing near far]
               (gccollect)
               (settle)
               (gccollect)
               [(= large (string (net/chunk far (length large)))) (result writing)]))]
   ["large writes of Janet around it"
    (fn [writer near far]
      (events/small-buffers near)
      (def all (started (net/write near large) (writer near "<middle>") (net/write near large)))
      [(= (string large "<middle>" large) (string (net/chunk far (+ 8 (* 2 (length large)))))) (result all)])]
   ["cancelled"
    (waiting (fn [writing near far]
               (ev/cancel (writing :fiber) "stop")
               [(result writing) ;(mark-after near far)]))]
   ["at a deadline"
    (fn [writer near far]
      (events/small-buffers near)
      [(outcome (ev/with-deadline 0.01 (writer near large))) ;(mark-after near far)])]
   ;(seq [[title end] :in endings]
      [title
       (fn [writer near far]
         (defn more [writing near far]
           (end near far)
           [(told-alike (result writing)) (told-alike (outcome (writer near "more")))])
         ((waiting more) writer near far))])])

(each [kind make] kinds
  (each [state prepare] states
    (each [name writer] writers
      (each [title situation] situations
        (def cell (fn [near far] (situation writer near far)))
        (run-cell (string/join [kind state name title] ", ") (fn [] (closing make prepare cell)))))))
(say-what-is-left at-start)

# Every function that reads a stream, in every state of the stream, in every situation.

(import ./events)
(use ./matrix)

(def at-start (events/registrations))

(defn- polling
  "A function that does not wait, called until there is something."
  [f]
  (fn [stream count]
    (var bytes (f stream count))
    (while (= bytes :again) (ev/sleep 0) (set bytes (f stream count)))
    bytes))

(defn- into-buffer
  "A function whose result is not what it has read."
  [f]
  (fn [stream count]
    (def buffer @"")
    (f stream count buffer)
    buffer))

(def readers
  [["janet_ev_read" events/read]
   ["janet_ev_readchunk" events/readchunk]
   ["janet_ev_recv" events/recv]
   ["janet_ev_recvchunk" events/recvchunk]
   ["janet_ev_recvfrom" (into-buffer events/recvfrom)]
   ["janet_async_start" events/async-read]
   ["janet_async_start_fiber" events/async-read-fiber]
   ["janet_cfun_stream_read" events/cfun-read]
   ["janet_cfun_stream_chunk" events/cfun-chunk]
   ["recv" (polling events/raw-recv)]
   ["read" (polling events/raw-read)]
   ["net/read" net/read]])

(def states
  [["fresh" (fn [near far])]
   ["read before" (fn [near far] (repeat 3 (net/write far "x") (net/read near 10)))]
   ["read 100 times" (fn [near far] (repeat 100 (net/write far "x") (net/read near 10)))]
   ["read and written" (fn [near far] (repeat 50 (round-trip near far)))]
   ["read by C before" (fn [near far] (net/write far "x") (events/recv near 10) (round-trip near far))]
   ["level-triggered" (fn [near far] (events/level near))]
   ["edge-triggered again" (fn [near far] (events/level near) (round-trip near far) (events/edge near))]
   ["being written"
    (fn [near far]
      (events/small-buffers near)
      (started (net/write near (string/repeat "w" 300_000))))]])

(defn- waiting
  "A reader that waits, after which something happens."
  [happens]
  (fn [reader near far]
    (def reading (started (reader near 4)))
    (def waits ((reading :waits)))
    (happens near far reading)
    [waits (result reading)]))

(def situations
  [["bytes are there"
    (fn [reader near far]
      (net/write far "present")
      (events/arrived near)
      [(outcome (reader near 3)) (outcome (reader near 4))])]
   ["bytes come late" (waiting (fn [near far &] (net/write far "late")))]
   ["the collector runs"
    (waiting (fn [near far &] (gccollect) (settle) (gccollect) (net/write far "kept")))]
   ["between reads of Janet"
    (fn [reader near far]
      (net/write far "abcdefghijkl")
      (events/arrived near)
      (seq [read :in [net/read reader net/chunk reader]] (outcome (read near 3))))]
   ["cancelled"
    (fn [reader near far]
      (def reading (started (reader near 5)))
      (ev/cancel (reading :fiber) "stop")
      (def stopped (result reading))
      (net/write far "after")
      [stopped (outcome (net/read near 5))])]
   ["at a deadline"
    (fn [reader near far]
      (def late (outcome (ev/with-deadline 0.001 (reader near 5))))
      (net/write far "again")
      (events/arrived near)
      [late (outcome (reader near 5))])]
   ["after the end"
    (fn [reader near far]
      (net/write far "end")
      (:close far)
      [(outcome (reader near 3)) (outcome (reader near 3)) (outcome (net/read near 3))])]
   ;(seq [[title end] :in endings]
      [title
       (fn [reader near far]
         (def before ((waiting (fn [near far &] (end near far))) reader near far))
         [;before (outcome (reader near 4))])])])

(def- ends [nil "" (keyword "Connection reset by peer") [:error "Connection reset by peer"]])

(defn- without-reset
  "Results where every end of a connection looks the same: the kernel tells an error once, to a reader or to a writer."
  [results]
  (map (fn [it] (if (some (fn [end] (deep= it end)) ends) :end it)) results))

(each [kind make] kinds
  (each [state prepare] states
    (def shown (if (= state "being written") without-reset identity))
    (each [name reader] readers
      (each [title situation] situations
        (def cell (fn [near far] (shown (situation reader near far))))
        (run-cell (string/join [kind state name title] ", ") (fn [] (closing make prepare cell)))))))
(say-what-is-left at-start)

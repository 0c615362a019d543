# A broker of messages: clients subscribe to topics, and get what others publish there.
#
# The protocol is made of lines:  SUBSCRIBE topic   UNSUBSCRIBE topic   PUBLISH topic text   TOPICS   QUIT
# A topic that ends in ".*" is that of everything below it. Answers are lines that begin with OK or NO;
# a message is a line  MESSAGE topic text.

(def- line-peg
  (peg/compile
    ~{:name (some (+ (range "az" "AZ" "09") (set "-_")))
      :topic '(* :name (any (* "." :name)))
      :pattern '(* :name (any (* "." :name)) (? ".*"))
      :text '(any 1)
      :main (+ (* "SUBSCRIBE " (constant :subscribe) :pattern -1)
               (* "UNSUBSCRIBE " (constant :unsubscribe) :pattern -1)
               (* "PUBLISH " (constant :publish) :topic " " :text)
               (* "TOPICS" (constant :topics) -1)
               (* "QUIT" (constant :quit) -1))}))

(defn lines
  "A fiber that yields the lines of a stream, until its end."
  [stream]
  (coro
    (def line @"")
    (while (def bytes (:read stream 65536))
      (var start 0)
      (while (def end (string/find "\n" bytes start))
        (buffer/push line (buffer/slice bytes start end))
        (yield (string/trimr line "\r"))
        (buffer/clear line)
        (set start (+ 1 end)))
      (buffer/push line (buffer/slice bytes start)))))

(defn- matching
  "The patterns under which a topic's messages are subscribed to."
  [topic]
  (def parts (string/split "." topic))
  (array/push (seq [n :range [1 (length parts)]] (string (string/join (array/slice parts 0 n) ".") ".*")) topic))

# A subscriber is a queue, which a fiber of its own empties into the stream. One that is so slow that its
# queue is full is cut off: the others must not wait for it.

(defn- subscriber [stream limit]
  (def self @{:stream stream :queue (ev/chan limit) :patterns @{} :alive true})
  (ev/spawn
    (protect
      (while (def text (ev/take (self :queue)))
        (if (= text :end) (break))
        (:write stream text)))
    (put self :alive false)
    (:close stream))
  self)

(defn- enqueue
  "Whether the subscriber gets the text."
  [self text]
  (cond
    (not (self :alive)) false
    (ev/full (self :queue)) (do (put self :alive false) (:close (self :stream)) false)
    (do (ev/give (self :queue) text) true)))

(defn- subscribe [broker self pattern]
  (put-in self [:patterns pattern] true)
  (def topics (broker :topics))
  (unless (topics pattern) (put topics pattern @{}))
  (put (topics pattern) self true))

(defn- unsubscribe [broker self pattern]
  (put-in self [:patterns pattern] nil)
  (when-let [subscribers (get-in broker [:topics pattern])]
    (put subscribers self nil)
    (if (empty? subscribers) (put (broker :topics) pattern nil))))

(defn- publish [broker topic text]
  (def message (string "MESSAGE " topic " " text "\n"))
  (def receivers @{})
  (each pattern (matching topic)
    (eachk receiver (get-in broker [:topics pattern] {}) (put receivers receiver true)))
  (count |(enqueue $ message) (keys receivers)))

(defn- answer [broker self line]
  (match (peg/match line-peg line)
    [:subscribe pattern] (do (subscribe broker self pattern) (string "OK subscribed to " pattern))
    [:unsubscribe pattern]
    (if (get-in self [:patterns pattern])
      (do (unsubscribe broker self pattern) (string "OK unsubscribed from " pattern))
      (string "NO subscription to " pattern))
    [:publish topic text] (string "OK published to " (publish broker topic text))
    [:topics] (string "OK " (string/join (sorted (keys (broker :topics))) " "))
    [:quit] :quit
    _ "NO such command"))

(defn- serve-connection [broker stream]
  (def self (subscriber stream (broker :limit)))
  (protect
    (each line (lines stream)
      (def reply (answer broker self line))
      (if (= reply :quit) (break))
      (unless (enqueue self (string reply "\n")) (break))))
  (each pattern (keys (self :patterns)) (unsubscribe broker self pattern))
  (if (self :alive) (ev/give (self :queue) :end)))

(defn start
  "Starts a broker, whose subscribers may be `limit` messages behind."
  [host port &opt limit]
  (default limit 64)
  (def broker @{:topics @{} :limit limit
                :address (fn [self] (net/localname (self :listener)))
                :close (fn [self] (:close (self :listener)))})
  (put broker :listener (net/server host port (fn [stream] (serve-connection broker stream)))))

# The client.

(defn connect [host port]
  (def stream (net/connect host port))
  (def client @{:stream stream :replies (ev/chan 1000) :messages (ev/chan 1000)
                :close (fn [self] (:close (self :stream)))})
  (ev/spawn
    (protect
      (each line (lines stream)
        (if-let [[topic text] (peg/match ~(* "MESSAGE " '(some (if-not " " 1)) " " '(any 1)) line)]
          (ev/give (client :messages) [topic text])
          (ev/give (client :replies) line))))
    (ev/give (client :replies) "the broker has left")
    (ev/give (client :messages) [:end]))
  client)

(defn command
  "Sends a command and waits for its answer."
  [client & words]
  (:write (client :stream) (string (string/join words " ") "\n"))
  (ev/take (client :replies)))

(defn message
  "The next message, as a topic and a text."
  [client]
  (ev/take (client :messages)))

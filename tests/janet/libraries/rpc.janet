# Calls of functions over a stream: binary messages in frames, any number of calls at once.

# The encoding is a subset of MessagePack: nil, booleans, numbers, strings, arrays and maps. Keywords and
# symbols travel as strings, tuples as arrays, and tables as maps.

(defn- push-number [buffer mark order kind value]
  (buffer/push buffer mark)
  (case kind
    :u8 (buffer/push-byte buffer value)
    :u16 (buffer/push-uint16 buffer order value)
    :u32 (buffer/push-uint32 buffer order value)
    :f64 (buffer/push-float64 buffer order value)))

(defn- push-length [buffer length short short-max marks]
  (if (<= length short-max)
    (buffer/push-byte buffer (bor short length))
    (do
      (def [mark kind] (find |(< length ($ 2)) marks [nil nil]))
      (unless mark (errorf "%d elements are too many" length))
      (push-number buffer mark :be kind length))))

(defn encode
  "Appends the encoding of a value to a buffer."
  [value &opt buffer]
  (default buffer @"")
  (case (type value)
    :nil (buffer/push-byte buffer 0xC0)
    :boolean (buffer/push-byte buffer (if value 0xC3 0xC2))
    :number
    (cond
      (and (int? value) (<= 0 value 127)) (buffer/push-byte buffer value)
      (and (int? value) (<= -32 value -1)) (buffer/push-byte buffer (+ 256 value))
      (and (int? value) (>= value 0)) (push-number buffer 0xCE :be :u32 value)
      (push-number buffer 0xCB :be :f64 value))
    :array (do (push-length buffer (length value) 0x90 15 [[0xDC :u16 65536]]) (each v value (encode v buffer)))
    :tuple (encode (array ;value) buffer)
    :table (do (push-length buffer (length value) 0x80 15 [[0xDE :u16 65536]])
             (each key (sort (keys value)) (encode key buffer) (encode (value key) buffer)))
    :struct (encode (table ;(kvs value)) buffer)
    (if (bytes? value)
      (do
        (push-length buffer (length value) 0xA0 31 [[0xD9 :u8 256] [0xDA :u16 65536] [0xDB :u32 math/int32-max]])
        (buffer/push buffer value))
      (errorf "a %s cannot be encoded" (type value))))
  buffer)

(defn- unsigned [bytes at size]
  (var number 0)
  (for index at (+ at size) (set number (+ (* 256 number) (bytes index))))
  number)

(defn- float64 [bytes at]
  (def high (unsigned bytes at 4))
  (def low (unsigned bytes (+ at 4) 4))
  (def exponent (band 0x7FF (math/floor (/ high 0x100000))))
  (def fraction (+ (* (mod high 0x100000) 4294967296) low))
  (def sign (if (>= high 0x80000000) -1 1))
  (cond
    (= exponent 0x7FF) (if (zero? fraction) (* sign math/inf) math/nan)
    (zero? exponent) (* sign fraction (math/pow 2 -1074))
    (* sign (+ 1 (/ fraction 4503599627370496)) (math/pow 2 (- exponent 1023)))))

(defn decode
  "The value whose encoding starts at a position, and the position behind it."
  [bytes &opt at]
  (default at 0)
  (def mark (get bytes at))
  (var next-at (+ at 1))
  (defn number [size] (def n (unsigned bytes next-at size)) (+= next-at size) n)
  (defn element [] (def [value behind] (decode bytes next-at)) (set next-at behind) value)
  (defn text [n] (def end (+ next-at n)) (def s (string/slice bytes next-at end)) (set next-at end) s)
  (defn elements [n] (seq [_ :range [0 n]] (element)))
  (defn pairs [n] (def t @{}) (repeat n (let [key (element)] (put t key (element)))) t)
  (def value
    (cond
      (nil? mark) (error "the message is too short")
      (< mark 0x80) mark
      (< mark 0x90) (pairs (band mark 15))
      (< mark 0xA0) (elements (band mark 15))
      (< mark 0xC0) (text (band mark 31))
      (>= mark 0xE0) (- mark 256)
      (case mark
        0xC0 nil
        0xC2 false
        0xC3 true
        0xCB (do (+= next-at 8) (float64 bytes (- next-at 8)))
        0xCE (number 4)
        0xD9 (text (number 1))
        0xDA (text (number 2))
        0xDB (text (number 4))
        0xDC (elements (number 2))
        0xDE (pairs (number 2))
        (errorf "byte %x is no type" mark))))
  [value next-at])

# Frames: the length in four bytes, then the message.

(def- frame-max 1000000)

(defn send-message [stream value]
  (def body (encode value))
  (:write stream (buffer/push (buffer/push-uint32 @"" :be (length body)) body)))

(defn receive-message
  "The next message, or nil at the end of the stream."
  [stream]
  (when-let [head (:chunk stream 4)]
    (unless (= 4 (length head)) (error "the stream ends within a length"))
    (def size (unsigned head 0 4))
    (if (> size frame-max) (errorf "a message of %d bytes is too long" size))
    (def body (:chunk stream size))
    (unless (= size (length (or body ""))) (error "the stream ends within a message"))
    (def [value end] (decode body))
    (unless (= end size) (error "there is more than one value in a message"))
    value))

# A question is [id name arguments], its answer [id ok value]; answers come as they are ready.

(defn serve-connection [stream functions]
  # Answers of many fibers share one stream, so one fiber writes them.
  (def answers (ev/chan 16))
  (ev/spawn
    (forever
      (match (ev/take answers)
        [id ok value] (protect (send-message stream [id ok value]))
        _ (break)))
    (:close stream))
  (defer (ev/give answers :end)
    (var asked 0)
    (def answered (ev/chan))
    (protect
      (while (def message (receive-message stream))
        (def [id name arguments] message)
        (++ asked)
        (ev/spawn
          (def function (get functions name))
          (def [ok value] (if function (protect (function ;arguments)) [false (string "no function " name)]))
          (ev/give answers [id ok value])
          (ev/give answered true))))
    (repeat asked (ev/take answered))))

(defn server [host port functions]
  (net/server host port (fn [stream] (serve-connection stream functions))))

(defn- deliver [client]
  (def {:stream stream :waiting waiting} client)
  (def [_ fault]
    (protect
      (while (def message (receive-message stream))
        (def [id ok value] message)
        (when-let [answer (waiting id)]
          (put waiting id nil)
          (ev/give answer [ok value])))))
  (put client :ended (if (string? fault) fault "the connection has ended"))
  (each answer (values waiting) (ev/give answer [false (client :ended)])))

(defn connect
  "A client whose calls may be made by any number of fibers at once."
  [host port]
  (def client @{:stream (net/connect host port) :waiting @{} :next-id 0
                :close (fn [self] (:close (self :stream)))})
  (ev/spawn (deliver client))
  client)

(defn call
  "Calls a function of the server; raises what it raised."
  [client name & arguments]
  (if (client :ended) (error (client :ended)))
  (def id (client :next-id))
  (put client :next-id (+ 1 id))
  (def answer (ev/chan 1))
  (put-in client [:waiting id] answer)
  (send-message (client :stream) [id name arguments])
  (def [ok value] (ev/take answer))
  (if ok value (error value)))

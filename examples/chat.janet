# A chat: everybody says a name first, and each further line goes to all the others.
#
#   ./scripts/run janet examples/chat.janet [HOST [PORT]]    and, in some terminals:    nc 127.0.0.1 8000
#
# Nobody waits for a slow reader: each client has a queue, and a fiber that empties it into the stream.
# Whoever lets that queue fill up is cut off.

(def queue-max "How many lines a client may leave unread, beyond what the kernel holds." 256)
(def line-max "How long a line may be, in bytes." 8192)

(def clients "Of each client, by name: its stream, and the queue of what it is to be sent." @{})

(defn tell [{:stream stream :queue queue} & words]
  # Closing the stream ends the reads of `serve`, which does the rest.
  (if (ev/full queue) (:close stream) (ev/give queue (string ;words "\n"))))

(defn tell-others [speaker & words]
  (eachp [name client] clients
    (unless (= name speaker) (tell client ;words))))

(defn each-line
  "Calls `handle` with each line that comes from a stream, until the stream ends or a line is too long."
  [stream handle]
  (def buffer @"")
  (while (and (< (length buffer) line-max) (:read stream 4096 buffer))
    (def lines (string/split "\n" buffer))
    (buffer/clear buffer)
    (buffer/push buffer (array/pop lines)) # what is behind the last newline is no line yet
    (each line lines (handle (string/trim line)))))

(defn serve [stream]
  (def self {:stream stream :queue (ev/chan queue-max)})
  (var name nil)

  (defn enter [line]
    (cond
      (empty? line) (tell self "* a name has a letter at least")
      (clients line) (tell self "* there is one of that name: " line)
      (do
        (tell self "* welcome; with you: " (string/join (sorted (keys clients)) ", "))
        (set name line)
        (put clients name self)
        (tell-others name "* " name " has come"))))

  (defn leave []
    (:close stream)
    (ev/chan-close (self :queue))
    (when name
      (put clients name nil)
      (tell-others name "* " name " has left")))

  (ev/spawn
    # Ends when the queue is closed, or with an error when the stream is.
    (protect (while (def text (ev/take (self :queue))) (:write stream text))))
  (tell self "* what is your name?")
  # A connection that breaks is a way to leave, too.
  (protect (each-line stream |(if name (tell-others name name ": " $) (enter $))))
  (leave))

(def [_ host port] (dyn :args))
(def server (net/listen (or host "127.0.0.1") (or port "8000")))
(printf "listening at %s:%d" ;(net/localname server))
(flush)
(net/accept-loop server serve)

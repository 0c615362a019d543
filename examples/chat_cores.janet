# The chat of chat.janet on every core: workers serve the clients, and this thread knows who is there.
#
#   ./scripts/run janet examples/chat_cores.janet [HOST [PORT]]    and, in some terminals:    nc 127.0.0.1 8000
#
# What the threads share are channels: one to the hub, for what the clients say, and one back to each client, from which
# a fiber of its worker writes. The hub waits for nobody: whoever lets that queue fill up is cut off.

(import ringspun)

(def queue-max "How many lines a client may leave unread, beyond what the kernel holds." 256)
(def line-max "How long a line may be, in bytes." 8192)
(def patience "For how many seconds a write may wait." 10)
(def hub "What the clients say, each with the queue that leads back: [queue line], and [queue nil] at the end."
  (ev/thread-chan 1000))

(defn serve [stream]
  (def queue (ev/thread-chan queue-max))
  (ev/spawn
    # Ends when the hub closes the queue, or with an error when the client does not read or has gone.
    (protect (while (def text (ev/take queue)) (:write stream text patience)))
    (:close stream))
  (ev/give hub [queue :comes])
  (def buffer @"")
  # A connection that breaks is a way to leave, too.
  (protect
    (while (and (< (length buffer) line-max) (:read stream 4096 buffer))
      (def lines (string/split "\n" buffer))
      (buffer/clear buffer)
      (buffer/push buffer (array/pop lines)) # what is behind the last newline is no line yet
      (each line lines (ev/give hub [queue (string/trim line)]))))
  (ev/give hub [queue nil]))

(def names "The names of those who have said one, by queue." @{})

(varfn leave [queue])

(defn tell [queue & words]
  # A queue that is closed belongs to someone who leaves.
  (protect (if (ev/full queue) (leave queue) (ev/give queue (string ;words "\n")))))

(defn tell-others [speaker & words]
  (eachk queue names
    (unless (= queue speaker) (tell queue ;words))))

(defn enter [queue line]
  (cond
    (empty? line) (tell queue "* a name has a letter at least")
    (index-of line (values names)) (tell queue "* there is one of that name: " line)
    (do
      (tell queue "* welcome; with you: " (string/join (sorted (values names)) ", "))
      (put names queue line)
      (tell-others queue "* " line " has come"))))

(varfn leave [queue]
  (def name (names queue))
  (put names queue nil)
  (protect (ev/chan-close queue))
  (when name (tell-others queue "* " name " has left")))

(def [_ host port] (dyn :args))
(def server (ringspun/serve (or host "127.0.0.1") (or port "8000") serve))
(printf "listening at %s:%d" ;(:localname server))
(flush)
(forever
  (def [queue line] (ev/take hub))
  (cond
    (= line :comes) (tell queue "* what is your name?")
    (nil? line) (leave queue)
    (names queue) (tell-others queue (names queue) ": " line)
    (enter queue line)))

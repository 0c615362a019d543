# A server of commands on a Unix socket, which keeps values by name.
#
#   ./scripts/run janet examples/command_server.janet [PATH]     and then:     nc -U command.socket
#
# A command is a line: SET NAME VALUE, GET NAME, NAMES, or STOP, which ends the server, as do Ctrl-C and
# SIGTERM. However it ends, it removes its socket.

(def path (get (dyn :args) 1 "command.socket"))
(def values @{})

(defn listen
  "Listens at the path, where a server that was killed may have left its socket."
  []
  (when (= :socket (os/lstat path :mode))
    (def [answers connection] (protect (net/connect :unix path)))
    (when answers
      (:close connection)
      (eprint path ": another server is listening there")
      (os/exit 1))
    (os/rm path))
  (net/listen :unix path))

(def server (listen))
(var running true)
(defn stop [] (:close server)) # ends the accept loop below

(def name-and-value (peg/compile '(* '(some (if-not " " 1)) " " '(any 1) -1)))

(defn answer [line]
  (def [command rest] (string/split " " line 0 2))
  (case (string/ascii-upper command)
    "SET" (if-let [[name value] (peg/match name-and-value (or rest ""))]
            (do (put values name value) "OK")
            "ERROR expected: SET NAME VALUE")
    "GET" (if-let [value (values rest)] (string "VALUE " value) "ERROR nothing of that name")
    "NAMES" (string "NAMES " (string/join (sorted (keys values)) " "))
    "STOP" (do (set running false) "OK")
    "ERROR expected: SET, GET, NAMES or STOP"))

(defn serve [stream]
  (defer (:close stream)
    (def buffer @"")
    (while (:read stream 4096 buffer)
      (while (def end (string/find "\n" buffer))
        (def line (string/trim (string/slice buffer 0 end)))
        (buffer/blit buffer buffer 0 (+ 1 end))
        (buffer/popn buffer (+ 1 end))
        (:write stream (string (answer line) "\n"))
        (unless running (stop))))))

(each signal [:term :int] (os/sigaction signal stop))
(print "listening at " path)
(flush)
(defer (os/rm path)
  (net/accept-loop server serve))
(os/exit 0) # whoever is still connected is not waited for

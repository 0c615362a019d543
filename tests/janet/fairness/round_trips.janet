# Echoes a flood from the first connection, makes round trips to itself meanwhile, and prints how many bytes of the
# flood were served during the slowest of them, and how many in all.
(def round-trips 100)
(def flood-bytes-least (scan-number (get (dyn :args) 1)))
(def server (net/listen "127.0.0.1" "0"))
(def [host port] (net/localname server))
(printf "listening at %s:%d" host port)
(flush)

(var flood-bytes 0)
(var over? false)

(defn echo-flood [connection]
  (def buffer @"")
  (while (not over?)
    (net/read connection 65536 buffer)
    (net/write connection buffer)
    (+= flood-bytes (length buffer))
    (buffer/clear buffer)))

(defn echo [connection]
  (def buffer @"")
  (while (net/read connection 64 buffer)
    (net/write connection buffer)
    (buffer/clear buffer)))

(def flooder (net/accept server))
(def flooding (ev/go |(echo-flood flooder)))
(def client (net/connect host (string port)))
(def served (net/accept server))
(ev/go |(echo served))
(def request (string/repeat "x" 64))
(var most 0)
(defn round-trip []
  (def before flood-bytes)
  (net/write client request)
  (assert (= request (string (net/chunk client 64))))
  (- flood-bytes before))

# The flood comes from another process, and may come late.
(while (= flood-bytes 0) (ev/sleep 0.001))
(repeat round-trips (set most (max most (round-trip))))
(while (< flood-bytes flood-bytes-least) (ev/sleep 0.001))
(set over? true)
(printf "%d %d" most flood-bytes)
(flush)
(os/exit 0)

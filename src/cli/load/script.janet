# The sessions of `ringspun load --script`: what a script calls, and what each of its users does. The functions whose
# names begin with `load/-` are those of script.rs.

(import ringspun/tls)

# What cuts a session off.
(def- over @"the run is over")
# The VM's timers have milliseconds, and may be early by one.
(def- timeout (+ 0.001 (load/-setting "timeout")))
# How connections are secured, if they are.
(def- tls-host (load/-setting "tls-host"))
(def- tls-config
  (when tls-host
    (tls/client-config :ca (load/-setting "tls-ca") :cert (load/-setting "tls-cert") :key (load/-setting "tls-key")
                       :alpn (if-let [alpn (load/-setting "tls-alpn")] (string/split "," alpn))
                       :insecure (load/-setting "tls-insecure") :resume (load/-setting "tls-resume"))))

# The sessions that are being made, and the fibers of users, by the number of the user.
(def- sessions @{})
(def- users @{})

(defn- text-of [err]
  (if (bytes? err) (string err) (string/format "%q" err)))

(defn- fail
  "Raises an error whose kind is told in the results."
  [session kind text]
  (put session :cause [kind text])
  (error text))

(defn- kind-of [session err]
  (def [kind text] (or (session :cause) ["script" nil]))
  (cond
    (= err "deadline expired") "timeout"
    (= err text) kind
    "script"))

(defn- disconnect [session]
  (when-let [stream (session :stream)]
    (put session :stream nil)
    (load/-closed)
    (protect (:close stream)))
  nil)

(defn- trying
  "What a function returns; an error of it is one of the kind."
  [session kind function & arguments]
  (try (function ;arguments)
    ([err fiber]
      (if (or (= err over) (= err "deadline expired"))
        (propagate err fiber)
        (fail session kind (text-of err))))))

(defn- connection [session]
  (unless (session :stream)
    (def [host port] (map load/-setting ["host" "port"]))
    (def kind (keyword (load/-setting "kind")))
    (def arguments (if host [host port kind] [:unix port]))
    (def plain (trying session "connect" net/connect ;arguments))
    (when (and host (= kind :stream)) (net/setsockopt plain :tcp-nodelay true))
    (def began (os/clock :monotonic))
    # It closes the stream if it fails.
    (def stream (if tls-host (trying session "handshake" tls/wrap plain tls-host :config tls-config) plain))
    (load/-opened)
    (when tls-host (load/-secured (- (os/clock :monotonic) began) (truthy? ((tls/info stream) :resumed))))
    (put session :stream stream))
  (session :stream))

(defn- step [session name function & arguments]
  (when-let [outer (session :step)]
    (errorf "step %s begins within step %s: expected one after the other" name outer))
  (def user (session :user))
  (unless (load/-step user (string name)) (error over))
  (put session :step name)
  (try
    (let [value (ev/with-deadline timeout (function ;arguments))]
      (put session :step nil)
      (load/-done user)
      value)
    ([err fiber]
      (put session :step nil)
      (put session :failed err)
      (load/-done user (kind-of session err) (text-of err))
      (propagate err fiber))))

(defn- read-more [stream buffer]
  (unless (:read stream 65536 buffer)
    (error "the target closed the connection before its response was complete")))

(defn- read-line
  "A line that begins at a position, and the position behind it."
  [stream buffer start]
  (var end (string/find "\r\n" buffer start))
  (while (not end)
    (read-more stream buffer)
    (set end (string/find "\r\n" buffer start)))
  [(string/slice buffer start end) (+ end 2)])

(defn- read-head
  "The status, the headers, the cookies, and the position of the body."
  [stream buffer start]
  (def [first-line after] (read-line stream buffer start))
  (def found (peg/match '(* "HTTP/1." (<- (set "01")) " " (<- (* :d :d :d))) first-line))
  (unless found
    (def shown (string/slice first-line 0 (min 32 (length first-line))))
    (errorf "%q was received: expected an HTTP/1.1 response" shown))
  (def [minor status] (map scan-number found))
  (def headers @{})
  (def cookies @[])
  (var at after)
  (forever
    (def [line after] (read-line stream buffer at))
    (set at after)
    (if (empty? line) (break))
    (def [name value] (string/split ":" line 0 2))
    (def key (string/ascii-lower name))
    (def value (string/trim (or value "")))
    (if (= key "set-cookie") (array/push cookies value))
    (put headers key (if-let [before (headers key)] (string before ", " value) value)))
  (cond
    (= status 101) (error "HTTP 101: expected no change of protocol")
    (< status 200) (read-head stream buffer at)
    [status headers cookies at (= minor 0)]))

(defn- read-chunks [stream buffer start]
  (def body @"")
  (var at start)
  (forever
    (def [line after] (read-line stream buffer at))
    (def size (scan-number (string "16r" (string/trim (first (string/split ";" line))))))
    (unless (and (int? size) (>= size 0)) (errorf "the size of a chunk is %q: expected a hexadecimal number" line))
    (def end (+ after size))
    (while (< (length buffer) (+ end 2)) (read-more stream buffer))
    (set at (+ end 2))
    (buffer/push body (buffer/slice buffer after end))
    (when (zero? size)
      # The last line end has been taken for that of the chunk, unless there are trailers.
      (set at after)
      (forever
        (def [line after] (read-line stream buffer at))
        (set at after)
        (if (empty? line) (break)))
      (break)))
  [body at])

(defn- read-response [stream is-head]
  (def buffer @"")
  (def [status headers cookies start is-old] (read-head stream buffer 0))
  (def [coding given] [(headers "transfer-encoding") (headers "content-length")])
  (def length-given (if given (scan-number given)))
  (var closes (or is-old (string/find "close" (string/ascii-lower (get headers "connection" "")))))
  (def [body end]
    (cond
      (or is-head (= status 204) (= status 304)) [@"" start]
      coding (read-chunks stream buffer start)
      length-given
      (let [end (+ start length-given)]
        (while (< (length buffer) end) (read-more stream buffer))
        [(buffer/slice buffer start end) end])
      (do
        (set closes true)
        (while (:read stream 65536 buffer))
        [(buffer/slice buffer start) (length buffer)])))
  (unless (= end (length buffer)) (error "surplus data after the response: expected none"))
  {:status status :headers (table/to-struct headers) :body (string body) :cookies cookies :closes (truthy? closes)})

(defn- is-expected [status expect]
  (cond
    (nil? expect) (<= 200 status 399)
    (number? expect) (= status expect)
    (truthy? (index-of status expect))))

(defn- request [session method path &named headers body expect]
  (def head @"")
  (buffer/push head method " " path " HTTP/1.1\r\n")
  (unless (find |(= "host" (string/ascii-lower $)) (keys (or headers {})))
    (buffer/push head "Host: " (load/-setting "authority") "\r\n"))
  (eachp [name value] (or headers {})
    (buffer/push head (string name) ": " (string value) "\r\n"))
  (when (or body (index-of method ["POST" "PUT" "PATCH"]))
    (buffer/push head "Content-Length: " (string (length (or body ""))) "\r\n"))
  (buffer/push head "\r\n" (or body ""))
  (def [user stream] [(session :user) (connection session)])
  (def response
    (try
      (do
        (:write stream (load/-with-cookies user head))
        (read-response stream (= method "HEAD")))
      # A late response would be taken for the next one.
      ([err fiber] (disconnect session) (propagate err fiber))))
  (def status (response :status))
  (load/-status user status)
  (each cookie (response :cookies) (load/-set-cookie user cookie head))
  (when (response :closes) (disconnect session))
  (unless (is-expected status expect)
    (fail session "status" (string "HTTP " status " for " method " " (first (string/split "?" path)))))
  response)

# What scripts call.
(each [name function doc]
  [['load/step step
    ```
    (load/step session name function & arguments)

    Calls the function with the arguments, as a step of the session: its time, and the error that it raises, are told
    in the results under the name. Returns what the function returns. An error is raised again: unless it is caught, it
    ends the session.
    ```]
   ['load/request request
    ```
    (load/request session method path &named headers body expect)

    Sends an HTTP request over the connection of the session, with the cookies that it got, and returns the response, a
    struct with :status, :headers (with names in lower case) and :body. A status other than 2xx and 3xx, or than those
    of expect (a number, or several), is an error.
    ```]
   ['load/connection connection
    ```
    (load/connection session)

    The connection of the session to the target: a stream, as of net/connect, which is opened when it is first asked
    for, and closed when the session ends.
    ```]
   ['load/disconnect disconnect
    ```
    (load/disconnect session)

    Closes the connection of the session. What needs one after that opens another.
    ```]]
  (put root-env name @{:value function :doc doc}))

(defn- make-session
  "Makes a session; whether it came to its own end."
  [user main has-waited]
  (def session @{:user user :number (load/-begin user has-waited)})
  (put sessions user session)
  (def [is-completed kind text]
    (try (do (main session) [true])
      ([err]
        (if (or (= err over) (= err (session :failed)))
          [false]
          [false (kind-of session err) (text-of err)]))))
  (put sessions user nil)
  (disconnect session)
  (load/-end user is-completed kind text)
  is-completed)

(defn- live [user main]
  (try
    (while (def wait (load/-next user))
      # Lets others run, also where no session waits for anything.
      (if (zero? wait) (ev/sleep 0))
      (var left wait)
      # As timers may be early.
      (while (pos? left)
        (ev/sleep (max left 0.001))
        (set left (load/-wait user)))
      (unless (or (make-session user main (pos? wait)) (load/-setting "rate"))
        # Not again at once: there may be no target.
        (ev/sleep 0.1)))
    ([err fiber] (unless (= err over) (propagate err fiber))))
  (put users user nil))

(defn- run []
  (def environment (make-env))
  (dofile (load/-setting "path") :env environment)
  (def main (get-in environment ['main :value]))
  (unless (function? main) (error "it defines no function main: expected (defn main [session] ...)"))
  (load/-start (ringspun/backend))
  (for user 0 (load/-setting "users")
    (put users user (ev/go (fn [] (live user main)))))
  (while (not (empty? users))
    (ev/sleep 0.02)
    (when (load/-tick)
      # Steps come to their own end, or to that of the timeout.
      (eachp [user fiber] (table/clone users)
        (unless (get-in sessions [user :step]) (ev/cancel fiber over)))))
  # What the script has left running.
  (each task (ev/all-tasks)
    (unless (= task (fiber/root)) (ev/cancel task over)))
  nil)

(try (run) ([err] (text-of err)))

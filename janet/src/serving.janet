# The module `ringspun`: servers on every core. A worker is a thread with a VM of its own. What they share is in
# serving.rs, by the server's number, with what is not defined here. Channels between threads tell them what to do; no
# connection goes through one, so that none is lost with a message that nobody reads.

(defn- end-connection [stream]
  # It may be closed already.
  (try (:close stream) ([_] nil)))

(defn- text-of [err]
  (if (bytes? err) (string err) (string/format "%q" err)))

(defn- run-worker
  "The main function of a worker's thread."
  [[id index inbox inboxes sockets handler datagram reports]]
  (def term (enter id index))
  (def follower (fiber/root))
  # With their connections.
  (def fibers @{})
  (def listeners @{})
  # It accepts no more connections; none will come from another worker.
  (var stopping false)
  (var finishing false)
  (var failed false)

  (defn serve [connection]
    (def fiber (fiber/root))
    (put fibers fiber connection)
    (defer (do
             (put fibers fiber nil)
             (ended id index term)
             (when finishing (ev/give inbox :look)))
      (try (handler connection)
        ([err where]
          (end-connection connection)
          (unless (= err :drained) (propagate err where))))))

  (defn arrive [connection]
    (if failed
      (do
        (leave id index connection)
        (end-connection connection)
        (ev/give reports [:left index]))
      (do
        (def [target counted] (place id index stopping))
        (def handed (unless (= target index) (hand-over id target counted connection)))
        (case handed
          :first (ev/give (inboxes target) :look)
          nil (do
                # The other has failed since.
                (unless (= target index) (recount id index))
                (serve connection))))))

  (defn take-over []
    (each connection (take-handed id index)
      (put fibers (ev/go serve connection) connection)))

  (defn start-listening [socket]
    (when-let [listener (unless (listeners socket) (open-listener id socket))]
      (put listeners socket listener)
      (defn run []
        (try (if datagram (handler listener) (net/accept-loop listener arrive))
          ([err where]
            (cond
              stopping nil
              datagram (propagate err where)
              # The follower fails. The inbox is no way to tell it, as the worker's successor may be the one that reads.
              (ev/cancel follower err)))))
      (ev/go run)))

  (defn stop-listening []
    (set stopping true)
    (each listener listeners
      (unless datagram
        # Those that wait in the kernel.
        (while (leave-waiting id index listener)
          (ev/sleep 0)))
      (end-connection listener)))

  (defn cancel-fibers []
    (each fiber (keys fibers)
      # Others may have cancelled one before it has begun, and it never does then.
      (unless (= :suspended (fiber/status fiber))
        (end-connection (fibers fiber))
        (put fibers fiber nil)
        (ended id index term))
      (protect (ev/cancel fiber :drained))))

  (defn follow []
    (while (not (and finishing (empty? fibers)))
      (take-over)
      (match (ev/take inbox)
        :stop (do
                (stop-listening)
                (take-over)
                (ev/give reports [:stopped index]))
        :finish (set finishing true)
        :cancel (cancel-fibers)
        [:listen socket] (unless stopping (start-listening socket)))))

  (defn fail [err]
    (set failed true)
    (write-off id index)
    (cancel-fibers)
    (stop-listening)
    # A wait for the inbox that was cancelled is still noted there. It gets this, which goes back to the inbox.
    (when (zero? (ev/count inbox)) (ev/give inbox :look))
    (ev/give reports [:failed index (text-of err)]))

  (try
    (do
      (each socket sockets (start-listening socket))
      (follow))
    ([err] (fail err))))

(defn- live [server]
  (sum (map first (or (server :final) (counts (server :id))))))

(defn- served [server]
  (sum (map |($ 1) (or (server :final) (counts (server :id))))))

(defn- note-stopped [server index]
  (unless (get-in server [:stopped index])
    (put-in server [:stopped index] true)
    (ev/give (server :stops) index)))

(defn- pass-on
  "Gives another worker what one that has failed has accepted, and what it listened at; closes it if there is none."
  [server index]
  (def heir (unless (server :stopping) (find-index |(not ($ :failed)) (server :threads))))
  (hand-on (server :id) index heir)
  (when heir
    (def inbox (in (server :inboxes) heir))
    (eachp [socket owner] (server :owners)
      (when (= owner index)
        (put (server :owners) socket heir)
        (ev/give inbox [:listen socket])))
    (ev/give inbox :look)))

(defn- run-thread
  "Runs the thread of a worker, and parks until it has ended."
  [server index]
  (def run (++ (server :runs)))
  (put (server :threads) index @{:run run :since (os/clock :monotonic)})
  (def {:id id :inboxes inboxes :handler handler :datagram datagram :reports reports :owners owners} server)
  (def sockets (seq [[socket owner] :pairs owners :when (= owner index)] socket))
  (var failure "its thread has ended")
  (try (ev/thread run-worker [id index (in inboxes index) inboxes sockets handler datagram reports])
    ([err]
      (set failure (text-of err))
      (unless (server :started) (put server :failed err))))
  # Behind what it has reported.
  (ev/give reports [:ended index failure run]))

(defn- end-thread [server]
  (-- (server :running))
  (when (zero? (server :running))
    (put server :final (counts (server :id)))
    # Closes what nobody has taken.
    (forget (server :id))
    (each inbox (server :inboxes) (ev/chan-close inbox))
    (ev/chan-close (server :over))))

(defn- succeed
  "Starts a thread in place of one that has failed."
  [server index]
  # One that fails as soon as it begins would be replaced without end.
  (ev/sleep (max 0 (- (+ (get-in server [:threads index :since]) 1) (os/clock :monotonic))))
  (if (server :stopping)
    (do
      (pass-on server index)
      # `watch` waits for that, as for the end of a thread.
      (ev/give (server :reports) [:ended index nil (get-in server [:threads index :run])]))
    (run-thread server index)))

(defn- fail-worker [server index err]
  (def replaces (and (server :replaces) (not (server :stopping))))
  # Whether or not that can be written.
  (protect (eprintf "worker %d has failed; %s: %s" index (if replaces "it is replaced" "the others go on") err))
  (put (in (server :threads) index) :failed (if replaces :replaced true))
  (when (server :stopping) (note-stopped server index))
  (if replaces
    (do
      (++ (server :running))
      (ev/go (fn [] (succeed server index))))
    (pass-on server index)))

(defn- watch
  "Follows what workers report, until the last has ended. Only this decides what becomes of one that has failed."
  [server]
  (while (pos? (server :running))
    (def [what index err run] (ev/take (server :reports)))
    (def thread (in (server :threads) index))
    (case what
      :stopped (note-stopped server index)
      :failed (fail-worker server index err)
      :left (case (thread :failed)
              nil (ev/give (in (server :inboxes) index) :look)
              true (pass-on server index))
      :ended
      (do
        (unless (or (thread :failed) (server :finishing) (not= run (thread :run)))
          (write-off (server :id) index)
          (fail-worker server index err))
        (end-thread server)))))

(defn- tell [server message]
  (each inbox (server :inboxes)
    # They are closed once all workers have ended.
    (try (ev/give inbox message) ([_] nil))))

(defn- await-end
  "Whether all workers have ended within these seconds."
  [server seconds]
  (or (zero? (server :running))
      (try (do (ev/with-deadline seconds (ev/take (server :over))) true)
        ([err where]
          (cond
            (zero? (server :running)) true
            (= err "deadline expired") false
            (propagate err where))))))

(defn- drain [server &opt seconds]
  (default seconds 0)
  (def [live-before served-before] [(live server) (served server)])
  (unless (or (server :stopping) (zero? (server :running)))
    (put server :stopping true)
    (tell server :stop)
    (close-listeners (server :id))
    (eachp [index thread] (server :threads)
      (when (thread :failed) (note-stopped server index)))
    (repeat (length (server :inboxes)) (ev/take (server :stops)))
    (put server :finishing true)
    (tell server :finish))
  (def in-time (await-end server seconds))
  (def at-deadline (live server))
  (unless in-time
    (tell server :cancel)
    (await-end server 1))
  (def left (live server))
  {:ended (- (+ live-before (- (served server) served-before)) at-deadline)
   :cancelled (- at-deadline left)
   :left left})

(def- Server
  @{:drain drain
    :close (fn [server] (unless (server :stopping) (ev/go drain server)) server)
    :wait (fn [server] (while (pos? (server :running)) (ev/take (server :over))) nil)
    :localname (fn [server] (server :name))
    :counts
    (fn [server]
      (tuple ;(map (fn [[live served handed-over seconds]]
                     {:live live :served served :handed-over handed-over :seconds seconds})
                   (or (server :final) (counts (server :id))))))})

(defn serve
  ```
  Serves at an address on several threads, each with a VM of its own, in the background. `host` and `port` are as for
  `net/listen`: `:unix` and a path for a Unix socket. `handler` is called in a fiber for each connection, and closes
  it; it goes to the threads as functions do with `ev/thread`, with copies of all that it refers to.

  A connection goes to the worker that has the least to do, before its first read, and stays there.

  - `:workers` is the number of threads; by default, that of the cores that the process may use.
  - `:datagram` serves datagrams: `handler` is called once in each worker, with its socket.
  - `:replace-failed` has a new thread take the place of a worker that fails; without it, another worker accepts what
    comes to the failed one's socket. An error in `handler` ends its connection, and is no such failure; one in what the
    worker itself does is, as by code that cancels all fibers of its VM. It is told on standard error. The connections
    that the worker served are cancelled, and those of others go on. One that fails within a second is replaced when
    that has passed. What `handler` refers to is copied anew, as it is in the thread that has called `serve`.

  Returns a server with these methods:

  - `(:localname server)`: the address that it is bound to, as `net/localname` returns it.
  - `(:counts server)`: for each worker a struct with the number of its `:live` connections, of those that it has
    `:served`, and of those that it has accepted and `:handed-over` to others, and the `:seconds` of processor time of
    its thread, if they are known.
  - `(:drain server seconds)`: accepts no more connections, lets those that there are go on for so many seconds, and
    then cancels their fibers. Returns a struct of how many have `:ended`, were `:cancelled`, and are `:left` a second
    later, as they ignore that.
  - `(:close server)`: the same in the background, without the time. Does not wait.
  - `(:wait server)`: waits until all workers have ended.
  ```
  [host port handler &named workers datagram replace-failed]
  (when (= :stock (ringspun/backend))
    (error "ringspun/serve needs Ringspun's network code: unset RINGSPUN_NET=stock"))
  (default workers (cores))
  (unless (and (int? workers) (pos? workers))
    (errorf "expected a positive number of workers, got %q" workers))
  (unless (function? handler)
    (errorf "expected a function as handler, got %q" handler))
  (def address (net/address host port (if datagram :datagram :stream)))
  (def [id sockets] (listen address workers (truthy? datagram)))
  (def name (with [listener (open-listener id 0) end-connection] (net/localname listener)))
  (def inboxes (seq [_ :range [0 workers]] (ev/thread-chan 10000)))
  (def server
    (table/setproto
      @{:id id :name name :inboxes inboxes :threads @{} :runs 0 :running workers :over (ev/chan)
        # The worker that listens at each socket.
        :owners (tabseq [index :range [0 sockets]] index index)
        :reports (ev/thread-chan 10000) :stops (ev/chan workers) :stopped @{}
        :handler handler :datagram datagram :replaces replace-failed}
      Server))
  (for index 0 workers
    (ev/go (fn [] (run-thread server index))))
  # Each has sent its value to its thread, or failed to.
  (ev/sleep 0)
  (ev/go (fn [] (watch server)))
  (when-let [failed (server :failed)]
    (put server :stopping true)
    (put server :finishing true)
    (close-listeners id)
    (tell server :finish)
    (error failed))
  (put server :started true)
  server)

# The module `ringspun`: servers on every core. A worker is a thread with a VM of its own. What they share is a
# placement, by its number, and channels between threads. What is not defined here is in serving.rs.

(defn- end-connection [stream]
  # It may be closed already.
  (try (:close stream) ([_] nil)))

(defn- run-worker
  "The main function of a worker's thread."
  [[id index inbox inboxes listener handler datagram reports]]
  (def term (enter id index))
  (def fibers @{})
  (def listeners @{})
  # It accepts no more connections; none will come from another worker.
  (var stopping false)
  (var finishing false)
  # Once it has failed, what it has accepted and not served, which is for the one that goes on in its place.
  (var left-over nil)

  (defn serve [connection]
    (def fiber (fiber/root))
    (put fibers fiber true)
    (defer (do
             (put fibers fiber nil)
             (ended id index term)
             (when finishing (ev/give inbox :look)))
      (try (handler connection)
        ([err where]
          (end-connection connection)
          (unless (= err :drained) (propagate err where))))))

  (defn arrive [connection]
    (def [target counted] (if left-over [] (place id index stopping)))
    (cond
      left-over (array/push left-over connection)
      (= target index) (serve connection)
      (first (protect (ev/give (inboxes target) [:connection connection counted])))
      (end-connection connection) # The other worker has a descriptor of its own.
      # Without a descriptor to spare for it, the connection stays here.
      (do
        (ended id target counted)
        (if left-over
          (array/push left-over connection)
          (do (recount id index) (serve connection))))))

  (defn take-over [connection counted]
    (case counted
      term nil
      # It was counted for a worker that has failed since, or for none yet.
      nil (place id index true)
      (recount id index))
    (serve connection))

  (defn start-listening [listener]
    (put listeners listener true)
    (defn run []
      (try (if datagram (handler listener) (net/accept-loop listener arrive))
        ([err where]
          (unless stopping
            (if datagram (propagate err where) (ev/give inbox [:fault err]))))))
    (ev/go run))

  (defn stop-listening [start]
    (set stopping true)
    (each listener (keys listeners)
      (unless datagram
        # Those that wait in the kernel.
        (while (def connections (take-waiting listener))
          (each connection connections (start connection))
          (ev/sleep 0)))
      (put listeners listener nil)
      (end-connection listener)))

  (defn cancel-fibers []
    (each fiber (keys fibers)
      # One that has not begun never does, and one that others have cancelled before it could is over.
      (unless (= :suspended (fiber/status fiber)) (put fibers fiber nil))
      (protect (ev/cancel fiber :drained))))

  (defn follow []
    (while (not (and finishing (empty? fibers)))
      (match (ev/take inbox)
        :stop (do
                (stop-listening |(put fibers (ev/go arrive $) true))
                (ev/give reports [:stopped index]))
        :finish (set finishing true)
        :cancel (cancel-fibers)
        [:listen listener] (if stopping (end-connection listener) (start-listening listener))
        [:connection connection counted] (put fibers (ev/go (fn [] (take-over connection counted))) true)
        [:fault err] (error err))))

  (defn fail [err]
    # Nothing is placed here from now on, and what is here counts no more.
    (set left-over @[])
    (write-off id index)
    (cancel-fibers)
    (stop-listening |(array/push left-over $))
    # A wait for the inbox that was cancelled is still noted there. It gets this, which goes back to the inbox.
    (when (zero? (ev/count inbox)) (ev/give inbox :look))
    (ev/give reports [:failed index (if (bytes? err) (string err) (string/format "%q" err)) left-over])
    (each connection left-over (end-connection connection)))

  (when listener (start-listening listener))
  (try (follow) ([err] (fail err))))

(defn- live [server]
  (sum (map first (or (server :final) (counts (server :id))))))

(defn- served [server]
  (sum (map |($ 1) (or (server :final) (counts (server :id))))))

(defn- note-stopped [server index]
  (unless (get-in server [:stopped index])
    (put-in server [:stopped index] true)
    (ev/give (server :stops) index)))

(defn- hand-on
  "Gives a message to a worker that has not failed."
  [server message]
  (def heir (find-index |(not ($ :failed)) (server :threads)))
  (if heir
    (ev/give (in (server :inboxes) heir) message)
    (end-connection (in message 1))))

(defn- stand-in
  "Answers for a worker that has failed and is not replaced, until the server ends."
  [server index]
  (when (server :stopping) (note-stopped server index))
  (var over false)
  (while (not over)
    (match (ev/take (in (server :inboxes) index))
      [:connection connection counted] (hand-on server [:connection connection counted])
      :stop (note-stopped server index)
      :finish (set over true)
      # The channel is closed.
      nil (set over true))))

(defn- end-thread [server]
  (-- (server :running))
  (when (zero? (server :running))
    (put server :final (counts (server :id)))
    (forget (server :id))
    (each listener (server :listeners) (end-connection listener))
    (each inbox (server :inboxes) (ev/chan-close inbox))
    (ev/chan-close (server :reports))
    (ev/chan-close (server :over))))

(defn- run-thread
  "Runs the thread of a worker, and parks until it has ended."
  [server index listener]
  (def thread @{:since (os/clock :monotonic)})
  (put-in server [:threads index] thread)
  (def {:id id :inboxes inboxes :handler handler :datagram datagram :reports reports} server)
  (var failure "its thread has ended")
  (try (ev/thread run-worker [id index (in inboxes index) inboxes listener handler datagram reports])
    ([err] (set failure err)))
  (cond
    (not (server :started)) (put server :failed failure)
    (not (or (thread :failed) (server :finishing)))
    (do
      (write-off id index)
      (ev/give reports [:failed index (string failure) []])))
  (end-thread server))

(defn- succeed
  "Has somebody go on in place of a worker that has failed."
  [server index replaces accepted]
  (def listener (get (server :listeners) index))
  # One that fails as soon as it begins would be replaced without end.
  (when replaces
    (ev/sleep (max 0 (- (+ (get-in server [:threads index :since]) 1) (os/clock :monotonic)))))
  (if (and replaces (not (server :stopping)))
    (do
      (each connection accepted (ev/give (in (server :inboxes) index) [:connection connection nil]))
      (run-thread server index listener))
    (do
      (when (and listener (not (server :stopping))) (hand-on server [:listen listener]))
      (each connection accepted (hand-on server [:connection connection nil]))
      (ev/go (fn [] (stand-in server index)))
      (when replaces (end-thread server)))))

(defn- watch
  "Follows what workers report, until the last has ended."
  [server]
  (while (def report (ev/take (server :reports)))
    (match report
      [:stopped index] (note-stopped server index)
      [:failed index err accepted]
      (do
        (def replaces (and (server :replaces) (not (server :stopping))))
        (eprintf "worker %d has failed; %s: %s" index (if replaces "it is replaced" "the others go on") err)
        # Before its thread is seen to have ended.
        (put-in server [:threads index :failed] true)
        (when replaces (++ (server :running)))
        (ev/go (fn [] (succeed server index replaces accepted)))))))

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
    (each listener (server :listeners) (end-connection listener))
    # Of those that have failed, somebody else says so.
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
  (def listeners (listen address workers (truthy? datagram)))
  (def name (net/localname (first listeners)))
  (def inboxes (seq [_ :range [0 workers]] (ev/thread-chan 10000)))
  (def id (new-placement workers))
  (def server
    (table/setproto
      @{:id id :name name :inboxes inboxes :listeners listeners :threads @{} :running workers :over (ev/chan)
        :reports (ev/thread-chan workers) :stops (ev/chan workers) :stopped @{}
        :handler handler :datagram datagram :replaces replace-failed}
      Server))
  (for index 0 workers
    (ev/go (fn [] (run-thread server index (get listeners index)))))
  # Each has sent its value to its thread, or failed to.
  (ev/sleep 0)
  (when-let [failed (server :failed)]
    (put server :finishing true)
    (each listener listeners (end-connection listener))
    (tell server :finish)
    (error failed))
  (put server :started true)
  (ev/go (fn [] (watch server)))
  server)

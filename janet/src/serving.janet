# The module `ringspun`: servers on every core. A worker is a thread with a VM of its own. What they share is a
# placement, by its number, and channels between threads. What is not defined here is in serving.rs.

(defn- end-connection [stream]
  # It may be closed already.
  (try (:close stream) ([_] nil)))

(defn- run-worker
  "The main function of a worker's thread."
  [[id index inbox inboxes listener handler datagram reports]]
  (enter id index)
  (def fibers @{})
  # It accepts no more connections; none will come from another worker.
  (var stopping false)
  (var finishing false)

  (defn serve [connection]
    (def fiber (fiber/root))
    (put fibers fiber true)
    (defer (do
             (put fibers fiber nil)
             (ended id index)
             (when finishing (ev/give inbox :look)))
      (try (handler connection)
        ([err where]
          (end-connection connection)
          (unless (= err :drained) (propagate err where))))))

  (defn arrive [connection]
    (def target (place id index stopping))
    (if (= target index)
      (serve connection)
      (match (protect (ev/give (inboxes target) connection))
        [true] (end-connection connection) # The other worker has a descriptor of its own.
        [false err]
        (do
          (ended id target)
          (if (= err "cannot write to closed channel")
            (do (leave id target) (arrive connection))
            # Without a descriptor to spare for it, the connection stays here.
            (do (place id index true) (serve connection)))))))

  (defn stop-listening []
    (set stopping true)
    (when listener
      (unless datagram
        # Those that wait in the kernel.
        (while (def connections (take-waiting listener))
          (each connection connections (put fibers (ev/go arrive connection) true))
          (ev/sleep 0)))
      (end-connection listener)))

  (when listener
    (ev/go
      (if datagram
        (fn [] (try (handler listener) ([err where] (unless stopping (propagate err where)))))
        (fn [] (try (net/accept-loop listener arrive) ([err where] (unless stopping (propagate err where))))))))

  (while (not (and finishing (empty? fibers)))
    (def message (ev/take inbox))
    (case message
      :stop (do (stop-listening) (ev/give reports index))
      :finish (set finishing true)
      :cancel (each fiber (keys fibers) (ev/cancel fiber :drained))
      :look nil
      (put fibers (ev/go serve message) true))))

(defn- live [server]
  (sum (map first (or (server :final) (counts (server :id))))))

(defn- served [server]
  (sum (map |($ 1) (or (server :final) (counts (server :id))))))

(defn- start-worker
  "Starts the thread of a worker, and parks until it has ended."
  [server index value]
  (try (ev/thread run-worker value)
    ([err where]
      (leave (server :id) index)
      (put server :failed err)
      (ev/chan-close (in (server :inboxes) index))
      (ev/give (server :reports) index)
      # While it starts, `serve` raises the error.
      (when (server :started)
        (eprintf "worker %d has ended; the others go on: %s" index (string err)))))
  (-- (server :running))
  (when (zero? (server :running))
    (put server :final (counts (server :id)))
    (forget (server :id))
    (ev/chan-close (server :over))))

(defn- tell [server message]
  (each inbox (server :inboxes)
    # That of a worker that has ended is closed.
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
  (unless (server :stopping)
    (put server :stopping true)
    (tell server :stop)
    # Those that have failed have reported, too.
    (repeat (length (server :inboxes)) (ev/take (server :reports)))
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
  [host port handler &named workers datagram]
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
      @{:id id :name name :inboxes inboxes :running workers :over (ev/chan) :reports (ev/thread-chan workers)}
      Server))
  (for index 0 workers
    (def value [id index (in inboxes index) inboxes (get listeners index) handler datagram (server :reports)])
    (ev/go (fn [] (start-worker server index value))))
  # Each has sent its value to its thread, or failed to.
  (ev/sleep 0)
  (each listener listeners (:close listener))
  (when-let [failed (server :failed)]
    (tell server :finish)
    (error failed))
  (put server :started true))

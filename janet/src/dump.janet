# The module `ringspun/dump`: what each fiber of this thread's VM waits for, and its stack. What is not defined here is
# in dump.rs.

(def- listed-max 10)

(defn- described
  "An argument of a call. Of texts and of collections only the size, as they may be secret or long."
  [value]
  (def kind (type value))
  (defn address [f] (try (string/join (map string (f value)) ":") ([_] nil)))
  (case kind
    :core/channel (string/format "%v (%d of %d values)" value (ev/count value) (ev/capacity value))
    :core/stream
    (if-let [peer (address net/peername)]
      (string/format "stream to %s" peer)
      (if-let [name (address net/localname)]
        (string/format "socket at %s" name)
        (string/format "%v" value)))
    (cond
      (or (nil? value) (boolean? value) (number? value) (keyword? value) (symbol? value)) (string/format "%q" value)
      (or (bytes? value) (indexed? value) (dictionary? value)) (string/format "%s of %d" (string kind) (length value))
      (string/format "%v" value))))

(defn- place [frame]
  (string "        " (or (frame :name) "function")
          (if-let [source (frame :source)] (string " [" source "]") "")
          (if-let [line (frame :source-line)] (string " on line " line) "")))

(defn- chain
  "A fiber, and those that have been resumed within it, the innermost first."
  [fiber]
  (def fibers @[fiber])
  (while (def inner (child (first fibers)))
    (array/insert fibers 0 inner))
  fibers)

(defn- waits-for [fiber frames]
  (if-let [values (arguments (first (chain fiber)))]
    (string/join [(string (get-in frames [0 :name])) ;(map described values)] " ")
    (if (= :suspended (fiber/status fiber))
      "its turn, or whoever resumes it"
      "its turn")))

(defn text
  ``Tells what each fiber of this thread's event loop waits for, with its stack, and how many there are of each kind:
  those with the same stack are told together. Of texts that a fiber writes there is only the length.``
  []
  (def tasks (ev/all-tasks))
  (def groups @{})
  (each fiber tasks
    (def frames (mapcat debug/stack (chain fiber)))
    (def stack (string/join (map place frames) "\n"))
    (unless (groups stack) (put groups stack @[]))
    (array/push (groups stack) [fiber frames]))
  (def buffer @"")
  (buffer/format buffer "fibers of process %d: %d tasks\n" (os/getpid) (length tasks))
  (each [stack fibers] (sorted-by |(- (length (last $))) (pairs groups))
    (buffer/format buffer "\n%d fiber%s:\n" (length fibers) (if (one? (length fibers)) "" "s"))
    (each [fiber frames] (take listed-max fibers)
      (buffer/push buffer (string/format "    %v" fiber)
                   (if (= fiber (fiber/root)) " takes this dump" (string " waits for: " (waits-for fiber frames)))
                   "\n"))
    (when (> (length fibers) listed-max)
      (buffer/format buffer "    and %d more\n" (- (length fibers) listed-max)))
    (buffer/push buffer stack "\n"))
  (string buffer))

(defn write
  "Writes that to standard error."
  []
  (file/write stderr (text))
  (file/flush stderr))

(defn- respond
  "Answers another thread's question of a number with that."
  [number]
  (answer number (text)))

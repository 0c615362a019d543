# A session of a shop, for `ringspun load --script`: a user logs in, looks at a few items, and leaves.
#
#     ringspun load http://127.0.0.1:8080/ -c 50 --rate 20 --script examples/load_shop.janet --fail-if 'p99>50ms@login'

(defn- look-at [session item]
  (def page (load/request session "GET" (string "/items/" item)))
  (unless (string/find "price" (page :body))
    (errorf "item %d has no price" item)))

(defn main
  "Called for each session."
  [session]
  # The cookie that the answer sets goes along with the later requests.
  (load/step session "login" load/request session "POST" "/login" :body (string "user=" (session :number)))
  (repeat (+ 1 (math/floor (* 3 (math/random))))
    # Think time, which is part of no step.
    (ev/sleep 0.01)
    (load/step session "item" look-at session (math/floor (* 100 (math/random)))))
  (load/step session "logout" load/request session "POST" "/logout" :expect [200 303]))

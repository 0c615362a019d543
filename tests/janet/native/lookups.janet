# Functions that look names up, called by C code or in a fiber that keeps waits for itself: they cannot wait, and need
# not.

(import ./calling)

(defn addresses [] (map net/address-unpack (net/address "localhost" "7" :stream true)))

(defn served []
  (with [server (net/listen "localhost" "0")]
    (def [host port] (net/localname server))
    [host (> port 0)]))

(defn refused [] (protect (net/address "no name.invalid" "7")))

(def callers
  [["directly" (fn [function] (function))]
   ["by janet_call" calling/call]
   ["by janet_pcall" (fn [function] ((calling/try function) 1))]
   ["by janet_call in janet_pcall" (fn [function] ((calling/try (fn [] (calling/call function))) 1))]
   ["by janet_pcall in a fiber" (fn [function] (resume (fiber/new (fn [] (calling/try function)) :e)))]
   ["in a fiber in janet_call" (fn [function] (calling/call (fn [] (resume (fiber/new function :e)))))]
   ["in a fiber that keeps waits" (fn [function] (resume (fiber/new function :u)))]])

(each [title call] callers
  (each function [addresses served refused]
    (printf "%s: %q" title (call function))
    # Nothing is left behind that keeps the fiber from waiting.
    (ev/sleep 0)))

# A connection in progress would have to wait.
(with [server (net/listen "127.0.0.1" "0")]
  (def accepted (ev/go (fn [] (:close (net/accept server)))))
  (printf "connected directly: %q" (type (with [stream (net/connect ;(net/localname server))] stream))))

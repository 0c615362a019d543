# What the broker library does, as a transcript.

(import ./broker)

(def server (broker/start "127.0.0.1" "0" 16))
(def [host port] (:address server))

(defn client [name] (put (broker/connect host port) :name name))
(defn tell [who & words] (printf "%s: %s -> %s" (who :name) (string/join words " ") (broker/command who ;words)))
(defn hear [who] (printf "%s hears %q" (who :name) (broker/message who)))
(defn silent [who] (printf "%s has %d messages waiting" (who :name) (ev/count (who :messages))))

(def ann (client "ann"))
(def bob (client "bob"))
(def eve (client "eve"))

# Topics, and topics below topics.
(tell eve "PUBLISH news nobody listens")
(tell ann "SUBSCRIBE news")
(tell bob "SUBSCRIBE news")
(tell bob "SUBSCRIBE sport.*")
(tell ann "SUBSCRIBE sport.chess")
(tell eve "TOPICS")
(tell eve "PUBLISH news first news")
(hear ann)
(hear bob)
(tell eve "PUBLISH sport.chess a mate")
(hear ann)
(hear bob)
(tell eve "PUBLISH sport.chess.open only below")
(hear bob)
(tell eve "PUBLISH sport none for the root")
(tell eve "PUBLISH weather none at all")
(silent ann)
(silent bob)

# Publishers hear themselves if they are subscribed.
(tell ann "PUBLISH news from ann herself")
(hear ann)
(hear bob)

# Twice is once, and what was never subscribed to cannot be left.
(tell ann "SUBSCRIBE news")
(tell eve "PUBLISH news once")
(hear ann)
(silent ann)
(hear bob)
(tell ann "UNSUBSCRIBE news")
(tell ann "UNSUBSCRIBE news")
(tell eve "PUBLISH news without ann")
(hear bob)
(silent ann)

# What is no command.
(each words [["NONSENSE"] ["SUBSCRIBE"] ["SUBSCRIBE two words"] ["PUBLISH news"] ["subscribe news"]] (tell eve ;words))

# Commands in one piece, and one in many.
(net/write (eve :stream) "PUBLISH news one\nPUBLISH news two\r\nTOPICS\n")
(repeat 3 (printf "eve: %s" (ev/take (eve :replies))))
(hear bob)
(hear bob)
(each byte "PUBLISH news slowly\n" (net/write (eve :stream) (string/from-bytes byte)) (ev/sleep 0))
(printf "eve: %s" (ev/take (eve :replies)))
(hear bob)

# Messages keep their order.
(for number 0 10 (net/write (eve :stream) (string "PUBLISH news " number "\n")))
(def numbers (seq [_ :range [0 10]] (scan-number (last (broker/message bob)))))
(repeat 10 (ev/take (eve :replies)))
(printf "bob hears %q" numbers)

# A subscriber that leaves is forgotten, whether it says so or not.
(net/write (bob :stream) "QUIT\n")
(hear bob)
(tell eve "TOPICS")
(tell eve "PUBLISH news without bob")
(def rude (client "rude"))
(tell rude "SUBSCRIBE news")
(tell eve "PUBLISH news for the rude")
(hear rude)
(:close rude)
(while (string/find "news" (broker/command eve "TOPICS")) (ev/sleep 0.001))
(tell eve "TOPICS")
(tell eve "PUBLISH news after the rude")

# A subscriber that does not read is cut off, and the others hear everything.
(tell ann "SUBSCRIBE bulk")
(def slow (net/connect host port))
(net/write slow "SUBSCRIBE bulk\n")
(net/read slow 100)
(def text (string/repeat "x" 500000))
(var sent 0)
(var heard 0)
(def cut-off
  (label cut-off
    (repeat 200
      (def reply (broker/command eve "PUBLISH" "bulk" text))
      (++ sent)
      (if (= text (last (broker/message ann))) (++ heard))
      (if (= reply "OK published to 1") (return cut-off true)))
    false))
(printf "the slow one is cut off: %q" cut-off)
(printf "ann has heard everything: %q" (= heard sent))
(tell eve "PUBLISH bulk after the slow one")
(hear ann)
(:close slow)

# Many subscribers.
(def crowd (seq [number :range [0 40]] (client (string "guest " number))))
(each guest crowd (broker/command guest "SUBSCRIBE crowd"))
(tell eve "PUBLISH crowd hello, all")
(printf "the crowd hears %q" (frequencies (map |(last (broker/message $)) crowd)))
(def leaving (slice crowd 0 20))
(each guest leaving (net/write (guest :stream) "QUIT\n"))
(printf "half the crowd leaves: %q" (frequencies (map |(first (broker/message $)) leaving)))
(tell eve "PUBLISH crowd hello, half")
(printf "half the crowd hears %q" (frequencies (map |(last (broker/message $)) (slice crowd 20))))
(each guest (slice crowd 20) (:close guest))

# Nobody can come any more, and who is there may stay.
(:close server)
(printf "a new client: %q" (protect (broker/connect host port)))
(tell eve "PUBLISH sport.chess the last move")
(hear ann)
(:close ann)
(hear ann)
(:close eve)

//! The module `ringspun/tls` for Janet programs: in the main thread, in threads, and streams on the way between them.

use std::process::Command;

use crate::support::backend;

/// What the programs have in common: an echo server, its address and its certificate.
const PRELUDE: &str = r#"
(import ringspun/tls)
(def [cert key] (tls/self-signed "localhost"))
(defn echo [connection]
  (defer (:close connection)
    (while (def bytes (:read connection 1024))
      (:write connection bytes))))
(def server (tls/server "127.0.0.1" "0" echo :cert cert :key key))
(def [host port] (net/localname server))
(defn ask [client text]
  (:write client text)
  (string (:chunk client (length text))))
(defn connect [] (tls/connect host port :ca cert :server-name "localhost"))
(def answers (ev/thread-chan 10))
(defmacro in-thread [& body]
  ~(do
     (ev/spawn-thread (ev/give answers (protect (do ,;body))))
     (ev/take answers)))
"#;

/// Runs a program on both backends, which has to succeed, and compares what it printed.
fn prints(program: &str, expected: &str) {
    for backend in backend::usable() {
        let output = Command::new(env!("CARGO_BIN_EXE_ringspun"))
            .args(["janet", "-e", &format!("{PRELUDE}{program}(:close server)")])
            .env("RINGSPUN_BACKEND", backend)
            .output()
            .unwrap();
        assert!(output.status.success(), "{backend}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), expected, "{backend}: {output:?}");
    }
}

/// It is imported there, or its functions come from another thread.
#[test]
fn threads_use_the_module() {
    let program = r#"
        (pp (in-thread
              (def module (require "ringspun/tls"))
              (def connect (get-in module ['connect :value]))
              (with [client (connect host port :ca cert :server-name "localhost")]
                (ask client "imported there"))))
        (pp (in-thread (with [client (connect)] (ask client "imported here"))))
        (pp (in-thread
              (def module (require "ringspun/tls"))
              (def [own-cert own-key] ((get-in module ['self-signed :value]) "localhost"))
              (def own (((module 'server) :value) "127.0.0.1" "0" echo :cert own-cert :key own-key))
              (def [host port] (net/localname own))
              (defer (:close own)
                (with [client (((module 'connect) :value) host port :ca own-cert :server-name "localhost")]
                  (ask client "served there")))))
        (with [client (connect)] (pp (ask client "and the server goes on")))
    "#;
    let expected = "(true \"imported there\")\n(true \"imported here\")\n(true \"served there\")\n\
                    \"and the server goes on\"";
    prints(program, expected);
}

/// Their sessions are those of one thread: every use of them in another says so, and they go on in their own.
#[test]
fn a_stream_of_another_thread_is_refused() {
    let program = r#"
        (def client (connect))
        (each attempt
          [(in-thread (:read client 10))
           (in-thread (:chunk client 10))
           (in-thread (:write client "x"))
           (in-thread (net/accept server))
           (in-thread (net/accept-loop server echo))]
          (match attempt
            [false text] (assert (string/find "belongs to the thread that made it" text) text)
            other (errorf "%q" other)))
        (ev/give answers client)
        (def same-thread (ev/take answers))
        (pp (protect (:read same-thread 10)))
        (pp (in-thread (:close client) :closed))
        (pp (ask client "still here"))
        (with [another (connect)] (pp (ask another "and there")))
        (:close client)
    "#;
    let refused =
        "a stream with TLS belongs to the thread that made it: expected one that this thread has made";
    prints(program, &format!("(false \"{refused}\")\n(true :closed)\n\"still here\"\n\"and there\""));
}

/// Nothing is lost by deadlines and cancels, and what nobody has any more is closed.
#[test]
fn deadlines_cancels_and_the_collector() {
    let program = r#"
        (def client (connect))
        (pp (protect (ev/with-deadline 0.01 (:read client 10))))
        (def reader (ev/spawn (protect (:read client 10))))
        (ev/sleep 0)
        (ev/cancel reader "cancelled")
        (ev/sleep 0)
        (pp (ask client "after both"))
        (var ended 0)
        (def counted (tls/server "127.0.0.1" "0" (fn [connection]
                                                   (while (:read connection 10))
                                                   (++ ended)
                                                   (:close connection))
                                 :cert cert :key key))
        (def [host port] (net/localname counted))
        (loop [_ :range [0 20]] (tls/connect host port :ca cert :server-name "localhost"))
        (while (< ended 19) (gccollect) (ev/sleep 0.001))
        (:close counted)
        (:close client)
        (print "collected")
    "#;
    prints(program, "(false \"deadline expired\")\n\"after both\"\ncollected");
}

/// STARTTLS: what follows the plain words belongs to the handshake.
#[test]
fn a_stream_that_was_used_before_becomes_tls() {
    let program = r#"
        (def plain (net/server "127.0.0.1" "0" (fn [connection]
                                                 (assert (= "STARTTLS\n" (string (:chunk connection 9))))
                                                 (:write connection "GO\n")
                                                 (echo (tls/accept connection :cert cert :key key)))))
        (def [host port] (net/localname plain))
        (def client (net/connect host port))
        (:write client "STARTTLS\n")
        (pp (string (:chunk client 3)))
        (tls/wrap client "localhost" :ca cert)
        (pp (ask client "under TLS"))
        (pp ((tls/info client) :version))
        (:close client)
        (:close plain)
    "#;
    prints(program, "\"GO\\n\"\n\"under TLS\"\n\"TLSv1_3\"");
}

//! The module `ringspun` for Janet programs: servers on several threads, each with a VM of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use crate::support::scratch::scratch_path;

/// What the programs have in common: an echo handler, a client that checks it, and waiting for a condition.
const PRELUDE: &str = r#"
(import ringspun)
(defn echo [connection]
  (defer (:close connection)
    (def buffer @"")
    (while (:read connection 1024 buffer)
      (:write connection buffer)
      (buffer/clear buffer))))
(defn ask [client]
  (:write client "hello")
  (assert (= "hello" (string (:chunk client 5))))
  client)
(defn live [server] (map |($ :live) (:counts server)))
(defn is-even [server] (all |(<= 15 $ 17) (live server)))
(defn wait-until [done] (while (not (done)) (ev/sleep 0.001)))
"#;

fn run(program: &str, net: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringspun"))
        .args(["janet", "-e", &format!("{PRELUDE}{program}")])
        .env("RINGSPUN_NET", net)
        .output()
        .unwrap()
}

/// Runs a program that has to succeed, and returns what it printed; its standard error must be `errors`.
fn printed(program: &str, errors: &str) -> String {
    let output = run(program, "ring");
    let found = String::from_utf8_lossy(&output.stderr);
    assert_eq!(found.trim_end(), errors);
    assert!(output.status.success(), "{:?}", output.status);
    String::from_utf8_lossy(&output.stdout).trim_end().to_string()
}

#[test]
fn long_connections_are_even_one_by_one_and_at_once() {
    let program = r#"
        (def server (ringspun/serve "127.0.0.1" "0" echo :workers 4))
        (def [host port] (:localname server))
        (def one-by-one (seq [_ :range [0 64]] (ask (net/connect host port))))
        (assert (is-even server) (string/format "%q" (live server)))
        (each client one-by-one (:close client))
        (wait-until |(zero? (sum (live server))))
        (def at-once (seq [_ :range [0 64]] (net/connect host port)))
        (each client at-once (ask client))
        (assert (is-even server) (string/format "%q" (live server)))
        (each client at-once (:close client))
        (def drained (:drain server 3600))
        (:wait server)
        (pp [(drained :cancelled) (drained :left) (sum (map |($ :served) (:counts server)))])
    "#;
    assert_eq!(printed(program, ""), "(0 0 128)");
}

#[test]
fn what_a_client_sent_early_goes_along_to_its_worker() {
    let program = r#"
        (def server (ringspun/serve "127.0.0.1" "0" echo :workers 3))
        (def [host port] (:localname server))
        (def clients (seq [n :range [0 30]]
          (def client (net/connect host port))
          (:write client (string/repeat (string n) 1000))
          client))
        (eachp [n client] clients
          (def expected (string/repeat (string n) 1000))
          (assert (= expected (string (:chunk client (length expected))))))
        (assert (pos? (sum (map |($ :handed-over) (:counts server)))))
        (each client clients (:close client))
        (:drain server 3600)
        (print "all of it came back")
    "#;
    assert_eq!(printed(program, ""), "all of it came back");
}

#[test]
fn a_handler_brings_along_what_it_refers_to() {
    let program = r#"
        (def greeting @{:text "hello from "})
        (defn make [name] (fn [connection] (:write connection (string (greeting :text) name)) (:close connection)))
        (def server (ringspun/serve "127.0.0.1" 0 (make "afar") :workers 2))
        (def [host port] (:localname server))
        (print (:read (net/connect host port) :all))
        (:drain server 3600)
    "#;
    assert_eq!(printed(program, ""), "hello from afar");
}

#[test]
fn unix_sockets_and_datagrams_are_served_alike() {
    let path = scratch_path("serving.socket");
    let program = r#"
        (def server (ringspun/serve :unix "PATH" echo :workers 3))
        (def clients (seq [_ :range [0 12]] (ask (net/connect :unix "PATH"))))
        (assert (all |(<= 3 $ 5) (live server)) (string/format "%q" (live server)))
        (each client clients (:close client))
        (print (in (:drain server 3600) :cancelled))

        (defn echo-datagrams [socket]
          (forever
            (def buffer @"")
            (def source (:recv-from socket 1024 buffer))
            (:send-to socket source buffer)))
        (def datagrams (ringspun/serve "127.0.0.1" "0" echo-datagrams :workers 3 :datagram true))
        (def [host port] (:localname datagrams))
        (repeat 20
          (def client (net/connect host port :datagram))
          (:write client "datagram")
          (assert (= "datagram" (string (:read client 100))))
          (:close client))
        (:drain datagrams 3600)
        (print "both")
    "#;
    let program = program.replace("PATH", &path.display().to_string());
    assert_eq!(printed(&program, ""), "0\nboth");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_drain_lets_connections_end_and_cancels_the_rest() {
    let program = r#"
        (def [begun may-answer] [(ev/thread-chan 10) (ev/thread-chan 10)])
        (defn handler [connection]
          (defer (:close connection)
            (def request (string (:read connection 10)))
            (ev/give begun true)
            (if (= request "patient")
              (do (ev/take may-answer) (:write connection "answer"))
              (:read connection 10))))
        (def server (ringspun/serve "127.0.0.1" "0" handler :workers 2))
        (def [host port] (:localname server))
        (defn client [text] (def client (net/connect host port)) (:write client text) client)
        (def patient (seq [_ :range [0 4]] (client "patient")))
        (def idle (seq [_ :range [0 3]] (client "idle")))
        (repeat 7 (ev/take begun))
        (def drained (ev/chan))
        (ev/spawn (ev/give drained (:drain server 5)))
        # It accepts no more.
        (wait-until (fn []
          (def [is-accepted connection] (protect (net/connect host port)))
          (if is-accepted (:close connection))
          (not is-accepted)))
        (repeat 4 (ev/give may-answer true))
        (each client patient (assert (= "answer" (string (:read client :all)))))
        (def {:cancelled cancelled :left left :ended ended} (ev/take drained))
        (assert (>= ended 4))
        (each client idle (assert (nil? (:read client 1))))
        (:wait server)
        (pp [cancelled left])
    "#;
    assert_eq!(printed(program, ""), "(3 0)");
}

#[test]
fn a_closed_server_frees_its_port() {
    let program = r#"
        (def server (ringspun/serve "127.0.0.1" "0" echo :workers 2))
        (def [host port] (:localname server))
        (def client (ask (net/connect host port)))
        (print (last (protect (ringspun/serve host port echo :workers 2))))
        (:close server)
        (:wait server)
        (assert (nil? (:read client 1)))
        (def second (ringspun/serve host port echo :workers 2))
        (ask (net/connect host port))
        (:close second)
    "#;
    assert_eq!(printed(program, ""), "could not bind socket: Address already in use");
}

/// Two workers of a process that may open few files, and prints for each line of its standard input how many
/// connections each has served.
struct Limited {
    process: Child,
    output: BufReader<ChildStdout>,
    port: u16,
}

impl Limited {
    fn start(files: usize) -> Self {
        let program = r#"
            (def server (ringspun/serve "127.0.0.1" "0" echo :workers 2))
            (print ((:localname server) 1))
            (flush)
            (while (file/read stdin :line)
              (print ;(interpose " " (map |($ :served) (:counts server))))
              (flush))
            (os/exit 0)
        "#;
        let mut process = Command::new("sh")
            .args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\"")])
            .args([env!("CARGO_BIN_EXE_ringspun"), "janet", "-e", &format!("{PRELUDE}{program}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut server = Self { process, output, port: 0 };
        server.port = server.line().trim().parse().unwrap();
        // Starting the second worker takes descriptors, too.
        while server.served().contains(&0) {
            assert!(is_answered(&mut server.connect()));
        }
        server
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }

    fn served(&mut self) -> Vec<u64> {
        self.process.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        self.line().split_whitespace().map(|count| count.parse().unwrap()).collect()
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        client
    }
}

fn is_answered(client: &mut TcpStream) -> bool {
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).is_ok()
}

#[test]
fn workers_go_on_after_descriptors_have_run_out() {
    // Handing over takes a descriptor for a moment, which nobody may have then.
    for _ in 0..8 {
        let mut server = Limited::start(64);
        let mut clients: Vec<_> = (0..100).map(|_| server.connect()).collect();
        // Most wait until these have left.
        clients.drain(..80);
        assert!(clients.iter_mut().all(is_answered), "served: {:?}", server.served());
        clients.clear();
        let before = server.served();
        let mut clients: Vec<_> = (0..16).map(|_| server.connect()).collect();
        assert!(clients.iter_mut().all(is_answered), "served: {:?}", server.served());
        let after = server.served();
        assert!(before.iter().zip(&after).all(|(before, after)| after > before), "{before:?}, {after:?}");
        drop(server.process.stdin.take());
        assert!(server.process.wait().unwrap().success());
    }
}

#[test]
fn an_error_of_a_handler_ends_its_connection_alone() {
    let program = r#"
        (defn handler [connection]
          (defer (:close connection)
            (while (def request (:read connection 1))
              (if (= "!" (string request)) (error "asked to"))
              (:write connection request))))
        (def server (ringspun/serve "127.0.0.1" "0" handler :workers 2))
        (def [host port] (:localname server))
        (def clients (seq [_ :range [0 4]] (net/connect host port)))
        (:write (first clients) "!")
        (assert (nil? (:read (first clients) 1)))
        (each client (slice clients 1) (:write client ".") (assert (= "." (string (:read client 1)))) (:close client))
        (pp (in (:drain server 3600) :cancelled))
    "#;
    let output = run(program, "ring");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("error: asked to") && errors.contains("in handler"), "{errors}");
}

#[test]
fn what_is_given_to_a_fiber_that_no_longer_waits_is_the_next_ones() {
    let program = r#"
        (def channel (ev/thread-chan 10))
        (each wait [ev/take ev/select]
          (protect (ev/with-deadline 0.001 (wait channel)))
          (each value [1 2 3] (ev/give channel value))
          # Time for the first to come to the fiber that has waited.
          (ev/sleep 0.01)
          (pp (seq [_ :range [0 3]] (ev/with-deadline 60 (ev/take channel)))))
        # The same for one whose thread has ended.
        (def of-threads (ev/thread-chan 10))
        (ev/thread (fn [channel] (protect (ev/with-deadline 0.001 (ev/take channel)))) of-threads)
        (ev/give of-threads 4)
        (pp (ev/with-deadline 60 (ev/take of-threads)))
    "#;
    assert_eq!(printed(program, ""), "@[1 2 3]\n@[1 2 3]\n4");
}

/// A handler that echoes, and clients that have a worker fail: it cancels what the worker itself runs in.
const FAULTS: &str = r#"
(defn handler [connection]
  (defer (:close connection)
    (while (def request (:read connection 100))
      (when (= "fault" (string request))
        (each task (ev/all-tasks) (unless (= task (fiber/root)) (ev/cancel task "asked to"))))
      (:write connection request))))
(defn serve [& options]
  (def server (ringspun/serve "127.0.0.1" "0" handler :workers 2 ;options))
  (def [host port] (:localname server))
  [server |(ask (net/connect host port))])
(defn is-alive [client] (match (protect (ask client)) [true] true false))
# Connects to the worker, and has it fail.
(defn fail [server client worker]
  (def before (in (live server) worker))
  (def victim (client))
  (if (= before (in (live server) worker))
    (do (fail server client worker) (:close victim))
    (do (:write victim "fault") (while (:read victim 100)) (:close victim))))
"#;

/// Runs such a program, which has to succeed, and returns what it printed and the lines about workers.
fn failing(program: &str) -> (String, String) {
    let output = run(&format!("{FAULTS}{program}"), "ring");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {errors}", output.status);
    // Another thread may have begun a line with a stack trace.
    let told: Vec<_> = errors.lines().filter_map(|line| Some(&line[line.find("worker ")?..])).collect();
    (String::from_utf8_lossy(&output.stdout).trim_end().to_string(), told.join("\n"))
}

#[test]
fn a_worker_that_fails_is_told_and_replaced_if_asked() {
    let program = r#"
        (def [server client] (serve :replace-failed true))
        (def clients (seq [_ :range [0 6]] (client)))
        (repeat 2
          (def others (in (live server) 0))
          (fail server client 1)
          # The connections of the other worker are unharmed; its own are cancelled, and count no more.
          (wait-until |(= (in (live server) 1) 0))
          (wait-until |(= others (in (live server) 0)))
          (assert (= others (count is-alive clients)))
          # All are answered, wherever they land. Until its successor is there, those that land on the other stay there.
          (array/concat clients (seq [_ :range [0 40]] (client)))
          (assert (pos? (in (live server) 1)) (string/format "%q" (live server))))
        (def alive (filter is-alive clients))
        (wait-until |(= (length alive) (sum (live server))))
        (each client alive (:close client))
        (def drained (:drain server 3600))
        (:wait server)
        (pp [(drained :cancelled) (drained :left) (sum (live server))])
    "#;
    let line = "worker 1 has failed; it is replaced: asked to";
    assert_eq!(failing(program), ("(0 0 0)".to_string(), format!("{line}\n{line}")));
}

#[test]
fn a_worker_that_fails_and_is_not_replaced_leaves_its_socket_to_another() {
    let program = r#"
        (def [server client] (serve))
        (def clients (seq [_ :range [0 6]] (client)))
        (def others (in (live server) 1))
        (fail server client 0)
        (assert (= others (count is-alive clients)))
        # Half of these come to the socket of the failed worker.
        (array/concat clients (seq [_ :range [0 40]] (client)))
        (wait-until |(= [0 (+ others 40)] (tuple ;(live server))))
        (def drained (:drain server 0))
        (:wait server)
        (pp [(- (drained :cancelled) others) (drained :left)])
    "#;
    let told = "worker 0 has failed; the others go on: asked to";
    assert_eq!(failing(program), ("(40 0)".to_string(), told.to_string()));
}

#[test]
fn a_server_whose_workers_have_all_failed_has_ended() {
    let program = r#"
        (def [server client] (serve))
        (def [host port] (:localname server))
        (fail server client 0)
        (fail server client 1)
        (:wait server)
        (print (first (protect (net/connect host port))))
        (pp (:drain server 3600))
    "#;
    let (printed, told) = failing(program);
    assert_eq!(printed, "false\n{:cancelled 0 :ended 0 :left 0}");
    assert_eq!(told.lines().count(), 2, "{told}");
}

#[test]
fn the_only_listener_of_a_server_outlives_its_worker() {
    let path = scratch_path("failing.socket");
    let program = r#"
        (def made @[])
        (defn counting [connection]
          (array/push made true)
          (:write connection (string (length made)))
          (handler connection))
        (def server (ringspun/serve :unix "PATH" counting :workers 1 :replace-failed true))
        (defn client [] (def client (net/connect :unix "PATH")) [(string (:read client 1)) client])
        (assert (= "1" (first (client))))
        (def [number victim] (client))
        (assert (= number "2"))
        (:write victim "fault")
        (while (:read victim 100))
        # It waits for the next worker, which has what the handler refers to as it was when `serve` was called.
        (def [number late] (client))
        (ask late)
        (:close late)
        (:drain server 3600)
        (print number)
    "#;
    let program = program.replace("PATH", &path.display().to_string());
    let told = "worker 0 has failed; it is replaced: asked to";
    assert_eq!(failing(&program), ("1".to_string(), told.to_string()));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_drain_ends_while_a_worker_waits_for_its_successor() {
    let program = r#"
        (def [server client] (serve :replace-failed true))
        (fail server client 0)
        # The failure is known: the drain finds a successor that is awaited, or has begun.
        (wait-until |(or (get-in server [:threads 0 :failed]) (< 2 (server :runs))))
        (def drained (:drain server 0))
        (:wait server)
        (pp (drained :left))
    "#;
    let told = "worker 0 has failed; it is replaced: asked to";
    assert_eq!(failing(program), ("0".to_string(), told.to_string()));
}

#[test]
fn what_cannot_be_served_is_an_error_at_once() {
    let program = r#"
        (defn try-serve [& arguments] (print (last (protect (ringspun/serve ;arguments)))))
        (try-serve "127.0.0.1" "0" echo :workers 0)
        (try-serve "127.0.0.1" "0" 5)
        # Parsers cannot go to another thread.
        (def parser (parser/new))
        (try-serve "127.0.0.1" "0" (fn [_] (parser/status parser)) :workers 2)
    "#;
    let output = run(program, "ring");
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "expected a positive number of workers, got 0");
    assert_eq!(lines[1], "expected a function as handler, got 5");
    assert!(lines[2].contains("core/parser"), "{text}");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn the_vms_own_network_code_says_that_it_cannot() {
    let output = run(r#"(ringspun/serve "127.0.0.1" "0" echo)"#, "stock");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("ringspun/serve needs Ringspun's network code"), "{errors}");
    assert!(!output.status.success());
    let output = run(r#"(import ringspun/tls) (tls/connect "127.0.0.1" "1")"#, "stock");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("tls/connect needs Ringspun's network code"), "{errors}");
    assert!(!output.status.success());
}

#[test]
fn the_module_has_a_documentation_and_keeps_its_own_to_itself() {
    let program = r#"
        (def environment (require "ringspun"))
        (pp (sorted (seq [name :keys environment :when (symbol? name) :unless (in (environment name) :private)] name)))
        (print (truthy? (string/find "until all workers have ended." (get-in environment ['serve :doc]))))
    "#;
    assert_eq!(printed(program, ""), "@[serve]\ntrue");
}

//! Streams that go to other threads and processes: what was received here and not read is for whoever reads
//! first, and nothing is received ahead of others' readers.

use ringspun_janet::{Net, Vm};

/// Both ends of a connection, and channels.
const PRELUDE: &str = r#"
    (def listener (net/listen "127.0.0.1" "0"))
    (def [host port] (net/localname listener))
    (def peer (net/connect host port))
    (def client (net/accept listener))
    (def answers (ev/thread-chan 10))
"#;

fn run(program: &str) -> String {
    let mut vm = Vm::with_net(Net::Ring).unwrap();
    vm.run_string(&format!("{PRELUDE}{program}")).unwrap()
}

#[test]
fn a_connection_that_was_read_in_part_is_read_on_in_a_thread() {
    let program = r#"
        (net/write peer "head and tail, ")
        (def head (string (net/read client 5)))
        (ev/spawn-thread
          (ev/give answers (string (net/read client 100)))
          (ev/give answers (string (net/chunk client 12)))
          (:close client)
          (ev/give answers "closed"))
        (def tail (ev/take answers))
        (net/write peer "more to ")
        (net/write peer "come, and the rest")
        (def more (ev/take answers))
        (ev/take answers)
        (string head tail more (net/read client 100))
    "#;
    assert_eq!(run(program), "head and tail, more to come, and the rest");
}

#[test]
fn what_came_before_the_end_is_still_there_when_the_connection_has_been_given_away() {
    let program = r#"
        (net/write peer "hello")
        (:close peer)
        (def head (string (net/read client 1)))
        # The end has come by now, too.
        (ev/sleep 0.01)
        (ev/give answers client)
        (string head (net/read client 100) (if (net/read client 100) ", more" ", end"))
    "#;
    assert_eq!(run(program), "hello, end");
}

#[test]
fn a_connection_that_a_thread_passes_on_unused_keeps_what_had_come() {
    let program = r#"
        (def jobs (ev/thread-chan 1))
        (def passed-on (ev/thread-chan 1))
        (net/write peer "hello")
        (def head (string (net/read client 1)))
        (ev/spawn-thread
          (ev/give passed-on (ev/take jobs))
          (gccollect)
          (ev/give answers "passed on"))
        (ev/give jobs client)
        (:close client)
        (ev/take answers)
        (ev/spawn-thread
          (ev/give answers (string (net/read (ev/take passed-on) 100))))
        (string head (ev/take answers))
    "#;
    assert_eq!(run(program), "hello");
}

#[test]
fn a_waiting_reader_and_a_thread_share_what_comes() {
    let program = r#"
        (def first (ev/chan 1))
        (ev/spawn (ev/give first (string (net/read client 3))))
        (ev/sleep 0)
        (ev/spawn-thread
          (ev/give answers "started")
          (def bytes @"")
          (while (net/read client 1000 bytes))
          (ev/give answers (length bytes)))
        (ev/take answers)
        (repeat 100 (net/write peer "0123456789"))
        (:close peer)
        (+ (length (ev/take first)) (ev/take answers))
    "#;
    assert_eq!(run(program), "1000");
}

#[test]
fn connections_that_were_accepted_ahead_are_taken_in_a_thread() {
    let program = r#"
        (def clients (seq [:repeat 5] (net/connect host port)))
        (net/write (net/accept listener) "main")
        # More than one has been accepted by now.
        (ev/sleep 0.01)
        (ev/spawn-thread
          (ev/give answers "started")
          (repeat 5 (with [peer (net/accept listener)] (net/write peer "thread"))))
        (ev/take answers)
        (array/push clients (net/connect host port))
        (string/join (seq [client :in clients] (string (net/read client 100))) " ")
    "#;
    assert_eq!(run(program), "main thread thread thread thread thread");
}

#[test]
fn datagrams_that_came_ahead_are_received_in_a_thread() {
    let program = r#"
        (def server (net/listen "127.0.0.1" "0" :datagram))
        (def sender (net/connect ;(net/localname server) :datagram))
        (each word ["one" "two" "" "three"] (net/write sender word))
        (def buffer @"")
        (net/recv-from server 10 buffer)
        (ev/spawn-thread
          (repeat 4
            (def bytes @"")
            (def who (net/recv-from server 10 bytes))
            (ev/give answers [(string bytes) ((net/address-unpack who) 1)])))
        (def before (seq [:repeat 3] (ev/take answers)))
        (net/write sender "four")
        (def received [;before (ev/take answers)])
        (def port ((net/localname sender) 1))
        (string buffer " " (string/join (map first received) " ") " " (all |(= port ($ 1)) received))
    "#;
    assert_eq!(run(program), "one two  three four true");
}

#[test]
fn once_it_is_alone_a_thread_receives_ahead_again() {
    let program = r#"
        (ev/spawn-thread
          (forever
            (def [ok bytes] (protect (net/read client 4)))
            (if-not bytes (break))
            (net/write client bytes))
          (ev/give answers "ended"))
        (:close client)
        (def received @"")
        (repeat 200
          (net/write peer "ping")
          (net/chunk peer 4 received))
        (:close peer)
        (string (length received) (ev/take answers))
    "#;
    assert_eq!(run(program), "800ended");
}

#[test]
fn a_process_reads_on_where_the_program_stopped() {
    let program = r#"
        (net/write peer "for the program")
        (def head (string (net/read client 100)))
        (def process (os/spawn ["cat"] :p {:in client :out :pipe}))
        (net/write peer ", for the process")
        (:shutdown peer :w)
        (def rest (string (:read (process :out) :all)))
        (os/proc-wait process)
        (string head rest)
    "#;
    assert_eq!(run(program), "for the program, for the process");
}

#[test]
fn a_datagram_socket_answers_from_a_thread() {
    let program = r#"
        (def server (net/listen "127.0.0.1" "0" :datagram))
        (def sender (net/connect ;(net/localname server) :datagram))
        (ev/spawn-thread
          (def buffer @"")
          (ev/give answers "ready")
          (def who (net/recv-from server 100 buffer))
          (net/send-to server who (string "back " buffer)))
        (ev/take answers)
        (net/write sender "across")
        (string (net/read sender 100))
    "#;
    assert_eq!(run(program), "back across");
}

#[test]
fn accepted_connections_are_spread_over_threads() {
    let program = r#"
        (def jobs (ev/thread-chan 10))
        (repeat 2
          (ev/spawn-thread
            (while (def stream (ev/take jobs))
              (net/write stream (string "echo of " (net/read stream 100)))
              (:close stream))
            (ev/give answers "done")))
        (def name (string "@ringspun-workers-" (os/getpid)))
        (def server (net/server :unix name (fn [stream] (ev/give jobs stream) (:close stream))))
        (defn ask [n]
          (with [client (net/connect :unix name)]
            (net/write client (string n))
            (string (net/read client 100))))
        (def all-answers (map ask (range 6)))
        (:close server)
        (repeat 2 (ev/give jobs nil))
        (repeat 2 (ev/take answers))
        (string/join all-answers " ")
    "#;
    assert_eq!(run(program), "echo of 0 echo of 1 echo of 2 echo of 3 echo of 4 echo of 5");
}

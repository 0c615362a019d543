//! How VMs end, and what the collector meets while operations are parked.

use std::cell::RefCell;
use std::process::Command;

use ringspun_janet::{Net, Value, Vm};

const PROGRAM: &str = "RINGSPUN_TEST_PROGRAM";

/// Runs a Janet program in a process of its own, which it may end; returns the exit status.
fn exit_status(test: &str, program: &str) -> Option<i32> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(PROGRAM, program)
        // The VMs of other threads do not end with the process: what they have is no leak.
        .env("LSAN_OPTIONS", "detect_leaks=0")
        .output()
        .unwrap();
    println!("{}", String::from_utf8_lossy(&output.stderr));
    output.status.code()
}

/// In the process that [`exit_status`] starts: runs the program, and does not return.
fn run_if_asked() {
    if let Ok(program) = std::env::var(PROGRAM) {
        let result = Vm::with_net(Net::Ring).unwrap().run_string(&program);
        println!("the program ended: {result:?}");
        std::process::exit(1);
    }
}

/// A fiber in every kind of operation.
const PARK_EVERYWHERE: &str = r#"
    (def server (net/listen "127.0.0.1" "0"))
    (def [host port] (net/localname server))
    (def clients (seq [_ :range [0 4]] (net/connect host port)))
    (def served (seq [_ :in clients] (net/accept server)))
    (ev/spawn (net/accept server))
    (ev/spawn (net/accept-loop server (fn [stream] (:close stream))))
    (ev/spawn (net/read (clients 0) 10))
    (ev/spawn (net/read (clients 0) 10 @"" 3600))
    (ev/spawn (net/chunk (clients 1) 10))
    (ev/spawn (net/write (clients 2) (string/repeat "x" 10000000)))
    (ev/spawn (net/connect "127.0.0.1" port))
    (ev/spawn (ev/with-deadline 3600 (net/read (clients 3) 10)))
    (ev/sleep 0)
"#;

#[test]
fn a_program_can_exit_while_fibers_are_parked() {
    run_if_asked();
    let name = "a_program_can_exit_while_fibers_are_parked";
    assert_eq!(exit_status(name, &format!("{PARK_EVERYWHERE} (os/exit 7)")), Some(7));
    assert_eq!(exit_status(name, &format!("{PARK_EVERYWHERE} (ev/sleep 0.01) (os/exit 8)")), Some(8));
}

#[test]
fn a_thread_can_exit_the_program_while_fibers_are_parked() {
    run_if_asked();
    let program =
        format!("{PARK_EVERYWHERE} (ev/thread (fn [] {PARK_EVERYWHERE} (ev/sleep 0.01) (os/exit 9)))");
    assert_eq!(exit_status("a_thread_can_exit_the_program_while_fibers_are_parked", &program), Some(9));
}

#[test]
fn the_collector_runs_while_fibers_connect_and_afterwards() {
    let mut vm = Vm::with_net(Net::Ring).unwrap();
    let answer = vm
        .run_string(
            r#"
            (def server (net/listen "127.0.0.1" "0"))
            (def [host port] (net/localname server))
            (var connected 0)
            (for i 0 50
              (ev/spawn (with [stream (net/connect host port)]
                (++ connected)
                (gccollect)
                (ev/sleep 0)
                (gccollect))))
            (ev/sleep 0)
            (gccollect)
            (for i 0 50 (:close (net/accept server)) (gccollect))
            (:close server)
            # A connection is accepted before, or after, the fiber that made it hears of it.
            (while (< connected 50) (ev/sleep 0.001))
            (string connected)
            "#,
        )
        .unwrap();
    assert_eq!(answer, "50");
}

/// A connection is made while a listener is collected on which an accept is armed. If the collector
/// handled it, the fiber that serves it would be missing from the collector's list of what there is, and
/// what it holds would be freed in one of the next collections.
#[test]
fn collecting_a_listener_resumes_nobody() {
    let mut vm = Vm::with_net(Net::Ring).unwrap();
    let answer = vm
        .run_string(
            r#"
            (def server (net/listen "127.0.0.1" "0"))
            (def [host port] (net/localname server))
            (var served 0)
            (var lost 0)
            (var garbage nil)
            (ev/spawn (net/accept-loop server (fn [stream]
              # Values that only this fiber's stack holds.
              (def kept (seq [i :range [0 20]] (string "value " i)))
              (gccollect)
              (ev/sleep 0)
              (gccollect)
              (def others (seq [i :range [0 1000]] (string "other " i)))
              (for i 0 20 (if-not (= (kept i) (string "value " i)) (++ lost)))
              (++ served)
              (:close stream))))
            # In a fiber and a function of their own, so that no stack keeps the listener.
            (defn make-garbage []
              (set garbage (net/listen "127.0.0.1" "0"))
              (ev/spawn (protect (net/accept garbage 0.001)))
              nil)
            (for i 0 10
              # Made first, so that the listener is newer than whatever is alive.
              (def connecting (fiber/new (fn [] (with [stream (net/connect host port)] (net/read stream 10)))))
              (def collecting (fiber/new (fn [] (set garbage nil) (gccollect))))
              (make-garbage)
              (ev/sleep 0.005)
              (ev/go connecting)
              (ev/go collecting)
              (while (<= served i) (ev/sleep 0.001)))
            (:close server)
            (string served " served, " lost " values lost")
            "#,
        )
        .unwrap();
    assert_eq!(answer, "10 served, 0 values lost");
}

#[test]
fn many_writers_of_one_stream_end_when_it_closes() {
    let mut vm = Vm::with_net(Net::Ring).unwrap();
    let answer = vm
        .run_string(
            r#"
            (def server (net/listen "127.0.0.1" "0"))
            (def [host port] (net/localname server))
            (def stream (net/connect host port))
            (def peer (net/accept server))
            (var ended 0)
            (def data (string/repeat "x" 10000000))
            (for i 0 20000
              (ev/spawn (protect (net/write stream data)) (++ ended)))
            (ev/sleep 0.01)
            (:close stream)
            (ev/sleep 0)
            (while (< ended 20000) (ev/sleep 0.001))
            (:close peer)
            (:close server)
            (string ended)
            "#,
        )
        .unwrap();
    assert_eq!(answer, "20000");
}

#[test]
fn a_cancel_that_overtakes_a_finished_read_loses_no_byte() {
    let mut vm = Vm::with_net(Net::Ring).unwrap();
    let value = vm.run_string(include_str!("overtaken.janet")).unwrap();
    assert_eq!(value, "0 missing, overtaken: true");
}

/// Each waiter that continues wakes the next one. Thousands of such wakes must not nest, here on a small stack.
#[test]
fn thousands_of_waiters_let_one_another_go_on() {
    const STACK_BYTES: usize = 512 * 1024;
    const STREAM: &str = r#"
        (var count 2000)
        (def server (net/listen "127.0.0.1" "0"))
        (def stream (net/connect ;(net/localname server)))
        (def peer (net/accept server))
        (def ended (ev/chan count))
        (defn start [operation]
          (repeat count (ev/spawn (ev/give ended (protect (operation)))))
          (ev/sleep 0))
        (defn end []
          (def values (seq [_ :range [0 count]] (string/format "%q" (ev/take ended))))
          (:close stream) (:close peer) (:close server)
          (string/join (sort (keys (frequencies values))) " "))
        (defn block []
          (def data (string/repeat "x" 20000000))
          (ev/spawn (protect (net/write stream data)))
          (ev/sleep 0.01))
        (defn unblock []
          (ev/spawn (var missing 20000000)
            (while (> missing 0) (-= missing (length (net/read peer 1000000))))))
    "#;
    let cases = [
        // Nothing is left to write when their turn comes.
        (
            r#"(block) (def data @"x") (start |(net/write stream data)) (buffer/clear data) (unblock) (end)"#,
            "(true nil)",
        ),
        (r#"(block) (start |(net/write stream "x" 0.05)) (end)"#, r#"(false "timeout")"#),
        (
            r#"(block)
               (def fibers (seq [_ :range [0 count]]
                 (ev/spawn (ev/give ended (protect (net/write stream "x"))))))
               (ev/sleep 0)
               (each fiber fibers (ev/cancel fiber "cancelled"))
               (end)"#,
            r#"(false "cancelled")"#,
        ),
        (r#"(block) (start |(net/write stream "x")) (:close stream) (end)"#, r#"(false "stream closed")"#),
        (r#"(start |(net/read stream 1)) (net/write peer (string/repeat "x" count)) (end)"#, "(true @\"x\")"),
        (r#"(start |(net/read stream 1)) (:close peer) (end)"#, "(true nil)"),
        (
            // Fewer: each connection wakes them all.
            r#"(set count 300)
               (start |(:close (net/accept server)))
               (repeat count (:close (net/connect ;(net/localname server))))
               (end)"#,
            "(true <core/stream [fd=-1]>)",
        ),
        (r#"(start |(net/accept server)) (:close server) (end)"#, "(true nil)"),
    ];
    for (program, values) in cases {
        let run = move || Vm::with_net(Net::Ring).unwrap().run_string(&format!("{STREAM}\n{program}"));
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run).unwrap();
        assert_eq!(thread.join().unwrap().as_deref(), Ok(values), "{program}");
    }
}

/// Its destructor runs after those of what it has made for the thread.
#[test]
fn a_vm_may_be_a_variable_of_its_thread() {
    thread_local! {
        static VM: RefCell<Option<Vm>> = const { RefCell::new(None) };
    }
    let program =
        "(def s (net/listen \"127.0.0.1\" \"0\")) (ev/spawn (protect (net/accept s 0.01))) (ev/sleep 0.02) 1";
    std::thread::spawn(move || {
        VM.with_borrow(|vm| assert!(vm.is_none()));
        let mut vm = Vm::with_net(Net::Ring).unwrap();
        vm.define("nothing", "(nothing)", |_| Ok(Value::Nil)).unwrap();
        assert_eq!(vm.run_string(program).unwrap(), "1");
        VM.set(Some(vm));
    })
    .join()
    .unwrap();
}

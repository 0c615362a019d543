//! What a forked child of a Janet program does, and that its parent goes on as if there had been none.

use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ringspun_janet::{Net, Vm};

const PROGRAM: &str = "RINGSPUN_TEST_PROGRAM";
/// What children end with in all cases.
const STATUS: i32 = 3;

/// How long a program and its children may take.
const PROGRAM_MAX: Duration = Duration::from_secs(60);

/// Runs a Janet program in a process of its own, and ends it and its children if they take too long.
fn run(test: &str, program: &str) -> Output {
    let child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(PROGRAM, program)
        // A child has what its parent would have freed.
        .env("ASAN_OPTIONS", "detect_leaks=0:max_free_fill_size=4194304:free_fill_byte=222")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let group = i32::try_from(child.id()).unwrap();
    let (ended, has_ended) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        if has_ended.recv_timeout(PROGRAM_MAX) == Err(mpsc::RecvTimeoutError::Timeout) {
            // SAFETY: the group of the child, which has not been waited for.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(ended);
    watchdog.join().unwrap();
    output
}

/// In the process that [`run`] starts: runs the program, in its children too where they return, and does not return.
fn run_if_asked() {
    let Ok(program) = std::env::var(PROGRAM) else { return };
    let parent = std::process::id();
    let result = Vm::with_net(Net::Ring).unwrap().run_string(&program);
    if std::process::id() == parent {
        println!("{result:?}");
        std::process::exit(0);
    }
    std::process::exit(STATUS);
}

/// A server, a connection to it, a write that waits because the socket is full, and a fiber that sleeps.
const PARENT: &str = r#"
    (defn echo [stream]
      (defer (:close stream) (while (def bytes (:read stream 100)) (:write stream bytes))))
    (defn ask [stream question] (:write stream question 60) (string (:read stream 100 @"" 60)))
    (def server (net/server "127.0.0.1" "0" echo))
    (def client (net/connect ;(net/localname server)))
    (def name (string "@ringspun-forks-" (os/getpid)))
    (def unix-server (net/listen :unix name))
    (def full (net/connect :unix name))
    (def peer (net/accept unix-server))
    (protect (:write full (buffer/new-filled 20000000 65) 0.05))
    (def written (ev/chan 1))
    (ev/spawn (ev/give written (protect (:write full "small"))))
    (var beats 0)
    (ev/spawn (repeat 5 (ev/sleep 0.02) (++ beats)))
    (def before (ask client "before"))
    (def receiver (net/listen "127.0.0.1" "0" :datagram))
    (def sender (net/connect ;(net/localname receiver) :datagram))
    (ev/sleep 0)
    (def child (os/posix-fork))
"#;

const AFTERWARDS: &str = r#"
    (def status (os/proc-wait child))
    (def anew (with [stream (net/connect ;(net/localname server))] (ask stream "anew")))
    (def after [(ask client "after") anew])
    (:write sender "datagram")
    (def datagram (string (:read receiver 100 @"" 60)))
    (ev/spawn (forever (unless (get (protect (:read peer 1000000 nil 60)) 1) (break))))
    (def waited (ev/with-deadline 60 (ev/take written)))
    (while (< beats 5) (ev/sleep 0.01))
    (each stream [server client unix-server full peer receiver sender] (:close stream))
    (string/format "%j" [status before after datagram waited])
"#;

#[test]
fn a_parent_goes_on_whatever_its_child_does() {
    run_if_asked();
    let children = [
        "(os/exit 3)",
        "(os/exit 3 true)",
        r#"(os/posix-exec ["sh" "-c" "exit 3"] :p)"#,
        // Returns, and leaves the loop when nothing of its own is left.
        "nil",
        "(error \"of the child\")",
        "(gccollect) (os/exit 3)",
        "(each stream [client server unix-server full peer receiver] (:close stream)) (os/exit 3)",
        "(ev/sleep 0.01) (os/exit 3)",
        "(ev/spawn (os/exit 3)) (ev/sleep 5)",
        "(ev/do-thread (+ 1 2)) (os/exit 3)",
        r#"(def cat (os/spawn ["cat"] :p {:in :pipe :out :pipe}))
           (:write (cat :in) "piped")
           (:close (cat :in))
           (os/exit (length (string/slice (:read (cat :out) 10) 2)))"#,
        // Sockets of its own, in a loop of its own.
        r#"(def own (net/server "127.0.0.1" "0" echo))
           (os/exit (length (ask (net/connect ;(net/localname own)) "own")))"#,
        r#"(def own (net/listen "127.0.0.1" "0" :datagram))
           (:write (net/connect ;(net/localname own) :datagram) "own")
           (os/exit (length (:read own 100 @"" 60)))"#,
        // A connection that it has inherited: one process at a time may talk there.
        r#"(os/exit (length (ask client "own")))"#,
        // A connection of its own to its parent.
        r#"(os/exit (length (ask (net/connect ;(net/localname server)) "own")))"#,
        // A child of its own, which does the same.
        r#"(def grandchild (os/posix-fork))
           (def own (net/server "127.0.0.1" "0" echo))
           (def answer (ask (net/connect ;(net/localname own)) "own"))
           (when grandchild (os/proc-wait grandchild))
           (os/exit (length answer))"#,
    ];
    for child in children {
        let program = format!("{PARENT} (if child (do {AFTERWARDS}) (do {child}))");
        let output = run("a_parent_goes_on_whatever_its_child_does", &program);
        let expected = r#"(3 \"before\" (\"after\" \"anew\") \"datagram\" (true nil))"#;
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(printed.contains(&format!("Ok(\"{expected}\")")), "{child}: {output:?}");
    }
}

#[test]
fn a_parent_goes_on_when_its_child_crashes() {
    run_if_asked();
    let abort = r#"(ffi/call (ffi/lookup (ffi/native) "abort") (ffi/signature :default :void))"#;
    let program = format!("{PARENT} (if child (do {AFTERWARDS}) (do {abort}))");
    let output = run("a_parent_goes_on_when_its_child_crashes", &program);
    let printed = String::from_utf8_lossy(&output.stdout);
    let expected = r#"\"before\" (\"after\" \"anew\") \"datagram\" (true nil))"#;
    assert!(printed.contains(expected), "{output:?}");
}

//! Dumps of all runtimes of a process: a program of its own, as they ask those of other tests, too.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::kill;
use nix::unistd::Pid;
use ringspun_fibers::{
    self as fibers, Channel, FiberBuilder, FiberReport, SharedChannel, Signal, Signals, WorkersBuilder,
};

#[test]
fn all_runtimes_of_the_process_are_told_and_those_that_do_not_answer() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let workers = WorkersBuilder::new().count(2).start().unwrap();
    let taken = SharedChannel::<u8>::bounded(1);
    let given = taken.clone();
    let mut each = workers.iter();
    each.next()
        .unwrap()
        .spawn(move || fibers::spawn(move || taken.take()).map(drop))
        .unwrap()
        .join()
        .unwrap()
        .unwrap();
    // It blocks the thread, which is what this is for.
    let busy = each.next().unwrap().spawn(move || released.recv().is_err()).unwrap();
    // However long it takes until the one that waits gets the time to answer.
    let dump = loop {
        let dump = fibers::dump_process(Duration::from_secs(1));
        if dump.dumps().iter().any(|dump| dump.thread() == "worker 0") {
            break dump;
        }
    };
    let text = dump.to_string();
    assert!(dump.silent_threads().contains(&"worker 1".to_string()), "{text}");
    let first = dump.dumps().iter().find(|dump| dump.thread() == "worker 0").unwrap();
    let mut reasons = first.fibers().iter().filter_map(FiberReport::reason);
    assert!(reasons.any(|reason| reason.to_string().starts_with("take from SharedChannel<u8>")), "{text}");
    drop(release);
    assert!(busy.join().unwrap());
    given.close();
    workers.join().unwrap();
}

#[test]
fn a_signal_has_the_dump_printed() {
    const VARIABLE: &str = "RINGSPUN_TEST_DUMP_CHILD";
    if std::env::var_os(VARIABLE).is_some() {
        fibers::run(|| {
            let _dumps = fibers::dump_on_signals(Signals::new(&[Signal::QUIT]).unwrap()).unwrap();
            FiberBuilder::new().name("client").spawn(|| Channel::<u64>::bounded(1).take()).unwrap();
            println!("waits");
            fibers::sleep(Duration::MAX)
        })
        .unwrap()
        .unwrap();
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_signal_has_the_dump_printed", "--nocapture"])
        .env(VARIABLE, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    assert!(output.lines().any(|line| line.unwrap().contains("waits")));
    let errors = BufReader::new(child.stderr.take().unwrap());
    let mut lines = errors.lines().map(Result::unwrap);
    // Twice: the process goes on.
    for _ in 0..2 {
        kill(Pid::from_raw(child.id().try_into().unwrap()), Some(nix::sys::signal::SIGQUIT)).unwrap();
        assert!(lines.any(|line| line.contains("'client' waits for: take from Channel<u64> at 0x")));
        assert!(lines.any(|line| line.contains("a_signal_has_the_dump_printed")));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

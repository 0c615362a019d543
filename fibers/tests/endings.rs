//! A runtime ends whatever its fibers catch, drop or repeat, and names the fibers that it had to stop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringspun_fibers::{self as fibers, Channel, FiberBuilder, FiberEventKind};

/// Set in the process of its own that each of these tests makes: what is leaked stays out of the others, panics print
/// nothing there that somebody reads, and a runtime that never ends can be killed.
const ROLE: &str = "RINGSPUN_TEST_ROLE";
/// Far more than any of them takes on a machine that does other things, too.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `scene` in a runtime that ends at once; the name of each fiber in it that had to be stopped.
fn stopped_in(test: &str, scene: fn()) -> Option<Vec<String>> {
    if std::env::var_os(ROLE).is_some() {
        let ended = fibers::run(move || {
            scene();
            fibers::yield_now().unwrap();
            "the result of main"
        });
        assert_eq!(ended.unwrap(), "the result of main");
        println!("the runtime has ended");
        return None;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, "scene")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(child.id() as i32);
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait_with_output()));
    let Ok(output) = end.recv_timeout(PATIENCE) else {
        kill(pid, Signal::SIGKILL).unwrap();
        panic!("the runtime does not end");
    };
    let output = output.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("the runtime has ended"), "{out}{err}");
    let stopped = err.lines().filter(|line| line.contains("had to be stopped"));
    Some(stopped.map(|line| line.split('\'').nth(1).unwrap_or("nameless").to_string()).collect())
}

fn named(name: &str, function: impl FnOnce() + 'static) {
    FiberBuilder::new().name(name).spawn(function).unwrap();
}

/// Calls `call` without end, and catches whatever comes.
fn forever(mut call: impl FnMut()) {
    loop {
        // The hook's messages are for nobody.
        let _ = catch_unwind(AssertUnwindSafe(&mut call));
    }
}

const AGES: Duration = Duration::from_secs(3600);

#[test]
fn a_fiber_that_catches_every_panic_is_stopped_and_named() {
    let stopped = stopped_in("a_fiber_that_catches_every_panic_is_stopped_and_named", || {
        named("unwraps", || forever(|| fibers::sleep(AGES).unwrap()));
        named("ignores", || forever(|| while fibers::sleep(AGES).is_err() {}));
        named("checks", || forever(|| while fibers::check().is_ok() && fibers::yield_now().is_ok() {}));
        named("polite", || _ = fibers::sleep(AGES));
        named("unwound", || while fibers::sleep(AGES).is_err() {});
    });
    if let Some(mut stopped) = stopped {
        stopped.sort_unstable();
        assert_eq!(stopped, ["checks", "ignores", "unwraps"]);
    }
}

#[test]
fn a_fiber_that_repeats_what_fails_without_waiting_is_stopped() {
    let stopped = stopped_in("a_fiber_that_repeats_what_fails_without_waiting_is_stopped", || {
        // They are all open until the runtime ends.
        struct CloseAtEnd(Channel<u32>);
        impl Drop for CloseAtEnd {
            fn drop(&mut self) {
                self.0.close();
            }
        }
        let channel = Channel::bounded(0);
        let closes = CloseAtEnd(channel.clone());
        named("closes", move || {
            let _closes = closes;
            let _ = fibers::sleep(AGES);
        });
        let (takes, gives, selects) = (channel.clone(), channel.clone(), channel);
        named("takes", move || forever(|| _ = takes.take()));
        named("gives", move || forever(|| _ = gives.give(1)));
        named("selects", move || {
            forever(|| _ = fibers::Select::new().take(&selects, |taken| taken.is_ok()).wait());
        });
        named("joins", || {
            let ended = fibers::spawn(|| ()).unwrap();
            let _ = fibers::yield_now().and_then(|()| fibers::sleep(AGES));
            forever(|| _ = ended.join());
        });
        named("blocks", || forever(|| _ = fibers::blocking(|| ())));
        named("deadlines", || {
            let _ = fibers::sleep(AGES);
            forever(|| _ = fibers::with_deadline(Duration::ZERO, || fibers::sleep(AGES)));
        });
    });
    if let Some(mut stopped) = stopped {
        stopped.sort_unstable();
        assert_eq!(stopped, ["blocks", "deadlines", "gives", "joins", "selects", "takes"]);
    }
}

/// Waits in its destructor until that succeeds, which it never does while the runtime ends.
struct WaitsInDrop;
impl Drop for WaitsInDrop {
    fn drop(&mut self) {
        while fibers::sleep(AGES).is_err() {}
    }
}

#[test]
fn a_destructor_that_waits_is_unwound_and_one_that_waits_while_unwinding_is_stopped() {
    const TEST: &str = "a_destructor_that_waits_is_unwound_and_one_that_waits_while_unwinding_is_stopped";
    let stopped = stopped_in(TEST, || {
        named("drops", || {
            let _waits = WaitsInDrop;
            let _ = fibers::sleep(AGES);
        });
        named("panics and drops", || {
            let _waits = WaitsInDrop;
            fibers::sleep(AGES).unwrap();
        });
    });
    if std::env::var_os(ROLE).is_some() {
        // The thread counts as panicking from then on, so that nothing could wait in a further runtime.
        let error = fibers::run(|| ()).unwrap_err();
        assert!(error.to_string().contains("start this runtime on another thread"), "{error}");
        let elsewhere = std::thread::spawn(|| fibers::run(|| fibers::sleep(Duration::from_millis(1))));
        assert_eq!(elsewhere.join().unwrap().unwrap(), Ok(()));
    }
    if let Some(stopped) = stopped {
        assert_eq!(stopped, ["panics and drops"]);
    }
}

#[test]
fn fibers_that_start_their_successors_come_to_an_end() {
    struct Successor;
    impl Drop for Successor {
        fn drop(&mut self) {
            let _ = fibers::spawn(|| drop((fibers::sleep(AGES), Successor)));
        }
    }
    let stopped = stopped_in("fibers_that_start_their_successors_come_to_an_end", || drop(Successor));
    assert!(stopped.is_none_or(|stopped| stopped.is_empty()));
}

#[test]
fn fibers_that_first_run_while_the_runtime_ends_may_start_others() {
    let channel = fibers::run(|| {
        let channel = Channel::unbounded();
        let ran = channel.clone();
        fibers::spawn(move || drop(fibers::spawn(move || ran.give(7).unwrap()).unwrap())).unwrap();
        channel
    });
    assert_eq!(channel.unwrap().len(), 1);
}

#[test]
fn a_supervisor_is_told_of_a_fiber_that_was_stopped() {
    if std::env::var_os(ROLE).is_none() {
        let stopped = stopped_in("a_supervisor_is_told_of_a_fiber_that_was_stopped", || ());
        return assert_eq!(stopped.unwrap(), ["stubborn"]);
    }
    let events = fibers::run(|| {
        let events = Channel::unbounded();
        let builder = FiberBuilder::new().name("stubborn").supervisor(&events);
        builder.spawn(|| forever(|| while fibers::sleep(AGES).is_err() {})).unwrap();
        fibers::yield_now().unwrap();
        events
    });
    let event = fibers::run(move || events.unwrap().take().unwrap()).unwrap();
    assert_eq!(event.name.as_deref(), Some("stubborn"));
    assert!(matches!(event.what, FiberEventKind::Stopped), "{event:?}");
    println!("the runtime has ended");
}

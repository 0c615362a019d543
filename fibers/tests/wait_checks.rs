//! The check for waits inside of what belongs to the thread, in debug builds.
#![cfg(debug_assertions)]

use std::cell::RefCell;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::LazyLock;

use ringspun_fibers as fibers;

/// Waits for a fiber that has not run yet; a sleep might be over before it begins.
fn waits() -> u32 {
    fibers::spawn(|| 7).unwrap().join().unwrap()
}

static WAITS_AT_FIRST: LazyLock<u32> = LazyLock::new(waits);

thread_local! {
    static KEY: RefCell<u32> = const { RefCell::new(1) };
}

#[test]
fn waits_inside_of_what_belongs_to_the_thread_are_named() {
    const CHILD: &str = "RINGSPUN_TEST_WAITS";
    const TEST: &str = "waits_inside_of_what_belongs_to_the_thread_are_named";
    if std::env::var_os(CHILD).is_some() {
        fibers::run(|| {
            assert_eq!(*WAITS_AT_FIRST, 7);
            for _ in 0..3 {
                KEY.with(|_| waits());
            }
            waits();
        })
        .unwrap();
        return;
    }
    let run = |value: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([TEST, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, "1");
        let output = command.env("RINGSPUN_CHECK_WAITS", value).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(run("0"), "");
    let text = run("1");
    let reports: Vec<_> = text.lines().filter(|line| line.starts_with("ringspun: ")).collect();
    assert_eq!(reports.len(), 2, "each once, and only these: {text}");
    assert!(
        reports[0].starts_with("ringspun: fiber 0 'main' waits in the initialisation of a `LazyLock`"),
        "{text}"
    );
    assert!(reports[1].contains("`LocalKey::with`"), "{text}");
    assert!(text.contains("wait_checks.rs"), "the place: {text}");
}

scoped_tls::scoped_thread_local!(static SCOPED: u32);

#[test]
fn a_wait_in_a_scope_of_a_thread_local_reference_is_named_or_ends_the_process() {
    const CHILD: &str = "RINGSPUN_TEST_SCOPED";
    const TEST: &str = "a_wait_in_a_scope_of_a_thread_local_reference_is_named_or_ends_the_process";
    if std::env::var_os(CHILD).is_some() {
        // One fiber alone, so that its scopes end in order.
        fibers::run(|| {
            SCOPED.set(&1, || assert!(SCOPED.is_set()));
            waits();
            eprintln!("before");
            SCOPED.set(&1, waits);
            eprintln!("after");
        })
        .unwrap();
        return;
    }
    let run = |value: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([TEST, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, "1");
        let output = command.env("RINGSPUN_CHECK_WAITS", value).output().unwrap();
        (output.status, String::from_utf8(output.stderr).unwrap())
    };
    let report = "waits in a scope of a thread-local reference, which is undefined behaviour";
    let (status, text) = run("1");
    assert!(status.success() && text.contains(report) && text.contains("after"), "{text}");
    let (status, text) = run("abort");
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{text}");
    assert!(text.contains("before") && text.contains(report) && !text.contains("after"), "{text}");
}

//! Code of an embedder that the VM calls, and panics in it.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use ringspun_janet::{Environment, Line, LineEditor, Net, Vm};

const CHILD: &str = "RINGSPUN_TEST_CHILD";

/// A terminal, and what reads and writes at its other end.
fn terminal() -> (File, OwnedFd) {
    let (mut outer, mut inner) = (-1, -1);
    let null = std::ptr::null_mut();
    // SAFETY: fills in two numbers; name and settings are not asked for.
    let made = unsafe { libc::openpty(&mut outer, &mut inner, null, null.cast(), null.cast()) };
    assert_eq!(made, 0, "{}", io::Error::last_os_error());
    // SAFETY: both are new, and nobody else has them.
    unsafe { (File::from_raw_fd(outer), OwnedFd::from_raw_fd(inner)) }
}

/// Panics in ways that differ, then edits.
struct Clumsy(AtomicUsize);

/// Panics when it is dropped, as the payload of a panic.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

impl LineEditor for Clumsy {
    fn edit(&mut self, prompt: &str, _: Option<&Environment<'_>>) -> io::Result<Line> {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => panic!("oops"),
            1 => panic!("at {prompt:?}"),
            2 => std::panic::panic_any(Bomb),
            _ => Ok(Line::Text(format!("after {prompt}"))),
        }
    }
}

const PROGRAM: &str = r#"
    (defn ask [] (try (string (getline "> ")) ([error] error)))
    (def asked [(ask) (ask) (ask) (ask)])
    (def server (net/server "127.0.0.1" "0" (fn [stream] (net/write stream "hi") (:close stream))))
    (def answer (with [stream (net/connect ;(net/localname server))] (net/read stream 10)))
    (:close server)
    (ev/sleep 0.001)
    (string/format "%j %s" asked answer)
"#;

#[test]
fn a_panic_in_a_line_editor_is_an_error_in_janet() {
    if std::env::var_os(CHILD).is_some() {
        let mut vm = Vm::with_net(Net::Ring).unwrap();
        vm.set_line_editor(Clumsy(AtomicUsize::new(0)));
        println!("answered: {:?}", vm.run_string(PROGRAM));
        drop(vm);
        println!("ended: {:?}", Vm::with_net(Net::Ring).unwrap().run_string("(+ 1 2)"));
        return;
    }
    let (_outer, inner) = terminal();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["a_panic_in_a_line_editor_is_an_error_in_janet", "--exact", "--nocapture"])
        .env(CHILD, "1")
        .env("TERM", "xterm")
        .stdin(Stdio::from(inner))
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let asked = concat!(
        r#"(\"panicked: oops\" \"panicked: at \\\"> \\\"\" "#,
        r#"\"panicked: non-string panic payload\" \"after > \\n\")"#,
    );
    assert!(printed.contains(&format!("answered: Ok(\"{asked} hi\")")), "{output:?}");
    assert!(printed.contains("ended: Ok(\"3\")"), "{output:?}");
}

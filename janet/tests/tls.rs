//! TLS in Janet programs: the module `ringspun/tls`, and libraries that take a stream and do not know of it.

use ringspun_janet::Vm;

/// Runs a program, and returns its `result`.
fn run(program: &str) -> String {
    let mut vm = Vm::new().unwrap();
    let path = format!("{}/tests/tls/{program}", env!("CARGO_MANIFEST_DIR"));
    let source = format!("(get-in (dofile {path:?}) ['result :value])");
    vm.run_string(&source).unwrap_or_else(|error| panic!("{program}: {error}"))
}

#[test]
fn programs_use_tls_as_they_use_sockets() {
    let output = run("program.janet");
    let parts = [
        "echo",
        "prints as a stream",
        "names",
        "info",
        "both directions at once",
        "ev/read",
        "timeout",
        "deadline",
        "nothing is lost",
        "nor by a cancel",
        "close",
        "half-close",
        "closed",
        "not trusted",
        "another name",
        "another protocol",
        "insecure",
        "unknown option",
        "no file",
        "no key",
        "another key",
        "no configuration",
        "by name",
        "with a certificate",
        "without one",
        "renewed",
        "wrap",
        "inside",
        "wrapped twice",
        "full",
        "resumed",
        "a thousand connections",
        "threads",
        "a session stays in its thread",
        "and goes on there",
    ];
    assert_eq!(output.lines().collect::<Vec<_>>(), parts);
}

#[test]
fn http_in_pure_janet_is_the_same_over_tls() {
    assert_eq!(run("https.janet"), "equal");
}

//! Janet code in the style of libraries, with modules, PEGs, channels and many fibers: each prints a
//! transcript of what it does, which has to be the same on the ring and on the VM's own net code.
//!
//! The libraries are in `tests/janet/libraries/`, each with a driver that exercises it.

use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Far longer than a driver takes; only a hang comes to it.
const HANG: Duration = Duration::from_secs(60);

/// What a driver prints, when it succeeds.
fn transcript(driver: &str, net: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringspun"));
    command.arg("janet").arg(format!("{}/tests/janet/libraries/{driver}", env!("CARGO_MANIFEST_DIR")));
    command.env("RINGSPUN_NET", net).env_remove("JANET_PATH").stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let readers = [collect(child.stdout.take().unwrap()), collect(child.stderr.take().unwrap())];
    let start = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status.to_string(),
            None if start.elapsed() > HANG => {
                child.kill().unwrap();
                break format!("killed, then {}", child.wait().unwrap());
            }
            None => thread::sleep(Duration::from_millis(2)),
        }
    };
    let [output, errors] = readers.map(|reader| reader.join().unwrap());
    assert_eq!((status.as_str(), errors.as_str()), ("exit status: 0", ""), "{driver} on {net}:\n{output}");
    output
}

fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    })
}

/// Compares a driver's two transcripts, and looks for lines that have to be there, in this order.
fn compare(driver: &str, expected: &[&str]) {
    let ring = transcript(driver, "ring");
    let stock = transcript(driver, "stock");
    if ring != stock {
        let differing = ring.lines().zip(stock.lines()).find(|(ring, stock)| ring != stock);
        panic!("{driver}: the first lines that differ: {differing:?}\n--- ring\n{ring}\n--- stock\n{stock}");
    }
    let mut lines = ring.lines();
    for line in expected {
        assert!(
            lines.any(|printed| printed == *line),
            "{driver}: {line:?} is not there, or not in order:\n{ring}"
        );
    }
}

#[test]
fn http_with_keep_alive_pipelining_and_chunks() {
    let expected = [
        r#"second: 200 OK "POST /echo \"a body\"""#,
        r#"chunked answer: 200 OK "line 0\nline 1\nline 2\nline 3\nline 4\n""#,
        r#"large: 300000 bytes, "56789""#,
        r#"pipelined 9: 200 OK "POST /echo \"pipelined 9\"""#,
        "after the last: no answer",
        "two at once: 2 answers, and the end",
        "forty clients: @{true 40}",
        "afterwards: Connection refused",
    ];
    compare("http_driver.janet", &expected);
}

#[test]
fn calls_that_share_a_stream() {
    let expected = [
        "add: gives 6.5",
        r#"fail: raises "for a reason""#,
        r#"meanwhile: gives "QUICK""#,
        "waiting: 0",
        r#"then: (:slow "slow snail")"#,
        "a hundred calls: @{true 100}",
        r#"a server that leaves: raises "the connection has ended""#,
        "the others: gives 42",
    ];
    compare("rpc_driver.janet", &expected);
}

#[test]
fn a_repl_with_an_environment_for_each_client() {
    let expected = [
        "ann> (double x)",
        "  :value 20",
        "  :value @[2 4 6]",
        "bob> x",
        "  :error compile error: unknown symbol x",
        "  :output and more|",
        r#"  :value "inner""#,
        "long: 200002 bytes",
        "thirty guests: @{true 30}",
    ];
    compare("repl_driver.janet", &expected);
}

#[test]
fn a_broker_with_a_slow_subscriber() {
    let expected = [
        "eve: PUBLISH news first news -> OK published to 2",
        r#"bob hears ("sport.chess.open" "only below")"#,
        "bob hears @[0 1 2 3 4 5 6 7 8 9]",
        "eve: PUBLISH news after the rude -> OK published to 0",
        "the slow one is cut off: true",
        "ann has heard everything: true",
        r#"half the crowd hears @{"hello, half" 20}"#,
        r#"ann hears ("sport.chess" "the last move")"#,
    ];
    compare("broker_driver.janet", &expected);
}

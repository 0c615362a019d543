//! The inputs of tests/fuzz/corpus hold, without a fuzzer: among them is each that has ever broken something.
//! Those of the simulated loop are in net/tests/fuzz_corpus.rs, which is built apart: nothing else here is to be built
//! with a simulation.

use std::process::Command;

#[path = "../fuzz/src/address.rs"]
mod address;
#[path = "../fuzz/src/allocation.rs"]
mod allocation;
#[path = "../fuzz/src/corpus.rs"]
mod corpus;
#[path = "../fuzz/src/hdr.rs"]
mod hdr;
#[path = "../fuzz/src/http.rs"]
mod http;
#[path = "../fuzz/src/options.rs"]
mod options;
#[path = "../fuzz/src/tls.rs"]
mod tls;

#[test]
fn addresses_read_back_as_they_are_shown() {
    corpus::check("address", address::check);
}

#[test]
fn logs_are_read_and_written() {
    corpus::check("hdr", hdr::check);
}

#[test]
fn answers_are_the_same_in_all_pieces() {
    corpus::check("http", http::check);
}

#[test]
fn command_lines_make_plans_or_errors() {
    corpus::check("options", options::check);
}

#[test]
fn bytes_of_a_peer_do_not_pass_for_tls() {
    corpus::check("tls", tls::check);
}

#[test]
fn calls_on_the_simulated_loop_leave_nothing_behind() {
    let run = |network: &[&str]| {
        Command::new(env!("CARGO"))
            .args([
                "test",
                "--locked",
                "-p",
                "ringspun-net",
                "--features",
                "simulation",
                "--test",
                "fuzz_corpus",
            ])
            .args(network)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("CARGO_TARGET_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/simulation"))
            .output()
            .unwrap()
    };
    let mut output = run(&["--offline"]);
    if !output.status.success() {
        output = run(&[]);
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

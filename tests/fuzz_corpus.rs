//! The inputs of tests/fuzz/corpus hold, without a fuzzer: among them is each that has ever broken something.
//! Those of the simulated loop are in net/tests/fuzz_corpus.rs.

#[path = "fuzz/src/address.rs"]
mod address;
#[path = "fuzz/src/allocation.rs"]
mod allocation;
#[path = "fuzz/src/corpus.rs"]
mod corpus;
#[path = "fuzz/src/hdr.rs"]
mod hdr;
#[path = "fuzz/src/http.rs"]
mod http;
#[path = "fuzz/src/options.rs"]
mod options;

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

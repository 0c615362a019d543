//! Runs the inputs of tests/fuzz/corpus/calls without a fuzzer: calls on the simulated loop.

#[path = "../../tests/fuzz/src/calls.rs"]
mod calls;
#[path = "../../tests/fuzz/src/corpus.rs"]
mod corpus;

#[test]
fn calls_in_any_order_leave_nothing_behind() {
    corpus::check("calls", calls::check);
}

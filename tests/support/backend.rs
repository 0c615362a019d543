//! Which backend is to serve in the environment that the tests were started in.

/// The error with which io_uring is refused here, if `without-io-uring` started the tests.
pub fn refusal() -> Option<String> {
    std::env::var("WITHOUT_IO_URING").ok()
}

/// The name of the backend.
pub fn expected() -> &'static str {
    let asked_for = std::env::var("RINGSPUN_BACKEND").is_ok_and(|backend| backend == "poll");
    if asked_for || refusal().is_some() { "poll" } else { "io_uring" }
}

/// The values of `RINGSPUN_BACKEND` that work here.
pub fn usable() -> &'static [&'static str] {
    if refusal().is_some() { &["poll"] } else { &["uring", "poll"] }
}

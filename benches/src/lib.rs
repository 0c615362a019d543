//! Benchmarks of Ringspun's inner parts: `cargo bench --manifest-path benches/Cargo.toml`. The peers that it is
//! compared with are programs in `bin/`, so that their crates never enter its own build.

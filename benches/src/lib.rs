//! Benchmarks of Ringspun's inner parts: `cargo bench --manifest-path benches/Cargo.toml`.

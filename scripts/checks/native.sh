# Native modules in a release build, which is optimised across all crates and stripped of what nothing refers to.
#
#     ./scripts/check native
#
# Runs the tests of native modules (tests/janet/native.rs) with the release build of `ringspun`: that it exports the VM's
# C API and nothing else, and that C code on its sockets does the same as on the VM's own. `cargo test` looks at the
# debug build. Takes a minute besides the build.
#
# Needs a C compiler; installs nothing.

expect_no_arguments "$@"
require_cargo
require cc "sudo apt-get install gcc libc6-dev   (or your system's package manager)"

cargo build --release --bin ringspun
binary=$(realpath "${CARGO_TARGET_DIR:-target}/release/ringspun")
RINGSPUN_TEST_BINARY=$binary cargo test --test janet native:: -- --show-output

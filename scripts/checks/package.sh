# That the packages of all crates hold what they need: each is built from its own package, as a registry would hand it out.
#
#     ./scripts/check package [ARGUMENTS OF cargo package]
#
# Nothing is downloaded that is not here already, nor published. Packages what is in the folder, committed or not. Takes some minutes. What belongs in
# the packages is in tests/library/packages.rs. Needs cargo 1.90 or later, which packages crates that depend on each other.

ensure_build_tools
minor=$(cargo --version | sed 's/^cargo 1\.\([0-9]*\).*/\1/')
[ "$minor" -ge 90 ] || { echo "SKIPPED: cargo 1.$minor does not package crates that depend on each other; 1.90 does"; exit 0; }
cargo package --workspace --offline --allow-dirty --quiet "$@"
echo "all packages build"

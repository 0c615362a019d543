# That the library crates type-check for macOS, FreeBSD, NetBSD and illumos, and refuse Windows clearly.
#
#     ./scripts/check portable [TARGET...]
#
# TARGET is one of rustc's; those five by default. A warning is an error. Builds nothing that runs: it finds calls, constants
# and types that a system does not have.
#
# The standard library of a target is type-checked from its sources first, which takes some 40 seconds once, in
# target/portable. The sources have to belong to the compiler. Either of these brings both:
#
#     sudo apt-get install rustc-web cargo-web rust-web-src   (Debian)
#     rustup component add rust-src                           (any system with rustup)
#
# Without them everything is SKIPPED, with exit status 0.

targets=(aarch64-apple-darwin x86_64-unknown-freebsd x86_64-unknown-netbsd x86_64-unknown-illumos x86_64-pc-windows-msvc)
case "${1:-}" in
"") ;;
-*) refuse "$1: expected targets, such as ${targets[1]}" ;;
*) targets=("$@") ;;
esac

# The first compiler that has the sources of its standard library, with the cargo next to it.
find_toolchain() {
    local rustc
    for rustc in "$(command -v rustc || true)" /usr/bin/rustc; do
        [ -x "$rustc" ] && [ -x "${rustc%rustc}cargo" ] || continue
        [ -e "$("$rustc" --print sysroot)/lib/rustlib/src/rust/library/std/Cargo.toml" ] || continue
        export RUSTC=$rustc
        cargo=${rustc%rustc}cargo
        return 0
    done
    return 1
}
if ! find_toolchain; then
    echo "SKIPPED: no Rust here has the sources of its standard library; ./scripts/check portable --help names the packages"
    exit 0
fi

# Checking a standard library is unstable in cargo; this lets a stable one do it, for these checks only.
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/portable"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
check() { # TARGET
    "$cargo" check -Zbuild-std --target "$1" -p ringspun-runtime -p ringspun-fibers -p ringspun-net >"$log" 2>&1
}
failed=0
fail() { cat "$log"; echo "FAILED  $1: $2"; failed=1; }

for target in "${targets[@]}"; do
    status=0
    check "$target" || status=$?
    case "$target" in
    *-windows-*)
        errors=$(grep -c '^error: Ringspun is for Unix' "$log" || true)
        others=$(grep '^error' "$log" | grep -vc -e '^error: Ringspun is for Unix' -e '^error: could not compile' || true)
        if [ "$errors" -eq 1 ] && [ "$others" -eq 0 ]; then echo "refused $target: it names the systems that are supported"
        else fail "$target" "expected one error, which names the systems that are supported"; fi ;;
    *)
        if [ "$status" -ne 0 ]; then fail "$target" "it does not compile"
        elif grep -q '^warning' "$log"; then fail "$target" "it compiles with warnings"
        else echo "checked $target"; fi ;;
    esac
done
exit "$failed"

# Licences, sources and versions of all dependencies, and known vulnerabilities.
#
#     ./scripts/check dependencies
#
# cargo-deny checks them against deny.toml. Known vulnerabilities come from a database that `cargo deny fetch db` downloads
# (github.com/RustSec/advisory-db); without it, that part is SKIPPED. docs/dependencies.md says why each dependency is
# there; a direct dependency without a line in it is an error.
#
# Needs cargo-deny:  cargo install --locked cargo-deny   (about five minutes; without it, only the lines are checked)

expect_no_arguments "$@"
require_cargo
failed=0

# Direct dependencies, of builds and tests, that the document does not have.
direct=$(cargo tree --workspace --all-features --target all --edges normal,build,dev --depth 1 --no-dedupe \
    --prefix none --format '{p}' | sed -n 's/ v[0-9].*//p' | sort -u | grep -v '^ringspun')
for name in $direct; do
    grep -q "^| \`$name\`" docs/dependencies.md || { say "FAILED: docs/dependencies.md has no line for $name"; failed=1; }
done

if ! cargo deny --version >/dev/null 2>&1; then
    echo "SKIPPED: cargo-deny is not here; install it with:  cargo install --locked cargo-deny"
    exit "$failed"
fi
cargo deny --offline check licenses bans sources || failed=1
if compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/*" >/dev/null; then
    cargo deny --offline check advisories || failed=1
else
    echo "SKIPPED advisories: there is no database here; download it with:  cargo deny fetch db"
fi
exit "$failed"

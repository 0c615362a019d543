# That the Debian package installs, runs and goes away, in a root of its own.
#
#     ./scripts/check deb [--binary FILE]
#
# Builds the package as ./scripts/deb does, of the release binary or of FILE. dpkg installs it in an empty folder, from where the command
# runs; after its removal, no file is left. Needs dpkg and dpkg-dev;
# SKIPPED where these are missing.

options=()
case "${1:-}" in
"") ;;
--binary) [ -n "${2:-}" ] || refuse "--binary: expected a file"; options=(--binary "$(cd "$caller" && realpath -e "$2")") ;;
*) refuse "$1: unknown option" ;;
esac
for program in dpkg dpkg-deb dpkg-shlibdeps; do
    command -v "$program" >/dev/null || { echo "SKIPPED: $program is not here"; exit 0; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
package=$(./scripts/deb "${options[@]}" "$work")
root=$work/root
mkdir -p "$root"/var/lib/dpkg/{info,updates,triggers}
touch "$root"/var/lib/dpkg/{status,available}
in_root() { dpkg --root="$root" --force-not-root --force-depends --force-script-chrootless --log=/dev/null "$@"; }
in_root --install "$package" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }

"$root/usr/bin/ringspun" doctor >/dev/null || { say "FAILED: doctor"; exit 1; }
answer=$("$root/usr/bin/ringspun" janet -e '(print (+ 40 2))')
[ "$answer" = 42 ] || { say "FAILED: janet -e printed $answer"; exit 1; }
gzip -dc "$root/usr/share/man/man1/ringspun-serve-echo.1.gz" | grep tcp >/dev/null || { say "FAILED: no manual page"; exit 1; }
bash -n "$root/usr/share/bash-completion/completions/ringspun"
documents=$root/usr/share/doc/ringspun
grep -o '](\(docs/\)\?[^):#]*\.md' "$documents/README.md" | sed 's/^](//' | sort -u | while read -r document; do
    [ -e "$documents/$document" ] || { say "FAILED: README.md leads to $document, which is not there"; exit 1; }
done
(cd "$root" && md5sum --quiet --check var/lib/dpkg/info/ringspun.md5sums)

in_root --purge ringspun >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
left=$(find "$root" -path "$root/var/lib/dpkg" -prune -o -type f -print | head -5)
[ -z "$left" ] || { say "FAILED: left after its removal: $left"; exit 1; }
echo "$(basename "$package") installs, runs, and leaves nothing"

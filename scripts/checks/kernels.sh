# The tests of runtime, fibers and net on Linux 6.1 and 6.12, emulated, on both backends.
#
#     ./scripts/check kernels [--markdown] [KERNEL...]
#
#     KERNEL         a series of Debian's cloud kernels, of which the newest is taken, or the path of a kernel (bzImage);
#                    6.1 and 6.12 by default
#     --markdown     prints the table for docs/reliability.md
#
# Boots each kernel in qemu, without installing it, with the tests in an initramfs. There, each test binary runs on
# io_uring and on poll. Ends with a table of what passed, failed and was skipped, and why.
#
# Needs qemu-system-x86, busybox-static and, to download a series, apt-get; installs nothing:
#
#     sudo apt-get install qemu-system-x86 busybox-static
#
# Emulation is slow: five to ten minutes per kernel. RINGSPUN_STORM is the number of cancellations that the storms have to
# hit (2,000 by default here), RINGSPUN_CHILDREN how many are forked per backend (50 by default here; one takes 0.1 s),
# RINGSPUN_DATAGRAMS how many are sent a few at a time (10,000 by default here, and as many at full speed).
# KERNEL_MATRIX_ONLY is an extended regular expression that selects test binaries by CRATE/NAME. Kernels and logs are kept
# in target/kernel-matrix.

memory_mib=4096
suite_timeout_s=900
kernel_timeout_s=5400

markdown=
kernels=()
for argument; do
    case "$argument" in
    --markdown) markdown=yes ;;
    -*) refuse "$argument: expected --markdown or kernels, such as 6.1" ;;
    *) if [[ "$argument" = */* ]]; then argument=$(cd "$caller" && realpath -m "$argument"); fi; kernels+=("$argument") ;;
    esac
done
[ ${#kernels[@]} -gt 0 ] || kernels=(6.1 6.12)
if [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "SKIPPED: the kernels are for x86_64, and this is $(uname -sm)"
    exit 0
fi
require qemu-system-x86_64 "sudo apt-get install qemu-system-x86 busybox-static"
require busybox "sudo apt-get install busybox-static"
if ldd "$(command -v busybox)" >/dev/null 2>&1; then
    say "busybox needs libraries. Install it with:  sudo apt-get install busybox-static"
    exit 1
fi
ensure_build_tools

work=${CARGO_TARGET_DIR:-target}/kernel-matrix
mkdir -p "$work"
work=$(cd "$work" && pwd)
root=$work/root
rm -rf "$root"
mkdir -p "$root"/{bin,dev,proc,sys,tmp,etc,tests}

# Downloads the newest kernel of a series, unless it is here, and prints its path.
kernel_of_series() {
    local package
    package=$(apt-cache search --names-only "^linux-image-${1//./\\.}[.+-].*cloud-amd64\$" 2>/dev/null |
        sed 's/ .*//' | sort -V | tail -1)
    if [ -z "$package" ]; then
        say "$1: apt knows no package linux-image-$1*-cloud-amd64; try sudo apt-get update, add the release that has it (Debian 13, or Debian 12's backports, for 6.12), or give a kernel's path"
        return 1
    fi
    if ! compgen -G "$work/$package/boot/vmlinuz-*" >/dev/null; then
        say "downloading $package"
        (cd "$work" && apt-get download -qq "$package" 2>"$work/download.log") || { cat "$work/download.log" >&2; return 1; }
        dpkg-deb -x "$work/$package"_*.deb "$work/$package"
        rm -f "$work/$package"_*.deb
    fi
    compgen -G "$work/$package/boot/vmlinuz-*" | head -1
}

paths=()
for kernel in "${kernels[@]}"; do
    [ -f "$kernel" ] || kernel=$(kernel_of_series "$kernel") || exit 1
    paths+=("$kernel")
done

# The tests, without what only debuggers need, and the libraries that they need.
say "building the tests"
for crate in runtime fibers net; do
    build_log=$work/build-$crate.log
    cargo test -p "ringspun-$crate" --no-run >"$build_log" 2>&1 || { cat "$build_log"; exit 1; }
    while IFS='|' read -r source binary; do
        name=${source#tests/}; name=${name%.rs}; name=${name%/main}
        case "$source" in unittests*) name=unit ;; esac
        [[ "$crate/$name" =~ ${KERNEL_MATRIX_ONLY:-.} ]] || continue
        # These are about the names of functions, and their lines.
        case "$crate/$name" in
        fibers/dumps | fibers/stalls | fibers/wait_checks) cp "$binary" "$root/tests/$crate-$name" ;;
        *) objcopy --strip-debug "$binary" "$root/tests/$crate-$name" ;;
        esac
        echo "$crate $name" >>"$root/tests/list"
        ldd "$binary" | grep -oE '/[^ ]+' | while read -r library; do
            [ -e "$root$library" ] || { mkdir -p "$root${library%/*}" && cp -L "$library" "$root$library"; }
        done
    done < <(sed -n 's/^ *Executable \(unittests \)\{0,1\}\(.*\) (\(.*\))$/\1\2|\3/p' "$build_log")
    # A file that some tests open.
    mkdir -p "$root$PWD/$crate" && cp "$crate/Cargo.toml" "$root$PWD/$crate/"
done
[ -s "$root/tests/list" ] || { say "no test binary matches ${KERNEL_MATRIX_ONLY:-}"; exit 2; }

cp -L "$(command -v busybox)" "$root/bin/busybox"
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost\n' >"$root/etc/hosts"
printf 'hosts: files dns\nservices: files\n' >"$root/etc/nsswitch.conf"
printf 'http 80/tcp\nhttps 443/tcp\n' >"$root/etc/services"
echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"
cat >"$root/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/ TMPDIR=/tmp RUST_BACKTRACE=0
export RINGSPUN_STORM=${RINGSPUN_STORM:-2000} RINGSPUN_CHILDREN=${RINGSPUN_CHILDREN:-50} RINGSPUN_DATAGRAMS=${RINGSPUN_DATAGRAMS:-10000}
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
ln -s /proc/self/fd /dev/fd
ip link set lo up; ip route add 224.0.0.0/4 dev lo
ulimit -n 65536
echo "@@ kernel \$(uname -r)"
# What each thread of a test that does not end is doing: one that hangs waits, one that is slow runs.
tell_threads() {
    for task in /proc/[0-9]*/task/*; do
        status=\$(grep -sE '^(Name|State|Pid|PPid):' "\$task/status" | tr '\t\n' '  ')
        # It has ended, or is the kernel's, or this shell.
        case "\$status" in "" | *"PPid: "[02]" ") continue ;; esac
        echo "@ thread \$status"
        cat "\$task/syscall" "\$task/stack" 2>/dev/null
    done
}
while read -r crate name; do
    for backend in uring poll; do
        echo "@@ begin \$crate/\$name \$backend"
        cd "$PWD/\$crate"
        (sleep $suite_timeout_s; tell_threads; kill -9 -1) &
        # Not in the background, where the shell would have it ignore signals that tests raise.
        RINGSPUN_BACKEND=\$backend "/tests/\$crate-\$name" --show-output </dev/null 2>&1
        echo "@@ end \$?"
        # All that is left, but for this shell.
        kill -9 -1
    done
done </tests/list
echo "@@ done"
reboot -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$work/initramfs.gz"

# Boots one kernel, tells progress, and appends what came of each test binary to $results.
results=$work/results
: >"$results"
run_kernel() { # PATH
    local path=$1 log
    log=$work/$(basename "$path").log
    say "booting $path; the log is $log"
    timeout --foreground "$kernel_timeout_s" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m "$memory_mib" \
        -kernel "$path" -initrd "$work/initramfs.gz" -append "console=ttyS0 quiet panic=-1 rdinit=/init" \
        -nodefaults -no-reboot -display none -serial stdio </dev/null 2>&1 | tee "$log" | follow "$(basename "$path")" || true
}

# Reads what a kernel's run prints: tells progress, and keeps what came of each test binary.
follow() { # KERNEL
    local kernel=$1 line name suite= backend= passed=0 failed=0 skipped=0 note= complete=
    while IFS= read -r line; do
        line=${line%$'\r'}
        case "$line" in
        # What the firmware prints comes first, on the same line.
        *"@@ kernel "*) kernel=${line##*@@ kernel } ;;
        "@@ begin "*) read -r _ _ suite backend <<<"$line"; passed=0 failed=0 skipped=0 note="did not end" ;;
        SKIPPED*) skipped=$((skipped + 1)); echo "$kernel|$backend|$suite|$line" >>"$results.skips" ;;
        "test "*" ... FAILED") read -r _ name _ <<<"$line"; note="$note $name" ;;
        "test result: "*) read -r _ _ _ passed _ failed _ <<<"$line"; note=${note#did not end} ;;
        "@@ end "*)
            case "$note" in "did not end"*) failed=1; note="$note, exit status ${line#@@ end }" ;; esac
            passed=$((passed - skipped))
            say "$(printf '%s %-5s %-24s %d passed, %d failed, %d skipped' "$kernel" "$backend" "$suite" \
                "$passed" "$failed" "$skipped") $note"
            echo "$kernel|$backend|$suite|$passed|$failed|$skipped|$note" >>"$results" ;;
        "@@ done") complete=yes ;;
        esac
    done
    [ -n "$complete" ] && return
    say "$kernel did not come to its end"
    echo "$kernel|${backend:--}|${suite:-boot}|0|1|0|the run broke off" >>"$results"
}
rm -f "$results.skips"
for path in "${paths[@]}"; do run_kernel "$path"; done

if [ -n "$markdown" ]; then
    echo "Made by \`./scripts/check kernels --markdown\` on $(date -u +%Y-%m-%d), with $(rustc --version | cut -d' ' -f1,2)," \
        "$(qemu-system-x86_64 --version | sed -n '1s/.*version \([0-9.]*\).*/QEMU \1/p') (emulated, 2 processors, $memory_mib MiB)."
    echo
fi
awk -F'|' -v markdown="$markdown" '
    { split($3, part, "/"); row = $1 "|" $2 "|" part[1]
      if (!(row in passed)) order[++rows] = row
      passed[row] += $4; failed[row] += $5; skipped[row] += $6 }
    END {
        if (markdown) { print "| kernel | backend | suite | passed | failed | skipped |"; print "| --- | --- | --- | ---: | ---: | ---: |" }
        else printf "%-32s %-8s %-8s %7s %7s %7s\n", "kernel", "backend", "suite", "passed", "failed", "skipped"
        for (number = 1; number <= rows; number++) {
            row = order[number]; split(row, part, "|")
            if (markdown) printf "| %s | %s | %s | %d | %d | %d |\n", part[1], part[2], part[3], passed[row], failed[row], skipped[row]
            else printf "%-32s %-8s %-8s %7d %7d %7d\n", part[1], part[2], part[3], passed[row], failed[row], skipped[row]
        }
    }' "$results"
mark=; [ -z "$markdown" ] || mark="- "
if [ -s "$results.skips" ]; then
    echo
    awk -F'|' -v mark="$mark" '{ sub(/^SKIPPED:? */, "", $4); print mark "skipped on " $1 ", " $2 ", " $3 ": " $4 }' "$results.skips"
fi
if awk -F'|' '$5 > 0 { exit 1 }' "$results"; then exit 0; fi
echo
awk -F'|' -v mark="$mark" '$5 > 0 { print mark "failed on " $1 ", " $2 ", " $3 ": " $7 }' "$results"
exit 1

# Whether HdrHistogram's own tools, in Java and Python, read the logs of `ringspun load --hdr` alike.
#
#     ./scripts/check hdr
#
# Measures `ringspun serve echo` in an open and in a closed loop, and reads the logs with HistogramLogProcessor (Java) and
# HistogramLogReader (Python). For each tag, the count, p50, p90, p99, p99.9, p99.99, the maximum and the number of
# intervals must equal those of `ringspun load report`, to the nanosecond.
#
# A tool that is missing and cannot be installed (libhdrhistogram-java by apt, or HDRHISTOGRAM_JAR; hdrhistogram by pip) is
# SKIPPED. Fails if both are, or if one differs.

expect_no_arguments "$@"
ensure_build_tools
cargo build --quiet --bin ringspun
ringspun=${CARGO_TARGET_DIR:-target}/debug/ringspun
prepare_servers

# The tools.
jar=${HDRHISTOGRAM_JAR:-/usr/share/java/hdrhistogram.jar}
if [ ! -e "$jar" ] && command -v apt-get >/dev/null; then
    # In a subshell, since it exits where nothing can be installed.
    (install_packages HdrHistogram "libhdrhistogram-java default-jre-headless" "" "" "" "" "") || true
fi
with_java=
if [ -e "$jar" ] && command -v java >/dev/null; then with_java=1; else
    say "SKIPPED HistogramLogProcessor: there is no $jar, or no java"
fi
with_python=
if python3 -c 'import hdrh.log' 2>/dev/null; then
    with_python=python3
elif python3 -m venv "$work/venv" >/dev/null 2>&1 && "$work/venv/bin/pip" install -q hdrhistogram >/dev/null 2>&1; then
    with_python=$work/venv/bin/python3
else
    say "SKIPPED HistogramLogReader: python3 cannot install the package hdrhistogram"
fi
[ -n "$with_java$with_python" ] || { say "no tool could be had: nothing was checked"; exit 1; }

# Each prints a line: intervals, count, p50, p90, p99, p99.9, p99.99, longest, all times in nanoseconds.

by_ringspun() { # LOG TAG
    local intervals
    intervals=$(grep -c "^Tag=$2," "$1")
    # In closed loops a log has no response times, and the report gives those of service.
    "$ringspun" load report "$1" --json - | tr -d ' \n' | grep -oE "\"$2_time\":\{[^}]*\}" |
        awk -F'[{},:]' -v intervals="$intervals" '{
            for (i = 1; i < NF; i++) { gsub(/"/, "", $i); value[$i] = $(i + 1) }
            count = split("p50_us p90_us p99_us p99_9_us p99_99_us max_us", names, " ")
            printf "%d %d", intervals, value["count"]
            for (i = 1; i <= count; i++) printf " %.0f", value[names[i]] * 1000
            print ""
        }'
}

by_java() { # LOG TAG
    java -cp "$jar" org.HdrHistogram.HistogramLogProcessor -i "$1" -tag "$2" -csv -outputValueUnitRatio 1 -o "$work/java"
    # The last line has those of all intervals together behind those of its own.
    grep -E '^[0-9.]+,' "$work/java" | awk -F, '{ last = $0; lines++ } END {
        split(last, column, ",")
        printf "%d %d", lines, column[6]
        for (i = 7; i <= 12; i++) printf " %.0f", column[i]
        print ""
    }'
}

by_python() { # LOG TAG
    "$with_python" - "$1" "$2" <<'PYTHON'
import sys
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

path, tag = sys.argv[1:]
everything = HdrHistogram(1, 3_600_000_000_000, 3)
reader = HistogramLogReader(path, everything)
intervals = 0
while (histogram := reader.get_next_interval_histogram()) is not None:
    if histogram.get_tag() == tag:
        everything.add(histogram)
        intervals += 1
# This implementation rounds the number of values below a percentile to the nearest, the others round it up: it is asked for
# the percentile that has a whole number of values.
count = everything.get_total_count()
ranks = [-(-count * hundredths // 10_000) for hundredths in (5000, 9000, 9900, 9990, 9999, 10_000)]
percentiles = [everything.get_value_at_percentile(100 * rank / count) for rank in ranks]
print(intervals, count, *percentiles)
PYTHON
}

start_server "$ringspun" serve echo --tcp 127.0.0.1:0
target=tcp://$address
"$ringspun" load "$target" --connections 16 --rate 5k --duration 3s --hdr "$work/open.hdr" >/dev/null
"$ringspun" load "$target" --connections 16 --duration 2s --warmup 100ms --hdr "$work/closed.hdr" >/dev/null

status=0
for case in open,response open,service closed,service; do
    log=$work/${case%,*}.hdr tag=${case#*,}
    expected=$(by_ringspun "$log" "$tag")
    printf '%-16s %-14s %s\n' "$case" ringspun "$expected"
    for tool in ${with_java:+java} ${with_python:+python}; do
        found=$("by_$tool" "$log" "$tag")
        printf '%-16s %-14s %s\n' "$case" "$tool" "$found"
        [ "$found" = "$expected" ] || { say "$case: $tool does not read what ringspun wrote"; status=1; }
    done
done
[ $status -ne 0 ] || say "HdrHistogram's tools read the same"
exit $status

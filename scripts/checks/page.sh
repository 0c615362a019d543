# The pages of `ringspun load --html`, opened in Chromium, with screenshots.
#
#     ./scripts/check page [FOLDER]
#
# Measures `ringspun serve echo`, and makes the pages of a run in an open loop, of one in a closed loop, and of a report on
# their logs. Opens each as it is, with dark colours, and 360 pixels wide. Fails if the browser logs an error or uses
# the network, if a part of the page is missing, a chart is empty, or the page is wider than its window. As a control, two
# pages with such faults have to be caught first.
#
# Pages and screenshots are left in FOLDER (target/pages by default). Chromium is installed if it is missing.

[ $# -le 1 ] || refuse "$2: expected one FOLDER"
ensure_build_tools
find_browser() { command -v chromium || command -v chromium-browser || command -v google-chrome || true; }
browser=$(find_browser)
if [ -z "$browser" ]; then
    ensure_program chromium
    browser=$(find_browser)
fi
cargo build --quiet --bin ringspun
ringspun=${CARGO_TARGET_DIR:-target}/debug/ringspun
pages=$(realpath -m "${CARGO_TARGET_DIR:-target}/pages")
[ -z "${1:-}" ] || pages=$(cd "$caller" && realpath -m "$1")
mkdir -p "$pages"
prepare_servers

# Opens a page: its elements go to $work/dom, what the browser logs to $work/log, what it asks the network for to
# $work/net. Most of its own business with the network is switched off.
open_page() { # URL FLAGS...
    local url=$1; shift
    rm -rf "$work/profile" "$work/net"
    timeout 60 "$browser" --headless=new --no-sandbox --disable-gpu --user-data-dir="$work/profile" --no-first-run \
        --disable-background-networking --disable-component-update --disable-sync --disable-default-apps \
        --disable-features=OptimizationHints,MediaRouter,DialMediaRouteProvider --hide-scrollbars \
        --allow-file-access-from-files --enable-logging=stderr --log-net-log="$work/net" --virtual-time-budget=5000 \
        "$@" "$url" >"$work/dom" 2>"$work/log" || { say "the browser failed: $(tail -3 "$work/log")"; exit 1; }
}

# Prints what is wrong with a page that was opened.
faults() {
    grep -E 'CONSOLE' "$work/log" | sed 's/^.*CONSOLE/console: /' || true
    # What the browser asks for on its own account has no page for its origin.
    grep '"initiator":"' "$work/net" | grep -v '"initiator":"not an origin"' |
        grep -oE '"url":"(https?|wss?|ftp):[^"]*"' | sort -u | sed 's/^/network: /' || true
}

# A page that shows another one in a frame of some width, and writes down whether it fits, and what is empty.
frame() { # PAGE WIDTH HEIGHT
    cat >"$work/frame.html" <<FRAME
<!DOCTYPE html><html><body style="margin:0"><iframe src="file://$1" width="$2" height="$3" style="border:0"></iframe>
<pre id="found"></pre><script>
document.querySelector('iframe').addEventListener('load', event => {
    const page = event.target.contentDocument, found = [];
    const width = page.documentElement.scrollWidth;
    if (width > $2) found.push('FAULT the page is ' + width + ' pixels wide in a window of $2');
    for (const path of page.querySelectorAll('.plot path')) {
        const box = path.getBoundingClientRect();
        if (box.width < 50) found.push('FAULT a line of ' + path.closest('figure').id + ' is ' + box.width + ' wide');
    }
    for (const figure of page.querySelectorAll('figure')) {
        if (!figure.querySelector('path, .bar')) found.push('FAULT the drawing ' + figure.id + ' is empty');
        if (figure.querySelector('svg').getBoundingClientRect().height < 100) found.push('FAULT ' + figure.id + ' is flat');
        if (!figure.querySelector('tbody tr')) found.push('FAULT the table of ' + figure.id + ' is empty');
    }
    found.push('FIGURES ' + page.querySelectorAll('figure').length);
    document.getElementById('found').textContent = found.join('\n');
});
</script></body></html>
FRAME
}

status=0
fail() { say "$1"; status=1; }

# The controls.
printf '<!DOCTYPE html><body><script>console.error("control")</script></body>' >"$work/console.html"
printf '<!DOCTYPE html><body><img src="http://127.0.0.1:9/control"></body>' >"$work/network.html"
for control in console network; do
    open_page "file://$work/$control.html" --dump-dom
    faults | grep -q "^$control:.*control" || fail "control: the fault of $control.html was not caught"
done

start_server "$ringspun" serve echo --tcp 127.0.0.1:0
target=tcp://$address
"$ringspun" load "$target" --connections 4 --rate 1k --duration 6s --hdr "$work/other.hdr" >/dev/null &
other=$!
"$ringspun" load "$target" --connections 16 --rate 5k --duration 8s --warmup 200ms --fail-if 'p99>5s' \
    --html "$pages/open.html" --hdr "$work/open.hdr" >/dev/null
"$ringspun" load "$target" --connections 64 --duration 3s --html "$pages/closed.html" >/dev/null
wait "$other"
"$ringspun" load report "$work/open.hdr" "$work/other.hdr" --html "$pages/report.html" >/dev/null

for page in open closed report; do
    parts="tiles percentiles latency rate histogram machine"
    [ $page = report ] && parts="$parts logs" || parts="$parts errors requests connections plan generator"
    file=$pages/$page.html
    open_page "file://$file" --dump-dom
    [ -z "$(faults)" ] || fail "$page: $(faults)"
    for part in $parts; do
        grep -q "id=\"$part\"" "$work/dom" || fail "$page: the part $part is missing"
    done
    for width in 360 1000; do
        frame "$file" $width 6000
        open_page "file://$work/frame.html" --dump-dom
        grep -q 'FIGURES 4' "$work/dom" || fail "$page: not all drawings are there with $width pixels"
        sed 's/<pre id="found">/\n/' "$work/dom" | grep '^FAULT' >"$work/faults" || true
        [ ! -s "$work/faults" ] || fail "$page with $width pixels: $(cat "$work/faults")"
    done
    open_page "file://$file" --window-size=1000,3200 --screenshot="$pages/$page-light.png"
    open_page "file://$file" --window-size=1000,3200 --screenshot="$pages/$page-dark.png" --blink-settings=preferredColorScheme=0
    ! cmp -s "$pages/$page-light.png" "$pages/$page-dark.png" || fail "$page: dark colours change nothing"
    frame "$file" 360 4200
    open_page "file://$work/frame.html" --window-size=500,4200 --screenshot="$pages/$page-narrow.png"
done
[ $status -ne 0 ] || say "all pages are as they should be; their pictures: $pages/*.png"
exit $status

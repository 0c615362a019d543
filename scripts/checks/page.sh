# The pages of `ringspun load --html`, opened in Chromium, with screenshots.
#
#     ./scripts/check page [FOLDER]
#
# Makes the pages of runs in an open and in a closed loop, with steps, of a search, of repeats, over HTTP/2, over WebSocket, of a list
# of requests, and of a report on logs. Opens each as it is, and 400, 800 and 1,280 pixels wide. Fails if the browser logs an
# error or uses the network, if a part of the page is missing, a chart is empty, the page is wider than its window, labels are
# cut off or overlap, or an axis is wrong: its labels have to be in proportion, and lines and bars where it has what their
# tooltips say. As controls, pages with such faults have to be caught first.
#
# Pages and screenshots are left in FOLDER (target/pages by default). Chromium, nginx and openssl are installed if they are missing.

[ $# -le 1 ] || refuse "$2: expected one FOLDER"
ensure_build_tools
find_browser() { command -v chromium || command -v chromium-browser || command -v google-chrome || true; }
browser=$(find_browser)
if [ -z "$browser" ]; then
    ensure_program chromium
    browser=$(find_browser)
fi
ensure_python
ensure_program nginx
ensure_program openssl
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

# A page that shows another one in frames of some widths, and writes down what is wrong with it.
frames() { # PAGE HEIGHT WIDTHS...
    local page=$1 height=$2 width
    shift 2
    {
        printf '<!DOCTYPE html><html><head><meta charset="utf-8"></head><body style="margin:0">'
        for width in "$@"; do
            printf '<iframe src="file://%s" width="%s" height="%s" style="border:0"></iframe>' "$page" "$width" "$height"
        done
        printf '<pre id="found"></pre><script>\n'
        cat scripts/checks/page.js
        cat <<'SCRIPT'
addEventListener('load', () => {
    const found = [];
    for (const frame of document.querySelectorAll('iframe')) {
        const page = frame.contentDocument, width = Number(frame.width);
        for (const fault of faultsOf(page, width)) found.push(fault + ' (' + width + ' pixels)');
        found.push('FIGURES ' + page.querySelectorAll('figure').length);
    }
    document.getElementById('found').textContent = found.join('\n');
});
</script></body></html>
SCRIPT
    } >"$work/frame.html"
}

# Prints what is wrong with a page in frames, and how many drawings it has.
look_at() { # PAGE WIDTHS...
    local page=$1
    shift
    frames "$page" 6000 "$@"
    open_page "file://$work/frame.html" --dump-dom
    sed 's/<pre id="found">/\n/; s/<\/pre>/\n/' "$work/dom" | grep -E '^(FAULT|FIGURES)' || true
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

load() { # PAGE ARGUMENTS...
    local page=$1
    shift
    "$ringspun" load "$@" --html "$pages/$page.html" >"$work/printed" 2>&1 || [ $? -eq 3 ] || { say "$page: $(cat "$work/printed")"; exit 1; }
}

start_server "$ringspun" serve echo --tcp 127.0.0.1:0
target=tcp://$address
"$ringspun" load "$target" --connections 4 --rate 1k --duration 6s --hdr "$work/other.hdr" >/dev/null &
other=$!
load open "$target" --connections 16 --rate 5k --duration 8s --warmup 200ms --fail-if 'p99>5s' --hdr "$work/open.hdr"
load closed "$target" --connections 64 --duration 3s
wait "$other"
load steps "$target" --connections 16 --steps 500:2s,1k..3k:3s,1500:2s
load repeats "$target" --connections 16 --rate 2k --duration 2s --repeat 3
load search "$target" --connections 16 --duration 1s --find 'p99<300ms' --find-from 500 --find-to 4k --find-confirm 3
"$ringspun" load report "$work/open.hdr" "$work/other.hdr" --html "$pages/report.html" >/dev/null
stop_server

start_server python3 scripts/checks/websocket_echo.py
load websocket "ws://$address/echo" --connections 8 --rate 500 --duration 3s --message-type text
stop_server

start_server python3 scripts/measures/slow_nginx.py "$work/nginx" tls
# It says where it listens before it does.
until (exec 3<>"/dev/tcp/${address/://}") 2>/dev/null || ! kill -0 "$server" 2>/dev/null; do sleep 0.05; done
load http2 "https://$address/fast" --connections 4 --http2 --streams 8 --duration 3s --insecure
cat >"$work/list.jsonl" <<'LIST'
{"name": "a page that is often looked at", "path": "/fast", "weight": 5}
{"name": "compressed", "path": "/slow", "headers": {"Accept-Encoding": "gzip"}, "weight": 2}
{"path": "/missing/with/a/path/that/is/long/enough/to/need/more/than/a/line/on/a/telephone", "weight": 1}
LIST
load list "https://$address/" --connections 8 --rate 500 --duration 3s --insecure --requests "$work/list.jsonl"
stop_server

widths="400 800 1280"
# Controls: a label that is not where it belongs, an axis that is not the lines', and a page that is too wide.
sed '/<figure id="rate"/,/<\/figure>/ { s/>4,000</>3,000</; s/>5k</>3k</ }' "$pages/open.html" >"$work/label.html"
sed 's/\(<text class="y"[^>]*>[0-9.]* \)ms</\1s</; s/\(<text class="y"[^>]*>[0-9.]* \)µs</\1ms</' "$pages/open.html" >"$work/axis.html"
sed 's/<main>/<main><p style="width:900px">wide<\/p>/' "$pages/open.html" >"$work/wide.html"
look_at "$work/label.html" 800 | grep -q 'FAULT rate, axis y: 3.*belongs' || fail "control: a wrong label was not caught"
look_at "$work/axis.html" 800 | grep -q 'FAULT latency: .* is drawn at' || fail "control: a wrong axis was not caught"
look_at "$work/wide.html" 800 | grep -q 'FAULT the page is .* wide' || fail "control: a page that is too wide was not caught"

for page in open closed report steps repeats search websocket http2 list; do
    parts="tiles percentiles latency rate histogram machine" figures=4
    case $page in
    report) parts="$parts logs" ;;
    *) parts="$parts errors requests connections plan generator" ;;
    esac
    case $page in
    search) parts="$parts search trials" figures=5 ;;
    steps | repeats) parts="$parts $page" ;;
    list) parts="$parts names" ;;
    esac
    file=$pages/$page.html
    open_page "file://$file" --dump-dom
    [ -z "$(faults)" ] || fail "$page: $(faults)"
    for part in $parts; do
        grep -q "id=\"$part\"" "$work/dom" || fail "$page: the part $part is missing"
    done
    look_at "$file" $widths >"$work/found"
    [ "$(grep -c "FIGURES $figures" "$work/found")" -eq 3 ] || fail "$page: not all drawings are there: $(grep FIGURES "$work/found")"
    ! grep -q FAULT "$work/found" || fail "$page: $(grep FAULT "$work/found")"
    for width in $widths; do
        frames "$file" 4600 "$width"
        open_page "file://$work/frame.html" --window-size="$((width > 500 ? width : 500)),4600" --screenshot="$pages/$page-$width.png"
    done
done
open_page "file://$pages/open.html" --window-size=1280,4600 --screenshot="$pages/open-dark.png" --blink-settings=preferredColorScheme=0
! cmp -s "$pages/open-1280.png" "$pages/open-dark.png" || fail "dark colours change nothing"
[ $status -ne 0 ] || say "all pages are as they should be; their pictures: $pages/*.png"
exit $status

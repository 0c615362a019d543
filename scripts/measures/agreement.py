"""Measures whether load generators agree: see scripts/measures/agreement.sh, which builds all and starts this."""

import argparse
import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from statistics import median

from servers import LOAD_CORE, RINGSPUN, Failure, Running, Server, raise_open_files

HERE = os.path.dirname(__file__)
OURS = "ringspun load"
# How far apart ratios may be where the server is what limits, and how busy it is there at least.
APART, LIMITED_PERCENT = 0.1, 90
# How much longer than planned a generator may take, and how often one is tried that does not end: h2load 1.52 hangs now and
# then after the time of --duration.
END_S, TRIES = 15, 3
GZIP = "accept-encoding: gzip"


class Hangs(Failure):
    """A generator that did not end."""


def run(command, seconds):
    """Runs a generator on its core. Returns what it printed, its processor time, and how long it took, in seconds."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    pinned = lambda: os.sched_setaffinity(0, {LOAD_CORE})
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + END_S, preexec_fn=pinned)
    except subprocess.TimeoutExpired:
        raise Hangs(f"{' '.join(command)}: did not end within {seconds + END_S} s") from None
    after, took_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - begun
    if done.returncode:
        raise Failure(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    processor_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, processor_s, took_s


def figures(answered, seconds, p50_us, errors, processor_s, took_s):
    return {
        "answered": answered,
        "rate_per_s": answered / seconds,
        "p50_us": p50_us,
        "errors": errors,
        "processor_us_per_request": processor_s * 1e6 / max(answered, 1),
        "generator_busy_percent": 100 * processor_s / took_s,
    }


def ours(url, options, *flags):
    plan = ("--connections", str(options.connections), "--duration", f"{options.seconds}s", "--header", GZIP, "--json", "-")
    text, *times = run([RINGSPUN, "load", url, *plan, *flags], options.seconds)
    seen = json.loads(text)
    answered, p50_us = seen["requests"]["answered"], seen["service_time"]["p50_us"]
    return figures(answered, answered / seen["rate_per_s"], p50_us, seen["errors"]["total"], *times)


def wrk(url, options):
    plan = ("-t1", "-c", str(options.connections), "-d", f"{options.seconds}s", "-H", GZIP)
    text, *times = run(["wrk", *plan, "-s", f"{HERE}/wrk_report.lua", url], options.seconds)
    seen = json.loads(text.splitlines()[-1])
    return figures(seen["answered"], seen["seconds"], seen["p50_us"], seen["errors"], *times)


def h2load(url, options):
    plan = ["h2load", "-t1", "-c", str(options.connections), "-m", str(options.streams), "-D", str(options.seconds), "-H", GZIP, url]
    text, *times = run(plan, options.seconds)
    count = {}
    for line in text.splitlines():
        if line.startswith("requests:"):
            parts = [part.split() for part in line.removeprefix("requests:").split(",")]
            count = {words[1]: int(words[0]) for words in parts}
    if not count.get("succeeded"):
        raise Failure(f"h2load told no counts: {text}")
    with tempfile.NamedTemporaryFile("r") as log:
        run([*plan[:-1], f"--log-file={log.name}", url], options.seconds)
        times_us = [int(line.split("\t")[2]) for line in log]
    errors = count["failed"] + count["errored"] + count["timeout"]
    return figures(count["succeeded"], options.seconds, median(times_us), errors, *times)


def oha(url, options):
    plan = ("-z", f"{options.seconds}s", "-c", str(options.connections), "-H", GZIP, "--http-version", "1.1", "--insecure")
    os.environ["TOKIO_WORKER_THREADS"] = "1"
    text, *times = run(["oha", *plan, "--no-tui", "--output-format", "json", url], options.seconds)
    seen = json.loads(text)
    statuses = seen["statusCodeDistribution"]
    answered = statuses.get("200", 0)
    # Those that the end of the run cut off are none.
    cut = "aborted due to deadline"
    errors = sum(count for text, count in seen["errorDistribution"].items() if text != cut)
    errors += sum(statuses.values()) - answered
    return figures(answered, seen["summary"]["total"], seen["latencyPercentiles"]["p50"] * 1e6, errors, *times)


# The other one, its protocol, how nginx listens, and what ours is called with.
PAIRS = {
    "wrk": (wrk, "HTTP/1.1", "plain", lambda options: ()),
    "h2load": (h2load, "HTTP/2, TLS", "tls", lambda options: ("--http2", "--streams", str(options.streams), "--insecure")),
    "oha": (oha, "HTTP/1.1, TLS", "tls", lambda options: ("--insecure", "--alpn", "http/1.1")),
}
PATHS = ("slow", "fast")


def sample(name, path, generator, options):
    other, _, kind, flags = PAIRS[name]
    with Running(Server("nginx", (sys.executable, f"{HERE}/slow_nginx.py", "SOCKET", kind))) as server:
        url = f"{'https' if kind == 'tls' else 'http'}://{server.address}/{path}"
        wait_until_answered(server.address)
        before, begun = server.processor_s(), time.monotonic()
        found = ours(url, options, *flags(options)) if generator == OURS else other(url, options)
        found["server_busy_percent"] = 100 * (server.processor_s() - before) / (time.monotonic() - begun)
    return found


def sample_that_ends(name, path, generator, options):
    for tries in range(1, TRIES + 1):
        try:
            return sample(name, path, generator, options)
        except Hangs as hangs:
            if generator == OURS or tries == TRIES:
                raise
            print(f"tried again: {hangs}", file=sys.stderr)


def wait_until_answered(address):
    """It says where it listens before it does."""
    host, port = address.split(":")
    for _ in range(200):
        try:
            return socket.create_connection((host, int(port)), timeout=5).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise Failure(f"nginx does not listen on {address}")


def show(samples, names):
    """Prints the table, and returns what is wrong."""
    head = f"{'':15}{'path':6}{'':14}{'requests/s':>11}{'p50, µs':>10}{'CPU, µs':>9}{'busy':>13}   ours/other: rate, p50, CPU"
    print(head)
    faults = []
    for name in names:
        for path in PATHS:
            chosen = lambda generator: [s for s in samples if (s["other"], s["path"], s["generator"]) == (name, path, generator)]
            pairs = list(zip(chosen(OURS), chosen(name)))
            ratio = lambda measure: median(mine[measure] / max(its[measure], 1e-9) for mine, its in pairs)
            ratios = {measure: ratio(measure) for measure in ("rate_per_s", "p50_us", "processor_us_per_request")}
            for generator in (OURS, name):
                of = lambda measure: median(s[measure] for s in chosen(generator))
                first = (PAIRS[name][1], f"/{path}") if generator == OURS else ("", "")
                row = f"{first[0]:15}{first[1]:6}{generator:14}{of('rate_per_s'):>11,.0f}{of('p50_us'):>10,.0f}{of('processor_us_per_request'):>9.2f}"
                row += f"{of('server_busy_percent'):>6.0f} %{of('generator_busy_percent'):>3.0f} %"
                if generator == OURS:
                    row += "   " + "  ".join(f"{ratio:.3f}" for ratio in ratios.values())
                print(row)
                if path == "slow" and of("server_busy_percent") < LIMITED_PERCENT:
                    faults.append(f"{generator}, /{path}: nginx was only {of('server_busy_percent'):.0f} % busy: expected {LIMITED_PERCENT} %")
                errors = sum(s["errors"] for s in chosen(generator))
                if errors:
                    faults.append(f"{generator}, /{path}: {errors} errors beside {name}")
            for measure in ("rate_per_s", "p50_us"):
                if path == "slow" and not 1 - APART <= ratios[measure] <= 1 + APART:
                    faults.append(f"{OURS} over {name}: {measure} is {ratios[measure]:.3f}: expected within {APART:.0%}")
    print("\nbusy: nginx, generator; CPU: the generator's processor time per request")
    return faults


def main():
    parser = argparse.ArgumentParser(prog="measure-agreement", add_help=False)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--json")
    options = parser.parse_args()
    for name in ("rounds", "seconds", "connections", "streams"):
        if getattr(options, name) < 1:
            sys.exit(f"--{name} {getattr(options, name)}: expected a positive number")
    raise_open_files()
    names = [name for name in PAIRS if shutil.which(name)]
    for name in PAIRS:
        if name not in names:
            print(f"SKIPPED: {name} ({PAIRS[name][1]}) is not installed")
    samples = []
    for turn in range(options.rounds):
        for name in names:
            for path in PATHS:
                # Who comes first changes from round to round.
                for generator in (OURS, name) if turn % 2 == 0 else (name, OURS):
                    if sys.stderr.isatty():
                        print(f"\r\x1b[Kround {turn + 1} of {options.rounds}: {name}, /{path}, {generator}", end="", file=sys.stderr, flush=True)
                    try:
                        found = sample_that_ends(name, path, generator, options)
                    except Failure as failure:
                        sys.exit(str(failure))
                    samples.append({"round": turn + 1, "other": name, "path": path, "generator": generator, **found})
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    print(f"The same nginx by {OURS} and by others, medians of {options.rounds} rounds of {options.seconds} s, {options.connections} connections\n")
    faults = show(samples, names)
    if options.json:
        plan = {key: getattr(options, key) for key in ("rounds", "seconds", "connections", "streams")}
        skipped = [name for name in PAIRS if name not in names]
        with open(os.path.join(os.environ["RINGSPUN_CALLER"], options.json), "w") as file:
            json.dump({"format": "ringspun-agreement", "version": 1, "kernel": platform.release(), "plan": plan, "skipped": skipped, "faults": faults, "samples": samples}, file, indent=1)
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()

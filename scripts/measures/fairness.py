"""Measures whether one fast sender keeps others waiting: see scripts/measures/fairness.sh, which builds all and starts this."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from statistics import median

from servers import LOAD_CORE, RINGSPUN, Failure, Running, Server, raise_open_files

ECHO = (RINGSPUN, "serve", "echo", "--workers", "1", "--tcp", "127.0.0.1:0")
SERVERS = {
    "uring": Server("uring", ECHO, environment={"RINGSPUN_BACKEND": "uring"}),
    "poll": Server("poll", ECHO, environment={"RINGSPUN_BACKEND": "poll"}),
    "janet": Server("janet", (RINGSPUN, "janet", "examples/echo.janet"), environment={"RINGSPUN_NET": "ring"}),
    "stock": Server("stock", (RINGSPUN, "janet", "examples/echo.janet"), environment={"RINGSPUN_NET": "stock"}),
}
# What the flooder does in each sample: nothing, flood the server, or flood another one on the clients' core, which shows
# how much it disturbs the clients alone.
ALONE, FLOODED, ELSEWHERE = "alone", "flooded", "elsewhere"
MEASURES = ("p50_us", "p99_us", "p99_9_us", "max_us")
FLOODER = os.path.join(os.path.dirname(__file__), "flooder.py")
WARMUP_S, LEAD_S = 0.5, 0.3
BOUND = 3.0


def on_load_core():
    os.sched_setaffinity(0, {LOAD_CORE})


def in_idle_time():
    """Only when nobody else wants the core, and preempted by whoever wakes up there."""
    on_load_core()
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def start(*command, before):
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=before)


def output_of(process, who):
    output, errors = process.communicate(timeout=120)
    if process.returncode:
        raise Failure(f"{who}: {errors.strip()}")
    return output


def sample(server, kind, options):
    """The times of many connections, with a flooder or without."""
    seconds = lambda time_s: f"{round(time_s * 1000)}ms"
    with Running(server) as running, Running(server) as other:
        os.sched_setaffinity(other.process.pid, {LOAD_CORE})
        os.sched_setscheduler(other.process.pid, os.SCHED_IDLE, os.sched_param(0))
        flooder = None
        if kind != ALONE:
            address = (running if kind == FLOODED else other).address
            lasting_s = LEAD_S + WARMUP_S + options.seconds + 0.5
            flooder = start(sys.executable, FLOODER, address, str(lasting_s), before=in_idle_time)
            time.sleep(LEAD_S)
        plan = ("--connections", str(options.connections), "--rate", str(options.rate))
        lasting = ("--warmup", seconds(WARMUP_S), "--duration", seconds(options.seconds), "--json", "-")
        clients = start(RINGSPUN, "load", running.target, *plan, *lasting, before=on_load_core)
        try:
            seen = json.loads(output_of(clients, f"{server.name}, {kind}"))
            if seen["errors"]["total"]:
                raise Failure(f"{server.name}, {kind}: {seen['errors']}")
            found = {measure: seen["response_time"][measure] for measure in MEASURES}
            if flooder:
                found["flooder_bytes_per_s"] = float(output_of(flooder, f"{server.name}, the flooder"))
        finally:
            for process in filter(None, (clients, flooder)):
                process.kill()
    return found


def show(samples, names):
    print("Response times of all but the flooder, medians of the rounds, and medians of the rounds' ratios:\n")
    print(f"{'server':8} {'the flooder':22}" + "".join(f"{measure.removesuffix('_us').replace('_', '.') + ', µs':>12}" for measure in MEASURES) + f"{'MB/s':>8}{'p99.9 over alone':>18}")
    verdicts = {}
    for name in names:
        rounds = {kind: [s for s in samples if (s["server"], s["kind"]) == (name, kind)] for kind in (ALONE, FLOODED, ELSEWHERE)}
        for kind, title in ((ALONE, "is not there"), (ELSEWHERE, "floods another server"), (FLOODED, "floods this one")):
            chosen = rounds[kind]
            row = "".join(f"{median(s[measure] for s in chosen):>12,.0f}" for measure in MEASURES)
            bytes_per_s = median(s.get("flooder_bytes_per_s", 0) for s in chosen)
            ratios = [s["p99_9_us"] / alone["p99_9_us"] for s, alone in zip(chosen, rounds[ALONE])]
            text = "" if kind == ALONE else f"{median(ratios):>8.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            print(f"{name:8} {title:22}{row}{bytes_per_s / 1e6:>8,.0f}{text:>18}")
        verdicts[name] = median(ratios)
    return verdicts


def main():
    parser = argparse.ArgumentParser(prog="measure-fairness", add_help=False)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--connections", type=int, default=1_000)
    parser.add_argument("--rate", type=int, default=5_000)
    parser.add_argument("--servers", default="uring,poll,janet")
    parser.add_argument("--json")
    options = parser.parse_args()
    raise_open_files()
    names, samples = options.servers.split(","), []
    unknown = [name for name in names if name not in SERVERS]
    if unknown:
        sys.exit(f"--servers {unknown[0]}: expected some of {','.join(SERVERS)}")
    for turn in range(options.rounds):
        for name in names:
            for kind in (ALONE, FLOODED, ELSEWHERE):
                if sys.stderr.isatty():
                    print(f"\r\x1b[Kround {turn + 1} of {options.rounds}: {name}, {kind}", end="", file=sys.stderr, flush=True)
                try:
                    samples.append({"round": turn + 1, "server": name, "kind": kind, **sample(SERVERS[name], kind, options)})
                except Failure as failure:
                    sys.exit(str(failure))
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    verdicts = show(samples, names)
    if options.json:
        plan = {key: getattr(options, key) for key in ("rounds", "seconds", "connections", "rate")}
        with open(os.path.join(os.environ["RINGSPUN_CALLER"], options.json), "w") as file:
            json.dump({"format": "ringspun-fairness", "version": 1, "kernel": platform.release(), "plan": plan, "p99_9_ratios": verdicts, "samples": samples}, file, indent=1)
    above = [f"{name} {ratio:.2f}" for name, ratio in verdicts.items() if ratio > BOUND]
    if above:
        sys.exit(f"above the bound of {BOUND:.0f}: {', '.join(above)}")


if __name__ == "__main__":
    main()

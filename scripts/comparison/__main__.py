"""Runs the matrix, and has its document written: see scripts/compare, which builds all and starts this."""

import argparse
import json
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import time

import document
import history
import measure
import tables
from cells import all_cells, all_counts, counted_servers, matching
from servers import Failure, raise_open_files

FULL = {"rounds": 15, "duration_s": 1.2, "warmup_s": 0.3}
QUICK = {"rounds": 1, "duration_s": 0.4, "warmup_s": 0.1}


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def positive(number):
    def parsed(text):
        try:
            value = number(text)
        except ValueError:
            value = 0
        if not 0 < value < 1e6:
            raise argparse.ArgumentTypeError(f"{text}: expected a number above 0")
        return value

    return parsed


def arguments():
    parser = argparse.ArgumentParser(prog="compare", add_help=False)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=positive(int))
    parser.add_argument("--seconds", type=positive(float))
    parser.add_argument("--json")
    parser.add_argument("--cells", type=re.compile)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--history", metavar="RELEASE")
    return parser.parse_args()


def machine():
    with open("/proc/cpuinfo") as file:
        model = re.search(r"model name\s*: (.*)", file.read())
    with open("/proc/meminfo") as file:
        memory_kib = int(re.search(r"MemTotal:\s+(\d+)", file.read())[1])
    virtual = subprocess.run(["systemd-detect-virt"], capture_output=True, text=True).stdout.strip() if os.path.exists("/usr/bin/systemd-detect-virt") else ""
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib / 1024 / 1024, 1),
        "kernel": platform.release(),
        "virtualization": virtual or "unknown",
    }


def versions():
    """What was compared, by name."""
    def first_line(*command):
        return subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[0]

    found = {"ringspun": first_line("git", "describe", "--always", "--dirty"), "rustc": first_line("rustc", "--version")}
    with open("benches/Cargo.lock") as file:
        locked = dict(re.findall(r'name = "([^"]+)"\nversion = "([^"]+)"', file.read()))
    for name in [server.name for server in counted_servers()["echo"]][1:] + ["io-uring"]:
        found.update({name: locked[name]} if name in locked else {})
    found["janet"] = "1.41.2 (the same VM in ringspun and stock)"
    for tool in ("valgrind", "strace"):
        found[tool] = re.search(r"[\d.]+", first_line(tool, "--version"))[0]
    return found


def interleaved(cells, plan, results):
    """All servers of a cell in turn, so that what the machine does meanwhile meets all of them."""
    for turn in range(plan["rounds"]):
        for cell in cells:
            # Who comes first changes from round to round.
            first = turn % len(cell.servers)
            for server in cell.servers[first:] + cell.servers[:first]:
                progress(f"round {turn + 1} of {plan['rounds']}: {cell.name}, {server.name}")
                seen = attempt(results, cell.name, server.name, measure.sample, cell, server, plan["duration_s"], plan["warmup_s"])
                if seen:
                    results["samples"].append({"round": turn + 1, "cell": cell.name, "server": server.name, **seen})
        results["whole_rounds"] = turn + 1


def keep_whole_rounds(results):
    """Leaves those that every server had its turn in: ratios are within a round."""
    rounds = results["whole_rounds"]
    results["samples"] = [sample for sample in results["samples"] if sample["round"] <= rounds]
    results["plan"] = {**results["plan"], "rounds": rounds}


def attempt(results, cell, server, function, *parameters):
    """One that fails is told in the document, and does not end the others."""
    try:
        return function(*parameters)
    except (Failure, OSError, subprocess.SubprocessError) as failure:
        results["failures"].append({"cell": cell, "server": server, "failure": str(failure)})
        progress("")
        print(f"{cell}, {server}: {failure}", file=sys.stderr)
        return None


def once(names, counts, results):
    """What is counted, and does not depend on what else the machine does."""
    for count in counts:
        for server in count.servers if count.name in names else ():
            progress(f"{count.name}, {server.name}")
            if count.kind == "instructions":
                function, parameters = measure.instructions_per_request, (count.active, count.rounds)
            else:
                function, parameters = measure.system_calls_per_request, ()
            found = attempt(results, count.name, server.name, function, server, count.connections, *parameters)
            if found:
                results["counts"].append({"cell": count.name, "server": server.name, **found})
    for group, servers in counted_servers().items():
        for server in servers if f"memory-{group}" in names else ():
            progress(f"memory, {server.name}")
            found = attempt(results, f"memory-{group}", server.name, measure.memory, server)
            if found:
                results["memory"].append({"cell": f"memory-{group}", "server": server.name, **found})
    if "memory-fibers" in names:
        progress("memory, parked fibers")
        results["parked_fibers"] = attempt(results, "memory-fibers", "ringspun", measure.parked_fibers)


def replaced(results):
    """The results of the last whole run, with what was measured now in place of what was for the same cells."""
    path = document.path_of(results)
    if not os.path.exists(path):
        return results
    with open(path) as file:
        whole = json.load(file)
    kinds = ("samples", "counts", "memory", "failures")
    new = sorted({entry["cell"] for kind in kinds for entry in results[kind]})
    for kind in kinds:
        whole[kind] = [entry for entry in whole[kind] if entry["cell"] not in new] + results[kind]
    if not any(entry["cell"] not in new for entry in whole["samples"]):
        # What it says of all samples.
        whole["plan"] = results["plan"] if results["samples"] else whole["plan"]
    whole["parked_fibers"] = results["parked_fibers"] or whole["parked_fibers"]
    again = {key: results[key] for key in ("command", "began", "plan")}
    # Cells that are new since then.
    known = {cell["name"] for cell in whole["cells"]}
    whole["cells"] += [cell for cell in results["cells"] if cell["name"] not in known]
    whole.setdefault("again", []).append({**again, "ringspun": results["versions"]["ringspun"], "cells": new})
    return whole


def keep(release):
    """Keeps the results of this machine's page under the name of a release."""
    path = document.path_of({"machine": machine()})
    if not os.path.exists(path):
        sys.exit(f"--history {release}: this machine has no results yet: expected {path}, which a run without --cells writes")
    with open(path) as file:
        history.add(json.load(file), release)
    print(f"{history.PAGE} is written")


def main():
    options = arguments()
    plan, cells, counts = QUICK if options.quick else FULL, all_cells(), all_counts(options.quick)
    plan = {**plan, "rounds": options.rounds or plan["rounds"], "duration_s": options.seconds or plan["duration_s"]}
    others = [count.name for count in counts] + [f"memory-{group}" for group in counted_servers()] + ["memory-fibers"]
    names = [cell.name for cell in cells] + others
    if options.cells:
        names = matching(names, options.cells)
    if options.again and not options.cells:
        sys.exit("--again: expected --cells PATTERN, too, which says what to measure again")
    if options.history:
        return keep(options.history)
    if options.list:
        print("\n".join(names))
        return
    if not names:
        sys.exit(f"--cells {options.cells.pattern}: no cell is named so; --list names them")
    if (os.cpu_count() or 1) < 2:
        sys.exit("two cores are needed: one for the server, one for the load")
    began = time.time()
    results = {
        "format": "ringspun-comparison",
        "version": 1,
        "command": shlex.join(["./scripts/compare", *sys.argv[1:]]),
        "quick": options.quick,
        "plan": plan,
        "machine": {**machine(), "open_files_max": raise_open_files()},
        "versions": versions(),
        "began": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(began)),
        "cells": [
            {
                "name": cell.name,
                "title": cell.title,
                "group": cell.group,
                "load": list(cell.load),
                "servers": [server.name for server in cell.servers],
            }
            for cell in cells
            if cell.name in names
        ],
        "whole_rounds": 0, "samples": [], "counts": [], "memory": [], "parked_fibers": None, "failures": [],
    }
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    is_interrupted = False
    try:
        interleaved([cell for cell in cells if cell.name in names], plan, results)
        once(names, counts, results)
    except KeyboardInterrupt:
        is_interrupted = True
        keep_whole_rounds(results)
    results["took_s"] = round(time.time() - began)
    progress("")
    if options.json:
        with open(os.path.join(os.environ["RINGSPUN_CALLER"], options.json), "w") as file:
            json.dump(results, file, indent=1)
    if is_interrupted:
        if results["samples"]:
            print(tables.tables(results))
        sys.exit(f"interrupted after {results['plan']['rounds']} whole rounds: the documents stay as they are")
    if options.cells:
        print(tables.tables(results))
    if options.again:
        results = replaced(results)
    if options.again or not options.cells:
        document.write(results)
        print("docs/benchmarks.md is written")


if __name__ == "__main__":
    main()

"""Measures two builds in the same cells, in turn; see builds.sh."""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import replace

from cells import OURS, all_cells, matching
from measure import sample
from servers import RINGSPUN, Failure, raise_open_files

METRICS = {"requests/s": "requests_per_s", "server CPU per request": "server_us_per_request"}


def other_build(server, path, knows_workers):
    """The same server of another build, which may be older than `--workers` and has one then."""
    command = [path if part == RINGSPUN else part for part in server.command]
    if not knows_workers and "--workers" in command:
        at = command.index("--workers")
        del command[at : at + 2]
    return replace(server, command=tuple(command))


def knows_workers(path):
    told = subprocess.run([path, "serve", "echo", "--help"], capture_output=True, text=True)
    return "--workers" in told.stdout


def ratios(samples, metric):
    pairs = [(ours[metric], others[metric]) for ours, others in samples]
    return [a / b for a, b in pairs if a and b]


def show(values):
    if not values:
        return "no sample"
    return f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def main():
    options = argparse.ArgumentParser(prog="./scripts/measure builds")
    options.add_argument("other")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--seconds", type=float, default=2.0)
    options.add_argument("--cells", default="")
    options.add_argument("--json")
    chosen = options.parse_args()
    most = raise_open_files()
    cells = [cell for cell in all_cells() if cell.connections + 100 < most]
    names = matching([cell.name for cell in cells], chosen.cells)
    if not names:
        sys.exit(f"--cells {chosen.cells}: expected a pattern that a name matches; ./scripts/compare --list tells them")
    print(f"{'cell':<18} {'requests/s':>22} {'server CPU per request':>24}")
    results = {}
    workers = knows_workers(chosen.other)
    for cell in (cell for cell in cells if cell.name in names):
        ours = next(server for server in cell.servers if server.name == OURS)
        samples = []
        for number in range(1, chosen.rounds + 1):
            if sys.stderr.isatty():
                print(f"\r{cell.name}: round {number} of {chosen.rounds} ", end="", file=sys.stderr, flush=True)
            try:
                # A drift of the machine's speed favours neither.
                order = [0, 1] if number % 2 else [1, 0]
                builds = (ours, other_build(ours, chosen.other, workers))
                taken = {index: sample(cell, builds[index], chosen.seconds, 0.3) for index in order}
                pair = [taken[0], taken[1]]
            except Failure as failure:
                sys.exit(f"{cell.name}: {failure}")
            samples.append(pair)
        results[cell.name] = samples
        shown = [show(ratios(samples, metric)) for metric in METRICS.values()]
        print(f"\r{cell.name:<18} {shown[0]:>22} {shown[1]:>24}", flush=True)
    if chosen.json:
        with open(chosen.json, "w") as file:
            json.dump({"version": 1, "samples": results}, file)


main()

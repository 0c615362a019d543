"""Figures over time: a line for each release and machine in docs/benchmarks/history.jsonl, and a page that draws them."""

import json
import os

import document
from charts import line_charts
from summary import against_best_peer
from tables import COMPARED, MEASURES, table

LINES = f"{document.FOLDER}/history.jsonl"
PAGE = f"{document.FOLDER}/history.md"
# Lower than 1 is better for one of these, and higher for the other.
WORDS = {"requests_per_s": "above 1 is better", "server_us_per_request": "below 1 is better"}


def line_of(results, release):
    """What is kept of a run: our ratios to the best peer, and counts."""
    ratios = {}
    for cell in results["cells"]:
        for measure in COMPARED:
            found = against_best_peer(results["samples"], cell["name"], cell["servers"], measure)
            if found:
                ratios.setdefault(cell["name"], {})[measure] = {
                    "peer": found.server, "ratio": round(found.middle, 4), "low": round(found.low, 4), "high": round(found.high, 4),
                }
    counts = {count["cell"]: count["per_request"] for count in results["counts"] if count["server"] == "ringspun"}
    return {
        "release": release,
        "commit": results["versions"]["ringspun"],
        "machine": document.machine_of(results),
        "began": results["began"],
        "rounds": results["plan"]["rounds"],
        "ratios": ratios,
        "counts": counts,
    }


def read():
    if not os.path.exists(LINES):
        return []
    with open(LINES) as file:
        return [json.loads(line) for line in file]


def add(results, release):
    """Adds the line of a release, in place of one that this machine has for it already."""
    line = line_of(results, release)
    lines = [kept for kept in read() if (kept["release"], kept["machine"]) != (release, line["machine"])] + [line]
    lines.sort(key=lambda line: line["began"])
    with open(LINES, "w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    write_page(lines)


def write_page(lines):
    parts = ["# Figures over time\n", "Written by `./scripts/compare --history RELEASE`: how the results of each release compared with the best peer of the same run, by machine. The data are in [history.jsonl](history.jsonl).\n"]
    for machine in dict.fromkeys(line["machine"] for line in lines):
        own = [line for line in lines if line["machine"] == machine]
        parts.append(f"## {machine}\n")
        head = ["release", "commit", "measured", "rounds", "instructions per request, 64 connections"]
        rows = [[line["release"], line["commit"], line["began"], str(line["rounds"]), count_text(line["counts"])] for line in own]
        parts.append(table(head, rows))
        for measure in COMPARED:
            name = f"history-{machine}-{document.slug(MEASURES[measure])}.svg"
            title = f"{MEASURES[measure]}, over the best peer ({WORDS[measure]})"
            cells = dict.fromkeys(cell for line in own for cell in line["ratios"] if measure in line["ratios"][cell])
            charts = [(cell, [point(line, cell, measure) for line in own]) for cell in cells]
            with open(f"{document.FOLDER}/{name}", "w") as file:
                file.write(line_charts(title, [line["release"] for line in own], charts))
            parts.append(f"![{title}]({name})\n")
    with open(PAGE, "w") as file:
        file.write("\n".join(parts))


def count_text(counts):
    named = (("fibers", "instructions-echo-64"), ("Janet", "instructions-janet-64"))
    return ", ".join(f"{name} {counts[cell]:,.0f}" for name, cell in named if cell in counts) or "-"


def point(line, cell, measure):
    """The ratio and its interval, or None."""
    found = line["ratios"].get(cell, {}).get(measure)
    return found and (found["ratio"], found["low"], found["high"])

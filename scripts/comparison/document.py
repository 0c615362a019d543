"""Writes docs/benchmarks.md, which has the machines side by side, and a page with charts for the machine of this run."""

import glob
import json
import os
import re
import shutil

from cells import LIMITS, OURS, VARIANTS
from charts import bar_chart
from summary import BETTER, figure
from tables import (
    COMPARED, MEASURES, cell_tables, counted_parts, groups_of, rows_of_ratios, rows_of_variants, rows_over_limit, show, table,
)

FOLDER = "docs/benchmarks"
RESULTS = "results.json"


def slug(text):
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def machine_of(results):
    """The name of a machine in paths: its processor and cores."""
    name = re.sub(r"\((r|tm)\)|processor|cpu|@.*", "", results["machine"]["processor"], flags=re.IGNORECASE)
    return slug(f"{name} {results['machine']['cores']} cores")


def path_of(results):
    """Where the results of a machine are."""
    return f"{FOLDER}/{machine_of(results)}/{RESULTS}"


def kind_of(server):
    return "ours" if server == OURS else "variant" if server in VARIANTS else "limit" if server in LIMITS else "peer"


def chart(results, folder, group, cells, measure):
    name = f"{slug(group)}-{slug(MEASURES[measure])}.svg"
    drawn = []
    for cell in cells:
        bars = []
        for server in cell["servers"]:
            found = figure(results["samples"], cell["name"], server, measure)
            if found:
                bars.append((server, kind_of(server), *found))
        drawn.append((f"connections: {cell['title']}", bars))
    title = f"{group}: {MEASURES[measure]} ({BETTER[measure]} is better)"
    with open(f"{FOLDER}/{folder}/{name}", "w") as file:
        file.write(bar_chart(title, drawn, lambda value: show(measure, value)))
    return f"![{title}]({folder}/{name})\n"


def about_run(results):
    plan = results["plan"]
    kept = f"{plan['rounds']} round{'s' if plan['rounds'] > 1 else ''} of {plan['duration_s']} s after {plan['warmup_s']} s of warm-up"
    text = f"Written by `{results['command']}` on {results['began']} in {results['took_s'] / 60:.0f} minutes.\n\n"
    if results["quick"]:
        text += f"**This is a quick run: {kept} per server and cell, and counts at 64 connections only. A run without `--quick` tells finer differences apart, and replaces it.**\n\n"
    machine = results["machine"]
    text += f"""- Machine: {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}, virtualization: {machine['virtualization']}, {machine['open_files_max']:,} open files.
- Versions: {', '.join(version if name in version else f'{name} {version}' for name, version in results['versions'].items())}.
- Each sample: the server on core 0, `ringspun load` on core 1 in a closed loop, {kept}.
- All samples are in [{RESULTS}]({machine_of(results)}/{RESULTS}).
"""
    for again in results.get("again", []):
        text += f"- Measured again by `{again['command']}` on {again['began']}, with ringspun {again['ringspun']}: {', '.join(again['cells'])}.\n"
    return text


def page(results):
    """All figures of a machine, with charts."""
    folder = machine_of(results)
    parts = [f"# Benchmarks: {results['machine']['processor']}, {results['machine']['cores']} cores\n", about_run(results)]
    for group, cells in groups_of(results).items():
        parts.append(f"## {group}\n")
        parts += [chart(results, folder, group, cells, measure) for measure in COMPARED]
        parts.append("Medians of the rounds.\n")
        parts.append(cell_tables(results, group, cells))
    parts.append("## Counts and memory\n")
    parts.append("Instructions are of user code, and exact: the server is stepped through rounds in which all (or so many) connections have sent 64 bytes at once, and the median of the rounds is told, with their range where they differ, as they do when garbage is collected. Where stepping would take an hour, and for system calls (`strace -c`), a count is the difference of two runs of different length, so that neither the start nor the connections are in it. A `-` was not tried, as it would take hours. Idle connections have carried one echo.\n")
    parts += [f"### {title}\n\n{text}" for title, text in counted_parts(results)]
    if results["failures"]:
        parts.append("## What could not be measured\n")
        parts.append("\n".join(f"- {f['cell']}, {f['server']}: {f['failure']}" for f in results["failures"]) + "\n")
    return "\n".join(parts)


def side_by_side(machines, function, head, columns):
    """One table with the rows of all machines; `columns` of each."""
    found = {title: function(results) for title, results in machines.items()}
    keys = dict.fromkeys(key for rows in found.values() for key in rows)
    rows = [[*key, *(entry for of in found.values() for entry in of.get(key, ["-"] * len(columns)))] for key in keys]
    heads = [f"{column}<br>{title}" if len(machines) > 1 else column for title in found for column in columns]
    return table([*head, *heads], rows)


def overview(machines):
    """What is the same everywhere, and what differs by machine."""
    runs = "".join(
        f"- **{title}**: ringspun {results['versions']['ringspun']}, {results['began']}, {results['plan']['rounds']} rounds; [all figures]"
        f"(benchmarks/{machine_of(results)}.md)\n"
        for title, results in machines.items()
    )
    with open(f"{FOLDER}/targets.md") as file:
        # What was aimed at, and what stands in the way: written by people.
        targets = file.read()
    return f"""# Benchmarks

Written by `./scripts/compare`, which adds the machine that it runs on, or replaces what it found there before:

{runs}
Servers differ by machine in what a wake-up costs, and in what fits into a cache: only figures of the same run can be compared.

- The server is on one core, `ringspun load` on another, in a closed loop. The servers of a cell take turns within each round.
- A ratio is the median of the ratios within each round, with the interval in which the true one lies with 95 % certainty, by the order of the rounds' values alone (below six rounds: their range). Where the ratio of the medians differs by more than 0.02, it stands beside it. "Ahead" and "behind" are said only where all of the interval says so.
- Where the generator is busy above 90 %, requests per second and times are of the pair of both, and the server's CPU time per request (user and system, from `/proc/PID/stat`) is what tells servers apart.
- Peers read into buffers of the size that their documentation uses (1 KiB and more), and of 64 KiB where messages are as long.
- A server that is more loaded does more in one turn: CPU time per request falls with load for all of them.
- `bare` is a loop on io_uring for this one purpose, without fibers, timers or a second protocol: the limit, not a peer. `stock` is the same Janet VM on its own event loop.
- Virtual machines, loopback only: no network card, no distance, no second client machine.

## Against the best peer

Requests per second: above 1 is better. Server CPU per request: below 1 is better.

{side_by_side(machines, rows_of_ratios, ["cell", "measure"], ["best peer", "ratio", "ringspun is"])}
## Over the limit

Server CPU per request, over that of the bare loop.

{side_by_side(machines, rows_over_limit, ["cell", "limit"], ["ratio"])}
## Other choices

By default, a loop busy-polls only where it expects that to take no more processor time than sleeping. `latency` is `RINGSPUN_SPIN=latency`, `no spin` is `RINGSPUN_SPIN=off`, and `poll` is `RINGSPUN_BACKEND=poll`. Runs before 2026-11-29 did not measure these.

{side_by_side(machines, rows_of_variants, ["cell", "choice"], ["ratio"])}
{targets}"""


def write(results):
    """Replaces this machine's results, and writes the documents anew."""
    path = path_of(results)
    shutil.rmtree(os.path.dirname(path), ignore_errors=True)
    os.makedirs(os.path.dirname(path))
    with open(path, "w") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    write_documents()


def write_documents():
    """Writes the documents from the results of all machines."""
    machines = {}
    for path in sorted(glob.glob(f"{FOLDER}/*/{RESULTS}")):
        with open(path) as file:
            results = json.load(file)
        machines[f"{results['machine']['processor'].replace('(R)', '')}, {results['machine']['cores']} cores"] = results
        with open(f"{FOLDER}/{machine_of(results)}.md", "w") as file:
            file.write(page(results))
    with open("docs/benchmarks.md", "w") as file:
        file.write(overview(machines))

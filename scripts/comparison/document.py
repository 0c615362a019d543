"""Writes docs/benchmarks.md with its charts, from what was measured."""

import json
import os
import re

from cells import LIMITS, OURS
from charts import bar_chart
from summary import BETTER, against_best_peer, figure, spread, values_of, verdict

FOLDER = "docs/benchmarks"
MEASURES = {
    "requests_per_s": "requests/s",
    "p50_us": "p50",
    "p99_us": "p99",
    "p99_9_us": "p99.9",
    "server_us_per_request": "server CPU per request",
}
COMPARED = ("requests_per_s", "server_us_per_request")


def show(measure, value):
    if value is None:
        return "-"
    if measure == "requests_per_s":
        return f"{value:,.0f}"
    return f"{value / 1000:,.1f} ms" if value >= 10_000 else f"{value:,.2f} µs" if value < 100 else f"{value:,.0f} µs"


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def groups_of(results):
    groups = {}
    for cell in results["cells"]:
        groups.setdefault(cell["group"], []).append(cell)
    return groups


def slug(text):
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def kind_of(server):
    return "ours" if server == OURS else "limit" if server in LIMITS else "peer"


def ratios(results):
    """Every cell against its best peer, those where the peer is ahead like the others."""
    rows = []
    for cell in results["cells"]:
        for measure in COMPARED:
            found = against_best_peer(results["samples"], cell["name"], cell["servers"], measure)
            row = [f"{cell['group']}, {cell['title']}", MEASURES[measure]]
            if not found:
                rows.append(row + ["-", "-", "-", "no peer has this"])
                continue
            best, *ratio = found
            middle, least, most = ratio
            rows.append(row + [best, f"{middle:.2f}", f"{least:.2f}-{most:.2f}", verdict(measure, *ratio)])
    return table(["cell", "measure", "best peer", "ringspun / best peer", "range", "ringspun is"], rows)


def cell_tables(results, group, cells):
    parts = []
    for cell in cells:
        rows = []
        for server in cell["servers"]:
            shown = [show(measure, (figure(results["samples"], cell["name"], server, measure) or [None])[0]) for measure in MEASURES]
            busy = spread(list(values_of(results["samples"], cell["name"], server, "generator_busy_percent").values()))
            errors = sum(values_of(results["samples"], cell["name"], server, "errors").values())
            rows.append([server, *shown, f"{busy[0]:.0f} %" if busy else "-", f"{errors:,}" if busy else "-"])
        head = ["server", *MEASURES.values(), "generator busy", "errors"]
        parts.append(f"{group}; connections: {cell['title']}\n\n{table(head, rows)}")
    return "\n".join(parts)


def per_request(results, prefix):
    """Counts by server, one column for each number of connections."""
    chosen = [count for count in results["counts"] if count["cell"].startswith(prefix)]
    columns = list(dict.fromkeys(count["cell"] for count in chosen))
    servers = list(dict.fromkeys(count["server"] for count in chosen))
    failed = {(f["cell"], f["server"]): f["failure"] for f in results["failures"]}
    servers += [server for cell, server in failed if cell.startswith(prefix) and server not in servers]
    columns += [cell for cell, _ in failed if cell.startswith(prefix) and cell not in columns]
    columns.sort(key=lambda cell: int(cell.rsplit("-", 1)[1]))
    found = {(count["cell"], count["server"]): count for count in chosen}

    def entry(cell, server):
        count = found.get((cell, server))
        if count is None:
            return failed.get((cell, server), "-").removeprefix(f"{server} ")
        value, rounds = count["per_request"], count.get("rounds", [])
        text = f"{value:,.0f}" if value >= 100 else f"{value:.3f}"
        # Rounds in which garbage was collected.
        text += f" ({min(rounds):,.0f}-{max(rounds):,.0f})" if rounds and max(rounds) > 1.02 * min(rounds) else ""
        return text + (" (callgrind)" if count.get("counted_by") == "callgrind" else "")

    def title(cell):
        connections = int(cell.rsplit("-", 1)[1])
        active = {count["active"] for count in chosen if count["cell"] == cell and "active" in count} - {connections}
        return f"{connections:,} connections{f', {active.pop()} of them active' if active else ''}"

    head = ["server", *(title(cell) for cell in columns)]
    return table(head, [[server, *(entry(cell, server) for cell in columns)] for server in servers]) if servers else ""


def memory_table(results, cell):
    rows = [
        [
            found["server"],
            f"{found['few_connections_bytes'] / 2**20:.1f} MiB",
            f"{found['bytes_per_idle_connection']:,.0f}",
            f"{found['burst_bytes'] / 2**20:.1f} MiB",
            f"{found['after_burst_bytes'] / 2**20:.1f} MiB",
            f"{found['given_back_percent']:.0f} %",
        ]
        for found in results["memory"]
        if found["cell"] == cell
    ]
    head = ["server", "10 connections", "bytes per idle connection", "15,000 connections", "10 again", "given back"]
    return table(head, rows) if rows else ""


def tables(results):
    """All figures as text: what a run of chosen cells prints."""
    parts = [ratios(results)] if results["cells"] else []
    parts += [cell_tables(results, group, cells) for group, cells in groups_of(results).items()]
    for title, text in counted_parts(results):
        parts.append(f"{title}\n\n{text}")
    parts += [f"{failure['cell']}, {failure['server']}: {failure['failure']}" for failure in results["failures"]]
    return "\n".join(parts)


def counted_parts(results):
    parts = []
    for group, title in (("echo", "TCP echo servers"), ("janet", "examples/echo.janet")):
        parts.append((f"User instructions per request, {title}", per_request(results, f"instructions-{group}")))
        parts.append((f"System calls per request, {title}", per_request(results, f"calls-{group}")))
        parts.append((f"Resident memory, {title}", memory_table(results, f"memory-{group}")))
    fibers = results["parked_fibers"]
    if fibers:
        text = f"{fibers['fibers']:,} parked fibers in one thread: {fibers['resident_bytes_per_fiber']:,} bytes resident for each, {fibers['nanoseconds_per_fiber']:,} ns to start and park each.\n"
        parts.append(("Parked fibers", text))
    return [part for part in parts if part[1]]


def chart(results, group, cells, measure):
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
    with open(f"{FOLDER}/{name}", "w") as file:
        file.write(bar_chart(title, drawn, lambda value: show(measure, value)))
    return f"![{title}](benchmarks/{name})\n"


def about(results):
    machine, plan = results["machine"], results["plan"]
    kept = f"{plan['rounds']} round{'s' if plan['rounds'] > 1 else ''} of {plan['duration_s']} s after {plan['warmup_s']} s of warm-up"
    text = f"""# Benchmarks

Written by `{results['command']}`, which repeats it, on {results['began']} in {results['took_s'] / 60:.0f} minutes; all
samples are in [benchmarks/results.json](benchmarks/results.json).

"""
    if results["quick"]:
        text += f"**This is a quick run: {kept} per server and cell, and counts at 64 connections only. A run without `--quick` tells finer differences apart, and replaces it.**\n\n"
    if plan["rounds"] == 1:
        text += "With one round, a range is one value, and \"ahead\" says nothing about the next round.\n\n"
    text += f"""- Machine: {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}, virtualization: {machine['virtualization']}, {machine['open_files_max']:,} open files.
- Versions: {', '.join(version if name in version else f'{name} {version}' for name, version in results['versions'].items())}.
- Each sample: the server on core 0, `ringspun load` on core 1 in a closed loop, {kept}. The servers of a cell take turns within each round; ratios are of samples of the same round, and the table has the median and the range of them.
- Where the generator is busy above 90 %, requests per second and times are of the pair of both, and the server's CPU time per request (user and system, from `/proc/PID/stat`) is what tells servers apart.
- Peers read into buffers of the size that their documentation uses (1 KiB and more), and of 64 KiB where messages are as long.
- A server that is more loaded does more in one turn: CPU time per request falls with load for all of them.
- `bare` is a loop on io_uring for this one purpose, without fibers, timers or a second protocol: the limit, not a peer. `stock` is the same Janet VM on its own event loop.
- One virtual machine, loopback only: no network card, no distance, no second client machine.
"""
    for again in results.get("again", []):
        text += f"- Measured again by `{again['command']}` on {again['began']}, with ringspun {again['ringspun']}: {', '.join(again['cells'])}.\n"
    return text


def write(results):
    os.makedirs(FOLDER, exist_ok=True)
    for old in os.listdir(FOLDER):
        if old.endswith(".svg"):
            os.remove(f"{FOLDER}/{old}")
    parts = [about(results), "## Against the best peer\n"]
    parts.append("Requests per second: above 1 is better. Server CPU per request: below 1 is better.\n")
    parts.append(ratios(results))
    for group, cells in groups_of(results).items():
        parts.append(f"## {group}\n")
        parts += [chart(results, group, cells, measure) for measure in COMPARED]
        parts.append("Medians of the rounds.\n")
        parts.append(cell_tables(results, group, cells))
    parts.append("## Counts and memory\n")
    parts.append("Instructions are of user code, and exact: the server is stepped through rounds in which all (or so many) connections have sent 64 bytes at once, and the median of the rounds is told, with their range where they differ, as they do when garbage is collected. Where stepping would take an hour, and for system calls (`strace -c`), a count is the difference of two runs of different length, so that neither the start nor the connections are in it. A `-` was not tried, as it would take hours. Idle connections have carried one echo.\n")
    parts += [f"### {title}\n\n{text}" for title, text in counted_parts(results)]
    with open(f"{FOLDER}/targets.md") as file:
        # What was aimed at, and what stands in the way: written by people.
        parts.append(file.read())
    if results["failures"]:
        parts.append("## What could not be measured\n")
        parts.append("\n".join(f"- {f['cell']}, {f['server']}: {f['failure']}" for f in results["failures"]) + "\n")
    with open("docs/benchmarks.md", "w") as file:
        file.write("\n".join(parts))
    with open(f"{FOLDER}/results.json", "w") as file:
        json.dump(results, file, indent=1)
        file.write("\n")

"""The tables of one run: every figure of each cell, counts and memory."""

from cells import HYPER, LIMITS, POLL, VARIANTS
from summary import against, against_best_peer, figure, spread, values_of, verdict

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


def named(ratio):
    """A ratio in a few characters: the median, its interval, and the ratio of the medians if that says otherwise."""
    text = f"{ratio.middle:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
    return text + (f", of medians {ratio.of_medians:.2f}" if abs(ratio.of_medians - ratio.middle) > 0.02 else "")


def rows_of_ratios(results):
    """Every cell against its best peer, those where the peer is ahead like the others: by cell and measure."""
    rows = {}
    for cell in results["cells"]:
        for measure in COMPARED:
            found = against_best_peer(results["samples"], cell["name"], cell["servers"], measure)
            key = f"{cell['group']}, {cell['title']}", MEASURES[measure]
            rows[key] = [found.server, named(found), verdict(measure, found)] if found else ["-", "-", "no peer"]
    return rows


def rows_over_limit(results):
    """CPU over that of the bare loop, by cell."""
    rows, measure = {}, "server_us_per_request"
    for cell in results["cells"]:
        for limit in sorted(LIMITS & set(cell["servers"])):
            found = against(results["samples"], cell["name"], limit, measure)
            if found:
                rows[(f"{cell['group']}, {cell['title']}", limit)] = [named(found)]
    return rows


def rows_of_variants(results):
    """What other choices give: ours over each, and poll over its best peer."""
    rows = {}
    for cell in results["cells"]:
        title = f"{cell['group']}, {cell['title']}"
        for variant in (name for name in VARIANTS if name in cell["servers"]):
            for measure in COMPARED:
                found = against(results["samples"], cell["name"], variant, measure)
                if found:
                    rows[(title, f"ringspun / {variant}, {MEASURES[measure]}")] = [named(found)]
        for variant, peer in ((POLL, "tokio"), (HYPER, "hyper")):
            if variant not in cell["servers"]:
                continue
            for measure in COMPARED:
                found = against(results["samples"], cell["name"], peer, measure, variant)
                if found:
                    rows[(title, f"{variant} / {peer}, {MEASURES[measure]}")] = [named(found)]
    return rows


def cell_tables(results, group, cells):
    parts = []
    for cell in cells:
        rows = []
        for server in cell["servers"]:
            shown = [show(measure, (figure(results["samples"], cell["name"], server, measure) or [None])[0]) for measure in MEASURES]
            busy = spread(list(values_of(results["samples"], cell["name"], server, "generator_busy_percent").values()))
            errors = sum(values_of(results["samples"], cell["name"], server, "errors").values())
            uneven = spread(list(values_of(results["samples"], cell["name"], server, "busiest_worker").values()))
            last = [f"{uneven[0]:.2f}"] if uneven else []
            rows.append([server, *shown, f"{busy[0]:.0f} %" if busy else "-", f"{errors:,}" if busy else "-", *last])
        head = ["server", *MEASURES.values(), "generator busy", "errors"]
        head += ["busiest worker / mean"] if len(rows[0]) > len(head) else []
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


def tables(results):
    """All figures as text: what a run of chosen cells prints."""
    heads = (
        (rows_of_ratios, ["cell", "measure", "best peer", "ringspun / best peer", "ringspun is"]),
        (rows_over_limit, ["cell", "limit", "server CPU per request over it"]),
        (rows_of_variants, ["cell", "choice", "ratio"]),
    )
    parts = []
    for function, head in heads:
        rows = function(results)
        parts += [table(head, [[*key, *row] for key, row in rows.items()])] if rows else []
    parts += [cell_tables(results, group, cells) for group, cells in groups_of(results).items()]
    parts += [f"{title}\n\n{text}" for title, text in counted_parts(results)]
    parts += [f"{failure['cell']}, {failure['server']}: {failure['failure']}" for failure in results["failures"]]
    return "\n".join(parts)

"""Measures what a connection takes at several sizes: see scripts/measures/scale.sh, which builds all and starts this."""

import argparse
import json
import os
import platform
import re
import resource
import signal
import sys
import time

from connections import Clients
from many_connections import measure_many
from servers import RINGSPUN, Failure, Running, Server, raise_open_files

SERVERS = {
    # Blocking sockets that nobody waits on: what the others add to its sockets is their wait.
    "plain": Server("plain", (sys.executable, os.path.join(os.path.dirname(__file__), "plain_server.py"))),
    "uring": Server("uring", (RINGSPUN, "serve", "echo", "--workers", "1", "--tcp", "127.0.0.1:0"), environment={"RINGSPUN_BACKEND": "uring"}),
    "poll": Server("poll", (RINGSPUN, "serve", "echo", "--workers", "1", "--tcp", "127.0.0.1:0"), environment={"RINGSPUN_BACKEND": "poll"}),
    "tls-uring": Server("tls-uring", (RINGSPUN, "serve", "echo", "--workers", "1", "--tls", "127.0.0.1:0", "--self-signed"), environment={"RINGSPUN_BACKEND": "uring"}),
    "tls-poll": Server("tls-poll", (RINGSPUN, "serve", "echo", "--workers", "1", "--tls", "127.0.0.1:0", "--self-signed"), environment={"RINGSPUN_BACKEND": "poll"}),
    "janet": Server("janet", (RINGSPUN, "janet", "examples/echo.janet"), environment={"RINGSPUN_NET": "ring"}),
}
# Open before the first reading, so that what a server makes once is not in what a connection takes.
FIRST_CONNECTIONS = 10
ROUNDS, SETTLE_S = 3, 0.5
# Both ends of a connection are on this machine, and each has one of these. The last is there with security modules.
PAIRED_SLABS = ("TCP", "sock_inode_cache", "filp", "dentry", "lsm_file_cache")
# What may be allocated for a connection besides, by names under which the kernel merges caches of the same size.
OTHER_SLABS = re.compile(r"io_kiocb|eventpoll|ep_head|anon_vma_chain|kmalloc-(cg-)?\d|tcp_bind")
MESSAGE_SLABS = re.compile(r"skbuff_|kmalloc-(cg-)?\d")


def read(path):
    with open(path) as file:
        return file.read()


def slab_bytes():
    """The memory of the objects of each of the kernel's caches, or nothing where that may not be read."""
    try:
        lines = read("/proc/slabinfo").splitlines()[2:]
    except PermissionError:
        return {}
    found = {}
    for line in lines:
        name, objects, _, _, objects_per_slab, pages_per_slab = line.split()[:6]
        found[name] = int(objects) * int(pages_per_slab) * resource.getpagesize() / int(objects_per_slab)
    return found


def snapshot(process):
    """What the server and the kernel hold now, in bytes."""
    status, maps = read(f"/proc/{process}/status"), read(f"/proc/{process}/smaps")
    kib = lambda name, text: sum(int(number) for number in re.findall(rf"^{name}:\s+(\d+)", text, re.M)) * 1024
    # Stacks are mapped ahead, without a reserve, as nothing else here is.
    areas = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", maps, flags=re.M)
    stacks = sum(kib("Rss", area) for area in areas if re.search(r"^VmFlags:.* nr\b", area, re.M))
    return {
        # Exact, as the sum in `status` is not.
        "resident": kib("Rss", maps),
        "stacks": stacks,
        "page_tables": kib("VmPTE", status),
        "socket_buffers": int(re.search(r"^TCP:.* mem (\d+)", read("/proc/net/sockstat"), re.M)[1]) * resource.getpagesize(),
        "slabs": slab_bytes(),
    }


def per_connection(before, after, connections):
    """Bytes per connection of the server, and of the kernel."""
    change = lambda name: (after[name] - before[name]) / connections
    slabs = {name: (after["slabs"].get(name, 0) - size) / connections for name, size in before["slabs"].items()}
    figures = {
        "resident": change("resident"),
        "stacks": change("stacks"),
        "other_resident": change("resident") - change("stacks"),
        "page_tables": change("page_tables"),
        "charged_buffers": change("socket_buffers"),
    }
    if slabs:
        figures["socket"] = sum(slabs.get(name, 0) for name in PAIRED_SLABS) / 2
        # Of both ends, until what a plain server has is taken away.
        figures["wait"] = sum(size for name, size in slabs.items() if OTHER_SLABS.match(name))
        figures["messages"] = sum(size for name, size in slabs.items() if MESSAGE_SLABS.match(name))
        figures["slabs"] = {name: round(size, 1) for name, size in slabs.items() if abs(size) >= 8}
    return figures


def measure(server, count):
    """One server that holds so many connections."""
    with Running(server) as running:
        process, clients = running.process.pid, Clients(running.address, server.name.startswith("tls"))
        try:
            clients.open_up_to(FIRST_CONNECTIONS)
            clients.echo()
            time.sleep(SETTLE_S)
            before = snapshot(process)
            began = time.monotonic()
            clients.open_up_to(FIRST_CONNECTIONS + count)
            connected = time.monotonic()
            # Until the server has served each of them.
            clients.echo()
            echoed = time.monotonic()
            for _ in range(ROUNDS - 1):
                clients.echo()
            time.sleep(SETTLE_S)
            idle = snapshot(process)
            # A message waits on every connection.
            running.process.send_signal(signal.SIGSTOP)
            clients.send()
            waiting = snapshot(process)
            running.process.send_signal(signal.SIGCONT)
            clients.receive()
        finally:
            running.process.send_signal(signal.SIGCONT)
            clients.close()
    queued = per_connection(idle, waiting, len(clients.connections))
    return {
        "server": server.name,
        "connections": count,
        "resident_before_bytes": before["resident"],
        "per_connection_bytes": per_connection(before, idle, count),
        "waiting_message_bytes": {"charged": queued["charged_buffers"], "kernel": queued.get("messages")},
        "connect_s": connected - began,
        "first_echoes_s": echoed - connected,
    }


def without_plain(samples):
    """Takes from each what plain sockets of the same number have as well, the client's side among it."""
    plain = {sample["connections"]: sample["per_connection_bytes"] for sample in samples if sample["server"] == "plain"}
    for sample in samples:
        figures, other = sample["per_connection_bytes"], plain.get(sample["connections"])
        if sample["server"] != "plain" and "wait" in figures:
            figures["wait"] = figures["wait"] - other["wait"] if other else None
    return samples


ROWS = {
    "resident": "server: resident",
    "stacks": "  of that, stacks of fibers",
    "other_resident": "  of that, the rest",
    "page_tables": "kernel: page tables",
    "socket": "kernel: socket and file",
    "wait": "kernel: the armed wait",
}


def table(samples):
    for name in dict.fromkeys(sample["server"] for sample in samples if sample["server"] != "plain"):
        chosen = [sample for sample in samples if sample["server"] == name]
        row = lambda title, values: print(f"{title:36}" + "".join(f"{'-' if value is None else f'{value:,.0f}':>10}" for value in values))
        figures = [sample["per_connection_bytes"] for sample in chosen]
        print(f"\n{name}: bytes per idle connection\n")
        row("connections", [sample["connections"] for sample in chosen])
        for key, title in ROWS.items():
            row(title, [figure.get(key) for figure in figures])
        sums = [figure.get("wait") and sum(figure[key] for key in ("resident", "page_tables", "socket", "wait")) for figure in figures]
        row("all of that", sums)
        row("a message of 64 bytes that waits", [sample["waiting_message_bytes"]["kernel"] for sample in chosen])
        row("  charged against tcp_mem", [sample["waiting_message_bytes"]["charged"] for sample in chosen])
        row("connecting all, ms", [sample["connect_s"] * 1000 for sample in chosen])
        row("the first echo of all, ms", [sample["first_echoes_s"] * 1000 for sample in chosen])


# What both ends of a connection take, by far.
MEMORY_PER_CONNECTION = 24 * 1024


def many(names, total, files):
    """Very many connections at once, over several processes."""
    available = int(re.search(r"^MemAvailable:\s+(\d+)", read("/proc/meminfo"), re.M)[1]) * 1024
    if available < total * MEMORY_PER_CONNECTION:
        sys.exit(f"SKIPPED {total:,} connections: {available >> 20:,} MiB of memory are available")
    samples = []
    for name in names:
        try:
            sample = measure_many(SERVERS[name], total, files, snapshot, SETTLE_S)
        except Failure as failure:
            sys.exit(f"{name} with {total:,} connections: {failure}")
        count = total - sample["processes"]
        figures = per_connection(sample.pop("before"), sample.pop("after"), count)
        figures.pop("messages", None)
        sample["per_connection_bytes"] = figures
        samples.append(sample)
        print(f"\n{name}: {total:,} connections echo at once, {sample['processes']} servers and as many clients\n")
        print(f"{'connecting all, s':36}{sample['connect_s']:>10.1f}")
        for number, (sent, received) in enumerate(zip(sample["sent_s"], sample["received_s"]), 1):
            print(f"{f'echo {number}: all sent, all received, s':36}{sent:>10.1f}{received:>10.1f}")
        print("bytes per idle connection then:")
        for key, title in ROWS.items():
            # What the clients wait with is in the last one: see `without_plain`.
            if key in figures and key != "wait":
                print(f"{title:36}{figures[key]:>10,.0f}")
    return samples


def write(path, samples):
    if path:
        with open(os.path.join(os.environ["RINGSPUN_CALLER"], path), "w") as file:
            json.dump({"format": "ringspun-scale", "version": 1, "kernel": platform.release(), "samples": samples}, file, indent=1)


def main():
    parser = argparse.ArgumentParser(prog="measure-scale", add_help=False)
    parser.add_argument("--sizes", default="1000,5000,19000")
    parser.add_argument("--servers", default="uring,poll,janet")
    parser.add_argument("--connections", type=int)
    parser.add_argument("--json")
    options = parser.parse_args()
    files = raise_open_files()
    names = options.servers.split(",")
    if unknown := [name for name in names if name not in SERVERS]:
        sys.exit(f"--servers {unknown[0]}: expected some of {','.join(SERVERS)}")
    if options.connections is not None:
        if options.connections < 1:
            sys.exit(f"--connections {options.connections}: expected a positive number")
        return write(options.json, many(names, options.connections, files))
    samples = []
    for name in ["plain", *names]:
        for text in options.sizes.split(","):
            size = int(text)
            if size + FIRST_CONNECTIONS + 100 > files:
                print(f"SKIPPED {name} with {size} connections: a process may open {files} files", file=sys.stderr)
                continue
            try:
                samples.append(measure(SERVERS[name], size))
            except Failure as failure:
                sys.exit(f"{name} with {size} connections: {failure}")
    if not slab_bytes():
        print("SKIPPED the kernel's caches: only root may read /proc/slabinfo", file=sys.stderr)
    table(without_plain(samples))
    write(options.json, samples)


if __name__ == "__main__":
    main()

"""Measures what a connection takes at several sizes: see scripts/measure-scale, which builds all and starts this."""

import argparse
import json
import os
import platform
import re
import resource
import signal
import socket
import struct
import sys
import time

from servers import RINGSPUN, Failure, Running, Server, raise_open_files

SERVERS = {
    "uring": Server("uring", (RINGSPUN, "serve", "echo", "--tcp", "127.0.0.1:0"), environment={"RINGSPUN_BACKEND": "uring"}),
    "poll": Server("poll", (RINGSPUN, "serve", "echo", "--tcp", "127.0.0.1:0"), environment={"RINGSPUN_BACKEND": "poll"}),
    "janet": Server("janet", (RINGSPUN, "janet", "examples/echo.janet"), environment={"RINGSPUN_NET": "ring"}),
}
# Open before the first reading, so that what a server makes once is not in what a connection takes.
FIRST_CONNECTIONS = 10
MESSAGE, ROUNDS, SETTLE_S = b"x" * 64, 3, 0.5
# Both ends of a connection are on this machine, and each has one of these.
PAIRED_SLABS = ("TCP", "sock_inode_cache", "filp", "dentry")
# Only the server waits with these: for an armed operation of io_uring, and for epoll.
SERVER_SLABS = ("io_kiocb", "eventpoll_epi")
OTHER_SLABS = re.compile(r"kmalloc-(cg-)?\d|skbuff_|tcp_bind|request_sock_TCP$|eventpoll_pwq|ep_head")
MIB, GIB = 2**20, 2**30


def read(path):
    with open(path) as file:
        return file.read()


def slab_bytes():
    """The memory of each cache of the kernel, or nothing where it may not be read."""
    try:
        lines = read("/proc/slabinfo").splitlines()[2:]
    except PermissionError:
        return {}
    found = {}
    for line in lines:
        head, _, tail = line.partition(": tunables")
        name, *counts = head.split()
        slabs = int(tail.split("slabdata")[1].split()[1])
        found[name] = slabs * int(counts[4]) * resource.getpagesize()
    return found


def snapshot(process):
    """What the server and the kernel hold now, in bytes."""
    status, maps = read(f"/proc/{process}/status"), read(f"/proc/{process}/smaps")
    kib = lambda name, text: sum(int(number) for number in re.findall(rf"^{name}:\s+(\d+)", text, re.M)) * 1024
    # Stacks are mapped ahead, without a reserve, as nothing else here is.
    areas = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", maps, flags=re.M)
    stacks = sum(kib("Rss", area) for area in areas if re.search(r"^VmFlags:.* nr\b", area, re.M))
    memory = read("/proc/meminfo")
    return {
        "resident": kib("VmRSS", status),
        "stacks": stacks,
        "page_tables": kib("VmPTE", status),
        "socket_buffers": int(re.search(r"^TCP:.* mem (\d+)", read("/proc/net/sockstat"), re.M)[1]) * resource.getpagesize(),
        "free": kib("MemFree", memory) + kib("Cached", memory) + kib("Buffers", memory),
        "own": kib("VmRSS", read("/proc/self/status")) + kib("VmPTE", read("/proc/self/status")),
        "slabs": slab_bytes(),
    }


def per_connection(before, after, connections):
    """Bytes per connection at the server's end, and what both ends and the kernel took together."""
    change = lambda name: (after[name] - before[name]) / connections
    slabs = {name: (after["slabs"].get(name, 0) - bytes_before) / connections for name, bytes_before in before["slabs"].items()}
    figures = {
        "resident": change("resident"),
        "stacks": change("stacks"),
        "other_resident": change("resident") - change("stacks"),
        "page_tables": change("page_tables"),
        "socket_buffers": change("socket_buffers") / 2,
        "machine": -change("free") - change("own"),
    }
    if slabs:
        figures["socket_slabs"] = sum(slabs.get(name, 0) for name in PAIRED_SLABS) / 2
        figures["wait_slabs"] = sum(slabs.get(name, 0) for name in SERVER_SLABS)
        figures["other_slabs"] = sum(size for name, size in slabs.items() if OTHER_SLABS.match(name))
        figures["slabs"] = {name: round(size, 1) for name, size in slabs.items() if abs(size) >= 8}
    return figures


class Clients:
    """Connections that are driven all at once."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.address, self.connections = (host, int(port)), []

    def open_up_to(self, count):
        while len(self.connections) < count:
            connection = socket.create_connection(self.address, timeout=60)
            # Closed with a reset, so that no port is kept for a minute and the next size finds them all.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connections.append(connection)

    def send(self):
        for connection in self.connections:
            connection.sendall(MESSAGE)

    def receive(self):
        for number, connection in enumerate(self.connections):
            received = b""
            while len(received) < len(MESSAGE):
                part = connection.recv(len(MESSAGE) - len(received))
                if not part:
                    raise Failure(f"connection {number + 1} was closed")
                received += part
            if received != MESSAGE:
                raise Failure(f"connection {number + 1} got back what it did not send")

    def echo(self):
        self.send()
        self.receive()

    def close(self):
        for connection in self.connections:
            connection.close()


def measure(server, count):
    """One server that holds so many connections."""
    with Running(server) as running:
        process, clients = running.process.pid, Clients(running.address)
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
    figures = per_connection(before, idle, count)
    queued = (waiting["socket_buffers"] - idle["socket_buffers"]) / len(clients.connections)
    queued_slabs = per_connection(idle, waiting, len(clients.connections)).get("other_slabs")
    return {
        "server": server.name,
        "connections": count,
        "resident_before_bytes": before["resident"],
        "per_connection_bytes": figures,
        "message_waiting_bytes": max(queued, queued_slabs or 0),
        "connect_s": connected - began,
        "first_echoes_s": echoed - connected,
    }


COLUMNS = {
    "resident": "resident",
    "stacks": "  stack pages",
    "other_resident": "  other",
    "page_tables": "page tables",
    "socket_slabs": "socket, file",
    "wait_slabs": "armed wait",
    "socket_buffers": "socket buffers",
    "other_slabs": "other kernel, both ends",
    "machine": "the machine, both ends",
}


def table(samples):
    for name in dict.fromkeys(sample["server"] for sample in samples):
        chosen = [sample for sample in samples if sample["server"] == name]
        print(f"\n{name}: bytes per idle connection\n")
        print(f"{'connections':26}" + "".join(f"{sample['connections']:>10,}" for sample in chosen))
        for key, title in COLUMNS.items():
            row = [sample["per_connection_bytes"].get(key) for sample in chosen]
            print(f"{title:26}" + "".join(f"{value:>10,.0f}" if value is not None else f"{'-':>10}" for value in row))
        print(f"{'a 64-byte message waiting':26}" + "".join(f"{sample['message_waiting_bytes']:>10,.0f}" for sample in chosen))
        print(f"{'connecting, ms':26}" + "".join(f"{sample['connect_s'] * 1000:>10,.0f}" for sample in chosen))
        print(f"{'first echo of each, ms':26}" + "".join(f"{sample['first_echoes_s'] * 1000:>10,.0f}" for sample in chosen))


def main():
    parser = argparse.ArgumentParser(prog="measure-scale", add_help=False)
    parser.add_argument("--sizes", default="1000,5000,19000")
    parser.add_argument("--servers", default="uring,poll,janet")
    parser.add_argument("--json")
    options = parser.parse_args()
    files = raise_open_files()
    samples = []
    for name in options.servers.split(","):
        if name not in SERVERS:
            sys.exit(f"--servers {name}: expected some of {','.join(SERVERS)}")
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
    table(samples)
    if options.json:
        with open(os.path.join(os.environ["MEASURE_CALLER"], options.json), "w") as file:
            json.dump({"format": "ringspun-scale", "version": 1, "kernel": platform.release(), "samples": samples}, file, indent=1)


if __name__ == "__main__":
    main()

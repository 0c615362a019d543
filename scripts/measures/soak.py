"""Serves many connections and echoes, and sees whether anything grows: see scripts/measures/soak.sh, which builds all and starts this."""

import argparse
import json
import os
import platform
import re
import select
import subprocess
import sys
import time

from servers import LOAD_CORE, RINGSPUN, SERVER_CORE, raise_open_files

# A client cannot use a port again for a minute, and an address has 28,000.
ADDRESSES = ",".join(f"127.0.0.{last}" for last in range(2, 254))
CHURNING, STAYING, PIPELINE = 64, 256, 8
# How long the server may take to notice that all connections are closed, and how long a part of the load may take.
SETTLE_S, PART_MAX_S = 30, 1_800
# Pages that the allocator keeps differ from part to part. Of a long run, this is half a byte of each connection.
SLACK_BYTES = 4 << 20
COUNTS = ("fibers", "operations_in_flight", "timers", "buffers_lent", "blocking_calls")


def number(text):
    """10M and 500k are numbers as `ringspun load` writes them."""
    found = re.fullmatch(r"(\d+)([kM]?)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text}: expected a number, such as 500k or 10M")
    return int(found[1]) * {"": 1, "k": 1_000, "M": 1_000_000}[found[2]]


class SoakedServer:
    def __init__(self, backend):
        command = [RINGSPUN, "serve", "echo", "--workers", "1", "--tcp", "127.0.0.1:0", "--statistics"]
        environment = {**os.environ, **({"RINGSPUN_BACKEND": backend} if backend else {})}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
        )
        line = self.process.stdout.readline()
        found = re.match(r"listening on (\S+) \(tcp, (.*)\)", line)
        if not found:
            sys.exit(f"the server did not say where it listens: {line}{self.process.stderr.read()}")
        self.address, self.backend = found[1], found[2]
        # Read all along, as the server must not wait for this program.
        os.set_blocking(self.process.stderr.fileno(), False)
        self.text, self.latest = "", None

    def statistics(self):
        """The last line that was told, and whether it is a new one."""
        part = os.read(self.process.stderr.fileno(), 1 << 20).decode() if self.has_text() else ""
        *lines, self.text = (self.text + part).split("\n")
        if lines:
            self.latest = json.loads(lines[-1])
        return bool(lines)

    def has_text(self):
        return bool(select.select([self.process.stderr], [], [], 0)[0])

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def resident_bytes(self):
        # Exact, as the sum in `status` is not.
        with open(f"/proc/{self.process.pid}/smaps_rollup") as file:
            return int(re.search(r"^Rss:\s+(\d+) kB", file.read(), re.M)[1]) * 1024

    def page_table_bytes(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"^VmPTE:\s+(\d+) kB", file.read(), re.M)[1]) * 1024

    def settled(self, descriptors):
        """What is held when all connections are closed, or when they should have been."""
        give_up = time.monotonic() + SETTLE_S
        while time.monotonic() < give_up and self.descriptors() > descriptors:
            time.sleep(0.05)
        # The second line from here on was counted after that.
        told = 0
        while told < 2 and time.monotonic() < give_up + SETTLE_S:
            told += self.statistics()
            time.sleep(0.05)
        held = {name: self.latest[name] for name in COUNTS}
        return {
            "connections": self.latest["connections"],
            "resident_bytes": self.resident_bytes(),
            "page_table_bytes": self.page_table_bytes(),
            "descriptors": self.descriptors(),
            **held,
        }

    def end(self):
        self.process.terminate()
        try:
            self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()


def load(address, *arguments):
    command = [RINGSPUN, "load", f"tcp://{address}", "--json", "-", "--timeout", "60s", *arguments]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CORE}),
    )


def drive(server, connections, echoes):
    """One part: connections that come, echo once and go, and others that stay and echo all along."""
    churn = load(server.address, "--workload", "churn", "--payload", "64", "--connections", str(CHURNING), "--bind", ADDRESSES, "--count", str(connections))
    stay = load(server.address, "--connections", str(STAYING), "--pipeline", str(PIPELINE), "--payload", "1-2048", "--count", str(echoes - connections))
    done, most = {}, 0
    give_up = time.monotonic() + PART_MAX_S
    while len(done) < 2:
        server.statistics()
        if server.process.poll() is not None:
            sys.exit(f"the server has ended: {server.text}")
        most = max(most, server.resident_bytes())
        for name, process in (("churn", churn), ("echo", stay)):
            if name in done:
                continue
            try:
                output, errors = process.communicate(timeout=0.25)
            except subprocess.TimeoutExpired:
                if time.monotonic() > give_up:
                    churn.kill()
                    stay.kill()
                    sys.exit(f"{name}: a part took more than {PART_MAX_S} s")
                continue
            if process.returncode:
                sys.exit(f"{name}: {errors.strip()}")
            found = json.loads(output)
            if found["errors"]["total"]:
                sys.exit(f"{name}: {json.dumps(found['errors'])}")
            done[name] = found["requests"]["answered"]
    return done["churn"], done["churn"] + done["echo"], most


def show(sample):
    print(
        f"{sample['connections']:>13,}{sample['echoes']:>15,}{sample['resident_bytes'] / 2**20:>11.2f}{sample['resident_most_bytes'] / 2**20:>11.2f}"
        f"{sample['page_table_bytes'] // 1024:>9,}{sample['descriptors']:>8,}" + "".join(f"{sample[name]:>{max(len(name) + 2, 8)}}" for name in COUNTS) + f"{sample['elapsed_s']:>9.0f}",
        flush=True,
    )


def growth(samples):
    """What is more at the end than after the first tenth."""
    first, found = samples[1], []
    for name in ("descriptors", *COUNTS):
        found += [f"{name}: {first[name]} after the first part, {sample[name]} at {sample['connections']:,} connections" for sample in samples[2:] if sample[name] > first[name]][-1:]
    for name in ("resident_bytes", "page_table_bytes"):
        last = samples[-1][name]
        if last > first[name] + SLACK_BYTES:
            found.append(f"{name}: {first[name]:,} after the first part, {last:,} at the end")
    return found


def main():
    parser = argparse.ArgumentParser(prog="soak", add_help=False)
    parser.add_argument("--connections", type=number)
    parser.add_argument("--echoes", type=number)
    parser.add_argument("--parts", type=int, default=10)
    parser.add_argument("--backend", choices=("uring", "poll"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    options = parser.parse_args()
    connections = options.connections or (50_000 if options.quick else 10_000_000)
    echoes = options.echoes or (500_000 if options.quick else 100_000_000)
    if options.parts < 2 or connections < options.parts or echoes < 2 * connections:
        sys.exit("expected 2 parts or more, a connection in each, and twice as many echoes as connections")
    raise_open_files()
    server, began = SoakedServer(options.backend), time.monotonic()
    samples, served, echoed = [], 0, 0
    try:
        print(f"{connections:,} connections and {echoes:,} echoes, ringspun serve echo on {server.backend}; MiB and KiB when all are closed:\n")
        print(f"{'connections':>13}{'echoes':>15}{'resident':>11}{'at most':>11}{'tables':>9}{'files':>8}" + "".join(f"{name:>{max(len(name) + 2, 8)}}" for name in COUNTS) + f"{'seconds':>9}")
        idle = server.descriptors()
        first = server.settled(idle)
        samples.append({**first, "echoes": 0, "resident_most_bytes": first["resident_bytes"], "elapsed_s": 0.0})
        show(samples[0])
        for part in range(options.parts):
            share = lambda total: total * (part + 1) // options.parts - total * part // options.parts
            opened, answered, most = drive(server, share(connections), share(echoes))
            served, echoed = served + opened, echoed + answered
            held = server.settled(idle)
            samples.append({**held, "echoes": echoed, "resident_most_bytes": most, "elapsed_s": time.monotonic() - began})
            show(samples[-1])
    finally:
        server.end()
    grown = growth(samples)
    if served != connections or echoed != echoes:
        grown.append(f"{served:,} connections and {echoed:,} echoes were answered")
    if options.json:
        with open(os.path.join(os.environ["RINGSPUN_CALLER"], options.json), "w") as file:
            json.dump({"format": "ringspun-soak", "version": 1, "kernel": platform.release(), "backend": server.backend, "grown": grown, "samples": samples}, file, indent=1)
    if grown:
        sys.exit("\nGROWN\n" + "\n".join(grown))
    print("\nnothing has grown since the first part")


if __name__ == "__main__":
    main()

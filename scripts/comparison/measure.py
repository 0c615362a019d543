"""Takes the measurements: one sample of a cell, counts per request, and memory."""

import glob
import json
import os
import re
import socket
import subprocess
import tempfile
import time

from servers import BENCHES, END_S, LOAD_CORE, RINGSPUN, SERVER_CORE, STOCK, TARGET, Failure, Running

# How long the generator may take to start.
LOAD_START_S = 0.12
# How often the server's processor time is read while a sample is taken, and how long one may take.
LOOK_S, SAMPLE_MAX_S = 0.02, 60
# The difference of two runs is what requests cost, without the start of the server and the connections.
COUNTS = {"echo": (10_000, 60_000), "janet": (2_000, 6_000)}
COUNT_LIMIT_S = 60
# Stepping takes some 20 µs per instruction, and more with many connections.
STEPPER, STEP_LIMIT_S = f"{TARGET}/debug/examples/count-instructions", 900
# With more connections, an echo of stock Janet takes so many instructions that stepping through takes an hour.
STOCK_STEPPED_MAX = 64
IDLE_CONNECTIONS, BURST_CONNECTIONS, KEPT_CONNECTIONS = 10_000, 15_000, 10
PARKED_FIBERS = 1_000_000


def generate(running, cell_path, connections, *arguments, limit_s=120, cores=(LOAD_CORE,)):
    """Runs `ringspun load`, and returns a function that waits for its results."""
    file = tempfile.NamedTemporaryFile(suffix=".json")
    command = [RINGSPUN, "load", running.target + cell_path, "--connections", str(connections), "--json", file.name]
    process = subprocess.Popen(
        [*command, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )

    def results():
        try:
            _, errors = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Failure(f"{running.server.name} did not answer {connections} connections in {limit_s} s")
        text = file.read()
        if process.returncode not in (0, 3) or not text:
            raise Failure(f"{running.server.name} with {connections} connections: {errors.strip()}")
        return json.loads(text)

    results.process = process
    return results


def at(clock, moment):
    """What a clock that was read now and then showed at a moment, evenly between two readings."""
    for (before, low), (after, high) in zip(clock, clock[1:]):
        if before <= moment <= after:
            return low + (high - low) * (moment - before) / (after - before)
    return clock[0][1] if moment < clock[0][0] else clock[-1][1]


def sample(cell, server, duration_s, warmup_s):
    """One sample: what the generator saw, and what the server's processor time was in the same part of the run."""
    with Running(server, cores=cell.server_cores) as running:
        begin = time.time() + LOAD_START_S
        results = generate(
            running, cell.path, cell.connections, "--start-at", f"{begin:.3f}",
            "--warmup", f"{round(warmup_s * 1000)}ms", "--duration", f"{round(duration_s * 1000)}ms", *cell.load, cores=cell.load_cores,
        )
        # How late the generator begins, as its connections take their time, is known only when it has ended.
        clock, threads = [], running.thread_times_ns()
        while results.process.poll() is None and len(clock) * LOOK_S < SAMPLE_MAX_S:
            clock.append((time.time(), running.processor_s()))
            time.sleep(LOOK_S)
        busiest = spread_of(threads, running.thread_times_ns(), len(cell.server_cores))
        seen = results()
    # Both clocks are the one on the wall.
    start = begin + seen["generator"]["started_late_s"] + warmup_s
    server_s, window_s = at(clock, start + duration_s) - at(clock, start), duration_s
    rate = seen["rate_per_s"]
    times = seen["response_time"]
    return {
        "requests_per_s": rate,
        "p50_us": times["p50_us"],
        "p99_us": times["p99_us"],
        "p99_9_us": times["p99_9_us"],
        "server_us_per_request": server_s / window_s / rate * 1e6 if rate else None,
        "server_busy_percent": server_s / window_s * 100,
        "busiest_worker": busiest,
        "generator_busy_percent": seen["generator"]["busy_percent"],
        "errors": seen["errors"]["total"],
    }


def spread_of(before, after, workers):
    """The processor time of the busiest thread over the mean of so many of the busiest; None for one worker."""
    times = sorted((time_ns - before.get(thread, 0) for thread, time_ns in after.items()), reverse=True)[:workers]
    return max(times) / (sum(times) / workers) if workers > 1 and sum(times) else None


def counted(server, connections, prefix, read):
    """What `read` finds per request, after two runs of different length under a tool."""
    found = []
    for requests in COUNTS["janet" if "janet" in server.command else "echo"]:
        with tempfile.TemporaryDirectory() as folder:
            with Running(server, [part.replace("FOLDER", folder) for part in prefix]) as running:
                generate(running, "", connections, "--count", str(requests), "--timeout", "60s", limit_s=COUNT_LIMIT_S)()
                more = running.end_with_requests()
            found.append((requests + more, wait_for(lambda: read(folder), END_S)))
    (few, first), (many, second) = found
    return (second - first) / (many - few)


def wait_for(read, limit_s):
    """The tools write when the server is gone, and not before this notices it."""
    give_up = time.monotonic() + limit_s
    while (value := read()) is None:
        if time.monotonic() > give_up:
            raise Failure("the tool wrote no count")
        time.sleep(0.05)
    return value


def instructions_per_request(server, connections, active, rounds):
    """User instructions per echo, by round: exact, by stepping, where that takes minutes, or else by an emulator."""
    if server.name == STOCK and connections > STOCK_STEPPED_MAX:
        return {"per_request": emulated_instructions(server, connections), "counted_by": "callgrind"}
    command = [STEPPER, "--connections", str(connections), "--active", str(active), "--rounds", str(rounds), *server.command]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=STEP_LIMIT_S,
            env={**os.environ, **server.environment},
            # One core for both, as each waits for the other.
            preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"{server.name}: stepping through {connections} connections took more than {STEP_LIMIT_S} s") from None
    if done.returncode:
        raise Failure(f"{server.name} with {connections} connections: {done.stderr.strip()}")
    found = json.loads(done.stdout)
    per_round = [count / active for count in found["rounds"]]
    return {"per_request": found["median_per_echo"], "rounds": per_round, "active": active, "counted_by": "steps"}


def emulated_instructions(server, connections):
    def read(folder):
        total = 0
        for path in glob.glob(f"{folder}/callgrind*"):
            with open(path) as file:
                total += sum(int(number) for number in re.findall(r"^(?:totals|summary): (\d+)", file.read(), re.M)[-1:])
        return total or None

    prefix = ["valgrind", "--tool=callgrind", "--callgrind-out-file=FOLDER/callgrind"]
    return counted(server, connections, prefix, read)


def system_calls_per_request(server, connections):
    def read(folder):
        if not os.path.exists(f"{folder}/calls"):
            return None
        with open(f"{folder}/calls") as file:
            total = re.search(r"^\s*100\.00\s+\S+\s+(?:\S+\s+)?(\d+)\s+(?:\d+\s+)?total$", file.read(), re.M)
        return int(total[1]) if total else None

    # -D leaves the server a child of this program, so that a signal ends the server and not its tracer.
    return {"per_request": counted(server, connections, ["strace", "-D", "-f", "-c", "-o", "FOLDER/calls"], read)}


def memory(server):
    """Resident bytes per idle connection, and what of a burst's memory is given back after it."""
    with Running(server) as running:
        connections = []
        host, port = running.address.rsplit(":", 1)

        def open_up_to(count):
            while len(connections) < count:
                connection = socket.create_connection((host, int(port)), timeout=30)
                connections.append(connection)
                # One echo, as a connection that never carried anything is not what servers hold.
                connection.sendall(b"x" * 64)
                if not connection.recv(64):
                    raise Failure(f"{server.name} closed connection {len(connections)}")

        try:
            open_up_to(KEPT_CONNECTIONS)
            time.sleep(0.2)
            few_bytes, few_files = running.resident_bytes(), running.open_files()
            open_up_to(IDLE_CONNECTIONS)
            time.sleep(0.2)
            idle_bytes = running.resident_bytes()
            open_up_to(BURST_CONNECTIONS)
            time.sleep(0.2)
            burst_bytes = running.resident_bytes()
            for connection in connections[KEPT_CONNECTIONS:]:
                connection.close()
            wait_for(lambda: running.open_files() <= few_files or None, 30)
            time.sleep(1)
            after_bytes = running.resident_bytes()
        finally:
            for connection in connections:
                connection.close()
    return {
        "few_connections_bytes": few_bytes,
        "bytes_per_idle_connection": (idle_bytes - few_bytes) / (IDLE_CONNECTIONS - KEPT_CONNECTIONS),
        "burst_bytes": burst_bytes,
        "after_burst_bytes": after_bytes,
        "given_back_percent": (burst_bytes - after_bytes) / max(1, burst_bytes - few_bytes) * 100,
    }


def parked_fibers():
    command = [f"{BENCHES}/parked_fibers", str(PARKED_FIBERS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise Failure(f"parked_fibers: {done.stderr.strip()}")
    return json.loads(done.stdout)

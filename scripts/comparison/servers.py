"""The servers that are compared: how each is started, watched and ended."""

import os
import re
import resource
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field

SERVER_CORE, LOAD_CORE = 0, 1
# The name under which the Janet VM runs on its own event loop.
STOCK = "stock"
START_S, END_S = 20, 8
TARGET = os.environ["RINGSPUN_TARGET"]
RINGSPUN = f"{TARGET}/release/ringspun"
EXAMPLES = f"{TARGET}/release/examples"
BENCHES = f"{TARGET}/benches/release"


@dataclass(frozen=True)
class Server:
    """A program that listens, and says where in a line "listening on ADDRESS" or "listening at ADDRESS"."""

    name: str
    command: tuple
    kind: str = "tcp"
    environment: dict = field(default_factory=dict, hash=False)


class Failure(Exception):
    """A server or a generator that did not do what it was started for; the text says which."""


def raise_open_files():
    """Servers inherit the limit, as not all of them raise it themselves."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


class Running:
    """A server that runs on its cores, until the end of the `with` block."""

    def __init__(self, server, prefix=(), cores=(SERVER_CORE,)):
        self.server, self.prefix, self.cores = server, prefix, cores

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        path = os.path.join(self.folder.name, "socket")
        command = [path if part == "SOCKET" else part for part in self.server.command]
        self.output = open(os.path.join(self.folder.name, "output"), "w+")
        self.process = subprocess.Popen(
            [*self.prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **self.server.environment},
            preexec_fn=lambda: os.sched_setaffinity(0, self.cores),
        )
        try:
            self.address = self._wait_for_address()
        except BaseException:
            self.end()
            raise
        return self

    def _wait_for_address(self):
        give_up = time.monotonic() + START_S
        while time.monotonic() < give_up and self.process.poll() is None:
            with open(self.output.name) as output:
                found = re.search(r"listening (?:on|at) (\S+).*\n", output.read())
            if found:
                return found[1]
            time.sleep(0.01)
        raise Failure(f"{self.server.name}: {' '.join(self.server.command)} did not say where it listens")

    @property
    def target(self):
        """The server as `ringspun load` is told of it."""
        if self.server.kind == "unix":
            return f"unix:{self.address.removeprefix('unix:')}"
        return f"{self.server.kind}://{self.address}"

    def processor_s(self):
        """The processor time that all threads of the server and of its children have taken so far."""
        pid = self.process.pid
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            pids = [pid, *file.read().split()]
        ticks = 0
        for one in pids:
            with open(f"/proc/{one}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def thread_times_ns(self):
        """The processor time of each thread."""
        times = {}
        for thread in os.listdir(f"/proc/{self.process.pid}/task"):
            with open(f"/proc/{self.process.pid}/task/{thread}/schedstat") as file:
                times[thread] = int(file.read().split()[0])
        return times

    def resident_bytes(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"VmRSS:\s+(\d+) kB", file.read())[1]) * 1024

    def open_files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def end_with_requests(self):
        """Ends a server that runs under a tool, and returns how many requests that took.

        Valgrind delivers no signal while a program waits in io_uring_enter, and looks for one only now and then while it
        runs: one that stays gets requests until it notices.
        """
        self.process.send_signal(signal.SIGTERM)
        answered, give_up = 0, time.monotonic() + END_S
        try:
            self.process.wait(0.3)
        except subprocess.TimeoutExpired:
            host, port = self.address.rsplit(":", 1)
            try:
                with socket.create_connection((host, int(port)), timeout=END_S) as connection:
                    while time.monotonic() < give_up:
                        connection.sendall(b"x" * 64)
                        if not connection.recv(64):
                            break
                        answered += 1
            except OSError:
                pass  # It has gone.
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.server.name} hangs under {self.prefix[0]}") from None
        return answered

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.output.close()
        self.folder.cleanup()

    def __exit__(self, *_):
        self.end()

"""Has very many connections echo at once, over several servers and clients: see scripts/measures/scale.sh."""

import contextlib
import multiprocessing
import os
import time

from connections import Clients
from servers import Failure, Running

# Beside its connections, a process has its standard streams, loops, listeners and files.
OTHER_FILES = 500
SUMMED = ("resident", "stacks", "page_tables")


def drive(address, with_tls, pipe):
    """A process of clients of one server, which does what it is told, and answers when it has."""
    clients = Clients(address, with_tls)
    deeds = {"open": clients.open_up_to, "send": lambda _: clients.send(), "receive": lambda _: clients.receive()}
    try:
        while (order := pipe.recv()) != "end":
            deed, argument = order
            try:
                deeds[deed](argument)
                pipe.send(None)
            except (Failure, OSError) as error:
                pipe.send(f"{deed}: {error}")
    finally:
        clients.close()


class Crowd:
    """Several such processes."""

    def __init__(self, addresses, with_tls):
        self.pipes, self.processes = [], []
        for address in addresses:
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.Process(target=drive, args=(address, with_tls, theirs), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def do(self, deed, arguments=None):
        """Has all do something, waits for all, and gives the seconds that it took."""
        began = time.monotonic()
        for pipe, argument in zip(self.pipes, arguments or [None] * len(self.pipes)):
            pipe.send((deed, argument))
        for pipe in self.pipes:
            if failure := pipe.recv():
                raise Failure(failure)
        return time.monotonic() - began

    def end(self):
        for pipe in self.pipes:
            with contextlib.suppress(OSError):
                pipe.send("end")
        for process in self.processes:
            process.join(60)


def shares(total, most):
    """So many connections as evenly as whole numbers allow, over as few processes as they need."""
    processes = -(-total // most)
    return [total // processes + (index < total % processes) for index in range(processes)]


def summed(snapshots):
    """What several servers hold together. The kernel's figures are of all anyway."""
    return snapshots[-1] | {name: sum(snapshot[name] for snapshot in snapshots) for name in SUMMED}


def measure_many(server, total, files, snapshot, settle_s):
    """Servers and clients with so many connections in all, each of which has a message under way at the same time."""
    counts = shares(total, files - OTHER_FILES)
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(Running(server)) for _ in counts]
        look = lambda: summed([snapshot(one.process.pid) for one in running])
        crowd = Crowd([one.address for one in running], server.name.startswith("tls"))
        stack.callback(crowd.end)
        crowd.do("open", [1] * len(counts))
        crowd.do("send")
        crowd.do("receive")
        time.sleep(settle_s)
        before = look()
        connected_s = crowd.do("open", counts)
        # No answer is read before all messages have been sent: there is one under way on each.
        sent_s = [crowd.do("send")]
        received_s = [crowd.do("receive")]
        for _ in range(2):
            sent_s.append(crowd.do("send"))
            received_s.append(crowd.do("receive"))
        time.sleep(settle_s)
        after = look()
    return {
        "server": server.name,
        "connections": total,
        "processes": len(counts),
        "connect_s": connected_s,
        "sent_s": sent_s,
        "received_s": received_s,
        "before": before,
        "after": after,
    }

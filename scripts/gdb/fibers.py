"""Lists the parked fibers of a process, or of its core file, in gdb: each with its stack, those with the same together.

    gdb PROGRAM CORE -batch -ex 'source scripts/gdb/fibers.py' -ex fibers
    gdb -p PID       -batch -ex 'source scripts/gdb/fibers.py' -ex fibers

`fibers FRAMES` prints at most so many frames of each (20 by default). Needs gdb 10 or later with Python, on x86-64. The
program may be optimised: names of functions are all that is needed, so it must not be stripped.

A parked fiber has left three words on top of its stack: where it goes on, and two registers. Where it goes on is an
address in the code that switches stacks, which is found by its instructions; so fibers are found by looking for that
address in all memory that can be written. A word elsewhere that points to those three (that of the coroutine) tells a
parked fiber from what an earlier switch has left.
"""

import re
import struct

import gdb
import gdb.unwinder

# push rax; mov rsi, rsp; mov rsp, [rdx]; pop rbp. Before it: lea rax, [rip + where it goes on].
SWITCH = bytes.fromhex("504889e6488b225d")
LEA = bytes.fromhex("488d05")
WORD = struct.Struct("<Q")
PIECE_BYTES = 1 << 24
# Frames that all parked fibers have: how they park, and how they were started.
PARKING = re.compile(r"corosensei::|ringspun_fibers::fiber::Fiber::(suspend|park)|ringspun_fibers::wait::")
STARTING = re.compile(r"corosensei|ringspun_fibers::(spawn|join|fiber)::|std::panic|core::ops::function|__rust_try")


def read(start, length):
    """The memory at an address; None if it is not there, as in a guard or a page that a core file lacks."""
    try:
        return bytes(gdb.selected_inferior().read_memory(start, length))
    except gdb.MemoryError:
        return None


def pieces(start, end):
    """The memory of a mapping in pieces, without those that cannot be read."""
    for at in range(start, end, PIECE_BYTES):
        length = min(PIECE_BYTES, end - at)
        piece = read(at, length)
        if piece is not None:
            yield at, piece
        elif length > 4096:
            yield from single_pages(at, at + length)


def single_pages(start, end):
    for at in range(start, end, 4096):
        page = read(at, 4096)
        if page is not None:
            yield at, page


def mappings():
    """The mappings: begin, end, whether they can be written, whether they hold code."""
    process = gdb.selected_inferior().pid
    sections = gdb.execute("maintenance info sections", to_string=True)
    core = re.findall(r"(0x[0-9a-f]+)->(0x[0-9a-f]+) at 0x[0-9a-f]+: load\w+ (.*)", sections)
    if core:
        found = [(begin, end, "READONLY" not in flags, "CODE" in flags) for begin, end, flags in core]
        found = [(int(begin, 16), int(end, 16), *kinds) for begin, end, *kinds in found]
        return found + [(begin, end, False, True) for begin, end in code_of_files()]
    found = []
    with open(f"/proc/{process}/maps", encoding="ascii", errors="replace") as lines:
        for line in lines:
            span, flags = line.split()[:2]
            begin, end = (int(part, 16) for part in span.split("-"))
            if "r" in flags:
                found.append((begin, end, "w" in flags, "x" in flags))
    return found


def code_of_files():
    """The code of the program and its libraries, which core files leave out."""
    files = gdb.execute("info files", to_string=True)
    found = re.findall(r"(0x[0-9a-f]+) - (0x[0-9a-f]+) is \.text", files)
    return [(int(begin, 16), int(end, 16)) for begin, end in found]


def continuations():
    """The addresses at which parked fibers go on."""
    found = set()
    for begin, end, _, is_code in mappings():
        if not is_code:
            continue
        for at, code in pieces(begin, end):
            for match in re.finditer(re.escape(SWITCH), code, re.DOTALL):
                lea = match.start() - 7
                if lea >= 0 and code[lea : lea + 3] == LEA:
                    (offset,) = struct.unpack("<i", code[lea + 3 : match.start()])
                    found.add(at + match.start() + offset)
    return found


def parked():
    """What each parked fiber has left: the address of the three words, and the words."""
    targets = [WORD.pack(address) for address in continuations()]
    if not targets:
        raise gdb.GdbError("no code that switches fibers was found: expected a program made with Ringspun, on x86-64")
    writable = [(begin, end) for begin, end, is_writable, _ in mappings() if is_writable]
    candidates = {}
    for begin, end in writable:
        for at, memory in pieces(begin, end):
            for target in targets:
                position = memory.find(target)
                while position >= 0:
                    words = memory[position : position + 24]
                    if position % 8 == 0 and len(words) == 24:
                        candidates[at + position] = struct.unpack("<3Q", words)
                    position = memory.find(target, position + 1)
    live = pointed_to(candidates.keys(), writable)
    return {at: words for at, words in candidates.items() if at in live}


def pointed_to(addresses, writable):
    """Those of the addresses that a word in memory has as its value."""
    found = set()
    for begin, end in writable:
        for _, memory in pieces(begin, end):
            found.update(addresses & set(struct.unpack_from(f"<{len(memory) // 8}Q", memory)))
    return found


class FrameId:
    def __init__(self, sp, pc):
        self.sp, self.pc = sp, pc


class ParkedUnwinder(gdb.unwinder.Unwinder):
    """Has the selected thread's innermost frame be called by a parked fiber, while one is set."""

    def __init__(self):
        super().__init__("ringspun-parked-fiber")
        self.fiber = self.registers = None

    def __call__(self, pending):
        if self.fiber is None:
            return None
        if (int(pending.read_register("rsp")), int(pending.read_register("rip"))) != self.registers:
            return None
        at, (goes_on, rbx, rbp) = self.fiber
        word = gdb.lookup_type("unsigned long")
        unwound = pending.create_unwind_info(FrameId(gdb.Value(at).cast(word), gdb.Value(self.registers[1]).cast(word)))
        for register, value in (("rip", goes_on), ("rsp", at + 24), ("rbx", rbx), ("rbp", rbp)):
            kind = pending.read_register(register).type
            unwound.add_saved_register(register, gdb.Value(value).cast(kind))
        return unwound

    def frames(self, fiber, frames_max):
        """The functions on the stack of a fiber, the innermost first."""
        self.fiber = None
        gdb.invalidate_cached_frames()
        innermost = gdb.newest_frame()
        self.registers = (int(innermost.read_register("rsp")), int(innermost.read_register("rip")))
        self.fiber = fiber
        gdb.invalidate_cached_frames()
        names = []
        try:
            frame = gdb.newest_frame().older()
            while frame is not None and len(names) < frames_max + 20:
                names.append(described(frame))
                frame = frame.older()
        except gdb.error as error:
            names.append(f"({error})")
        finally:
            self.fiber = None
            gdb.invalidate_cached_frames()
        return trimmed(names)[:frames_max]


def described(frame):
    name, place = frame.name() or f"{frame.pc():#x}", frame.find_sal()
    # The address behind a call may be that of the next line.
    return f"{name} at {place.symtab.filename}:{place.line}" if place.symtab else name


def trimmed(names):
    """Without the frames by which fibers park and start, unless there are no others."""
    begin, end = 0, len(names)
    while begin < end and PARKING.search(names[begin]):
        begin += 1
    while end > begin and STARTING.search(names[end - 1]):
        end -= 1
    return names[begin:end] or names


class Fibers(gdb.Command):
    """Lists the parked fibers with their stacks: fibers [FRAMES]"""

    def __init__(self):
        super().__init__("fibers", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        if argument and not argument.isdigit():
            raise gdb.GdbError(f"fibers {argument}: expected a number of frames")
        frames_max = int(argument or 20)
        if gdb.selected_thread() is None:
            raise gdb.GdbError("fibers: expected a process or a core file")
        groups = {}
        for fiber in sorted(parked().items()):
            groups.setdefault(tuple(UNWINDER.frames(fiber, frames_max)), []).append(fiber[0])
        print(f"{sum(map(len, groups.values()))} parked fibers")
        for names, fibers in sorted(groups.items(), key=lambda group: -len(group[1])):
            places = ", ".join(f"{at:#x}" for at in fibers[:10])
            print(f"\n{len(fibers)} fiber{'' if len(fibers) == 1 else 's'}, parked at {places}")
            for name in names:
                print(f"        {name}")


UNWINDER = ParkedUnwinder()
gdb.unwinder.register_unwinder(None, UNWINDER, replace=True)
Fibers()

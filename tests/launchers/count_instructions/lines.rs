//! The cache lines of data that instructions touch: decodes each and works out the addresses of its operands.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use iced_x86::{Decoder, DecoderOptions, InstructionInfoFactory, OpAccess, Register, UsedMemory};
use libc::user_regs_struct as Registers;
use nix::unistd::Pid;

const LINE_SIZE_BYTES: u64 = 64;
const INSTRUCTION_MAX_BYTES: usize = 15;

/// A line that was touched in this round.
struct Touched {
    /// The instruction that touched it first, and how many did.
    first_by: u64,
    touches: u64,
}

pub(crate) struct Lines {
    memory: File,
    factory: InstructionInfoFactory,
    /// The memory operands of each instruction that has been met.
    operands: HashMap<u64, Vec<UsedMemory>>,
    round: HashMap<u64, Touched>,
    /// By line and first instruction: in how many rounds, and by how many instructions in all.
    all: HashMap<(u64, u64), (u64, u64)>,
}

impl Lines {
    pub(crate) fn of(process: Pid) -> io::Result<Self> {
        Ok(Self {
            memory: File::open(format!("/proc/{process}/mem"))?,
            factory: InstructionInfoFactory::new(),
            operands: HashMap::new(),
            round: HashMap::new(),
            all: HashMap::new(),
        })
    }

    /// Notes what the instruction that comes next will touch.
    pub(crate) fn touch(&mut self, registers: &Registers) -> io::Result<()> {
        let at = registers.rip;
        if !self.operands.contains_key(&at) {
            let decoded = self.decode(at)?;
            self.operands.insert(at, decoded);
        }
        for operand in &self.operands[&at] {
            let Some(start) = operand.virtual_address(0, |register, _, _| value_of(register, registers))
            else {
                continue;
            };
            let last = start + (operand.memory_size().size() as u64).max(1) - 1;
            for line in start / LINE_SIZE_BYTES..=last / LINE_SIZE_BYTES {
                self.round.entry(line).or_insert(Touched { first_by: at, touches: 0 }).touches += 1;
            }
        }
        Ok(())
    }

    /// The operands in memory of the instruction at an address, but for those that it only computes or prefetches.
    fn decode(&mut self, at: u64) -> io::Result<Vec<UsedMemory>> {
        let mut bytes = [0; INSTRUCTION_MAX_BYTES];
        let length = self.memory.read_at(&mut bytes, at)?;
        let mut decoder = Decoder::with_ip(64, &bytes[..length], at, DecoderOptions::NONE);
        let instruction = decoder.decode();
        let used = self.factory.info(&instruction).used_memory();
        Ok(used.iter().copied().filter(|memory| memory.access() != OpAccess::NoMemAccess).collect())
    }

    pub(crate) fn end_round(&mut self) {
        for (line, touched) in self.round.drain() {
            let (rounds, touches) = self.all.entry((line, touched.first_by)).or_default();
            *rounds += 1;
            *touches += touched.touches;
        }
    }

    /// The lines of all rounds.
    pub(crate) fn count(&self) -> u64 {
        self.all.values().map(|(rounds, _)| rounds).sum()
    }

    /// Each line: its address, the mapping it is in, the address in the program's file that touched it first, in how
    /// many rounds, and by how many instructions.
    pub(crate) fn listing(&self, mappings: &str) -> String {
        let mappings: Vec<_> = mappings.lines().filter_map(mapping).collect();
        let program = mappings.first().map_or(0, |(start, ..)| *start);
        let mut all: Vec<_> = self.all.iter().collect();
        all.sort_unstable();
        let mut text = String::new();
        for ((line, first_by), (rounds, touches)) in all {
            let address = line * LINE_SIZE_BYTES;
            let within = mappings.iter().find(|(start, end, _)| (*start..*end).contains(&address));
            let name = within.map_or("unknown", |(_, _, name)| name);
            let first_by = first_by.wrapping_sub(program);
            let _ = writeln!(text, "{address:#x} {name} {first_by:#x} {rounds} {touches}");
        }
        text
    }
}

/// Start, end and name of a line of `/proc/pid/maps`.
fn mapping(line: &str) -> Option<(u64, u64, &str)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let name = rest.split_whitespace().nth(4).unwrap_or("anonymous");
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?, name))
}

fn value_of(register: Register, registers: &Registers) -> Option<u64> {
    Some(match register.full_register() {
        Register::RAX => registers.rax,
        Register::RBX => registers.rbx,
        Register::RCX => registers.rcx,
        Register::RDX => registers.rdx,
        Register::RSI => registers.rsi,
        Register::RDI => registers.rdi,
        Register::RBP => registers.rbp,
        Register::RSP => registers.rsp,
        Register::R8 => registers.r8,
        Register::R9 => registers.r9,
        Register::R10 => registers.r10,
        Register::R11 => registers.r11,
        Register::R12 => registers.r12,
        Register::R13 => registers.r13,
        Register::R14 => registers.r14,
        Register::R15 => registers.r15,
        Register::FS => registers.fs_base,
        Register::GS => registers.gs_base,
        Register::CS | Register::DS | Register::ES | Register::SS => 0,
        // A vector of addresses, which servers have no use for.
        _ => return None,
    })
}

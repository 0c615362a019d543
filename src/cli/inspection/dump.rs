//! Dumps as text and as JSON.

use std::collections::HashMap;

use ringspun::fibers::{Dump, FiberState, ProcessDump, WaitReason};
use serde_json::{Value, json};

/// What the VM of the main thread tells.
pub enum OfVm {
    Dump(String),
    /// It has not answered; with the stack of the fiber that it runs, if that is known.
    Silent(Option<String>),
}

/// Of the runtimes, and of the VM of the main thread.
pub fn text(process: Option<ProcessDump>, vm: Option<OfVm>) -> String {
    let of_vm = vm.map(|vm| match vm {
        OfVm::Dump(text) => text,
        OfVm::Silent(running) => silent_vm(running.as_deref().unwrap_or_default()),
    });
    process.map(|process| process.to_string()).into_iter().chain(of_vm).collect()
}

fn silent_vm(running: &str) -> String {
    format!(
        "fibers of process {}: the VM of the main thread does not answer: a fiber has not let others run since it was \
         asked, or it waits for a line of the terminal{running}\n",
        std::process::id()
    )
}

/// The same as JSON. A fiber's stack is a number in the list of its thread.
pub fn json(process: &ProcessDump, vm: Option<OfVm>) -> String {
    let threads: Vec<Value> = process.dumps().iter().map(thread).collect();
    let mut value = json!({
        "process": std::process::id(),
        "threads": threads,
        "silent_threads": process.silent_threads(),
    });
    match vm {
        None => {}
        Some(OfVm::Dump(text)) => value["janet"] = json!({ "answers": true, "text": text }),
        Some(OfVm::Silent(running)) => {
            let running = running.as_deref().map(str::trim_start);
            value["janet"] = json!({ "answers": false, "text": null, "running": running });
        }
    }
    format!("{value:#}\n")
}

fn thread(dump: &Dump) -> Value {
    let (mut stacks, mut known) = (Vec::new(), HashMap::new());
    let fibers: Vec<Value> = dump
        .fibers()
        .iter()
        .map(|fiber| {
            let frames = dump.stack_of(fiber);
            let stack = (!frames.is_empty()).then(|| {
                *known.entry(frames.clone()).or_insert_with(|| {
                    stacks.push(frames);
                    stacks.len() - 1
                })
            });
            json!({
                "id": fiber.id(),
                "name": fiber.name(),
                "state": match fiber.state() {
                    FiberState::Dumping => "dumping",
                    FiberState::Ready => "ready",
                    FiberState::New => "new",
                    FiberState::Parked => "parked",
                    _ => "other",
                },
                "operation": fiber.reason().map(WaitReason::operation),
                "waits_for": fiber.reason().map(ToString::to_string),
                "waiting_s": fiber.waiting_for().map(|time| time.as_secs_f64()),
                "stack": stack,
            })
        })
        .collect();
    json!({ "thread": dump.thread(), "backend": dump.backend(), "fibers": fibers, "stacks": stacks })
}

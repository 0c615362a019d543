//! `ringspun doctor`: whether Ringspun can run here, on which backend, and with which limits.
//!
//! This file gathers the report, `limits` and `control_groups` explain each limit, `text` and `json` format the report.

mod control_groups;
mod json;
mod limits;
mod text;

use std::env;
use std::io;
use std::process::ExitCode;

use clap::ValueEnum;
use ringspun::runtime::probe::{self, Feature, RingReport};
use ringspun::runtime::{Configuration, EventLoop};

use self::limits::Limit;
use super::output;

const BACKEND_VARIABLE: &str = "RINGSPUN_BACKEND";

/// The content of the report.
struct Report {
    system: String,
    kernel_release: String,
    architecture: String,
    backend: Backend,
    ring: RingReport,
    stack_guards: Feature,
    limits: Vec<Limit>,
}

/// The backend that a program would get.
struct Backend {
    /// The value of `RINGSPUN_BACKEND`, if it is set.
    requested: Option<String>,
    /// The name of the backend, or why there is none.
    chosen: Result<&'static str, io::Error>,
    reason: String,
}

/// What `--require` asks for.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Required {
    /// io_uring
    Uring,
    /// Readiness, by epoll
    Poll,
}

impl Required {
    /// The name of the backend.
    fn name(self) -> &'static str {
        match self {
            Self::Uring => "io_uring",
            Self::Poll => "poll",
        }
    }
}

/// Prints the report. Fails if Ringspun cannot run here, or not on the required backend.
pub fn doctor(as_json: bool, required: Option<Required>) -> ExitCode {
    let report = Report::gather();
    let printed = output::print(&if as_json { json::render(&report) } else { text::render(&report) });
    if let Err(error) = printed {
        output::complain(error);
        return ExitCode::FAILURE;
    }
    match report.backend.chosen {
        Ok(chosen) => match required.map(Required::name).filter(|&name| name != chosen) {
            None => ExitCode::SUCCESS,
            Some(name) => {
                let reason = report.backend.reason;
                output::complain(format_args!("{name} is required, but the backend is {chosen}: {reason}"));
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            output::complain(format_args!("cannot run here: {error}"));
            ExitCode::FAILURE
        }
    }
}

impl Report {
    fn gather() -> Self {
        // Cannot fail with a valid buffer; without it, the report is still useful.
        let name = nix::sys::utsname::uname().ok();
        let text = |of: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
            name.as_ref().map_or("unknown".into(), |name| of(name).to_string_lossy().into_owned())
        };
        let stack_guards = probe::stack_guards();
        let mut limits = limits::gather(&stack_guards, control_groups::memory_room_bytes());
        limits.extend(control_groups::limit());
        Self {
            system: text(|name| name.sysname()),
            kernel_release: text(|name| name.release()),
            architecture: text(|name| name.machine()),
            backend: Backend::choose(),
            ring: probe::ring_report(),
            limits,
            stack_guards,
        }
    }
}

impl Backend {
    /// Creates an event loop as a program would, so that the report cannot differ from it.
    fn choose() -> Self {
        let requested = env::var_os(BACKEND_VARIABLE).filter(|value| !value.is_empty());
        let requested = requested.map(|value| value.to_string_lossy().into_owned());
        let made = EventLoop::new(&Configuration::default());
        let reason = match (&made, &requested) {
            (Err(error), _) => error.to_string(),
            (Ok(_), Some(requested)) => format!("requested by {BACKEND_VARIABLE}={requested}"),
            (Ok(event_loop), None) => match event_loop.ring_refusal() {
                Some(refusal) => refusal.to_string(),
                None => format!("the fastest backend available; {BACKEND_VARIABLE} is not set"),
            },
        };
        let chosen = made.map(|event_loop| event_loop.backend_name());
        Self { requested, chosen, reason }
    }
}

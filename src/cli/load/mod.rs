//! `ringspun load`: measures a server, from the plan on the command line to the exit status.
//!
//! The measuring itself is in the crate `ringspun-load`; `text` and `json` print what it found out.

mod files;
mod histogram;
mod json;
mod options;
mod pace;
mod page;
#[cfg(test)]
mod reference;
mod report;
mod steps;
mod text;
mod workload;

use std::fs;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, CommandFactory, Subcommand, error::ErrorKind};
use ringspun_load::{self as load, Companions, Gate, Outcome, Pace, Plan, Verdict, Workload};
use serde_json::Value;

use super::stop::StopSignals;
use super::{CommandLine, limits, output};

/// The exit status when a gate breaks.
const GATE_BROKEN: u8 = 3;
/// A generator that is busier than this has answers waiting for it.
const BUSY_PERCENT: f64 = 90.0;

use files::IntervalFiles;
use options::Options;

/// What to measure, and how.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "\
Examples:
  ringspun load tcp://127.0.0.1:7000 --connections 64 --duration 3s
  ringspun load tcp://127.0.0.1:7000 --connections 64 --rate 50k --warmup 1s --json out.json
  ringspun load tcp://127.0.0.1:7000 --connections 64 --steps 10k,20k,40k:30s --csv steps.csv
  ringspun load tcp://127.0.0.1:7000 --connections 1k --ramp-up 5s --rate 1k..50k --duration 1m
  ringspun load unix:/run/echo.socket --count 1M --fail-if 'p99>5ms' --fail-if 'errors>0'
  ringspun load udp://[::1]:7000 --connections 8 --payload 1k --timeout 200ms
  ringspun load http://127.0.0.1:8080/path?query --connections 64 --rate 10k
  ringspun load http://[::1]/items --method POST --header 'Content-Type: text/plain' --body 'one, two'
  ringspun load http://[::1]/items --method PUT --body-file items.json
  ringspun load tcp://127.0.0.1:7000 --payload 64:90%,4k:10% --pipeline 16
  ringspun load tcp://127.0.0.1:6379 --workload request --payload-file ping.bin --response-end '\\r\\n'
  ringspun load tcp://127.0.0.1:7000 --workload request --payload 32 --response 512 --rate 20k
  ringspun load udp://127.0.0.1:9 --workload send --payload 1k --rate 100k
  ringspun load unix:@feed --workload receive --fail-if 'receive-rate<10M'
  ringspun load tcp://127.0.0.1:6379 --workload receive --payload-file subscribe.txt
  ringspun load tcp://127.0.0.1:7000 --workload churn --connections 16 --fail-if 'rate<1k'
  ringspun load tcp://127.0.0.1:7000 --rate 50k --hdr one.hdr --csv one.csv
  ringspun load tcp://127.0.0.1:7000 --connections 64 --rate 50k --html page.html
  ringspun load tcp://127.0.0.1:7000 --connections 50k --bind 127.0.0.2,127.0.0.3 --workers 2
  ringspun load tcp://127.0.0.1:7000 --rate 30k --start-at 2030-01-31T12:00:00Z --hdr machine-1.hdr
  ringspun load report one.hdr two.hdr

A target that is not http has to send back what it gets, as `ringspun serve echo` does, and every answer is
compared with what was sent; --workload asks for something else: requests with answers of their own, only
sending, only receiving, or only connecting. What a request is depends on it: with send, a message, which is
answered when the kernel has taken it; with receive, the wait for what comes next; with churn, a connection.

With --pipeline, a connection sends requests without waiting for the answers to those before. Each has its own
times. A connection that is lost takes all of them with it, and counts as one error.

A target for http gets requests of HTTP/1.1, on connections that are kept for as long as it keeps them. Answers
with status 2xx and 3xx are right (redirections are not followed); others count as errors. Where the target
closes the connection after an answer, another one is made, which no service time contains.

Without --rate, each connection sends its next request when the one before it is answered (closed loop). A
target that stalls then gets fewer requests, and the stall hardly shows. With --rate, requests are due at a
constant rate whatever the target does (open loop), and the response time counts from when a request was due.
docs/load-model.md says more, also of --steps, --ramp-up, --workers and of many connections.

Durations have a unit (500us, 3s, 2m); counts and rates may have k or M behind them (50k).

SIGINT or SIGTERM ends the run early, with the results so far; a second one ends it at once.

The exit status is 0 when the run was made, 1 when the target cannot be reached or answers nothing, 2 when the
command line could not be understood, and 3 when a gate (--fail-if) breaks.")]
pub struct Load {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<LoadCommand>,
}

#[derive(Subcommand)]
enum LoadCommand {
    Report(report::Report),
}

/// Gates with what they found.
type Verdicts = Vec<(Gate, Verdict)>;

/// Measures, prints, and judges; or reports what was measured before.
pub fn load(Load { options, command }: Load) -> ExitCode {
    if let Some(LoadCommand::Report(options)) = &command {
        return report::report(options);
    }
    let Some(planned) = options.plan() else {
        let message = "the target is missing: expected such as tcp://127.0.0.1:7000\n";
        CommandLine::command().error(ErrorKind::MissingRequiredArgument, message).exit();
    };
    let plan = match planned {
        Ok(plan) => plan,
        // As clap tells of values that it can judge by themselves.
        Err(error) => CommandLine::command().error(ErrorKind::ValueValidation, error).exit(),
    };
    if let Err(message) = limits::raise_open_files() {
        output::complain(message);
    }
    let is_live = io::stderr().is_terminal();
    let observer = is_live.then(|| text::progress_line(&plan));
    let mut companions = Companions { observer, stopper: None, recorder: None };
    match StopSignals::take() {
        // An error is the end of the runtime.
        Ok(signals) => companions.stopper = Some(Box::new(move || drop(signals.wait()))),
        Err(error) => output::complain(format_args!("a signal will end the run without results: {error}")),
    }
    let files = match IntervalFiles::create(
        options.hdr.as_deref(),
        options.csv.as_deref(),
        options.html.as_deref(),
    ) {
        Ok(files) => files,
        Err(error) => {
            output::complain(error);
            return ExitCode::FAILURE;
        }
    };
    companions.recorder = files.recorder();
    let began_at = plan.start_at.unwrap_or_else(SystemTime::now) + plan.ramp_up + plan.warmup;
    let measured = load::run(&plan, companions);
    let written = files.finish();
    if is_live {
        text::clear_progress_line();
    }
    let outcome = match measured {
        Ok(outcome) => outcome,
        Err(error) => {
            output::complain(format_args!("{}: {error}", plan.target));
            return ExitCode::FAILURE;
        }
    };
    let verdicts: Verdicts =
        options.fail_if.into_iter().map(|gate| (gate.clone(), gate.judge(&outcome))).collect();
    let value = json::results(&plan, &outcome, &verdicts);
    let printed = print(&text::table(&plan, &outcome), &value, options.json.as_deref());
    let written = written.and_then(|points| match &options.html {
        Some(path) => write_file(path, &page_of(&plan, &outcome, &value, began_at, &points)),
        None => Ok(()),
    });
    if let Err(error) = printed.and(written) {
        output::complain(error);
        return ExitCode::FAILURE;
    }
    for (gate, verdict) in verdicts.iter().filter(|(_, verdict)| verdict.is_broken) {
        output::complain(format_args!("gate {gate} is broken: {}", verdict.value));
    }
    if outcome.requests.answered == 0 {
        output::complain(format_args!(
            "{}: nothing was answered: {}",
            plan.target,
            first_reason(&plan, &outcome)
        ));
        return ExitCode::FAILURE;
    }
    match verdicts.iter().any(|(_, verdict)| verdict.is_broken) {
        true => ExitCode::from(GATE_BROKEN),
        false => ExitCode::SUCCESS,
    }
}

/// Prints the table, and writes the file of JSON.
fn print(table: &str, value: &Value, json: Option<&Path>) -> io::Result<()> {
    let Some(path) = json else { return output::print(table) };
    let rendered = format!("{value:#}\n");
    if path == Path::new("-") {
        return output::print(&rendered);
    }
    output::print(table)?;
    write_file(path, &rendered)
}

fn write_file(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text).map_err(|error| cannot_write(&path.display().to_string(), &error))
}

fn page_of(
    plan: &Plan,
    outcome: &Outcome,
    value: &Value,
    began_at: SystemTime,
    points: &[page::Point],
) -> String {
    let target = plan.target.to_string();
    let table = text::table(plan, outcome);
    // The first line of the table begins with the target, which is the page's title.
    let summary = table.lines().next().and_then(|line| line.strip_prefix(&target));
    let span = workload::service_span(&plan.workload);
    page::Page {
        summary: summary.unwrap_or_default().trim_start_matches(": ").to_string() + ".",
        began_at,
        value,
        times: match plan.pace {
            Pace::Closed => vec![("service time", &outcome.service_times)],
            _ => vec![("response time", &outcome.response_times), ("service time", &outcome.service_times)],
        },
        meaning: match plan.pace {
            Pace::Closed => format!("Service time: {span}, in a closed loop, in which a stall hardly shows."),
            _ => format!(
                "Response time: from when a request was due to its answer, what users see. Service time: {span}."
            ),
        },
        rate_unit: workload::rate_unit(&plan.workload),
        series: vec![page::Series::new(target.clone(), points)],
        remarks: text::remarks(plan, outcome),
        title: target,
    }
    .render()
}

fn cannot_write(shown_path: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{shown_path} cannot be written: {error}"))
}

/// Why nothing was answered.
fn first_reason<'o>(plan: &Plan, outcome: &'o Outcome) -> &'o str {
    let mut reasons = load::ErrorKind::ALL.into_iter().filter_map(|kind| outcome.errors.example(kind));
    reasons.next().unwrap_or(match plan.workload {
        Workload::Receive { .. } => "nothing came",
        _ => "no request was due",
    })
}

//! `ringspun load`: measures a server, from the command line to the exit status.
//!
//! The crate `ringspun-load` does the measuring; `text`, `json` and `page` present the results.

mod counts;
mod files;
mod find;
mod goal;
mod histogram;
mod http2;
mod input;
mod json;
mod live;
mod names;
mod options;
mod pace;
mod page;
mod prometheus;
#[cfg(test)]
mod reference;
mod repeat;
mod report;
mod requests;
mod script;
mod secrets;
mod sessions;
mod steps;
mod stopping;
mod text;
mod tls;
mod websocket;
pub mod whole;
mod workload;

use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use clap::{Args, CommandFactory, Subcommand, error::ErrorKind};
use ringspun::fibers::{SharedChannel, Signal};
use ringspun_load::{
    self as load, Breach, Condition, Driver, Gate, Hooks, Outcome, Pace, Plan, Recorder, Verdict, Watch,
    Workload,
};
use serde_json::Value;

use super::inspection::{self, Sources};
use super::{CommandLine, limits, output, terminal};

/// The exit status for a failed gate.
const GATE_BROKEN: u8 = 3;
/// The exit status of a run that was stopped by a signal is this and the signal's number, as in shells.
const SIGNAL_STATUS: u8 = 128;
/// Above this CPU utilization, latencies include queueing in the generator.
const BUSY_PERCENT: f64 = 90.0;

use files::{IntervalFiles, ReplacedFile, ResultFile, is_standard_output};
use live::{LiveView, Screen};
use options::Options;
use stopping::{Stopping, Waited};

/// The command line of `ringspun load`.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    allow_negative_numbers = true
)]
#[command(after_help = "\
Examples:
  ringspun load tcp://127.0.0.1:7000 --connections 64 --duration 3s
  ringspun load http://127.0.0.1:8080/ -c 64 -r 10k -d 1m30s -H 'Accept: text/html'
  ringspun load tcp://127.0.0.1:7000 --connections 64 --rate 50k --warmup 1s --json out.json
  ringspun load tcp://127.0.0.1:7000 --connections 64 --steps 10k,20k,40k:30s --csv steps.csv
  ringspun load tcp://127.0.0.1:7000 --connections 64 --rate 50k --arrivals even
  ringspun load tcp://127.0.0.1:7000 --connections 64 --rate 50k --seed 7
  ringspun load tcp://127.0.0.1:7000 -c 64 --rate 50k --repeat 5
  ringspun load tcp://127.0.0.1:7000 -c 64 --find 'p99<5ms,errors<0.1%' --json found.json
  ringspun load tcp://127.0.0.1:7000 --connections 1k --ramp-up 5s --rate 1k..50k --duration 1m
  ringspun load unix:/run/echo.socket --count 1M --fail-if 'p99>5ms' --fail-if 'errors>0'
  ringspun load http://127.0.0.1:8080/ -c 64 -r 10k -d 1h --abort-if 'errors>10%' --abort-window 30s
  ringspun load udp://[::1]:7000 --connections 8 --payload 1k --timeout 200ms
  ringspun load http://127.0.0.1:8080/path?query --connections 64 --rate 10k
  ringspun load http://[::1]/items --method POST --header 'Content-Type: text/plain' --body 'one, two'
  ringspun load http://[::1]/items --method PUT --body-file items.json
  ringspun load http://127.0.0.1:8080/missing --expect 404
  ringspun load http://127.0.0.1:8080/items --expect-body 'in stock' --user 'me:secret' --fail-if 'bad-body>0'
  ringspun load http://127.0.0.1:8080/ -c 64 -r 1k --requests shop.jsonl --data users.csv
  ringspun load http://127.0.0.1:8080/ -c 500 --rate 50 --session 1..20 --think 500ms..2s --requests shop.jsonl
  ringspun load http://127.0.0.1:8080/ -c 50 --script shop.janet --fail-if 'p99>50ms@login'
  ringspun load http://127.0.0.1:8080/old --follow 3 -H 'Accept-Encoding: gzip'
  ringspun load http://localhost:8080/ --follow 1 --follow-to https://localhost:8443
  ringspun load https://localhost:8443/ -c 64 --cacert authority.pem --alpn http/1.1
  ringspun load https://localhost:8443/ -c 8 --http2 --streams 100
  ringspun load ws://127.0.0.1:8080/echo -c 64 --payload 1k --message-type text
  ringspun load wss://localhost:8443/chat -H 'Origin: https://localhost' --body ping --expect pong
  ringspun load https://localhost:8443/ --cert me.pem --key me.key
  ringspun load tls://localhost:7443 --workload churn --tls-resume yes --insecure
  ringspun load tcp://127.0.0.1:7000 --payload 64:90%,4k:10% --pipeline 16
  ringspun load tcp://127.0.0.1:6379 --workload request --payload-file ping.bin --response-end '\\r\\n'
  ringspun load tcp://127.0.0.1:7000 --workload request --payload 32 --response 512 --rate 20k
  ringspun load udp://127.0.0.1:9 --workload send --payload 1k --rate 100k
  ringspun load unix:@feed --workload receive --fail-if 'receive-rate<10M'
  ringspun load tcp://127.0.0.1:6379 --workload receive --payload-file subscribe.txt
  ringspun load tcp://127.0.0.1:7000 --workload churn --connections 16 --fail-if 'rate<1k'
  ringspun load tcp://127.0.0.1:7000 --rate 50k --hdr one.hdr --csv one.csv
  ringspun load tcp://127.0.0.1:7000 --connections 64 --rate 50k --html page.html
  ringspun load http://127.0.0.1:8080/ -r 100 -d 1m --prometheus /var/lib/node_exporter/load.prom
  ringspun load tcp://127.0.0.1:7000 --connections 50k --bind 127.0.0.2,127.0.0.3 --workers 2
  ringspun load tcp://127.0.0.1:7000 --rate 30k --start-at 2030-01-31T12:00:00Z --hdr machine-1.hdr
  ringspun load report one.hdr two.hdr

Targets with tcp, tls, udp and unix must echo what they receive, as `ringspun serve echo` does; each response is
compared with its request. --workload selects another kind of request: with request, a message with a different
response; with send, a message that counts as answered when the kernel accepts it; with receive, the wait for
the next bytes; with churn, a connection.

With --pipeline, a connection sends further requests before earlier ones are answered. Each request has its
own times. A lost connection loses all its requests in flight and counts as one error.

Targets with http or https get HTTP/1.1 requests over persistent connections, or with --http2 HTTP/2 requests.
Responses with status 2xx or 3xx, or those of --expect, count as successes (redirects are followed only with
--follow), others as errors; with --expect-body, they must contain a text. For raw requests (--workload request)
there is no such check: a response is what --response or --response-end says, with any content. Connections that
the target closes after a response or while they are idle are reopened; service times do not include this.

With --requests FILE, each request is one of the file, chosen at random by weight: a JSON object per line, such
as {\"method\":\"POST\",\"path\":\"/cart\",\"headers\":{\"Accept\":\"*/*\"},\"body\":\"n=1\",\"weight\":3},
or lines such as GET /path, as for vegeta. Results are also reported by name. In path, headers and body, {{counter}}
is the number of the request, {{random 1 100}} a random number, and {{csv.COLUMN}} the fields of a column of
--data FILE.csv, row by row. docs/load-requests.md has all fields.

Targets with ws or wss get messages over WebSocket, each of which is answered by the next data message: its
echo, the text of --expect, or any with --workload request. Pings are answered.

With tls, https and wss, certificates are verified as browsers do it: against the system's authorities or those of
--cacert, and for the host of the target. Handshakes are timed on their own.

Without --rate, each connection sends its next request when the previous one is answered (closed loop). A
stalled target then gets fewer requests, which hides the stall. With --rate, requests are due at a given
rate, at random as from many users, whatever the target does (open loop), and response times start when a
request is due. With --session, that is the rate of sessions (partly open loop): a session's first request is
due when the session begins, each later one when its think time is over.
docs/load-model.md explains this, as well as --steps, --ramp-up, --workers, and many connections.

Durations have units (500us, 3s, 1h30m); counts and rates may end with k or M (50k), and rates with a unit (30/m).

SIGINT, SIGTERM or SIGHUP stops the run early, waits for the responses to requests that were sent (up to --timeout),
and prints the results so far; a second signal exits immediately.

The exit status is 0 if the run completed, 1 if the target could not be reached, answered nothing, or was lost
before the end, 2 if the command line is invalid, 3 if a gate (--fail-if) failed, a condition ended the
run (--abort-if), or no rate holds (--find), and otherwise 128 and the signal's number (130, 143, 129) if the run
was stopped early.")]
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

/// Gates with their results.
type Verdicts = Vec<(Gate, Verdict)>;

/// A run that has ended.
struct Measured {
    plan: Plan,
    outcome: Outcome,
    verdicts: Verdicts,
    /// The condition of --abort-if that ended it.
    breach: Option<Breach>,
    /// When the measurement began.
    began_at: SystemTime,
    /// What the charts of a page are drawn from; or why a file of its seconds could not be written, which is no reason
    /// to keep the results back.
    points: Result<Vec<page::Point>, String>,
}

/// How the runs of a command are made.
struct Measuring {
    gates: Vec<Gate>,
    abort_if: Vec<Condition>,
    abort_window: Duration,
    stopping: Stopping,
    /// What others may ask the process for.
    sources: Sources,
    /// What makes the sessions, with a script.
    driver: Option<Driver>,
    /// Whether somebody looks on, at a terminal.
    is_watched: bool,
    has_page: bool,
}

impl Measuring {
    /// Makes a run of a series, and collects the points for a page. `which` one it is is shown.
    fn run(&self, plan: Plan, which: String) -> Result<Measured, String> {
        let files = IntervalFiles::create(None, None, self.has_page).map_err(|error| error.to_string())?;
        self.run_into(plan, files, Some(which))
    }

    /// Makes a run that writes files.
    fn run_into(&self, plan: Plan, files: IntervalFiles, which: Option<String>) -> Result<Measured, String> {
        let (abort, breach) = (SharedChannel::bounded(1), Rc::new(RefCell::new(None)));
        let watching = (!self.abort_if.is_empty()).then(|| {
            stopping::watch(
                Watch::new(self.abort_if.clone(), self.abort_window),
                abort.clone(),
                breach.clone(),
            )
        });
        let waited = Waited::default();
        let (timeout, telling) = (plan.timeout, waited.clone());
        let view = terminal::can_redraw(&io::stderr()).then(|| LiveView::start(&plan, which)).flatten();
        let screen = view.as_ref().map(LiveView::screen);
        let hooks = Hooks {
            observer: Some(counts::observe(&self.sources, screen.clone())),
            stopper: self.stopping.stopper(abort, move || {
                screen.iter().for_each(Screen::stop);
                telling.tell_if_long(timeout);
            }),
            recorder: both(files.recorder(), watching),
        };
        let began_at = plan.start_at.unwrap_or_else(SystemTime::now) + plan.ramp_up + plan.warmup;
        let measured = match &self.driver {
            None => load::run(&plan, hooks),
            Some(driver) => load::run_driven(&plan, hooks, driver.clone()),
        };
        waited.end();
        let written = files.finish();
        drop(view);
        let outcome = measured.map_err(|error| format!("{}: {error}", plan.shown_target()))?;
        let points = written.map_err(|error| error.to_string());
        let verdicts = self.gates.iter().map(|gate| (gate.clone(), gate.judge(&outcome))).collect();
        // It may hold in the last second, too.
        let breach = breach.take().filter(|_| outcome.was_stopped);
        Ok(Measured { plan, outcome, verdicts, breach, began_at, points })
    }

    /// Shows a line to whoever looks on.
    fn tell(&self, line: impl FnOnce() -> String) {
        if self.is_watched {
            output::tell(line());
        }
    }
}

impl Measured {
    /// Whether a signal stopped it.
    fn was_interrupted(&self) -> bool {
        self.outcome.was_stopped && self.breach.is_none()
    }
}

/// A recorder for two.
fn both(first: Option<Recorder>, second: Option<Recorder>) -> Option<Recorder> {
    match (first, second) {
        (Some(mut first), Some(mut second)) => Some(Box::new(move |interval| {
            first(interval.clone());
            second(interval);
        })),
        (first, second) => first.or(second),
    }
}

/// What several runs have shown together.
enum Together {
    Search(find::Search),
    Repeats(repeat::Repeats),
}

/// Runs the measurement and prints the results, or reports on earlier ones.
pub fn load(Load { options, command }: Load) -> ExitCode {
    limits::survive_file_size();
    if let Some(LoadCommand::Report(options)) = &command {
        return report::report(options);
    }
    let Some(planned) = options.plan() else {
        let message = "the target is missing: expected a target such as tcp://127.0.0.1:7000\n";
        reject(&[], ErrorKind::MissingRequiredArgument, message);
    };
    let planned = planned.and_then(|plan| check_files(&options).map(|()| plan));
    let planned = planned.and_then(|plan| Ok((plan, options.find.goal()?)));
    let (plan, goal) = match planned {
        Ok(planned) => planned,
        Err(error) => reject(&[], ErrorKind::ValueValidation, &error),
    };
    if let Err(message) = limits::raise_open_files() {
        output::complain(message);
    }
    let measuring = Measuring {
        gates: options.fail_if.clone(),
        abort_if: options.abort_if.clone(),
        abort_window: options.abort_window,
        stopping: Stopping::new(),
        sources: inspection::start(),
        driver: options.sessions.script.as_deref().map(script::driver),
        is_watched: io::stderr().is_terminal(),
        has_page: options.html.is_some(),
    };
    let measured = open_files(&options).map_err(|error| error.to_string()).and_then(|(files, results)| {
        let (measured, together) = match (goal, options.repeat) {
            (Some(goal), _) => find::find(goal, &plan, &measuring)
                .map(|(search, measured)| (measured, Some(Together::Search(search))))?,
            (None, Some(count)) => repeat::repeat(count, &plan, &measuring)
                .map(|(repeats, measured)| (measured, Some(Together::Repeats(repeats))))?,
            (None, None) => (measuring.run_into(plan, files, None)?, None),
        };
        Ok((measured, together, results))
    });
    match measured
        .and_then(|(measured, together, results)| present(&options, &measuring, &measured, together, results))
    {
        Ok(exit_code) => exit_code,
        Err(error) => {
            output::complain(error);
            ExitCode::FAILURE
        }
    }
}

/// Prints and writes the results, and returns the exit status.
fn present(
    options: &Options,
    measuring: &Measuring,
    measured: &Measured,
    together: Option<Together>,
    results: ResultFiles,
) -> Result<ExitCode, String> {
    let Measured { plan, outcome, verdicts, breach, .. } = measured;
    let stop_signal = measuring.stopping.signal().filter(|_| measured.was_interrupted());
    let mut value = json::results(plan, outcome, verdicts, stop_signal);
    value["aborted"] = breach.as_ref().map_or(Value::Null, json::breach);
    let mut table = String::new();
    match &together {
        Some(Together::Search(search)) => {
            value["search"] = search.value();
            table = format!("{}\n", search.table());
        }
        Some(Together::Repeats(repeats)) => {
            value["repeat"] = repeats.value();
            table = repeats.table();
        }
        None => {}
    }
    table += &text::table(plan, outcome);
    if let Some(breach) = breach {
        table = format!("{}.\n\n{table}", text::breach(breach));
    }
    // The rows of a CSV, and metrics, are instead of the table.
    if options.csv.as_deref().is_some_and(is_standard_output) {
        table.clear();
    }
    let metrics =
        options.prometheus.as_deref().map(|_| prometheus::text(measured, together.as_ref(), &value));
    if options.prometheus.as_deref().is_some_and(is_standard_output) {
        table = metrics.clone().unwrap_or_default();
    }
    let printed = print(&table, &value, options.json.as_deref(), results.json);
    let written = match (&measured.points, results.html) {
        (Err(error), _) => Err(error.clone()),
        (Ok(points), Some(file)) => file
            .write(&page_of(measured, points, together.as_ref(), &value))
            .map_err(|error| error.to_string()),
        (Ok(_), None) => Ok(()),
    };
    let replaced = results.prometheus.map_or(Ok(()), |file| file.write(&metrics.unwrap_or_default()));
    let replaced = replaced.map_err(|error| error.to_string());
    printed.map_err(|error| error.to_string()).and(written).and(replaced)?;
    let of_all = match &together {
        Some(Together::Search(search)) => search.exit_code(),
        Some(Together::Repeats(_)) | None => None,
    };
    Ok(of_all.unwrap_or_else(|| exit_code(measured, stop_signal)))
}

/// The exit status of a run whose results have been written; complains about what failed.
fn exit_code(measured: &Measured, stop_signal: Option<Signal>) -> ExitCode {
    let Measured { plan, outcome, verdicts, breach, .. } = measured;
    if let Some(breach) = breach {
        output::complain(text::breach(breach));
    }
    for (gate, verdict) in verdicts.iter().filter(|(_, verdict)| verdict.is_broken) {
        output::complain(format_args!("gate {gate} failed: {}", verdict.value));
    }
    let was_due = outcome.requests.sent > 0 || outcome.errors.total() > 0;
    if outcome.requests.answered == 0 && (was_due || stop_signal.is_none()) {
        output::complain(format_args!(
            "{}: nothing was answered: {}",
            plan.shown_target(),
            first_reason(plan, outcome)
        ));
        return ExitCode::FAILURE;
    }
    if let Some(loss) = &outcome.target_loss {
        output::complain(format_args!(
            "{}: the target was lost {} before the end: {}",
            plan.shown_target(),
            load::format_duration(loss.before_end),
            loss.error
        ));
        return ExitCode::FAILURE;
    }
    if breach.is_some() || verdicts.iter().any(|(_, verdict)| verdict.is_broken) {
        return ExitCode::from(GATE_BROKEN);
    }
    match stop_signal {
        Some(signal) => {
            output::complain(format_args!("the run was stopped early by {signal}"));
            ExitCode::from(SIGNAL_STATUS + signal.number() as u8)
        }
        None => ExitCode::SUCCESS,
    }
}

/// Exits like clap does for values that it rejects itself, with the usage of `load` or of a subcommand.
fn reject(subcommand: &[&str], kind: ErrorKind, message: &str) -> ! {
    let mut program = CommandLine::command();
    program.build();
    let mut command = &mut program;
    for name in [&["load"], subcommand].concat() {
        if command.find_subcommand(name).is_none() {
            break;
        }
        command = command.find_subcommand_mut(name).unwrap_or_else(|| unreachable!());
    }
    command.error(kind, message).exit()
}

/// The files to write, with their flags.
fn output_files(options: &Options) -> [(&'static str, Option<&Path>); 5] {
    let files = [&options.json, &options.hdr, &options.csv, &options.html, &options.prometheus];
    let [json, hdr, csv, html, prometheus] = files.map(Option::as_deref);
    [("--json", json), ("--hdr", hdr), ("--csv", csv), ("--html", html), ("--prometheus", prometheus)]
}

fn check_files(options: &Options) -> Result<(), String> {
    let outputs = output_files(options);
    files::check_distinct(&outputs)?;
    files::check_kept(&outputs, &options.input_files())
}

/// The files for results that are written at the end.
struct ResultFiles {
    json: Option<ResultFile>,
    html: Option<ResultFile>,
    prometheus: Option<ReplacedFile>,
}

/// Opens all files before the run.
fn open_files(options: &Options) -> io::Result<(IntervalFiles, ResultFiles)> {
    let html = options.html.as_deref().map(ResultFile::open).transpose()?;
    let intervals = IntervalFiles::create(options.hdr.as_deref(), options.csv.as_deref(), html.is_some())?;
    let prometheus = options.prometheus.as_deref().filter(|path| !is_standard_output(path));
    let prometheus = prometheus.map(ReplacedFile::open).transpose()?;
    Ok((intervals, ResultFiles { json: open_json(options.json.as_deref())?, html, prometheus }))
}

/// Opens the file for JSON, unless it goes to standard output.
fn open_json(json: Option<&Path>) -> io::Result<Option<ResultFile>> {
    json.filter(|path| !is_standard_output(path)).map(ResultFile::open).transpose()
}

/// Prints the table, and writes the JSON file; or prints the JSON instead.
fn print(table: &str, value: &Value, json: Option<&Path>, file: Option<ResultFile>) -> io::Result<()> {
    let rendered = format!("{value:#}\n");
    match (json, file) {
        (None, _) => output::print(table),
        (Some(_), None) => output::print(&rendered),
        (Some(_), Some(file)) => output::print(table).and_then(|()| file.write(&rendered)),
    }
}

fn page_of(
    measured: &Measured,
    points: &[page::Point],
    together: Option<&Together>,
    value: &Value,
) -> String {
    let Measured { plan, outcome, breach, began_at, .. } = measured;
    let target = plan.shown_target();
    let table = text::table(plan, outcome);
    // The first line of the table starts with the target, which is the page's title.
    let summary = table.lines().next().and_then(|line| line.strip_prefix(&target));
    let span = workload::service_span(&plan.workload);
    page::Page {
        summary: summary.unwrap_or_default().trim_start_matches(": ").to_string() + ".",
        began_at: *began_at,
        value,
        times: match plan.pace {
            Pace::Closed => vec![("service time", &outcome.service_times)],
            _ => vec![("response time", &outcome.response_times), ("service time", &outcome.service_times)],
        },
        meaning: match plan.pace {
            Pace::Closed => format!("Service time: {span}. In a closed loop, stalls hardly show."),
            _ => format!(
                "Response time: from when a request was due to its response, as users see it. Service time: {span}."
            ),
        },
        rate_unit: workload::rate_unit(&plan.workload),
        series: vec![page::Series::new(target.clone(), points)],
        remarks: breach.as_ref().map_or_else(String::new, |breach| text::breach(breach) + ".\n")
            + &text::remarks(plan, outcome),
        repeats: match together {
            Some(Together::Repeats(repeats)) => repeats.rows(),
            _ => Vec::new(),
        },
        title: target,
    }
    .render()
}

fn cannot_write(shown_path: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write {shown_path}: {error}"))
}

/// Why no request was answered.
fn first_reason<'o>(plan: &Plan, outcome: &'o Outcome) -> &'o str {
    let mut reasons = load::ErrorKind::ALL.into_iter().filter_map(|kind| outcome.errors.example(kind));
    reasons.next().unwrap_or(match plan.workload {
        Workload::Receive { .. } => "nothing was received",
        _ => "no request was due",
    })
}

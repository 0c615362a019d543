//! The flags of `ringspun load`, and their conversion to a plan.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use ringspun_load::{self as load, Condition, Detour, Gate, Length, Plan, Target};

use super::goal::FindFlags;
use super::http2::Http2Flags;
use super::pace::PaceFlags;
use super::secrets::{Guarded, guarded, refused_target};
use super::sessions::SessionFlags;
use super::tls::TlsFlags;
use super::whole::whole;
use super::workload::WorkloadOptions;

#[derive(Args)]
pub struct Options {
    /// The server: tcp://HOST:PORT, tls://HOST:PORT, udp://HOST:PORT, unix:PATH, unix:@NAME (abstract name),
    /// http://HOST:PORT/PATH, https://HOST:PORT/PATH, ws://HOST:PORT/PATH, or wss://HOST:PORT/PATH
    #[arg(value_name = "TARGET", required = true, value_parser = guarded::<Target>("[TARGET]", refused_target))]
    pub target: Option<Guarded<Target>>,
    /// Connect to HOST:PORT, unix:PATH or unix:@NAME instead; the header Host, and the name in certificates, stay
    /// those of the target: http://app/ --connect-to unix:/run/app.sock
    #[arg(long, value_name = "ADDRESS", value_parser = guarded::<Detour>("--connect-to <ADDRESS>", refused_target))]
    connect_to: Option<Guarded<Detour>>,
    /// Number of connections, or of datagram sockets, up to 1M and the limit on open files
    #[arg(short, long, value_name = "COUNT", default_value = "1", value_parser = load::parse_count)]
    connections: u64,
    /// How long to send requests after the warm-up [default without --count: 10s]
    #[arg(short, long, value_name = "TIME", conflicts_with = "count", value_parser = load::parse_duration)]
    duration: Option<Duration>,
    /// Number of requests to send after the warm-up, over all connections; with --session, of sessions to make
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = load::parse_count)]
    count: Option<u64>,
    #[command(flatten)]
    pace: PaceFlags,
    #[command(flatten)]
    pub find: FindFlags,
    /// Make this many complete runs, and report means with 95 % confidence intervals: --repeat 5
    ///
    /// Each run has its own connections, warm-up and random arrivals. Other results are those of the last run. A gate
    /// that breaks in one run has failed.
    #[arg(long, value_name = "COUNT", value_parser = whole(2..=1000_u32),
          conflicts_with_all = ["find", "start_at", "hdr", "csv"])]
    pub repeat: Option<u32>,
    #[command(flatten)]
    workload: WorkloadOptions,
    #[command(flatten)]
    pub sessions: SessionFlags,
    #[command(flatten)]
    http2: Http2Flags,
    #[command(flatten)]
    tls: TlsFlags,
    /// Maximum time to wait for a connection and for a response
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = load::parse_duration)]
    timeout: Duration,
    /// Write the results as JSON to a file (described in docs/load-json.md), or with - to standard output
    /// instead of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the times of each second to an HdrHistogram interval log, in nanoseconds, tagged response (open
    /// loop only) and service, for `ringspun load report` and HdrHistogram's tools
    #[arg(long, value_name = "FILE")]
    pub hdr: Option<PathBuf>,
    /// Write rate, latencies and errors of each second to a CSV file (described in docs/load-logs.md), or with -
    /// to standard output instead of the table
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write the results as an HTML page with charts, the command line and the machine; self-contained, without
    /// scripts
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write the results to a file for the textfile collector of Prometheus' node_exporter, at once at the end:
    /// --prometheus /var/lib/node_exporter/load.prom, or with - to standard output instead of the table
    ///
    /// docs/load-prometheus.md has the metrics.
    #[arg(long, value_name = "FILE")]
    pub prometheus: Option<PathBuf>,
    /// Exit with status 3 if this condition holds, such as 'p99>5ms', 'errors>1%' or 'rate<10k'; repeatable
    ///
    /// Measures: percentiles of the response times (p50, p99.9), their max and mean, rate (answered requests
    /// per second; connections with churn), send-rate and receive-rate (bytes per second), errors (a count, or
    /// with % the share of requests that failed), unsent, and HTTP statuses such as 503 or 5xx (a count, or with %
    /// a share of the responses); and the requests that failed in one way, as a count or a share: wrong, bad-status,
    /// bad-body, timed-out and lost. Requests that failed or were not sent count as
    /// slower than any limit. Operators: >, >=, < and <=. With @ at its end, a gate is about a part of the run: a step
    /// (p99>5ms@3), or what has a name: requests of --requests (5xx>1%@buy), steps of --script (p99>50ms@login).
    #[arg(long, value_name = "GATE")]
    pub fail_if: Vec<Gate>,
    /// End the run early, with status 3, if this condition holds over the last seconds: --abort-if 'errors>10%';
    /// repeatable
    ///
    /// The conditions are those of --fail-if, of the responses that arrived, and the requests that were sent, in these
    /// seconds. In a search, such a trial fails; with --repeat, no further run is made.
    #[arg(long, value_name = "CONDITION")]
    pub abort_if: Vec<Condition>,
    /// How many seconds --abort-if looks at, rounded up to whole ones: --abort-window 30s
    #[arg(long, value_name = "TIME", default_value = "5s", requires = "abort_if", value_parser = load::parse_duration)]
    pub abort_window: Duration,
}

impl Options {
    /// The plan, if a target is given. The error names a value, and what was expected.
    pub fn plan(&self) -> Option<Result<Plan, String>> {
        let Guarded(target) = self.target.clone()?;
        let plan = target.and_then(|target| self.plan_for(target));
        Some(plan.and_then(|plan| {
            plan.check()?;
            self.check_conditions(&plan)?;
            Ok(plan)
        }))
    }

    /// The files that are read, with their flags.
    pub fn input_files(&self) -> Vec<(&'static str, Option<&Path>)> {
        let script = ("--script", self.sessions.script.as_deref());
        [&self.workload.input_files()[..], &self.tls.input_files(), &[script]].concat()
    }

    /// Gates may be about a part of the run; conditions on the last seconds are not.
    fn check_conditions(&self, plan: &Plan) -> Result<(), String> {
        self.fail_if.iter().try_for_each(|gate| {
            gate.condition().check(plan).map_err(|error| format!("--fail-if {error}"))
        })?;
        match (self.abort_if.first(), self.abort_if.iter().find(|condition| condition.is_of_part())) {
            (_, Some(condition)) => Err(format!("--abort-if {condition}: expected a condition without @")),
            (Some(condition), None) => self.check_window(condition, plan),
            (None, None) => Ok(()),
        }
    }

    /// A window that a run never fills would have no condition hold.
    fn check_window(&self, condition: &Condition, plan: &Plan) -> Result<(), String> {
        // It is looked at each second.
        let whole = Duration::from_secs(self.abort_window.as_nanos().div_ceil(1_000_000_000) as u64);
        match plan.length {
            Length::Duration(length) if whole.max(Duration::from_secs(1)) >= length => Err(format!(
                "--abort-if {condition}: the window (--abort-window) is {} of a run of {}: expected a shorter window, \
                 or a longer run",
                load::format_duration(self.abort_window),
                load::format_duration(length)
            )),
            _ => Ok(()),
        }
    }

    /// Without HTTP, a condition on statuses would never hold, and its gate always pass.
    fn check_without_statuses(&self) -> Result<(), String> {
        let of_gates = self.fail_if.iter().map(Gate::condition);
        match of_gates
            .chain(&self.abort_if)
            .chain(self.find.conditions())
            .find(|condition| condition.needs_http())
        {
            Some(condition) => Err(format!(
                "{condition}: there are HTTP statuses with http and https only: expected another condition, or target"
            )),
            None => Ok(()),
        }
    }

    fn plan_for(&self, target: Target) -> Result<Plan, String> {
        // Saturated values exceed the plan's limits, too.
        let saturated = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let mut plan = Plan::new(target);
        if !matches!(plan.target, Target::Http(_)) {
            self.check_without_statuses()?;
        }
        plan.detour = self.connect_to.clone().map(|Guarded(detour)| detour).transpose()?;
        plan.connections = saturated(self.connections);
        self.workload.apply(&mut plan)?;
        self.http2.apply(&mut plan);
        self.sessions.apply(&mut plan)?;
        self.tls.apply(&mut plan)?;
        plan.timeout = self.timeout;
        match (self.count, self.duration) {
            (Some(count), _) => plan.length = Length::Count(count),
            (None, Some(duration)) => plan.length = Length::Duration(duration),
            (None, None) => {}
        }
        self.pace.apply(&mut plan, self.find.goal()?.map(|goal| goal.pace()))?;
        Ok(plan)
    }
}

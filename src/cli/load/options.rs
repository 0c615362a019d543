//! The flags of `ringspun load`, and the plan that they make.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ringspun_load::{self as load, Gate, Length, Plan, Target};

use super::pace::PaceFlags;
use super::workload::WorkloadOptions;

#[derive(Args)]
pub struct Options {
    /// The server: tcp://HOST:PORT, udp://HOST:PORT, unix:/PATH, unix:@NAME for an abstract name, or
    /// http://HOST:PORT/PATH
    #[arg(value_name = "TARGET", required = true)]
    pub target: Option<Target>,
    /// How many connections to hold open, or sockets for datagrams: up to 1M, as far as files may be opened
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = load::parse_count)]
    connections: u64,
    /// How long to send requests after the warm-up; 10s without this and without --count
    #[arg(long, value_name = "TIME", conflicts_with = "count", value_parser = load::parse_duration)]
    duration: Option<Duration>,
    /// How many requests to send after the warm-up, over all connections
    #[arg(long, value_name = "COUNT", value_parser = load::parse_count)]
    count: Option<u64>,
    #[command(flatten)]
    pace: PaceFlags,
    #[command(flatten)]
    workload: WorkloadOptions,
    /// How long to wait for a connection, and for an answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = load::parse_duration)]
    timeout: Duration,
    /// Write the results to a file as JSON (docs/load-json.md says what is in it); - for standard output,
    /// which then gets no table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the times of each second to a file as an interval log of HdrHistogram, in nanoseconds, tagged
    /// response (open loop only) and service; `ringspun load report` reads it, as HdrHistogram's tools do
    #[arg(long, value_name = "FILE")]
    pub hdr: Option<PathBuf>,
    /// Write rate, latencies and errors of each second to a file as comma-separated values
    /// (docs/load-logs.md says which)
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write the results to a file as a page for a browser, with drawings, the command line and the machine; it
    /// loads nothing and runs no script
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Exit with 3 if this holds, such as 'p99>5ms', 'errors>0' or 'rate<10k'; can be given several times
    ///
    /// The measures are any percentile of the response times (p50, p99.9), max and mean of them, rate
    /// (answered requests per second; connections with churn), send-rate and receive-rate (bytes per second),
    /// errors, and unsent; the comparisons are >, >=, < and <=.
    #[arg(long, value_name = "GATE")]
    pub fail_if: Vec<Gate>,
}

impl Options {
    /// What they ask for, if they name a target; the error names a value, and what was expected.
    pub fn plan(&self) -> Option<Result<Plan, String>> {
        let target = self.target.clone()?;
        Some(self.plan_for(target).and_then(|plan| plan.check().map(|()| plan)))
    }

    fn plan_for(&self, target: Target) -> Result<Plan, String> {
        // A number that is too large for the plan is too large as well for what it checks.
        let saturated = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let mut plan = Plan::new(target);
        plan.connections = saturated(self.connections);
        self.workload.apply(&mut plan)?;
        plan.timeout = self.timeout;
        match (self.count, self.duration) {
            (Some(count), _) => plan.length = Length::Count(count),
            (None, Some(duration)) => plan.length = Length::Duration(duration),
            (None, None) => {}
        }
        self.pace.apply(&mut plan)?;
        Ok(plan)
    }
}

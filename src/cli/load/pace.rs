//! The flags of `ringspun load` that control when requests are sent.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use clap::Args;
use ringspun_load::{self as load, Arrivals, Length, Pace, Plan, Rates, Step, format_duration};

use super::whole::whole;

const WORKERS_MAX: usize = 65_535;
/// As long as the longest run. A time in milliseconds is thousands of years ahead if it is taken for seconds.
const START_WAIT_MAX: Duration = Duration::from_secs(1000 * 24 * 60 * 60);

/// Steps as the value of a flag.
#[derive(Clone)]
struct Steps(Vec<Step>);

impl FromStr for Steps {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        load::parse_steps(text).map(Self)
    }
}

/// The pace of requests and of opening connections.
#[derive(Args)]
pub struct PaceFlags {
    /// Send requests at this rate per second over all connections (open loop): --rate 50k, or with a unit
    /// --rate 30/m; or at a rate that changes linearly over the duration: --rate 1k..50k
    ///
    /// Rates may have fractions (0.5), and units: /s, /m and /h for requests per second, minute and hour.
    #[arg(short, long, value_name = "RATE")]
    rate: Option<Rates>,
    /// Send requests at a sequence of rates (open loop), here for 30 seconds each: --steps 10k,20k,40k:30s
    ///
    /// Results are also reported per step. A step may change linearly and have its own duration:
    /// --steps 1k..10k:10s,10k:1m. The first rate applies during --warmup and --ramp-up.
    #[arg(long, value_name = "RATES:TIME", conflicts_with_all = ["rate", "count", "duration"])]
    steps: Option<Steps>,
    /// How the requests of an open loop follow each other: at random, as from many users (poisson), or at equal
    /// distances (even), which is kinder to the target [default: poisson]
    #[arg(long, value_name = "HOW")]
    arrivals: Option<Arrivals>,
    /// Choose the same random arrivals, requests and sessions again: --seed 7 [default: another one for each run;
    /// --json has it]
    #[arg(long, value_name = "NUMBER", value_parser = whole(0..=u32::MAX))]
    seed: Option<u32>,
    /// Number of threads, each with an equal share of the connections: --workers 4
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = whole(1..=WORKERS_MAX))]
    workers: usize,
    /// Start sending at this time, to start several machines together: --start-at 2030-01-31T12:00:00Z, or in
    /// seconds since 1970: --start-at $(date -d '1 minute' +%s)
    ///
    /// Connections are opened before that time; --ramp-up and --warmup follow it.
    #[arg(long, value_name = "TIME", value_parser = load::parse_time)]
    start_at: Option<SystemTime>,
    /// Open connections from these local addresses in turn, each of which provides about 28,000 ports:
    /// --bind 127.0.0.2,127.0.0.3
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', value_parser = parse_source)]
    bind: Vec<IpAddr>,
    /// Spread the opening of connections over this time, before the warm-up: --ramp-up 5s
    ///
    /// Each connection sends requests as soon as it is open, so that the rate of an open loop rises with the
    /// connections. Requests in this time are not counted.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = load::parse_duration)]
    ramp_up: Duration,
    /// How long to send requests before the measurement: --warmup 1s
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = load::parse_duration)]
    warmup: Duration,
}

impl PaceFlags {
    /// Sets the pace of a plan whose length is already set. A search has a pace of its own.
    pub fn apply(&self, plan: &mut Plan, of_search: Option<Pace>) -> Result<(), String> {
        plan.workers = self.workers;
        if let Some(ago) = self.start_at.and_then(|start_at| start_at.elapsed().ok()) {
            return Err(format!("--start-at is {} ago: expected a time in the future", format_duration(ago)));
        }
        let wait = self.start_at.and_then(|start_at| start_at.duration_since(SystemTime::now()).ok());
        if let Some(wait) = wait.filter(|wait| *wait > START_WAIT_MAX) {
            let days = wait.as_secs() / (24 * 60 * 60);
            return Err(format!(
                "--start-at is {days} days ahead: expected 1000 at most, and seconds since 1970"
            ));
        }
        plan.start_at = self.start_at;
        plan.sources.clone_from(&self.bind);
        plan.ramp_up = self.ramp_up;
        plan.warmup = self.warmup;
        plan.seed = self.seed.unwrap_or_else(random_seed).into();
        match (of_search, &self.steps, self.rate) {
            (Some(pace), ..) => plan.pace = pace,
            (None, Some(steps), _) => plan.set_steps(steps.0.clone()),
            (None, None, Some(Rates { from, to })) if from == to => {
                plan.pace = Pace::Open { rate: from };
            }
            (None, None, Some(Rates { from, to })) => {
                let Length::Duration(duration) = plan.length else {
                    return Err(format!(
                        "--rate {from}..{to} cannot be used with --count: expected --duration"
                    ));
                };
                plan.set_steps(vec![Step { from, to, duration }]);
            }
            (None, None, None) => {
                if let Some(arrivals) = self.arrivals {
                    return Err(format!(
                        "--arrivals {arrivals}: a closed loop sends when a response has arrived: expected --rate \
                         or --steps"
                    ));
                }
            }
        }
        plan.arrivals = self.arrivals.unwrap_or_default();
        Ok(())
    }
}

/// From the standard library's source of keys for hash tables.
fn parse_source(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "expected an IP address without a port, such as 127.0.0.2 or ::1".to_string())
}

fn random_seed() -> u32 {
    (RandomState::new().build_hasher().finish() >> 32) as u32
}

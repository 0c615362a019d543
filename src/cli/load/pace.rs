//! The flags of `ringspun load` that say when requests are sent.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use clap::Args;
use ringspun_load::{self as load, Length, Pace, Plan, Rates, Step, show_duration};

/// Steps as one value of a flag.
#[derive(Clone)]
struct Steps(Vec<Step>);

impl FromStr for Steps {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        load::parse_steps(text).map(Self)
    }
}

/// When requests are sent, and when connections are opened.
#[derive(Args)]
pub struct PaceFlags {
    /// Send requests at this rate, in requests per second over all connections (open loop): --rate 50k; or at
    /// one that rises evenly over the duration: --rate 1k..50k
    #[arg(long, value_name = "RATE")]
    rate: Option<Rates>,
    /// Send requests at several rates in turn (open loop), each for as long as stands behind the last of them:
    /// --steps 10k,20k,40k:30s
    ///
    /// The results are told for each step, too. A step may rise or fall evenly, and have a time of its own:
    /// --steps 1k..10k:10s,10k:1m. During --warmup and --ramp-up, the first rate is held.
    #[arg(long, value_name = "RATES:TIME", conflicts_with_all = ["rate", "count", "duration"])]
    steps: Option<Steps>,
    /// Run on this many threads, each with an equal share of the connections: --workers 4
    #[arg(long, value_name = "COUNT", default_value = "1")]
    workers: usize,
    /// Begin to send at this time, by the clock on the wall, as other machines do that were told the same:
    /// --start-at 2030-01-31T12:00:00Z, or in seconds since 1970, as in --start-at $(date -d '1 minute' +%s)
    ///
    /// The connections are opened before; --ramp-up and --warmup begin then.
    #[arg(long, value_name = "TIME", value_parser = load::parse_time)]
    start_at: Option<SystemTime>,
    /// Open connections from these addresses of this machine in turn, each of which has ports for some 28,000:
    /// --bind 127.0.0.2,127.0.0.3
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    bind: Vec<IpAddr>,
    /// Open the connections evenly over this time, before the warm-up: --ramp-up 5s
    ///
    /// Each sends requests as soon as it is open, so that in an open loop the rate rises with them. What is
    /// sent in this time is not counted.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = load::parse_duration)]
    ramp_up: Duration,
    /// How long to send requests before any is counted: --warmup 1s
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = load::parse_duration)]
    warmup: Duration,
}

impl PaceFlags {
    /// Completes a plan whose length has been set.
    pub fn apply(&self, plan: &mut Plan) -> Result<(), String> {
        plan.workers = self.workers;
        if let Some(ago) = self.start_at.and_then(|start_at| start_at.elapsed().ok()) {
            return Err(format!("--start-at {} ago: expected a time to come", show_duration(ago)));
        }
        plan.start_at = self.start_at;
        plan.sources.clone_from(&self.bind);
        plan.ramp_up = self.ramp_up;
        plan.warmup = self.warmup;
        match (&self.steps, self.rate) {
            (Some(steps), _) => plan.set_steps(steps.0.clone()),
            (None, Some(Rates { from_per_s, to_per_s })) if from_per_s == to_per_s => {
                plan.pace = Pace::Open { rate_per_s: from_per_s };
            }
            (None, Some(Rates { from_per_s, to_per_s })) => {
                let Length::Duration(duration) = plan.length else {
                    return Err(format!(
                        "--rate {from_per_s}..{to_per_s} with --count: expected --duration, over which the rate \
                         changes"
                    ));
                };
                plan.set_steps(vec![Step { from_per_s, to_per_s, duration }]);
            }
            (None, None) => {}
        }
        Ok(())
    }
}

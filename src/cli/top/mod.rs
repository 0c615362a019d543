//! `ringspun top`: the counts of a running process, live.

mod samples;
mod source;
mod view;

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use ringspun_load::parse_duration;

use super::load::whole::whole;
use super::{output, terminal};
use samples::Samples;
use source::Source;

/// A process takes up to a second for its counts if one of its loops does not answer.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// What to look at, and how often.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ringspun top 4242                        a ringspun serve, load or janet of this user
  ringspun top 127.0.0.1:9000              a server with --metrics 127.0.0.1:9000, as any user
  ringspun top 4242 --count 10 | tee log   ten lines

On a terminal, it rewrites the screen until Ctrl-C, or --count. Elsewhere, it prints a line each time.
Counts are those of the moment, and rates those since the last time. They are the counts of --metrics.")]
pub struct Top {
    /// The number of a process, or where it serves its metrics
    #[arg(value_name = "PID|HOST:PORT")]
    source: Source,
    /// How long rates are counted for, for example 500ms; at least 100ms
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,
    /// End after this many times
    #[arg(long, value_name = "N", value_parser = whole(1..=u64::from(u32::MAX)))]
    count: Option<u64>,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    match interval < INTERVAL_MIN {
        true => Err(format!("{text}: expected at least {INTERVAL_MIN:?}")),
        false => Ok(interval),
    }
}

/// Shows the counts until it has done so often enough, or until there are none any more.
pub fn top(options: &Top) -> ExitCode {
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(error);
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Top) -> Result<(), String> {
    let is_screen = terminal::can_redraw(&io::stdout());
    let (mut last, mut taken_at) = (take(&options.source)?, Instant::now());
    let mut shown = 0;
    while options.count.is_none_or(|count| shown < count) {
        thread::sleep(options.interval);
        let (now, now_at) = (take(&options.source)?, Instant::now());
        let counts = samples::Change { last: &last, now: &now, over: now_at - taken_at };
        let text = match is_screen {
            true => {
                let lines = view::lines(&options.source.to_string(), &counts, terminal::size(&io::stdout()));
                terminal::redraw_screen(&lines)
            }
            false => view::line(&counts) + "\n",
        };
        match write(&text) {
            // Nobody reads any more.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(|error| format!("cannot write to standard output: {error}"))?,
        }
        (last, taken_at) = (now, now_at);
        shown += 1;
    }
    Ok(())
}

fn take(source: &Source) -> Result<Samples, String> {
    let text = source.read()?;
    text.parse().map_err(|error| format!("{source}: {error}"))
}

fn write(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

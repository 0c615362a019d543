//! The live view of a run on a terminal.
//!
//! A thread of its own draws it: a terminal that takes no output, or a slow one, must not delay requests. The cursor is
//! neither hidden nor moved away, so that nothing has to be restored however the process ends.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use ringspun_load::{
    Bin, Latencies, Length, Pace, Plan, Progress, Step, format_count, format_duration, format_per_s,
};

use super::histogram;
use crate::cli::terminal::{self, Part};

const REDRAWN_EVERY: Duration = Duration::from_millis(250);
const PERCENTILES: [(&str, f64); 5] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0)];
/// Times outside these percentiles share a bar.
const BARS_BETWEEN: [f64; 2] = [0.1, 99.9];
const BARS_MAX: usize = 48;
/// The rates of a second differ: below this share of what is aimed at, the target does not keep up.
const KEEPS_UP: f64 = 0.95;
/// The rate is that of the last second: on average, of half a second ago.
const RATE_AGE: Duration = Duration::from_millis(500);

/// The view of a run, which is cleared when it is dropped.
pub struct LiveView {
    screen: Screen,
    thread: Option<JoinHandle<()>>,
}

/// Where a view gets from what it shows.
#[derive(Clone)]
pub struct Screen(Arc<(Mutex<Seen>, Condvar)>);

#[derive(Default)]
struct Seen {
    /// With the time when it was told.
    progress: Option<(Arc<Progress>, Instant)>,
    is_stopping: bool,
    has_ended: bool,
}

impl LiveView {
    /// Begins to draw on standard error. `which` is the run in a series. There is no view if there is no thread for it,
    /// which is no reason not to measure.
    pub fn start(plan: &Plan, which: Option<String>) -> Option<Self> {
        let screen = Screen(Arc::default());
        let (drawn, course) = (screen.clone(), Course::of(plan, which));
        let thread = thread::Builder::new().name("live view".to_string());
        let thread = thread.spawn(move || drawn.draw_until_end(&course)).ok()?;
        Some(Self { screen, thread: Some(thread) })
    }

    /// For those who have something to show.
    pub fn screen(&self) -> Screen {
        self.screen.clone()
    }
}

impl Drop for LiveView {
    fn drop(&mut self) {
        self.screen.change(|seen| seen.has_ended = true);
        // It does not panic, and has nothing to tell.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Screen {
    /// Shows the progress from now on.
    pub fn see(&self, progress: Arc<Progress>) {
        self.change(|seen| seen.progress = Some((progress, Instant::now())));
    }

    /// Shows that the run is being stopped.
    pub fn stop(&self) {
        self.change(|seen| seen.is_stopping = true);
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.lock());
        self.0.1.notify_all();
    }

    fn draw_until_end(&self, course: &Course) {
        let mut figures: Option<(Figures, Instant)> = None;
        loop {
            let mut seen = self.lock();
            if seen.has_ended {
                break;
            }
            let (told, is_stopping) = (seen.progress.take(), seen.is_stopping);
            drop(seen);
            if let Some((progress, told_at)) = told {
                figures = Some((Figures::of(&progress), told_at));
            }
            // Failing to show progress is no reason to end the run.
            let _ = match is_stopping {
                true => write(&stopping_line(terminal::size(&io::stderr()))),
                false => {
                    let now = figures.as_ref().map(|(figures, told_at)| (figures, told_at.elapsed()));
                    write(&terminal::redraw(&frame(course, now, terminal::size(&io::stderr()))))
                }
            };
            let seen = self.lock();
            let is_same = |seen: &mut Seen| !seen.has_ended && seen.is_stopping == is_stopping;
            let _ = self.0.1.wait_timeout_while(seen, REDRAWN_EVERY, is_same);
        }
        let _ = write(&terminal::clear());
    }
}

/// At once, so that no part of it is seen alone.
fn write(text: &str) -> io::Result<()> {
    io::stderr().lock().write_all(text.as_bytes())
}

/// The cursor is behind it: a second signal ends the process, and a shell writes there.
fn stopping_line((columns, _): (usize, usize)) -> String {
    let text = "stopping: waits for the last responses; Ctrl-C ends at once ";
    terminal::clear() + &terminal::cut(text, columns.saturating_sub(1))
}

/// What is known of a run before it.
struct Course {
    which: Option<String>,
    connections: u64,
    start_at: Option<SystemTime>,
    ramp_up: Duration,
    /// Of ramp-up and warm-up.
    lead: Duration,
    length: Length,
    pace: Pace,
}

impl Course {
    fn of(plan: &Plan, which: Option<String>) -> Self {
        Self {
            which,
            connections: plan.connections as u64,
            start_at: plan.start_at,
            ramp_up: plan.ramp_up,
            lead: plan.ramp_up + plan.warmup,
            length: plan.length,
            pace: plan.pace.clone(),
        }
    }

    /// The rate that is aimed at, as text and per second, and which of how many steps that is.
    fn aim(&self, elapsed: Duration) -> Option<(String, f64, Option<String>)> {
        if elapsed < self.ramp_up {
            return None;
        }
        match &self.pace {
            Pace::Closed => None,
            Pace::Open { rate } => Some((rate.to_string(), rate.as_per_s(), None)),
            Pace::Steps(steps) => {
                let (number, step, within) = step_at(steps, elapsed.saturating_sub(self.lead))?;
                let which = (steps.len() > 1).then(|| format!("step {} of {}", number + 1, steps.len()));
                let [from, to] = [step.from, step.to].map(ringspun_load::Rate::as_per_s);
                let per_s = from + (to - from) * share(within, step.duration);
                let text =
                    if from == to { step.from.to_string() } else { format!("{}/s", format_per_s(per_s)) };
                Some((text, per_s, which))
            }
        }
    }
}

/// The step at a time of the measurement, with its index and the time since its beginning; the last one after its end.
fn step_at(steps: &[Step], mut elapsed: Duration) -> Option<(usize, Step, Duration)> {
    for (index, step) in steps.iter().enumerate() {
        if elapsed < step.duration || index + 1 == steps.len() {
            return Some((index, *step, elapsed));
        }
        elapsed -= step.duration;
    }
    None
}

/// What is shown of a run's progress.
struct Figures {
    elapsed: Duration,
    rate_per_s: f64,
    errors: u64,
    connections_open: u64,
    answered: u64,
    percentiles: [Option<Duration>; PERCENTILES.len()],
    bins: Vec<Bin>,
    /// The shortest and the longest time.
    range: [Duration; 2],
}

impl Figures {
    fn of(progress: &Progress) -> Self {
        let times: &Latencies = &progress.response_times;
        Self {
            elapsed: progress.elapsed,
            rate_per_s: progress.rate_per_s,
            errors: progress.errors,
            connections_open: progress.connections_open as u64,
            answered: times.count(),
            percentiles: PERCENTILES.map(|(_, percentile)| times.known_percentile(percentile)),
            bins: times.bins(BARS_BETWEEN[0], BARS_BETWEEN[1], BARS_MAX),
            range: [times.min(), times.max()],
        }
    }
}

/// The lines of the view. The figures are as old as told.
fn frame(
    course: &Course,
    figures: Option<(&Figures, Duration)>,
    (columns, rows): (usize, usize),
) -> Vec<String> {
    // A terminal may wrap a line that fills it.
    let columns = columns.saturating_sub(1).max(1);
    let has_colors = terminal::has_colors();
    let mut lines = Vec::new();
    let mut add = |parts: &[Part]| lines.extend(terminal::flow(parts, columns, has_colors));
    match figures {
        None => add(&before_start(course)),
        Some((figures, age)) => {
            add(&head(course, figures, age));
            add(&counts(course, figures));
            if figures.answered > 0 {
                add(&times(figures));
            }
            lines.extend(bars(figures, columns));
        }
    }
    lines.truncate(rows.max(1));
    lines
}

fn before_start(course: &Course) -> Vec<Part> {
    let wait = course.start_at.and_then(|start_at| start_at.duration_since(SystemTime::now()).ok());
    let connections = format!("{} connections", format_count(course.connections));
    let state = match wait {
        Some(wait) => format!("starts in {}", clock(wait)),
        None => "starting".to_string(),
    };
    [Some(state), Some(connections), course.which.clone()].into_iter().flatten().map(Part::plain).collect()
}

/// How much of the run is over, what is left, and where it is.
fn head(course: &Course, figures: &Figures, age: Duration) -> Vec<Part> {
    let elapsed = figures.elapsed + age;
    let (done, of, left) = match course.length {
        Length::Duration(duration) => {
            let total = course.lead + duration;
            // Whole seconds, so that both add up.
            let (shown, part) = (Duration::from_secs(elapsed.min(total).as_secs()), share(elapsed, total));
            let left = if elapsed < total { total - shown } else { Duration::ZERO };
            (part, format!("{} of {}", clock(shown), clock(total)), Some(left))
        }
        Length::Count(count) => {
            let missing = count.saturating_sub(figures.answered) as f64;
            let answered = format!("{} of {}", format_count(figures.answered), format_count(count));
            let left = Duration::try_from_secs_f64(missing / figures.rate_per_s).ok();
            (figures.answered as f64 / count as f64, answered, left)
        }
    };
    let left = left.map(|left| match left.is_zero() {
        true => "waits for the last responses".to_string(),
        false => format!("{} left", clock(left)),
    });
    let phase = match elapsed {
        _ if elapsed < course.ramp_up => Some("ramping up".to_string()),
        _ if elapsed < course.lead => Some("warming up".to_string()),
        _ => course.aim(figures.elapsed.saturating_sub(RATE_AGE)).and_then(|(_, _, step)| step),
    };
    let done = format!("{} {of}", histogram::progress_bar(done));
    let parts = [Some(done), left, course.which.clone(), phase];
    parts.into_iter().flatten().map(Part::plain).collect()
}

fn counts(course: &Course, figures: &Figures) -> Vec<Part> {
    let rate = format!("{}/s", format_per_s(figures.rate_per_s));
    let rate = match course.aim(figures.elapsed.saturating_sub(RATE_AGE)) {
        None => Part::plain(format!("{rate:<12}")),
        Some((aim, per_s, _)) => {
            let text = format!("{rate:>width$} of {aim}", width = aim.len());
            let keeps_up = figures.rate_per_s >= KEEPS_UP * per_s || figures.elapsed < course.lead;
            if keeps_up { Part::plain(text) } else { Part::yellow(text) }
        }
    };
    let [open, wanted] = [figures.connections_open, course.connections].map(format_count);
    let connections = format!("{open:>width$} of {wanted} connections", width = wanted.len());
    let errors =
        format!("{} error{}", format_count(figures.errors), if figures.errors == 1 { "" } else { "s" });
    let errors = if figures.errors > 0 { Part::red(errors) } else { Part::plain(errors) };
    vec![rate, Part::plain(connections), errors]
}

/// In columns, which stay where they are when times get longer.
fn times(figures: &Figures) -> Vec<Part> {
    let shown = PERCENTILES.iter().zip(&figures.percentiles).map(|((name, _), time)| {
        let time = time.map_or("-".to_string(), format_duration);
        Part::plain(format!("{name} {time:<7}"))
    });
    shown.collect()
}

/// The histogram, between the shortest and the longest time.
fn bars(figures: &Figures, columns: usize) -> Vec<String> {
    let [from, to] = figures.range.map(format_duration);
    let margin = from.chars().count() + 1;
    let room = columns.saturating_sub(margin + 1 + to.chars().count());
    if figures.bins.is_empty() || room == 0 {
        return Vec::new();
    }
    let counts: Vec<u64> = figures
        .bins
        .chunks(figures.bins.len().div_ceil(room))
        .map(|bins| bins.iter().map(|bin| bin.count).sum())
        .collect();
    let [above, below] = histogram::columns(&counts);
    vec![format!("{:margin$}{above}", "").trim_end().to_string(), format!("{from} {below} {to}")]
}

/// A part of a whole, up to 1.
fn share(part: Duration, whole: Duration) -> f64 {
    (part.as_secs_f64() / whole.as_secs_f64().max(f64::MIN_POSITIVE)).min(1.0)
}

/// Whole seconds, with minutes and hours where there are some.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    match seconds {
        0..100 => format!("{seconds} s"),
        100..3600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use ringspun_load::{Target, parse_steps};

    use super::*;

    const SIZE: (usize, usize) = (80, 24);

    fn figures(elapsed_s: u64) -> Figures {
        Figures {
            elapsed: Duration::from_secs(elapsed_s),
            rate_per_s: 999.0,
            errors: 0,
            connections_open: 8,
            answered: 7,
            percentiles: [Some(Duration::from_micros(5)); 5],
            bins: (1..=48)
                .map(|number| Bin {
                    above: Duration::from_micros(number - 1),
                    up_to: Duration::from_micros(number),
                    count: 1,
                })
                .collect(),
            range: [Duration::from_nanos(10), Duration::from_millis(48)],
        }
    }

    fn plan(connections: usize) -> Plan {
        let target: Target = "tcp://127.0.0.1:1".parse().unwrap();
        let mut plan = Plan::new(target);
        plan.connections = connections;
        plan
    }

    #[test]
    fn each_phase_says_what_is_aimed_at_and_what_is_left() {
        let mut plan = plan(8);
        plan.set_steps(parse_steps("1k:10s,1k..3k:20s").unwrap());
        (plan.ramp_up, plan.warmup) = (Duration::from_secs(5), Duration::from_secs(5));
        let course = Course::of(&plan, None);
        let half_s = Duration::from_millis(500);
        for (elapsed_s, head, rate) in [
            (3, "▕▊         ▏ 3 s of 40 s   37 s left   ramping up", "999/s          8 of 8"),
            (8, "▕██        ▏ 8 s of 40 s   32 s left   warming up", "  999/s of 1,000/s   8 of 8"),
            (20, "▕█████     ▏ 20 s of 40 s   20 s left   step 1 of 2", "  999/s of 1,000/s   8 of 8"),
            (30, "▕███████▌  ▏ 30 s of 40 s   10 s left   step 2 of 2", "  999/s of 1,950/s   8 of 8"),
            (
                40,
                "▕██████████▏ 40 s of 40 s   waits for the last responses   step 2 of 2",
                "  999/s of 2,950/s",
            ),
        ] {
            let lines = frame(&course, Some((&figures(elapsed_s), Duration::ZERO)), SIZE);
            assert_eq!(lines[0], head);
            let without_color = lines[1].replace("\x1b[33m", "").replace("\x1b[m", "");
            assert!(without_color.starts_with(rate), "{lines:?}");
        }
        let later = frame(&course, Some((&figures(20), half_s)), SIZE);
        assert!(later[0].contains("20 s of 40 s   20 s left"), "{later:?}");
    }

    #[test]
    fn the_lines_fit_into_narrow_and_low_terminals() {
        let mut plan = plan(100_000);
        plan.length = Length::Count(1_000_000_000);
        let course = Course::of(&plan, Some("run 2 of 5".to_string()));
        for columns in [1, 20, 40, 60, 80, 200] {
            let lines = frame(&course, Some((&figures(5000), Duration::ZERO)), (columns, 24));
            assert!(lines.iter().all(|line| line.chars().count() < columns.max(2)), "{columns}: {lines:?}");
            assert!(columns < 40 || lines.len() <= 9, "{columns}: {lines:?}");
        }
        let lines = frame(&course, Some((&figures(5000), Duration::ZERO)), (80, 2));
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], "▕          ▏ 7 of 1,000,000,000   278:03:21 left   run 2 of 5");
    }
}

//! Interval logs in the format of HdrHistogram (version 1.3, with compressed V2 histograms): written while a
//! run lasts, read, and merged.
//!
//! Each interval is a line tagged `service`, and in an open loop one tagged `response` as well. In a closed
//! loop the two would be the same. The histograms are in nanoseconds. The column with the longest time, which
//! is for people only, is in milliseconds, as HdrHistogram's own writer has it.
//!
//! Answers that came when the run's duration was over follow a comment `#[AfterEnd]`: their times count, the
//! rate leaves them out. HdrHistogram's tools take them for another interval.

use std::borrow::Borrow;
use std::fmt;
use std::fs;
use std::io::{self, LineWriter, Read as _, Write};
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogHistogram, IntervalLogIterator, IntervalLogWriterBuilder, IntervalLogWriterError, LogEntry,
    Tag,
};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};

use crate::interval::Interval;
use crate::latencies::Latencies;

const SERVICE: &str = "service";
const RESPONSE: &str = "response";
const AFTER_END: &str = "[AfterEnd]";
const NANOSECONDS_PER_MILLISECOND: f64 = 1e6;
/// How compressed histograms of the second version begin, with the length of what is compressed behind it.
const COMPRESSED_COOKIE: [u8; 4] = 0x1C84_9314_u32.to_be_bytes();
const COMPRESSED_HEAD_BYTES: usize = 8;
/// Before the counts stand the cookie, their length in bytes, an offset, digits, two bounds and a ratio.
const HEAD_BYTES: usize = 40;
const PAYLOAD_LENGTH_AT: usize = 4;
/// The smallest number there is, which is no count, and which the library negates.
const NO_COUNT: [u8; 9] = [0xFF; 9];
/// Sums of more would go over their bounds: a thousand years of a million answers per second have half as many.
const ANSWERED_MAX: u64 = 1 << 56;
/// With three digits, a histogram of all times has half a megabyte at most.
const HISTOGRAM_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Writes intervals as a log, each when it comes. The start and the base time are when the measured part
/// began. Nothing is written if there is no interval.
///
/// # Errors
///
/// Those of the writer.
pub fn write_log(writer: impl Write, intervals: impl IntoIterator<Item: Borrow<Interval>>) -> io::Result<()> {
    let mut intervals = intervals.into_iter().peekable();
    let Some(measured_from) = intervals.peek().map(|first| first.borrow().measured_from) else {
        return Ok(());
    };
    // Whole lines, so that a log of a run that was killed can be read.
    let mut writer = LineWriter::new(writer);
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(
            "Written by ringspun load. Times in nanoseconds; the column of the longest in milliseconds.",
        )
        .with_start_time(measured_from)
        .with_base_time(measured_from)
        .with_max_value_divisor(NANOSECONDS_PER_MILLISECOND)
        .begin_log_with(&mut writer, &mut serializer)?;
    for interval in intervals {
        let interval = interval.borrow();
        if interval.is_after_end {
            log.write_comment(AFTER_END)?;
        }
        let kinds = [(RESPONSE, interval.response_times.as_ref()), (SERVICE, Some(&interval.service_times))];
        for (name, times) in kinds {
            let Some(times) = times else { continue };
            log.write_histogram(times.histogram_ns(), interval.start, interval.duration, Tag::new(name))
                .map_err(|error| match error {
                    IntervalLogWriterError::IoError(error) => error,
                    IntervalLogWriterError::SerializeError(error) => io::Error::other(error),
                })?;
        }
    }
    writer.flush()
}

/// Why a log could not be read: the file, the line if it is about one, and what is wrong.
#[derive(Debug)]
pub struct LogError {
    name: String,
    line: Option<usize>,
    reason: String,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for LogError {}

/// An interval of a log, without its histogram. It is about a second long.
#[derive(Clone, Debug, PartialEq)]
pub struct Second {
    /// When it began, in seconds since 1970.
    pub start_s: f64,
    /// How long it was, in seconds.
    pub duration_s: f64,
    /// How many answers came in it.
    pub answered: u64,
    /// Their p50, p90, p99, p99.9 and the longest, of the response times where the log has them.
    pub times: [Duration; 5],
}

/// What is in a log.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Log {
    /// The name of the file.
    pub name: String,
    /// The measured part, interval by interval, without what came after its end.
    pub seconds: Vec<Second>,
    /// How many answers came after the end.
    pub answered_after_end: u64,
    /// All response times; `None` in the log of a closed loop, where they are the service times.
    pub response_times: Option<Latencies>,
    /// All service times.
    pub service_times: Latencies,
}

impl Log {
    /// Reads a log that [`write_log`] wrote.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a line is not what it should be.
    pub fn read(path: &Path) -> Result<Self, LogError> {
        let name = path.display().to_string();
        match fs::read(path) {
            Ok(text) => Self::parse(&name, &text),
            Err(error) => Err(LogError { name, line: None, reason: error.to_string() }),
        }
    }

    /// Reads a log from memory; `name` is for messages.
    ///
    /// # Errors
    ///
    /// A line is not what it should be.
    pub fn parse(name: &str, text: &[u8]) -> Result<Self, LogError> {
        let error = |line, reason| LogError { name: name.to_string(), line, reason };
        let mut reader = Reader::new().map_err(|failed| error(None, failed.to_string()))?;
        for (number, line) in (1..).zip(text.split_inclusive(|byte| *byte == b'\n')) {
            reader.read_line(line).map_err(|reason| error(Some(number), reason))?;
        }
        reader.finish(name).map_err(|reason| error(None, reason))
    }

    /// When the measured part began, in seconds since 1970.
    pub fn start_s(&self) -> f64 {
        self.seconds.first().map_or(0.0, |second| second.start_s)
    }

    /// When the measured part was over, in seconds since 1970.
    pub fn end_s(&self) -> f64 {
        self.seconds.last().map_or(0.0, |second| second.start_s + second.duration_s)
    }

    /// How long the measured part was, in seconds.
    pub fn measured_s(&self) -> f64 {
        self.end_s() - self.start_s()
    }

    /// How many answers are in the log.
    pub fn answered(&self) -> u64 {
        self.service_times.count()
    }

    /// Answers in the measured part, per second.
    pub fn rate_per_s(&self) -> f64 {
        let seconds = self.measured_s();
        let answered = self.answered().saturating_sub(self.answered_after_end);
        if seconds > 0.0 { answered as f64 / seconds } else { 0.0 }
    }

    /// The response times; in a closed loop the service times, as a request is due there when it is sent.
    pub fn times(&self) -> &Latencies {
        self.response_times.as_ref().unwrap_or(&self.service_times)
    }

    /// Answers in a span of time. An interval that is not all in it counts by its share.
    fn answered_between(&self, start_s: f64, end_s: f64) -> f64 {
        let shares = self.seconds.iter().map(|second| {
            let inside_s = (second.start_s + second.duration_s).min(end_s) - second.start_s.max(start_s);
            let share = if second.duration_s > 0.0 { inside_s / second.duration_s } else { 0.0 };
            second.answered as f64 * share.clamp(0.0, 1.0)
        });
        shares.sum()
    }
}

/// What logs of several machines say together.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Merged {
    /// How long all of them measured at the same time, in seconds; zero if they never did.
    pub common_s: f64,
    /// Answers per second of all in that time; `None` if there was none.
    pub rate_per_s: Option<f64>,
    /// How many answers are in the logs.
    pub answered: u64,
    /// How many of those came after the end of their run.
    pub answered_after_end: u64,
    /// All response times; `None` in closed loops.
    pub response_times: Option<Latencies>,
    /// All service times.
    pub service_times: Latencies,
}

impl Merged {
    /// Merges logs.
    ///
    /// # Errors
    ///
    /// There is none, or one of a closed and one of an open loop, whose times mean different things.
    pub fn new(logs: &[Log]) -> Result<Self, String> {
        let (first, others) = logs.split_first().ok_or("no log: expected at least one")?;
        let mut merged = Self {
            common_s: 0.0,
            rate_per_s: None,
            answered: 0,
            answered_after_end: logs.iter().map(|log| log.answered_after_end).fold(0, u64::saturating_add),
            response_times: first.response_times.clone(),
            service_times: first.service_times.clone(),
        };
        for log in others {
            match (&mut merged.response_times, &log.response_times) {
                (Some(merged), Some(times)) => merged.add(times),
                (None, None) => {}
                (merged, _) => {
                    let loops = [merged.is_some(), !merged.is_some()]
                        .map(|is_open| if is_open { "an open loop" } else { "a closed loop" });
                    return Err(format!(
                        "{} is of {}, {} of {}: expected logs of the same kind of loop",
                        first.name, loops[0], log.name, loops[1]
                    ));
                }
            }
            merged.service_times.add(&log.service_times);
        }
        merged.answered = merged.service_times.count();
        let start_s = logs.iter().map(Log::start_s).fold(f64::MIN, f64::max);
        let end_s = logs.iter().map(Log::end_s).fold(f64::MAX, f64::min);
        if end_s > start_s {
            merged.common_s = end_s - start_s;
            let answered: f64 = logs.iter().map(|log| log.answered_between(start_s, end_s)).sum();
            merged.rate_per_s = Some(answered / merged.common_s);
        }
        Ok(merged)
    }
}

/// Reads a histogram as it is in a log, without base64. How long what follows is, its head says, and the library
/// would make room for as much before it looks: 4 GB, if a few bytes say so.
fn read_histogram(bytes: &[u8]) -> Result<Histogram<u64>, String> {
    let mut inflated = Vec::new();
    let plain = match bytes.split_at_checked(COMPRESSED_HEAD_BYTES) {
        Some((head, compressed)) if head.starts_with(&COMPRESSED_COOKIE) => {
            let mut decoder = ZlibDecoder::new(compressed).take(HISTOGRAM_MAX_BYTES as u64 + 1);
            decoder.read_to_end(&mut inflated).map_err(|error| error.to_string())?;
            inflated.as_slice()
        }
        _ => bytes,
    };
    if plain.len() > HISTOGRAM_MAX_BYTES {
        return Err(format!("it is longer than {HISTOGRAM_MAX_BYTES} bytes"));
    }
    let stated =
        plain.get(PAYLOAD_LENGTH_AT..).and_then(<[u8]>::first_chunk).copied().map(u32::from_be_bytes);
    let follow = plain.len().saturating_sub(HEAD_BYTES);
    if stated.is_none_or(|stated| stated as usize > follow) {
        return Err(format!("it is cut off: {follow} bytes follow its head"));
    }
    if plain.get(HEAD_BYTES..).unwrap_or_default().windows(NO_COUNT.len()).any(|window| window == NO_COUNT) {
        return Err("it has a count that is none".to_string());
    }
    Deserializer::new().deserialize(&mut &*plain).map_err(|error| error.to_string())
}

/// A log while it is read.
struct Reader {
    base_s: f64,
    is_after_end: bool,
    service: Part,
    response: Part,
}

/// The lines with one tag.
struct Part {
    lines: usize,
    seconds: Vec<Second>,
    times: Latencies,
    after_end: u64,
}

impl Part {
    fn new() -> io::Result<Self> {
        Ok(Self { lines: 0, seconds: Vec::new(), times: Latencies::new()?, after_end: 0 })
    }
}

impl Reader {
    fn new() -> io::Result<Self> {
        Ok(Self { base_s: 0.0, is_after_end: false, service: Part::new()?, response: Part::new()? })
    }

    fn read_line(&mut self, line: &[u8]) -> Result<(), String> {
        let text = line.trim_ascii_end();
        if text.is_empty() {
            return Ok(());
        }
        if text.strip_prefix(b"#") == Some(AFTER_END.as_bytes()) {
            self.is_after_end = true;
            return Ok(());
        }
        // The last line of a file may have no end, and the parser wants one.
        let ended = [text, b"\n"].concat();
        match IntervalLogIterator::new(&ended).next() {
            None | Some(Ok(LogEntry::StartTime(_))) => Ok(()),
            Some(Ok(LogEntry::BaseTime(base))) => {
                self.base_s = base.as_secs_f64();
                Ok(())
            }
            Some(Ok(LogEntry::Interval(interval))) => self.read_interval(&interval),
            Some(Err(_)) => {
                Err("is not a line of an interval log: expected Tag=NAME,START,LENGTH,MAX,HISTOGRAM \
                 or a comment"
                    .to_string())
            }
        }
    }

    fn read_interval(&mut self, interval: &IntervalLogHistogram<'_>) -> Result<(), String> {
        let part = match interval.tag().map(|tag| tag.as_str()) {
            Some(SERVICE) => &mut self.service,
            Some(RESPONSE) => &mut self.response,
            Some(other) => return Err(format!("the tag {other}: expected {RESPONSE} or {SERVICE}")),
            None => return Err(format!("there is no tag: expected Tag={RESPONSE} or Tag={SERVICE}")),
        };
        let bytes = STANDARD
            .decode(interval.encoded_histogram())
            .map_err(|error| format!("the histogram is not base64: {error}"))?;
        let histogram =
            read_histogram(&bytes).map_err(|error| format!("the histogram cannot be read: {error}"))?;
        let answered = part.times.count().saturating_add(histogram.len());
        if answered > ANSWERED_MAX {
            return Err(format!("{answered} answers up to here: expected {ANSWERED_MAX} at most"));
        }
        let times = Latencies::from_histogram(&histogram)?;
        part.lines += 1;
        part.times.add(&times);
        if self.is_after_end {
            part.after_end += times.count();
            return Ok(());
        }
        part.seconds.push(Second {
            start_s: self.base_s + interval.start_timestamp().as_secs_f64(),
            duration_s: interval.duration().as_secs_f64(),
            answered: times.count(),
            times: [50.0, 90.0, 99.0, 99.9, 100.0].map(|percentile| times.percentile(percentile)),
        });
        Ok(())
    }

    fn finish(self, name: &str) -> Result<Log, String> {
        let Self { service, response, .. } = self;
        if service.lines == 0 {
            return Err(format!(
                "there is no interval with the tag {SERVICE}: is this a log of ringspun load?"
            ));
        }
        let is_open_loop = response.lines > 0;
        if is_open_loop && (response.lines, response.times.count()) != (service.lines, service.times.count())
        {
            return Err(format!(
                "{} lines with {} response times, but {} with {} service times: the log is not complete",
                response.lines,
                response.times.count(),
                service.lines,
                service.times.count()
            ));
        }
        let (seconds, response_times) = match is_open_loop {
            true => (response.seconds, Some(response.times)),
            false => (service.seconds, None),
        };
        Ok(Log {
            name: name.to_string(),
            seconds,
            answered_after_end: service.after_end,
            response_times,
            service_times: service.times,
        })
    }
}

#[cfg(test)]
mod tests;

//! Interval logs in the format of HdrHistogram (version 1.3, with compressed V2 histograms): writing them during
//! a run, reading, and merging them.
//!
//! Each interval is a line tagged `service`; in an open loop there is also a line tagged `response`, which would
//! be the same in a closed loop. The histograms are in nanoseconds. The column with the maximum, which is only
//! for people, is in milliseconds, as HdrHistogram's own writer has it.
//!
//! Responses that arrived after the end of the measurement follow a comment `#[AfterEnd]`: their times count,
//! but rates exclude them. HdrHistogram's tools treat them as another interval.

use std::borrow::Borrow;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, LineWriter, Read as _, Write};
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
/// The first bytes of a compressed V2 histogram; the length of the compressed data follows.
const COMPRESSED_COOKIE: [u8; 4] = 0x1C84_9314_u32.to_be_bytes();
const COMPRESSED_HEAD_BYTES: usize = 8;
/// The header: the cookie, the length of the counts in bytes, an offset, digits, two bounds and a ratio.
const HEAD_BYTES: usize = 40;
const PAYLOAD_LENGTH_AT: usize = 4;
/// The encoding of `i64::MIN`, which is not a valid count, and on which the library's negation would overflow.
const NO_COUNT: [u8; 9] = [0xFF; 9];
/// A bound that keeps sums from overflowing: twice as much as a million per second for a thousand years.
const ANSWERED_MAX: u64 = 1 << 56;
/// A generous bound: with three digits, a histogram has at most half a megabyte.
const HISTOGRAM_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Such a histogram in base64, and what stands before it. Some files have no lines, and never end.
const LINE_MAX_BYTES: usize = HISTOGRAM_MAX_BYTES / 3 * 4 + 4096;

/// Writes intervals as a log, each as soon as it is available. The start time and the base time are the
/// beginning of the measurement. Without any interval, nothing is written.
///
/// # Errors
///
/// Those of the writer.
pub fn write_log(writer: impl Write, intervals: impl IntoIterator<Item: Borrow<Interval>>) -> io::Result<()> {
    let mut intervals = intervals.into_iter().peekable();
    let Some(measured_from) = intervals.peek().map(|first| first.borrow().measured_from) else {
        return Ok(());
    };
    // Flushed line by line, so that the log of a killed run is readable.
    let mut writer = LineWriter::new(writer);
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(
            "Written by ringspun load. Times are in nanoseconds, the column with the maximum in milliseconds.",
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

/// Why a log could not be read: the file, the line if known, and the reason.
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

/// An interval of a log, about a second long, without its histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct Second {
    /// When it began, in seconds since 1970.
    pub start_s: f64,
    /// Its length, in seconds.
    pub duration_s: f64,
    /// The number of responses in it.
    pub answered: u64,
    /// Their p50, p90, p99, p99.9 and maximum: of response times where the log has them, else of service times.
    pub times: [Duration; 5],
}

/// The content of a log.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Log {
    /// The name of the file.
    pub name: String,
    /// The intervals of the measurement, without those after its end.
    pub seconds: Vec<Second>,
    /// The number of responses after the end.
    pub answered_after_end: u64,
    /// All response times; `None` for a closed loop, where they equal the service times.
    pub response_times: Option<Latencies>,
    /// All service times.
    pub service_times: Latencies,
}

impl Log {
    /// Reads a log written by [`write_log`].
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a line is malformed.
    pub fn read(path: &Path) -> Result<Self, LogError> {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Self::read_from(&name, BufReader::new(file)),
            Err(error) => Err(LogError { name, line: None, reason: error.to_string() }),
        }
    }

    /// Reads a log from memory; `name` is for messages.
    ///
    /// # Errors
    ///
    /// A line is malformed.
    pub fn parse(name: &str, text: &[u8]) -> Result<Self, LogError> {
        Self::read_from(name, text)
    }

    fn read_from(name: &str, mut text: impl BufRead) -> Result<Self, LogError> {
        let error = |line, reason| LogError { name: name.to_string(), line, reason };
        let mut reader = Reader::new().map_err(|failed| error(None, failed.to_string()))?;
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let read = text.by_ref().take(LINE_MAX_BYTES as u64 + 1).read_until(b'\n', &mut line);
            match read.map_err(|failed| error(Some(number), failed.to_string()))? {
                0 => break,
                count if count > LINE_MAX_BYTES => {
                    return Err(error(Some(number), format!("longer than {LINE_MAX_BYTES} bytes")));
                }
                _ => reader.read_line(&line).map_err(|reason| error(Some(number), reason))?,
            }
        }
        reader.finish(name).map_err(|reason| error(None, reason))
    }

    /// When the measurement began, in seconds since 1970.
    pub fn start_s(&self) -> f64 {
        self.seconds.first().map_or(0.0, |second| second.start_s)
    }

    /// When the measurement ended, in seconds since 1970.
    pub fn end_s(&self) -> f64 {
        self.seconds.last().map_or(0.0, |second| second.start_s + second.duration_s)
    }

    /// The length of the measurement, in seconds.
    pub fn measured_s(&self) -> f64 {
        self.end_s() - self.start_s()
    }

    /// The number of responses in the log.
    pub fn answered(&self) -> u64 {
        self.service_times.count()
    }

    /// Responses per second during the measurement.
    pub fn rate_per_s(&self) -> f64 {
        let seconds = self.measured_s();
        let answered = self.answered().saturating_sub(self.answered_after_end);
        if seconds > 0.0 { answered as f64 / seconds } else { 0.0 }
    }

    /// The response times; in a closed loop the service times, as requests are due when they are sent.
    pub fn times(&self) -> &Latencies {
        self.response_times.as_ref().unwrap_or(&self.service_times)
    }

    /// Responses in a time span. An interval that lies partly inside counts proportionally.
    fn answered_between(&self, start_s: f64, end_s: f64) -> f64 {
        let shares = self.seconds.iter().map(|second| {
            let inside_s = (second.start_s + second.duration_s).min(end_s) - second.start_s.max(start_s);
            let share = if second.duration_s > 0.0 { inside_s / second.duration_s } else { 0.0 };
            second.answered as f64 * share.clamp(0.0, 1.0)
        });
        shares.sum()
    }
}

/// The merged logs of several machines.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct Merged {
    /// The length of the time in which all of them measured, in seconds; zero if there is none.
    pub common_s: f64,
    /// Responses per second of all machines in that time; `None` if there is none.
    pub rate_per_s: Option<f64>,
    /// The number of responses in the logs.
    pub answered: u64,
    /// How many of those arrived after the end of their measurement.
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
    /// There is no log, or the logs mix closed and open loops, whose times are not comparable.
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
                        "{} is the log of {}, {} of {}: expected logs of the same kind of loop",
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

/// Reads a decoded histogram of a log. Its header states the length of what follows, and the library allocates
/// that much before reading: up to 4 GB for a few malicious bytes, so that the length is checked here first.
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
        return Err(format!("it is truncated: {follow} bytes follow its header"));
    }
    if plain.get(HEAD_BYTES..).unwrap_or_default().windows(NO_COUNT.len()).any(|window| window == NO_COUNT) {
        return Err("it contains an invalid count".to_string());
    }
    Deserializer::new().deserialize(&mut &*plain).map_err(|error| error.to_string())
}

/// The state of reading a log.
struct Reader {
    base_s: f64,
    is_after_end: bool,
    service: Part,
    response: Part,
}

/// What the lines with one tag contain.
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
        // The parser requires a line end, which the last line of a file may lack.
        let ended = [text, b"\n"].concat();
        match IntervalLogIterator::new(&ended).next() {
            None | Some(Ok(LogEntry::StartTime(_))) => Ok(()),
            Some(Ok(LogEntry::BaseTime(base))) => {
                self.base_s = base.as_secs_f64();
                Ok(())
            }
            Some(Ok(LogEntry::Interval(interval))) => self.read_interval(&interval),
            Some(Err(_)) => {
                Err("not a line of an interval log: expected Tag=NAME,START,LENGTH,MAX,HISTOGRAM \
                 or a comment"
                    .to_string())
            }
        }
    }

    fn read_interval(&mut self, interval: &IntervalLogHistogram<'_>) -> Result<(), String> {
        let part = match interval.tag().map(|tag| tag.as_str()) {
            Some(SERVICE) => &mut self.service,
            Some(RESPONSE) => &mut self.response,
            Some(other) => return Err(format!("the tag is {other}: expected {RESPONSE} or {SERVICE}")),
            None => return Err(format!("there is no tag: expected Tag={RESPONSE} or Tag={SERVICE}")),
        };
        let bytes = STANDARD
            .decode(interval.encoded_histogram())
            .map_err(|error| format!("the histogram is not base64: {error}"))?;
        let histogram =
            read_histogram(&bytes).map_err(|error| format!("the histogram cannot be read: {error}"))?;
        let answered = part.times.count().saturating_add(histogram.len());
        if answered > ANSWERED_MAX {
            return Err(format!("{answered} responses up to here: expected at most {ANSWERED_MAX}"));
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
            return Err(format!("no interval has the tag {SERVICE}: is this a log of ringspun load?"));
        }
        let is_open_loop = response.lines > 0;
        if is_open_loop && (response.lines, response.times.count()) != (service.lines, service.times.count())
        {
            return Err(format!(
                "{} lines with {} response times, but {} with {} service times: the log is incomplete",
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

//! The files that `--hdr` and `--csv` write during a run, and the data for the charts of `--html`.
//!
//! Each file has its own thread, so that compressing and writing do not delay requests.

use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use ringspun_load::{Interval, Recorder, write_log};

use super::page::Point;

/// The columns of a CSV file (docs/load-logs.md).
const CSV_HEAD: &str =
    "time_s,rate_per_s,p50_us,p99_us,max_us,errors,sent_bytes_per_s,received_bytes_per_s,statuses";
/// The additional column if there are steps.
const CSV_HEAD_STEP: &str = ",step";

/// A file that receives the intervals of a run.
struct IntervalFile {
    sender: Sender<Arc<Interval>>,
    writing: JoinHandle<io::Result<()>>,
}

/// All such files of a run.
#[derive(Default)]
pub struct IntervalFiles {
    files: Vec<IntervalFile>,
    points: Arc<Mutex<Vec<Point>>>,
}

impl IntervalFiles {
    /// Creates the files before the run, so that a run does not end with an error about them.
    pub fn create(hdr: Option<&Path>, csv: Option<&Path>, html: Option<&Path>) -> io::Result<Self> {
        let mut files = Self::default();
        if let Some(path) = hdr {
            files.add(path, write_log)?;
        }
        if let Some(path) = csv {
            files.add(path, write_csv)?;
        }
        if let Some(path) = html {
            let points = files.points.clone();
            files.add(path, move |_, intervals| collect_points(&points, intervals))?;
        }
        Ok(files)
    }

    fn add(
        &mut self,
        path: &Path,
        write: impl FnOnce(File, Receiver<Arc<Interval>>) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let shown = path.display().to_string();
        let failed = move |error: io::Error| super::cannot_write(&shown, &error);
        let file = File::create(path).map_err(&failed)?;
        let (sender, intervals) = mpsc::channel();
        let writing = thread::Builder::new()
            .name("interval file".to_string())
            .spawn(move || write(file, intervals).map_err(failed))?;
        self.files.push(IntervalFile { sender, writing });
        Ok(())
    }

    /// The recorder that feeds the files; `None` if there are none.
    pub fn recorder(&self) -> Option<Recorder> {
        let senders: Vec<_> = self.files.iter().map(|file| file.sender.clone()).collect();
        let recorder = move |interval: Interval| {
            let interval = Arc::new(interval);
            for sender in &senders {
                // A writer that failed has ended; `finish` reports its error.
                let _ = sender.send(interval.clone());
            }
        };
        (!self.files.is_empty()).then(|| Box::new(recorder) as Recorder)
    }

    /// Waits until everything is written, and returns the points for a page. The recorder must have been dropped.
    pub fn finish(self) -> io::Result<Vec<Point>> {
        for IntervalFile { sender, writing } in self.files {
            drop(sender);
            writing.join().map_err(|_| io::Error::other("the thread that wrote a file panicked"))??;
        }
        Ok(mem::take(&mut *lock(&self.points)))
    }
}

/// Keeps only a few figures per interval: the histograms of a long run would take much memory.
fn collect_points(points: &Mutex<Vec<Point>>, intervals: Receiver<Arc<Interval>>) -> io::Result<()> {
    for interval in intervals {
        lock(points).extend(Point::of(&interval));
    }
    Ok(())
}

/// A poisoned lock is harmless, as points are only appended.
fn lock(points: &Mutex<Vec<Point>>) -> MutexGuard<'_, Vec<Point>> {
    points.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a row per interval, as soon as it is available.
fn write_csv(mut file: File, intervals: Receiver<Arc<Interval>>) -> io::Result<()> {
    let mut intervals = intervals.into_iter().peekable();
    let has_steps = intervals.peek().is_some_and(|interval| interval.step.is_some());
    writeln!(file, "{CSV_HEAD}{}", if has_steps { CSV_HEAD_STEP } else { "" })?;
    for interval in intervals {
        file.write_all(csv_row(&interval).as_bytes())?;
    }
    Ok(())
}

fn csv_row(interval: &Interval) -> String {
    let (times, seconds) = (interval.times(), interval.duration.as_secs_f64());
    let per_second = |count: u64| match interval.is_after_end || seconds == 0.0 {
        true => 0.0,
        false => count as f64 / seconds,
    };
    let microseconds = |percentile| match times.count() {
        0 => String::new(),
        _ => format!("{:.3}", times.percentile(percentile).as_secs_f64() * 1e6),
    };
    let statuses: Vec<String> =
        interval.statuses.iter().map(|(status, count)| format!("{status}:{count}")).collect();
    let statuses = statuses.join(" ");
    let step = interval.step.map_or(String::new(), |step| format!(",{}", step + 1));
    format!(
        "{:.3},{:.1},{},{},{},{},{:.0},{:.0},{statuses}{step}\n",
        (interval.start + interval.duration).as_secs_f64(),
        per_second(times.count()),
        microseconds(50.0),
        microseconds(99.0),
        microseconds(100.0),
        interval.errors,
        per_second(interval.traffic.sent_bytes),
        per_second(interval.traffic.received_bytes)
    )
}

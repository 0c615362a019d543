//! The files that `--hdr` and `--csv` write during a run, and the data for the charts of `--html`.
//!
//! Each file has its own thread, so that compressing and writing do not delay requests.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{mem, process};

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

/// A file for results that are written at the end. It is opened before the run, which would be lost otherwise if that
/// failed, and keeps its content until then.
pub struct ResultFile {
    file: File,
    shown_path: String,
}

impl ResultFile {
    /// Opens a file, or creates it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let shown_path = path.display().to_string();
        match File::options().write(true).create(true).truncate(false).open(path) {
            Ok(file) => Ok(Self { file, shown_path }),
            Err(error) => Err(super::cannot_write(&shown_path, &error)),
        }
    }

    /// Replaces the content.
    pub fn write(mut self, text: &str) -> io::Result<()> {
        // Pipes and devices have no length to set.
        let _ = self.file.set_len(0);
        self.file.write_all(text.as_bytes()).map_err(|error| super::cannot_write(&self.shown_path, &error))
    }
}

/// A file that takes the place of an earlier one at once, so that nobody reads a part of it.
pub struct ReplacedFile {
    path: PathBuf,
    shown_path: String,
}

impl ReplacedFile {
    /// Checks that the file can be written, before the run.
    pub fn open(path: &Path) -> io::Result<Self> {
        let shown_path = path.display().to_string();
        let checked = destination(path).and_then(|path| {
            let file = Self { path, shown_path: shown_path.clone() };
            if file.is_replaced() {
                let (_, beside) = file.create_beside()?;
                fs::remove_file(beside)?;
            }
            Ok(file)
        });
        checked.map_err(|error| super::cannot_write(&shown_path, &error))
    }

    /// Writes the content to a file in the same folder, which then gets the name.
    pub fn write(self, text: &str) -> io::Result<()> {
        let written = match self.is_replaced() {
            true => self.replace(text),
            false => File::options()
                .write(true)
                .open(&self.path)
                .and_then(|mut file| file.write_all(text.as_bytes())),
        };
        written.map_err(|error| super::cannot_write(&self.shown_path, &error))
    }

    /// Pipes and devices are written to as they are.
    fn is_replaced(&self) -> bool {
        self.path.metadata().map_or(true, |metadata| metadata.is_file() || metadata.is_dir())
    }

    /// Creates a file in the same folder, with the permissions of the one that it is to replace.
    fn create_beside(&self) -> io::Result<(File, PathBuf)> {
        let earlier = self.path.metadata().ok();
        let is_folder = earlier.as_ref().is_some_and(Metadata::is_dir)
            || self.path.as_os_str().as_encoded_bytes().ends_with(b"/");
        if is_folder || self.path.file_name().is_none() {
            return Err(io::Error::other("it is a folder: expected a file"));
        }
        // Collectors read files that end with .prom. Processes in several containers may have the same number.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let beside = self.path.with_file_name(format!(".ringspun-{}-{}.tmp", process::id(), now.as_nanos()));
        let file = File::options().write(true).create_new(true).open(&beside)?;
        let kept = earlier.map_or(Ok(()), |earlier| file.set_permissions(earlier.permissions()));
        match kept {
            Ok(()) => Ok((file, beside)),
            Err(error) => {
                let _ = fs::remove_file(&beside);
                Err(error)
            }
        }
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let (mut file, beside) = self.create_beside()?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let replaced = written.and_then(|()| fs::rename(&beside, &self.path));
        if replaced.is_err() {
            let _ = fs::remove_file(&beside);
        }
        replaced
    }
}

/// Where a path leads, by links also to what does not exist yet.
fn destination(path: &Path) -> io::Result<PathBuf> {
    match (path.canonicalize(), path.read_link()) {
        (Ok(path), _) => Ok(path),
        // The system follows no rings of links.
        (Err(error), Ok(target)) if error.kind() == io::ErrorKind::NotFound => {
            destination(&folder_of(path).join(target))
        }
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_path_buf()),
        (Err(error), _) => Err(error),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether a path stands for standard output.
pub fn is_standard_output(path: &Path) -> bool {
    path == Path::new("-")
}

/// Fails if two flags name the same file or pipe, or standard output; not for a device, such as /dev/null.
pub fn check_distinct(files: &[(&str, Option<&Path>)]) -> Result<(), String> {
    let mut known: Vec<(&str, Place)> = Vec::new();
    for (flag, path) in files {
        let Some(path) = path else { continue };
        let is_device = path.metadata().is_ok_and(|metadata| metadata.file_type().is_char_device());
        if is_device && !is_standard_output(path) {
            continue;
        }
        let place = place_of(path);
        if let Some((other, _)) = known.iter().find(|(_, known)| *known == place) {
            return Err(format!(
                "{other} and {flag} both write to {}: expected different files",
                path.display()
            ));
        }
        known.push((flag, place));
    }
    Ok(())
}

/// Fails if a file is to be written that is read as well: it would be lost.
pub fn check_kept(outputs: &[(&str, Option<&Path>)], inputs: &[(&str, Option<&Path>)]) -> Result<(), String> {
    // What does not exist cannot be read: that is another error. A device keeps nothing.
    let is_file = |path: &Path| path.metadata().is_ok_and(|metadata| metadata.is_file());
    for (input, read) in
        inputs.iter().filter_map(|(flag, path)| Some((flag, path.filter(|path| is_file(path))?)))
    {
        let place = place_of(read);
        for (output, written) in outputs.iter().filter_map(|(flag, path)| Some((flag, (*path)?))) {
            if !is_standard_output(written) && place_of(written) == place {
                let file = written.display();
                return Err(format!(
                    "{output} would overwrite {file}, which {input} reads: expected another file"
                ));
            }
        }
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum Place {
    /// The device and the number of a file, whatever its names are.
    Known(u64, u64),
    ToBeCreated(PathBuf),
}

impl From<Metadata> for Place {
    fn from(metadata: Metadata) -> Self {
        Self::Known(metadata.dev(), metadata.ino())
    }
}

/// Where a file is, or will be created, whatever the path looks like.
fn place_of(path: &Path) -> Place {
    let metadata = match is_standard_output(path) {
        true => io::stdout().as_fd().try_clone_to_owned().and_then(|output| File::from(output).metadata()),
        false => path.metadata(),
    };
    let folder = folder_of(path);
    match (metadata, path.read_link()) {
        (Ok(metadata), _) => metadata.into(),
        // A link to a file that does not exist yet, and is created through it. The system follows no rings of links.
        (Err(error), Ok(target)) if error.kind() == io::ErrorKind::NotFound => place_of(&folder.join(target)),
        _ => {
            let in_folder = || Some(folder.canonicalize().ok()?.join(path.file_name()?));
            Place::ToBeCreated(in_folder().unwrap_or_else(|| path.to_path_buf()))
        }
    }
}

/// All interval files of a run.
#[derive(Default)]
pub struct IntervalFiles {
    files: Vec<IntervalFile>,
    points: Arc<Mutex<Vec<Point>>>,
}

impl IntervalFiles {
    /// Creates the files before the run, so that a run does not end with an error about them.
    pub fn create(hdr: Option<&Path>, csv: Option<&Path>, has_page: bool) -> io::Result<Self> {
        let mut files = Self::default();
        if let Some(path) = hdr {
            let file = File::create(path);
            files.add(path, file, write_log)?;
        }
        match csv {
            Some(path) if is_standard_output(path) => files.add(path, Ok(io::stdout()), print_csv)?,
            Some(path) => {
                let file = File::create(path);
                files.add(path, file, write_csv)?;
            }
            None => {}
        }
        if has_page {
            let points = files.points.clone();
            files
                .add(Path::new("points"), Ok(()), move |(), intervals| collect_points(&points, intervals))?;
        }
        Ok(files)
    }

    fn add<T: Send + 'static>(
        &mut self,
        path: &Path,
        file: io::Result<T>,
        write: impl FnOnce(T, Receiver<Arc<Interval>>) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let shown = path.display().to_string();
        let failed = move |error: io::Error| super::cannot_write(&shown, &error);
        let file = file.map_err(&failed)?;
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

/// Writes rows to standard output. A reader that is gone is no error.
fn print_csv(output: io::Stdout, intervals: Receiver<Arc<Interval>>) -> io::Result<()> {
    match write_csv(output, intervals) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Writes a row per interval, as soon as it is available.
fn write_csv(mut file: impl Write, intervals: Receiver<Arc<Interval>>) -> io::Result<()> {
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

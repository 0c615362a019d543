//! Files: the same results on the ring and by threads, compared with the standard library; and calls that are ended by
//! a cancel, a deadline or the end of the runtime.

mod common;

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use ringspun_fibers::{self as fibers, BlockingError, Interrupt};
use ringspun_net as net;
use ringspun_net::fs::{self, File};
use ringspun_runtime::BlockingKind;

use common::run;

const SOON: Duration = Duration::from_millis(5);

/// A directory that is removed again.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringspun-files-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn the_loop_performs_what_it_says() {
    run(|| {
        let event_loop = fibers::event_loop().ok_or(ErrorKind::Unsupported)?;
        assert_eq!(event_loop.performs_files(), event_loop.backend_name() == "io_uring");
        if !event_loop.performs_files() {
            let operation = ringspun_runtime::FileOperation::Synchronize { file: 0, data_only: false };
            let refused = fibers::perform(operation).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EOPNOTSUPP));
        }
        Ok(())
    });
}

#[test]
fn bytes_are_read_where_they_were_written() {
    run(|| {
        let folder = Folder::new("bytes");
        let path = folder.path("file");
        let data = pattern(5_000_000);
        let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
        file.write_all(&data[..3_000_000])?;
        file.write_all_at(&data[4_000_000..], 4_000_000)?;
        file.write_all_at(&data[3_000_000..4_000_000], 3_000_000)?;
        file.sync_data()?;
        file.sync_all()?;
        assert!(std::fs::read(&path)? == data);
        assert_eq!(file.metadata()?.len(), data.len() as u64);
        let mut buffer = vec![0; 1_000_000];
        assert_eq!(file.chunk_at(&mut buffer, 4_500_000)?, 500_000);
        assert!(buffer[..500_000] == data[4_500_000..]);
        assert_eq!(file.read_at(&mut buffer, 5_000_000)?, 0);
        assert_eq!(file.read_at(&mut [], 0)?, 0);
        // The position is where the last write has ended.
        assert_eq!((file.stream_position()?, file.seek(SeekFrom::Current(-10))?), (3_000_000, 2_999_990));
        let mut rest = Vec::new();
        file.read_to_end(&mut rest)?;
        assert!(rest == data[2_999_990..]);
        assert_eq!(file.seek(SeekFrom::End(-1))?, 4_999_999);
        assert_eq!(file.seek(SeekFrom::Start(7))?, 7);
        let before = file.seek(SeekFrom::Current(-8)).unwrap_err();
        assert_eq!((before.kind(), file.stream_position()?), (ErrorKind::InvalidInput, 7));
        file.set_len(100)?;
        assert_eq!(file.chunk_at(&mut buffer, 0)?, 100);
        Ok(())
    });
}

#[test]
fn lines_are_read_by_what_reads_lines_elsewhere() {
    run(|| {
        let folder = Folder::new("lines");
        let text = (0..10_000).map(|number| format!("line {number}\n")).collect::<String>();
        fs::write(folder.path("text"), &text)?;
        let file = File::open(folder.path("text"))?;
        let lines = BufReader::new(&file).lines().map_while(Result::ok).collect::<Vec<_>>();
        assert_eq!((lines.len(), lines[9_999].as_str()), (10_000, "line 9999"));
        // Another one for the same file has a position of its own.
        let mut other = File::from(file.into_std());
        let mut first = [0; 6];
        other.read_exact(&mut first)?;
        assert_eq!(&first, b"line 0");
        Ok(())
    });
}

/// Every combination of options, beside the standard library's.
#[test]
fn files_are_opened_as_by_the_standard_library() {
    run(|| {
        let folder = Folder::new("options");
        for bits in 0..128_u32 {
            let on = |bit: u32| bits & 1 << bit != 0;
            let outcomes = [false, true].map(|ours| {
                let path = folder.path(&format!("{bits}-{ours}"));
                if on(6) {
                    std::fs::write(&path, "present").unwrap();
                }
                let error = match ours {
                    true => {
                        let options = File::options().read(on(0)).write(on(1)).append(on(2));
                        let options = options.truncate(on(3)).create(on(4)).create_new(on(5)).mode(0o640);
                        options.open(&path).map(|mut file| {
                            let _ = file.seek(SeekFrom::Start(2));
                            let _ = file.write_all(b"XY");
                            assert_eq!(flags_of(&file) & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
                        })
                    }
                    false => {
                        let mut options = std::fs::OpenOptions::new();
                        options.read(on(0)).write(on(1)).append(on(2)).truncate(on(3));
                        options.create(on(4)).create_new(on(5));
                        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
                        options.open(&path).map(|mut file| {
                            let _ = file.seek(SeekFrom::Start(2));
                            let _ = file.write_all(b"XY");
                        })
                    }
                };
                let mode = std::fs::metadata(&path).ok().map(|metadata| metadata.permissions().mode());
                (error.err().map(|error| error.kind()), std::fs::read(&path).ok(), mode)
            });
            assert_eq!(outcomes[0], outcomes[1], "options {bits:07b}");
        }
        Ok(())
    });
}

fn flags_of(file: &File) -> i32 {
    // SAFETY: only reads flags.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) }
}

#[test]
fn errors_name_the_path_and_the_cause() {
    run(|| {
        let missing = File::open("/nonexistent/file").unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert_eq!(net::errno_of(&missing), Some(libc::ENOENT));
        assert!(missing.to_string().starts_with("open /nonexistent/file: No such file"), "{missing}");
        let missing = fs::read("/nonexistent/file").unwrap_err();
        assert!(missing.to_string().starts_with("read /nonexistent/file: No such file"), "{missing}");
        assert_eq!(File::open("a\0b").unwrap_err().kind(), ErrorKind::InvalidInput);
        let folder = Folder::new("errors");
        let file = File::create(folder.path("file"))?;
        assert_eq!(file.read_at(&mut [0], 0).unwrap_err().raw_os_error(), Some(libc::EBADF));
        let file = File::open(folder.path("file"))?;
        assert_eq!(file.write_at(b"x", 0).unwrap_err().raw_os_error(), Some(libc::EBADF));
        let directory = File::open(&folder.0)?;
        assert_eq!(directory.read_at(&mut [0], 0).unwrap_err().raw_os_error(), Some(libc::EISDIR));
        let mut full = File::options().write(true).open("/dev/full")?;
        assert_eq!(full.write_all(b"x").unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        let mut status = String::new();
        File::open("/proc/self/status")?.read_to_string(&mut status)?;
        assert!(status.starts_with("Name:"));
        Ok(())
    });
}

#[test]
fn names_and_directories_are_handled_elsewhere() {
    run(|| {
        let folder = Folder::new("names");
        fs::create_dir_all(folder.path("a/b"))?;
        fs::create_dir(folder.path("c"))?;
        fs::write(folder.path("a/one"), b"1")?;
        assert_eq!(fs::copy(folder.path("a/one"), folder.path("a/two"))?, 1);
        fs::rename(folder.path("a/two"), folder.path("c/three"))?;
        let mut names: Vec<_> =
            fs::read_dir(folder.path("a"))?.into_iter().map(|entry| entry.file_name()).collect();
        names.sort();
        assert_eq!(names, ["b", "one"]);
        assert_eq!(fs::read_to_string(folder.path("c/three"))?, "1");
        fs::set_permissions(folder.path("c/three"), std::fs::Permissions::from_mode(0o600))?;
        assert_eq!(fs::metadata(folder.path("c/three"))?.permissions().mode() & 0o777, 0o600);
        std::os::unix::fs::symlink("three", folder.path("c/link"))?;
        assert_eq!(fs::read_link(folder.path("c/link"))?, PathBuf::from("three"));
        assert!(fs::symlink_metadata(folder.path("c/link"))?.is_symlink());
        assert_eq!(fs::canonicalize(folder.path("c/link"))?, fs::canonicalize(folder.path("c/three"))?);
        fs::remove_file(folder.path("c/link"))?;
        fs::remove_dir(folder.path("a/b"))?;
        fs::remove_dir_all(folder.path("c"))?;
        assert!(fs::read_dir(folder.path("c")).is_err());
        Ok(())
    });
}

#[test]
fn others_run_while_a_file_is_read_and_several_read_it() {
    run(|| {
        let folder = Folder::new("several");
        let data = pattern(2_000_000);
        fs::write(folder.path("file"), &data)?;
        let file = Rc::new(File::open(folder.path("file"))?);
        let readers = (0..8).map(|number| {
            let (file, expected) = (file.clone(), data[number * 250_000..][..250_000].to_vec());
            fibers::spawn(move || {
                let mut buffer = vec![0; 250_000];
                for _ in 0..5 {
                    assert_eq!(file.chunk_at(&mut buffer, number as u64 * 250_000)?, 250_000);
                    assert!(buffer == expected);
                }
                io::Result::Ok(())
            })
        });
        for reader in readers.collect::<Vec<_>>() {
            reader?.join()??;
        }
        Ok(())
    });
}

/// An open of a FIFO waits for the other end.
#[test]
fn an_open_that_waits_ends_by_a_deadline_a_cancel_and_the_runtime() {
    let folder = Rc::new(Folder::new("fifo"));
    let path = folder.path("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let opened = path.clone();
    fibers::run(move || {
        let late = fibers::with_deadline(SOON, || File::open(&opened)).unwrap_err();
        assert_eq!(net::interrupt_of(&late), Some(Interrupt::DeadlineExpired), "{late}");
        let path = opened.clone();
        let cancelled = fibers::spawn(move || File::open(path).map(drop)).unwrap();
        fibers::sleep(SOON).unwrap();
        cancelled.cancel();
        let error = cancelled.join().unwrap().unwrap_err();
        assert_eq!(net::interrupt_of(&error), Some(Interrupt::Cancelled));
        fibers::spawn(move || assert!(File::open(opened).is_err())).unwrap();
        fibers::yield_now().unwrap();
    })
    .unwrap();
    // Threads that still wait get the other end.
    drop(std::fs::OpenOptions::new().read(true).write(true).open(path));
}

/// On the ring, a read of a pipe waits in the kernel with the buffer that it has borrowed.
#[test]
fn a_read_that_waits_gives_its_buffer_back_when_it_is_interrupted() {
    run(|| {
        let (reader, mut writer) = io::pipe()?;
        let file = File::from(OwnedFd::from(reader));
        if !fibers::event_loop().ok_or(ErrorKind::Unsupported)?.performs_files() {
            assert_eq!(file.read_at(&mut [0], 0).unwrap_err().raw_os_error(), Some(libc::ESPIPE));
            return Ok(());
        }
        for round in 0..50 {
            let mut buffer = [7; 4096];
            let late = fibers::with_deadline(Duration::from_micros(100), || file.read_at(&mut buffer, 0));
            assert_eq!(net::interrupt_of(&late.unwrap_err()), Some(Interrupt::DeadlineExpired));
            writer.write_all(&[round; 100])?;
            // The kernel writes to a buffer of the next read.
            let mut next = [0; 4096];
            assert_eq!(file.read_at(&mut next, 0)?, 100);
            assert!(buffer == [7; 4096] && next[..100] == [round; 100]);
        }
        Ok(())
    });
}

#[test]
fn a_call_that_borrows_is_waited_for_and_one_that_has_not_begun_never_does() {
    fibers::run(|| {
        let (mut written, (begin, begun), go_on) = (0, mpsc::channel(), std::sync::Barrier::new(2));
        let cancelled = fibers::scope(|scope| {
            let (written, begin, go_on) = (&mut written, &begin, &go_on);
            let calling = scope
                .spawn(move || {
                    let result = fibers::blocking_scoped(|| {
                        begin.send(()).unwrap();
                        go_on.wait();
                        *written = 7;
                    });
                    (result.is_ok(), fibers::check())
                })
                .unwrap();
            while begun.try_recv().is_err() {
                fibers::sleep(Duration::from_millis(1)).unwrap();
            }
            calling.cancel();
            fibers::yield_now().unwrap();
            assert!(!calling.is_finished());
            go_on.wait();
            calling.join().unwrap()
        });
        assert_eq!((cancelled, written), ((true, Err(Interrupt::Cancelled)), 7));
        // With a deadline that has passed, it does not begin.
        let refused = fibers::with_deadline(Duration::ZERO, || fibers::blocking_scoped(|| panic!("begun")));
        assert!(matches!(refused, Err(BlockingError::Interrupted(Interrupt::DeadlineExpired))));
        let panicked = fibers::blocking_scoped(|| -> () { std::panic::resume_unwind(Box::new(42)) });
        assert!(matches!(panicked, Err(BlockingError::Panicked(payload)) if payload.is::<i32>()));
    })
    .unwrap();
}

#[test]
#[cfg(target_os = "linux")]
fn what_the_kernel_has_in_memory_of_a_file_is_told_at_once() {
    run(|| {
        let in_memory = nix::sys::memfd::memfd_create(c"numbers", nix::sys::memfd::MFdFlags::empty())?;
        let file = File::from(in_memory);
        file.write_all_at(b"12345", 0)?;
        // Of which kind the file system is has to be asked once, on a thread that may block.
        file.metadata()?;
        let others_ran = Rc::new(Cell::new(false));
        let seen = others_ran.clone();
        fibers::spawn(move || others_ran.set(true))?;
        for size_bytes in [5, 6, 4] {
            file.as_fd().try_clone_to_owned().map(std::fs::File::from)?.set_len(size_bytes)?;
            assert_eq!(file.metadata()?.len(), size_bytes);
        }
        assert!(!seen.get());
        // Of others it may have to be asked each time.
        let of_proc = File::open("/proc/self/status")?;
        assert!(of_proc.metadata()?.is_file() && of_proc.metadata()?.is_file());
        let late = fibers::with_deadline(Duration::ZERO, || file.metadata()).unwrap_err();
        assert_eq!(net::interrupt_of(&late), Some(Interrupt::DeadlineExpired));
        Ok(())
    });
}

#[test]
fn a_runtime_waits_for_a_call_that_borrows() {
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (seen, (begin, begun)) = (done.clone(), mpsc::channel());
    fibers::run(move || {
        fibers::spawn(move || {
            let mut on_the_stack = [0; 64];
            let result = fibers::blocking_scoped(|| {
                begin.send(()).unwrap();
                std::thread::sleep(4 * SOON);
                on_the_stack.fill(1);
            });
            assert!(result.is_ok());
            done.store(on_the_stack == [1; 64], std::sync::atomic::Ordering::Relaxed);
        })
        .unwrap();
        while begun.try_recv().is_err() {
            fibers::sleep(Duration::from_millis(1)).unwrap();
        }
    })
    .unwrap();
    assert!(seen.load(std::sync::atomic::Ordering::Relaxed));
}

#[test]
fn in_a_forked_child_each_call_is_an_error_that_says_why() {
    run(|| {
        let file = File::open("/etc/passwd")?;
        let (reader, writer) = net::pipe()?;
        let mut process = net::spawn(std::process::Command::new("sleep").arg("1000"))?;
        process.set_kill_on_drop(true);
        // SAFETY: the child makes no call that needs the parent's threads.
        match unsafe { fork() }? {
            ForkResult::Child => {
                let mut failures = vec![
                    file.sync_all(),
                    file.write_all_at(b"x", 0),
                    File::open("/etc/passwd").map(drop),
                    fs::metadata("/").map(drop),
                    reader.read(&mut [0]).map(drop),
                    process.wait().map(drop),
                    net::stdout().write(b"x").map(drop),
                ];
                drop((file, reader, writer, process));
                // The loop is another's, no runtime runs here, and the process is not a child of this one.
                let told = ["belongs to process", "no runtime of fibers", "No child processes"];
                failures.retain(|result| match result {
                    Ok(()) => true,
                    Err(error) => !told.iter().any(|text| error.to_string().contains(text)),
                });
                // SAFETY: ends the process at once.
                unsafe { libc::_exit(failures.len() as i32) }
            }
            ForkResult::Parent { child } => assert_eq!(waitpid(child, None)?, WaitStatus::Exited(child, 0)),
        }
        assert_eq!(process.try_wait()?, None, "the child has not killed it");
        drop(writer);
        assert_eq!(reader.read(&mut [0])?, 0);
        assert_eq!(file.read_at(&mut [0; 4], 0)?, 4);
        Ok(())
    });
}

/// Reads and writes of files that are interrupted at any moment: what was written is whole, and nothing is left.
#[test]
fn a_storm_of_cancels_leaves_files_as_they_should_be() {
    run(|| {
        let folder = Folder::new("storm");
        let rounds = std::env::var("RINGSPUN_STORM").map_or(2_000, |storm| storm.parse().unwrap_or(2_000));
        let file = Rc::new(File::options().read(true).write(true).create(true).open(folder.path("file"))?);
        let mut random = 88_172_645_463_325_252_u64;
        let mut below = move |bound: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % bound
        };
        let (mut interrupted, mut written) = (0, 0);
        for round in 0..rounds.min(20_000_u64) {
            let (shared, byte) = (file.clone(), round as u8);
            let (place, kind) = (below(64) * 100_000, below(4));
            let operating = fibers::spawn(move || {
                let mut buffer = vec![byte; 100_000];
                match kind {
                    0 => shared.write_at(&buffer, place).map(|count| (count, Some(byte))),
                    1 => shared.read_at(&mut buffer, place).map(|count| (count, None)),
                    2 => shared.sync_data().map(|()| (0, None)),
                    _ => fs::metadata("/").map(|_| (0, None)),
                }
            })?;
            match below(3) {
                0 => {}
                1 => fibers::yield_now()?,
                _ => fibers::sleep(Duration::from_micros(below(200)))?,
            }
            operating.cancel();
            match operating.join()? {
                Ok((count, Some(byte))) => {
                    written += 1;
                    assert_eq!(count, 100_000);
                    let mut buffer = vec![0; 100_000];
                    file.chunk_at(&mut buffer, place)?;
                    assert!(buffer.iter().all(|found| *found == byte), "a write that succeeded is there");
                }
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(net::interrupt_of(&error), Some(Interrupt::Cancelled), "{error}");
                    interrupted += 1;
                }
            }
        }
        assert!(rounds < 1000 || (interrupted > 0 && written > 0), "{interrupted} and {written}");
        Ok(())
    });
}

/// As a read of a FIFO that nobody writes to.
#[test]
fn a_read_by_a_path_ends_by_a_deadline_and_the_runtime() {
    let folder = Rc::new(Folder::new("read-fifo"));
    let path = folder.path("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let read = path.clone();
    fibers::run(move || {
        let late = fibers::with_deadline(SOON, || fs::read(&read)).unwrap_err();
        assert_eq!(net::interrupt_of(&late), Some(Interrupt::DeadlineExpired), "{late}");
        fibers::spawn(move || assert!(fs::read_to_string(read).is_err())).unwrap();
        fibers::sleep(SOON).unwrap();
    })
    .unwrap();
    // Threads that still wait get the other end.
    drop(std::fs::OpenOptions::new().read(true).write(true).open(path));
}

/// To io_uring, the largest offset means the position of the open file.
#[test]
fn an_offset_that_no_file_has_is_an_error() {
    let folder = Folder::new("offsets");
    run(move || {
        let path = folder.path("file");
        fs::write(&path, "text")?;
        let file = File::options().read(true).write(true).open(&path)?;
        for offset in [u64::MAX, 1 << 63] {
            assert_eq!(file.read_at(&mut [0; 4], offset).unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(file.write_at(b"lost", offset).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        assert_eq!(fs::read_to_string(&path)?, "text");
        Ok(())
    });
}

/// Each keeps a thread until the other end is opened: the pool's for files, and the kernel's for a ring, are fewer.
#[test]
fn opens_of_fifos_keep_no_other_file_waiting() {
    const FIFOS: usize = 100;
    let folder = Rc::new(Folder::new("many-fifos"));
    run(move || {
        let paths: Vec<_> = (0..FIFOS).map(|number| folder.path(&format!("fifo-{number}"))).collect();
        for path in &paths {
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU)?;
        }
        let reading: Vec<_> = (paths.iter().cloned().enumerate())
            .map(|(number, path)| match number % 2 {
                0 => fibers::spawn(move || File::open(path).map(drop)),
                _ => fibers::spawn(move || fs::read(path).map(drop)),
            })
            .collect::<io::Result<_>>()?;
        assert!(BlockingKind::Peer.threads_max() > FIFOS);
        // Until they have begun, as far as that can be seen.
        let mut rounds = 200;
        while rounds > 0 && !has_threads(FIFOS - 10) {
            fibers::sleep(SOON)?;
            rounds -= 1;
        }
        let file = folder.path("file");
        fibers::with_deadline(Duration::from_secs(60), || -> io::Result<()> {
            File::create(&file)?.write_all(b"text")?;
            assert_eq!(File::open(&file)?.metadata()?.len(), 4);
            assert_eq!(fs::read(&file)?, b"text");
            assert_eq!(fibers::blocking(|| 5)?, 5);
            Ok(())
        })?;
        for path in &paths {
            drop(File::options().write(true).open(path)?);
        }
        reading.into_iter().try_for_each(|fiber| fiber.join()?)
    });
}

/// Whether this process has so many threads.
fn has_threads(count: usize) -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() >= count)
}

/// A destructor during a panic writes what a buffer holds, and removes what is temporary.
#[test]
fn files_are_written_and_removed_when_a_panic_drops_them() {
    struct Temporary(PathBuf);
    impl Drop for Temporary {
        fn drop(&mut self) {
            fs::remove_file(&self.0).unwrap();
        }
    }
    let folder = Rc::new(Folder::new("panicking"));
    run(move || {
        let (kept, temporary) = (folder.path("kept"), folder.path("temporary"));
        fs::write(&temporary, "")?;
        let mut buffered = io::BufWriter::new(File::create(&kept)?);
        let removed = Temporary(temporary.clone());
        let panicked = fibers::spawn(move || {
            let _removed = removed;
            buffered.write_all(b"in the buffer").unwrap();
            let _buffered = buffered;
            std::panic::resume_unwind(Box::new("a panic that prints nothing"));
        })?;
        let result: Result<(), _> = panicked.join();
        assert!(result.is_err());
        assert_eq!(fs::read(&kept)?, b"in the buffer");
        assert_eq!(fs::metadata(&temporary).unwrap_err().kind(), ErrorKind::NotFound);
        Ok(())
    });
}

//! Child processes, pipes and the standard streams, with cancels, deadlines and the end of the runtime; no zombie is
//! left.

mod common;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use ringspun_fibers::{self as fibers, Interrupt, Select, Signal};
use ringspun_net::{self as net, Pipe, WriteInterrupted};

use common::run;

const SOON: Duration = Duration::from_millis(5);
const AGES: Duration = Duration::from_secs(3600);
const ROLE: &str = "RINGSPUN_TEST_ROLE";

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// Whether the process is there, be it as a zombie.
fn exists(process_id: u32) -> bool {
    std::path::Path::new(&format!("/proc/{process_id}")).exists()
}

fn wait_until_gone(process_id: u32) {
    while exists(process_id) {
        fibers::sleep(Duration::from_millis(1)).unwrap();
    }
}

/// This test in a process of its own, as which it has `role`.
fn again(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(ROLE, role);
    command
}

fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

#[test]
fn bytes_go_through_a_pipe_and_interrupts_lose_none() {
    run(|| {
        let (reader, writer) = net::pipe()?;
        let data = (0..1_000_000_u32).map(|number| (number / 7) as u8).collect::<Vec<_>>();
        let late = fibers::with_deadline(SOON, || reader.read(&mut [0; 8])).unwrap_err();
        assert_eq!(net::interrupt_of(&late), Some(Interrupt::DeadlineExpired));
        let late = fibers::with_deadline(SOON, || writer.write(&data)).unwrap_err();
        let written = late.get_ref().unwrap().downcast_ref::<WriteInterrupted>().unwrap().written_bytes;
        assert!(written < data.len());
        let rest = data[written..].to_vec();
        let writing = fibers::spawn(move || writer.write(&rest))?;
        let (mut read, mut buffer) = (Vec::new(), [0; 1000]);
        loop {
            // Interrupted again and again.
            let timed = fibers::with_deadline(Duration::from_micros(50), || reader.read(&mut buffer));
            match timed {
                Ok(0) => break,
                Ok(count) => read.extend_from_slice(&buffer[..count]),
                Err(error) => assert_eq!(net::interrupt_of(&error), Some(Interrupt::DeadlineExpired)),
            }
            fibers::yield_now()?;
        }
        assert!(read == data);
        writing.join()??;
        drop(reader);
        let (reader, writer) = net::pipe()?;
        drop(reader);
        // A child that another test has just forked has a reader, too, until it executes its program.
        let broken = loop {
            match writer.write(b"x") {
                Ok(_) => fibers::sleep(SOON)?,
                Err(error) => break error,
            }
        };
        assert_eq!(broken.kind(), ErrorKind::BrokenPipe);
        let closed = fibers::spawn(|| net::pipe().and_then(|(reader, _writer)| reader.read(&mut [0])))?;
        closed.cancel();
        assert_eq!(net::interrupt_of(&closed.join()?.unwrap_err()), Some(Interrupt::Cancelled));
        Ok(())
    });
}

#[test]
fn a_child_has_pipes_and_a_status() {
    run(|| {
        let mut command = shell("read line; echo \"got $line\"; echo oops >&2; exit 3");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = net::spawn(&mut command)?;
        assert_eq!(child.try_wait()?, None);
        child.stdin.as_ref().unwrap().write(b"a line\n")?;
        let (mut out, mut err) = (String::new(), String::new());
        child.stdout.as_mut().unwrap().read_to_string(&mut out)?;
        child.stderr.as_mut().unwrap().read_to_string(&mut err)?;
        assert_eq!((out.as_str(), err.as_str()), ("got a line\n", "oops\n"));
        assert_eq!(child.wait()?.code(), Some(3));
        assert_eq!(child.wait()?.code(), Some(3), "again");
        assert_eq!(child.signal(Signal::TERM).unwrap_err().kind(), ErrorKind::InvalidInput);
        child.kill()?;
        assert!(!exists(child.id()));
        let missing = net::spawn(&mut Command::new("/nonexistent/program")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert!(missing.to_string().starts_with("start /nonexistent/program: "), "{missing}");
        Ok(())
    });
}

#[test]
fn a_child_has_no_part_in_what_is_ours() {
    run(|| {
        let (reader, _writer) = net::pipe()?;
        // Our ends are non-blocking and close-on-exec, the child's are as it expects.
        let mut command =
            shell("ls -l /proc/self/fd; cat /proc/self/fdinfo/0; grep -i sigblk /proc/self/status");
        let mut child = net::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let mut text = String::new();
        child.stdout.as_mut().unwrap().read_to_string(&mut text)?;
        assert!(child.wait()?.success());
        let ours = std::fs::read_link(format!("/proc/self/fd/{}", reader.as_fd().as_raw_fd()))?;
        assert!(text.contains("pipe:[") && !text.contains(ours.to_str().unwrap()), "{text}");
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        assert_eq!(i32::from_str_radix(flags, 8).unwrap() & libc::O_NONBLOCK, 0, "{text}");
        assert!(text.to_lowercase().contains("sigblk:\t0000000000000000"), "{text}");
        drop(reader);
        Ok(())
    });
}

/// Whether a child is neither gone nor a zombie.
fn is_running(id: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Starts children until one that has ended is reaped: another test may be at it.
fn reap(id: u32) {
    while exists(id) {
        fibers::run(|| assert!(net::status(&mut shell("exit 0")).unwrap().success())).unwrap();
    }
}

#[test]
fn a_wait_ends_by_a_deadline_a_cancel_and_the_runtime_and_the_child_is_there_for_the_next() {
    let process_id = Rc::new(Cell::new(0));
    let id = process_id.clone();
    run(move || {
        let mut child = net::spawn(&mut shell("exec sleep 1000"))?;
        let late = fibers::with_deadline(SOON, || child.wait()).unwrap_err();
        assert_eq!(net::interrupt_of(&late), Some(Interrupt::DeadlineExpired));
        let waiting = fibers::spawn(move || {
            let error = child.wait().unwrap_err();
            (net::interrupt_of(&error), child)
        })?;
        fibers::yield_now()?;
        waiting.cancel();
        let (interrupt, mut child) = waiting.join()?;
        assert_eq!(interrupt, Some(Interrupt::Cancelled));
        let first = Select::new()
            .on(child.exiting(), |status| format!("{status:?}"))
            .on(fibers::after(SOON), |()| "late".to_string())
            .wait()?;
        assert_eq!(first, "late");
        child.signal(Signal::TERM)?;
        assert_eq!(child.wait()?.signal(), Some(libc::SIGTERM));
        id.set(child.id());
        Ok(())
    });
    assert!(!exists(process_id.get()));
    // Killed and reaped with the runtime, unless it takes long to end; then by the next child that is started.
    let is_reaped_at_once = || {
        let id = process_id.clone();
        fibers::run(move || {
            fibers::spawn(move || {
                let mut child = net::spawn(&mut shell("exec sleep 1000")).unwrap();
                child.set_kill_on_drop(true);
                id.set(child.id());
                assert!(child.wait().is_err());
            })
            .unwrap();
            fibers::yield_now().unwrap();
        })
        .unwrap();
        let id = process_id.get();
        let is_gone = !exists(id);
        while is_running(id) {
            std::thread::sleep(Duration::from_millis(1));
        }
        reap(id);
        is_gone
    };
    assert!((0..100).any(|_| is_reaped_at_once()));
}

#[test]
fn a_dropped_child_runs_on_or_is_killed_and_is_reaped() {
    run(|| {
        let mut running = net::spawn(shell("read line; exit 0").stdin(Stdio::piped()))?;
        let (stdin, id) = (running.stdin.take(), running.id());
        drop(running);
        fibers::sleep(SOON)?;
        assert!(exists(id), "it runs on");
        drop(stdin);
        wait_until_gone(id);
        let mut killed = net::spawn(&mut shell("exec sleep 1000"))?;
        killed.set_kill_on_drop(true);
        let id = killed.id();
        drop(killed);
        wait_until_gone(id);
        // One that has ended long since.
        let ended = net::spawn(&mut shell("exit 0"))?;
        let id = ended.id();
        fibers::sleep(4 * SOON)?;
        drop(ended);
        wait_until_gone(id);
        Ok(())
    });
}

#[test]
fn a_child_that_outlives_its_runtime_is_reaped_later() {
    let id = fibers::run(|| net::spawn(&mut shell("exec sleep 0.05")).unwrap().id()).unwrap();
    while is_running(id) {
        std::thread::sleep(Duration::from_millis(1));
    }
    // By the next one that is started.
    reap(id);
}

#[test]
fn all_of_its_output_is_there_and_an_interrupt_kills_it() {
    run(|| {
        let output = net::output(
            shell("head -c 500000 /dev/zero; head -c 300000 /dev/zero >&2; exit 7").stdin(Stdio::piped()),
        )?;
        assert_eq!(
            (output.stdout.len(), output.stderr.len(), output.status.code()),
            (500_000, 300_000, Some(7))
        );
        let ids = Rc::new(Cell::new(0));
        let folder = std::env::temp_dir().join(format!("ringspun-output-{}", std::process::id()));
        let script = format!("echo $$ > {}; exec sleep 1000", folder.display());
        let cancelled = fibers::spawn(move || net::output(&mut shell(&script)))?;
        let read_id = || std::fs::read_to_string(&folder).ok()?.trim().parse::<u32>().ok();
        while ids.get() == 0 {
            fibers::sleep(Duration::from_millis(1))?;
            ids.set(read_id().unwrap_or(0));
        }
        std::fs::remove_file(&folder)?;
        cancelled.cancel();
        assert_eq!(net::interrupt_of(&cancelled.join()?.unwrap_err()), Some(Interrupt::Cancelled));
        wait_until_gone(ids.get());
        let late = fibers::with_deadline(SOON, || net::status(&mut shell("exec sleep 1000"))).unwrap_err();
        assert_eq!(net::interrupt_of(&late), Some(Interrupt::DeadlineExpired));
        Ok(())
    });
}

#[test]
fn many_children_end_at_any_time() {
    run(|| {
        for _ in 0..5 {
            let children = Vec::from_iter(
                (0..20)
                    .map(|number| fibers::spawn(move || net::status(&mut shell(&format!("exit {number}"))))),
            );
            for (number, child) in (0..).zip(children) {
                assert_eq!(child?.join()??.code(), Some(number));
            }
        }
        Ok(())
    });
}

/// Starts this test again, with a system call refused, so that the end of a child is told by SIGCHLD.
#[test]
fn without_pidfds_a_child_is_waited_for_by_its_signal() {
    const TEST: &str = "without_pidfds_a_child_is_waited_for_by_its_signal";
    if role().is_some() {
        return run(|| {
            let mut child = net::spawn(&mut shell("exec sleep 1000"))?;
            assert!(format!("{child:?}").contains("SIGCHLD"), "{child:?}");
            let late = fibers::with_deadline(SOON, || child.wait()).unwrap_err();
            assert_eq!(net::interrupt_of(&late), Some(Interrupt::DeadlineExpired));
            let other = fibers::spawn(|| net::status(&mut shell("sleep 0.01; exit 5")))?;
            child.kill()?;
            assert_eq!(child.wait()?.signal(), Some(libc::SIGKILL));
            assert_eq!(other.join()??.code(), Some(5));
            let dropped = net::spawn(&mut shell("exit 0"))?;
            let id = dropped.id();
            drop(dropped);
            while exists(id) {
                net::status(&mut shell("exit 0"))?;
            }
            Ok(())
        });
    }
    let mut command = again(TEST, "refused");
    // SAFETY: makes two system calls.
    unsafe {
        command.pre_exec(refuse_pidfds);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Has the kernel answer `pidfd_open(2)` with `ENOSYS` in this process, and those that it starts.
fn refuse_pidfds() -> io::Result<()> {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(LOAD_NUMBER, 0, 0, 0),
        step(JUMP_IF_EQUAL, 0, 1, libc::SYS_pidfd_open as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program is valid during the call.
    let refused = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
    };
    if refused { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn is_nonblocking(descriptor: impl AsFd) -> bool {
    // SAFETY: only reads flags.
    let flags = unsafe { libc::fcntl(descriptor.as_fd().as_raw_fd(), libc::F_GETFL) };
    flags & libc::O_NONBLOCK != 0
}

/// In its role, copies its standard input to its standard error, and is interrupted often.
#[test]
fn standard_streams_are_pipes_files_and_sockets_and_stay_as_they_are() {
    const TEST: &str = "standard_streams_are_pipes_files_and_sockets_and_stay_as_they_are";
    if role().is_some() {
        return run(|| {
            let mut buffer = [0; 10_000];
            // Grows until something comes: on a slow machine, no thread begins to read a file in so short a time.
            let mut patience = Duration::from_micros(100);
            loop {
                match fibers::with_deadline(patience, || net::stdin().read(&mut buffer)) {
                    Ok(0) => break,
                    Ok(count) => {
                        net::stderr().write(&buffer[..count])?;
                        patience = Duration::from_micros(100);
                    }
                    Err(error) => {
                        assert_eq!(net::interrupt_of(&error), Some(Interrupt::DeadlineExpired), "{error}");
                        patience *= 2;
                    }
                }
                fibers::yield_now()?;
            }
            assert!(!is_nonblocking(net::stdin()) && !is_nonblocking(net::stderr()));
            Ok(())
        });
    }
    let data = (0..300_000_u32).map(|number| (number / 3) as u8).collect::<Vec<_>>();
    let folder = std::env::temp_dir().join(format!("ringspun-standard-{}", std::process::id()));
    std::fs::write(&folder, &data).unwrap();
    let check = |name: &str, stdin: Stdio, feed: Option<Box<dyn FnOnce() + Send>>| {
        let mut command = again(TEST, "copy");
        let child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The ends that the child has.
        drop(command);
        let feeding = feed.map(std::thread::spawn);
        let output = child.wait_with_output().unwrap();
        if let Some(feeding) = feeding {
            feeding.join().unwrap();
        }
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("1 passed"), "{name}: {text} {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr == data, "{name}: {} bytes", output.stderr.len());
    };
    check("file", File::open(&folder).unwrap().into(), None);
    std::fs::remove_file(&folder).unwrap();
    let feed = |mut writer: Box<dyn Write + Send>| {
        let data = data.clone();
        Some(Box::new(move || {
            for piece in data.chunks(7_001) {
                writer.write_all(piece).unwrap();
            }
        }) as Box<dyn FnOnce() + Send>)
    };
    let (reader, writer) = io::pipe().unwrap();
    check("pipe", reader.into(), feed(Box::new(writer)));
    let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
    check("socket", std::os::fd::OwnedFd::from(one).into(), feed(Box::new(other)));
}

/// Its own standard output is a pipe that nobody reads for a while.
#[test]
fn a_write_to_a_slow_reader_lets_others_run_and_says_how_much_went() {
    const TEST: &str = "a_write_to_a_slow_reader_lets_others_run_and_says_how_much_went";
    if role().is_some() {
        return run(|| {
            let data = vec![b'.'; 1 << 20];
            let mut written = 0;
            loop {
                let late = fibers::with_deadline(SOON, || net::stderr().write(&data)).unwrap_err();
                let late = late.get_ref().unwrap().downcast_ref::<WriteInterrupted>().unwrap();
                written += late.written_bytes;
                if late.written_bytes == 0 && written > 0 {
                    break;
                }
            }
            assert!(written < data.len());
            // Tells how many bytes are to be read.
            println!("written {written}");
            let waiting = fibers::spawn(|| net::stdin().read(&mut [0]))?;
            waiting.join()??;
            Ok(())
        });
    }
    let mut command = again(TEST, "slow");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut text = String::new();
    let mut lines = io::BufReader::new(child.stdout.take().unwrap());
    while !text.contains("written") {
        assert!(io::BufRead::read_line(&mut lines, &mut text).unwrap() > 0, "{text}");
    }
    let written = text.lines().last().unwrap().rsplit(' ').next().unwrap().parse::<usize>().unwrap();
    drop(child.stdin.take());
    let mut rest = Vec::new();
    child.stderr.take().unwrap().read_to_end(&mut rest).unwrap();
    lines.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    assert_eq!(rest, vec![b'.'; written]);
}

#[test]
fn a_runtime_ends_while_pipes_and_children_are_waited_for() {
    let ended = Rc::new(Cell::new(0));
    let seen = ended.clone();
    fibers::run(move || {
        let (reader, writer) = net::pipe().unwrap();
        let (full, _unread): (Pipe, Pipe) = net::pipe().map(|(reader, writer)| (writer, reader)).unwrap();
        let (one, two) = (ended.clone(), ended.clone());
        fibers::spawn(move || {
            assert!(reader.read(&mut [0]).is_err());
            one.set(one.get() + 1);
        })
        .unwrap();
        fibers::spawn(move || {
            assert!(full.write(&vec![0; 1 << 20]).is_err());
            two.set(two.get() + 1);
        })
        .unwrap();
        let begun = Rc::new(Cell::new(false));
        let begins = begun.clone();
        fibers::spawn(move || {
            let mut child = net::spawn(Command::new("sleep").arg("1000")).unwrap();
            child.set_kill_on_drop(true);
            begins.set(true);
            assert!(child.wait().is_err());
            ended.set(ended.get() + 1);
        })
        .unwrap();
        // Keeps the pipe open.
        fibers::spawn(move || {
            let _ = fibers::sleep(AGES);
            drop(writer);
        })
        .unwrap();
        // All of them wait, then.
        while !begun.get() {
            fibers::sleep(SOON).unwrap();
        }
        fibers::sleep(SOON).unwrap();
    })
    .unwrap();
    assert_eq!(seen.get(), 3);
}

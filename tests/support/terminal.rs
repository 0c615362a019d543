//! Programs at a terminal.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::pty::{Winsize, grantpt, posix_openpt, ptsname, unlockpt};
use nix::sys::signal::{SigHandler, Signal, signal};

/// Far longer than anything here takes; only a hang comes to it.
const HANG: Duration = Duration::from_secs(60);

/// The two ends of a new terminal. Neither is inherited by programs that other tests start, which would keep it open.
fn open_terminal() -> io::Result<(File, File)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let path = {
        static NAMING: Mutex<()> = Mutex::new(());
        let _naming = NAMING.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the only fault of the function is that another call changes its text, and they take turns.
        unsafe { ptsname(&master) }?
    };
    let slave = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path)?;
    Ok((File::from(OwnedFd::from(master)), slave))
}

fn set_columns(terminal: &File, columns: u16) {
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel reads the structure.
    let status = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    assert_eq!(status, 0);
}

/// A program and the terminal that it runs at.
pub struct Session {
    pub child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    /// What the screen has shown and no `shows` has looked at.
    unseen: String,
}

impl Session {
    /// None, and the reason is printed, where there are no terminals.
    pub fn start(mut command: Command, columns: u16) -> Option<Self> {
        let (keyboard, slave) = match open_terminal() {
            Ok(pair) => pair,
            Err(error) => {
                println!("SKIPPED: no pseudoterminal: {error}");
                return None;
            }
        };
        set_columns(&keyboard, columns);
        let side = || Stdio::from(slave.try_clone().unwrap());
        command.stdin(side()).stdout(side()).stderr(side());
        // Who starts tests in the background has them ignore it.
        // SAFETY: between fork and exec, nothing but a system call that is safe there.
        unsafe { command.pre_exec(|| Ok(signal(Signal::SIGINT, SigHandler::SigDfl).map(drop)?)) };
        let child = command.spawn().unwrap();
        drop((command, slave));
        let mut output = keyboard.try_clone().unwrap();
        let (send, screen) = channel();
        // Reading fails when the last program has left the terminal.
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                if send.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Some(Self { child, keyboard, screen, unseen: String::new() })
    }

    /// Changes the width of the terminal.
    pub fn resize(&self, columns: u16) {
        set_columns(&self.keyboard, columns);
    }

    pub fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for a text, and gives what came before it.
    #[track_caller]
    pub fn shows(&mut self, text: &str) -> String {
        let start = Instant::now();
        loop {
            if let Some((before, after)) = self.unseen.split_once(text) {
                let before = before.to_string();
                self.unseen = after.to_string();
                return before;
            }
            match self.screen.recv_timeout(HANG.saturating_sub(start.elapsed())) {
                Ok(bytes) => self.unseen += &String::from_utf8_lossy(&bytes),
                Err(error) => {
                    panic!("{error}: expected {text:?}, shown is {:?}", self.unseen);
                }
            }
        }
    }

    /// Types a line and waits for its value and the prompt after it.
    #[track_caller]
    pub fn answers(&mut self, keys: &str, value: &str, prompt: &str) {
        self.types(keys);
        self.types("\r");
        self.shows(&format!("\r\n{value}\r\n"));
        self.shows(prompt);
    }

    /// Waits for the end, and gives the rest of what is shown.
    pub fn ends(mut self) -> (ExitStatus, String) {
        let start = Instant::now();
        loop {
            match self.screen.recv_timeout(HANG.saturating_sub(start.elapsed())) {
                Ok(bytes) => self.unseen += &String::from_utf8_lossy(&bytes),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("it does not end: {:?}", self.unseen);
                }
            }
        }
        (self.child.wait().unwrap(), mem::take(&mut self.unseen))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Most have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

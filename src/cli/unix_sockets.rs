//! Unix sockets that a server left behind which was killed: they are removed, so that a new server can bind.
//!
//! A socket is dead if connecting to it is refused. That is also so between `bind` and `listen` of a server that
//! starts: so servers hold a lock on the folder from here until they listen, and a socket has to be dead twice.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use ringspun::fibers;
use ringspun::net::{self, Address};

use super::output;

/// How long a socket has to be dead.
const DEAD_FOR: Duration = Duration::from_millis(50);
/// How often a lock that another process has is tried, and the time in between.
const ATTEMPTS_MAX: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// Locks on the folders of sockets that are about to be bound.
#[derive(Default)]
pub struct Claims {
    locks: Vec<(PathBuf, Flock<File>)>,
}

/// Removes what dead servers left at these paths. The caller binds, listens, and then drops the result.
/// In a fiber.
///
/// # Errors
///
/// The kernel's, and if another process has the lock for too long.
pub fn claim(paths: &[PathBuf]) -> io::Result<Claims> {
    let mut claims = Claims::default();
    for path in paths {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = match folder.canonicalize() {
            Ok(folder) => folder,
            // Binding says so, too.
            Err(_) => continue,
        };
        if !claims.locks.iter().any(|(locked, _)| *locked == folder) {
            // Who may not read the folder cannot lock it, and replaces nothing there.
            let Ok(file) = File::open(&folder) else { continue };
            let lock = lock(&folder, file)?;
            claims.locks.push((folder, lock));
        }
        if is_socket(path) && !is_dead(path) {
            // That of a process that was killed lives for some milliseconds more if it was on a ring.
            fibers::sleep(DEAD_FOR)?;
        }
        if is_dead(path) {
            fibers::sleep(DEAD_FOR)?;
            if is_dead(path) {
                output::complain(format_args!(
                    "{}: replaces the socket of a server that has ended",
                    path.display()
                ));
                fs::remove_file(path)?;
            }
        }
    }
    Ok(claims)
}

fn lock(folder: &Path, mut file: File) -> io::Result<Flock<File>> {
    let describe = |error: io::Error| {
        let text = format!("cannot lock {} to bind a socket there: {error}", folder.display());
        io::Error::new(error.kind(), text)
    };
    for _ in 0..ATTEMPTS_MAX {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((unlocked, Errno::EAGAIN)) => file = unlocked,
            Err((_, error)) => return Err(describe(error.into())),
        }
        fibers::sleep(PAUSE)?;
    }
    Err(describe(io::Error::new(io::ErrorKind::WouldBlock, "another process has had it for 5 s")))
}

/// Whether there is a socket, and nobody listens. Nothing is done to other files.
fn is_dead(path: &Path) -> bool {
    let is_refused = || {
        let address = Address::unix(path)?;
        // A server that is alive, and has many that wait, lets us wait, too.
        fibers::timeout(DEAD_FOR, || net::connect(address))?.map(drop)
    };
    is_socket(path) && is_refused().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

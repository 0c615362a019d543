//! The paths of Unix sockets: their permissions, and that existing files are not replaced.

mod common;

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

use ringspun_fibers as fibers;
use ringspun_net as net;

use crate::common::run;

/// A temporary directory of a test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("ringspun-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn place(path: &Path) -> String {
    format!("unix:{}", path.display())
}

/// Both kinds of sockets find the path taken, and say which.
fn assert_refused(path: &Path) {
    let place = place(path);
    for error in [net::listen(place.as_str()).unwrap_err(), net::listen_datagram(place.as_str()).unwrap_err()]
    {
        assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
        assert!(error.to_string().contains(&place), "{error}");
    }
}

#[test]
fn a_socket_gets_the_modes_that_the_umask_leaves() {
    run(|| {
        let folder = Folder::new("modes");
        for (umask, expected) in [(0o077, 0o700), (0o022, 0o755), (0o007, 0o770)] {
            let (streams, datagrams) = (folder.path(&format!("s{umask}")), folder.path(&format!("d{umask}")));
            // SAFETY: changes a number of the process; other tests need no more than what each of these leaves.
            let before = unsafe { libc::umask(umask) };
            let made = (net::listen(place(&streams)), net::listen_datagram(place(&datagrams)));
            // SAFETY: as above.
            unsafe { libc::umask(before) };
            let (_listener, _socket) = (made.0?, made.1?);
            for path in [streams, datagrams] {
                assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, expected, "{path:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_path_that_a_server_left_is_not_taken_over() {
    run(|| {
        let folder = Folder::new("stale");
        let (streams, datagrams) = (folder.path("streams"), folder.path("datagrams"));
        drop((UnixListener::bind(&streams)?, UnixDatagram::bind(&datagrams)?));
        let inodes = || io::Result::Ok((fs::metadata(&streams)?.ino(), fs::metadata(&datagrams)?.ino()));
        let before = inodes()?;
        assert_refused(&streams);
        assert_refused(&datagrams);
        assert_eq!(inodes()?, before);
        let error = net::connect(place(&streams)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        // Closing does not remove the path.
        fs::remove_file(&streams)?;
        net::listen(place(&streams))?.close();
        assert!(fs::metadata(&streams).is_ok());
        Ok(())
    });
}

#[test]
fn a_server_that_runs_keeps_its_path() {
    run(|| {
        let folder = Folder::new("live");
        let path = folder.path("socket");
        let listener = net::listen(place(&path))?;
        assert_refused(&path);
        let accepting = fibers::spawn(move || listener.accept())?;
        let client = net::connect(place(&path))?;
        client.write(b"x")?;
        assert_eq!(&*accepting.join()??.receive()?.unwrap(), b"x");
        Ok(())
    });
}

#[test]
fn files_and_links_are_left_as_they_are() {
    run(|| {
        let folder = Folder::new("others");
        let (file, link, absent) = (folder.path("file"), folder.path("link"), folder.path("absent"));
        fs::write(&file, "text")?;
        symlink(&absent, &link)?;
        assert_refused(&file);
        // A link is not followed: its creator could redirect the socket.
        assert_refused(&link);
        assert_eq!(fs::read_to_string(&file)?, "text");
        assert!(fs::symlink_metadata(&link)?.is_symlink() && !absent.exists());
        Ok(())
    });
}

//! A worker whose event loop fails beyond repair: its peers see an end, and the server goes on. In a process of its
//! own, as it loses a descriptor.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::mpsc;
use std::time::Duration;

use ringspun_fibers::{WorkerEvent, WorkersBuilder};
use ringspun_net::ServerBuilder;

/// The descriptors of rings or of epoll.
fn loops() -> Vec<RawFd> {
    let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let target = fs::read_link(&path).ok()?;
        let is_loop =
            ["[io_uring]", "[eventpoll]"].iter().any(|kind| target.to_string_lossy().ends_with(kind));
        is_loop.then(|| path.file_name()?.to_str()?.parse().ok())?
    });
    links.collect()
}

fn echoes(mut client: &TcpStream) -> bool {
    let mut answer = [0; 5];
    client.write_all(b"hello").is_ok() && client.read_exact(&mut answer).is_ok() && &answer == b"hello"
}

#[cfg(target_os = "linux")]
#[test]
fn peers_of_a_failed_loop_see_an_end_and_its_replacement_serves() {
    let (tell, told) = mpsc::channel();
    let workers = WorkersBuilder::new().count(2).replace_failed(true);
    let workers = workers.observer(move |event| tell.send(event.clone()).unwrap());
    let server = ServerBuilder::new()
        .with_workers(workers)
        .serve("127.0.0.1:0", |stream| {
            while let Ok(Some(bytes)) = stream.receive() {
                if stream.write(&bytes).is_err() {
                    break;
                }
            }
        })
        .start()
        .unwrap();
    let connect = || TcpStream::connect(server.addresses()[0].to_string()).unwrap();
    let clients: Vec<_> = (0..16).map(|_| connect()).collect();
    assert!(clients.iter().all(echoes));

    // The next call of one loop finds something else there.
    let nothing = fs::File::open("/dev/null").unwrap();
    let broken = loops()[0];
    // SAFETY: the number belongs to a loop, which is to fail by that.
    assert_eq!(unsafe { libc::dup2(nothing.as_raw_fd(), broken) }, broken);
    clients.iter().for_each(|mut client| client.write_all(b"hello").unwrap());
    let WorkerEvent::Failed { error, is_replaced: true, .. } = told.recv().unwrap() else {
        panic!("another event")
    };
    assert!(!error.is_empty() && !error.contains("panic"), "{error}");
    // The failed one may have echoed that, but ends then.
    let mut echoed: Vec<_> =
        clients.into_iter().filter(|mut client| client.read_exact(&mut [0; 5]).is_ok()).collect();
    echoed.retain(echoes);
    assert!((7..=9).contains(&echoed.len()), "{} of 16 go on", echoed.len());
    let more: Vec<_> = (0..32).map(|_| connect()).collect();
    assert!(more.iter().all(echoes));
    let live: usize = server.statistics().iter().map(|worker| worker.connections).sum();
    assert_eq!(live, echoed.len() + more.len());
    let drained = server.drain(Duration::ZERO).unwrap();
    assert_eq!((drained.cancelled, drained.left), (live, 0));
    server.wait().unwrap();
}

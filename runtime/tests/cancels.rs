//! A cancel finds its operation wherever it is in the kernel.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::rc::Rc;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrLike, UnixAddr, connect, listen, socket,
};
use ringspun_runtime::{
    Address, Completion, Configuration, EventLoop, Operation, OperationKind, Owner, Wait,
};

#[derive(Default)]
struct Ends(RefCell<Vec<Option<i32>>>);

impl Owner for Ends {
    fn complete(self: Rc<Self>, _: OperationKind, completion: Completion) {
        self.0.borrow_mut().push(completion.result.err().and_then(|error| error.raw_os_error()));
    }
}

fn unix_socket() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

/// On a blocking socket, io_uring retries a connect to a full queue, as no readiness event signals room, and
/// finally hands it to a kernel thread, where an interrupt ends it. Between two attempts, no cancel finds it.
#[test]
fn a_connect_that_the_kernel_tries_again_and_again_can_be_cancelled() -> io::Result<()> {
    let path = std::env::temp_dir().join(format!("ringspun-{}-cancels", std::process::id()));
    let listener = UnixListener::bind(&path)?;
    listen(&listener, Backlog::new(0)?)?;
    let name = UnixAddr::new(&path)?;
    // SAFETY: the pointer and the length are those of a valid address.
    let address = unsafe { Address::from_raw(name.as_ptr().cast(), Some(name.len())) }.unwrap();
    let filling = unix_socket()?;
    connect(filling.as_raw_fd(), &address)?;
    let event_loop = EventLoop::new(&Configuration::default())?;
    for turns in 0..200 {
        let socket = unix_socket()?;
        let ends = Rc::new(Ends::default());
        let operation = Operation::Connect { socket: socket.as_raw_fd(), address: Box::new(address) };
        let key = event_loop.submit(operation, ends.clone());
        if event_loop.is_readiness_based() {
            event_loop.turn(Wait::No)?;
            assert_eq!(*ends.0.borrow(), [Some(libc::EAGAIN)], "here the caller tries again");
            continue;
        }
        for _ in 0..turns {
            event_loop.turn(Wait::No)?;
        }
        assert!(ends.0.borrow().is_empty(), "it ended early: {:?}", ends.0);
        event_loop.cancel_and_wait(key)?;
        assert_eq!(*ends.0.borrow(), [Some(libc::ECANCELED)], "after {turns} turns");
    }
    std::fs::remove_file(path)
}

//! Datagrams on the loop: sources, empty and long ones, and exhausted buffers.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use ringspun_runtime::{
    Address, Completion, Configuration, Datagram, EventLoop, Operation, OperationKind, Owner, SendData, Wait,
};

/// Records all completions, and receives again if the receive ends without an error: that of io_uring ends at an empty
/// datagram.
struct Log {
    event_loop: Rc<EventLoop>,
    socket: RawFd,
    received: RefCell<Vec<(Vec<u8>, Option<Address>)>>,
    sent: RefCell<Vec<io::Result<u32>>>,
    ends: RefCell<Vec<Option<i32>>>,
}

impl Log {
    /// Starts to receive.
    fn start(event_loop: &Rc<EventLoop>, socket: &UdpSocket) -> Rc<Self> {
        let log = Rc::new(Self {
            event_loop: event_loop.clone(),
            socket: socket.as_raw_fd(),
            received: RefCell::default(),
            sent: RefCell::default(),
            ends: RefCell::default(),
        });
        event_loop.submit(Operation::ReceiveFrom { socket: log.socket }, log.clone());
        log
    }
}

impl Owner for Log {
    fn complete(self: Rc<Self>, kind: OperationKind, completion: Completion) {
        if kind == OperationKind::SendTo {
            self.sent.borrow_mut().push(completion.result);
            return;
        }
        if !completion.more {
            match &completion.result {
                Ok(_) => {
                    self.event_loop.submit(Operation::ReceiveFrom { socket: self.socket }, self.clone());
                }
                Err(error) => self.ends.borrow_mut().push(error.raw_os_error()),
            }
        }
        if let Some(buffer) = completion.buffer {
            assert_eq!(buffer.len(), completion.result.unwrap() as usize);
            assert!(!buffer.is_truncated());
            self.received.borrow_mut().push((buffer.to_vec(), buffer.source()));
        }
    }
}

fn sockets() -> (UdpSocket, UdpSocket) {
    let bound = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    };
    (bound(), bound())
}

fn address(socket: &UdpSocket) -> Address {
    match socket.local_addr().unwrap() {
        SocketAddr::V4(address) => Address::from(address),
        SocketAddr::V6(address) => Address::from(address),
    }
}

fn turn_until(event_loop: &EventLoop, done: impl Fn() -> bool) {
    while !done() {
        event_loop.turn(Wait::Block).unwrap();
    }
}

#[test]
fn datagrams_arrive_whole_with_their_senders() {
    let event_loop = EventLoop::new(&Configuration::default()).unwrap();
    let (left, right) = sockets();
    let log = Log::start(&event_loop, &right);
    let bytes = |length: usize| (0..length).map(|n| n as u8).collect::<Vec<u8>>();
    for length in [5, 0, 1, 65_507] {
        let datagram = Datagram::new(SendData::Owned(bytes(length)), Some(address(&right)));
        event_loop.submit(Operation::SendTo { socket: left.as_raw_fd(), datagram }, log.clone());
        let count = log.received.borrow().len();
        turn_until(&event_loop, || log.received.borrow().len() > count);
        let (received, source) = log.received.borrow()[count].clone();
        assert_eq!(received, bytes(length));
        assert_eq!(source, Some(address(&left)));
    }
    let sent: Vec<u32> = log.sent.take().into_iter().map(Result::unwrap).collect();
    assert_eq!(sent, [5, 0, 1, 65_507]);
    // One more byte does not fit.
    let datagram = Datagram::new(SendData::Owned(bytes(65_508)), Some(address(&right)));
    event_loop.submit(Operation::SendTo { socket: left.as_raw_fd(), datagram }, log.clone());
    turn_until(&event_loop, || !log.sent.borrow().is_empty());
    assert_eq!(log.sent.take()[0].as_ref().unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
    event_loop.shutdown().unwrap();
    assert_eq!(log.ends.take(), [Some(libc::ECANCELED)]);
    assert_eq!(event_loop.statistics(), Default::default());
}

#[test]
fn a_receive_that_lacks_buffers_loses_nothing() {
    let configuration = Configuration { datagram_buffers: 2, ..Configuration::default() };
    let event_loop = EventLoop::new(&configuration).unwrap();
    let (left, right) = sockets();

    /// Keeps the buffers that it receives.
    #[derive(Default)]
    struct Holder(RefCell<Vec<ringspun_runtime::Buffer>>);
    impl Owner for Holder {
        fn complete(self: Rc<Self>, _: OperationKind, completion: Completion) {
            self.0.borrow_mut().extend(completion.buffer);
        }
    }
    let holder = Rc::new(Holder::default());
    for byte in 0..3 {
        left.send_to(&[byte], right.local_addr().unwrap()).unwrap();
    }
    event_loop.submit(Operation::ReceiveFrom { socket: right.as_raw_fd() }, holder.clone());
    turn_until(&event_loop, || holder.0.borrow().len() == 2);
    (0..10).for_each(|_| event_loop.turn(Wait::No).unwrap());
    assert_eq!(event_loop.statistics().operations_in_flight, 1, "the receive waits for buffers");
    let held: Vec<Vec<u8>> = holder.0.take().iter().map(|buffer| buffer.to_vec()).collect();
    assert_eq!(held, [[0], [1]]);
    turn_until(&event_loop, || !holder.0.borrow().is_empty());
    assert_eq!(holder.0.take()[0][..], [2]);
}

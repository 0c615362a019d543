//! Runs that are ended early: what is interrupted by that is nobody's error.

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{Backlog, listen};
use ringspun_fibers as fibers;
use ringspun_load::{Hooks, Plan};

#[test]
fn a_connection_that_is_being_made_again_when_the_run_is_ended_is_no_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let is_gone = Arc::new(AtomicBool::new(false));
    let (gone, (end, ended)) = (is_gone.clone(), mpsc::channel::<()>());
    let server = thread::spawn(move || {
        let accepted = listener.accept().unwrap();
        // From now on, nobody else gets in: the queue has room for one, who is never accepted.
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let in_queue: Vec<_> =
            (0..3).map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(50))).collect();
        assert!(in_queue.iter().any(Result::is_err), "the queue is full");
        drop(accepted);
        gone.store(true, Ordering::Release);
        let _ = ended.recv();
    });

    let mut plan = Plan::new(format!("tcp://{address}").parse().unwrap());
    plan.timeout = Duration::from_secs(30);
    let stopper = move || {
        while !is_gone.load(Ordering::Acquire) {
            fibers::sleep(Duration::from_millis(10)).unwrap();
        }
        // Long enough for the connection to be tried again, which takes until the timeout.
        fibers::sleep(Duration::from_millis(500)).unwrap();
    };
    let outcome = ringspun_load::run(&plan, Hooks { stopper: Some(Box::new(stopper)), ..Hooks::default() });
    let outcome = outcome.unwrap();
    // The one that the server closed.
    assert_eq!(outcome.errors.total(), 1, "{:?}", outcome.errors);
    drop(end);
    server.join().unwrap();
}

//! Names that take long to look up delay only the fiber that asked.
//!
//! The tests are their own name server, in a network namespace where it is the only one. It holds its
//! answers back until the fibers beside have done a number of echoes: if a lookup stopped them, no answer
//! would ever come.

use std::io::Read;
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringspun::fibers::{self, Interrupt};
use ringspun::net;

use crate::support::namespace;
use crate::support::scratch::scratch_path;

/// How long each name takes at least.
const DELAY: Duration = Duration::from_secs(5);
/// How many echoes each answer waits for.
const ECHOES: usize = 1000;

/// What the name server does, in the port to which it listens for permission.
struct NameServer {
    /// Questions that have come.
    asked: Arc<AtomicUsize>,
}

impl NameServer {
    /// Starts to answer: every name is 127.0.0.1, once `is_free` says so and the delay has passed.
    fn start(is_free: impl Fn() -> bool + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        thread::spawn(move || {
            socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            let mut held = Vec::new();
            let mut first = None;
            loop {
                let mut question = [0; 512];
                if let Ok((length, client)) = socket.recv_from(&mut question) {
                    first.get_or_insert_with(Instant::now);
                    held.push((question[..length].to_vec(), client));
                    count.fetch_add(1, Ordering::SeqCst);
                }
                if first.is_some_and(|first| first.elapsed() >= DELAY) && is_free() {
                    for (question, client) in held.drain(..) {
                        socket.send_to(&answer(&question), client).unwrap();
                    }
                }
            }
        });
        Self { asked }
    }

    fn wait_for_questions(&self, count: usize) {
        while self.asked.load(Ordering::SeqCst) < count {
            fibers::sleep(Duration::from_millis(1)).unwrap();
        }
    }
}

/// The answer to a question (RFC 1035, section 4.1): one address of IPv4, or none of any other type.
fn answer(question: &[u8]) -> Vec<u8> {
    const TYPE_A: [u8; 2] = [0, 1];
    let mut answer = question[..2].to_vec();
    let name_length = question[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let asked = &question[12..12 + name_length + 4];
    let is_a = asked[name_length..name_length + 2] == TYPE_A;
    // A response to a recursive question, without error: one question, perhaps one answer.
    answer.extend([0x81, 0x80, 0, 1, 0, is_a.into(), 0, 0, 0, 0]);
    answer.extend(asked);
    if is_a {
        // The name of the question, a time to live of 0 seconds, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
    }
    answer
}

/// Runs a test where it can be the only name server.
fn as_name_server(test: &str, body: impl FnOnce()) {
    namespace::as_name_server(&format!("{}::{test}", module_path!()), body);
}

fn echo_server() -> Rc<net::Listener> {
    net::server("127.0.0.1:0", |stream| {
        while let Ok(Some(bytes)) = stream.receive() {
            stream.write(&bytes).unwrap();
        }
    })
    .unwrap()
}

#[test]
fn a_slow_name_delays_only_the_fiber_that_asked() {
    as_name_server("a_slow_name_delays_only_the_fiber_that_asked", || {
        let echoes = Arc::new(AtomicUsize::new(0));
        let done = echoes.clone();
        let server = NameServer::start(move || done.load(Ordering::SeqCst) >= ECHOES);
        ringspun::run(move || {
            let echo = echo_server();
            let port = echo.localname().unwrap().port().unwrap();
            let asking = fibers::spawn(move || net::connect(("slow.test", port)).map(drop)).unwrap();
            server.wait_for_questions(1);
            let client = net::connect(("127.0.0.1", port)).unwrap();
            let mut buffer = [0; 8];
            while !asking.is_finished() {
                client.write(b"12345678").unwrap();
                assert_eq!(client.chunk(&mut buffer).unwrap(), 8);
                echoes.fetch_add(1, Ordering::SeqCst);
            }
            asking.join().unwrap().unwrap();
            assert!(echoes.load(Ordering::SeqCst) >= ECHOES);
        })
        .unwrap();
    });
}

#[test]
fn a_lookup_ends_at_its_deadline_and_when_it_is_cancelled() {
    as_name_server("a_lookup_ends_at_its_deadline_and_when_it_is_cancelled", || {
        // No answer comes at all.
        let server = NameServer::start(|| false);
        ringspun::run(move || {
            let late = fibers::with_deadline(Duration::from_millis(20), || net::connect("slow.test:80"));
            let error = late.unwrap_err();
            assert_eq!(net::interrupt_of(&error), Some(Interrupt::DeadlineExpired), "{error}");
            assert!(error.to_string().contains("connect to slow.test:80"), "{error}");
            let asking = fibers::spawn(|| net::listen("slower.test:0").map(drop)).unwrap();
            server.wait_for_questions(2);
            asking.cancel();
            let error = asking.join().unwrap().unwrap_err();
            assert_eq!(net::interrupt_of(&error), Some(Interrupt::Cancelled), "{error}");
            // What is left of them is nobody's, and the end of the runtime does not wait for it.
        })
        .unwrap();
    });
}

#[test]
fn more_lookups_than_threads_are_all_answered() {
    as_name_server("more_lookups_than_threads_are_all_answered", || {
        NameServer::start(|| true);
        ringspun::run(|| {
            let asking: Vec<_> = (0..100)
                .map(|number| {
                    fibers::spawn(move || net::address(format!("name{number}.test:{number}"))).unwrap()
                })
                .collect();
            for (number, fiber) in asking.into_iter().enumerate() {
                let address = fiber.join().unwrap().unwrap();
                assert_eq!(address.to_string(), format!("127.0.0.1:{number}"));
            }
        })
        .unwrap();
    });
}

/// Connects, listens and asks for an address by name, while a fiber beside echoes and, when it has done
/// enough, tells the name server by a datagram.
const PROGRAM: &str = r#"
    (def [permission-port echoes] (map scan-number (drop 1 (dyn :args))))
    (def server
      (net/server "127.0.0.1" "0"
        (fn [stream] (while (def bytes (net/read stream 100)) (net/write stream bytes)))))
    (def port (last (net/localname server)))
    (def results (ev/chan 10))
    (def cut-short (ev/chan 1))
    (ev/spawn (ev/give results [:connect (type (net/connect "slow.test" port))]))
    (ev/spawn (ev/give results [:from (type (net/connect "127.0.0.1" port :stream "from.test"))]))
    (ev/spawn (ev/give results [:listen (type (net/listen "slow.test" "0"))]))
    (ev/spawn (ev/give results [:datagram (type (net/connect "udp.test" port :datagram))]))
    (ev/spawn (ev/give results [:address (net/address-unpack (net/address "a.test" 7 :stream))]))
    (ev/spawn (ev/give results [:all (map net/address-unpack (net/address "b.test" 7 :stream true))]))
    (ev/spawn (ev/give cut-short (protect (ev/with-deadline 0.05 (net/connect "never.test" 1)))))
    (def client (net/connect "127.0.0.1" port))
    (var done 0)
    (def permission (net/connect "127.0.0.1" permission-port :datagram))
    (while (< (ev/count results) 6)
      (net/write client "12345678")
      (net/chunk client 8)
      (if (= (++ done) echoes) (net/write permission "go on")))
    (printf "%q" (sort (seq [:repeat 6] (ev/take results))))
    (printf "%q" (first (ev/take cut-short)))
    (print (>= done echoes))
    (os/exit 0)
"#;

#[test]
fn a_slow_name_delays_only_the_janet_fiber_that_asked() {
    as_name_server("a_slow_name_delays_only_the_janet_fiber_that_asked", || {
        let permission = UdpSocket::bind("127.0.0.1:0").unwrap();
        permission.set_nonblocking(true).unwrap();
        let port = permission.local_addr().unwrap().port();
        let given = AtomicUsize::new(0);
        NameServer::start(move || {
            if permission.recv(&mut [0; 16]).is_ok() {
                given.store(1, Ordering::SeqCst);
            }
            given.load(Ordering::SeqCst) == 1
        });
        let file = scratch_path("program.janet");
        std::fs::write(&file, PROGRAM).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringspun"));
        command.arg("janet").arg(&file).args([port.to_string(), ECHOES.to_string()]);
        command.env("RINGSPUN_NET", "ring").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = String::new();
        child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        assert!(child.wait().unwrap().success(), "{output}");
        let expected = "@[(:address (\"127.0.0.1\" 7)) (:all @[(\"127.0.0.1\" 7)]) (:connect :core/stream) \
                        (:datagram :core/stream) (:from :core/stream) (:listen :core/stream)]\nfalse\ntrue\n";
        assert_eq!(output, expected);
    });
}

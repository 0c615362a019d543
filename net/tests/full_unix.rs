//! Unix sockets with a full peer: waiting calls continue when there is room, and every interrupt ends the wait.

#![cfg(target_os = "linux")]

mod common;

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::{Backlog, listen};
use ringspun_fibers::{self as fibers, Interrupt};
use ringspun_net::{self as net, Address, DatagramSocket, interrupt_of, is_closed};

use crate::common::run;

const FILLING: &[u8] = b"filling";
const SOON: Duration = Duration::from_millis(20);

/// A name in the abstract namespace that no other test uses.
fn name(test: &str) -> String {
    format!("@ringspun-{}-{test}", std::process::id())
}

/// A server whose queue another socket has filled, and one that is to send to it.
fn full_server(test: &str) -> io::Result<(DatagramSocket, usize, Rc<DatagramSocket>, Address)> {
    let server = net::listen_datagram(format!("unix:{}", name(test)))?;
    let filler = UnixDatagram::unbound()?;
    filler.set_nonblocking(true)?;
    let place = SocketAddr::from_abstract_name(&name(test)[1..])?;
    filler.connect_addr(&place)?;
    let mut queued = 0;
    while filler.send(FILLING).is_ok() {
        queued += 1;
    }
    assert!(queued > 0);
    let sender = net::listen_datagram(format!("unix:{}", name(&format!("{test}-sender"))))?;
    let address = server.localname()?;
    Ok((server, queued, Rc::new(sender), address))
}

#[test]
fn a_send_to_a_full_queue_goes_on_when_there_is_room() {
    run(|| {
        let (server, queued, sender, address) = full_server("room")?;
        let connected = net::connect_datagram(address)?;
        let sent = [
            fibers::spawn(move || sender.send_to(&address, b"by address"))?,
            fibers::spawn(move || connected.write(b"to the peer").map(drop))?,
        ];
        fibers::sleep(SOON)?;
        let mut buffer = [0; 20];
        for _ in 0..queued {
            assert_eq!(server.recv_from(&mut buffer)?.0, FILLING.len());
        }
        server.set_read_timeout(Some(Duration::from_secs(60)));
        let mut received = Vec::new();
        for _ in &sent {
            let (count, _) = server.recv_from(&mut buffer)?;
            received.push(buffer[..count].to_vec());
        }
        received.sort();
        assert_eq!(received, [&b"by address"[..], b"to the peer"]);
        for sender in sent {
            sender.join()??;
        }
        Ok(())
    });
}

#[test]
fn a_send_to_a_full_queue_ends_by_a_deadline() {
    run(|| {
        let (_server, _, sender, address) = full_server("deadline")?;
        for wait in [Duration::ZERO, Duration::from_micros(50), SOON] {
            let error = fibers::with_deadline(wait, || sender.send_to(&address, b"x")).unwrap_err();
            assert_eq!(interrupt_of(&error), Some(Interrupt::DeadlineExpired), "{error}");
        }
        Ok(())
    });
}

#[test]
fn a_send_to_a_full_queue_ends_by_a_cancel_at_any_time() {
    run(|| {
        let (_server, _, sender, address) = full_server("cancel")?;
        for turns in 0..300 {
            let sending = sender.clone();
            let fiber = fibers::spawn(move || sending.send_to(&address, b"x"))?;
            for _ in 0..turns {
                fibers::yield_now()?;
            }
            fiber.cancel();
            let error = fiber.join()?.unwrap_err();
            assert_eq!(interrupt_of(&error), Some(Interrupt::Cancelled), "{error}");
        }
        Ok(())
    });
}

#[test]
fn a_send_to_a_full_queue_ends_by_a_close_at_any_time() {
    run(|| {
        let (_server, _, _, address) = full_server("close")?;
        for turns in 0..300 {
            let sender = Rc::new(net::listen_datagram(format!("unix:{}", name("closing")))?);
            let sending = sender.clone();
            let fiber = fibers::spawn(move || sending.send_to(&address, b"x"))?;
            for _ in 0..turns {
                fibers::yield_now()?;
            }
            sender.close();
            let ended = fiber.join()?;
            if turns > 0 {
                let error = ended.unwrap_err();
                assert!(is_closed(&error), "{error}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_connect_to_a_full_backlog_waits_and_can_be_ended() {
    run(|| {
        let place = name("backlog");
        let address = SocketAddr::from_abstract_name(&place[1..])?;
        let listener = UnixListener::bind_addr(&address)?;
        listen(&listener, Backlog::new(0)?)?;
        let endpoint = format!("unix:{place}");
        let filling = net::connect(endpoint.as_str())?;
        for turns in 0..300 {
            let to = endpoint.clone();
            let fiber = fibers::spawn(move || net::connect(to.as_str()))?;
            for _ in 0..turns {
                fibers::yield_now()?;
            }
            fiber.cancel();
            let error = fiber.join()?.unwrap_err();
            assert_eq!(interrupt_of(&error), Some(Interrupt::Cancelled), "{error}");
        }
        let error = fibers::with_deadline(SOON, || net::connect(endpoint.as_str())).unwrap_err();
        assert_eq!(interrupt_of(&error), Some(Interrupt::DeadlineExpired), "{error}");
        let connecting = fibers::spawn(move || net::connect(endpoint.as_str()))?;
        fibers::sleep(SOON)?;
        // A connect that was ended may have come in before, as the kernel was about to make it.
        listener.set_nonblocking(true)?;
        while !connecting.is_finished() {
            drop(listener.accept());
            fibers::sleep(Duration::from_millis(1))?;
        }
        connecting.join()??;
        drop(filling);
        Ok(())
    });
}

//! Datagrams for fibers, over UDP and Unix sockets: results, errors and interrupts of each call.

mod common;

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use ringspun_fibers::{self as fibers, Interrupt};
use ringspun_net::{self as net, Address, DatagramSocket, SocketOption, errno_of, interrupt_of, is_closed};

use crate::common::run;

const SOON: Duration = Duration::from_millis(10);

/// A socket that receives, and one that is connected to it.
fn pair() -> io::Result<(DatagramSocket, DatagramSocket)> {
    let server = net::listen_datagram("127.0.0.1:0")?;
    let client = net::connect_datagram(server.localname()?)?;
    Ok((server, client))
}

fn received(socket: &DatagramSocket, size: usize) -> io::Result<(Vec<u8>, Address)> {
    let mut buffer = vec![0; size];
    let (count, source) = socket.recv_from(&mut buffer)?;
    buffer.truncate(count);
    Ok((buffer, source))
}

#[test]
fn each_datagram_arrives_for_itself_with_its_sender() {
    run(|| {
        for place in ["127.0.0.1:0", "[::1]:0"] {
            let server = net::listen_datagram(place)?;
            let clients =
                [net::connect_datagram(server.localname()?)?, net::connect_datagram(server.localname()?)?];
            for (number, client) in clients.iter().enumerate() {
                assert_eq!(client.write(&[number as u8; 3])?, 3);
                let (bytes, source) = received(&server, 100)?;
                assert_eq!((bytes, source), (vec![number as u8; 3], client.localname()?));
                server.send_to(&source, b"answer")?;
            }
            for client in clients {
                assert_eq!(received(&client, 100)?, (b"answer".to_vec(), server.localname()?));
                assert_eq!(client.peername()?, server.localname()?);
            }
        }
        Ok(())
    });
}

#[test]
fn a_datagram_is_cut_to_the_buffer_and_an_empty_one_is_one_too() {
    run(|| {
        let (server, client) = pair()?;
        client.write(b"0123456789")?;
        client.write(b"")?;
        client.write(&[7; 65_507])?;
        assert_eq!(received(&server, 4)?.0, b"0123");
        assert_eq!(received(&server, 4)?.0, b"");
        let (bytes, source) = server.receive()?;
        assert_eq!((&bytes[..], source), (&[7; 65_507][..], client.localname()?));
        let error = client.write(&[7; 65_508]).unwrap_err();
        assert_eq!(errno_of(&error), Some(libc::EMSGSIZE), "{error}");
        // Reading zero bytes of a datagram consumes it.
        client.write(b"gone")?;
        client.write(b"here")?;
        assert_eq!(received(&server, 0)?.0, b"");
        assert_eq!(received(&server, 4)?.0, b"here");
        Ok(())
    });
}

#[test]
fn a_peer_that_is_not_there_is_told_once_to_who_looks() {
    run(|| {
        let (server, client) = pair()?;
        let address = server.localname()?;
        server.close();
        client.write(b"anyone?")?;
        let error = received(&client, 10).unwrap_err();
        assert_eq!(errno_of(&error), Some(libc::ECONNREFUSED), "{error}");
        let server = net::listen_datagram(address)?;
        client.write(b"and now?")?;
        assert_eq!(received(&server, 10)?.0, b"and now?");
        server.send_to(&client.localname()?, b"yes")?;
        assert_eq!(received(&client, 10)?.0, b"yes");
        Ok(())
    });
}

#[test]
fn interrupts_lose_no_datagram() {
    run(|| {
        let (server, client) = pair()?;
        let error = fibers::with_deadline(SOON, || received(&server, 10)).unwrap_err();
        assert_eq!(interrupt_of(&error), Some(Interrupt::DeadlineExpired));
        server.set_read_timeout(Some(SOON));
        assert_eq!(received(&server, 10).unwrap_err().kind(), ErrorKind::TimedOut);
        server.set_read_timeout(None);
        let server = Rc::new(server);
        let reading = server.clone();
        let reader = fibers::spawn(move || received(&reading, 10).map(drop))?;
        fibers::yield_now()?;
        reader.cancel();
        // Available datagrams take precedence over an interrupt.
        fibers::yield_now()?;
        client.write(b"kept")?;
        assert_eq!(interrupt_of(&reader.join()?.unwrap_err()), Some(Interrupt::Cancelled));
        assert_eq!(received(&server, 10)?.0, b"kept");
        Ok(())
    });
}

#[test]
fn closing_wakes_whoever_waits_and_frees_the_port() {
    run(|| {
        let (server, client) = pair()?;
        let address = server.localname()?;
        let server = Rc::new(server);
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let server = server.clone();
                fibers::spawn(move || received(&server, 10).map(drop))
            })
            .collect::<io::Result<_>>()?;
        fibers::yield_now()?;
        server.close();
        for reader in waiting {
            let error = reader.join()?.unwrap_err();
            assert!(is_closed(&error), "{error}");
        }
        for error in [received(&server, 10).unwrap_err(), server.send_to(&address, b"x").unwrap_err()] {
            assert!(is_closed(&error), "{error}");
        }
        // Not shared, as with the standard library.
        drop(std::net::UdpSocket::bind(address.as_socket_addr().unwrap())?);
        drop(client);
        Ok(())
    });
}

#[test]
fn many_fibers_send_and_receive_on_one_socket() {
    run(|| {
        let (server, client) = pair()?;
        let (server, client) = (Rc::new(server), Rc::new(client));
        let senders: Vec<_> = (0..50_u8)
            .map(|number| {
                let client = client.clone();
                fibers::spawn(move || client.write(&[number]).map(drop))
            })
            .collect::<io::Result<_>>()?;
        let receivers: Vec<_> = (0..50)
            .map(|_| {
                let server = server.clone();
                fibers::spawn(move || received(&server, 10).map(|(bytes, _)| bytes[0]))
            })
            .collect::<io::Result<_>>()?;
        for sender in senders {
            sender.join()??;
        }
        let mut numbers = Vec::new();
        for receiver in receivers {
            numbers.push(receiver.join()??);
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (0..50).collect::<Vec<u8>>());
        Ok(())
    });
}

#[test]
fn addresses_and_options_that_do_not_fit_are_errors() {
    run(|| {
        let (server, client) = pair()?;
        let to_v6 = net::address("[::1]:9")?;
        let error = server.send_to(&to_v6, b"x").unwrap_err();
        assert!(error.to_string().starts_with("send to [::1]:9: "), "{error}");
        let error = server.write(b"x").unwrap_err();
        assert_eq!(errno_of(&error), Some(libc::EDESTADDRREQ), "{error}");
        assert_eq!(errno_of(&server.peername().unwrap_err()), Some(libc::ENOTCONN));
        assert!(net::listen_datagram("127.0.0.1:99999").unwrap_err().to_string().contains("port 99999"));
        client.set_option(SocketOption::Broadcast(true))?;
        client.set_option(SocketOption::ReceiveBufferBytes(1 << 16))?;
        client.set_option(SocketOption::MulticastTtl(3))?;
        client.set_option(SocketOption::JoinGroupV4([239, 1, 2, 3].into()))?;
        client.set_option(SocketOption::LeaveGroupV4([239, 1, 2, 3].into()))?;
        assert!(client.set_option(SocketOption::NoDelay(true)).is_err());
        assert!(client.set_option(SocketOption::JoinGroupV4([127, 0, 0, 1].into())).is_err());
        client.shutdown(Shutdown::Both)?;
        Ok(())
    });
}

/// A path that no other test uses.
fn path(name: &str) -> String {
    let file = std::env::temp_dir().join(format!("ringspun-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&file);
    file.to_str().unwrap().to_string()
}

#[test]
fn unix_datagrams_are_as_long_as_they_are() {
    run(|| {
        let path = path("datagrams");
        let server = net::listen_datagram(format!("unix:{path}"))?;
        let nameless = net::connect_datagram(server.localname()?)?;
        let named = net::listen_datagram(format!("unix:@{path}"))?;
        // Longer than any UDP datagram.
        let long: Vec<u8> = (0..150_000).map(|number| number as u8).collect();
        nameless.write(&long)?;
        assert_eq!(received(&server, 200_000)?, (long, nameless.localname()?));
        named.send_to(&server.localname()?, b"from a name")?;
        let (bytes, source) = received(&server, 100)?;
        assert_eq!((&bytes[..], source.to_string()), (&b"from a name"[..], format!("unix:@{path}")));
        server.send_to(&source, b"")?;
        assert_eq!(received(&named, 100)?.0, b"");
        // Sends wait while the receiver's queue is full.
        let sent = fibers::spawn(move || {
            for number in 0..200_u8 {
                nameless.write(&[number])?;
            }
            io::Result::Ok(())
        })?;
        for number in 0..200 {
            assert_eq!(received(&server, 100)?.0, [number]);
        }
        sent.join()??;
        drop(server);
        std::fs::remove_file(path)
    });
}

/// For sockets that may share their port, the kernel would choose the same port for two of this many in most runs.
#[test]
fn a_port_that_the_kernel_chooses_is_nobody_elses() {
    run(|| {
        let sockets: Vec<_> =
            (0..800).map(|_| net::listen_datagram("127.0.0.1:0")).collect::<io::Result<_>>()?;
        let mut ports = sockets.iter().map(DatagramSocket::localname).collect::<io::Result<Vec<_>>>()?;
        ports.sort_by_key(Address::port);
        ports.dedup();
        assert_eq!(ports.len(), sockets.len(), "two sockets have the same port");

        let error = net::listen_datagram(sockets[0].localname()?).unwrap_err();
        assert_eq!(net::errno_of(&error), Some(libc::EADDRINUSE));
        Ok(())
    });
}

#[test]
fn a_reader_that_always_finds_a_datagram_lets_others_run() {
    run(|| {
        let path = path("busy");
        let server = net::listen_datagram(format!("unix:{path}"))?;
        let refill = std::os::unix::net::UnixDatagram::unbound()?;
        let others = Rc::new(Cell::new(0));
        let count = others.clone();
        let other = fibers::spawn(move || {
            while count.get() < 3 {
                count.set(count.get() + 1);
                let _ = fibers::yield_now();
            }
        })?;
        refill.send_to(b"x", &path)?;
        let mut datagrams = 0;
        while others.get() < 3 {
            assert_eq!(received(&server, 10)?.0, b"x");
            refill.send_to(b"x", &path)?;
            datagrams += 1;
            assert!(datagrams < 10_000, "no other fiber has run");
        }
        other.join()?;
        std::fs::remove_file(path)
    });
}

#[test]
fn unix_streams_connect_by_path_and_by_abstract_name() {
    run(|| {
        let path = path("streams");
        for place in [format!("unix:{path}"), format!("unix:@{path}")] {
            let server = net::server(place.as_str(), |stream| {
                let mut buffer = [0; 100];
                let count = stream.read(&mut buffer).unwrap();
                stream.write(&buffer[..count]).unwrap();
            })?;
            assert_eq!(server.localname()?.to_string(), place);
            let client = net::connect(place.as_str())?;
            assert_eq!(client.peername()?.to_string(), place);
            assert_eq!(client.localname()?.to_string(), "unix:");
            client.write(b"hello")?;
            let mut buffer = [0; 5];
            assert_eq!(client.chunk(&mut buffer)?, 5);
            client.flush()?;
            // The name is taken.
            let error = net::listen(place.as_str()).unwrap_err();
            assert!(error.to_string().contains(&place), "{error}");
            server.close();
        }
        std::fs::remove_file(&path)?;
        let error = net::connect(format!("unix:{path}")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        Ok(())
    });
}

/// As `recv(2)` that may block. The kernel says again and again that there is something to read.
#[test]
fn a_socket_that_is_shut_down_for_reading_is_at_its_end() {
    run(|| {
        let (left, right) = std::os::unix::net::UnixDatagram::pair()?;
        let unix = (DatagramSocket::try_from(left)?, DatagramSocket::try_from(right)?);
        let listening = net::listen_datagram("127.0.0.1:0")?;
        let udp = (listening.localname().and_then(net::connect_datagram)?, listening);
        udp.1.send_to(&udp.0.localname()?, b"before")?;
        unix.1.write(b"before")?;
        for (socket, _other) in [udp, unix] {
            let socket = Rc::new(socket);
            // Afterwards, what has arrived is still there.
            socket.shutdown(Shutdown::Read)?;
            assert_eq!(&*socket.receive()?.0, b"before");
            for _ in 0..2 {
                let (count, source) = socket.recv_from(&mut [0; 9])?;
                assert_eq!((count, source.port()), (0, None));
            }
            assert_eq!(socket.try_recv_from(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        // One that waits is woken.
        let (waiting, _other) = std::os::unix::net::UnixDatagram::pair()?;
        let waiting = Rc::new(DatagramSocket::try_from(waiting)?);
        let reader = waiting.clone();
        let reading = fibers::spawn(move || reader.read(&mut [0; 9]))?;
        fibers::sleep(SOON)?;
        waiting.shutdown(Shutdown::Both)?;
        assert_eq!(reading.join()??, 0);
        Ok(())
    });
}

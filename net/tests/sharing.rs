//! Streams that several fibers share, sockets from and into those of the standard library, calls that do not wait, and
//! selections over sockets.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

use ringspun_fibers::{self as fibers, Channel, Select};
use ringspun_net::{
    self as net, ConnectBuilder, DatagramSocket, ListenBuilder, Listener, SocketOption, Stream,
};

const AGES: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(5);

fn run(test: impl FnOnce() -> io::Result<()> + 'static) {
    fibers::run(test).unwrap().unwrap();
}

fn tcp_pair() -> io::Result<(Stream, Stream)> {
    let listener = net::listen("127.0.0.1:0")?;
    let client = net::connect(listener.localname()?)?;
    Ok((client, listener.accept()?))
}

#[test]
fn a_stream_is_open_until_its_last_clone_is_dropped() {
    run(|| {
        for (client, server) in [tcp_pair()?, Stream::pair()?] {
            let mut writer = client.clone();
            let reading = fibers::spawn(move || {
                let mut text = String::new();
                (&client).read_to_string(&mut text).map(|_| text)
            })?;
            fibers::yield_now()?;
            writer.write_all(b"from the clone")?;
            let another = writer.clone();
            drop(writer);
            another.write(b", and another")?;
            let mut got = [0; 27];
            server.chunk(&mut got)?;
            assert_eq!(&got, b"from the clone, and another");
            server.write(b"answer")?;
            drop(server);
            assert_eq!(reading.join()??, "answer");
            // The reader's handle is gone, this one is not.
            assert!(another.localname().is_ok());
            let closed = another.clone();
            another.close();
            assert!(net::is_closed(&closed.write(b"x").unwrap_err()), "a close is for all");
        }
        Ok(())
    });
}

#[test]
fn a_dropped_last_clone_ends_the_connection_and_a_cloned_stream_stays_where_it_is() {
    run(|| {
        let (client, server) = tcp_pair()?;
        let clones: Vec<_> = (0..3).map(|_| client.clone()).collect();
        let refused = client.into_movable().unwrap_err();
        assert_eq!(refused.error.kind(), ErrorKind::ResourceBusy);
        drop((refused, clones));
        assert_eq!(server.read(&mut [0])?, 0);
        let (client, _server) = tcp_pair()?;
        drop(client.clone());
        assert!(client.into_movable().is_ok(), "it is the only one");
        Ok(())
    });
}

#[test]
fn sockets_of_the_standard_library_become_ours_and_back() {
    assert_eq!(Stream::try_from(UnixStream::pair().unwrap().0).unwrap_err().kind(), ErrorKind::Unsupported);
    run(|| {
        let plain = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = plain.local_addr()?;
        let listener = Listener::try_from(plain)?;
        let client = Stream::try_from(std::net::TcpStream::connect(address)?)?;
        let (server, peer) = listener.accept_with_peer()?;
        assert_eq!(peer, client.localname()?);
        client.write(b"hello")?;
        assert_eq!(&*server.receive()?.unwrap(), b"hello");
        assert!(server.as_fd().try_clone_to_owned().is_ok());
        // What has been received and not read would be lost.
        client.write(b"unread")?;
        server.peek(&mut [0])?;
        let kept = server.into_descriptor().unwrap_err();
        assert_eq!(kept.error.kind(), ErrorKind::ResourceBusy);
        assert_eq!(&*kept.stream.receive()?.unwrap(), b"unread");
        let mut plain = std::net::TcpStream::from(kept.stream.into_descriptor()?);
        plain.write_all(b"plain")?;
        assert_eq!(&*client.receive()?.unwrap(), b"plain");

        let (one, other) = UnixDatagram::pair()?;
        let (one, other) = (DatagramSocket::try_from(one)?, DatagramSocket::try_from(OwnedFd::from(other))?);
        one.write(b"datagram")?;
        assert_eq!(&*other.receive()?.0, b"datagram");
        let folder = std::env::temp_dir().join(format!("ringspun-sharing-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let path = folder.join("socket");
        let listener = Listener::try_from(UnixListener::bind(&path)?)?;
        let _client = Stream::try_from(UnixStream::connect(&path)?)?;
        listener.accept()?;
        std::fs::remove_dir_all(&folder)
    });
}

#[test]
fn what_does_not_wait_says_that_it_would() {
    run(|| {
        let listener = net::listen("127.0.0.1:0")?;
        assert_eq!(listener.try_accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        let client = net::connect(listener.localname()?)?;
        let server = loop {
            match listener.try_accept() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => fibers::sleep(SOON)?,
                accepted => break accepted?,
            }
        };
        let mut byte = [0; 1];
        assert_eq!(server.try_read(&mut byte).unwrap_err().kind(), ErrorKind::WouldBlock);
        client.write(b"ab")?;
        assert_eq!((server.peek(&mut byte)?, byte), (1, [b'a']));
        assert_eq!((server.try_read(&mut byte)?, byte), (1, [b'a']));
        assert_eq!((server.try_read(&mut byte)?, byte), (1, [b'b']));
        drop(client);
        assert_eq!(server.peek(&mut byte)?, 0);
        assert_eq!(server.try_read(&mut byte)?, 0);
        listener.close();
        assert!(net::is_closed(&listener.try_accept().unwrap_err()));
        Ok(())
    });
}

#[test]
fn parts_arrive_in_order() {
    run(|| {
        let (mut client, server) = Stream::pair()?;
        let large = vec![b'x'; 10_000];
        let parts = [IoSlice::new(b"head "), IoSlice::new(b""), IoSlice::new(b"body")];
        assert_eq!(client.write_vectored(&parts)?, 9);
        assert_eq!((&client).write_vectored(&[IoSlice::new(&large), IoSlice::new(b"rest")])?, 10_004);
        assert_eq!(client.write_vectored(&[])?, 0);
        let mut got = vec![0; 10_013];
        server.chunk(&mut got)?;
        assert!(got[..9] == *b"head body" && got[9..10_009] == large && got[10_009..] == *b"rest");
        Ok(())
    });
}

#[test]
fn a_selection_waits_for_sockets_and_loses_nothing() {
    run(|| {
        let listener = net::listen("127.0.0.1:0")?;
        let (client, server) = tcp_pair()?;
        let messages = Channel::<u32>::bounded(1);
        let select = || {
            Select::new()
                .take(&messages, |message| format!("message {}", message.unwrap_or_default()))
                .on(listener.accepting(), |accepted| format!("accepted {}", accepted.is_ok()))
                .on(server.receiving(), |received| match received {
                    Ok(Some(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
                    Ok(None) => "end".to_string(),
                    Err(error) => error.to_string(),
                })
                .on(fibers::after(SOON), |()| "nothing".to_string())
                .wait()
        };
        assert_eq!(select()?, "nothing");
        // On a slow machine, nothing may come first.
        let something = || -> io::Result<String> {
            loop {
                match select()? {
                    nothing if nothing == "nothing" => {}
                    text => return Ok(text),
                }
            }
        };
        client.write(b"bytes")?;
        assert_eq!(something()?, "bytes");
        let other = net::connect(listener.localname()?)?;
        assert_eq!(something()?, "accepted true");
        client.write(b"more")?;
        messages.give(7).map_err(io::Error::from)?;
        assert_eq!(something()?, "message 7", "the first clause");
        assert_eq!(something()?, "more", "and what was not chosen is still there");
        drop((client, other));
        assert_eq!(something()?, "end");
        // Interrupted, by a deadline and a cancel.
        let idle = Stream::pair()?;
        let forever = || Select::new().on(idle.0.receiving(), drop).wait();
        assert_eq!(fibers::timeout(SOON, forever), Err(fibers::Elapsed));
        let (reader, writer) = idle;
        let cancelled = fibers::spawn(move || (Select::new().on(reader.receiving(), drop).wait(), reader))?;
        fibers::yield_now()?;
        cancelled.cancel();
        let (interrupted, reader) = cancelled.join()?;
        assert_eq!(interrupted, Err(fibers::Interrupt::Cancelled));
        writer.write(b"kept")?;
        assert_eq!(&*reader.receive()?.unwrap(), b"kept");
        listener.close();
        assert!(Select::new().on(listener.accepting(), |accepted| accepted.is_err()).wait()?);
        Ok(())
    });
}

#[test]
fn selections_over_sockets_end_with_their_runtime() {
    let alive = fibers::run(|| {
        let listener = net::listen("127.0.0.1:0").unwrap();
        let (one, other) = Stream::pair().unwrap();
        let waits = fibers::spawn(move || {
            let event = Select::new().on(listener.accepting(), drop).on(one.receiving(), drop).wait();
            assert_eq!(event, Err(fibers::Interrupt::Cancelled));
            drop(other);
        });
        fibers::sleep(SOON).unwrap();
        drop(waits);
        fibers::statistics().unwrap().alive
    });
    assert_eq!(alive.unwrap(), 2);
}

#[test]
fn builders_set_what_they_say() {
    run(|| {
        let shared = ListenBuilder::new().reuse_port(true).backlog(4);
        let first = shared.listen("127.0.0.1:0")?;
        let address = first.localname()?;
        assert_eq!(net::listen(address).unwrap_err().kind(), ErrorKind::AddrInUse, "which does not allow it");
        let second = shared.listen(address)?;
        assert_eq!(second.localname()?, address);
        let builder =
            ConnectBuilder::new().timeout(AGES).no_delay(true).option(SocketOption::KeepAlive(true));
        let client = std::net::TcpStream::from(builder.connect(address)?.into_descriptor()?);
        assert!(client.nodelay()?);
        // Both families on one port, where there is IPv6.
        match ListenBuilder::new().v6_only(true).listen("[::]:0") {
            Ok(six) => {
                let port = six.localname()?.port().unwrap();
                net::listen(("0.0.0.0", port))?;
            }
            Err(error) => println!("SKIPPED IPv6: {error}"),
        }
        let refused = ConnectBuilder::new().timeout(Duration::ZERO).connect(address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::TimedOut);
        assert!(ConnectBuilder::new().bind("nonsense").is_err());
        Ok(())
    });
}

#[test]
fn a_peek_without_room_does_not_wait() {
    run(|| {
        let (left, right) = net::Stream::pair()?;
        assert_eq!(right.peek(&mut [])?, 0);
        left.write(b"x")?;
        assert_eq!((right.peek(&mut [])?, right.peek(&mut [0])?), (0, 1));
        Ok(())
    });
}

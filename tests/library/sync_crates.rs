//! Crates written for blocking sockets run on fibers as they are: WebSocket with `tungstenite`, TLS with `rustls`, mail
//! with `imap`, and the commands, the replies and the parser of `redis`. `httparse` is under examples/http.rs.
//!
//! Client and server share one thread: neither gets an answer unless each wait of the other parks its fiber
//! alone. A deadline ends a test in which an answer never comes.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Debug;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use redis::{Commands as _, ConnectionLike, RedisResult, Value};
use ringspun::fibers;
use ringspun::net::{self, Stream};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, ServerConfig, ServerConnection,
    StreamOwned, SupportedProtocolVersion,
};
use tungstenite::Message;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Only a hang takes this long.
const DEADLINE: Duration = Duration::from_secs(120);

/// Runs both ends of one TCP connection, each in a fiber of its own on a stack of the default size, and
/// returns what they return.
fn exchange<C: Debug + 'static, S: Debug + 'static>(
    client: impl FnOnce(Stream) -> Outcome<C> + 'static,
    server: impl FnOnce(Stream) -> Outcome<S> + 'static,
) -> (C, S) {
    let ends = ringspun::run(move || -> io::Result<_> {
        let listener = net::listen("127.0.0.1:0")?;
        let address = listener.localname()?;
        let serving = fibers::spawn(move || fibers::with_deadline(DEADLINE, || server(listener.accept()?)))?;
        let asking =
            fibers::spawn(move || fibers::with_deadline(DEADLINE, || client(net::connect(address)?)))?;
        // The end that failed first makes the other fail too, so both are told.
        Ok((asking.join()?, serving.join()?))
    });
    match ends {
        Ok(Ok((Ok(asked), Ok(served)))) => (asked, served),
        failed => panic!("client and server: {failed:?}"),
    }
}

/// Bytes that tell where they stand in the stream.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

#[test]
fn tungstenite_echoes_messages_answers_pings_and_closes() {
    let goodbye = CloseFrame { code: CloseCode::Normal, reason: "that was all".into() };
    let said = goodbye.clone();
    let messages = [
        Message::text("hello"),
        Message::text(""),
        Message::text("ring-spun yarn: Garn, fil, 糸"),
        Message::binary(pattern(1024 * 1024)),
        Message::text("and one after the large one"),
    ];
    let count = messages.len();

    let client = move |stream: Stream| {
        let (mut socket, _) = tungstenite::client("ws://localhost/echo", stream)?;
        for message in messages {
            socket.send(message.clone())?;
            let echo = socket.read()?;
            assert!(echo == message, "{} bytes came back for {}", echo.len(), message.len());
        }
        socket.send(Message::Ping("still there?".into()))?;
        assert_eq!(socket.read()?, Message::Pong("still there?".into()));
        // Messages under way do not wait for each other.
        for number in 0..100 {
            socket.write(Message::text(number.to_string()))?;
        }
        socket.flush()?;
        for number in 0..100 {
            assert_eq!(socket.read()?, Message::text(number.to_string()));
        }
        socket.close(Some(said))?;
        let answer = socket.read()?;
        until_closed(socket.read())?;
        Ok(answer)
    };
    let server = |stream: Stream| {
        let mut socket = tungstenite::accept(stream)?;
        let mut echoed = 0;
        loop {
            match socket.read()? {
                message @ (Message::Text(_) | Message::Binary(_)) => {
                    socket.send(message)?;
                    echoed += 1;
                }
                Message::Ping(_) => {}
                close => {
                    until_closed(socket.read())?;
                    return Ok((echoed, close));
                }
            }
        }
    };
    let (answer, (echoed, asked)) = exchange(client, server);
    assert_eq!(echoed, count + 100);
    assert_eq!(asked, Message::Close(Some(goodbye.clone())));
    assert_eq!(answer, Message::Close(Some(goodbye)));
}

/// After a close handshake `tungstenite` says so with an error, once the last frame is out.
fn until_closed(last: tungstenite::Result<Message>) -> Outcome<()> {
    match last {
        Err(tungstenite::Error::ConnectionClosed) => Ok(()),
        other => Err(format!("expected a closed connection, got {other:?}").into()),
    }
}

#[test]
fn rustls_exchanges_more_than_a_record_and_closes_cleanly() -> Outcome<()> {
    for (version, name) in [
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
    ] {
        let (client_configuration, server_configuration) = configurations(version)?;
        // Odd lengths of many records each; the two directions differ.
        let (request, answer) = (pattern(300_007), pattern(450_001));
        let (sent, expected) = (request.clone(), answer.clone());

        let client = move |stream: Stream| {
            let connection = ClientConnection::new(client_configuration, ServerName::try_from("localhost")?)?;
            let mut tls = StreamOwned::new(connection, stream);
            tls.write_all(&sent)?;
            tls.flush()?;
            // A stream that ends without close_notify is an error here, and no end.
            let mut received = Vec::new();
            tls.read_to_end(&mut received)?;
            tls.conn.send_close_notify();
            tls.flush()?;
            assert!(received == expected, "{} bytes came for {}", received.len(), expected.len());
            Ok(tls.conn.protocol_version())
        };
        let server = move |stream: Stream| {
            let mut tls = StreamOwned::new(ServerConnection::new(server_configuration)?, stream);
            let mut received = vec![0; request.len()];
            tls.read_exact(&mut received)?;
            assert!(received == request, "the request came changed");
            tls.write_all(&answer)?;
            tls.conn.send_close_notify();
            tls.flush()?;
            Ok(tls.read(&mut received)?)
        };
        let (negotiated, rest) = exchange(client, server);
        assert_eq!(negotiated, Some(name));
        assert_eq!(rest, 0, "the client's close_notify is the end of the stream");
    }
    Ok(())
}

#[test]
fn imap_logs_in_fetches_and_logs_out() {
    const MAIL: &str = "Subject: yarn\r\n\r\nring-spun\r\n";
    let client = |stream: Stream| {
        let mut client = imap::Client::new(stream);
        client.read_greeting()?;
        let mut session = client.login("ann", "a secret").map_err(|(error, _)| error)?;
        let mailbox = session.select("INBOX")?;
        let fetched = session.fetch("1", "RFC822")?;
        let bodies: Vec<_> = fetched.iter().filter_map(|mail| mail.body()).map(<[u8]>::to_vec).collect();
        let refused = session.select("nowhere").is_err();
        session.logout()?;
        Ok((mailbox.exists, bodies, refused))
    };
    let server = |stream: Stream| {
        let (lines, mut seen) = (BufReader::new(&stream).lines(), Vec::new());
        stream.write(b"* OK ready\r\n")?;
        for line in lines {
            let line = line?;
            let (tag, command) = line.split_once(' ').ok_or("a line without a tag")?;
            let (data, status) = match command.split(' ').next().unwrap_or_default() {
                "SELECT" if command.contains("nowhere") => (String::new(), "NO not here"),
                "SELECT" => ("* 3 EXISTS\r\n".to_string(), "OK selected"),
                "FETCH" => (format!("* 1 FETCH (RFC822 {{{}}}\r\n{MAIL})\r\n", MAIL.len()), "OK fetched"),
                "LOGOUT" => ("* BYE\r\n".to_string(), "OK"),
                _ => (String::new(), "OK"),
            };
            seen.push(command.to_string());
            stream.write(format!("{data}{tag} {status}\r\n").as_bytes())?;
        }
        Ok(seen)
    };
    let (got, seen) = exchange(client, server);
    assert_eq!(got, (3, vec![MAIL.as_bytes().to_vec()], true));
    assert_eq!(seen[0], "LOGIN \"ann\" \"a secret\"");
    assert_eq!(seen.len(), 5);
}

/// In debug builds, whose frames are the largest, as much as `serde_json` itself allows.
#[cfg(feature = "cli")]
#[test]
fn serde_json_parses_its_deepest_text_on_a_stack_of_the_default_size() {
    const DEPTH: usize = 127;
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let parse = move |depth| {
        let parsed =
            fibers::spawn(move || serde_json::from_str::<serde_json::Value>(&nested(depth)).map(drop));
        parsed.unwrap().join().unwrap().map_err(|error| error.to_string())
    };
    let (deepest, deeper) = ringspun::run(move || (parse(DEPTH), parse(DEPTH + 1))).unwrap();
    assert_eq!(deepest, Ok(()));
    assert!(deeper.unwrap_err().starts_with("recursion limit exceeded"));
}

/// A connection for the commands of `redis`, whose own are of the standard library's sockets.
struct Redis {
    stream: Stream,
    parser: redis::Parser,
}

impl ConnectionLike for Redis {
    fn req_packed_command(&mut self, command: &[u8]) -> RedisResult<Value> {
        self.stream.write(command)?;
        self.parser.parse_value(&self.stream)
    }

    fn req_packed_commands(
        &mut self,
        commands: &[u8],
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        self.stream.write(commands)?;
        let replies: RedisResult<Vec<_>> =
            (0..offset + count).map(|_| self.parser.parse_value(&self.stream)).collect();
        Ok(replies?.split_off(offset))
    }

    fn get_db(&self) -> i64 {
        0
    }

    fn check_connection(&mut self) -> bool {
        redis::cmd("PING").exec(self).is_ok()
    }

    fn is_open(&self) -> bool {
        self.stream.peername().is_ok()
    }
}

#[test]
fn redis_asks_and_pipelines() {
    let client = |stream: Stream| {
        let mut redis = Redis { stream, parser: redis::Parser::new() };
        assert!(redis.check_connection());
        let () = redis.set("yarn", pattern(100_000))?;
        let yarn: Vec<u8> = redis.get("yarn")?;
        let missing: Option<String> = redis.get("wool")?;
        let mut pipe = redis::pipe();
        for number in 0..100 {
            pipe.set(number, number * number).ignore().get(number);
        }
        let squares: Vec<u32> = pipe.query(&mut redis)?;
        let refused: RedisResult<()> = redis::cmd("SPIN").query(&mut redis);
        Ok((yarn == pattern(100_000), missing, squares, refused.unwrap_err().to_string()))
    };
    let server = |stream: Stream| {
        let (mut values, mut parser) = (BTreeMap::new(), redis::Parser::new());
        let mut count = 0;
        // An error is the end of the stream.
        while let Ok(command) = parser.parse_value(&stream) {
            let parts: Vec<Vec<u8>> = redis::from_redis_value(command)?;
            let reply = match parts.iter().map(Vec::as_slice).collect::<Vec<_>>().as_slice() {
                [b"PING"] => b"+PONG\r\n".to_vec(),
                [b"SET", key, value] => {
                    values.insert(key.to_vec(), value.to_vec());
                    b"+OK\r\n".to_vec()
                }
                [b"GET", key] => match values.get(*key) {
                    None => b"$-1\r\n".to_vec(),
                    Some(value) => [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
                },
                _ => b"-ERR unknown command\r\n".to_vec(),
            };
            stream.write(&reply)?;
            count += 1;
        }
        Ok(count)
    };
    let ((yarn, missing, squares, refused), count) = exchange(client, server);
    assert!(yarn && missing.is_none());
    assert!(squares.into_iter().eq((0..100).map(|number| number * number)));
    assert!(refused.contains("unknown command"), "{refused}");
    assert_eq!(count, 205);
}

/// Both ends' settings: a certificate for "localhost" that signs itself, and a client that trusts it alone.
fn configurations(
    version: &'static SupportedProtocolVersion,
) -> Outcome<(Arc<ClientConfig>, Arc<ServerConfig>)> {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
    let certificate = signed.cert.der().clone();
    let private_key = PrivateKeyDer::try_from(signed.signing_key.serialize_der())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut trusted = RootCertStore::empty();
    trusted.add(certificate.clone())?;
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[version])?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], private_key)?;
    Ok((Arc::new(client), Arc::new(server)))
}

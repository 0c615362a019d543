//! Crates written for futures run on fibers as they are: HTTP/1.1 and HTTP/2 with `hyper`, HTTP/2 with `h2`, a router
//! of `axum`, and what of tokio needs no event loop.
//!
//! Client and server share one thread. A deadline ends a test in which an answer never comes.

use std::convert::Infallible;
use std::error::Error;
use std::fmt::Debug;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, client, server};
use hyper_util::service::TowerToHyperService;
use ringspun::fibers::{self, as_future, block_on};
use ringspun::net::hyper::{Executor, Timer};
use ringspun::net::{self, AsyncStream, Stream};
use ringspun::tls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Only a hang takes this long.
const DEADLINE: Duration = Duration::from_secs(120);

/// Serves one connection by `serve`, in a fiber, while `ask` runs with the address. Both have to succeed.
fn serving<T: Debug + 'static>(
    serve: impl FnOnce(Stream) -> Outcome<()> + 'static,
    ask: impl FnOnce(net::Address) -> Outcome<T> + 'static,
) -> T {
    let ends = ringspun::run(move || -> Outcome<_> {
        let listener = net::listen("127.0.0.1:0")?;
        let address = listener.localname()?;
        let serving = fibers::spawn(move || fibers::with_deadline(DEADLINE, || serve(listener.accept()?)))?;
        let asked = fibers::with_deadline(DEADLINE, || ask(address));
        Ok((asked, serving.join()?))
    });
    match ends {
        Ok(Ok((Ok(answer), Ok(())))) => answer,
        failed => panic!("client and server: {failed:?}"),
    }
}

/// Bytes that tell where they stand in the stream.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

/// Answers with the method, the path, and all that was sent, in pieces.
async fn mirror(request: Request<Incoming>) -> hyper::Result<Response<PiecesBody>> {
    let head = format!("{} {}\n", request.method(), request.uri().path());
    let body = request.into_body().collect().await?.to_bytes();
    as_future(fibers::after(Duration::from_millis(1))).await;
    let mut pieces = vec![Bytes::from(head)];
    pieces.extend(body.chunks(10_000).map(Bytes::copy_from_slice));
    pieces.reverse();
    Ok(Response::new(StreamBody::new(Pieces(pieces))))
}

type PiecesBody = StreamBody<Pieces>;

/// A stream of frames, the last first.
struct Pieces(Vec<Bytes>);

impl futures_core::Stream for Pieces {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.pop().map(|piece| Ok(Frame::data(piece))))
    }
}

/// Asks, and checks that the answer is that of `mirror`.
fn request(path: &str, body: &[u8]) -> Request<Full<Bytes>> {
    let body = Full::new(Bytes::copy_from_slice(body));
    Request::post(path).header("Host", "localhost").body(body).unwrap()
}

async fn check_mirrored(answer: Response<Incoming>, path: &str, body: &[u8]) -> Outcome<()> {
    assert_eq!(answer.status(), StatusCode::OK);
    let received = answer.into_body().collect().await?.to_bytes();
    let head = format!("POST {path}\n");
    assert!(received.starts_with(head.as_bytes()) && received[head.len()..] == *body, "{path}");
    Ok(())
}

fn serve_http1<S: net::PollStream + Unpin + 'static>(stream: S) -> Outcome<()> {
    let connection = server::conn::http1::Builder::new()
        .timer(Timer)
        .serve_connection(AsyncStream::new(stream), service_fn(mirror));
    Ok(block_on(connection)??)
}

fn ask_http1<S: net::PollStream + Unpin + 'static>(stream: S) -> Outcome<()> {
    block_on(async {
        let (mut sender, connection) = client::conn::http1::handshake(AsyncStream::new(stream)).await?;
        let driving = fibers::spawn(|| block_on(connection))?;
        for length in [0, 1, 10_000, 1_000_000, 5] {
            let body = pattern(length);
            let answer = sender.send_request(request("/mirror", &body)).await?;
            check_mirrored(answer, "/mirror", &body).await?;
        }
        drop(sender);
        driving.await???;
        Ok(())
    })?
}

#[test]
fn hyper_serves_and_asks_http1() {
    serving(serve_http1, |address| ask_http1(net::connect(address)?));
}

#[test]
fn hyper_serves_and_asks_over_tls() {
    let asked = ringspun::run(|| -> Outcome<()> {
        let identity = tls::Identity::self_signed(&["localhost"])?;
        let trusted = tls::Roots::from_pem(identity.certificate_pem().as_bytes())?;
        let configuration = tls::ServerConfig::builder().identity(identity).build()?;
        let listener = tls::listen("127.0.0.1:0", &configuration)?;
        let address = listener.localname()?;
        let serving = fibers::spawn(move || {
            fibers::with_deadline(DEADLINE, || serve_http1(listener.accept()?))
                .map_err(|error| error.to_string())
        })?;
        let configuration = tls::ClientConfig::builder().roots(trusted).build()?;
        let stream = net::connect(address)?;
        fibers::with_deadline(DEADLINE, || ask_http1(tls::wrap(stream, "localhost", &configuration)?))?;
        Ok(serving.join()??)
    });
    asked.unwrap().unwrap();
}

#[test]
fn hyper_serves_and_asks_http2_with_many_streams() {
    let serve = |stream| {
        let connection = server::conn::http2::Builder::new(Executor)
            .timer(Timer)
            .serve_connection(AsyncStream::new(stream), service_fn(mirror));
        Ok(block_on(connection)??)
    };
    serving(serve, |address| {
        let stream = AsyncStream::new(net::connect(address)?);
        let (sender, connection) = block_on(client::conn::http2::handshake(Executor, stream))??;
        let driving = fibers::spawn(|| block_on(connection))?;
        let asking: Vec<_> = (0..50)
            .map(|number| {
                let mut sender = sender.clone();
                fibers::spawn(move || -> Result<(), String> {
                    let (path, body) = (format!("/{number}"), pattern(number * 5_000));
                    block_on(async {
                        let answer = sender.send_request(request(&path, &body)).await?;
                        check_mirrored(answer, &path, &body).await
                    })
                    .unwrap()
                    .map_err(|error| error.to_string())
                })
            })
            .collect();
        for fiber in asking {
            fiber?.join()??;
        }
        drop(sender);
        driving.join()???;
        Ok(())
    });
}

#[test]
fn hyper_ends_a_connection_whose_head_does_not_come_and_one_that_is_told_to() {
    let serve = |stream| {
        let connection = server::conn::http1::Builder::new()
            .timer(Timer)
            .header_read_timeout(Duration::from_millis(20))
            .serve_connection(AsyncStream::new(stream), service_fn(mirror));
        assert!(block_on(connection)?.unwrap_err().is_timeout());
        Ok(())
    };
    serving(serve, |address| {
        let client = net::connect(address)?;
        client.write(b"POST / HTTP/1.1\r\nHos")?;
        while client.receive()?.is_some() {}
        Ok(())
    });
    let serve = |stream| {
        let mut ending = false;
        let mut connection = std::pin::pin!(
            server::conn::http1::Builder::new()
                .serve_connection(AsyncStream::new(stream), service_fn(mirror))
        );
        // Whichever is first ready: the connection, or the wish to end it.
        let mut wish = as_future(fibers::after(Duration::from_millis(20)));
        let ended = std::future::poll_fn(|context| {
            if !ending && Pin::new(&mut wish).poll(context).is_ready() {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(context)
        });
        Ok(block_on(ended)??)
    };
    serving(serve, |address| {
        let client = net::connect(address)?;
        client.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")?;
        let mut received = Vec::new();
        while let Some(bytes) = client.receive()? {
            received.extend_from_slice(&bytes);
        }
        assert!(received.starts_with(b"HTTP/1.1 200 OK\r\n"));
        Ok(())
    });
}

#[test]
fn a_timer_of_hyper_is_removed_wherever_it_is_dropped() {
    use hyper::rt::Timer as _;
    let timers = || fibers::event_loop().unwrap().statistics().timers;
    ringspun::run(move || {
        let before = timers();
        let far = Duration::from_secs(3600);
        let armed = || {
            let mut sleep = Timer.sleep(far);
            let polled = fibers::with_deadline(Duration::ZERO, || block_on(sleep.as_mut()));
            assert_eq!(polled, Err(fibers::Interrupt::DeadlineExpired));
            sleep
        };
        let (here, elsewhere) = (armed(), armed());
        assert_eq!(timers(), before + 2);
        drop(here);
        assert_eq!(timers(), before + 1);
        std::thread::spawn(move || drop(elsewhere)).join().unwrap();
        // A task that the other thread has sent removes it.
        fibers::with_deadline(DEADLINE, || {
            while timers() > before {
                fibers::sleep(Duration::from_millis(1)).unwrap();
            }
        });
        // It follows a reset, and ends.
        let mut sleep = armed();
        Timer.reset(&mut sleep, Timer.now() + Duration::from_millis(1));
        assert_eq!(fibers::with_deadline(DEADLINE, || block_on(sleep.as_mut())), Ok(()));
        drop(sleep);
        assert_eq!(timers(), before);
    })
    .unwrap();
}

#[test]
fn h2_keeps_to_the_windows_of_both_ends() {
    const TOTAL: usize = 1_000_000;
    let serve = |stream| {
        let served = block_on(async {
            let mut connection = h2::server::handshake(AsyncStream::new(stream)).await?;
            while let Some(accepted) = connection.accept().await {
                let (request, mut respond) = accepted?;
                fibers::spawn(move || -> Result<(), h2::Error> {
                    let mut body = request.into_body();
                    let mut answer = respond.send_response(Response::new(()), false)?;
                    block_on(async {
                        while let Some(data) = body.data().await {
                            let data = data?;
                            body.flow_control().release_capacity(data.len())?;
                            answer.send_data(data, false)?;
                        }
                        answer.send_data(Bytes::new(), true)
                    })
                    .unwrap()
                })
                .unwrap();
            }
            Ok::<_, h2::Error>(())
        });
        Ok(served??)
    };
    serving(serve, |address| {
        let stream = AsyncStream::new(net::connect(address)?);
        let received = block_on(async {
            let (mut sender, connection) = h2::client::handshake(stream).await?;
            fibers::spawn(|| block_on(connection)).unwrap();
            let request = Request::post("http://localhost/").body(()).unwrap();
            let (answer, mut sending) = sender.send_request(request, false)?;
            fibers::spawn(move || {
                let all = Bytes::from(pattern(TOTAL));
                for start in (0..TOTAL).step_by(100_000) {
                    sending.send_data(all.slice(start..start + 100_000), start + 100_000 == TOTAL).unwrap();
                }
            })
            .unwrap();
            let (mut body, mut received) = (answer.await?.into_body(), Vec::new());
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                received.extend_from_slice(&data);
            }
            Ok::<_, h2::Error>(received)
        })??;
        assert!(received == pattern(TOTAL), "{} bytes", received.len());
        Ok(())
    });
}

#[test]
fn axum_routes_requests() {
    let greeting = String::from("hello");
    let router = Router::new()
        .route(
            "/greet/{name}",
            get(|State(greeting): State<String>, Path(name): Path<String>| async move {
                format!("{greeting}, {name}")
            }),
        )
        .route("/length", post(|body: Bytes| async move { body.len().to_string() }))
        .with_state(greeting);
    let serve = move |stream| {
        let service = TowerToHyperService::new(router.clone());
        let connection = server::conn::http1::Builder::new()
            .timer(Timer)
            .serve_connection(AsyncStream::new(stream), service);
        Ok(block_on(connection)??)
    };
    serving(serve, |address| {
        let stream = AsyncStream::new(net::connect(address)?);
        block_on(async {
            let (mut sender, connection) = client::conn::http1::handshake(stream).await?;
            fibers::spawn(|| block_on(connection))?;
            let mut ask = async |request: Request<Full<Bytes>>| -> Outcome<(StatusCode, String)> {
                let answer = sender.send_request(request).await?;
                let (head, body) = answer.into_parts();
                Ok((head.status, String::from_utf8(body.collect().await?.to_bytes().to_vec())?))
            };
            let get = |path: &str| Request::get(path).body(Full::default()).unwrap();
            assert_eq!(ask(get("/greet/ringspun")).await?, (StatusCode::OK, "hello, ringspun".into()));
            assert_eq!(ask(request("/length", &pattern(70_000))).await?, (StatusCode::OK, "70000".into()));
            assert_eq!(ask(get("/length")).await?.0, StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(ask(get("/nowhere")).await?.0, StatusCode::NOT_FOUND);
            Ok(())
        })?
    });
}

#[test]
fn the_traits_of_tokio_and_of_futures_io_carry_both_directions() {
    let serve = |stream| {
        let mut stream = AsyncStream::new(stream);
        let copied = block_on(async {
            let (mut reader, mut writer) = tokio::io::split(&mut stream);
            let copied = tokio::io::copy(&mut reader, &mut writer).await?;
            writer.shutdown().await?;
            std::io::Result::Ok(copied)
        });
        assert_eq!(copied??, 200_000);
        Ok(())
    };
    serving(serve, |address| {
        let stream = Rc::new(net::connect(address)?);
        let (mut reader, mut writer) =
            (AsyncStream::new(Stream::clone(&stream)), AsyncStream::new(Stream::clone(&stream)));
        let sending = fibers::spawn(move || {
            block_on(async {
                writer.write_all(&pattern(200_000)).await?;
                writer.shutdown().await
            })
        })?;
        let mut received = vec![0; 100_000];
        block_on(reader.read_exact(&mut received))??;
        while let count @ 1.. = block_on(std::future::poll_fn(|context| {
            let mut buffer = [0; 1000];
            let polled = futures_io::AsyncRead::poll_read(Pin::new(&mut reader), context, &mut buffer);
            polled.map_ok(|count| {
                received.extend_from_slice(&buffer[..count]);
                count
            })
        }))?? {
            assert!(count <= 1000);
        }
        assert!(received == pattern(200_000), "{} bytes", received.len());
        sending.join()???;
        Ok(())
    });
}

#[test]
fn tokio_awaits_a_fiber_and_a_fiber_awaits_a_task_of_tokio() {
    let (give_remote, remote) = std::sync::mpsc::channel::<fibers::Remote>();
    let (question, asked) = tokio::sync::oneshot::channel::<u32>();
    let (answer, answered) = tokio::sync::oneshot::channel::<u32>();
    let thread = std::thread::spawn(move || {
        let remote = remote.recv().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            // Beside each other, so that the thread of tokio does not block for the fiber.
            let asked = tokio::spawn(async move { asked.await.unwrap() });
            let slow = remote.spawn(|| fibers::sleep(Duration::from_millis(2)).map(|()| 40)).unwrap();
            let of_fiber = slow.await.unwrap().unwrap();
            answer.send(of_fiber + asked.await.unwrap()).unwrap();
        });
    });
    let sum = ringspun::run(move || {
        give_remote.send(fibers::remote().unwrap()).unwrap();
        question.send(2).unwrap();
        block_on(answered)
    });
    assert_eq!(sum.unwrap().unwrap(), Ok(42));
    thread.join().unwrap();
}

//! A web service with axum, served by hyper on fibers, on every core: notes that are written, read and removed.
//!
//! ```sh
//! cargo run --release --example axum -- [LISTEN]    # 127.0.0.1:8080
//! curl -X PUT --data 'spin wool' http://127.0.0.1:8080/notes/today
//! curl http://127.0.0.1:8080/notes/today
//! ```
//!
//! Each connection is a fiber that waits for hyper's future. Crates for futures run in it as they are, as long as they
//! need no event loop of their own; and a handler may also wait in straight code, as `slow` does. SIGTERM and SIGINT
//! end the server, once requests that have begun are answered.

use std::collections::BTreeMap;
use std::io::Result;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::service::TowerToHyperService;
use ringspun::fibers::{self, Signal, Signals};
use ringspun::net::hyper::Timer;
use ringspun::net::{self, AsyncStream, Stream};

const HEAD_TIME_MAX: Duration = Duration::from_secs(30);
const END_MAX: Duration = Duration::from_secs(5);
const NOTE_MAX_BYTES: usize = 64 * 1024;

/// All workers share them. Nothing waits while the lock is held.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<BTreeMap<String, String>>>);

impl Notes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn names(State(notes): State<Notes>) -> String {
    notes.lock().keys().map(|name| format!("{name}\n")).collect()
}

async fn read(
    State(notes): State<Notes>,
    Path(name): Path<String>,
) -> std::result::Result<String, StatusCode> {
    notes.lock().get(&name).cloned().ok_or(StatusCode::NOT_FOUND)
}

async fn write(State(notes): State<Notes>, Path(name): Path<String>, text: String) -> StatusCode {
    match notes.lock().insert(name, text) {
        None => StatusCode::CREATED,
        Some(_) => StatusCode::NO_CONTENT,
    }
}

async fn remove(State(notes): State<Notes>, Path(name): Path<String>) -> StatusCode {
    notes.lock().remove(&name).map_or(StatusCode::NOT_FOUND, |_| StatusCode::NO_CONTENT)
}

/// Parks the fiber of this connection; all others go on.
async fn slow() -> &'static str {
    match fibers::sleep(Duration::from_millis(100)) {
        Ok(()) => "after a rest\n",
        Err(_) => "in a hurry\n",
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("axum: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let place = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".to_string());
    let signals = Signals::new(&[Signal::TERM, Signal::INT])?;
    let router = Router::new()
        .route("/", get(names))
        .route("/notes/{name}", get(read).put(write).delete(remove))
        .route("/slow", get(slow))
        .layer(DefaultBodyLimit::max(NOTE_MAX_BYTES))
        .with_state(Notes::default());
    let server = net::serve(place.as_str(), move |stream| serve(stream, router.clone()))?;
    println!("listening at {}", server.addresses()[0]);
    ringspun::run(move || signals.wait())??;
    server.drain(END_MAX).map(drop)
}

fn serve(stream: Stream, router: Router) {
    let connection = http1::Builder::new()
        .timer(Timer)
        .header_read_timeout(HEAD_TIME_MAX)
        .serve_connection(AsyncStream::new(stream), TowerToHyperService::new(router));
    match fibers::block_on(connection) {
        Ok(Err(error)) if !error.is_timeout() => eprintln!("axum: {error}"),
        // The end, an idle client, or the end of the server.
        _ => {}
    }
}

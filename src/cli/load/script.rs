//! `ringspun load --script`: sessions that a Janet program makes, on a VM for each thread. `script.janet` has the loop
//! of each user; the functions here tie it to the ledger of the run.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringspun::janet::{Net, Value, Vm};
use ringspun_load::{DrivenStep, Driver, DueSession, ErrorKind, Jar, Ledger, Pace, Plan, Target};

const SOURCE: &str = include_str!("script.janet");

/// What makes the sessions of a script.
pub fn driver(path: &Path) -> Driver {
    let path = path.to_path_buf();
    Arc::new(move |ledger| {
        let shown = path.display();
        let mut vm = Vm::with_net(Net::Ring).map_err(|error| error.to_string())?;
        define_all(&mut vm, &path, ledger).map_err(|error| error.to_string())?;
        // An error that the source does not catch has been printed with its stack.
        let error = vm.run_string(SOURCE).unwrap_or_else(|error| error.to_string());
        if error.is_empty() { Ok(()) } else { Err(format!("the script {shown} failed: {error}")) }
    })
}

/// The users of one thread.
struct Users {
    ledger: Rc<Ledger>,
    users: RefCell<Vec<User>>,
}

/// A user, with what its session is at.
#[derive(Default)]
struct User {
    session: Option<DueSession>,
    /// When the first step of the session is due, until it begins.
    due: Option<Instant>,
    step: Option<Begun>,
    cookies: Jar,
}

/// A step that has begun.
struct Begun {
    name: String,
    due: Instant,
    began: Instant,
    status: Option<u16>,
}

impl Users {
    /// Calls a function with the user that the first argument names.
    fn with<T>(&self, arguments: &[Value], call: impl FnOnce(&mut User) -> T) -> Result<T, String> {
        // A script can call what its loop calls, too, with anything.
        let index = arguments.first().and_then(Value::as_number).filter(|index| *index >= 0.0);
        let mut users = self.users.borrow_mut();
        let user = index.and_then(|index| users.get_mut(index as usize)).ok_or("there is no such user")?;
        Ok(call(user))
    }

    /// When the next session of a user is due: in so many seconds.
    fn next(&self, arguments: &[Value]) -> Result<Value, String> {
        let session = self.ledger.next_session();
        self.with(arguments, |user| user.session = session)?;
        self.wait(arguments)
    }

    /// The same again, for the session that the user has.
    fn wait(&self, arguments: &[Value]) -> Result<Value, String> {
        let session = self.with(arguments, |user| user.session)?;
        let wait = |session: DueSession| session.due.saturating_duration_since(Instant::now());
        Ok(session.map_or(Value::Nil, |session| Value::Number(wait(session).as_secs_f64())))
    }

    fn begin(&self, arguments: &[Value]) -> Result<Value, String> {
        self.with(arguments, |user| {
            let Some(session) = user.session else { return Value::Nil };
            self.ledger.begin_session(&session, arguments.get(1) == Some(&Value::Boolean(true)));
            *user = User { session: Some(session), due: Some(session.due), ..User::default() };
            Value::Number(session.number as f64)
        })
    }

    fn end(&self, arguments: &[Value]) -> Result<Value, String> {
        self.with(arguments, |user| {
            if let Some((kind, text)) = failure(arguments.get(1..).unwrap_or_default()) {
                self.ledger.fail(kind, text);
            }
            if let Some(session) = user.session.take() {
                self.ledger.end_session(&session, arguments.get(1) == Some(&Value::Boolean(true)));
            }
            Value::Nil
        })
    }

    /// Begins a step; false if the run is over.
    fn step(&self, arguments: &[Value]) -> Result<Value, String> {
        if self.ledger.is_over() {
            return Ok(Value::Boolean(false));
        }
        let name =
            arguments.get(1).and_then(Value::as_text).ok_or("expected a text as the name of a step")?;
        self.with(arguments, |user| {
            let began = Instant::now();
            let due = user.due.take().unwrap_or(began);
            user.step = Some(Begun { name, due, began, status: None });
            Value::Boolean(true)
        })
    }

    fn done(&self, arguments: &[Value]) -> Result<Value, String> {
        self.with(arguments, |user| {
            if let Some(Begun { name, due, began, status }) = user.step.take() {
                let failure = failure(arguments);
                self.ledger.step(&DrivenStep { name: &name, due, began, status, failure });
            }
            Value::Nil
        })
    }

    /// Notes the HTTP status of a response; the last one is that of the step.
    fn status(&self, arguments: &[Value]) -> Result<Value, String> {
        let status = arguments.get(1).and_then(Value::as_number);
        self.with(arguments, |user| {
            if let Some(step) = &mut user.step {
                // Three digits.
                step.status = status.map(|status| status as u16);
            }
            Value::Nil
        })
    }

    fn with_cookies(&self, arguments: &[Value]) -> Result<Value, String> {
        let Some(request @ Value::Text(bytes)) = arguments.get(1) else { return Ok(Value::Nil) };
        self.with(arguments, |user| user.cookies.add_to(bytes).map_or(request.clone(), Value::Text))
    }

    fn set_cookie(&self, arguments: &[Value]) -> Result<Value, String> {
        if let [_, Value::Text(header), Value::Text(request)] = arguments {
            self.with(arguments, |user| user.cookies.store(header, request))?;
        }
        Ok(Value::Nil)
    }
}

/// The kind and the text of an error behind another argument.
fn failure(arguments: &[Value]) -> Option<(ErrorKind, String)> {
    let kind = match arguments.get(1)?.as_text()?.as_str() {
        "timeout" => ErrorKind::TimedOut,
        "connect" => ErrorKind::ConnectFailed,
        "handshake" => ErrorKind::HandshakeFailed,
        "status" => ErrorKind::Status,
        _ => ErrorKind::Script,
    };
    Some((kind, arguments.get(2).and_then(Value::as_text).unwrap_or_default()))
}

/// What the script's loop asks for.
fn setting(path: &Path, ledger: &Ledger, name: &str) -> Value {
    let plan = ledger.plan();
    let place = plan.place();
    let host_and_port = place.rsplit_once(':').filter(|_| !place.starts_with("unix:"));
    match name {
        "path" => Value::from(path.to_string_lossy().as_ref()),
        "users" => Value::Number(ledger.users() as f64),
        "timeout" => Value::Number(plan.timeout.as_secs_f64()),
        "rate" => Value::Boolean(plan.pace != Pace::Closed),
        "host" => host_and_port
            .map_or(Value::Nil, |(host, _)| Value::from(host.trim_start_matches('[').trim_end_matches(']'))),
        // Of a Unix socket, its name.
        "port" => {
            Value::from(host_and_port.map_or(place.strip_prefix("unix:").unwrap_or(&place), |(_, port)| port))
        }
        "kind" => Value::from(if matches!(plan.target, Target::Udp(_)) { "datagram" } else { "stream" }),
        "authority" => match &plan.target {
            Target::Http(target) => Value::from(target.authority()),
            _ => Value::from("localhost"),
        },
        _ => tls_setting(plan, name),
    }
}

/// How connections are secured; nil without TLS.
fn tls_setting(plan: &Plan, name: &str) -> Value {
    let Some(host) = plan.target.tls_host() else { return Value::Nil };
    let tls = &plan.tls;
    let text = |bytes: Option<&Vec<u8>>| bytes.map_or(Value::Nil, |bytes| Value::Text(bytes.clone()));
    match name {
        "tls-host" => Value::from(host.as_str()),
        "tls-ca" => text(tls.authorities_pem.as_ref()),
        "tls-cert" => text(tls.identity_pem.as_ref().map(|(cert, _)| cert)),
        "tls-key" => text(tls.identity_pem.as_ref().map(|(_, key)| key)),
        "tls-alpn" if tls.alpn.is_empty() => Value::Nil,
        "tls-alpn" => Value::from(tls.alpn.join(",").as_str()),
        "tls-insecure" => Value::Boolean(tls.is_insecure),
        "tls-resume" => Value::Boolean(tls.resumes),
        _ => Value::Nil,
    }
}

/// Defines what `script.janet` calls.
fn define_all(vm: &mut Vm, path: &Path, ledger: &Rc<Ledger>) -> Result<(), ringspun::janet::VmError> {
    let users = (0..ledger.users()).map(|_| User::default()).collect();
    let users = Rc::new(Users { ledger: ledger.clone(), users: RefCell::new(users) });
    type Method = fn(&Users, &[Value]) -> Result<Value, String>;
    let methods: [(&str, Method); 14] = [
        ("load/-next", Users::next),
        ("load/-wait", Users::wait),
        ("load/-begin", Users::begin),
        ("load/-end", Users::end),
        ("load/-step", Users::step),
        ("load/-done", Users::done),
        ("load/-status", Users::status),
        ("load/-with-cookies", Users::with_cookies),
        ("load/-set-cookie", Users::set_cookie),
        ("load/-opened", |users, _| {
            users.ledger.opened();
            Ok(Value::Nil)
        }),
        ("load/-closed", |users, _| {
            users.ledger.closed();
            Ok(Value::Nil)
        }),
        ("load/-secured", |users, arguments| {
            let seconds = arguments.first().and_then(Value::as_number).unwrap_or_default();
            let time = Duration::try_from_secs_f64(seconds).unwrap_or_default();
            users.ledger.secured(time, arguments.get(1) == Some(&Value::Boolean(true)));
            Ok(Value::Nil)
        }),
        ("load/-tick", |users, _| Ok(Value::Boolean(users.ledger.tick()))),
        ("load/-start", |users, arguments| {
            let backend = match arguments.first().and_then(Value::as_text).as_deref() {
                Some("io_uring") => "io_uring",
                Some("poll") => "poll",
                _ => "none",
            };
            users.ledger.start(backend).map(|()| Value::Nil)
        }),
    ];
    for (name, method) in methods {
        let users = users.clone();
        vm.define(name, "", move |arguments| method(&users, arguments))?;
    }
    let (path, ledger) = (path.to_path_buf(), ledger.clone());
    vm.define("load/-setting", "", move |arguments| {
        let name = arguments.first().and_then(Value::as_text).unwrap_or_default();
        Ok(setting(&path, &ledger, &name))
    })
}

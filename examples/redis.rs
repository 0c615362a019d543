//! A server for clients of Redis, on every core: strings with times to live, and counters.
//!
//! ```sh
//! cargo run --release --example redis -- [LISTEN]    # 127.0.0.1:6379
//! redis-cli set yarn wool EX 60; redis-cli get yarn
//! ```
//!
//! A connection is a fiber of one worker. All workers share the keys, in parts with a lock each, which no fiber holds
//! while it waits. Commands may be pipelined: the replies to what came in one read leave in one write.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::{Result, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringspun::fibers::{Signal, Signals};
use ringspun::net::{self, Stream};

const PARTS: usize = 32;
const ARGUMENTS_MAX: usize = 1024;
const ARGUMENT_MAX_BYTES: usize = 1024 * 1024;
const LINE_MAX_BYTES: usize = 32;
const REPLIES_MAX_BYTES: usize = 64 * 1024;
const END_MAX: Duration = Duration::from_secs(1);

struct Entry {
    value: Vec<u8>,
    ends: Option<Instant>,
}

#[derive(Default)]
struct Keys {
    parts: [Mutex<HashMap<Vec<u8>, Entry>>; PARTS],
    hasher: RandomState,
}

impl Keys {
    fn part(&self, key: &[u8]) -> MutexGuard<'_, HashMap<Vec<u8>, Entry>> {
        let index = self.hasher.hash_one(key) as usize % PARTS;
        let mut part = self.parts[index].lock().unwrap_or_else(PoisonError::into_inner);
        // What has had its time goes when it is asked for.
        if part.get(key).is_some_and(|entry| entry.ends.is_some_and(|ends| ends <= Instant::now())) {
            part.remove(key);
        }
        part
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("redis: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let place = std::env::args().nth(1).unwrap_or("127.0.0.1:6379".to_string());
    let signals = Signals::new(&[Signal::TERM, Signal::INT])?;
    let keys = Arc::new(Keys::default());
    let server = net::serve(place.as_str(), move |stream| {
        if let Err(error) = converse(&stream, &keys)
            && net::interrupt_of(&error).is_none()
        {
            eprintln!("redis: {error}");
        }
    })?;
    println!("listening at {}", server.addresses()[0]);
    ringspun::run(move || signals.wait())??;
    server.drain_requests(END_MAX).map(drop)
}

fn converse(stream: &Stream, keys: &Keys) -> Result<()> {
    stream.set_write_behind(true);
    let (mut pending, mut replies) = (Vec::new(), Vec::new());
    while let Some(bytes) = stream.receive()? {
        pending.extend_from_slice(&bytes);
        let mut used = 0;
        let ended = loop {
            match command(&pending[used..]) {
                Ok(Some((arguments, length))) => {
                    used += length;
                    reply(&arguments, keys, &mut replies)?;
                    if replies.len() > REPLIES_MAX_BYTES {
                        stream.write(&std::mem::take(&mut replies))?;
                    }
                }
                Ok(None) => break false,
                Err(text) => {
                    write!(replies, "-ERR Protocol error: {text}\r\n")?;
                    break true;
                }
            }
        };
        pending.drain(..used);
        stream.write(&replies)?;
        replies.clear();
        if ended {
            break;
        }
    }
    Ok(())
}

/// `None` if it is not all there yet.
type Parsed<T> = std::result::Result<Option<T>, &'static str>;

/// The arguments of the first command and how long it was.
fn command(bytes: &[u8]) -> Parsed<(Vec<&[u8]>, usize)> {
    let mut rest = bytes.trim_ascii_start();
    let Some(count) = number(&mut rest, b'*', ARGUMENTS_MAX)? else { return Ok(None) };
    let mut arguments = Vec::with_capacity(count);
    for _ in 0..count {
        let Some(length) = number(&mut rest, b'$', ARGUMENT_MAX_BYTES)? else { return Ok(None) };
        let Some((argument, after)) = rest.split_at_checked(length) else { return Ok(None) };
        match after {
            [b'\r', b'\n', after @ ..] => rest = after,
            [] | [b'\r'] => return Ok(None),
            _ => return Err("expected the end of a line after an argument"),
        }
        arguments.push(argument);
    }
    Ok(Some((arguments, bytes.len() - rest.len())))
}

/// Takes a line that is a number behind a sign.
fn number(rest: &mut &[u8], sign: u8, max: usize) -> Parsed<usize> {
    let Some(end) = rest.iter().take(LINE_MAX_BYTES).position(|byte| *byte == b'\n') else {
        return if rest.len() < LINE_MAX_BYTES { Ok(None) } else { Err("a line is too long") };
    };
    let line = rest[..end].strip_suffix(b"\r").and_then(|line| line.strip_prefix(&[sign]));
    let number = line.and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
    *rest = &rest[end + 1..];
    number.filter(|number| *number <= max).map(Some).ok_or("expected an array of bulk strings")
}

/// Adds the reply to a command.
fn reply(arguments: &[&[u8]], keys: &Keys, replies: &mut Vec<u8>) -> Result<()> {
    let name = arguments.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
    match (name.as_slice(), arguments.get(1..).unwrap_or_default()) {
        (b"PING", []) => replies.extend_from_slice(b"+PONG\r\n"),
        (b"PING" | b"ECHO", [text]) => bulk(replies, text)?,
        (b"GET", [key]) => match keys.part(key).get(*key) {
            Some(entry) => bulk(replies, &entry.value)?,
            None => replies.extend_from_slice(b"$-1\r\n"),
        },
        (b"SET", [key, value, options @ ..]) => match time_to_live(options) {
            Some(ends) => {
                keys.part(key).insert(key.to_vec(), Entry { value: value.to_vec(), ends });
                replies.extend_from_slice(b"+OK\r\n");
            }
            None => replies.extend_from_slice(b"-ERR syntax error\r\n"),
        },
        (b"DEL", names) => {
            let count = names.iter().filter(|key| keys.part(key).remove(**key).is_some()).count();
            write!(replies, ":{count}\r\n")?;
        }
        (b"INCR", [key]) => {
            let mut part = keys.part(key);
            let entry = part.entry(key.to_vec()).or_insert(Entry { value: b"0".to_vec(), ends: None });
            let number = str::from_utf8(&entry.value).ok().and_then(|text| text.parse::<i64>().ok());
            match number.and_then(|number| number.checked_add(1)) {
                Some(number) => {
                    entry.value = number.to_string().into_bytes();
                    write!(replies, ":{number}\r\n")?;
                }
                None => replies.extend_from_slice(b"-ERR value is not an integer or out of range\r\n"),
            }
        }
        (b"COMMAND" | b"CONFIG", _) => replies.extend_from_slice(b"*0\r\n"),
        (name, _) => {
            write!(replies, "-ERR unknown command or wrong arguments: '{}'\r\n", name.escape_ascii())?;
        }
    }
    Ok(())
}

fn bulk(replies: &mut Vec<u8>, text: &[u8]) -> Result<()> {
    write!(replies, "${}\r\n", text.len())?;
    replies.extend_from_slice(text);
    replies.extend_from_slice(b"\r\n");
    Ok(())
}

/// When a value ends, by the options of SET: `EX` or `PX` with a number. `None` if they are something else.
fn time_to_live(options: &[&[u8]]) -> Option<Option<Instant>> {
    let [unit, number] = options else { return options.is_empty().then_some(None) };
    let number: u32 = str::from_utf8(number).ok()?.parse().ok().filter(|number| *number > 0)?;
    let time = match unit.to_ascii_uppercase().as_slice() {
        b"EX" => Duration::from_secs(number.into()),
        b"PX" => Duration::from_millis(number.into()),
        _ => return None,
    };
    Some(Instant::now().checked_add(time))
}

//! What `tests/fuzz` looks at from outside of the crate; no part of its interface.

use std::io;
use std::time::{Duration, SystemTime};

use crate::http::Prepared;
use crate::interval::Interval;
use crate::log::{Log, write_log};
use crate::outcome::Traffic;
use crate::reading::{Answer, Reading};

/// What came back on one connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Answers {
    /// The status and the length in bytes of each answer that came whole.
    pub whole: Vec<(u16, u64)>,
    /// Whether something came that was no answer, or the last one was cut off.
    pub is_broken: bool,
}

/// Reads the answers of a target that sends these pieces, none of them empty, and closes the connection then.
///
/// # Panics
///
/// If the reader gives back bytes that it was not given.
pub fn read_answers(pieces: &[&[u8]], is_head: bool) -> Answers {
    let request = Prepared { bytes: Vec::new(), is_head, closes: false };
    let mut answers = Answers { whole: Vec::new(), is_broken: false };
    let mut reading = Reading::http(&request);
    let mut has_begun = false;
    for piece in pieces {
        let mut bytes = *piece;
        while !bytes.is_empty() {
            has_begun = true;
            let (rest, answer) = reading.take(bytes);
            assert!(answer.is_none() || bytes.ends_with(rest), "the rest is no end of what came");
            match answer {
                None => {
                    assert!(rest.is_empty(), "{} bytes were left of an answer that is not whole", rest.len())
                }
                Some(answer) => {
                    if !take(&mut answers, answer) {
                        return answers;
                    }
                    (reading, has_begun) = (Reading::http(&request), false);
                }
            }
            bytes = rest;
        }
    }
    if has_begun {
        take(&mut answers, reading.end());
    }
    answers
}

/// Adds an answer, and tells whether another may follow.
fn take(answers: &mut Answers, answer: Answer) -> bool {
    match answer {
        Answer::Response(response, traffic) => {
            answers.whole.push((response.status, traffic.received_bytes));
            !response.closes
        }
        Answer::Right(_) | Answer::Wrong { .. } | Answer::Ended(_) => {
            answers.is_broken = true;
            false
        }
    }
}

/// Writes all that a log has as one interval, without what came after the end.
///
/// # Errors
///
/// A histogram cannot be written.
pub fn rewrite_log(log: &Log) -> io::Result<Vec<u8>> {
    let interval = Interval {
        measured_from: SystemTime::UNIX_EPOCH,
        start: Duration::ZERO,
        duration: Duration::from_secs(1),
        is_after_end: false,
        step: None,
        errors: 0,
        traffic: Traffic::default(),
        response_times: log.response_times.clone(),
        service_times: log.service_times.clone(),
        edge: Duration::MAX,
    };
    let mut text = Vec::new();
    write_log(&mut text, [interval])?;
    Ok(text)
}

//! Entry points for `tests/fuzz`; not part of the public interface.

use std::io;
use std::time::{Duration, SystemTime};

use crate::http::Prepared;
use crate::interval::Interval;
use crate::log::{Log, write_log};
use crate::outcome::Traffic;
use crate::reading::{Answer, Reading};
use crate::status::StatusCounts;

/// The responses read from one connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Answers {
    /// The status and the length in bytes of each complete response.
    pub whole: Vec<(u16, u64)>,
    /// Whether the bytes were not HTTP, or the last response was truncated.
    pub is_broken: bool,
}

/// Reads the responses of a target that sends these non-empty pieces and then closes the connection.
///
/// # Panics
///
/// If the reader returns bytes that are not the end of its input.
pub fn read_answers(pieces: &[&[u8]], is_head: bool) -> Answers {
    let request =
        Prepared { bytes: Vec::new(), is_head, is_idempotent: true, closes: false, expected_body: None };
    let mut answers = Answers { whole: Vec::new(), is_broken: false };
    let mut reading = Reading::http(&request);
    let mut has_begun = false;
    for piece in pieces {
        let mut bytes = *piece;
        while !bytes.is_empty() {
            has_begun = true;
            let (rest, answer) = reading.take(bytes);
            assert!(answer.is_none() || bytes.ends_with(rest), "the rest must be the end of the input");
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

/// Adds a response; returns whether another may follow.
fn take(answers: &mut Answers, answer: Answer) -> bool {
    match answer {
        Answer::Response(response, traffic) => {
            answers.whole.push((response.status, traffic.received_bytes));
            !response.closes
        }
        Answer::Correct(_)
        | Answer::Wrong { .. }
        | Answer::Ended { .. }
        | Answer::Broken(_)
        | Answer::Unsent(_) => {
            answers.is_broken = true;
            false
        }
    }
}

/// Writes the times of a log as a single interval.
///
/// # Errors
///
/// A histogram cannot be serialized.
pub fn rewrite_log(log: &Log) -> io::Result<Vec<u8>> {
    let interval = Interval {
        measured_from: SystemTime::UNIX_EPOCH,
        start: Duration::ZERO,
        duration: Duration::from_secs(1),
        is_after_end: false,
        step: None,
        errors: 0,
        requests: crate::outcome::Requests::default(),
        traffic: Traffic::default(),
        statuses: StatusCounts::default(),
        response_times: log.response_times.clone(),
        service_times: log.service_times.clone(),
        edge: Duration::MAX,
    };
    let mut text = Vec::new();
    write_log(&mut text, [interval])?;
    Ok(text)
}

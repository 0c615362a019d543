//! Where the counts are from: a process of this user, or the place where one serves them.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

use crate::cli::inspection::{Question, client};

/// How long a server has to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
const ANSWER_MAX_BYTES: u64 = 64 << 20;

/// A process, or where one serves its metrics.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    Process(u32),
    /// HOST:PORT
    Served(String),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(process) = text.parse::<u32>()
            && process > 0
        {
            return Ok(Self::Process(process));
        }
        // As serve prints it.
        let place = text.strip_prefix("http://").unwrap_or(text);
        let place = place.strip_suffix("/metrics").unwrap_or(place);
        match place.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && !place.contains('/') && port.parse::<u16>().is_ok() => {
                Ok(Self::Served(place.to_string()))
            }
            _ => Err("expected the number of a process, or HOST:PORT of its --metrics".to_string()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(process) => write!(f, "process {process}"),
            Self::Served(place) => f.write_str(place),
        }
    }
}

impl Source {
    /// The counts as text.
    ///
    /// # Errors
    ///
    /// In words for users.
    pub fn read(&self) -> Result<String, String> {
        match self {
            Self::Process(process) => client::ask(*process, Question::Metrics),
            Self::Served(place) => read_served(place).map_err(|error| format!("{place}: {error}")),
        }
    }
}

fn read_served(place: &str) -> io::Result<String> {
    let mut stream = connect(place)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.take(ANSWER_MAX_BYTES).read_to_string(&mut response).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::other(format!("no answer within {ANSWER_MAX:?}")),
        _ => error,
    })?;
    let status = response.lines().next().unwrap_or_default();
    match response.split_once("\r\n\r\n") {
        Some((_, body)) if status.split(' ').nth(1) == Some("200") => Ok(body.to_string()),
        _ => Err(io::Error::other(format!(
            "expected the metrics of ringspun serve --metrics, and got {:?}",
            status.chars().take(80).collect::<String>()
        ))),
    }
}

fn connect(place: &str) -> io::Result<TcpStream> {
    let mut failed = io::Error::other("the name has no address");
    for address in place.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, ANSWER_MAX) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_and_places_are_told_apart() {
        assert_eq!("4242".parse(), Ok(Source::Process(4242)));
        let served = Source::Served("[::1]:9000".to_string());
        assert_eq!("[::1]:9000".parse(), Ok(served.clone()));
        assert_eq!("http://[::1]:9000/metrics".parse(), Ok(served));
        for wrong in ["", "0", "-1", "name", ":9000", "host:", "host:99999", "http://host:1/other", "5 "] {
            assert!(wrong.parse::<Source>().unwrap_err().contains("HOST:PORT"), "{wrong}");
        }
    }
}

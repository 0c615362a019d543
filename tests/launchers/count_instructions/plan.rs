//! The arguments, and what can go wrong.

use std::ffi::OsString;
use std::io;

use nix::errno::Errno;

pub(crate) enum Failure {
    Usage(String),
    Failed(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Failed(format!("the server cannot be traced: {errno}"))
    }
}

pub(crate) struct Plan {
    pub(crate) connections: u64,
    /// How many of them send in each round; all without it.
    pub(crate) active: Option<u64>,
    pub(crate) rounds: u64,
    pub(crate) addresses: Option<OsString>,
    pub(crate) lines: Option<OsString>,
    pub(crate) with_tls: bool,
    pub(crate) command: Vec<OsString>,
}

impl Plan {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, Failure> {
        let mut plan = Self {
            connections: 64,
            active: None,
            rounds: 10,
            addresses: None,
            lines: None,
            with_tls: false,
            command: Vec::new(),
        };
        while let Some(argument) = arguments.next() {
            let flag = argument.to_string_lossy().into_owned();
            let mut value =
                || arguments.next().ok_or_else(|| Failure::Usage(format!("{flag}: expected a value")));
            match flag.as_str() {
                "--connections" => plan.connections = number(&flag, value()?)?,
                "--active" => plan.active = Some(number(&flag, value()?)?),
                "--rounds" => plan.rounds = number(&flag, value()?)?,
                "--addresses" => plan.addresses = Some(value()?),
                "--lines" => plan.lines = Some(value()?),
                "--tls" => plan.with_tls = true,
                _ => {
                    plan.command = std::iter::once(argument).chain(arguments).collect();
                    return Ok(plan);
                }
            }
        }
        Err(Failure::Usage("expected a server, such as ringspun serve echo --tcp 127.0.0.1:0".to_string()))
    }
}

fn number(flag: &str, value: OsString) -> Result<u64, Failure> {
    let value = value.to_string_lossy();
    let number = value.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| Failure::Usage(format!("{flag} {value}: expected a positive number")))
}

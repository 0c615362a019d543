//! Log messages on standard error: warnings and errors, unless `--log` or `RINGSPUN_LOG` says otherwise.

use std::io;
use std::str::FromStr;

use tracing_subscriber::filter::LevelFilter;

use super::output;

/// The environment variable that `--log` takes the place of.
const VARIABLE: &str = "RINGSPUN_LOG";
const EXPECTED: &str =
    "expected off, error, warn, info, debug or trace, and json for lines of JSON, with a comma between them";

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Log {
    level: LevelFilter,
    is_json: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: LevelFilter::WARN, is_json: false }
    }
}

impl FromStr for Log {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut log = Self::default();
        for part in text.split(',') {
            match part {
                "json" => log.is_json = true,
                // Numbers are levels for the parser of the library.
                _ if part.bytes().all(|byte| byte.is_ascii_alphabetic()) && !part.is_empty() => {
                    log.level = part.parse().map_err(|_| format!("{part:?} is no level: {EXPECTED}"))?;
                }
                _ => return Err(format!("{part:?} is no level: {EXPECTED}")),
            }
        }
        Ok(log)
    }
}

/// Starts logging, as `asked_for` says, or else the environment.
pub fn start(asked_for: Option<Log>) {
    let log = asked_for.unwrap_or_else(|| match std::env::var(VARIABLE).as_deref().map(str::parse) {
        Ok(Ok(log)) => log,
        Ok(Err(error)) => {
            output::complain(format_args!("{VARIABLE}: {error}"));
            Log::default()
        }
        Err(_) => Log::default(),
    });
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(log.level)
        .with_writer(io::stderr)
        .with_ansi(false)
        // A closed standard error must not end the process.
        .log_internal_errors(false);
    // Fails only if there is a subscriber already.
    let _ = match log.is_json {
        true => subscriber.json().flatten_event(true).try_init(),
        false => subscriber.try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_the_format_are_parsed() {
        let log = |level, is_json| Ok(Log { level, is_json });
        assert_eq!("debug".parse(), log(LevelFilter::DEBUG, false));
        assert_eq!("json".parse(), log(LevelFilter::WARN, true));
        assert_eq!("OFF,json".parse(), log(LevelFilter::OFF, true));
        assert_eq!("json,info".parse(), log(LevelFilter::INFO, true));
        for wrong in ["", "3", "loud", "info,", "info;json"] {
            assert!(
                wrong.parse::<Log>().is_err_and(|error| error.contains("expected off, error")),
                "{wrong}"
            );
        }
    }
}

//! Log messages on standard error: warnings and errors, unless `RINGSPUN_LOG` says otherwise.

use std::io;

use tracing_subscriber::filter::LevelFilter;

use super::output;

/// The environment variable with the level: `off`, `error`, `warn`, `info`, `debug` or `trace`.
const VARIABLE: &str = "RINGSPUN_LOG";

/// Starts logging.
pub fn start() {
    let level = match std::env::var(VARIABLE).map(|text| text.parse()) {
        Ok(Ok(level)) => level,
        Ok(Err(_)) => {
            output::complain(format_args!(
                "{VARIABLE} is not a level: expected off, error, warn, info, debug or trace"
            ));
            LevelFilter::WARN
        }
        Err(_) => LevelFilter::WARN,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(false)
        // A closed standard error must not end the process.
        .log_internal_errors(false);
    // Fails only if there is a subscriber already.
    let _ = subscriber.try_init();
}

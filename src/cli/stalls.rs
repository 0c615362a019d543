//! Fibers that keep their loop for long: told of if the environment asks for it.

use std::env::{VarError, var};
use std::time::Duration;

const VARIABLE: &str = "RINGSPUN_STALL_MS";

/// From how long on a fiber that lets no other run is told of; `None` if none is.
pub fn limit() -> Result<Option<Duration>, String> {
    match var(VARIABLE) {
        Ok(text) => parse(&text).map(Some).ok_or_else(|| {
            format!("{VARIABLE}={text}: expected milliseconds, a whole number from 1 on, such as 20")
        }),
        Err(VarError::NotPresent) => Ok(None),
        Err(error) => Err(format!("{VARIABLE}: {error}")),
    }
}

fn parse(text: &str) -> Option<Duration> {
    let limit_ms: u32 = text.parse().ok().filter(|limit_ms| *limit_ms > 0)?;
    Some(Duration::from_millis(limit_ms.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_whole_milliseconds() {
        assert_eq!(parse("20"), Some(Duration::from_millis(20)));
        for wrong in ["", "0", "-1", "1.5", "20ms", "99999999999"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}

//! Parses addresses on the command line.

use ringspun::net::{Address, Endpoint};

/// Parses HOST:PORT. Host names and service names are resolved when the address is used. A port number is checked
/// here, because the resolver truncates it to 16 bits.
///
/// The error says what is wrong; clap puts the option and the value in front of it.
pub fn parse_host(text: &str) -> Result<Endpoint, String> {
    let expected = "expected HOST:PORT, such as 127.0.0.1:8000 or [::1]:8000";
    let (host, port) = text.rsplit_once(':').ok_or(expected)?;
    if ["", "[]"].contains(&host) {
        return Err(format!("the host is missing, {expected}"));
    }
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && port.parse::<u16>().is_err() {
        return Err(format!("the port is {port:?}: expected 0 to 65535, {expected}"));
    }
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.contains(['[', ']']) {
        // [::1] without a port.
        return Err(expected.to_string());
    }
    Ok(Endpoint::new(host, port))
}

/// Parses the address of a Unix socket: a path, or `@` and an abstract name.
pub fn parse_unix(text: &str) -> Result<Address, String> {
    Address::unix(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::{parse_host, parse_unix};

    #[test]
    fn hosts_and_ports_are_taken_as_they_are() {
        for text in ["127.0.0.1:0", "[::1]:65535", "localhost:http"] {
            assert_eq!(parse_host(text).map(|endpoint| endpoint.to_string()), Ok(text.to_string()));
        }
    }

    #[test]
    fn what_is_no_address_gets_the_form_that_was_expected() {
        for text in [
            "nonsense",
            ":80",
            "[]:80",
            "[::1]",
            "[::1:80",
            "::1]:80",
            "127.0.0.1:",
            "127.0.0.1:65536",
            "127.0.0.1:99999999999999999999",
            "",
        ] {
            let error = parse_host(text).unwrap_err();
            assert!(error.contains("expected HOST:PORT"), "{text}: {error}");
        }
    }
    #[test]
    fn unix_sockets_have_names() {
        assert_eq!(parse_unix("@name").unwrap().to_string(), "unix:@name");
        assert!(parse_unix("").unwrap_err().contains("expected 1 to 107 bytes"));
    }
}

//! Addresses and targets: what can be read is shown so that it reads back as the same.

use ringspun_load::{HttpTarget, Target};
use ringspun_net::{Address, Peer};

/// Takes the input as the bytes of a `sockaddr`, and, if it is a text, as an endpoint, as a target and as the name
/// of a Unix socket.
pub fn check(data: &[u8]) {
    if let Some(address) = Address::from_bytes(data) {
        let _ = (address.port(), address.as_path(), address.is_unix(), format!("{address} {address:?}"));
        assert_eq!(Address::from_bytes(address.as_bytes()), Some(address), "{address}");
        if let Some(of_ip) = address.as_socket_addr() {
            let shown = Address::from(of_ip).to_string();
            assert_eq!(shown, address.to_string());
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(address) = Address::unix(text) {
        assert_eq!(Address::from_bytes(address.as_bytes()), Some(address), "{text:?}");
        assert_eq!(address.to_string(), format!("unix:{text}"));
    }
    match text.endpoint() {
        Ok(endpoint) => {
            let shown = endpoint.to_string();
            let again = shown.as_str().endpoint();
            assert_eq!(again.as_ref().ok(), Some(&endpoint), "{text:?} is shown as {shown:?}");
        }
        Err(error) => assert!(error.to_string().contains("expected"), "{text:?}: {error}"),
    }
    match text.parse::<Target>() {
        Ok(target) => {
            let shown = target.to_string();
            let of_http = match &target {
                Target::Http(http) | Target::WebSocket(http) => Some(http),
                _ => None,
            };
            of_http.map(check_http);
            // A name and a password are not shown.
            if of_http.is_none_or(|http| http.user().is_none()) {
                assert_eq!(shown.parse().as_ref(), Ok(&target), "{text:?} is shown as {shown:?}");
            }
        }
        Err(error) => assert!(error.contains("expected"), "{text:?}: {error}"),
    }
}

/// Nothing in it ends the line of a request, or splits it.
fn check_http(target: &HttpTarget) {
    let is_sendable = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    assert!(target.path().starts_with('/') && is_sendable(target.path()), "{target:?}");
    assert!(!target.authority().is_empty() && is_sendable(target.authority()), "{target:?}");
}

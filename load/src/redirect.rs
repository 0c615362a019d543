//! Redirects that are followed: the request that comes after a response.

use crate::http::{HttpRequest, Prepared};
use crate::target::HttpTarget;

/// What is needed to follow redirects.
pub(crate) struct Follow {
    /// How many redirects of a request are followed, at least 1.
    pub(crate) max: u32,
    request: HttpRequest,
    target: HttpTarget,
}

/// Where a redirect leads.
pub(crate) struct Hop {
    pub(crate) prepared: Prepared,
    method: String,
    path: String,
}

impl Follow {
    /// `None` if redirects are not followed.
    pub(crate) fn of(request: &HttpRequest, target: &HttpTarget) -> Option<Box<Self>> {
        let (max, request, target) = (request.follow, request.clone(), target.clone());
        (max > 0).then(|| Box::new(Self { max, request, target }))
    }

    /// The request after a redirect, to what its header `Location` says; `previous` is the one before, if that was not
    /// the first. The error says why it is not followed.
    pub(crate) fn next(&self, previous: Option<&Hop>, status: u16, location: &str) -> Result<Hop, String> {
        let (method, path) = match previous {
            Some(hop) => (hop.method.as_str(), hop.path.as_str()),
            None => (self.request.method.as_str(), self.target.path()),
        };
        let path = self.resolve(path, location)?;
        let becomes_get = match status {
            303 => method != "HEAD",
            // As browsers do it (RFC 9110, sections 15.4.2 and 15.4.3).
            301 | 302 => method == "POST",
            _ => false,
        };
        let method = if becomes_get { "GET" } else { method }.to_string();
        let mut request = HttpRequest { method: method.clone(), ..self.request.clone() };
        // Once it is a GET, it stays one.
        if method != self.request.method {
            request.body = Vec::new();
            request.headers.retain(|header| !header.is_of_content());
        }
        let prepared = Prepared::new(&request, &self.target.with_path(path.clone()));
        Ok(Hop { prepared, method, path })
    }

    /// The path that a location has on the target.
    fn resolve(&self, base: &str, location: &str) -> Result<String, String> {
        let location = location.split('#').next().unwrap_or_default();
        if !location.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a redirect to an invalid URL: expected visible ASCII characters".to_string());
        }
        let (scheme, authority) = (self.target.scheme(), self.target.authority());
        let elsewhere = || format!("a redirect to another server: expected one to {scheme}://{authority}/");
        let without_scheme = match location.split_once("://") {
            Some((other, rest)) if !other.contains(['/', '?']) => {
                let is_same = other.eq_ignore_ascii_case(scheme);
                Some(is_same.then_some(rest).ok_or_else(elsewhere)?)
            }
            _ => location.strip_prefix("//"),
        };
        let base_path = base.split('?').next().unwrap_or_default();
        let path = match without_scheme {
            Some(rest) => {
                let (other, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                if !other.eq_ignore_ascii_case(authority) {
                    return Err(elsewhere());
                }
                if path.starts_with('/') { path.to_string() } else { format!("/{path}") }
            }
            None if location.starts_with('/') => location.to_string(),
            None if location.is_empty() => base.to_string(),
            None if location.starts_with('?') => format!("{base_path}{location}"),
            None => {
                let folder = base_path.rfind('/').map_or("", |slash| &base_path[..slash]);
                format!("{folder}/{location}")
            }
        };
        Ok(without_dots(&path))
    }
}

/// Whether a status asks for another request.
pub(crate) fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// A path without the segments `.` and `..` (RFC 3986, section 5.2.4).
fn without_dots(path: &str) -> String {
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    let mut segments = Vec::new();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    for (index, part) in parts.iter().enumerate() {
        match *part {
            "." | ".." => {
                if *part == ".." {
                    segments.pop();
                }
                // A folder ends with a slash.
                if index + 1 == parts.len() {
                    segments.push("");
                }
            }
            part => segments.push(part),
        }
    }
    format!("/{}{query}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Target;

    fn follow(method: &str) -> Box<Follow> {
        let Ok(Target::Http(target)) = "http://a.example:81/b/c?d".parse() else { panic!("it is for HTTP") };
        let mut request = HttpRequest { method: method.to_string(), follow: 3, ..HttpRequest::default() };
        request.headers = vec!["Content-Type: a/b".parse().unwrap(), "Accept: a".parse().unwrap()];
        request.body = b"body".to_vec();
        Follow::of(&request, &target).unwrap()
    }

    #[test]
    fn locations_are_resolved_against_the_request() {
        for (location, path) in [
            ("/x", "/x"),
            ("x?y", "/b/x?y"),
            ("../x/./y", "/x/y"),
            ("../../../x/..", "/"),
            ("?y", "/b/c?y"),
            ("", "/b/c?d"),
            ("http://a.example:81", "/"),
            ("HTTP://A.example:81/x#y", "/x"),
            ("//a.example:81?y", "/?y"),
            ("/x?u=http://other/", "/x?u=http://other/"),
        ] {
            assert_eq!(
                follow("GET").next(None, 302, location).map(|hop| hop.path),
                Ok(path.to_string()),
                "{location}"
            );
        }
        for location in ["https://a.example:81/", "http://a.example/", "//other/"] {
            let error = follow("GET").next(None, 302, location).map(|hop| hop.path).unwrap_err();
            assert_eq!(error, "a redirect to another server: expected one to http://a.example:81/");
        }
        assert!(follow("GET").next(None, 302, "/a b").is_err());
    }

    #[test]
    fn methods_and_bodies_are_kept_or_not_by_status() {
        for (method, status, first_line, has_body) in [
            ("POST", 301, "GET /x HTTP/1.1", false),
            ("POST", 302, "GET /x HTTP/1.1", false),
            ("PUT", 302, "PUT /x HTTP/1.1", true),
            ("PUT", 303, "GET /x HTTP/1.1", false),
            ("HEAD", 303, "HEAD /x HTTP/1.1", true),
            ("POST", 307, "POST /x HTTP/1.1", true),
            ("POST", 308, "POST /x HTTP/1.1", true),
        ] {
            let follow = follow(method);
            let hop = follow.next(None, status, "/x").map_err(|error| panic!("{error}")).unwrap();
            let text = String::from_utf8(hop.prepared.bytes.clone()).unwrap();
            assert_eq!(text.lines().next(), Some(first_line));
            let kept =
                (text.ends_with("\r\n\r\nbody"), text.contains("Content-Type"), text.contains("Accept: a"));
            assert_eq!(kept, (has_body, has_body, true), "{text}");
            // Another one after it.
            let again = follow.next(Some(&hop), 307, "y").map_err(|error| panic!("{error}")).unwrap();
            assert_eq!((again.method, again.path.as_str()), (hop.method, "/y"));
        }
    }
}

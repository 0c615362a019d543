//! Redirects that are followed: the request that comes after a response.

use crate::http::{HttpRequest, Prepared};
use crate::target::{HttpTarget, Target};

/// What is needed to follow redirects.
pub(crate) struct Follow {
    /// How many redirects of a request are followed, at least 1.
    pub(crate) max: u32,
    request: HttpRequest,
    target: HttpTarget,
    /// The other servers that redirects may lead to.
    others: Vec<HttpTarget>,
}

/// Where a redirect leads.
pub(crate) struct Hop {
    pub(crate) prepared: Prepared,
    method: String,
    path: String,
    /// The index of the other server that it leads to; `None` for the target.
    pub(crate) server: Option<usize>,
}

impl Follow {
    /// `None` if redirects are not followed.
    pub(crate) fn of(request: &HttpRequest, target: &HttpTarget, others: &[HttpTarget]) -> Option<Box<Self>> {
        let (max, request, target) = (request.follow, request.clone(), target.clone());
        (max > 0).then(|| Box::new(Self { max, request, target, others: others.to_vec() }))
    }

    /// A server by its index.
    pub(crate) fn server(&self, index: Option<usize>) -> &HttpTarget {
        index.and_then(|index| self.others.get(index)).unwrap_or(&self.target)
    }

    /// The request after a redirect, to what its header `Location` says; `previous` is the one before, if that was not
    /// the first. The error says why it is not followed.
    pub(crate) fn next(&self, previous: Option<&Hop>, status: u16, location: &str) -> Result<Hop, String> {
        let (method, path, server) = match previous {
            Some(hop) => (hop.method.as_str(), hop.path.as_str(), hop.server),
            None => (self.request.method.as_str(), self.target.path(), None),
        };
        let (server, path) = self.resolve(server, path, location)?;
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
        // As curl does it.
        if server.is_some() {
            request.headers.retain(|header| !header.is_of_server());
        }
        let prepared = Prepared::new(&request, &self.server(server).with_path(path.clone()));
        Ok(Hop { prepared, method, path, server })
    }

    /// The server and the path of a location, which is one of a path on a server.
    fn resolve(
        &self,
        server: Option<usize>,
        base: &str,
        location: &str,
    ) -> Result<(Option<usize>, String), String> {
        let location = location.split('#').next().unwrap_or_default();
        if !location.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a redirect to an invalid URL: expected visible ASCII characters".to_string());
        }
        let has_scheme = location.split_once("://").is_some_and(|(scheme, _)| !scheme.contains(['/', '?']));
        if has_scheme {
            return self.resolve_url(location);
        }
        if location.starts_with("//") {
            return self.resolve_url(&format!("{}:{location}", self.server(server).scheme()));
        }
        let base_path = base.split('?').next().unwrap_or_default();
        let path = match location {
            "" => base.to_string(),
            _ if location.starts_with('/') => location.to_string(),
            _ if location.starts_with('?') => format!("{base_path}{location}"),
            _ => {
                let folder = base_path.rfind('/').map_or("", |slash| &base_path[..slash]);
                format!("{folder}/{location}")
            }
        };
        Ok((server, without_dots(&path)))
    }

    /// The server and the path of a URL.
    fn resolve_url(&self, url: &str) -> Result<(Option<usize>, String), String> {
        let Ok(Target::Http(url)) = url.parse() else {
            let origin = self.target.origin();
            return Err(format!(
                "a redirect to an invalid URL: expected one with http or https, as {origin}/"
            ));
        };
        let servers = (0..self.others.len()).map(Some);
        let found =
            [None].into_iter().chain(servers).find(|server| self.server(*server).is_same_server(&url));
        let server = found.ok_or_else(|| {
            let known: Vec<_> =
                [&self.target].into_iter().chain(&self.others).map(|server| server.origin() + "/").collect();
            format!("a redirect to another server, {}: expected one to {}", url.origin(), known.join(" or "))
        })?;
        Ok((server, without_dots(url.path())))
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

    fn follow(method: &str) -> Box<Follow> {
        let parse = |text: &str| match text.parse() {
            Ok(Target::Http(target)) => target,
            _ => panic!("it is for HTTP"),
        };
        let mut request = HttpRequest { method: method.to_string(), follow: 3, ..HttpRequest::default() };
        let headers = ["Content-Type: a/b", "Accept: a", "authorization: b", "Cookie: c=d", "Host: e"];
        request.headers = headers.map(|header| header.parse().unwrap()).into();
        request.body = b"body".to_vec();
        let others = [parse("https://b.example/"), parse("http://a.example:80")];
        Follow::of(&request, &parse("http://a.example:81/b/c?d"), &others).unwrap()
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
                follow("GET").next(None, 302, location).map(|hop| (hop.server, hop.path)),
                Ok((None, path.to_string())),
                "{location}"
            );
        }
        for (location, origin) in [
            ("https://a.example:81/", "https://a.example:81"),
            ("http://b.example/?secret", "http://b.example"),
            ("//name:secret@other/", "http://other"),
        ] {
            let error = follow("GET").next(None, 302, location).map(|hop| hop.path).unwrap_err();
            let expected = "http://a.example:81/ or https://b.example/ or http://a.example:80/";
            assert_eq!(error, format!("a redirect to another server, {origin}: expected one to {expected}"));
        }
        for location in ["ftp://a.example:81/", "http://", "ws://a.example:81/", "http://a.example:99999/"] {
            let error = follow("GET").next(None, 302, location).map(|hop| hop.path).unwrap_err();
            assert!(error.starts_with("a redirect to an invalid URL: "), "{location}: {error}");
        }
        assert!(follow("GET").next(None, 302, "/a b").is_err());
    }

    #[test]
    fn other_servers_get_neither_credentials_nor_cookies() {
        let follow = follow("GET");
        let next = |previous: Option<&Hop>, location: &str| {
            follow.next(previous, 307, location).map_err(|error| panic!("{error}")).unwrap()
        };
        let text = |hop: &Hop| String::from_utf8(hop.prepared.bytes.clone()).unwrap();
        let away = next(None, "https://B.example:443/x/y");
        assert_eq!((away.server, away.path.as_str()), (Some(0), "/x/y"));
        let head = "GET /x/y HTTP/1.1\r\nHost: b.example\r\nContent-Type: a/b\r\nAccept: a\r\n";
        assert!(text(&away).starts_with(head), "{}", text(&away));
        assert!(!text(&away).contains("horization") && !text(&away).contains("ookie"), "{}", text(&away));
        // On that server, and from there to a third one.
        let further = next(Some(&away), "z");
        assert_eq!((further.server, further.path.as_str()), (Some(0), "/x/z"));
        let third = next(Some(&further), "http://a.example/");
        assert_eq!(third.server, Some(1));
        assert!(text(&third).contains("\r\nHost: a.example:80\r\n"), "{}", text(&third));
        // Back at the target, it gets what is its own.
        let back = next(Some(&third), "//a.example:81/");
        assert_eq!(back.server, None);
        for header in ["authorization: b", "Cookie: c=d", "Host: e"] {
            assert!(text(&back).contains(&format!("\r\n{header}\r\n")), "{}", text(&back));
        }
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

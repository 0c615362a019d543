//! The cookies of a session (RFC 6265): what answers set is sent with its later requests.
//!
//! Kept simple where one server is all there is. `Domain` is not looked at, as no request goes to another server
//! (section 5.4 would leave out cookies of others). Neither is `Secure`: a target may set such cookies because its
//! users come by way of a proxy with TLS. A lifetime matters only if it is over (sections 5.2.1 and 5.2.2), which is
//! how servers delete cookies: sessions are shorter than other lifetimes.

use std::time::{SystemTime, UNIX_EPOCH};

/// The most cookies of a session; the oldest are dropped (section 6.1 asks for at least 50 per domain).
const COOKIES_MAX: usize = 50;
/// The longest cookie, with its name (section 6.1 asks for at least 4096 bytes); longer ones are ignored.
const COOKIE_MAX_BYTES: usize = 4096;

/// The cookies of one session (RFC 6265), as far as one server needs them: what
/// [`Plan::sessions`](crate::Plan::sessions) sends.
///
/// # Examples
///
/// ```
/// use ringspun_load::Jar;
///
/// let (mut jar, request) = (Jar::default(), b"GET / HTTP/1.1\r\n\r\n");
/// assert_eq!(jar.add_to(request), None);
/// jar.store(b"id=7; Path=/; HttpOnly", request);
/// assert_eq!(jar.add_to(request).unwrap(), b"GET / HTTP/1.1\r\nCookie: id=7\r\n\r\n");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Jar {
    /// Oldest first.
    cookies: Vec<Cookie>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Cookie {
    name: Vec<u8>,
    value: Vec<u8>,
    path: Vec<u8>,
}

impl Jar {
    /// Stores the value of a header `Set-Cookie` in the answer to a request, given as it was sent (section 5.3).
    pub fn store(&mut self, header: &[u8], request: &[u8]) {
        let Some((cookie, is_over)) = parse(header, path_of(request)) else { return };
        let is_same = |other: &Cookie| other.name == cookie.name && other.path == cookie.path;
        match self.cookies.iter().position(is_same) {
            Some(index) if is_over => drop(self.cookies.remove(index)),
            // It keeps its place in the order (section 5.3, step 11).
            Some(index) => self.cookies[index] = cookie,
            None if is_over => {}
            None => {
                if self.cookies.len() == COOKIES_MAX {
                    self.cookies.remove(0);
                }
                self.cookies.push(cookie);
            }
        }
    }

    /// A request with the cookies for its path; `None` if there are none. A header `Cookie` that it has is extended, as
    /// there may only be one (section 5.4).
    pub fn add_to(&self, request: &[u8]) -> Option<Vec<u8>> {
        let path = path_of(request);
        let mut cookies: Vec<&Cookie> =
            self.cookies.iter().filter(|cookie| matches(path, &cookie.path)).collect();
        if cookies.is_empty() {
            return None;
        }
        // Those with longer paths first (section 5.4, step 2).
        cookies.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let pairs = cookies.iter().map(|cookie| [&cookie.name[..], b"=", &cookie.value].concat());
        let pairs = pairs.collect::<Vec<_>>().join(&b"; "[..]);
        let (at, start, end) = match end_of_cookie_header(request) {
            Some(at) => (at, &b"; "[..], &b""[..]),
            None => (line_end(request) + 2, &b"Cookie: "[..], &b"\r\n"[..]),
        };
        let (before, after) = request.split_at(at.min(request.len()));
        Some([before, start, &pairs, end, after].concat())
    }
}

/// The position of the end of the first line, before its line end.
fn line_end(bytes: &[u8]) -> usize {
    bytes.windows(2).position(|pair| pair == b"\r\n").unwrap_or(bytes.len())
}

/// The position of the end of the header `Cookie`, if a request has one.
fn end_of_cookie_header(request: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < request.len() {
        let line = &request[at..];
        let length = line_end(line);
        match line.get(..7) {
            _ if length == 0 => return None,
            Some(name) if name.eq_ignore_ascii_case(b"cookie:") => return Some(at + length),
            _ => at += length + 2,
        }
    }
    None
}

/// The path of a request without its query.
fn path_of(request: &[u8]) -> &[u8] {
    let target = request.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    target.split(|byte| *byte == b'?').next().unwrap_or_default()
}

/// The directory of a path (section 5.1.4).
fn default_path(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte == b'/') {
        None | Some(0) => b"/",
        Some(slash) => &path[..slash],
    }
}

/// Whether a request for `path` gets a cookie of `of_cookie` (section 5.1.4).
fn matches(path: &[u8], of_cookie: &[u8]) -> bool {
    match path.strip_prefix(of_cookie) {
        None => false,
        Some([] | [b'/', ..]) => true,
        Some(_) => of_cookie.ends_with(b"/"),
    }
}

/// Parses the value of a header (section 5.2), in the answer to a request for `path`; also returns whether the cookie
/// is to be deleted. `None` if it is to be ignored.
fn parse(header: &[u8], path: &[u8]) -> Option<(Cookie, bool)> {
    let mut parts = header.split(|byte| *byte == b';');
    let (name, value) = split_pair(parts.next()?)?;
    if name.is_empty() || name.len() + value.len() > COOKIE_MAX_BYTES {
        return None;
    }
    let (mut of_cookie, mut max_age, mut expires) = (None, None, None);
    // The last of several attributes with the same name counts (section 5.3).
    for (attribute, value) in parts.filter_map(split_pair) {
        let text = std::str::from_utf8(value).unwrap_or_default();
        if attribute.eq_ignore_ascii_case(b"path") {
            of_cookie = value.starts_with(b"/").then_some(value);
        } else if attribute.eq_ignore_ascii_case(b"max-age") {
            let digits = text.strip_prefix('-').unwrap_or(text);
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            // Zero or less: at once.
            max_age = is_number.then(|| text.starts_with('-') || digits.bytes().all(|byte| byte == b'0'));
        } else if attribute.eq_ignore_ascii_case(b"expires") {
            expires = parse_date(text).or(expires);
        }
    }
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // Max-Age has precedence (section 5.3, step 3).
    let is_over = max_age.unwrap_or_else(|| expires.is_some_and(|at_s: i64| at_s <= now_s.cast_signed()));
    let path = of_cookie.unwrap_or_else(|| default_path(path)).to_vec();
    Some((Cookie { name: name.to_vec(), value: value.to_vec(), path }, is_over))
}

/// A name and a value without the spaces around them; `None` without a `=`.
fn split_pair(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = text.iter().position(|byte| *byte == b'=')?;
    Some((text[..equals].trim_ascii(), text[equals + 1..].trim_ascii()))
}

/// Seconds since 1970 of a date in any of the usual forms (section 5.1.1): parts in any order, of which the time has
/// colons.
fn parse_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let (mut time_s, mut day, mut month, mut year) = (None, None, None, None);
    for part in text.split(|c: char| !c.is_ascii_alphanumeric() && c != ':').filter(|part| !part.is_empty()) {
        let number = part.parse::<i64>().ok();
        let clock: Vec<&str> = part.split(':').collect();
        let name = part.get(..3).map(str::to_ascii_lowercase).unwrap_or_default();
        if let (None, [hour, minute, second]) = (time_s, clock.as_slice()) {
            let two_digits = |text: &str| text.parse::<i64>().ok().filter(|_| text.len() <= 2);
            let [hour, minute, second] = [hour, minute, second].map(|text| two_digits(text));
            time_s = Some(hour? * 3600 + minute? * 60 + second?);
        } else if day.is_none() && number.is_some() && part.len() <= 2 {
            day = number;
        } else if let (None, Some(index)) = (month, MONTHS.iter().position(|month| *month == name)) {
            month = Some(index as i64 + 1);
        } else if year.is_none() && number.is_some() && (2..=4).contains(&part.len()) {
            year = number.map(|year| match year {
                0..=69 => year + 2000,
                70..=99 => year + 1900,
                year => year,
            });
        }
    }
    let (day, month, year) = (day?, month?, year?);
    // Days since 1970 in the Gregorian calendar, with years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(days * 24 * 3600 + time_s?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"GET /shop/cart?id=7 HTTP/1.1\r\nHost: a\r\n\r\nCookie: no";

    fn sent(jar: &Jar, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let bytes = jar.add_to(request.as_bytes()).unwrap_or(request.into_bytes());
        let text = String::from_utf8(bytes).unwrap();
        let header = text.lines().find_map(|line| line.strip_prefix("Cookie: "));
        header.unwrap_or_default().to_string()
    }

    #[test]
    fn what_is_set_is_sent_once_with_later_requests_only_as_name_and_value() {
        let mut jar = Jar::default();
        assert_eq!(jar.add_to(REQUEST), None);
        jar.store(b" id = a=b c ; HttpOnly; Secure; SameSite=Lax; Path=/; Domain=.other.example", REQUEST);
        jar.store(b"x=\"1\"; path=/", REQUEST);
        jar.store(b"id=2; path=/", REQUEST);
        let bytes = jar.add_to(REQUEST).unwrap();
        let expected = "GET /shop/cart?id=7 HTTP/1.1\r\nCookie: id=2; x=\"1\"\r\nHost: a\r\n\r\nCookie: no";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        for ignored in
            [&b""[..], b"name", b"=value", b";a=b", &[b'a'; 5000], &[&b"a="[..], &[b'b'; 5000]].concat()]
        {
            jar.store(ignored, REQUEST);
        }
        assert_eq!(sent(&jar, "/"), "id=2; x=\"1\"");
        for number in 0..60 {
            jar.store(format!("n{number}=; path=/").as_bytes(), REQUEST);
        }
        let all = sent(&jar, "/");
        assert!(all.starts_with("n10=; n11=") && all.ends_with("n59="), "{all}");
    }

    #[test]
    fn a_header_that_is_given_is_extended() {
        let mut jar = Jar::default();
        jar.store(b"a=1; path=/", REQUEST);
        let bytes = jar.add_to(b"GET / HTTP/1.1\r\nHost: a\r\ncookie: given=0\r\nAccept: b\r\n\r\n").unwrap();
        let expected = "GET / HTTP/1.1\r\nHost: a\r\ncookie: given=0; a=1\r\nAccept: b\r\n\r\n";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn cookies_go_to_their_path_and_below_the_longest_first() {
        let mut jar = Jar::default();
        jar.store(b"root=1; path=/", REQUEST);
        jar.store(b"default=2", REQUEST);
        jar.store(b"deep=3; path=/shop/cart/", REQUEST);
        jar.store(b"relative=4; path=x", b"GET /other HTTP/1.1\r\n\r\n");
        for (path, expected) in [
            ("/", "root=1; relative=4"),
            ("/shop", "default=2; root=1; relative=4"),
            ("/shop?x", "default=2; root=1; relative=4"),
            ("/shopping", "root=1; relative=4"),
            ("/shop/cart", "default=2; root=1; relative=4"),
            ("/shop/cart/1", "deep=3; default=2; root=1; relative=4"),
        ] {
            assert_eq!(sent(&jar, path), expected, "{path}");
        }
    }

    #[test]
    fn a_lifetime_that_is_over_deletes_a_cookie() {
        for (attributes, is_kept) in [
            ("", true),
            ("; Max-Age=0", false),
            ("; max-age=-5", false),
            ("; max-age=60", true),
            ("; max-age=soon", true),
            ("; expires=Thu, 01 Jan 1970 00:00:00 GMT", false),
            ("; Expires=Thu, 01-Jan-70 00:00:01 GMT", false),
            ("; expires=Sun Nov  6 08:49:37 1994", false),
            ("; expires=Fri, 31 Dec 9999 23:59:59 GMT", true),
            ("; expires=never", true),
            ("; expires=Thu, 01 Jan 1970 00:00:00 GMT; max-age=60", true),
        ] {
            let mut jar = Jar::default();
            jar.store(b"a=1; path=/", REQUEST);
            jar.store(format!("a=2; path=/{attributes}").as_bytes(), REQUEST);
            assert_eq!(sent(&jar, "/"), if is_kept { "a=2" } else { "" }, "{attributes}");
        }
    }

    #[test]
    fn dates_are_seconds_since_1970() {
        for (text, expected_s) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Tue, 29 Feb 2000 12:00:00 GMT", 951_825_600),
            ("Wednesday, 01-Mar-28 00:00:00 GMT", 1_835_481_600),
        ] {
            assert_eq!(parse_date(text), Some(expected_s), "{text}");
        }
        for text in ["", "Thu", "01 Jan 1970", "01 Jan 00:00:00", "1:2:x 01 Jan 1970"] {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }
}

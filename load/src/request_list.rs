//! Lists of HTTP requests, of which each request of a run is one, chosen by weight.

use std::cell::Cell;

use crate::http::{HttpRequest, Prepared};
use crate::payload::mix;
use crate::status::StatusSet;
use crate::target::HttpTarget;
use crate::template::{DataRows, Place, Template};

/// The names that have results of their own; later ones have them in common.
pub(crate) const NAMES_MAX: usize = 100;
/// The name of the results of those.
pub(crate) const OTHERS: &str = "others";

/// An HTTP request of a [`RequestList`].
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedRequest {
    /// What its results are called. Requests with the same name have their results in common.
    pub name: String,
    /// How often it is sent, relative to the others; 1 by default.
    pub weight: u32,
    /// The path with its query, which may have templates; that of the target by default.
    pub path: Option<String>,
    /// The rest, whose headers and body may have templates.
    pub request: HttpRequest,
}

impl ListedRequest {
    /// A request with a name.
    pub fn new(name: impl Into<String>, request: HttpRequest) -> Self {
        Self { name: name.into(), weight: 1, path: None, request }
    }
}

/// HTTP requests to be sent in random order, each as often as its weight says:
/// [`Plan::requests`](crate::Plan::requests).
///
/// In paths, headers and bodies, `{{counter}}` stands for the number of the request in the run, from 1,
/// `{{random 1 100}}` for a random number, and `{{csv.COLUMN}}` for the fields of a column of [`RequestList::data`],
/// row by row. What is chosen at random depends on [`Plan::seed`](crate::Plan::seed).
///
/// # Examples
///
/// ```
/// use ringspun_load::{HttpRequest, ListedRequest, Plan, RequestList};
///
/// let mut plan = Plan::new("http://localhost/".parse().unwrap());
/// let mut show = ListedRequest::new("show", HttpRequest::default());
/// show.path = Some("/items/{{random 1 100}}".to_string());
/// show.weight = 3;
/// plan.requests = Some(RequestList::new(vec![show]));
/// assert_eq!(plan.check(), Ok(()));
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestList {
    /// The requests, at least one.
    pub requests: Vec<ListedRequest>,
    /// What `{{csv.COLUMN}}` refers to; nothing by default.
    pub data: Option<DataRows>,
}

impl RequestList {
    /// A list without data.
    pub fn new(requests: Vec<ListedRequest>) -> Self {
        Self { requests, data: None }
    }

    /// Checks a request, as one of this list, for a target.
    ///
    /// # Errors
    ///
    /// A message that names the first invalid value and what was expected.
    pub fn check_request(&self, listed: &ListedRequest, target: &HttpTarget) -> Result<(), String> {
        listed.request.check()?;
        Entry::new(listed, target, self.data.as_ref()).map(drop)
    }

    /// Checks the requests for a target; the error starts with the name of the one that is wrong.
    pub(crate) fn check(&self, target: &HttpTarget) -> Result<(), String> {
        let total: u64 = self.requests.iter().map(|listed| u64::from(listed.weight)).sum();
        if total == 0 {
            return Err("the list has no requests with a weight: expected one or more".to_string());
        }
        self.requests.iter().try_for_each(|listed| {
            self.check_request(listed, target).map_err(|error| format!("{}: {error}", listed.name))
        })
    }

    /// The length of the longest request.
    pub(crate) fn max_bytes(&self, target: &HttpTarget) -> usize {
        let entries =
            self.requests.iter().filter_map(|listed| Entry::new(listed, target, self.data.as_ref()).ok());
        entries.map(|entry| entry.max_bytes(self.data.as_ref())).max().unwrap_or(0)
    }

    /// The names of results, and for each request the index of its own.
    pub(crate) fn names(&self) -> (Vec<String>, Vec<usize>) {
        let mut names: Vec<String> = Vec::new();
        let indices = self.requests.iter().map(|listed| {
            let is_full = names.len() >= NAMES_MAX && !names.contains(&listed.name);
            let name = if is_full { OTHERS } else { &listed.name };
            names.iter().position(|known| known == name).unwrap_or_else(|| {
                names.push(name.to_string());
                names.len() - 1
            })
        });
        let indices = indices.collect();
        (names, indices)
    }
}

/// Which request of a list is sent, its number in the run, and the row of data that its templates have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) entry: u32,
    pub(crate) number: u64,
    pub(crate) row: u64,
}

/// A list that has been prepared.
pub(crate) struct List {
    entries: Vec<Entry>,
    /// For each entry, the sum of the weights up to it.
    sums: Vec<u64>,
    seed: u64,
    data: Option<DataRows>,
    /// Memory for requests with templates, unless one is being written.
    scratch: Cell<Vec<u8>>,
}

/// A request of a list.
struct Entry {
    /// Its bytes are empty if it has templates.
    prepared: Prepared,
    expected: StatusSet,
    varying: Option<Varying>,
}

/// A request with templates.
struct Varying {
    /// Up to the length of the body.
    head: Template,
    has_length: bool,
    body: Template,
}

impl List {
    /// Prepares a checked list.
    pub(crate) fn new(list: &RequestList, target: &HttpTarget, seed: u64) -> Result<Self, String> {
        let entries = list.requests.iter().map(|listed| Entry::new(listed, target, list.data.as_ref()));
        let mut sum = 0;
        let sums = list.requests.iter().map(|listed| {
            sum += u64::from(listed.weight);
            sum
        });
        Ok(Self {
            sums: sums.collect(),
            entries: entries.collect::<Result<_, _>>()?,
            seed,
            data: list.data.clone(),
            scratch: Cell::default(),
        })
    }

    /// Chooses the request with this number in the run.
    pub(crate) fn choose(&self, number: u64) -> Chosen {
        let total = self.sums.last().copied().unwrap_or_default();
        let random = mix(self.seed ^ mix(number));
        // Below the total.
        let place = ((u128::from(random) * u128::from(total)) >> 64) as u64;
        // A list has fewer entries than bytes in memory, and at most 2^32 weights.
        Chosen { entry: self.sums.partition_point(|sum| *sum <= place) as u32, number, row: number }
    }

    fn entry(&self, chosen: Chosen) -> &Entry {
        &self.entries[chosen.entry as usize]
    }

    pub(crate) fn prepared(&self, chosen: Chosen) -> &Prepared {
        &self.entry(chosen).prepared
    }

    /// The statuses that count as success.
    pub(crate) fn expected(&self, chosen: Chosen) -> &StatusSet {
        &self.entry(chosen).expected
    }

    /// Appends the bytes of a request.
    pub(crate) fn write_to(&self, bytes: &mut Vec<u8>, chosen: Chosen) {
        let entry = self.entry(chosen);
        let Some(Varying { head, has_length, body }) = &entry.varying else {
            return bytes.extend_from_slice(&entry.prepared.bytes);
        };
        let write = |template: &Template, to: &mut Vec<u8>| {
            template.write(to, (chosen.number, chosen.row), self.seed, self.data.as_ref());
        };
        write(head, bytes);
        let mut content = Vec::new();
        write(body, &mut content);
        if *has_length {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", content.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&content);
    }

    /// Gives the bytes of a request to a function, and returns their number, too.
    pub(crate) fn with_bytes<T>(&self, chosen: Chosen, function: impl FnOnce(&[u8]) -> T) -> (T, usize) {
        let entry = self.entry(chosen);
        if entry.varying.is_none() {
            return (function(&entry.prepared.bytes), entry.prepared.bytes.len());
        }
        // Another fiber that comes while the function waits gets memory of its own.
        let mut bytes = self.scratch.take();
        bytes.clear();
        self.write_to(&mut bytes, chosen);
        let result = (function(&bytes), bytes.len());
        self.scratch.set(bytes);
        result
    }
}

impl Entry {
    fn new(listed: &ListedRequest, target: &HttpTarget, data: Option<&DataRows>) -> Result<Self, String> {
        let request = &listed.request;
        let path = listed.path.as_deref().unwrap_or(target.path());
        let path = Template::parse(path.as_bytes(), Place::Path, data)?;
        let is_sendable = |byte: &u8| byte.is_ascii_graphic() && *byte != b'#';
        let first = path.texts().next().unwrap_or_default();
        if !first.starts_with(b"/") || !path.texts().flatten().all(is_sendable) {
            let shown = listed.path.as_deref().unwrap_or_default();
            return Err(format!(
                "the path is {shown:?}: expected one that starts with /, with other characters percent-encoded (a \
                 space is %20)"
            ));
        }
        let mut head = Template::default();
        head.add_text(format!("{} ", request.method).as_bytes());
        head.add(path);
        head.add_text(b" HTTP/1.1\r\n");
        if request.needs_host() {
            head.add_text(format!("Host: {}\r\n", target.authority()).as_bytes());
        }
        for header in &request.headers {
            head.add(Template::parse(header.to_string().as_bytes(), Place::Header, data)?);
            head.add_text(b"\r\n");
        }
        let body = Template::parse(&request.body, Place::Body, data)?;
        let has_length = request.states_length();
        let mut entry = Self {
            prepared: Prepared::without_bytes(request),
            expected: request.expected.clone(),
            varying: None,
        };
        match (head.as_text(), body.as_text()) {
            (Some(head), Some(body)) => {
                let length =
                    if has_length { format!("Content-Length: {}\r\n", body.len()) } else { String::new() };
                entry.prepared.bytes = [head, length.as_bytes(), b"\r\n", body].concat();
            }
            _ => entry.varying = Some(Varying { head, has_length, body }),
        }
        Ok(entry)
    }

    fn max_bytes(&self, data: Option<&DataRows>) -> usize {
        match &self.varying {
            None => self.prepared.bytes.len(),
            Some(Varying { head, body, .. }) => head.max_bytes(data) + body.max_bytes(data) + 64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Target;

    fn target() -> HttpTarget {
        let Ok(Target::Http(target)) = "http://localhost:81/base".parse() else { panic!("it is for HTTP") };
        target
    }

    fn listed(name: &str, weight: u32, path: Option<&str>, request: HttpRequest) -> ListedRequest {
        ListedRequest { weight, path: path.map(str::to_string), ..ListedRequest::new(name, request) }
    }

    fn bytes_of(list: &RequestList, number: u64) -> String {
        let list = List::new(list, &target(), 7).unwrap();
        let (bytes, length) = list.with_bytes(list.choose(number), <[u8]>::to_vec);
        assert_eq!(bytes.len(), length);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_request_without_templates_is_the_same_as_outside_of_a_list() {
        for (method, body) in [("GET", ""), ("POST", ""), ("PUT", "abc"), ("DELETE", "x")] {
            let mut request =
                HttpRequest { method: method.to_string(), body: body.into(), ..HttpRequest::default() };
            request.headers.push("Accept: a".parse().unwrap());
            let list = RequestList::new(vec![listed("a", 1, None, request.clone())]);
            assert_eq!(bytes_of(&list, 0).as_bytes(), request.bytes(&target()));
        }
    }

    #[test]
    fn values_of_templates_are_in_path_headers_and_body_with_its_length() {
        let mut request = HttpRequest { method: "POST".to_string(), ..HttpRequest::default() };
        request.headers = vec!["X-Number: {{counter}}".parse().unwrap(), "Host: h".parse().unwrap()];
        request.body = b"n={{csv.n}}".to_vec();
        let mut list = RequestList::new(vec![listed("a", 1, Some("/{{counter}}"), request)]);
        let rows = vec![vec!["a".to_string()], vec!["bcd".to_string()]];
        list.data = Some(DataRows::new(vec!["n".to_string()], rows).unwrap());
        let expected = "POST /2 HTTP/1.1\r\nX-Number: 2\r\nHost: h\r\nContent-Length: 5\r\n\r\nn=bcd";
        assert_eq!(bytes_of(&list, 1), expected);
        assert!(list.max_bytes(&target()) >= expected.len());
    }

    #[test]
    fn requests_are_chosen_as_often_as_their_weights_say() {
        let entries = [("a", 3), ("never", 0), ("b", 1)];
        let requests = entries.map(|(name, weight)| listed(name, weight, None, HttpRequest::default()));
        let list = List::new(&RequestList::new(requests.into()), &target(), 7).unwrap();
        let mut counts = [0_u32; 3];
        (0..40_000).for_each(|number| counts[list.choose(number).entry as usize] += 1);
        assert!(counts[0].abs_diff(30_000) < 500 && counts[1] == 0, "{counts:?}");
    }

    #[test]
    fn requests_with_the_same_name_have_their_results_in_common() {
        let request = |name: &str| listed(name, 1, None, HttpRequest::default());
        let list = RequestList::new(vec![request("a"), request("b"), request("a")]);
        assert_eq!(list.names(), (vec!["a".to_string(), "b".to_string()], vec![0, 1, 0]));
        let many: Vec<_> = (0..200).map(|number| request(&format!("{}", number % 150))).collect();
        let (names, indices) = RequestList::new(many).names();
        assert_eq!((names.len(), names[100].as_str()), (101, "others"));
        assert_eq!((indices[99], indices[100], indices[149], indices[150]), (99, 100, 100, 0));
    }

    #[test]
    fn what_is_wrong_is_told_with_the_name() {
        let connect = HttpRequest { method: "CONNECT".to_string(), ..HttpRequest::default() };
        for (listed, expected) in [
            (listed("a", 0, None, HttpRequest::default()), "no requests with a weight"),
            (
                listed("a", 1, Some("x"), HttpRequest::default()),
                "a: the path is \"x\": expected one that starts with /",
            ),
            (listed("a", 1, Some("/a b"), HttpRequest::default()), "a space is %20"),
            (listed("a", 1, Some("{{counter}}"), HttpRequest::default()), "starts with /"),
            (listed("a", 1, Some("/{{csv.x}}"), HttpRequest::default()), "expected --data"),
            (listed("a", 1, None, connect), "a: the method is \"CONNECT\""),
        ] {
            let error = RequestList::new(vec![listed]).check(&target()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}

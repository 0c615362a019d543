//! Files of requests (`--requests`), as lines of JSON or in the format of vegeta, and of data for them (`--data`).

use std::path::Path;

use ringspun_load::{
    BODY_MAX_BYTES, DataRows, Header, HttpRequest, HttpTarget, ListedRequest, RequestList, StatusSet,
};
use serde_json::{Map, Value};

use super::input::read_bounded;

/// The most that a file of requests or of data may have: all of it is kept, and some files never end.
const FILE_MAX_BYTES: usize = 256 * 1024 * 1024;
/// What some editors put in front of a text.
const BYTE_ORDER_MARK: &str = "\u{feff}";
/// The fields of a request in JSON.
const FIELDS: [&str; 8] = ["name", "method", "path", "headers", "body", "weight", "expect", "expect_body"];

/// Reads a file of requests. `base` has what the requests have in common. The error names the file, the line, and what
/// was expected.
pub fn read(
    path: &Path,
    base: &HttpRequest,
    target: &HttpTarget,
    data: Option<DataRows>,
) -> Result<RequestList, String> {
    let shown = path.display();
    let text = read_text("--requests", path)?;
    let at = |number: usize, error: String| format!("{shown}:{number}: {error}");
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
    let lines = || (1..).zip(text.lines().map(str::trim));
    let is_json = lines().find(|(_, line)| is_content(line)).is_some_and(|(_, line)| line.starts_with('{'));
    let (mut requests, mut numbers) = (Vec::new(), Vec::new());
    if is_json {
        for (number, line) in lines().filter(|(_, line)| is_content(line)) {
            requests.push(of_json(line, base).map_err(|error| at(number, error))?);
            numbers.push(number);
        }
    } else {
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut is_behind_request = false;
        for (number, line) in lines().filter(|(_, line)| !line.starts_with('#')) {
            if line.is_empty() {
                is_behind_request = false;
                continue;
            }
            if let Some(request) = requests.last_mut().filter(|_| is_behind_request)
                && add_to(request, line, folder).map_err(|error| at(number, error))?
            {
                continue;
            }
            requests.push(of_line(line, base, target).map_err(|error| at(number, error))?);
            numbers.push(number);
            is_behind_request = true;
        }
    }
    if requests.is_empty() {
        let form = "expected a line of JSON for each, or lines such as GET /path";
        return Err(format!("{shown} has no requests: {form}"));
    }
    let mut list = RequestList::new(requests);
    list.data = data;
    for (number, listed) in numbers.into_iter().zip(&list.requests) {
        list.check_request(listed, target).map_err(|error| at(number, error))?;
    }
    Ok(list)
}

/// Reads a file in UTF-8.
fn read_text(flag: &str, path: &Path) -> Result<String, String> {
    let shown = path.display();
    let bytes = read_bounded(path, FILE_MAX_BYTES).map_err(|error| format!("{flag}: {error}"))?;
    if bytes.len() > FILE_MAX_BYTES {
        return Err(format!("{flag}: {shown} is too long: expected at most {FILE_MAX_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let number = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        format!("{shown}:{number}: a character is not in UTF-8: expected a file in UTF-8")
    })
}

/// Whether a line is not empty, and no comment.
fn is_content(line: &str) -> bool {
    !line.is_empty() && !line.starts_with('#')
}

fn of_json(line: &str, base: &HttpRequest) -> Result<ListedRequest, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| {
        format!(
            "{error}: expected a JSON object such as {{\"method\":\"POST\",\"path\":\"/x\",\"body\":\"...\"}}"
        )
    })?;
    let Value::Object(fields) = value else {
        return Err("expected a JSON object for each line".to_string());
    };
    if let Some(unknown) = fields.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        return Err(format!("the field {unknown:?} is unknown: expected {}", FIELDS.join(", ")));
    }
    let mut request = base.clone();
    if let Some(method) = text_field(&fields, "method")? {
        request.method = method;
    }
    match fields.get("headers") {
        None => {}
        Some(Value::Object(headers)) => {
            for (name, value) in headers {
                let value = value.as_str().ok_or_else(|| wrong_type("headers", "strings as values"))?;
                set_header(&mut request.headers, &format!("{name}: {value}"))?;
            }
        }
        Some(_) => return Err(wrong_type("headers", "an object such as {\"Accept\":\"text/html\"}")),
    }
    match fields.get("body") {
        None => {}
        Some(Value::String(body)) => request.body = body.clone().into_bytes(),
        // A body in JSON, as it is.
        Some(body) => request.body = body.to_string().into_bytes(),
    }
    match fields.get("expect") {
        None => {}
        Some(expected) => request.expected = statuses(expected)?,
    }
    if let Some(text) = text_field(&fields, "expect_body")? {
        request.expected_body = Some(text.into_bytes());
    }
    let path = text_field(&fields, "path")?;
    let name = text_field(&fields, "name")?.unwrap_or_else(|| default_name(&request, path.as_deref()));
    let mut listed = ListedRequest::new(name, request);
    listed.path = path;
    if let Some(weight) = fields.get("weight") {
        let weight = weight.as_u64().and_then(|weight| u32::try_from(weight).ok());
        listed.weight = weight.ok_or_else(|| wrong_type("weight", "a whole number such as 3"))?;
    }
    Ok(listed)
}

fn text_field(fields: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match fields.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(wrong_type(name, "a string")),
    }
}

fn wrong_type(name: &str, expected: &str) -> String {
    format!("the field {name:?} is something else: expected {expected}")
}

/// `[200, 404]`, `200` or `"2xx"`.
fn statuses(value: &Value) -> Result<StatusSet, String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(statuses) => statuses.iter().map(Value::to_string).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    };
    text.replace('"', "").parse().map_err(|error| format!("the field \"expect\": {error}"))
}

/// Adds a header, in place of those with its name.
fn set_header(headers: &mut Vec<Header>, text: &str) -> Result<(), String> {
    let header: Header = text.parse().map_err(|error| format!("the header is wrong: {error}"))?;
    headers.retain(|other| !other.name().eq_ignore_ascii_case(header.name()));
    headers.push(header);
    Ok(())
}

/// The name of the results of a request that has none: without a query, which may be confidential.
fn default_name(request: &HttpRequest, path: Option<&str>) -> String {
    let path = path.unwrap_or("/").split('?').next().unwrap_or_default();
    format!("{} {path}", request.method)
}

/// A line such as `GET http://localhost/path`, or `GET /path`.
fn of_line(line: &str, base: &HttpRequest, target: &HttpTarget) -> Result<ListedRequest, String> {
    const FORM: &str = "expected a method and a URL, such as GET http://localhost/path, or a path";
    let (method, url) = line.split_once(char::is_whitespace).ok_or(FORM)?;
    let url = url.trim();
    let path = match url.split_once("://") {
        _ if url.starts_with('/') => url,
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            if scheme != target.scheme() || authority != target.authority() {
                let (scheme, authority) = (target.scheme(), target.authority());
                return Err(format!("the URL is of another server: expected {scheme}://{authority}/..."));
            }
            if path.is_empty() { "/" } else { path }
        }
        None => return Err(FORM.to_string()),
    };
    let mut request = base.clone();
    request.method = method.to_string();
    let mut listed = ListedRequest::new(default_name(&request, Some(path)), request);
    listed.path = Some(path.to_string());
    Ok(listed)
}

/// Adds a line behind a request: a header, or the name of a file with the body; false if it is another request.
fn add_to(listed: &mut ListedRequest, line: &str, folder: &Path) -> Result<bool, String> {
    if let Some(file) = line.strip_prefix('@') {
        listed.request.body = read_bounded(&folder.join(file), BODY_MAX_BYTES)?;
        return Ok(true);
    }
    let first = line.split(char::is_whitespace).next().unwrap_or_default();
    match first.contains(':') {
        true => set_header(&mut listed.request.headers, line).map(|()| true),
        false => Ok(false),
    }
}

/// Reads a table: the first line has the names of the columns. The error names the file, the line, and what was
/// expected.
pub fn read_data(path: &Path) -> Result<DataRows, String> {
    let shown = path.display();
    let describe = |error: csv::Error| match error.position() {
        Some(position) => format!("{shown}:{}: {error}", position.line()),
        None => format!("--data: cannot read {shown}: {error}"),
    };
    let text = read_text("--data", path)?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let fields = |record: &csv::StringRecord| record.iter().map(str::to_string).collect::<Vec<_>>();
    let columns = fields(reader.headers().map_err(describe)?);
    let rows = reader.records().map(|record| record.map(|record| fields(&record)));
    let rows = rows.collect::<Result<Vec<_>, _>>().map_err(describe)?;
    DataRows::new(columns, rows).map_err(|error| format!("--data {shown}: {error}"))
}

//! `ringspun load --requests`: which requests of a file are sent, with which values, and what is told of them.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};

use crate::http::{HELLO, Request, http_server};
use crate::support::measuring::{error_text, load, measure, number, text_of};
use crate::support::scratch::ScratchFolder;

/// How requests are sent: closed and open loops, with one worker and two, and in a pipeline.
const PACES: [&[&str]; 5] = [
    &["-c", "3"],
    &["-c", "3", "--rate", "5k"],
    &["-c", "4", "--workers", "2"],
    &["-c", "4", "--workers", "2", "--rate", "5k"],
    &["--pipeline", "5"],
];

/// Heads of requests, and their bodies.
type Kept = Arc<Mutex<Vec<(String, String)>>>;

/// A server that keeps the requests, and answers with what `answer` makes.
fn recording_server(answer: impl Fn(&Request) -> String + Send + Sync + 'static) -> (String, Kept) {
    let kept = Kept::default();
    let seen = kept.clone();
    let target = http_server(move |request| {
        let body = String::from_utf8(request.body.clone()).unwrap();
        seen.lock().unwrap().push((request.head.clone(), body));
        answer(request)
    });
    (target, kept)
}

#[test]
fn requests_of_a_file_are_sent_by_weight_and_told_by_name() {
    let (target, kept) = recording_server(|request| match request.head.split(' ').nth(1) {
        Some("/cart") => "HTTP/1.1 201 Made\r\nContent-Length: 0\r\n\r\n".to_string(),
        Some("/gone") => "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n".to_string(),
        _ => HELLO.to_string(),
    });
    let folder = ScratchFolder::new("requests");
    let file = folder.file("list.jsonl");
    let lines = r#"
        # A shop.
        {"name": "show", "path": "/items?q=1", "weight": 6, "expect_body": "hello"}
        {"method": "POST", "path": "/cart", "headers": {"X-A": "b"}, "body": {"n": 1}, "weight": 3, "expect": [201]}
        {"name": "gone", "path": "/gone", "expect": 200}
        {"name": "never", "weight": 0}
    "#;
    fs::write(&file, lines).unwrap();
    for pace in PACES {
        kept.lock().unwrap().clear();
        let base = [target.as_str(), "--count", "400", "--requests", &file, "--seed", "5", "-H", "X-A: a"];
        let report = measure(&[&base[..], pace].concat(), 0);
        let mut counts = BTreeMap::new();
        for (head, body) in kept.lock().unwrap().drain(..) {
            let first = head.lines().next().unwrap().to_string();
            let is_cart = first.contains("/cart");
            assert_eq!(body, if is_cart { r#"{"n":1}"# } else { "" }, "{head}");
            assert!(head.contains(if is_cart { "\r\nX-A: b\r\n" } else { "\r\nX-A: a\r\n" }), "{head}");
            assert_eq!(head.matches("X-A").count(), 1, "{head}");
            *counts.entry(first).or_insert(0) += 1;
        }
        let count = |first: &str| counts.get(&format!("{first} HTTP/1.1")).copied().unwrap_or(0_u64);
        let [show, buy, gone] = [count("GET /items?q=1"), count("POST /cart"), count("GET /gone")];
        assert_eq!(show + buy + gone, 400, "{counts:?}");
        assert!((200..280).contains(&show) && (80..160).contains(&buy) && gone > 10, "{counts:?}");
        let named = report["by_name"].as_array().unwrap();
        let of = |field: &str| -> Vec<u64> {
            named.iter().map(|named| number(&named["requests"][field])).collect()
        };
        let names: Vec<&str> = named.iter().map(|named| named["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["show", "POST /cart", "gone", "never"], "{pace:?}");
        assert_eq!(
            (of("answered"), of("bad_status")),
            (vec![show, buy, 0, 0], vec![0, 0, gone, 0]),
            "{pace:?}"
        );
        assert_eq!(
            (number(&named[0]["response_time"]["count"]), of("sent")),
            (show, vec![show, buy, gone, 0])
        );
        assert_eq!(report["errors"]["kinds"][0]["example"], "HTTP 404 for gone");
        assert_eq!((&report["plan"]["http"]["listed"], &report["plan"]["seed"]), (&4.into(), &5.into()));
    }
    let page = folder.file("page.html");
    let table = text_of(&load(&[&target, "--count", "40", "--requests", &file, "--html", &page]));
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("id=\"names\"") && page.contains("<th scope=\"row\">POST /cart</th>"), "{page}");
    for part in ["4 listed requests, closed loop", "response times by request", "\nPOST /cart"] {
        assert!(table.contains(part), "{part}: {table}");
    }
}

#[test]
fn gates_may_be_about_a_step_or_a_name() {
    let (target, _) = recording_server(|request| match request.head.starts_with("GET /bad") {
        true => "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_string(),
        false => HELLO.to_string(),
    });
    let folder = ScratchFolder::new("gates");
    let file = folder.file("list.jsonl");
    fs::write(&file, "{\"name\":\"good\",\"weight\":3}\n{\"name\":\"bad\",\"path\":\"/bad\"}").unwrap();
    let base =
        [target.as_str(), "-c", "4", "--steps", "300,500:400ms", "--requests", &file, "--timeout", "60s"];
    for workers in ["1", "2"] {
        for (gate, status) in [
            ("500>0@good", 0),
            ("500<100%@bad", 0),
            ("bad-status>99%@bad", 3),
            ("5xx>0%@2", 3),
            ("2xx<1@1", 0),
            ("errors>0@good", 0),
            ("p50>60s@good", 0),
            ("p50>60s@bad", 3),
        ] {
            let report = measure(&[&base[..], &["--workers", workers, "--fail-if", gate]].concat(), status);
            let sum = |list: &str| -> u64 {
                let parts = report[list].as_array().unwrap().iter();
                parts.map(|part| number(part["statuses"].get("500").unwrap_or(&0.into()))).sum()
            };
            let all = number(&report["statuses"]["500"]);
            assert_eq!((sum("steps"), sum("by_name")), (all, all), "{gate}");
        }
    }
    for (arguments, expected) in [
        (&["--fail-if", "p99>5ms@3"][..], "--fail-if p99>5ms@3: there is no step 3: expected 1 to 2"),
        (&["--fail-if", "p99>5ms@ugly"], "no request is called ugly: expected one of good, bad"),
        (&["--abort-if", "p99>5ms@2"], "--abort-if p99>5ms@2: expected a condition without @"),
        (&["--fail-if", "send-rate<1@2"], "send-rate is known of the whole run only"),
    ] {
        let output = load(&[&base[..], arguments].concat());
        let error = error_text(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
}

#[test]
fn values_of_templates_are_used_once_over_all_workers() {
    let (target, kept) = recording_server(|_| HELLO.to_string());
    let folder = ScratchFolder::new("templates");
    let [file, data] = ["list.jsonl", "users.csv"].map(|name| folder.file(name));
    fs::write(&data, "id,name\n1,ann\n2,\"b, b\"\n3,c\n").unwrap();
    let line = r#"{"method":"PUT","path":"/{{counter}}/{{csv.name}}","headers":{"X-Id":"{{csv.id}}"},"#;
    fs::write(&file, format!("{line}{}", r#""body":"{{random 1 3}}"}"#)).unwrap();
    for pace in PACES {
        kept.lock().unwrap().clear();
        let base = [target.as_str(), "--count", "60", "--requests", &file, "--data", &data];
        let report = measure(&[&base[..], pace].concat(), 0);
        assert_eq!(number(&report["requests"]["answered"]), 60, "{pace:?}");
        let mut numbers = Vec::new();
        let mut bodies = [0; 3];
        for (head, body) in kept.lock().unwrap().drain(..) {
            let mut parts = head.split(['/', ' ']);
            let number: usize = parts.nth(2).unwrap().parse().unwrap();
            let row = [("1", "ann"), ("2", "b,%20b"), ("3", "c")][(number - 1) % 3];
            assert_eq!(parts.next(), Some(row.1), "{head}");
            assert!(head.contains(&format!("\r\nX-Id: {}\r\n", row.0)), "{head}");
            bodies[body.parse::<usize>().unwrap() - 1] += 1;
            numbers.push(number);
        }
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 60, "{pace:?}");
        assert!(bodies.iter().all(|count| *count > 4), "{bodies:?}");
    }
}

#[test]
fn files_for_vegeta_are_read() {
    let (target, kept) = recording_server(|_| HELLO.to_string());
    let folder = ScratchFolder::new("vegeta");
    let [file, body] = ["list.txt", "body.json"].map(|name| folder.file(name));
    fs::write(&body, "[1]").unwrap();
    let lines =
        format!("# one\nGET {target}/a\nDELETE /b\n\nPOST {target}/c\nX-A: b\n@body.json\nGET {target}\n");
    fs::write(&file, lines).unwrap();
    let report = measure(&[&target, "--count", "60", "--requests", &file], 0);
    let names: Vec<&str> =
        report["by_name"].as_array().unwrap().iter().map(|named| named["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["GET /a", "DELETE /b", "POST /c", "GET /"]);
    for (head, body) in kept.lock().unwrap().drain(..) {
        let is_c = head.starts_with("POST /c HTTP/1.1\r\n");
        assert_eq!((head.contains("\r\nX-A: b\r\n"), body == "[1]"), (is_c, is_c), "{head}");
    }
}

#[test]
fn files_may_begin_with_a_byte_order_mark_and_have_lines_that_end_as_on_windows() {
    let folder = ScratchFolder::new("marked-requests");
    let [file, data] = ["list", "data.csv"].map(|name| folder.file(name));
    fs::write(&data, "\u{feff}id\r\nx\r\n").unwrap();
    for text in ["GET /{{csv.id}}\r\n", "{\"path\": \"/{{csv.id}}\"}\r\n"] {
        fs::write(&file, format!("\u{feff}{text}")).unwrap();
        let (target, kept) = recording_server(|_| HELLO.to_string());
        measure(&[&target, "--requests", &file, "--data", &data, "--count", "1"], 0);
        let kept = kept.lock().unwrap();
        assert!(kept[0].0.starts_with("GET /x HTTP/1.1\r\n"), "{text:?}: {}", kept[0].0);
    }
    // Another encoding is named as such, not as a strange request.
    fs::write(&file, b"GET /a\nGET /\xe9\n").unwrap();
    let output = load(&["http://127.0.0.1:9/", "--requests", &file]);
    let error = error_text(&output);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("list:2: a character is not in UTF-8"), "{error}");
}

#[test]
fn bad_lines_are_named_with_what_was_expected() {
    let folder = ScratchFolder::new("bad-requests");
    let [file, data] = ["list.jsonl", "data.csv"].map(|name| folder.file(name));
    fs::write(&data, "id\n1\n").unwrap();
    let target = "http://127.0.0.1:9/";
    for (text, expected) in [
        ("", "has no requests: expected a line of JSON"),
        ("{}\n\n{\"path\": 5}", "list.jsonl:3: the field \"path\" is something else: expected a string"),
        ("{\"path\": \"/a\"", "list.jsonl:1: EOF while parsing"),
        ("{}\n[]", "list.jsonl:2: expected a JSON object"),
        ("{\"wieght\": 5}", "the field \"wieght\" is unknown: expected name, method, path"),
        ("{\"weight\": 1.5}", "the field \"weight\" is something else: expected a whole number"),
        ("{\"weight\": 0}", "no requests with a weight"),
        ("{\"path\": \"a b\"}", "list.jsonl:1: the path is \"a b\": expected one that starts with /"),
        ("{\"headers\": {\"a b\": \"\"}}", "\"a b\" is not a header name"),
        ("{\"headers\": [\"a\"]}", "expected an object such as"),
        ("{\"expect\": [999]}", "the field \"expect\": \"999\": expected statuses"),
        (
            "{\"body\": \"{{csv.name}}\"}",
            "list.jsonl:1: {{csv.name}}: the table has no column \"name\": expected one of id",
        ),
        ("{\"body\": \"{{now}}\"}", "expected {{counter}}, {{random LOW HIGH}}"),
        ("{\"method\": \"CONNECT\"}", "the method is \"CONNECT\""),
        ("GET /a\nGET", "list.jsonl:2: expected a method and a URL"),
        ("GET http://127.0.0.1:10/", "the URL is of another server: expected http://127.0.0.1:9/..."),
        ("GET /a\n@missing.json", "list.jsonl:2: cannot read"),
        ("GET /a\n@/dev/zero", "list.jsonl:1: the body has 67108865 bytes: expected at most"),
    ] {
        fs::write(&file, text).unwrap();
        let output = load(&[target, "--requests", &file, "--data", &data]);
        let error = error_text(&output);
        assert_eq!((output.status.code(), text_of(&output)), (Some(2), String::new()), "{text}: {error}");
        assert!(error.contains(expected), "{text}: {error}");
    }
    fs::write(&file, "{}").unwrap();
    fs::write(&data, "a,b\n1,2\n1\n").unwrap();
    let twins = folder.file("twins.csv");
    fs::write(&twins, "a,b,a\n1,2,3\n").unwrap();
    for (arguments, expected) in [
        (&[target, "--requests", &file, "--data", &data][..], "data.csv:3: CSV error"),
        (&[target, "--requests", &file, "--data", &twins], "twins.csv: two columns have the name \"a\""),
        (&[target, "--requests", "/missing"], "--requests: cannot read /missing"),
        (&[target, "--requests", "/dev/zero"], "--requests: /dev/zero is too long: expected at most"),
        (&[target, "--requests", &file, "--data", "/dev/zero"], "--data: /dev/zero is too long"),
        (&[target, "--requests", &file, "--body", "x"], "cannot be used with"),
        (&[target, "--data", &data], "--requests"),
        (&["tcp://127.0.0.1:9", "--requests", &file], "--requests cannot be used with tcp://"),
    ] {
        let output = load(arguments);
        let error = error_text(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
}

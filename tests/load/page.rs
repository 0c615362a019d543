//! `ringspun load --html`: the page is well-formed, says what the results say, loads nothing, and shows the texts of
//! others as texts. What it looks like is for scripts/check page.

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::thread;

use roxmltree::{Document, Node, ParsingOptions};

use crate::support::measuring::{error_text, load, measure, tcp_server};
use crate::support::scratch::ScratchFolder;

/// What would be markup if it were not escaped.
const HOSTILE: &str = "<script>alert('&\"')</script>";

fn echo_server() -> String {
    tcp_server(|mut stream, _| {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
    })
}

/// Parses a page, and checks what holds for every page.
fn with_page(path: &str, look: impl FnOnce(&Document<'_>)) {
    let text = fs::read_to_string(path).unwrap();
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    let page = Document::parse_with_options(&text, options).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut ids = HashSet::new();
    for node in page.descendants().filter(Node::is_element) {
        let name = node.tag_name().name();
        assert!(!["script", "iframe", "object", "embed", "img", "base", "form"].contains(&name), "{name}");
        for attribute in node.attributes() {
            let (name, value) = (attribute.name(), attribute.value());
            assert!(!name.starts_with("on"), "{name} would run a script");
            let is_link = ["src", "href", "srcset", "action", "data", "poster"].contains(&name);
            assert!(!is_link || value == "data:,", "{name}={value} would load something");
            assert!(name != "id" || ids.insert(value), "{value} is there twice");
        }
        if name == "style" {
            let style = node.text().unwrap();
            assert!(!style.contains("url(") && !style.contains("@import"), "{style}");
        }
    }
    let policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";
    assert!(page.descendants().any(|node| node.attribute("content") == Some(policy)));
    for figure in all(&page, "figure") {
        let drawing = figure.descendants().find(|node| node.attribute("role") == Some("img")).unwrap();
        for name in ["aria-labelledby", "aria-describedby"] {
            let id = drawing.attribute(name).unwrap();
            assert!(ids.contains(id), "{id} names nothing");
        }
        assert!(
            figure.descendants().any(|node| node.has_tag_name((XHTML, "table"))),
            "a drawing has a table"
        );
    }
    look(&page);
}

const XHTML: &str = "http://www.w3.org/1999/xhtml";

fn all<'a>(page: &'a Document<'_>, name: &str) -> Vec<Node<'a, 'a>> {
    page.descendants().filter(|node| node.tag_name().name() == name).collect()
}

fn ids<'a>(page: &'a Document<'_>) -> HashSet<&'a str> {
    page.descendants().filter_map(|node| node.attribute("id")).collect()
}

/// All text in a part of the page.
fn text_in(page: &Document<'_>, id: &str) -> String {
    let part = page.descendants().find(|node| node.attribute("id") == Some(id));
    let part = part.unwrap_or_else(|| panic!("the page has no {id}"));
    part.descendants().filter(Node::is_text).filter_map(|node| node.text()).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_page_says_what_the_results_say() {
    let folder = ScratchFolder::new("results");
    let (target, path) = (echo_server(), folder.file("page.html"));
    for (pace, lines) in [(&["--rate", "2k"][..], 2), (&[], 1)] {
        let arguments = ["--connections", "3", "--duration", "1200ms", "--warmup", "50ms", "--html", &path];
        let gates = ["--fail-if", "p99>50s", "--fail-if", "rate<1"];
        let report = measure(&[&[target.as_str()][..], &arguments, &gates, pace].concat(), 0);
        with_page(&path, |page| {
            let ids = ids(page);
            for part in
                ["percentiles", "latency", "rate", "histogram", "errors", "requests", "machine", "plan"]
            {
                assert!(ids.contains(part), "{part} is missing");
            }
            assert!(!ids.contains("logs") && !ids.contains("statuses"));
            assert_eq!(all(page, "h1")[0].text(), Some(target.as_str()));
            let answered = report["requests"]["answered"].as_u64().unwrap();
            assert!(text_in(page, "requests").replace(',', "").contains(&answered.to_string()));
            assert!(text_in(page, "gates").contains("passed"));
            assert!(text_in(page, "machine").contains("--warmup 50ms"));
            let drawings: Vec<_> = all(page, "figure");
            let paths_of = |figure: &Node<'_, '_>| {
                figure.descendants().filter(|node| node.tag_name().name() == "path").count()
            };
            assert_eq!(drawings.iter().map(paths_of).collect::<Vec<_>>(), [lines, 3, lines, 0]);
            // A second and what was left of the run, in the drawing and in its table; one, if a slow machine
            // made the second longer.
            let rows = text_in(page, "rate").matches(" s to ").count();
            assert!([2, 4].contains(&rows), "{}", text_in(page, "rate"));
        });
    }
}

#[test]
fn steps_have_a_line_and_a_table() {
    let folder = ScratchFolder::new("steps");
    let path = folder.file("page.html");
    measure(&[&echo_server(), "--steps", "1k,2k..4k:200ms", "--html", &path], 0);
    with_page(&path, |page| {
        let steps = text_in(page, "steps");
        assert!(steps.contains("1,000/s") && steps.contains("2,000 to 4,000/s"), "{steps}");
        let rate = page.descendants().find(|node| node.attribute("id") == Some("rate")).unwrap();
        let due = rate.descendants().find(|node| node.tag_name().name() == "path").unwrap();
        let corners = due.attribute("d").unwrap().split(['M', 'L']).skip(1).count();
        assert_eq!(corners, 4, "from and to for each step");
    });
}

#[test]
fn texts_of_others_stay_texts() {
    let folder = ScratchFolder::new("hostile");
    let path = folder.file("page.html");
    // The target's own name, an answer that is no HTTP, and the command line.
    let name = format!("{HOSTILE}-{}", std::process::id());
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut buffer = [0; 64];
        while stream.read_exact(&mut buffer).is_ok() && stream.write_all(&buffer).is_ok() {}
    });
    let target = format!("unix:@{name}");
    measure(&[&target, "--count", "10", "--html", &path], 0);
    with_page(&path, |page| {
        assert_eq!(all(page, "h1")[0].text(), Some(target.as_str()));
        assert!(text_in(page, "plan").contains(HOSTILE));
    });

    let wrong = format!("HTTP/1.1 500 {HOSTILE}\r\nContent-Length: 0\r\n\r\n");
    let server = tcp_server(move |mut stream, _| {
        let mut buffer = [0; 4096];
        while stream.read(&mut buffer).is_ok_and(|length| length > 0) {
            if stream.write_all(wrong.as_bytes()).is_err() {
                return;
            }
        }
    });
    let header = format!("User-Agent: {HOSTILE}");
    let secret = "Authorization: Basic c2VjcmV0";
    let url = server.replace("tcp://", "http://");
    let arguments = ["--count", "3", "--header", &header, "--header", secret, "--html", &path];
    measure(&[&[url.as_str()][..], &arguments].concat(), 1);
    with_page(&path, |page| {
        let command = text_in(page, "machine");
        assert!(command.contains("<script>") && command.contains("Authorization: ..."), "{command}");
        assert!(text_in(page, "errors").contains("500"), "{}", text_in(page, "errors"));
        // Nothing was answered: there is nothing to draw but the rate.
        assert_eq!(all(page, "figure").len(), usize::from(ids(page).contains("rate")));
    });
    assert!(!fs::read_to_string(&path).unwrap().contains("c2VjcmV0"), "a page is shown to others");
}

#[test]
fn logs_make_a_page_together() {
    let folder = ScratchFolder::new("logs");
    let (target, path) = (echo_server(), folder.file("page.html"));
    let logs = [folder.file("one & <two>.hdr"), folder.file("three.hdr")];
    for log in &logs {
        measure(&[&target, "--rate", "1k", "--duration", "300ms", "--hdr", log], 0);
    }
    for count in [1, 2] {
        let mut arguments = vec!["report", "--html", &path];
        arguments.extend(logs[..count].iter().map(String::as_str));
        let output = load(&arguments);
        assert_eq!(output.status.code(), Some(0), "{}", error_text(&output));
        with_page(&path, |page| {
            assert!(text_in(page, "logs").contains(&logs[0]));
            assert_eq!(all(page, "figure").len(), 4);
            assert!(!ids(page).contains("errors"), "a log has no errors");
        });
    }
    let output = load(&["report", "--compare", "--html", &path, &logs[0], &logs[1]]);
    assert_eq!(output.status.code(), Some(2), "{}", error_text(&output));
}

#[test]
fn a_page_that_cannot_be_written_is_told_before_the_run() {
    let folder = ScratchFolder::new("unwritable");
    let path = folder.file("missing/page.html");
    let output = load(&["tcp://127.0.0.1:1", "--duration", "1h", "--html", &path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(error_text(&output).contains("page.html: "), "{}", error_text(&output));
}

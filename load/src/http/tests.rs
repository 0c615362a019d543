//! The reader of answers, and the bytes of requests.

use super::*;

/// Feeds pieces; the answer, and whether it came before the connection's end.
fn read(is_head: bool, pieces: &[&[u8]]) -> Result<(Response, bool), String> {
    let mut reader = ResponseReader::new(is_head, None);
    let mut whole = None;
    for piece in pieces {
        let (rest, response) = reader.take(piece)?;
        if !rest.is_empty() || whole.is_some() {
            return Err(format!("\"{}\" is behind the answer", rest.escape_ascii()));
        }
        whole = response;
    }
    match whole {
        Some(response) => Ok((response, true)),
        None => reader.end().map(|response| (response, false)),
    }
}

/// Reads the same bytes in one piece, in two at every place, and byte by byte; all have to agree.
fn read_split(is_head: bool, bytes: &[u8]) -> Result<(Response, bool), String> {
    let result = read(is_head, &[bytes]);
    for place in 1..bytes.len() {
        assert_eq!(read(is_head, &[&bytes[..place], &bytes[place..]]), result, "split at {place}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(read(is_head, &single), result, "byte by byte");
    result
}

fn answer(status: u16, closes: bool) -> Response {
    Response { status, closes, has_wrong_body: false, redirects: 0 }
}

#[test]
fn answers_end_where_their_heads_say() {
    for (text, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", answer(200, false)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\nContent-Length:5\r\n\r\nhello", answer(200, false)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", answer(200, false)),
        ("HTTP/1.1 503 Busy\r\nContent-Length: 2\r\nConnection: x, Close\r\n\r\nno", answer(503, true)),
        ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", answer(200, true)),
        ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: Keep-Alive\r\n\r\nx", answer(200, false)),
        ("HTTP/1.1 204 No Content\r\n\r\n", answer(204, false)),
        ("HTTP/1.1 204 Folded\r\nX: a\r\n  b\r\nConnection: close\r\n\r\n", answer(204, true)),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", answer(304, false)),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: a\r\n\r\n\
             HTTP/1.1 201 C\r\nContent-Length: 1\r\n\r\nx",
            answer(201, false),
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", answer(200, false)),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\nContent-Length: 3\r\n\r\n\
             5\r\nhello\r\n1A;name=\"v\"\r\n0123456789\r\n0123456789\r\n\r\n\r\n00\r\nTrailer: a\r\nB: c\r\n\r\n",
            answer(200, false),
        ),
    ] {
        assert_eq!(read_split(false, text.as_bytes()), Ok((expected, true)), "{text}");
    }
}

#[test]
fn answers_to_head_have_no_body() {
    for length in ["Content-Length: 500", "Transfer-Encoding: chunked", "X: y"] {
        let text = format!("HTTP/1.1 200 OK\r\n{length}\r\n\r\n");
        assert_eq!(read_split(true, text.as_bytes()), Ok((answer(200, false), true)), "{length}");
    }
}

#[test]
fn an_answer_without_a_length_lasts_until_the_end() {
    for headers in ["", "Transfer-Encoding: gzip\r\n"] {
        let text = format!("HTTP/1.1 200 OK\r\n{headers}\r\nsome bytes");
        assert_eq!(read_split(false, text.as_bytes()), Ok((answer(200, true), false)), "{headers}");
    }
}

#[test]
fn an_answer_that_is_cut_off_is_none() {
    for (text, expected) in [
        ("", "before responding"),
        ("HTTP/1.1 200 OK\r\nConte", "within the head"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "with 4 bytes"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", "before the last chunk"),
    ] {
        let error = read_split(false, text.as_bytes()).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn what_is_no_http_is_an_error_with_what_was_expected() {
    let head = "HTTP/1.1 200 OK\r\n";
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
    for (text, expected) in [
        ("SSH-2.0-OpenSSH\r\n".to_string(), "\"SSH-2.0"),
        ("HTTP/2.0 200 OK\r\n\r\n".to_string(), "expected an HTTP/1.1 response"),
        // By a server that sends back what it gets, without the query.
        ("GET /?a=b HTTP/1.1\r\n\r\n".to_string(), "\"GET /?...\" was received (invalid HTTP version)"),
        ("HTTP/1.1 700 What\r\nContent-Length: 0\r\n\r\n".to_string(), "from 100 to 599"),
        ("HTTP/1.1 101 Switching\r\n\r\n".to_string(), "HTTP 101"),
        (format!("{head}Content-Length: -1\r\n\r\n"), "Content-Length is \"-1\": expected a number"),
        (format!("{head}Content-Length:\r\n\r\n"), "expected a number"),
        (format!("{head}Content-Length: 18446744073709551616\r\n\r\n"), "expected a number"),
        (format!("{head}Content-Length: 1\r\nContent-Length: 2\r\n\r\n"), "two different values"),
        (format!("{chunked}x"), "\"x\" in the chunked body"),
        (format!("{chunked}\r\n"), "in the chunked body"),
        (format!("{chunked}1\n"), "in the chunked body"),
        (format!("{chunked}1\r\nab"), "in the chunked body"),
        (format!("{chunked}11112222333344445\r\n"), "in the chunked body"),
        (format!("{head}{}\r\n", "A: b\r\n".repeat(1025)), "expected at most 1024"),
        (format!("{head}A: {}", "b".repeat(HEAD_MAX_BYTES)), "expected at most 65536 bytes"),
        (format!("{head}A: {}\r\n\r\n", "b".repeat(HEAD_MAX_BYTES)), "expected at most 65536 bytes"),
    ] {
        for piece_bytes in [7, text.len()] {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(piece_bytes).collect();
            let error = read(false, &pieces).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}

#[test]
fn heads_at_the_bounds_are_read() {
    for count in [HEADERS_FEW, HEADERS_FEW + 1, HEADERS_MAX] {
        let text = format!("HTTP/1.1 204 X\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert!(read(false, &[text.as_bytes()]).is_ok());
    }
    let bare = "HTTP/1.1 204 X\r\nA: \r\n\r\n".len();
    let text = format!("HTTP/1.1 204 X\r\nA: {}\r\n\r\n", "b".repeat(HEAD_MAX_BYTES - bare));
    assert_eq!(text.len(), HEAD_MAX_BYTES);
    let pieces: Vec<&[u8]> = text.as_bytes().chunks(1000).collect();
    assert!(read(false, &pieces).is_ok() && read(false, &[text.as_bytes()]).is_ok());
}

#[test]
fn bytes_behind_an_answer_are_left() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxyz",
        "HTTP/1.1 204 X\r\n\r\nyz",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nyz",
    ] {
        assert_eq!(read(false, &[text.as_bytes()]).unwrap_err(), "\"yz\" is behind the answer");
    }
}

#[test]
fn a_head_in_one_piece_takes_no_memory() {
    let mut reader = ResponseReader::new(false, None);
    reader.take(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello").unwrap();
    assert_eq!(reader.head.capacity(), 0);
}

fn bytes_of(request: &HttpRequest, target: &str) -> String {
    let crate::Target::Http(target) = target.parse().unwrap() else { panic!("{target} is for HTTP") };
    String::from_utf8(Prepared::new(request, &target).bytes).unwrap()
}

#[test]
fn requests_have_what_servers_need() {
    let plain = HttpRequest::default();
    assert_eq!(bytes_of(&plain, "http://a.example"), "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(bytes_of(&plain, "http://[::1]:81/b?c=d"), "GET /b?c=d HTTP/1.1\r\nHost: [::1]:81\r\n\r\n");
    let post = HttpRequest {
        method: "POST".to_string(),
        headers: vec!["host: other".parse().unwrap(), "X-A:b".parse().unwrap()],
        body: b"12345".to_vec(),
        ..HttpRequest::default()
    };
    assert_eq!(
        bytes_of(&post, "http://a/"),
        "POST / HTTP/1.1\r\nhost: other\r\nX-A: b\r\nContent-Length: 5\r\n\r\n12345"
    );
    let empty = HttpRequest { method: "PUT".to_string(), ..HttpRequest::default() };
    assert!(bytes_of(&empty, "http://a/").contains("Content-Length: 0\r\n"));
}

#[test]
fn bad_headers_and_methods_are_named() {
    for (text, expected) in [
        ("Accept", "'Name: value'"),
        (": x", "\"\" is not a header name"),
        ("A b: x", "\"A b\" is not a header name"),
        ("A: x\r\nB: y", "'\\r'"),
        ("transfer-encoding: chunked", "derived from the body"),
    ] {
        let error = text.parse::<Header>().unwrap_err();
        assert!(error.contains(expected) && error.contains("expected"), "{text}: {error}");
    }
    for method in ["", "GET /", "CONNECT"] {
        let request = HttpRequest { method: method.to_string(), ..HttpRequest::default() };
        assert!(request.check().unwrap_err().contains("expected a method such as GET"), "{method}");
    }
}

#[test]
fn a_body_must_contain_the_expected_text_however_it_is_cut() {
    let body = |text: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    let text = Delimiter::new(b"well".to_vec());
    for (response, is_wrong) in [
        (body("all is well"), false),
        (body("wewell"), false),
        (body("all is wel"), true),
        (body(""), true),
        ("HTTP/1.1 200 OK\r\nX: well\r\nContent-Length: 3\r\n\r\nbad".to_string(), true),
        ("HTTP/1.1 204 well\r\n\r\n".to_string(), true),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nawe\r\n2\r\nll\r\n0\r\n\r\n"
                .to_string(),
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;well\r\nwe\r\n0\r\nX: well\r\n\r\n"
                .to_string(),
            true,
        ),
        ("HTTP/1.0 200 OK\r\n\r\nnot well at all".to_string(), false),
        ("HTTP/1.0 200 OK\r\n\r\nbad".to_string(), true),
    ] {
        for place in 0..response.len() {
            let mut reader = ResponseReader::new(false, Some(&text));
            let (first, second) = response.as_bytes().split_at(place);
            let last = reader.take(first).and_then(|_| reader.take(second)).unwrap().1;
            let found = last.unwrap_or_else(|| reader.end().unwrap());
            assert_eq!(found.has_wrong_body, is_wrong, "{response:?} split at {place}");
        }
    }
}

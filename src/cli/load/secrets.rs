//! The command line as the results show it, which are passed on to others: without request bodies, query strings, and
//! values of headers other than harmless ones.

use std::convert::Infallible;
use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

use ringspun_load::{Header, StatusSet, Target};

/// What is shown instead.
const OMITTED: &str = "...";

/// Flags whose values are not shown.
const CONFIDENTIAL: [&str; 3] = ["--body", "--expect-body", "--user"];

/// The command line of this process, quoted for a shell, without confidential parts.
pub fn command_line() -> String {
    shell_line(std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()))
}

fn shell_line(arguments: impl IntoIterator<Item = String>) -> String {
    let mut words = Vec::new();
    let mut flag = String::new();
    for (index, argument) in arguments.into_iter().enumerate() {
        // The installation path is irrelevant.
        let name = Path::new(&argument).file_name().filter(|_| index == 0);
        let word = match name {
            Some(name) => name.to_string_lossy().into_owned(),
            None => without_secrets(&flag, &argument),
        };
        flag = argument;
        words.push(quoted(&word));
    }
    words.join(" ")
}

/// An argument as it may be shown; `flag` is the one before it.
fn without_secrets(flag: &str, argument: &str) -> String {
    match flag {
        "--header" | "-H" => return header(argument),
        _ if CONFIDENTIAL.contains(&flag) => return OMITTED.to_string(),
        "--expect" => return expected(argument),
        _ => {}
    }
    if let Some(value) = argument.strip_prefix("--header=") {
        return format!("--header={}", header(value));
    }
    if let Some(value) = argument.strip_prefix("-H").filter(|value| !value.is_empty()) {
        return format!("-H{}", header(value));
    }
    if let Some((flag, _)) = argument.split_once('=').filter(|(flag, _)| CONFIDENTIAL.contains(flag)) {
        return format!("{flag}={OMITTED}");
    }
    if let Some(value) = argument.strip_prefix("--expect=") {
        return format!("--expect={}", expected(value));
    }
    argument.parse::<Target>().map_or_else(|_| argument.to_string(), |target| target.without_query())
}

/// A value, or why it is none.
#[derive(Clone)]
pub struct Guarded<T>(pub Result<T, String>);

/// Parses the values of a flag, and shows of a refused one what `shown` leaves of it: clap would show all, with a
/// password.
pub fn guarded<T: FromStr<Err: Display>>(
    flag: &'static str,
    shown: fn(&str) -> String,
) -> impl Fn(&str) -> Result<Guarded<T>, Infallible> + Clone {
    move |text| {
        let invalid = |error| format!("invalid value '{}' for '{flag}': {error}", shown(text).escape_debug());
        Ok(Guarded(text.parse().map_err(invalid)))
    }
}

/// What is no target, as an error may show it: without a password, a query and a fragment.
pub fn refused_target(text: &str) -> String {
    if text.starts_with("unix:") {
        return text.to_string();
    }
    let scheme = text.find("://").map_or("", |at| &text[..at + 3]);
    let (before, omitted) = match text.find(['?', '#']) {
        Some(at) => (&text[..at], format!("{}{OMITTED}", &text[at..=at])),
        None => (text, String::new()),
    };
    match (before.rsplit_once('@'), text.contains('@')) {
        (Some((_, host)), _) => format!("{scheme}{OMITTED}@{host}{omitted}"),
        // These characters may be those of a password.
        (None, true) => format!("{scheme}{OMITTED}"),
        (None, false) => format!("{before}{omitted}"),
    }
}

/// What is no header, as an error may show it: at most its name.
pub fn refused_header(text: &str) -> String {
    let name_end = text.find(|letter: char| letter == ':' || letter.is_whitespace());
    match name_end.map(|end| text.split_at(end)) {
        Some((name, rest)) if rest.starts_with(':') => format!("{name}: {OMITTED}"),
        Some((name, _)) => format!("{name} {OMITTED}"),
        // It may be a value alone.
        None => OMITTED.to_string(),
    }
}

fn header(text: &str) -> String {
    text.parse::<Header>().map_or_else(|_| OMITTED.to_string(), |header| header.redacted())
}

/// Statuses, but no text of a message.
fn expected(text: &str) -> String {
    text.parse::<StatusSet>().map_or_else(|_| OMITTED.to_string(), |_| text.to_string())
}

fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || "@%+=:,./_-".contains(letter);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_shown_without_secrets() {
        for (text, shown) in [
            ("http://me:abc@a:99999/", "http://...@a:99999/"),
            ("http://a/b c?token=abc", "http://a/b c?..."),
            ("http://a/#abc", "http://a/#..."),
            ("http://me:ab?c@a/", "http://..."),
            ("me:abc@a", "...@a"),
            ("a", "a"),
            ("unix:b?c", "unix:b?c"),
        ] {
            assert_eq!(refused_target(text), shown);
        }
        for (text, shown) in [
            ("Authorization Bearer abc", "Authorization ..."),
            ("Authorization: Bearer abc\n", "Authorization: ..."),
            ("A\u{1}: abc", "A\u{1}: ..."),
            ("abc", "..."),
        ] {
            assert_eq!(refused_header(text), shown);
        }
    }

    #[test]
    fn the_command_line_can_be_pasted_and_keeps_secrets() {
        let line = |words: &[&str]| shell_line(words.iter().map(ToString::to_string));
        assert_eq!(
            line(&["/usr/bin/ringspun", "load", "tcp://[::1]:7", "--fail-if", "p99>5ms", "it's", ""]),
            "ringspun load 'tcp://[::1]:7' --fail-if 'p99>5ms' 'it'\\''s' ''"
        );
        let words = [
            "ringspun",
            "-H",
            "X-Any: abc",
            "--header=Authorization:abc",
            "-HCookie: abc",
            "-H",
            "Accept: b",
        ];
        assert_eq!(
            line(&words),
            "ringspun -H 'X-Any: ...' '--header=Authorization: ...' '-HCookie: ...' -H 'Accept: b'"
        );
        assert_eq!(
            line(&["ringspun", "http://a/b?token=abc", "--body", "abc", "--body=abc"]),
            "ringspun 'http://a/b?...' --body ... --body=..."
        );
        assert_eq!(
            line(&[
                "ringspun",
                "https://me:abc@a/b",
                "--user",
                "me:abc",
                "--user=me:abc",
                "--expect-body=abc"
            ]),
            "ringspun https://a/b --user ... --user=... --expect-body=..."
        );
    }
}

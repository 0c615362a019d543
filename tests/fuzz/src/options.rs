//! The command line of `ringspun load`: it makes a plan, or an error that names what is wrong.

use clap::Parser;
use clap::error::{ContextKind, ContextValue};
use ringspun_load::{
    Gate, Header, Rates, Sizes, format_count, format_duration, parse_count, parse_duration, parse_steps,
    parse_time,
};

#[path = "../../../src/cli/load/options.rs"]
#[expect(dead_code, reason = "the fuzzer opens no files")]
mod flags;
#[path = "../../../src/cli/load/goal.rs"]
#[expect(dead_code, reason = "a search is the command's")]
mod goal;
#[path = "../../../src/cli/load/http2.rs"]
#[expect(dead_code, reason = "the words in the results are the command's")]
mod http2;
#[path = "../../../src/cli/load/input.rs"]
mod input;
#[path = "../../../src/cli/load/pace.rs"]
mod pace;
#[path = "../../../src/cli/load/requests.rs"]
mod requests;
#[path = "../../../src/cli/load/secrets.rs"]
#[expect(dead_code, reason = "the fuzzer shows no results")]
mod secrets;
#[path = "../../../src/cli/load/sessions.rs"]
#[expect(dead_code, reason = "the fuzzer shows no results")]
mod sessions;
#[path = "../../../src/cli/load/tls.rs"]
#[expect(dead_code, reason = "the words in the results are the command's")]
mod tls;
#[path = "../../../src/cli/load/websocket.rs"]
#[expect(dead_code, reason = "the words in the results are the command's")]
mod websocket;
#[path = "../../../src/cli/load/whole.rs"]
mod whole;
#[path = "../../../src/cli/load/workload.rs"]
#[expect(dead_code, reason = "the words in the results are the command's")]
mod workload;

/// What flags that name files have in their names.
const FILES: [&str; 4] = ["-file", "-cacert", "-cert", "-key"];

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    options: flags::Options,
}

/// Each line is an argument, and a value of each kind.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let arguments: Vec<_> = text.split('\n').collect();
    arguments.iter().for_each(|argument| check_value(argument));
    check_command_line(&arguments);
}

fn check_command_line(arguments: &[&str]) {
    // Files are read; which there are is none of this.
    if arguments.iter().any(|argument| FILES.iter().any(|flag| argument.contains(flag))) {
        return;
    }
    match CommandLine::try_parse_from(["load"].iter().chain(arguments)) {
        Ok(CommandLine { options }) => {
            let Some(planned) = options.plan() else { panic!("no target in {arguments:?}") };
            match planned {
                Ok(plan) => assert_eq!(plan.check(), Ok(())),
                Err(error) => assert!(error.contains("expected"), "{arguments:?}: {error}"),
            }
            let _ =
                (&options.json, &options.hdr, &options.csv, &options.html, &options.fail_if, &options.repeat);
            let _ = (&options.abort_if, &options.abort_window);
        }
        Err(error) => {
            let shown = error.to_string();
            assert!(!shown.is_empty());
            // What a terminal would take for a command is left out.
            if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue)
                && !value.contains(char::is_control)
            {
                assert!(shown.contains(value.as_str()), "{value:?} is not in {shown:?}");
            }
        }
    }
}

fn check_value(text: &str) {
    if let Ok(duration) = parse_duration(text) {
        assert!(!format_duration(duration).is_empty());
    }
    if let Ok(count) = parse_count(text) {
        assert_eq!(format_count(count).replace(',', "").parse(), Ok(count), "{text:?}");
        assert_eq!(parse_count(&count.to_string()), Ok(count), "{text:?}");
    }
    if let Ok(steps) = parse_steps(text) {
        assert_eq!(steps.len(), text.split(',').count(), "{text:?}");
    }
    if let (Ok(rates), Ok(step)) = (text.parse::<Rates>(), parse_steps(&format!("{text}:1s"))) {
        assert_eq!((step[0].from, step[0].to), (rates.from, rates.to), "{text:?}");
    }
    let _ = parse_time(text);
    reads_back::<Gate>(text);
    reads_back::<Sizes>(text);
    reads_back::<Header>(text);
}

/// What is shown of a value reads as the same value.
fn reads_back<T>(text: &str)
where
    T: std::str::FromStr<Err = String> + std::fmt::Display + std::fmt::Debug + PartialEq,
{
    match text.parse::<T>() {
        Ok(value) => {
            let shown = value.to_string();
            assert_eq!(shown.parse().as_ref(), Ok(&value), "{text:?} is shown as {shown:?}");
        }
        Err(error) => assert!(error.contains("expected"), "{text:?}: {error}"),
    }
}

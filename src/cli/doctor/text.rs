//! The report as text.

use std::fmt::Write as _;

use ringspun::runtime::probe::Feature;

use super::Report;
use super::limits::Field;

/// The maximum width of explanations, to fit a terminal.
const WIDTH: usize = 80;
/// The width of the column of names.
const NAME_WIDTH: usize = 30;

/// The report as lines of text.
pub fn render(report: &Report) -> String {
    let mut text = format!(
        "ringspun {} on {} {}, {}\n\n",
        env!("CARGO_PKG_VERSION"),
        report.system,
        report.kernel_release,
        report.architecture
    );
    entry(&mut text, "backend", report.backend.chosen.as_ref().map_or("none", |name| name));
    explain(&mut text, &report.backend.reason);
    match &report.ring.refusal {
        None => entry(&mut text, "io_uring", "allowed"),
        Some(refusal) => {
            entry(&mut text, "io_uring", "refused");
            // Usually the refusal is the reason for the choice of the backend, printed above.
            if *refusal != report.backend.reason {
                explain(&mut text, refusal);
            }
        }
    }

    entry(&mut text, "Janet VM", ringspun::janet::vm_version());

    text.push_str("\nkernel features\n\n");
    for feature in report.ring.features.iter().chain([&report.stack_guards]) {
        let state = if feature.available { "yes" } else { "no" };
        entry(&mut text, feature.name, &format!("{state}, {}", since(feature)));
        explain(&mut text, feature.purpose);
    }

    text.push_str("\nlimits\n\n");
    for limit in &report.limits {
        let values: Vec<_> = limit.fields.iter().map(value).collect();
        entry(&mut text, limit.title, &values.join(", "));
        explain(&mut text, &limit.meaning);
    }
    text
}

fn since(feature: &Feature) -> String {
    let verb = if feature.available { "since" } else { "requires" };
    format!("{verb} Linux {}", feature.since)
}

fn value(field: &Field) -> String {
    format!("{} {}", field.amount, field.label).trim_end().to_string()
}

fn entry(text: &mut String, name: &str, value: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{name:<NAME_WIDTH$}{value}");
}

/// Appends a sentence below its entry, in lines of at most [`WIDTH`] columns.
fn explain(text: &mut String, sentence: &str) {
    const INDENT: &str = "    ";
    let mut column = 0;
    for word in sentence.split_whitespace() {
        if column > 0 && column + 1 + word.len() > WIDTH {
            text.push('\n');
            column = 0;
        }
        text.push_str(if column == 0 { INDENT } else { " " });
        column += if column == 0 { INDENT.len() } else { 1 } + word.len();
        text.push_str(word);
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explanations_are_wrapped_between_words() {
        let mut text = String::new();
        explain(&mut text, &"word ".repeat(40));
        assert!(text.lines().all(|line| line.len() <= WIDTH && line.starts_with("    word")), "{text}");
        assert_eq!(text.matches("word").count(), 40);
    }
}

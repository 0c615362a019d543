//! The report for people.

use std::fmt::Write as _;

use ringspun::runtime::probe::Feature;

use super::Report;
use super::limits::{Amount, Field};

/// Where explanations end, so that they fit a terminal.
const WIDTH: usize = 80;
/// The column where what follows a name begins.
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
            // Mostly that is why another backend serves, or none, and has been said.
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
    let tense = if feature.available { "since" } else { "it takes" };
    format!("{tense} Linux {}", feature.since)
}

fn value(field: &Field) -> String {
    let amount = match field.amount {
        Amount::Count(count) => grouped(count),
        Amount::Bytes(bytes) => binary_size(bytes),
        Amount::Unlimited => "unlimited".to_string(),
    };
    format!("{amount} {}", field.label).trim_end().to_string()
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

/// A number in groups of three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size in the largest unit that it fills.
pub fn binary_size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (unit, name) in UNITS {
        if bytes >= unit {
            let tenths = (u128::from(bytes) * 10 + u128::from(unit / 2)) / u128::from(unit);
            return match tenths % 10 {
                0 => format!("{} {name}", tenths / 10),
                _ => format!("{}.{} {name}", tenths / 10, tenths % 10),
            };
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let texts = [0, 999, 1000, 20_000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "20,000", "1,234,567"]);
    }

    #[test]
    fn sizes_have_one_decimal_at_most() {
        let texts = [0, 1023, 1024, 9500, 8 << 20, u64::MAX].map(binary_size);
        assert_eq!(texts, ["0 bytes", "1023 bytes", "1 KiB", "9.3 KiB", "8 MiB", "17179869184 GiB"]);
    }

    #[test]
    fn explanations_are_wrapped_between_words() {
        let mut text = String::new();
        explain(&mut text, &"word ".repeat(40));
        assert!(text.lines().all(|line| line.len() <= WIDTH && line.starts_with("    word")), "{text}");
        assert_eq!(text.matches("word").count(), 40);
    }
}

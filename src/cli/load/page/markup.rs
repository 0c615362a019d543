//! HTML helpers: all external text is escaped here.

use std::fmt::{self, Display, Write};

use ringspun_load::format_count;
use serde_json::{Number, Value};

/// Escapes external text, such as a target or an error, for element content and attributes.
///
/// Characters that XML does not allow, such as terminal codes, become replacement characters.
pub struct Escaped<T>(pub T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.to_string().chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\t' | '\n' | '\r' => f.write_char(letter)?,
                '\u{fffe}' | '\u{ffff}' => f.write_char(char::REPLACEMENT_CHARACTER)?,
                // Bidirectional controls could make a text look like a different one.
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    f.write_char(char::REPLACEMENT_CHARACTER)?;
                }
                control if control.is_control() => f.write_char(char::REPLACEMENT_CHARACTER)?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// A table. The first cell of each row is its header. The caption is for screen readers.
pub fn table(caption: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    let mut html = format!(
        "<div class=\"scroll\"><table><caption class=\"screen-reader\">{}</caption>\n",
        Escaped(caption)
    );
    if !head.is_empty() {
        html.push_str("<thead><tr>");
        for cell in head {
            add(&mut html, format_args!("<th scope=\"col\">{}</th>", Escaped(cell)));
        }
        html.push_str("</tr></thead>\n");
    }
    html.push_str("<tbody>\n");
    for row in rows {
        html.push_str("<tr>");
        for (index, cell) in row.iter().enumerate() {
            match index {
                0 => add(&mut html, format_args!("<th scope=\"row\">{}</th>", Escaped(cell))),
                _ => add(&mut html, format_args!("<td>{}</td>", Escaped(cell))),
            }
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
    html
}

/// Appends formatted text.
pub fn add(html: &mut String, text: fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = html.write_fmt(text);
}

/// The members of a JSON object, including nested objects, as rows of names and values. Nulls are skipped, and so
/// are arrays, which have their own sections.
pub fn rows_of(value: &Value) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    add_rows(&mut rows, "", value);
    rows
}

fn add_rows(rows: &mut Vec<Vec<String>>, prefix: &str, value: &Value) {
    let Some(members) = value.as_object() else { return };
    for (name, member) in members {
        let (name, unit) = split_unit(name);
        let label = format!("{prefix}{}", name.replace('_', " "));
        let text = match member {
            Value::Null | Value::Array(_) => continue,
            Value::Object(_) => {
                add_rows(rows, &format!("{label} "), member);
                continue;
            }
            Value::Number(number) => match whole(number) {
                Some(count) => format_count(count) + unit,
                None => {
                    format!("{:.3}", number.as_f64().unwrap_or_default())
                        .trim_end_matches('0')
                        .trim_end_matches('.')
                        .to_string()
                        + unit
                }
            },
            Value::String(text) => text.clone(),
            Value::Bool(true) => "yes".to_string(),
            Value::Bool(false) => "no".to_string(),
        };
        rows.push(vec![label, text]);
    }
}

/// The value as an integer, if it is one.
fn whole(number: &Number) -> Option<u64> {
    let as_float = number.as_f64().filter(|value| value.fract() == 0.0 && *value >= 0.0);
    number.as_u64().or(as_float.map(|value| value as u64))
}

/// Splits the name of a member into the name without its unit, and the unit as shown after the value.
fn split_unit(name: &str) -> (&str, &'static str) {
    let units = [
        ("_bytes_per_s", " bytes/s"),
        ("_per_s", "/s"),
        ("_percent", " %"),
        ("_bytes", " bytes"),
        ("_ms", " ms"),
        ("_us", " µs"),
        ("_s", " s"),
    ];
    let found = units.iter().find_map(|(ending, unit)| name.strip_suffix(ending).map(|name| (name, *unit)));
    found.unwrap_or((name, ""))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_of_others_becomes_markup() {
        let text = "<a href='x'>\"&\u{1b}[31m\u{202e}\u{ffff}ü\n";
        let expected = "&lt;a href=&#39;x&#39;&gt;&quot;&amp;\u{fffd}[31m\u{fffd}\u{fffd}ü\n";
        assert_eq!(Escaped(text).to_string(), expected);
        let html = table("<", &["<"], &[vec!["<".to_string(), "<".to_string()]]);
        assert_eq!(html.matches("&lt;").count(), 4, "{html}");
    }

    #[test]
    fn members_of_the_results_have_names_and_units() {
        let value = json!({
            "answered_after_end": 1234,
            "busy_percent": 12.5,
            "sent_bytes_per_s": 160_000.0,
            "rate_per_s": null,
            "http": { "method": "GET", "headers": ["A: b"], "body_bytes": 0 },
        });
        let rows = rows_of(&value);
        let expected = [
            ["answered after end", "1,234"],
            ["busy", "12.5 %"],
            ["http body", "0 bytes"],
            ["http method", "GET"],
            ["sent", "160,000 bytes/s"],
        ];
        assert_eq!(rows, expected);
    }
}

//! Counts in the text format of Prometheus, as far as ours use it, and what has changed from one time to the next.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

/// A value with its labels.
type Sample = (BTreeMap<String, String>, f64);

/// Samples by the name of their metric.
#[derive(Debug, Default, PartialEq)]
pub struct Samples(BTreeMap<String, Vec<Sample>>);

impl FromStr for Samples {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut samples = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            let (name, sample) = parse(line)
                .ok_or_else(|| format!("{line:?}: expected a sample, as in name{{label=\"text\"}} 5"))?;
            samples.0.entry(name).or_default().push(sample);
        }
        if samples.0.is_empty() {
            return Err("expected metrics in the text format of Prometheus, and got none".to_string());
        }
        Ok(samples)
    }
}

fn parse(line: &str) -> Option<(String, Sample)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            rest = rest.trim_start_matches(',');
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, after) = rest.split_once("=\"")?;
            let (text, after) = unescape(after)?;
            labels.insert(label.to_string(), text);
            rest = after;
        }
    }
    // A time may follow.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    (!name.is_empty()).then(|| (name.to_string(), (labels, value)))
}

/// The text of a label up to its closing quotation mark, and what is behind that.
fn unescape(text: &str) -> Option<(String, &str)> {
    let (mut value, mut letters) = (String::new(), text.char_indices());
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match letters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            _ => value.push(letter),
        }
    }
    None
}

/// Two looks at the same counts.
pub struct Change<'a> {
    pub last: &'a Samples,
    pub now: &'a Samples,
    /// The time between them.
    pub over: Duration,
}

impl Change<'_> {
    /// The texts of a label, in the order of their numbers, if they end with some.
    pub fn texts_of(&self, label: &str) -> Vec<String> {
        let samples = self.now.0.values().flatten();
        let mut texts: Vec<String> = samples.filter_map(|(labels, _)| labels.get(label).cloned()).collect();
        let number = |text: &str| {
            let digits = text.trim_start_matches(|letter: char| !letter.is_ascii_digit());
            digits.parse::<u64>().ok()
        };
        texts.sort_by(|one, other| number(one).cmp(&number(other)).then(one.cmp(other)));
        texts.dedup();
        texts
    }

    /// Another label of what has the text in this one.
    pub fn other_label(&self, label: (&str, &str), other: &str) -> Option<String> {
        let mut samples = self.now.0.values().flatten();
        let found = samples.find(|(labels, _)| labels.get(label.0).is_some_and(|text| text == label.1));
        found.and_then(|(labels, _)| labels.get(other).cloned())
    }

    /// The sum of a metric, for a text of a label or all; `None` if there is no such sample.
    pub fn sum(&self, name: &str, label: Option<(&str, &str)>) -> Option<f64> {
        sum(self.now, name, label)
    }

    /// How much the sum of a metric has grown in a second.
    pub fn rate(&self, name: &str, label: Option<(&str, &str)>) -> Option<f64> {
        let last = sum(self.last, name, label)?;
        // It is smaller if the process has been replaced.
        let grown = (self.sum(name, label)? - last).max(0.0);
        Some(grown / self.over.as_secs_f64())
    }
}

fn sum(samples: &Samples, name: &str, label: Option<(&str, &str)>) -> Option<f64> {
    let has_label = |labels: &BTreeMap<String, String>| {
        label.is_none_or(|(label, expected)| labels.get(label).is_some_and(|text| text == expected))
    };
    let samples = samples.0.get(name)?.iter();
    samples.filter(|(labels, _)| has_label(labels)).map(|(_, value)| *value).reduce(|sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_library_prints_is_parsed() {
        let mut metrics = ringspun::Metrics::default();
        let kind = ringspun::MetricKind::Counter;
        let thread = "a \"b\",}\\\n";
        metrics.add("jobs_total", kind, "Jobs.", &[("thread", thread), ("backend", "poll")], 2.5);
        metrics.add("jobs_total", kind, "Jobs.", &[("thread", "worker 10")], 4.0);
        metrics.add("jobs_total", kind, "Jobs.", &[("thread", "worker 9")], 4.0);
        metrics.add("alone", kind, "One.", &[], 1e9);
        let now: Samples = metrics.to_string().parse().unwrap();
        let last: Samples =
            "jobs_total{thread=\"worker 10\"} 3\njobs_total 9\nalone 2e9 123\n".parse().unwrap();
        let change = Change { last: &last, now: &now, over: Duration::from_millis(500) };
        assert_eq!(change.sum("jobs_total", None), Some(10.5));
        assert_eq!(change.sum("jobs_total", Some(("thread", thread))), Some(2.5));
        assert_eq!(change.texts_of("thread"), [thread, "worker 9", "worker 10"]);
        assert_eq!(change.other_label(("thread", thread), "backend").as_deref(), Some("poll"));
        assert_eq!(change.rate("jobs_total", Some(("thread", "worker 10"))), Some(2.0));
        assert_eq!(change.rate("jobs_total", Some(("thread", "worker 9"))), None, "it is new");
        assert_eq!(change.rate("alone", None), Some(0.0), "it has begun anew");
        assert_eq!(change.sum("missing", None), None);
    }

    #[test]
    fn other_texts_are_refused() {
        for wrong in [
            "<html>",
            "a",
            "a{b=\"c\" 5",
            "a{b=c} 5",
            "a{b=\"c\\",
            "a five",
            "{b=\"c\"} 5",
            "",
            "# HELP a b\n",
        ] {
            let error = wrong.parse::<Samples>().unwrap_err();
            assert!(error.contains("expected"), "{error}");
        }
    }
}

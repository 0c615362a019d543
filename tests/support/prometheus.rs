//! A strict parser of Prometheus' text format.

use std::collections::BTreeMap;

/// By name and labels, in the order of the text.
pub type Samples = BTreeMap<String, f64>;

/// Parses the text format, version 0.0.4, strictly: each metric has a help and a type, its samples follow them and
/// nothing is there twice.
pub fn parse(text: &str) -> Result<Samples, String> {
    let mut samples = Samples::new();
    let mut types: BTreeMap<&str, &str> = BTreeMap::new();
    let mut current = None;
    let mut helped = None;
    if !text.ends_with('\n') {
        return Err("the last line does not end".to_string());
    }
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').ok_or(format!("no help: {line}"))?;
            if help.is_empty() || types.contains_key(name) {
                return Err(format!("twice, or empty: {line}"));
            }
            helped = Some(name);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').ok_or(format!("no type: {line}"))?;
            if helped != Some(name)
                || !["counter", "gauge", "summary"].contains(&kind)
                || types.insert(name, kind).is_some()
            {
                return Err(format!("not after its help, unknown, or twice: {line}"));
            }
            if (kind == "counter") != name.ends_with("_total") {
                return Err(format!("counters end with _total: {line}"));
            }
            current = Some(name);
        } else {
            let (key, value) = sample(line)?;
            let name = current.ok_or(format!("without a type: {line}"))?;
            check_name(name, types[name], &key).map_err(|error| format!("{error}: {line}"))?;
            if samples.insert(key, value).is_some() {
                return Err(format!("twice: {line}"));
            }
        }
    }
    Ok(samples)
}

/// Checks that a sample is one of the metric before it.
fn check_name(metric: &str, kind: &str, key: &str) -> Result<(), &'static str> {
    let (name, labels) = key.split_once('{').unwrap_or((key, ""));
    let suffix = name.strip_prefix(metric).ok_or("not after its type")?;
    let has_quantile = labels.contains("quantile=\"");
    match (kind, suffix) {
        ("summary", "") if has_quantile => Ok(()),
        ("summary", "_sum" | "_count") | ("counter" | "gauge", "") if !has_quantile => Ok(()),
        _ => Err("no sample of its type"),
    }
}

/// A name with its labels, and a value.
fn sample(line: &str) -> Result<(String, f64), String> {
    let wrong = |what: &str| format!("{what}: {line}");
    let is_name = |name: &str| {
        let is_inner = |c: char| c.is_ascii_alphanumeric() || c == '_';
        !name.is_empty() && name.chars().all(is_inner) && !name.starts_with(|c: char| c.is_ascii_digit())
    };
    let (key, value) = match line.split_once('{') {
        None => line.split_once(' ').ok_or(wrong("no value"))?,
        Some(_) => {
            let end = line.rfind("} ").ok_or(wrong("no end of the labels"))?;
            (&line[..=end], &line[end + 2..])
        }
    };
    let (name, labels) = key.split_once('{').unwrap_or((key, "}"));
    if !is_name(name) {
        return Err(wrong("no name"));
    }
    let mut rest = labels.strip_suffix('}').ok_or(wrong("no end of the labels"))?;
    while !rest.is_empty() {
        let (label, value) = rest.split_once("=\"").ok_or(wrong("no value of a label"))?;
        if !is_name(label) {
            return Err(wrong("no name of a label"));
        }
        let mut escaped = false;
        let end = value.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        rest = &value[end.ok_or(wrong("no end of a label"))? + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Ok((key.to_string(), value.parse().map_err(|_| wrong("no number"))?))
}

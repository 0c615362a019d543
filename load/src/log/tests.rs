//! Logs that are written, read and merged say what was recorded.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;
use crate::compare::compare;
use crate::outcome::Traffic;
use crate::status::StatusCounts;

const PERCENTILES: [f64; 7] = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 100.0];

fn latencies(times_ns: impl IntoIterator<Item = u64>) -> Latencies {
    let mut latencies = Latencies::new().unwrap();
    times_ns.into_iter().for_each(|time_ns| latencies.record(Duration::from_nanos(time_ns)));
    latencies
}

/// Times over seven powers of ten, different for each seed.
fn times_ns(seed: u64) -> impl Iterator<Item = u64> + Clone {
    (1..=1000_u64).map(move |number| (number * 7919 + seed * 104_729) % 9973 * number * number + 500)
}

fn measured_from() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_700_000_000_250)
}

fn interval(number: u64, service_ns: impl IntoIterator<Item = u64>) -> Interval {
    Interval {
        measured_from: measured_from(),
        start: Duration::from_secs(number),
        duration: Duration::from_secs(1),
        is_after_end: false,
        step: None,
        errors: 0,
        requests: crate::outcome::Requests::default(),
        traffic: Traffic::default(),
        statuses: StatusCounts::default(),
        response_times: None,
        service_times: latencies(service_ns),
        edge: Duration::from_secs(number + 1),
    }
}

/// Intervals of a second each, of an open loop whose response times are the service times and 1 ms.
fn open_loop(seeds: &[u64]) -> Vec<Interval> {
    let intervals = (0..).zip(seeds).map(|(number, seed)| {
        let mut interval = interval(number, times_ns(*seed));
        interval.response_times = Some(latencies(times_ns(*seed).map(|time_ns| time_ns + 1_000_000)));
        interval
    });
    intervals.collect()
}

fn written(intervals: Vec<Interval>) -> Vec<u8> {
    let mut text = Vec::new();
    write_log(&mut text, intervals).unwrap();
    text
}

fn parsed(name: &str, intervals: Vec<Interval>) -> Log {
    Log::parse(name, &written(intervals)).unwrap()
}

fn assert_same(found: &Latencies, expected: &Latencies) {
    assert_eq!(found.count(), expected.count());
    for percentile in PERCENTILES {
        assert_eq!(found.percentile(percentile), expected.percentile(percentile), "p{percentile}");
    }
    assert_eq!((found.min(), found.max(), found.mean()), (expected.min(), expected.max(), expected.mean()));
}

#[test]
fn a_log_has_the_percentiles_of_the_histogram_that_recorded_everything() {
    let mut intervals = open_loop(&[1, 2, 3]);
    intervals[2].is_after_end = true;
    let log = parsed("a.hdr", intervals);
    let all = || (1..=3).flat_map(times_ns);
    assert_same(&log.service_times, &latencies(all()));
    assert_same(log.times(), &latencies(all().map(|time_ns| time_ns + 1_000_000)));
    assert_eq!((log.answered(), log.answered_after_end, log.seconds.len()), (3000, 1000, 2));
    assert!((log.start_s() - 1_700_000_000.25).abs() < 1e-6, "{}", log.start_s());
    assert!((log.rate_per_s() - 1000.0).abs() < 0.01, "{}", log.rate_per_s());
    assert!(log.seconds[1].times.is_sorted(), "{:?}", log.seconds[1]);
}

#[test]
fn logs_merge_to_their_sum() {
    let logs = [parsed("a.hdr", open_loop(&[1, 2])), parsed("b.hdr", open_loop(&[3, 4, 5]))];
    let merged = Merged::new(&logs).unwrap();
    assert_same(&merged.service_times, &latencies((1..=5).flat_map(times_ns)));
    let response_times = latencies((1..=5).flat_map(times_ns).map(|time_ns| time_ns + 1_000_000));
    assert_same(merged.response_times.as_ref().unwrap(), &response_times);
    assert_eq!(merged.answered, 5000);
    // Both measured in the first two seconds, and each got 1,000 answers in each.
    assert!((merged.common_s - 2.0).abs() < 1e-6, "{}", merged.common_s);
    assert!((merged.rate_per_s.unwrap() - 2000.0).abs() < 0.01);
}

#[test]
fn logs_without_a_common_time_have_no_common_rate() {
    let mut later = open_loop(&[3]);
    later[0].measured_from += Duration::from_secs(60);
    let merged = Merged::new(&[parsed("a.hdr", open_loop(&[1])), parsed("b.hdr", later)]).unwrap();
    assert_eq!((merged.common_s, merged.rate_per_s, merged.answered), (0.0, None, 2000));
}

#[test]
fn closed_and_open_loops_do_not_mix() {
    let logs = [parsed("a.hdr", open_loop(&[1])), parsed("b.hdr", vec![interval(0, times_ns(1))])];
    assert!(logs[1].response_times.is_none());
    let error = Merged::new(&logs).unwrap_err();
    assert!(error.contains("a.hdr is the log of an open loop, b.hdr of a closed loop"), "{error}");
    assert!(compare(&logs[0], &logs[1]).is_err());
}

#[test]
fn a_log_says_its_times_as_the_format_wants_them() {
    let text = String::from_utf8(written(vec![interval(0, [2_000_000])])).unwrap();
    for line in [
        "#[StartTime: 1700000000.250 (seconds since epoch)]",
        "#[BaseTime: 1700000000.250 (seconds since epoch)]",
    ] {
        assert!(text.contains(line), "{text}");
    }
    // The longest time is in milliseconds, and the histogram is a compressed one.
    assert!(text.lines().last().unwrap().starts_with("Tag=service,0.000,1.000,2.001,HISTF"), "{text}");
}

#[test]
fn a_broken_line_is_named_with_its_file() {
    let good = String::from_utf8(written(open_loop(&[1]))).unwrap();
    let number = good.lines().count() + 1;
    let histogram = good.lines().last().unwrap().rsplit(',').next().unwrap();
    let half = &histogram[..histogram.len() / 8 * 4];
    for (line, reason) in [
        ("nonsense".to_string(), "not a line of an interval log"),
        (format!("Tag=service,x,1.0,2.0,{histogram}"), "not a line of an interval log"),
        (format!("Tag=other,1.0,1.0,2.0,{histogram}"), "the tag is other: expected response or service"),
        (format!("1.0,1.0,2.0,{histogram}"), "there is no tag"),
        ("Tag=service,1.0,1.0,2.0,HIST!".to_string(), "not base64"),
        ("Tag=service,1.0,1.0,2.0,AAAAAAAA".to_string(), "the histogram cannot be read"),
        (format!("Tag=service,1.0,1.0,2.0,{half}"), "the histogram cannot be read"),
    ] {
        let error = Log::parse("a.hdr", format!("{good}{line}\n").as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("a.hdr: line {number}: ")) && error.contains(reason), "{error}");
    }
    let cut = format!("{good}Tag=response,1.0,1.0,2.0,{histogram}\n");
    let error = Log::parse("a.hdr", cut.as_bytes()).unwrap_err().to_string();
    assert!(error.starts_with("a.hdr: ") && error.contains("incomplete"), "{error}");
    assert!(Log::parse("a.hdr", b"").unwrap_err().to_string().contains("no interval"));
    // Neither a line nor the file ends.
    let endless = Log::read(Path::new("/dev/zero")).unwrap_err().to_string();
    assert!(endless.starts_with("/dev/zero: line 1: longer than "), "{endless}");
}

#[test]
fn a_histogram_with_changed_bytes_is_an_error_or_another_histogram() {
    use hdrhistogram::serialization::{Serializer, V2Serializer};

    let mut bytes = Vec::new();
    // Without compression, whose checksum would find the changes.
    V2Serializer::new().serialize(latencies(times_ns(1)).histogram_ns(), &mut bytes).unwrap();
    let mut refused = 0;
    // Not the length of what follows, for which the parser takes memory before it looks.
    for index in (0..4).chain(8..bytes.len().min(400)) {
        for change in [1, 0x7f, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[index] ^= change;
            let line = format!("Tag=service,0.0,1.0,2.0,{}\n", STANDARD.encode(&changed));
            refused += u64::from(Log::parse("a.hdr", line.as_bytes()).is_err());
        }
    }
    assert!(refused > 0);
}

/// A run of ten seconds, in which the time of each answer is multiplied, and in second 4 by more.
fn run_of_ten(name: &str, percent: u64, stall: u64) -> Log {
    let second = |number: u64| {
        let factor = if number == 4 { stall } else { 1 };
        interval(number, times_ns(number).map(move |time_ns| time_ns * percent * factor / 100))
    };
    parsed(name, (0..10).map(second).collect())
}

#[test]
fn only_what_exceeds_the_noise_gets_a_verdict() {
    let first = run_of_ten("a.hdr", 100, 1);
    let verdicts = |other: &Log| {
        let comparison = compare(&first, other).unwrap();
        assert!(comparison.is_noise_known);
        comparison.rows.iter().map(|row| (row.name, row.is_b_better)).collect::<Vec<_>>()
    };
    assert!(verdicts(&first).iter().all(|(_, verdict)| verdict.is_none()));
    // One second of ten that was a hundred times slower may be chance.
    assert!(verdicts(&run_of_ten("b.hdr", 100, 100)).iter().all(|(_, verdict)| verdict.is_none()));
    // As many answers, but all of them slower, or faster.
    for (percent, is_b_better) in [(300, false), (30, true)] {
        let found = verdicts(&run_of_ten("b.hdr", percent, 1));
        assert_eq!(found[0], ("rate", None));
        assert!(found[1..].iter().all(|(_, verdict)| *verdict == Some(is_b_better)), "{found:?}");
    }
    let short = parsed("b.hdr", vec![interval(0, [1_000])]);
    let comparison = compare(&first, &short).unwrap();
    assert!(!comparison.is_noise_known && comparison.rows.iter().all(|row| row.is_b_better.is_none()));
}

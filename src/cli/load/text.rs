//! The results as text.

use std::fmt::Write as _;
use std::time::Duration;

use ringspun_load::{
    Arrivals, Breach, ErrorKind, Latencies, Outcome, Pace, Plan, Traffic, format_bytes, format_count,
    format_duration, format_per_s,
};

use super::{BUSY_PERCENT, histogram, http2, names, sessions, steps, workload};

/// Smaller delays of sending are normal for timers on a busy machine.
const LATE: Duration = Duration::from_millis(1);

fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", format_count(count), if count == 1 { "" } else { "s" })
}

/// Which condition ended a run.
pub fn breach(Breach { condition, value, at }: &Breach) -> String {
    format!("the run was ended after {}: {condition} held: {value}", format_duration(*at))
}

/// A share in percent, which is not rounded up to certainty.
pub fn percent_below(percent: f64) -> String {
    let floor = (percent * 10.0).floor() / 10.0;
    if percent >= 99.95 { "more than 99.9 %".to_string() } else { format!("{floor:.1} %") }
}

/// The table of results.
pub fn table(plan: &Plan, outcome: &Outcome) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_table(&mut text, plan, outcome);
    text
}

fn write_table(text: &mut String, plan: &Plan, outcome: &Outcome) -> std::fmt::Result {
    let pace = match &plan.pace {
        Pace::Closed => "closed loop".to_string(),
        Pace::Open { rate } if sessions::are_made(plan) => {
            format!("partly open loop: sessions begin at {rate}")
        }
        Pace::Open { rate } => format!("open loop at {rate}"),
        Pace::Steps(steps) if sessions::are_made(plan) => match steps.as_slice() {
            [step] => format!("partly open loop: sessions begin at {step}"),
            steps => format!("partly open loop: sessions begin in {} steps", steps.len()),
        },
        Pace::Steps(steps) if steps.len() == 1 => format!("open loop at {}", steps[0]),
        Pace::Steps(steps) => format!("open loop in {} steps", steps.len()),
    };
    let pace = match (&plan.pace, plan.arrivals) {
        (Pace::Closed, _) => pace,
        (_, Arrivals::Poisson) => format!("{pace} (Poisson)"),
        (_, Arrivals::Even) => format!("{pace} (evenly spaced)"),
    };
    let work = workload::describe(plan) + &http2::describe(plan) + &sessions::describe(plan);
    let measured = format_duration(outcome.measured);
    writeln!(
        text,
        "{}: {}, {work}, {pace}, measured for {measured} on {}",
        plan.shown_target(),
        counted(plan.connections as u64, "connection"),
        outcome.backend
    )?;
    let connections = &outcome.connections;
    let rate = format_per_s(outcome.rate_per_s());
    writeln!(text, "\nrate         {rate} {}", workload::rate_unit(&plan.workload))?;
    if outcome.traffic != Traffic::default() {
        let [sent, received] = [outcome.sent_bytes_per_s(), outcome.received_bytes_per_s()].map(format_bytes);
        writeln!(text, "traffic      {sent}/s sent, {received}/s received")?;
    }
    write_requests(text, outcome)?;
    if let Some(counts) = sessions::counts(outcome) {
        write!(text, "\nsessions     {counts}")?;
    }
    write!(
        text,
        "\nconnections  {} planned, {} opened, at most {} at a time",
        format_count(connections.wanted as u64),
        format_count(connections.opened),
        format_count(connections.open_max as u64)
    )?;
    if connections.closed_idle > 0 {
        write!(text, ", {} closed while idle", format_count(connections.closed_idle))?;
    }
    if connections.elsewhere > 0 {
        write!(text, ", {} to other servers", format_count(connections.elsewhere))?;
    }
    if connections.resumed > 0 {
        write!(text, ", {} resumed a session", format_count(connections.resumed))?;
    }
    writeln!(text)?;
    let threads = match outcome.workers {
        1 => String::new(),
        workers => format!("{workers} threads, the busiest "),
    };
    write!(text, "generator    {threads}{:.0} % busy", outcome.busy_percent())?;
    if outcome.send_delays.count() > 0 {
        let delay = |percentile| format_duration(outcome.send_delays.percentile(percentile));
        write!(text, "; send delay {} at p50, {} at p99", delay(50.0), delay(99.0))?;
    }
    writeln!(text)?;
    write_times(text, plan, outcome)?;
    names::write_table(text, outcome)?;
    steps::write_table(text, outcome)?;
    write_errors(text, outcome)?;
    write_remarks(text, plan, outcome)
}

/// Writes what became of the requests, without the line end.
fn write_requests(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let requests = &outcome.requests;
    write!(
        text,
        "requests     {} sent, {} answered",
        format_count(requests.sent),
        format_count(requests.answered)
    )?;
    for (count, what) in [
        (requests.wrong, "wrong"),
        (requests.bad_status, "with a failing status"),
        (requests.bad_body, "without the expected text"),
        (requests.timed_out, "timed out"),
        (requests.lost, "lost"),
        (requests.resent, "sent again"),
        (requests.redirects, "redirects followed"),
    ] {
        if count > 0 {
            write!(text, ", {} {what}", format_count(count))?;
        }
    }
    let has_statuses = outcome.statuses.iter().next().is_some();
    if has_statuses {
        write!(text, "\nstatuses     {}", outcome.statuses)?;
    }
    Ok(())
}

fn write_times(text: &mut String, plan: &Plan, outcome: &Outcome) -> std::fmt::Result {
    write_head(text)?;
    if outcome.handshake_times.count() > 0 {
        write_row(text, "handshake", &outcome.handshake_times)?;
    }
    if outcome.failure_times.count() > 0 {
        write_row(text, "failed after", &outcome.failure_times)?;
    }
    match &plan.pace {
        Pace::Closed => {
            write_row(text, "service time", &outcome.service_times)?;
            text.push('\n');
            histogram::write(text, "service time", &outcome.service_times)?;
            writeln!(
                text,
                "\nService time: {}. In a closed loop, a stalled target gets\nfewer requests, \
                 which hides the stall: use --rate to measure what independent users would see.",
                workload::service_span(&plan.workload)
            )
        }
        Pace::Open { .. } | Pace::Steps(_) => {
            write_row(text, "response time", &outcome.response_times)?;
            write_row(text, "service time", &outcome.service_times)?;
            text.push('\n');
            histogram::write(text, "response time", &outcome.response_times)?;
            writeln!(
                text,
                "\nResponse time: from when a request was due to its response, as users see it. Service time:\n\
                 from when it was sent, without the time it waited for a free connection."
            )
        }
    }
}

/// Writes the head of a table of times.
pub fn write_head(text: &mut String) -> std::fmt::Result {
    write!(text, "\n{:<13}", "")?;
    let heads = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];
    heads.iter().try_for_each(|head| write!(text, "{head:>9}"))
}

/// Writes a row of it, without the line end.
pub fn write_row(text: &mut String, name: &str, times: &Latencies) -> std::fmt::Result {
    write!(text, "\n{name:<13}")?;
    [50.0, 90.0, 99.0, 99.9, 99.99, 100.0]
        .iter()
        .try_for_each(|percentile| write!(text, "{:>9}", histogram::show_percentile(times, *percentile)))
}

fn write_errors(text: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let errors = &outcome.errors;
    writeln!(text, "\nerrors       {}", format_count(errors.total()))?;
    for kind in ErrorKind::ALL {
        if let Some(example) = errors.example(kind) {
            let count = format_count(errors.count(kind));
            writeln!(text, "{:>12} {}, for example: {example}", count, kind.name().replace('_', " "))?;
        }
    }
    Ok(())
}

/// Caveats about the results, in paragraphs.
pub fn remarks(plan: &Plan, outcome: &Outcome) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_remarks(&mut text, plan, outcome);
    text
}

fn write_remarks(text: &mut String, plan: &Plan, outcome: &Outcome) -> std::fmt::Result {
    let requests = &outcome.requests;
    if outcome.was_stopped {
        writeln!(text, "\nThe run was stopped early: the results cover the time until then.")?;
    }
    if plan.tls.is_insecure {
        writeln!(
            text,
            "\nThe target's certificate was not verified (--insecure): the times are those of whoever answered."
        )?;
    }
    if let Some(remark) = http2::remark(plan, outcome) {
        writeln!(text, "\n{remark}")?;
    }
    if let Some(loss) = &outcome.target_loss {
        writeln!(
            text,
            "\nThe target was lost {} before the end: nothing was answered since, and connecting failed:\n{}",
            format_duration(loss.before_end),
            loss.error
        )?;
    }
    if requests.failed() > 0 && requests.answered > 0 {
        writeln!(
            text,
            "\nThe times cover successful requests only; {} failed.",
            counted(requests.failed(), "request")
        )?;
    }
    if outcome.target_loss.is_some() {
        // That is why some were not sent.
    } else if let Some(remark) = sessions::unbegun_remark(outcome) {
        writeln!(text, "\n{remark}")?;
    } else if requests.unsent() > 0 {
        writeln!(
            text,
            "\n{} of {} requests were not sent before the end: no connection was free. The times do\nnot \
             include them, and would be worse. More connections may help.",
            format_count(requests.unsent()),
            format_count(requests.planned.unwrap_or_default())
        )?;
    }
    if outcome.started_late > LATE {
        writeln!(
            text,
            "\nThe run started {} after --start-at, because opening its connections took that long.",
            format_duration(outcome.started_late)
        )?;
    }
    if outcome.busy_percent() > BUSY_PERCENT {
        let remedy = match &plan.pace {
            Pace::Closed => "Set --rate below the rate that was reached",
            Pace::Open { .. } => "Lower --rate",
            Pace::Steps(_) => "Lower the highest rate",
        };
        writeln!(
            text,
            "\nThe generator was busy {:.0} % of the time: the latencies include its own queueing.\n{remedy}, \
             raise --workers, or use several machines.",
            outcome.busy_percent()
        )?;
    } else if is_late(outcome) {
        writeln!(
            text,
            "\nThe generator sent requests later than due although connections were free ({} at p99),\nwhich the \
             response times include: other work used its core. Give it a core of its own.",
            format_duration(outcome.send_delays.percentile(99.0))
        )?;
    }
    Ok(())
}

/// Whether the generator's own delay may account for half of the slow response times.
fn is_late(outcome: &Outcome) -> bool {
    let delay = outcome.send_delays.percentile(99.0);
    delay >= LATE && 2 * delay >= outcome.response_times.percentile(99.0)
}

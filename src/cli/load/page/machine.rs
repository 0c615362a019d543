//! Facts about the machine, and the date.

use std::fs;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Facts about the process and the machine, as rows of names and values.
pub fn facts() -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut add = |name: &str, text: String| rows.push(vec![name.to_string(), text]);
    add("program", format!("ringspun {}", env!("CARGO_PKG_VERSION")));
    if let Ok(name) = nix::sys::utsname::uname() {
        let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
        add("kernel", format!("{} {}", text(name.sysname()), text(name.release())));
        add("architecture", text(name.machine()));
    }
    if let Some(model) = processor_model() {
        add("processor", model);
    }
    let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
    let usable = thread::available_parallelism().ok();
    match (usable, online) {
        (Some(usable), Some(online)) if usize::try_from(online) != Ok(usable.get()) => {
            add("cores", format!("{usable} usable of {online}"));
        }
        (Some(usable), _) => add("cores", usable.to_string()),
        (None, Some(online)) => add("cores", online.to_string()),
        (None, None) => {}
    }
    rows
}

/// The processor model, if the kernel provides it.
fn processor_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name") || line.starts_with("Model"))?;
    line.split_once(':').map(|(_, model)| model.trim().to_string())
}

/// Formats a time in UTC, such as `2026-11-23 04:31:16 UTC`.
pub fn show_date(time: SystemTime) -> String {
    let since_1970_s = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, second) = (since_1970_s / 86_400, since_1970_s % 86_400);
    // Years start in March here, so that leap days are last. 719,468 days are from March of year 0 to 1970; an
    // era is 400 years, after which the calendar repeats.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59 UTC"),
            (1_795_408_276, "2026-11-23 04:31:16 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(show_date(UNIX_EPOCH + Duration::from_secs(seconds)), date);
        }
    }
}

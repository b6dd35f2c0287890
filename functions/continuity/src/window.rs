//! A window of the week, as ARC zonal autoshift writes its blocked windows: `Sat:20:30-Sat:21:30`, in UTC, every week.
//! <https://docs.aws.amazon.com/arc-zonal-shift/latest/api/API_PracticeRunConfiguration.html>

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: u64 = 24 * 60;
const WEEK_MINUTES: u64 = 7 * DAY_MINUTES;
/// The day of the week, counted from Monday, on which the Unix epoch began: a Thursday.
const EPOCH_DAY: u64 = 3;

/// From one minute of the week up to another, that one excluded. It may go over the end of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window {
    /// Minutes since Monday 00:00 UTC.
    from: u64,
    /// Minutes since Monday 00:00 UTC.
    until: u64,
}

/// A text that is no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no window of the week: {problem}")]
pub struct NoWindow {
    text: String,
    problem: &'static str,
}

impl NoWindow {
    /// What is wrong with the text.
    pub fn problem(&self) -> &'static str {
        self.problem
    }
}

impl Window {
    /// Whether the window is open at this time, milliseconds since the Unix epoch.
    pub fn contains(&self, now_ms: u64) -> bool {
        let minute = (now_ms / MINUTE_MS + EPOCH_DAY * DAY_MINUTES) % WEEK_MINUTES;
        if self.from < self.until {
            (self.from..self.until).contains(&minute)
        } else {
            minute >= self.from || minute < self.until
        }
    }
}

/// `Sat:20:30` as minutes of the week.
fn minute_of(text: &str) -> Result<u64, &'static str> {
    let mut parts = text.split(':');
    let (Some(day), Some(hour), Some(minute), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("its ends are a day, an hour and a minute");
    };
    let day = DAYS
        .iter()
        .position(|known| known.eq_ignore_ascii_case(day))
        .ok_or("the days are Mon, Tue, Wed, Thu, Fri, Sat, Sun")?;
    let number = |digits: &str, most: u64| {
        (digits.len() == 2)
            .then(|| digits.parse::<u64>().ok())
            .flatten()
            .filter(|number| *number <= most)
    };
    let hour = number(hour, 23).ok_or("an hour is 00 to 23")?;
    let minute = number(minute, 59).ok_or("a minute is 00 to 59")?;
    Ok(day as u64 * DAY_MINUTES + hour * 60 + minute)
}

impl FromStr for Window {
    type Err = NoWindow;

    fn from_str(text: &str) -> Result<Window, NoWindow> {
        let refused = |problem| NoWindow {
            text: text.to_owned(),
            problem,
        };
        let (from, until) = text
            .split_once('-')
            .ok_or_else(|| refused("it has no `-` between its ends"))?;
        let from = minute_of(from).map_err(refused)?;
        let until = minute_of(until).map_err(refused)?;
        if from == until {
            return Err(refused("it begins when it ends"));
        }
        Ok(Window { from, until })
    }
}

/// Minutes of the week as `Sat:20:30`.
fn text_of(minute: u64) -> String {
    let day = usize::try_from(minute / DAY_MINUTES)
        .ok()
        .and_then(|day| DAYS.get(day).copied())
        .unwrap_or_default();
    format!("{day}:{:02}:{:02}", minute % DAY_MINUTES / 60, minute % 60)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", text_of(self.from), text_of(self.until))
    }
}

impl TryFrom<String> for Window {
    type Error = NoWindow;

    fn try_from(text: String) -> Result<Window, NoWindow> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> String {
        window.to_string()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Saturday 2026-11-28 20:00 UTC.
    const SATURDAY_20_00: u64 = 1_795_896_000_000;

    #[test]
    fn windows_as_a_table() {
        let hour = 60 * MINUTE_MS;
        let rows = [
            ("Sat:20:30-Sat:21:30", 0, false, "half an hour before"),
            ("Sat:20:30-Sat:21:30", hour / 2, true, "its first minute"),
            (
                "Sat:20:30-Sat:21:30",
                hour * 3 / 2 - 1,
                true,
                "its last millisecond",
            ),
            ("Sat:20:30-Sat:21:30", hour * 3 / 2, false, "its end"),
            ("Sat:20:30-Sat:21:30", hour + 7 * 24 * hour, true, "the next week"),
            ("Fri:22:00-Mon:06:00", 0, true, "over the end of the week"),
            ("Fri:22:00-Mon:06:00", 24 * hour, true, "on Sunday"),
            ("Fri:22:00-Mon:06:00", 34 * hour, false, "on Monday at six"),
            ("Sat:20:01-Sat:20:00", 0, false, "all the week but a minute"),
            ("Sat:20:01-Sat:20:00", MINUTE_MS, true, "and after that minute"),
        ];
        for (text, after_ms, open, row) in rows {
            let window: Window = text.parse().unwrap();
            assert_eq!(window.contains(SATURDAY_20_00 + after_ms), open, "{text}: {row}");
            assert_eq!(window.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_window_is_refused_with_the_reason() {
        for (text, problem) in [
            ("Sat:20:30", "no `-`"),
            ("Sat:20-Sat:21", "a day, an hour and a minute"),
            ("Samstag:20:30-Sat:21:30", "the days are"),
            ("Sat:24:00-Sun:01:00", "an hour is"),
            ("Sat:20:60-Sun:01:00", "a minute is"),
            ("Sat:8:00-Sun:01:00", "an hour is"),
            ("Sat:20:30-Sat:20:30", "begins when it ends"),
        ] {
            let refused = text.parse::<Window>().unwrap_err().to_string();
            assert!(refused.contains(problem) && refused.contains(text), "{refused}");
        }
    }
}

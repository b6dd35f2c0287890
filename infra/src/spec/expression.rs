//! Expressions of EventBridge Scheduler: `cron(..)`, `rate(..)` and `at(..)`.
//! <https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html>

use continuity::clock;

/// Why an expression cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong.
    pub reason: String,
    /// What to write instead.
    pub fix: String,
}

fn wrong<T>(reason: impl Into<String>, fix: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong {
        reason: reason.into(),
        fix: fix.into(),
    })
}

const EXAMPLE: &str = "use for example \"cron(0 6 ? * TUE *)\", which is each Tuesday at 06:00 UTC";

/// Checks an expression.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check(expression: &str) -> Result<(), Wrong> {
    let Some((kind, rest)) = expression.split_once('(') else {
        return wrong("it is no schedule expression", EXAMPLE);
    };
    let Some(inner) = rest.strip_suffix(')') else {
        return wrong("its closing parenthesis is missing, or not the end", EXAMPLE);
    };
    match kind {
        "cron" => cron(inner),
        "rate" => rate(inner),
        "at" => at(inner),
        _ => wrong(
            format!("there is no \"{kind}(..)\""),
            format!("begin with cron, rate or at: {EXAMPLE}"),
        ),
    }
}

/// The first time after `now_ms` (both milliseconds since the Unix epoch) at which a schedule of this expression runs, in UTC. None
/// where that cannot be known from the expression: a rate counts from when the schedule was made, `W`, `L` and `#` are left to the
/// Scheduler; or where there is none any more.
pub fn next(expression: &str, now_ms: u64) -> Option<u64> {
    let (kind, rest) = expression.split_once('(')?;
    let inner = rest.strip_suffix(')')?;
    let at_ms = match kind {
        "at" => moment(inner)?,
        "cron" => next_of_cron(inner, now_ms)?,
        _ => return None,
    };
    (at_ms > now_ms).then_some(at_ms)
}

const DAY_MS: u64 = 86_400_000;
/// Days that are looked through: a 29th of February on a given weekday may be 40 years away, but nobody schedules that.
const DAYS_AHEAD: u64 = 366 * 8;

fn moment(inner: &str) -> Option<u64> {
    let number = |from: usize, to: usize| inner.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    // From the day before the year begins at the earliest: 365.2425 days a year.
    let first = year.checked_sub(1970)? * 365;
    let days = (first..first + 400).find(|days| clock::civil(*days) == (year, month, day))?;
    Some(days * DAY_MS + (number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?) * 1000)
}

fn next_of_cron(inner: &str, now_ms: u64) -> Option<u64> {
    let texts: Vec<&str> = inner.split_whitespace().collect();
    let matches = |at: usize, value: u64| {
        FIELDS
            .get(at)?
            .matches(texts.get(at)?, u32::try_from(value).ok()?)
    };
    let today = now_ms / DAY_MS;
    for days in today..today + DAYS_AHEAD {
        let (year, month, day) = clock::civil(days);
        // The Unix epoch began on a Thursday; Sunday is 1.
        let weekday = (days + 4) % 7 + 1;
        if !(matches(5, year)? && matches(3, month)? && matches(2, day)? && matches(4, weekday)?) {
            continue;
        }
        for minute in 0..1440 {
            let at_ms = days * DAY_MS + minute * 60_000;
            if at_ms > now_ms && matches(1, minute / 60)? && matches(0, minute % 60)? {
                return Some(at_ms);
            }
        }
    }
    None
}

fn rate(inner: &str) -> Result<(), Wrong> {
    let example = "use for example \"rate(7 days)\"";
    let parts: Vec<&str> = inner.split_whitespace().collect();
    let &[value, unit] = parts.as_slice() else {
        return wrong("a rate is a number and a unit", example);
    };
    let positive =
        value.bytes().all(|b| b.is_ascii_digit()) && value.parse::<u32>().is_ok_and(|value| value > 0);
    if !positive {
        return wrong(format!("\"{value}\" is not a positive whole number"), example);
    }
    if !["minute", "minutes", "hour", "hours", "day", "days"].contains(&unit) {
        return wrong(format!("\"{unit}\" is no unit"), "use minutes, hours or days");
    }
    let is_one = value.parse() == Ok(1);
    if is_one == unit.ends_with('s') {
        let unit = unit.trim_end_matches('s');
        let right = if is_one {
            unit.to_owned()
        } else {
            format!("{unit}s")
        };
        return wrong(
            "number and unit do not agree",
            format!("use \"rate({value} {right})\""),
        );
    }
    Ok(())
}

fn at(inner: &str) -> Result<(), Wrong> {
    let example = "use for example \"at(2027-01-31T06:00:00)\"";
    let shape = inner.len() == 19
        && inner
            .bytes()
            .zip("0000-00-00T00:00:00".bytes())
            .all(|(given, shape)| match shape {
                b'0' => given.is_ascii_digit(),
                other => given == other,
            });
    if !shape {
        return wrong("a moment is yyyy-mm-ddThh:mm:ss, without a zone", example);
    }
    let number = |from: usize, to: usize| inner[from..to].parse::<u32>().unwrap_or(u32::MAX);
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    let exists =
        (1..=days).contains(&day) && number(11, 13) <= 23 && number(14, 16) <= 59 && number(17, 19) <= 59;
    if exists {
        Ok(())
    } else {
        wrong("there is no such moment", example)
    }
}

/// One field of a cron expression.
struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    /// Names of the values, from `least` on.
    names: &'static [&'static str],
    /// Special characters beyond `, - * /`.
    special: &'static str,
}

const FIELDS: [Field; 6] = [
    Field {
        name: "minutes",
        least: 0,
        most: 59,
        names: &[],
        special: "",
    },
    Field {
        name: "hours",
        least: 0,
        most: 23,
        names: &[],
        special: "",
    },
    Field {
        name: "day of month",
        least: 1,
        most: 31,
        names: &[],
        special: "?LW",
    },
    Field {
        name: "month",
        least: 1,
        most: 12,
        names: &[
            "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
        ],
        special: "",
    },
    Field {
        name: "day of week",
        least: 1,
        most: 7,
        names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
        special: "?L#",
    },
    Field {
        name: "year",
        least: 1970,
        most: 2199,
        names: &[],
        special: "",
    },
];

fn cron(inner: &str) -> Result<(), Wrong> {
    let parts: Vec<&str> = inner.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return wrong(
            format!("a cron expression has six fields, this one {}", parts.len()),
            "write minutes, hours, day of month, month, day of week, year: cron(0 6 ? * TUE *)",
        );
    }
    for (field, text) in FIELDS.iter().zip(&parts) {
        field.check(text)?;
    }
    match (parts[2], parts[4]) {
        ("?", "?") => wrong(
            "day of month and day of week are both \"?\"",
            "give one of the two a value or \"*\"",
        ),
        ("?", _) | (_, "?") => Ok(()),
        _ => wrong(
            "day of month and day of week are both given",
            "write \"?\" for one of the two",
        ),
    }
}

impl Field {
    fn check(&self, text: &str) -> Result<(), Wrong> {
        if text == "?" && self.special.contains('?') {
            return Ok(());
        }
        if text.contains('#') && text.contains(',') {
            return wrong(
                format!("the {} \"{text}\" combines \"#\" with a list", self.name),
                "use one day with \"#\"",
            );
        }
        for item in text.split(',') {
            if !self.item(item) {
                let names = match (self.names.first(), self.names.last()) {
                    (Some(first), Some(last)) => format!(" or {first} to {last}"),
                    _ => String::new(),
                };
                let mut special = "*".to_owned();
                for c in self.special.chars() {
                    special.push_str(&format!(" {c}"));
                }
                return wrong(
                    format!("\"{item}\" is no {}", self.name),
                    format!(
                        "use {} to {}{names}, lists with \",\", ranges with \"-\", steps with \"/\", or {special}",
                        self.least, self.most
                    ),
                );
            }
        }
        Ok(())
    }

    /// `*`, a value, a range, or one of these with a step; and what only this field can have.
    fn item(&self, item: &str) -> bool {
        let has = |c: char| self.special.contains(c);
        if has('W')
            && (item == "LW"
                || item
                    .strip_suffix('W')
                    .is_some_and(|day| self.value(day).is_some()))
        {
            return true;
        }
        if has('L') {
            if item == "L" {
                return true;
            }
            // The last Friday of the month; or days before its end.
            if has('#')
                && item
                    .strip_suffix('L')
                    .is_some_and(|day| self.value(day).is_some())
            {
                return true;
            }
            let before_end = item.strip_prefix("L-").and_then(|days| days.parse::<u32>().ok());
            if !has('#') && before_end.is_some_and(|days| (1..=30).contains(&days)) {
                return true;
            }
        }
        if has('#')
            && let Some((day, which)) = item.split_once('#')
        {
            return self.value(day).is_some() && matches!(which, "1" | "2" | "3" | "4" | "5");
        }
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        let step_is_good = step.is_none_or(|step| {
            step.bytes().all(|b| b.is_ascii_digit())
                && step
                    .parse::<u32>()
                    .is_ok_and(|step| step > 0 && step <= self.most)
        });
        let range_is_good = match range.split_once('-') {
            None => range == "*" || self.value(range).is_some(),
            Some((from, to)) => match (self.value(from), self.value(to)) {
                (Some(from), Some(to)) => from <= to,
                _ => false,
            },
        };
        step_is_good && range_is_good
    }

    /// Whether the field, which was checked, holds for a value. None for what only the Scheduler knows.
    fn matches(&self, text: &str, value: u32) -> Option<bool> {
        if text == "?" {
            return Some(true);
        }
        for item in text.split(',') {
            let (range, step) = match item.split_once('/') {
                Some((range, step)) => (range, step.parse().ok()?),
                None => (item, 1),
            };
            let (from, to) = match range.split_once('-') {
                None if range == "*" => (self.least, self.most),
                // A value with a step goes on to the end.
                None if item.contains('/') => (self.value(range)?, self.most),
                None => (self.value(range)?, self.value(range)?),
                Some((from, to)) => (self.value(from)?, self.value(to)?),
            };
            if (from..=to).contains(&value) && (value - from).is_multiple_of(step) {
                return Some(true);
            }
        }
        Some(false)
    }

    fn value(&self, text: &str) -> Option<u32> {
        let upper = text.to_uppercase();
        if let Some(position) = self.names.iter().position(|name| *name == upper) {
            return Some(self.least + u32::try_from(position).ok()?);
        }
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        text.parse()
            .ok()
            .filter(|value| (self.least..=self.most).contains(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_run_as_a_table() {
        // Friday 2026-11-27 02:00:30 UTC.
        const NOW_MS: u64 = 1_795_744_830_000;
        let at = |text: &str| moment(text).expect("a moment");
        for (expression, expected) in [
            ("cron(0 6 ? * TUE *)", Some("2026-12-01T06:00:00")),
            ("cron(15 12 * * ? *)", Some("2026-11-27T12:15:00")),
            ("cron(0/20 2 * * ? *)", Some("2026-11-27T02:20:00")),
            ("cron(0 2 27 NOV ? *)", Some("2027-11-27T02:00:00")),
            ("cron(0 0 29 2 ? *)", Some("2028-02-29T00:00:00")),
            ("cron(30 1 ? * 2-6 2027)", Some("2027-01-01T01:30:00")),
            ("cron(0 6 ? * TUE 2025)", None),
            ("cron(0 6 L * ? *)", None),
            ("rate(7 days)", None),
            ("at(2027-01-31T06:00:00)", Some("2027-01-31T06:00:00")),
            ("at(2026-01-31T06:00:00)", None),
        ] {
            assert_eq!(next(expression, NOW_MS), expected.map(at), "{expression}");
        }
        assert_eq!(at("2026-11-27T02:00:30"), NOW_MS);
    }

    #[test]
    fn what_the_scheduler_takes_is_taken() {
        for good in [
            "cron(0 6 ? * TUE *)",
            "cron(15 12 * * ? *)",
            "cron(0 18 ? * MON-FRI *)",
            "cron(0/15 8-17 1,15 JAN,JUN ? 2026-2030)",
            "cron(0 6 L * ? *)",
            "cron(0 6 L-3 * ? *)",
            "cron(0 6 LW * ? *)",
            "cron(0 6 3W * ? *)",
            "cron(0 6 ? * 6L *)",
            "cron(0 6 ? * TUE#2 *)",
            "cron(0 6 ? * tue *)",
            "rate(1 day)",
            "rate(14 days)",
            "rate(90 minutes)",
            "at(2028-02-29T06:00:00)",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_it_refuses_is_refused_with_the_reason() {
        for (bad, reason) in [
            ("every tuesday", "it is no schedule expression"),
            ("cron(0 6 ? * TUE *", "closing parenthesis"),
            ("cron(0 6 ? * TUE *) ", "closing parenthesis"),
            ("Cron(0 6 ? * TUE *)", "there is no \"Cron(..)\""),
            ("cron(0 6 * * TUE)", "six fields, this one 5"),
            ("cron(0 6 * * TUE *)", "are both given"),
            ("cron(0 6 ? * ? *)", "are both \"?\""),
            ("cron(60 6 ? * TUE *)", "\"60\" is no minutes"),
            ("cron(0 24 ? * TUE *)", "\"24\" is no hours"),
            ("cron(0 6 0 * ? *)", "\"0\" is no day of month"),
            ("cron(0 6 32W * ? *)", "\"32W\" is no day of month"),
            ("cron(0 6 ? 13 TUE *)", "\"13\" is no month"),
            ("cron(0 6 ? * TUES *)", "\"TUES\" is no day of week"),
            ("cron(0 6 ? * TUE#6 *)", "\"TUE#6\" is no day of week"),
            ("cron(0 6 ? * 3#1,6#3 *)", "combines"),
            ("cron(0 6 ? * FRI-MON *)", "\"FRI-MON\" is no day of week"),
            ("cron(? 6 ? * TUE *)", "\"?\" is no minutes"),
            ("cron(0 6 ? * TUE 1969)", "\"1969\" is no year"),
            ("cron(0/0 6 ? * TUE *)", "\"0/0\" is no minutes"),
            ("rate(1 days)", "do not agree"),
            ("rate(7 day)", "do not agree"),
            ("rate(0 days)", "not a positive whole number"),
            ("rate(+7 days)", "not a positive whole number"),
            ("rate(7 weeks)", "\"weeks\" is no unit"),
            ("rate(7)", "a number and a unit"),
            ("at(2027-02-29T06:00:00)", "no such moment"),
            ("at(2027-01-31T24:00:00)", "no such moment"),
            ("at(2027-01-31T06:00:00Z)", "without a zone"),
            ("at(2027-01-31)", "without a zone"),
        ] {
            match check(bad) {
                Ok(()) => panic!("`{bad}` was taken"),
                Err(wrong) => assert!(wrong.reason.contains(reason), "{bad}: {wrong:?}"),
            }
        }
    }
}

//! The clock, passed in wherever a decision depends on time.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, from the system clock. Only `main` functions and effects call this; decisions take
/// the time as an argument.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| {
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Year, month and day of the Gregorian calendar, for days since 1970-01-01: Howard Hinnant's `civil_from_days`,
/// <https://howardhinnant.github.io/date_algorithms.html>.
pub fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let of_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * of_march + 2) / 5 + 1;
    let month = if of_march < 10 { of_march + 3 } else { of_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

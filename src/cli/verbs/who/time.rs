// SPDX-License-Identifier: GPL-2.0-or-later
//! Points in time as people write them.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::{Timestamp, Zoned};

/// Why a text is no point in the past.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TimeError {
    #[error(
        "'{0}' is not a time; write 2026-11-21T14:30:00Z, '2026-11-21 14:30:00', an age such as \
         -90s, -15m, -1h or -2d, or now"
    )]
    Form(String),
    #[error(
        "the local clock showed '{0}' twice or not at all; write it with its offset from UTC, as \
         in 2026-11-21T14:30:00+01:00"
    )]
    Ambiguous(String),
    #[error("'{0}' is in the future")]
    Future(String),
}

/// Reads a time; `None` is now. `now` has the time zone that is meant where none is written.
pub(super) fn parse(text: &str, now: &Zoned) -> Result<Option<Timestamp>, TimeError> {
    if text == "now" {
        return Ok(None);
    }
    let bad = || TimeError::Form(text.to_owned());
    let at = if let Some(age) = text.strip_prefix('-') {
        let age = self::age(age).ok_or_else(bad)?;
        now.timestamp().checked_sub(age).map_err(|_| bad())?
    } else if let Ok(at) = text.parse::<Timestamp>() {
        at
    } else {
        let local: DateTime = text.parse().map_err(|_| bad())?;
        let zone = now.time_zone();
        let found = zone.to_ambiguous_timestamp(local).unambiguous();
        found.map_err(|_| TimeError::Ambiguous(text.to_owned()))?
    };
    if at > now.timestamp() {
        return Err(TimeError::Future(text.to_owned()));
    }
    Ok(Some(at))
}

/// A number and its unit.
fn age(text: &str) -> Option<Duration> {
    let number = text.get(..text.len().checked_sub(1)?)?;
    let seconds = match text.as_bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3_600,
        b'd' => 86_400,
        _ => return None,
    };
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let total = number.parse::<u64>().ok()?.checked_mul(seconds)?;
    Some(Duration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where clocks go back an hour in autumn.
    fn now() -> Zoned {
        "2026-11-21T15:00:00+01:00[Europe/Berlin]".parse().unwrap()
    }

    #[test]
    fn times_are_read() {
        assert_eq!(parse("now", &now()), Ok(None));
        for (text, utc) in [
            ("-0s", "2026-11-21T14:00:00Z"),
            ("-90s", "2026-11-21T13:58:30Z"),
            ("-15m", "2026-11-21T13:45:00Z"),
            ("-1h", "2026-11-21T13:00:00Z"),
            ("-2d", "2026-11-19T14:00:00Z"),
            ("2026-11-21T13:14:15.678Z", "2026-11-21T13:14:15.678Z"),
            ("2026-11-21T13:14:15+01:00", "2026-11-21T12:14:15Z"),
            ("2026-11-21 13:14:15", "2026-11-21T12:14:15Z"),
            ("2026-07-01 13:14:15", "2026-07-01T11:14:15Z"),
        ] {
            assert_eq!(
                parse(text, &now()),
                Ok(Some(utc.parse().unwrap())),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "-",
            "-h",
            "-1",
            "-1w",
            "--1h",
            "-1.5h",
            "-99999999999999999999h",
            "-9999999999999999s",
            "13:14",
            "2026-13-01 00:00:00",
            "-1ü",
        ] {
            assert_eq!(parse(text, &now()), Err(TimeError::Form(text.to_owned())));
        }
        for text in ["2026-10-25 02:30:00", "2026-03-29 02:30:00"] {
            assert_eq!(
                parse(text, &now()),
                Err(TimeError::Ambiguous(text.to_owned()))
            );
        }
        let text = "2026-11-21T14:00:01Z";
        assert_eq!(parse(text, &now()), Err(TimeError::Future(text.to_owned())));
    }
}

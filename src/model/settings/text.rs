// SPDX-License-Identifier: GPL-2.0-or-later
//! How values of settings are written.

use super::SettingError;

pub(super) fn parse_bool(text: &str) -> Result<bool, SettingError> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(SettingError::Bool(text.to_owned())),
    }
}

/// Reads a whole decimal number from 0 to `max`.
///
/// # Errors
/// [`SettingError::NotANumber`], [`SettingError::Range`].
pub fn parse_number(text: &str, max: u32) -> Result<u32, SettingError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(SettingError::NotANumber(text.to_owned()));
    }
    match text.parse::<u32>() {
        Ok(n) if n <= max => Ok(n),
        _ => Err(SettingError::Range(text.to_owned(), 0, max.into())),
    }
}

pub(super) fn parse_plateaus(text: &str) -> Result<Vec<u16>, SettingError> {
    if text.is_empty() {
        return Err(SettingError::NoPlateaus);
    }
    text.split(',')
        .map(|n| parse_number(n, u16::MAX.into()).map(|n| n as u16))
        .collect()
}

/// Reads `[HH:[MM:]]SS[.mmm]` as milliseconds.
///
/// # Errors
/// [`SettingError::Duration`], [`SettingError::Millis`].
pub fn parse_duration(text: &str) -> Result<u64, SettingError> {
    let bad = || SettingError::Duration(text.to_owned());
    let digits = |t: &str| -> Result<u64, SettingError> {
        if t.is_empty() || !t.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        t.parse().map_err(|_| bad())
    };
    let (clock, millis) = match text.split_once('.') {
        Some((clock, fraction)) => {
            let millis = digits(fraction)?;
            if fraction.len() != 3 {
                return Err(SettingError::Millis(text.to_owned()));
            }
            (clock, millis)
        }
        None => (text, 0),
    };
    let parts: Vec<&str> = clock.split(':').collect();
    if parts.len() > 3 {
        return Err(bad());
    }
    let mut seconds = 0u64;
    for part in parts {
        seconds = seconds
            .checked_mul(60)
            .and_then(|s| s.checked_add(digits(part).ok()?))
            .ok_or_else(bad)?;
    }
    seconds
        .checked_mul(1000)
        .and_then(|ms| ms.checked_add(millis))
        .filter(|ms| *ms <= LONGEST)
        .ok_or_else(bad)
}

/// Writes milliseconds as `H:MM:SS`, with `.mmm` behind it only where it is not zero.
pub fn format_duration(ms: u64) -> String {
    let (s, ms) = (ms / 1000, ms % 1000);
    let clock = format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
    if ms == 0 {
        clock
    } else {
        format!("{clock}.{ms:03}")
    }
}

/// One cap for all durations, in milliseconds: far beyond any use, safe to add to any point in
/// time, exact in JSON.
pub(super) const LONGEST: u64 = 1 << 53;

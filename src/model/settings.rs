// SPDX-License-Identifier: GPL-2.0-or-later
//! The settings of an instance ("globals"): one table that the command line, the daemon and the
//! database share.
//!
//! A text becomes a [`Value`] by [`Setting::parse`] (form only); a value becomes part of
//! [`Settings`] by [`Settings::set`] (meaning: ranges, RFC minimums). What exists is valid.

use serde::{Deserialize, Serialize};

use crate::base::prefix::{Pool6, Prefix6, PrefixError};

/// What kind of value a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    /// 0 to 255.
    Byte,
    /// 0 to 4294967295.
    Number,
    /// Milliseconds, written `[HH:[MM:]]SS[.mmm]`.
    Duration,
    /// MTU plateaus, written `1500,1280,576`.
    Plateaus,
    /// An IPv6 prefix, or `null`.
    Prefix6,
}

/// A value of the right form whose meaning is not checked yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Value {
    Bool(bool),
    Number(u32),
    /// Milliseconds.
    Duration(u64),
    Plateaus(Vec<u16>),
    Prefix6(Option<Prefix6>),
}

impl Value {
    /// The error for a setting that takes another kind of value.
    const fn unfit(&self, key: &'static str) -> SettingError {
        SettingError::Kind(key, self.kind())
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Duration(_) => "a duration",
            Self::Plateaus(_) => "a list of plateaus",
            Self::Prefix6(_) => "an IPv6 prefix",
        }
    }
}

/// Why a value was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    #[error("'{0}' is not a setting")]
    Unknown(String),
    #[error("'{0}' is neither true nor false (write true, false, 1, 0, yes, no, on or off)")]
    Bool(String),
    #[error("'{0}' is not a whole number")]
    NotANumber(String),
    #[error("'{0}' is out of range ({1}-{2})")]
    Range(String, u64, u64),
    #[error("'{0}' is not a duration; write [HH:[MM:]]SS[.mmm], for example 0:05:00")]
    Duration(String),
    #[error("the fraction of '{0}' must have three digits (milliseconds)")]
    Millis(String),
    #[error("the list of plateaus is empty; write numbers, for example 1500,1280,576")]
    NoPlateaus,
    #[error("{0} plateaus are too many (at most 64)")]
    TooManyPlateaus(usize),
    #[error("the list of plateaus holds nothing but zeroes")]
    ZeroPlateaus,
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    #[error("'{0}' does not take {1}")]
    Kind(&'static str, &'static str),
    #[error("{key} ({given}) is too small; the minimum is {minimum}")]
    TooSmall {
        key: &'static str,
        given: String,
        minimum: String,
    },
    #[error("a NAT64 instance needs pool6; it cannot be unset")]
    Pool6Mandatory,
    #[error(
        "the pool6 of a NAT64 instance cannot be changed ({0} is in use); remove the instance and add it anew"
    )]
    Pool6Fixed(Pool6),
}

/// One row of the table of settings.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub key: &'static str,
    pub kind: Kind,
    get: fn(&Settings) -> Value,
    set: fn(&mut Settings, Value) -> Result<(), SettingError>,
}

/// The settings of one NAT64 instance. `Default` holds the documented defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Settings {
    pub manually_enabled: bool,
    pub pool6: Option<Pool6>,
    pub lowest_ipv6_mtu: u32,
    pub logging_debug: bool,
    pub zeroize_traffic_class: bool,
    pub override_tos: bool,
    pub tos: u8,
    /// Descending, without zeroes or duplicates.
    pub mtu_plateaus: Vec<u16>,
    pub address_dependent_filtering: bool,
    pub drop_externally_initiated_tcp: bool,
    pub drop_icmpv6_info: bool,
    pub source_icmpv6_errors_better: bool,
    pub f_args: u8,
    pub handle_rst_during_fin_rcv: bool,
    /// Milliseconds, as all timeouts.
    pub tcp_est_timeout: u64,
    pub tcp_trans_timeout: u64,
    pub udp_timeout: u64,
    pub icmp_timeout: u64,
    pub logging_bib: bool,
    pub logging_session: bool,
    pub maximum_simultaneous_opens: u32,
    pub ss_enabled: bool,
    pub ss_flush_asap: bool,
    pub ss_flush_deadline: u32,
    pub ss_capacity: u32,
    pub ss_max_payload: u32,
    pub ss_max_sessions_per_packet: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            manually_enabled: true,
            pool6: None,
            lowest_ipv6_mtu: 1280,
            logging_debug: false,
            zeroize_traffic_class: false,
            override_tos: false,
            tos: 0,
            mtu_plateaus: DEFAULT_PLATEAUS.to_vec(),
            address_dependent_filtering: false,
            drop_externally_initiated_tcp: false,
            drop_icmpv6_info: false,
            source_icmpv6_errors_better: true,
            f_args: 0b1011,
            handle_rst_during_fin_rcv: false,
            tcp_est_timeout: 2 * HOUR,
            tcp_trans_timeout: 4 * MINUTE,
            udp_timeout: 5 * MINUTE,
            icmp_timeout: MINUTE,
            logging_bib: false,
            logging_session: false,
            maximum_simultaneous_opens: 10,
            ss_enabled: false,
            ss_flush_asap: false,
            ss_flush_deadline: 2000,
            ss_capacity: 512,
            ss_max_payload: 1452,
            ss_max_sessions_per_packet: 36,
        }
    }
}

impl Settings {
    /// Takes `value` for `key`.
    ///
    /// # Errors
    /// Unknown keys, values of the wrong kind and values out of range; nothing changes then.
    pub fn set(&mut self, key: &str, value: Value) -> Result<(), SettingError> {
        let setting = Setting::find(key).ok_or_else(|| SettingError::Unknown(key.to_owned()))?;
        (setting.set)(self, value)
    }
}

impl Setting {
    /// Every setting of NAT64, in display order.
    pub const ALL: &[Self] = SETTINGS;

    pub fn find(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|s| s.key == key)
    }

    pub fn value(&self, settings: &Settings) -> Value {
        (self.get)(settings)
    }

    /// Reads a text as this setting's kind of value. Its meaning is checked by [`Settings::set`].
    ///
    /// # Errors
    /// The text is not of the form that [`Kind`] describes.
    pub fn parse(&self, text: &str) -> Result<Value, SettingError> {
        Ok(match self.kind {
            Kind::Bool => Value::Bool(parse_bool(text)?),
            Kind::Byte => Value::Number(parse_number(text, u8::MAX.into())?),
            Kind::Number => Value::Number(parse_number(text, u32::MAX)?),
            Kind::Duration => Value::Duration(parse_duration(text)?),
            Kind::Plateaus => Value::Plateaus(parse_plateaus(text)?),
            Kind::Prefix6 if text == "null" => Value::Prefix6(None),
            Kind::Prefix6 => Value::Prefix6(Some(text.parse()?)),
        })
    }
}

fn parse_bool(text: &str) -> Result<bool, SettingError> {
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

fn parse_plateaus(text: &str) -> Result<Vec<u16>, SettingError> {
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

fn lifetime(key: &'static str, given: u64, minimum: u64) -> Result<u64, SettingError> {
    if given < minimum {
        return Err(SettingError::TooSmall {
            key,
            given: format_duration(given),
            minimum: format_duration(minimum),
        });
    }
    if given > LONGEST {
        return Err(SettingError::Range(given.to_string(), minimum, LONGEST));
    }
    Ok(given)
}

macro_rules! setting {
    ($key:literal, $field:ident, Bool) => {
        Setting {
            key: $key,
            kind: Kind::Bool,
            get: |s| Value::Bool(s.$field),
            set: |s, v| match v {
                Value::Bool(v) => {
                    s.$field = v;
                    Ok(())
                }
                other => Err(other.unfit($key)),
            },
        }
    };
    ($key:literal, $field:ident, Byte, $max:literal) => {
        Setting {
            key: $key,
            kind: Kind::Byte,
            get: |s| Value::Number(s.$field.into()),
            set: |s, v| match v {
                Value::Number(v) if v <= $max => {
                    s.$field = v as u8;
                    Ok(())
                }
                Value::Number(v) => Err(SettingError::Range(v.to_string(), 0, $max)),
                other => Err(other.unfit($key)),
            },
        }
    };
    ($key:literal, $field:ident, Number) => {
        Setting {
            key: $key,
            kind: Kind::Number,
            get: |s| Value::Number(s.$field),
            set: |s, v| match v {
                Value::Number(v) => {
                    s.$field = v;
                    Ok(())
                }
                other => Err(other.unfit($key)),
            },
        }
    };
    ($key:literal, $field:ident, Duration, $min:expr) => {
        Setting {
            key: $key,
            kind: Kind::Duration,
            get: |s| Value::Duration(s.$field),
            set: |s, v| match v {
                Value::Duration(v) => {
                    s.$field = lifetime($key, v, $min)?;
                    Ok(())
                }
                other => Err(other.unfit($key)),
            },
        }
    };
}

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// One cap for all durations, in milliseconds: far beyond any use, safe to add to any point in
/// time, exact in JSON.
const LONGEST: u64 = 1 << 53;

/// RFC 1191 section 7.1, as Jool ships it.
const DEFAULT_PLATEAUS: [u16; 11] = [
    65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68,
];

const SETTINGS: &[Setting] = &[
    setting!("manually-enabled", manually_enabled, Bool),
    Setting {
        key: "pool6",
        kind: Kind::Prefix6,
        get: |s| Value::Prefix6(s.pool6.map(|p| p.prefix())),
        set: |s, v| {
            let Value::Prefix6(prefix) = v else {
                return Err(v.unfit("pool6"));
            };
            let new = Pool6::new(prefix.ok_or(SettingError::Pool6Mandatory)?)?;
            match s.pool6 {
                Some(old) if old != new => Err(SettingError::Pool6Fixed(old)),
                _ => {
                    s.pool6 = Some(new);
                    Ok(())
                }
            }
        },
    },
    Setting {
        key: "lowest-ipv6-mtu",
        kind: Kind::Number,
        get: |s| Value::Number(s.lowest_ipv6_mtu),
        set: |s, v| {
            let Value::Number(mtu) = v else {
                return Err(v.unfit("lowest-ipv6-mtu"));
            };
            if mtu < 1280 {
                return Err(SettingError::TooSmall {
                    key: "lowest-ipv6-mtu",
                    given: mtu.to_string(),
                    minimum: "1280".to_owned(),
                });
            }
            s.lowest_ipv6_mtu = mtu;
            Ok(())
        },
    },
    setting!("logging-debug", logging_debug, Bool),
    setting!("zeroize-traffic-class", zeroize_traffic_class, Bool),
    setting!("override-tos", override_tos, Bool),
    setting!("tos", tos, Byte, 255),
    Setting {
        key: "mtu-plateaus",
        kind: Kind::Plateaus,
        get: |s| Value::Plateaus(s.mtu_plateaus.clone()),
        set: |s, v| {
            let Value::Plateaus(mut list) = v else {
                return Err(v.unfit("mtu-plateaus"));
            };
            if list.len() > 64 {
                return Err(SettingError::TooManyPlateaus(list.len()));
            }
            list.retain(|n| *n != 0);
            list.sort_unstable_by(|a, b| b.cmp(a));
            list.dedup();
            if list.is_empty() {
                return Err(SettingError::ZeroPlateaus);
            }
            s.mtu_plateaus = list;
            Ok(())
        },
    },
    setting!(
        "address-dependent-filtering",
        address_dependent_filtering,
        Bool
    ),
    setting!(
        "drop-externally-initiated-tcp",
        drop_externally_initiated_tcp,
        Bool
    ),
    setting!("drop-icmpv6-info", drop_icmpv6_info, Bool),
    setting!(
        "source-icmpv6-errors-better",
        source_icmpv6_errors_better,
        Bool
    ),
    setting!("f-args", f_args, Byte, 15),
    setting!("handle-rst-during-fin-rcv", handle_rst_during_fin_rcv, Bool),
    //= rfc6146#section-4
    setting!("tcp-est-timeout", tcp_est_timeout, Duration, 2 * HOUR),
    setting!("tcp-trans-timeout", tcp_trans_timeout, Duration, 4 * MINUTE),
    setting!("udp-timeout", udp_timeout, Duration, 2 * MINUTE),
    setting!("icmp-timeout", icmp_timeout, Duration, 0),
    setting!("logging-bib", logging_bib, Bool),
    setting!("logging-session", logging_session, Bool),
    setting!(
        "maximum-simultaneous-opens",
        maximum_simultaneous_opens,
        Number
    ),
    setting!("ss-enabled", ss_enabled, Bool),
    setting!("ss-flush-asap", ss_flush_asap, Bool),
    setting!("ss-flush-deadline", ss_flush_deadline, Number),
    setting!("ss-capacity", ss_capacity, Number),
    setting!("ss-max-payload", ss_max_payload, Number),
    setting!(
        "ss-max-sessions-per-packet",
        ss_max_sessions_per_packet,
        Number
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, ms) in [
            ("0", 0),
            ("90", 90_000),
            ("5:00", 300_000),
            ("2:00:00", 7_200_000),
            ("0:00:01.500", 1_500),
            ("99:99", 99 * 60_000 + 99_000),
        ] {
            assert_eq!(parse_duration(text), Ok(ms), "{text}");
        }
        for text in [
            "",
            "soon",
            "1:",
            "1:2:3:4",
            "-1",
            "1.5",
            "1.1234",
            "99999999999999999999",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(format_duration(7_177_123), "1:59:37.123");
        assert_eq!(format_duration(300_000), "0:05:00");
    }

    #[test]
    fn every_default_can_be_set_again() {
        let mut settings = Settings {
            pool6: Some("64:ff9b::/96".to_owned().try_into().unwrap()),
            ..Settings::default()
        };
        let before = settings.clone();
        for setting in Setting::ALL {
            settings.set(setting.key, setting.value(&before)).unwrap();
        }
        assert_eq!(settings, before);
    }

    //= rfc6146#section-4
    //= type=test
    #[test]
    fn bad_values_change_nothing() {
        let mut settings = Settings::default();
        for (key, value) in [
            ("tos", Value::Number(256)),
            ("tos", Value::Bool(true)),
            ("f-args", Value::Number(16)),
            ("lowest-ipv6-mtu", Value::Number(1279)),
            ("udp-timeout", Value::Duration(60_000)),
            ("udp-timeout", Value::Duration((1 << 53) + 1)),
            ("mtu-plateaus", Value::Plateaus(vec![0])),
            ("pool6", Value::Prefix6(None)),
            ("nothing", Value::Bool(true)),
        ] {
            assert!(settings.set(key, value).is_err(), "{key}");
        }
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn plateaus_are_sorted_and_cleaned() {
        let mut settings = Settings::default();
        settings
            .set(
                "mtu-plateaus",
                Value::Plateaus(vec![100, 0, 1500, 600, 600]),
            )
            .unwrap();
        assert_eq!(settings.mtu_plateaus, [1500, 600, 100]);
    }
}

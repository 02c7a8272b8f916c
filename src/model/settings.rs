// SPDX-License-Identifier: GPL-2.0-or-later
//! The settings of an instance ("globals"): one table that the command line, the daemon and the
//! database share.
//!
//! A text becomes a [`Value`] by [`Setting::parse`] (form only); a value becomes part of
//! [`Settings`] by [`Settings::set`] (meaning: ranges, RFC minimums). What exists is valid.

use serde::{Deserialize, Serialize};

use self::checks::lifetime;
pub use self::checks::unscoped;
pub use self::error::SettingError;
pub use self::text::{format_duration, parse_duration, parse_number};
use self::text::{parse_bool, parse_plateaus};
use super::{Flavour, HairpinMode};
use crate::base::prefix::{Pool6, Prefix4, Prefix6};

mod checks;
mod error;
mod stored;
mod text;

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
    /// An IPv4 prefix, or `null`.
    Prefix4,
    /// An IPv6 prefix, or `null`.
    Prefix6,
    /// One of the words of [`HairpinMode`].
    Hairpin,
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
    Prefix4(Option<Prefix4>),
    Prefix6(Option<Prefix6>),
    Hairpin(HairpinMode),
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
            Self::Prefix4(_) => "an IPv4 prefix",
            Self::Prefix6(_) => "an IPv6 prefix",
            Self::Hairpin(_) => "a hairpin mode",
        }
    }
}

/// One row of the table of settings.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub key: &'static str,
    pub kind: Kind,
    /// Whose it is; for others it does not exist.
    pub flavours: &'static [Flavour],
    /// Jool does not have it: it can be set, but is not displayed where scripts expect what Jool
    /// displays, and cannot be abbreviated.
    pub extension: bool,
    get: fn(&Settings) -> Value,
    set: fn(&mut Settings, Value, Context) -> Result<(), SettingError>,
}

/// Whose setting is changed, and how insistently.
#[derive(Clone, Copy, Debug)]
struct Context {
    flavour: Flavour,
    /// Leaves out the checks that `--force` overrides.
    force: bool,
}

/// The settings of one instance. `Default` holds the documented defaults; those of other flavours
/// keep theirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default, remote = "Self")]
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
    pub amend_udp_checksum_zero: bool,
    pub eam_hairpin_mode: HairpinMode,
    pub randomize_rfc6791_addresses: bool,
    pub rfc6791v6_prefix: Option<Prefix6>,
    pub rfc6791v4_prefix: Option<Prefix4>,
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
    /// Most sessions there may be, of all protocols together; 0 is no limit.
    pub maximum_sessions: u32,
    /// Most sessions that the clients of one IPv6 prefix may have, of all protocols together,
    /// whoever opened them; 0 is no limit. A mapping that is not static has a session, so that
    /// this bounds mappings, too.
    pub maximum_sessions_per_prefix: u32,
    /// How many bits of an IPv6 address tell whose sessions are counted together.
    pub source_prefix_length: u8,
    /// How long it is remembered who had which mapping, from its end on; 0 is not at all.
    pub history_retention: u64,
    /// Most mappings that are remembered after their end; 0 is no limit.
    pub history_max_entries: u32,
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
            amend_udp_checksum_zero: false,
            eam_hairpin_mode: HairpinMode::Intrinsic,
            randomize_rfc6791_addresses: true,
            rfc6791v6_prefix: None,
            rfc6791v4_prefix: None,
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
            maximum_sessions: 0,
            maximum_sessions_per_prefix: 0,
            source_prefix_length: 64,
            history_retention: 0,
            history_max_entries: 10_000_000,
        }
    }
}

impl Settings {
    /// Takes `value` for `key` of an instance of `flavour`; `force` leaves out the checks that an
    /// operator may override.
    ///
    /// # Errors
    /// Keys that the flavour does not have, values of the wrong kind and values out of range;
    /// nothing changes then.
    pub fn set(
        &mut self,
        flavour: Flavour,
        key: &str,
        value: Value,
        force: bool,
    ) -> Result<(), SettingError> {
        let setting =
            Setting::find(flavour, key).ok_or_else(|| SettingError::Unknown(key.to_owned()))?;
        (setting.set)(self, value, Context { flavour, force })
    }
}

impl Setting {
    /// The settings of a flavour that Jool has as well, in display order.
    pub fn of(flavour: Flavour) -> impl Iterator<Item = &'static Self> + Clone {
        Self::known(flavour).filter(|s| !s.extension)
    }

    /// Every setting of a flavour: those of [`Setting::of`], then the extensions.
    pub fn known(flavour: Flavour) -> impl Iterator<Item = &'static Self> + Clone {
        SETTINGS
            .iter()
            .filter(move |s| s.flavours.contains(&flavour))
    }

    pub fn find(flavour: Flavour, key: &str) -> Option<&'static Self> {
        Self::known(flavour).find(|s| s.key == key)
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
            Kind::Prefix4 if text == "null" => Value::Prefix4(None),
            Kind::Prefix4 => Value::Prefix4(Some(text.parse()?)),
            Kind::Prefix6 if text == "null" => Value::Prefix6(None),
            Kind::Prefix6 => Value::Prefix6(Some(text.parse()?)),
            Kind::Hairpin => Value::Hairpin(
                HairpinMode::ALL
                    .into_iter()
                    .find(|mode| mode.name() == text)
                    .ok_or_else(|| SettingError::Hairpin(text.to_owned()))?,
            ),
        })
    }
}

fn set_pool6(settings: &mut Settings, value: Value, context: Context) -> Result<(), SettingError> {
    let Value::Prefix6(prefix) = value else {
        return Err(value.unfit("pool6"));
    };
    let new = match prefix {
        Some(prefix) if context.force => Some(Pool6::new(prefix)?),
        Some(prefix) => Some(Pool6::strict(prefix)?),
        None => None,
    };
    match (context.flavour, settings.pool6, new) {
        (Flavour::Nat64, _, None) => return Err(SettingError::Pool6Mandatory),
        (Flavour::Nat64, Some(old), Some(new)) if old != new => {
            return Err(SettingError::Pool6Fixed(old));
        }
        (Flavour::Nat64 | Flavour::Siit, _, _) => settings.pool6 = new,
    }
    Ok(())
}

macro_rules! setting {
    ($flavours:expr, $key:literal, $field:ident, Bool) => {
        Setting {
            key: $key,
            kind: Kind::Bool,
            flavours: $flavours,
            extension: false,
            get: |s| Value::Bool(s.$field),
            set: |s, v, _| match v {
                Value::Bool(v) => {
                    s.$field = v;
                    Ok(())
                }
                other => Err(other.unfit($key)),
            },
        }
    };
    ($flavours:expr, $key:literal, $field:ident, Byte, $max:literal) => {
        Setting {
            key: $key,
            kind: Kind::Byte,
            flavours: $flavours,
            extension: false,
            get: |s| Value::Number(s.$field.into()),
            set: |s, v, _| match v {
                Value::Number(v) if v <= $max => {
                    s.$field = v as u8;
                    Ok(())
                }
                Value::Number(v) => Err(SettingError::Range(v.to_string(), 0, $max)),
                other => Err(other.unfit($key)),
            },
        }
    };
    ($flavours:expr, $key:literal, $field:ident, Number) => {
        Setting {
            key: $key,
            kind: Kind::Number,
            flavours: $flavours,
            extension: false,
            get: |s| Value::Number(s.$field),
            set: |s, v, _| match v {
                Value::Number(v) => {
                    s.$field = v;
                    Ok(())
                }
                other => Err(other.unfit($key)),
            },
        }
    };
    ($flavours:expr, $key:literal, $field:ident, Duration, $min:expr) => {
        Setting {
            key: $key,
            kind: Kind::Duration,
            flavours: $flavours,
            extension: false,
            get: |s| Value::Duration(s.$field),
            set: |s, v, _| match v {
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

/// RFC 1191 section 7.1, as Jool ships it.
const DEFAULT_PLATEAUS: [u16; 11] = [
    65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68,
];

const NAT64: &[Flavour] = &[Flavour::Nat64];
const SIIT: &[Flavour] = &[Flavour::Siit];
const ALL: &[Flavour] = &[Flavour::Nat64, Flavour::Siit];

const SETTINGS: &[Setting] = &[
    setting!(ALL, "manually-enabled", manually_enabled, Bool),
    Setting {
        key: "pool6",
        kind: Kind::Prefix6,
        flavours: ALL,
        extension: false,
        get: |s| Value::Prefix6(s.pool6.map(|p| p.prefix())),
        set: set_pool6,
    },
    Setting {
        key: "lowest-ipv6-mtu",
        kind: Kind::Number,
        flavours: ALL,
        extension: false,
        get: |s| Value::Number(s.lowest_ipv6_mtu),
        set: |s, v, _| {
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
    setting!(ALL, "logging-debug", logging_debug, Bool),
    setting!(ALL, "zeroize-traffic-class", zeroize_traffic_class, Bool),
    setting!(ALL, "override-tos", override_tos, Bool),
    setting!(ALL, "tos", tos, Byte, 255),
    Setting {
        key: "mtu-plateaus",
        kind: Kind::Plateaus,
        flavours: ALL,
        extension: false,
        get: |s| Value::Plateaus(s.mtu_plateaus.clone()),
        set: |s, v, _| {
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
        SIIT,
        "amend-udp-checksum-zero",
        amend_udp_checksum_zero,
        Bool
    ),
    Setting {
        key: "eam-hairpin-mode",
        kind: Kind::Hairpin,
        flavours: SIIT,
        extension: false,
        get: |s| Value::Hairpin(s.eam_hairpin_mode),
        set: |s, v, _| {
            let Value::Hairpin(mode) = v else {
                return Err(v.unfit("eam-hairpin-mode"));
            };
            s.eam_hairpin_mode = mode;
            Ok(())
        },
    },
    setting!(
        SIIT,
        "randomize-rfc6791-addresses",
        randomize_rfc6791_addresses,
        Bool
    ),
    Setting {
        key: "rfc6791v6-prefix",
        kind: Kind::Prefix6,
        flavours: SIIT,
        extension: false,
        get: |s| Value::Prefix6(s.rfc6791v6_prefix),
        set: |s, v, _| {
            let Value::Prefix6(prefix) = v else {
                return Err(v.unfit("rfc6791v6-prefix"));
            };
            s.rfc6791v6_prefix = prefix;
            Ok(())
        },
    },
    Setting {
        key: "rfc6791v4-prefix",
        kind: Kind::Prefix4,
        flavours: SIIT,
        extension: false,
        get: |s| Value::Prefix4(s.rfc6791v4_prefix),
        set: |s, v, context| {
            let Value::Prefix4(prefix) = v else {
                return Err(v.unfit("rfc6791v4-prefix"));
            };
            if let Some(prefix) = prefix.filter(|_| !context.force) {
                unscoped(prefix)?;
            }
            s.rfc6791v4_prefix = prefix;
            Ok(())
        },
    },
    setting!(
        NAT64,
        "address-dependent-filtering",
        address_dependent_filtering,
        Bool
    ),
    setting!(
        NAT64,
        "drop-externally-initiated-tcp",
        drop_externally_initiated_tcp,
        Bool
    ),
    setting!(NAT64, "drop-icmpv6-info", drop_icmpv6_info, Bool),
    setting!(
        NAT64,
        "source-icmpv6-errors-better",
        source_icmpv6_errors_better,
        Bool
    ),
    setting!(NAT64, "f-args", f_args, Byte, 15),
    setting!(
        NAT64,
        "handle-rst-during-fin-rcv",
        handle_rst_during_fin_rcv,
        Bool
    ),
    //= rfc6146#section-4
    setting!(
        NAT64,
        "tcp-est-timeout",
        tcp_est_timeout,
        Duration,
        2 * HOUR
    ),
    setting!(
        NAT64,
        "tcp-trans-timeout",
        tcp_trans_timeout,
        Duration,
        4 * MINUTE
    ),
    setting!(NAT64, "udp-timeout", udp_timeout, Duration, 2 * MINUTE),
    setting!(NAT64, "icmp-timeout", icmp_timeout, Duration, 0),
    setting!(NAT64, "logging-bib", logging_bib, Bool),
    setting!(NAT64, "logging-session", logging_session, Bool),
    setting!(
        NAT64,
        "maximum-simultaneous-opens",
        maximum_simultaneous_opens,
        Number
    ),
    setting!(NAT64, "ss-enabled", ss_enabled, Bool),
    setting!(NAT64, "ss-flush-asap", ss_flush_asap, Bool),
    setting!(NAT64, "ss-flush-deadline", ss_flush_deadline, Number),
    setting!(NAT64, "ss-capacity", ss_capacity, Number),
    setting!(NAT64, "ss-max-payload", ss_max_payload, Number),
    setting!(
        NAT64,
        "ss-max-sessions-per-packet",
        ss_max_sessions_per_packet,
        Number
    ),
    Setting {
        extension: true,
        ..setting!(NAT64, "maximum-sessions", maximum_sessions, Number)
    },
    Setting {
        extension: true,
        ..setting!(
            NAT64,
            "maximum-sessions-per-prefix",
            maximum_sessions_per_prefix,
            Number
        )
    },
    Setting {
        extension: true,
        ..setting!(
            NAT64,
            "source-prefix-length",
            source_prefix_length,
            Byte,
            128
        )
    },
    Setting {
        extension: true,
        ..setting!(NAT64, "history-retention", history_retention, Duration, 0)
    },
    Setting {
        extension: true,
        ..setting!(NAT64, "history-max-entries", history_max_entries, Number)
    },
];

#[cfg(test)]
mod tests;

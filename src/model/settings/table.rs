// SPDX-License-Identifier: GPL-2.0-or-later
//! The table of settings: whose each is, its form, and what it refuses.

use super::text::{LONGEST, parse_bool, parse_duration, parse_number, parse_plateaus};
use super::{HOUR, Kind, MINUTE, SettingError, Settings, Value, format_duration, unscoped};
use crate::base::prefix::Pool6;
use crate::model::mapt::MaptType;
use crate::model::{Flavour, HairpinMode};

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
pub(super) struct Context {
    pub(super) flavour: Flavour,
    /// Leaves out the checks that `--force` overrides.
    pub(super) force: bool,
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

    pub(super) fn set(
        &self,
        settings: &mut Settings,
        value: Value,
        context: Context,
    ) -> Result<(), SettingError> {
        (self.set)(settings, value, context)
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
            Kind::MapRule if text == "null" => Value::MapRule(None),
            Kind::MapRule => Value::MapRule(Some(text.parse()?)),
            Kind::MaptType if text == "null" => Value::MaptType(None),
            Kind::MaptType => Value::MaptType(Some(
                MaptType::ALL
                    .into_iter()
                    .find(|end| end.name() == text)
                    .ok_or_else(|| SettingError::MaptType(text.to_owned()))?,
            )),
        })
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
        (Flavour::Nat64 | Flavour::Siit | Flavour::Mapt, _, _) => settings.pool6 = new,
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

const NAT64: &[Flavour] = &[Flavour::Nat64];
const SIIT: &[Flavour] = &[Flavour::Siit];
const MAPT: &[Flavour] = &[Flavour::Mapt];
const STATELESS: &[Flavour] = &[Flavour::Siit, Flavour::Mapt];
const ALL: &[Flavour] = &Flavour::ALL;

pub(super) const SETTINGS: &[Setting] = &[
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
        flavours: STATELESS,
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
        flavours: STATELESS,
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
        key: "map-t-type",
        kind: Kind::MaptType,
        flavours: MAPT,
        extension: false,
        get: |s| Value::MaptType(s.map_t_type),
        set: |s, v, _| {
            let Value::MaptType(end) = v else {
                return Err(v.unfit("map-t-type"));
            };
            s.map_t_type = end;
            Ok(())
        },
    },
    Setting {
        key: "end-user-ipv6-prefix",
        kind: Kind::Prefix6,
        flavours: MAPT,
        extension: false,
        get: |s| Value::Prefix6(s.end_user_ipv6_prefix),
        set: |s, v, _| {
            let Value::Prefix6(prefix) = v else {
                return Err(v.unfit("end-user-ipv6-prefix"));
            };
            s.end_user_ipv6_prefix = prefix;
            Ok(())
        },
    },
    Setting {
        key: "bmr",
        kind: Kind::MapRule,
        flavours: MAPT,
        extension: false,
        get: |s| Value::MapRule(s.bmr),
        set: |s, v, _| {
            let Value::MapRule(rule) = v else {
                return Err(v.unfit("bmr"));
            };
            s.bmr = rule;
            Ok(())
        },
    },
    Setting {
        extension: true,
        ..setting!(MAPT, "mapt-lenient", mapt_lenient, Bool)
    },
    Setting {
        extension: true,
        ..setting!(MAPT, "mapt-napt", mapt_napt, Bool)
    },
    // As those of NAT64, for the sessions of `mapt-napt`, which Jool does not have.
    Setting {
        extension: true,
        ..setting!(MAPT, "tcp-est-timeout", tcp_est_timeout, Duration, 2 * HOUR)
    },
    Setting {
        extension: true,
        ..setting!(
            MAPT,
            "tcp-trans-timeout",
            tcp_trans_timeout,
            Duration,
            4 * MINUTE
        )
    },
    Setting {
        extension: true,
        ..setting!(MAPT, "udp-timeout", udp_timeout, Duration, 2 * MINUTE)
    },
    Setting {
        extension: true,
        ..setting!(MAPT, "icmp-timeout", icmp_timeout, Duration, 0)
    },
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

// SPDX-License-Identifier: GPL-2.0-or-later
//! The settings of an instance ("globals"): one table that the command line, the daemon and the
//! database share.
//!
//! A text becomes a [`Value`] by [`Setting::parse`] (form only); a value becomes part of
//! [`Settings`] by [`Settings::set`] (meaning: ranges, RFC minimums). What exists is valid.

use serde::{Deserialize, Serialize};

pub use self::error::SettingError;
use self::table::Context;
pub use self::table::Setting;
pub use self::text::{format_duration, parse_duration, parse_number};
use super::mapt::{self, CeError, MapRule, MaptType};
use super::{Flavour, HairpinMode};
use crate::base::prefix::{Pool6, Prefix4, Prefix6, SCOPED4};

mod error;
mod stored;
mod table;
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
    /// A mapping rule of MAP-T, or `null`.
    MapRule,
    /// One of the words of [`MaptType`], or `null`.
    MaptType,
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
    MapRule(Option<MapRule>),
    MaptType(Option<MaptType>),
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
            Self::MapRule(_) => "a mapping rule",
            Self::MaptType(_) => "a type of MAP-T",
        }
    }
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
    /// `None` leaves it to [`Settings::mapt_role`].
    pub map_t_type: Option<MaptType>,
    pub end_user_ipv6_prefix: Option<Prefix6>,
    /// The basic mapping rule of a CE.
    pub bmr: Option<MapRule>,
    /// Lets packets pass whose addresses and ports disagree with their rule, as Jool does.
    pub mapt_lenient: bool,
    /// The CE itself translates private IPv4 addresses to its own and to ports of its set.
    pub mapt_napt: bool,
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
            map_t_type: None,
            end_user_ipv6_prefix: None,
            bmr: None,
            mapt_lenient: false,
            mapt_napt: false,
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
        setting.set(self, value, Context { flavour, force })
    }

    /// Which end of its domain a MAP-T instance is: what was said, or else CE where there is an
    /// end-user prefix and a basic mapping rule.
    pub const fn mapt_role(&self) -> MaptType {
        match (self.map_t_type, self.end_user_ipv6_prefix, self.bmr) {
            (Some(given), _, _) => given,
            (None, Some(_), Some(_)) => MaptType::Ce,
            (None, _, _) => MaptType::Br,
        }
    }

    /// Whether what a CE is made of fits together. To be asked when all changes of one command
    /// are in: in between it need not.
    ///
    /// # Errors
    /// [`SettingError::Ce`].
    pub fn check_mapt(&self) -> Result<(), SettingError> {
        match self.mapt_role() {
            MaptType::Br => Ok(()),
            MaptType::Ce => {
                let prefix = self.end_user_ipv6_prefix.ok_or(CeError::NoPrefix)?;
                let rule = self.bmr.ok_or(CeError::NoRule)?;
                Ok(mapt::check_ce(rule, prefix)?)
            }
        }
    }
}

/// Whether a prefix holds no addresses that are confined to their link.
///
/// # Errors
/// [`SettingError::Scoped`].
pub fn unscoped(prefix: Prefix4) -> Result<(), SettingError> {
    match SCOPED4
        .into_iter()
        .find(|scoped| scoped.intersects(&prefix))
    {
        Some(scoped) => Err(SettingError::Scoped(prefix, scoped)),
        None => Ok(()),
    }
}

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// RFC 1191 section 7.1, as Jool ships it.
const DEFAULT_PLATEAUS: [u16; 11] = [
    65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68,
];

#[cfg(test)]
mod tests;

// SPDX-License-Identifier: GPL-2.0-or-later
//! Values on the command line: what a text must look like to be a port range, a prefix, a name.
//!
//! Form only; whether a value makes sense is the daemon's to say. Every error knows the exit
//! status that Jool has for it. Nothing behind a number is ignored.

use std::net::IpAddr;

use crate::base::prefix::{Prefix4, Prefix6, PrefixError};
use crate::base::{Transport4, Transport6, TransportError};
use crate::model::mapt::MapRuleError;
use crate::model::settings::{SettingError, parse_number};
use crate::model::{INSTANCE_NAME_MAX, MaxIterations, PortRange};

/// What the command exits with when it refuses a value itself (-EINVAL, low octet).
pub(crate) const EXIT_INVALID: u8 = 234;
/// What it exits with when a number is not made of digits.
const EXIT_NOT_A_NUMBER: u8 = 1;
/// EINVAL, positive: checks that Jool's kernel module makes.
pub(crate) const EXIT_MEANING: u8 = 22;

/// Why a text is not the value that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ValueError {
    #[error(transparent)]
    Setting(#[from] SettingError),
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("'{0}' is an IPv6 address, and this takes IPv4 only; write it like 192.0.2.0/24")]
    WantsV4(String),
    #[error("'{0}' is not an IP address; write it like 192.0.2.1 or 2001:db8::1")]
    NotAnAddress(String),
    #[error("max-iterations cannot be 0; write a number from 1, auto or infinity")]
    ZeroIterations,
    #[error("'{0}' is not a multicast address; write one like 233.252.0.64 or ff08::db8:64:64")]
    NotMulticast(String),
    #[error("'{0}' is not a local IPv4 address, and for a group of IPv4 that is what stands here")]
    NotLocal4(String),
    #[error(
        "'{0}' is not the name of an interface, and for a group of IPv6 that is what stands here"
    )]
    NotInterface(String),
    #[error("'{0}' is not a format; use a (Jool before 4.1.12), b (4.1.12) or c (since 4.1.13)")]
    NotAFormat(String),
    #[error("'{0}' is neither a port (1-65535) nor a service in /etc/services")]
    NotAService(String),
    #[error("an instance name cannot be empty; leave it out to mean 'default'")]
    EmptyName,
    #[error("the instance name '{0}' is too long ({1} bytes); use at most {INSTANCE_NAME_MAX}")]
    LongName(String, usize),
    #[error("the instance name {0:?} holds control or non-ASCII characters; use printable ASCII")]
    OddName(String),
}

impl ValueError {
    /// The exit status of the command.
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::Setting(error) => match error {
                SettingError::NotANumber(_) => EXIT_NOT_A_NUMBER,
                SettingError::Prefix(error)
                | SettingError::MapRule(MapRuleError::Prefix(error)) => prefix_code(error),
                SettingError::MapRule(MapRuleError::NotANumber(_)) => EXIT_NOT_A_NUMBER,
                SettingError::MapRule(MapRuleError::Words(_)) => EXIT_INVALID,
                SettingError::Unknown(_)
                | SettingError::Bool(_)
                | SettingError::Range(..)
                | SettingError::Duration(_)
                | SettingError::Millis(_)
                | SettingError::Hairpin(_)
                | SettingError::MaptType(_)
                | SettingError::NoPlateaus => EXIT_INVALID,
                SettingError::TooManyPlateaus(_)
                | SettingError::ZeroPlateaus
                | SettingError::Kind(..)
                | SettingError::TooSmall { .. }
                | SettingError::Scoped(..)
                | SettingError::MapRule(_)
                | SettingError::Ce(_)
                | SettingError::Pool6Mandatory
                | SettingError::Pool6Fixed(_) => EXIT_MEANING,
            },
            Self::Prefix(error) => prefix_code(error),
            Self::ZeroIterations => EXIT_MEANING,
            Self::Transport(_)
            | Self::WantsV4(_)
            | Self::NotAnAddress(_)
            | Self::NotMulticast(_)
            | Self::NotLocal4(_)
            | Self::NotInterface(_)
            | Self::NotAFormat(_)
            | Self::NotAService(_)
            | Self::EmptyName
            | Self::LongName(..)
            | Self::OddName(_) => EXIT_INVALID,
        }
    }
}

const fn prefix_code(error: &PrefixError) -> u8 {
    match error {
        PrefixError::NotV4(_) | PrefixError::NotV6(_) | PrefixError::Length(..) => EXIT_INVALID,
        PrefixError::HostBits(..) | PrefixError::Pool6Length(_) | PrefixError::UOctet(_) => {
            EXIT_MEANING
        }
    }
}

/// What a positional argument looks like, before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    V6,
    V4,
    Other,
}

//= jool#positionals
pub(crate) fn shape(text: &str) -> Shape {
    if text.contains(':') {
        Shape::V6
    } else if text.contains('.') {
        Shape::V4
    } else {
        Shape::Other
    }
}

pub(crate) fn number(text: &str) -> Result<u32, ValueError> {
    Ok(parse_number(text, u32::MAX)?)
}

fn port(text: &str) -> Result<u16, ValueError> {
    let n = parse_number(text, u16::MAX.into())?;
    // In range: that is what `parse_number` was asked for.
    Ok(u16::try_from(n).unwrap_or(u16::MAX))
}

/// Reads `N` or `N-M`; an inverted range is turned around.
pub(crate) fn port_range(text: &str) -> Result<PortRange, ValueError> {
    let (a, b) = match text.split_once('-') {
        Some((a, b)) => (port(a)?, port(b)?),
        None => (port(text)?, port(text)?),
    };
    Ok(PortRange {
        min: a.min(b),
        max: a.max(b),
    })
}

pub(crate) fn prefix4(text: &str) -> Result<Prefix4, ValueError> {
    if shape(text) == Shape::V6 {
        return Err(ValueError::WantsV4(text.to_owned()));
    }
    length_is_a_number(text)?;
    Ok(text.parse()?)
}

pub(crate) fn prefix6(text: &str) -> Result<Prefix6, ValueError> {
    length_is_a_number(text)?;
    Ok(text.parse()?)
}

pub(crate) fn address(text: &str) -> Result<IpAddr, ValueError> {
    text.parse()
        .map_err(|_| ValueError::NotAnAddress(text.to_owned()))
}

pub(crate) fn transport4(text: &str) -> Result<Transport4, ValueError> {
    port_is_a_number(text)?;
    Ok(text.parse()?)
}

pub(crate) fn transport6(text: &str) -> Result<Transport6, ValueError> {
    port_is_a_number(text)?;
    Ok(text.parse()?)
}

pub(crate) fn iterations(text: &str) -> Result<MaxIterations, ValueError> {
    match text {
        "auto" => Ok(MaxIterations::Auto),
        "infinity" => Ok(MaxIterations::Infinity),
        _ => match number(text)? {
            0 => Err(ValueError::ZeroIterations),
            n => Ok(MaxIterations::Fixed(n)),
        },
    }
}

pub(crate) fn instance_name(text: &str) -> Result<String, ValueError> {
    let name = text.to_owned();
    if name.is_empty() {
        Err(ValueError::EmptyName)
    } else if name.len() > INSTANCE_NAME_MAX {
        Err(ValueError::LongName(name, text.len()))
    } else if !name.bytes().all(|b| (b' '..0x7f).contains(&b)) {
        Err(ValueError::OddName(name))
    } else {
        Ok(name)
    }
}

/// Refuses a length such as `/x` or `/+24`, with the exit status of numbers.
fn length_is_a_number(text: &str) -> Result<(), ValueError> {
    match text.split_once('/') {
        Some((_, len)) => number(len).map(drop),
        None => Ok(()),
    }
}

/// The same for `#x`.
fn port_is_a_number(text: &str) -> Result<(), ValueError> {
    match text.split_once('#') {
        Some((_, n)) => port(n).map(drop),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T: std::fmt::Debug>(result: Result<T, ValueError>) -> u8 {
        result.unwrap_err().code()
    }

    //= jool#exit-status
    //= type=test
    #[test]
    fn every_kind_of_nonsense_has_its_exit_status() {
        assert_eq!(code(port_range("abc")), 1);
        assert_eq!(code(port_range("1-")), 1);
        assert_eq!(code(port_range("1-2x")), 1);
        assert_eq!(code(port_range("-1")), 1);
        assert_eq!(code(port_range("1000-70000")), 234);
        assert_eq!(code(prefix4("192.0.2.300")), 234);
        assert_eq!(code(prefix4("192.0.2.0/33")), 234);
        assert_eq!(code(prefix4("192.0.2.0/+24")), 1);
        assert_eq!(code(prefix4("192.0.2.0/")), 1);
        assert_eq!(code(prefix4("192.0.2.1/24")), 22);
        assert_eq!(code(prefix4("2001:db8::1")), 234);
        assert_eq!(code(prefix6("hello")), 234);
        assert_eq!(code(prefix6("64:ff9b::1/96")), 22);
        assert_eq!(code(transport6("2001:db8::1")), 234);
        assert_eq!(code(transport6("2001:db8::1#99999")), 234);
        assert_eq!(code(transport6("2001:db8::1#+9")), 1);
        assert_eq!(code(transport4("192.0.2.1#x")), 1);
        assert_eq!(code(number("4294967296")), 234);
        assert_eq!(code(number("x")), 1);
        assert_eq!(code(iterations("0")), 22);
        assert_eq!(code(iterations("AUTO")), 1);
        assert_eq!(code(instance_name("")), 234);
        assert_eq!(code(instance_name("abcdefghijklmnop")), 234);
        assert_eq!(code(instance_name("new\nline")), 234);
        assert_eq!(code(instance_name("é")), 234);
    }

    #[test]
    fn good_values_are_read() {
        assert_eq!(
            port_range("2000-1000"),
            Ok(PortRange {
                min: 1000,
                max: 2000
            })
        );
        assert_eq!(port_range("0"), Ok(PortRange { min: 0, max: 0 }));
        assert_eq!(iterations("1"), Ok(MaxIterations::Fixed(1)));
        assert_eq!(instance_name("CE 11b"), Ok("CE 11b".to_owned()));
        assert_eq!(prefix4("192.0.2.1").unwrap().prefix_len(), 32);
    }
}

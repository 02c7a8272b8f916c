// SPDX-License-Identifier: GPL-2.0-or-later
//! What can be wrong with a setting.

use crate::base::prefix::{Pool6, Prefix4, PrefixError};
use crate::model::mapt::{CeError, MapRuleError};

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
    #[error("'{0}' is not a hairpin mode (write off, simple or intrinsic)")]
    Hairpin(String),
    #[error(
        "{0} intersects {1}, whose addresses never leave their link; choose another prefix or add --force"
    )]
    Scoped(Prefix4, Prefix4),
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    #[error("'{0}' is not a type of MAP-T (write CE or BR, or null to have it inferred)")]
    MaptType(String),
    #[error(transparent)]
    MapRule(#[from] MapRuleError),
    #[error(transparent)]
    Ce(#[from] CeError),
    #[error("'{0}' does not take {1}")]
    Kind(&'static str, &'static str),
    #[error("{key} ({given}) is too small; the minimum is {minimum}")]
    TooSmall {
        key: &'static str,
        given: String,
        minimum: String,
    },
    #[error("a NAT64 instance needs pool6, which cannot be unset (in a file: 'pool6' in 'global')")]
    Pool6Mandatory,
    #[error(
        "the pool6 of a NAT64 instance cannot be changed ({0} is in use); remove the instance and add it anew"
    )]
    Pool6Fixed(Pool6),
}

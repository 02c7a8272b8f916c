// SPDX-License-Identifier: GPL-2.0-or-later
//! What values of settings have to keep to.

use super::SettingError;
use super::text::{LONGEST, format_duration};
use crate::base::prefix::{Prefix4, SCOPED4};

pub(super) fn lifetime(key: &'static str, given: u64, minimum: u64) -> Result<u64, SettingError> {
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

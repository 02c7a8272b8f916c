// SPDX-License-Identifier: GPL-2.0-or-later
//! All settings as one value: as the database and the control socket have them.
//!
//! What the derived code reads is of the right form only; here it is checked like what is typed.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::table::{Context, SETTINGS};
use super::{SettingError, Settings};
use crate::model::Flavour;

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        // The derived function, which has the same name.
        Self::serialize(self, to)
    }
}

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // As above.
        let read = Self::deserialize(from)?;
        checked(&read).map_err(D::Error::custom)
    }
}

/// The same settings, each of them set.
fn checked(read: &Settings) -> Result<Settings, SettingError> {
    // An operator may have insisted, and pool6 may be missing; more does not depend on this.
    let context = Context {
        flavour: Flavour::Siit,
        force: true,
    };
    let mut checked = Settings::default();
    for setting in SETTINGS {
        setting.set(&mut checked, setting.value(read), context)?;
    }
    Ok(checked)
}

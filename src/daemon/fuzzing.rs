// SPDX-License-Identifier: GPL-2.0-or-later
//! For fuzz targets and tests: what the daemon makes of a database; no other build has this.

use crate::base::Tick;
use crate::store::Saved;

/// Makes an instance of what was stored.
pub fn restore(saved: Saved) {
    drop(super::gateway::restore(saved, Tick(10_000)));
}

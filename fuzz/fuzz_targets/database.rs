// SPDX-License-Identifier: GPL-2.0-or-later
//! Databases that no tylo wrote, and the instances that the daemon makes of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tylo::daemon::fuzzing::restore;
use tylo::store::fuzzing::{database, seeds};

fuzz_target!(init: tylo_fuzz::plant(seeds()), |data: &[u8]| {
    database(data).into_iter().for_each(restore);
});

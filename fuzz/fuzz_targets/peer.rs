// SPDX-License-Identifier: GPL-2.0-or-later
//! Messages between gateways, from somebody who has the key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tylo::replica::peer::fuzzing::{messages, seeds};

fuzz_target!(init: tylo_fuzz::plant(seeds()), |data: &[u8]| {
    messages(data);
});

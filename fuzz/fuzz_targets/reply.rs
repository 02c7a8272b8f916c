// SPDX-License-Identifier: GPL-2.0-or-later
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: tylo_fuzz::plant(tylo_fuzz::seeds_of_replies()), |data: &[u8]| {
    tylo_fuzz::reply(data);
});

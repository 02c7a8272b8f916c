// SPDX-License-Identifier: GPL-2.0-or-later
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: tylo_fuzz::plant(tylo_fuzz::seeds6()), |data: &[u8]| {
    tylo_fuzz::packet6(data);
});

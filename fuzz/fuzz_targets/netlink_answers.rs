// SPDX-License-Identifier: GPL-2.0-or-later
//! What the kernel says about devices, addresses, routes and nftables rules.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tylo::dataplane::fuzzing::route_answers;
use tylo::ruleset::fuzzing::answers;

fuzz_target!(init: tylo_fuzz::plant(seeds()), |data: &[u8]| {
    route_answers(data);
    answers(data);
});

/// A route, an address, a TUN device, the end of a list, success, and an error.
fn seeds() -> Vec<Vec<u8>> {
    let message = |kind: u16, head: &[u8], attributes: &[(u16, &[u8])]| {
        let mut out = vec![0; 16];
        out[4..6].copy_from_slice(&kind.to_ne_bytes());
        out.extend(head);
        for (kind, value) in attributes {
            out.extend((4 + value.len() as u16).to_ne_bytes());
            out.extend(kind.to_ne_bytes());
            out.extend(*value);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        let length = out.len() as u32;
        out[..4].copy_from_slice(&length.to_ne_bytes());
        out
    };
    let (device, address) = ([7, 0, 0, 0], [192, 0, 2, 1]);
    let tun: &[u8] = &[
        7, 0, 1, 0, b't', b'u', b'n', 0, 12, 0, 2, 0, 8, 0, 8, 0, 2, 0, 0, 0,
    ];
    let mut all = vec![
        message(24, &[2, 24, 0, 0, 254, 164, 253, 1, 0, 0, 0, 0], &[(1, &address), (4, &device)]),
        message(20, &[2, 24, 0, 0, 7, 0, 0, 0], &[(1, &address), (2, &address)]),
        message(16, &[0; 16], &[(3, b"tylo0\0"), (18, tun)]),
        message(3, &[0; 4], &[]),
        message(2, &[0; 20], &[]),
        message(2, &[&(-2_i32).to_ne_bytes()[..], &[0; 16]].concat(), &[]),
        message(2, &[&i32::MIN.to_ne_bytes()[..], &[0; 16]].concat(), &[]),
    ];
    all.push(all.concat());
    all
}

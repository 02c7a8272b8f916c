// SPDX-License-Identifier: GPL-2.0-or-later
//! Datagrams of nfnetlink_queue.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tylo::dataplane::fuzzing::queue_message;

fuzz_target!(init: tylo_fuzz::plant(seeds()), |data: &[u8]| {
    if let Some(payload) = queue_message(data) {
        let within = data.as_ptr_range();
        let found = payload.as_ptr_range();
        assert!(payload.is_empty() || (within.start <= found.start && found.end <= within.end));
    }
});

/// A packet with its attributes, one cut short, an answer.
fn seeds() -> [Vec<u8>; 3] {
    let message = |kind: u16, attributes: &[(u16, &[u8])]| {
        let mut out = vec![0; 20];
        out[4..6].copy_from_slice(&kind.to_ne_bytes());
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
    let head = (1, &[0, 0, 0, 1, 0x86, 0xdd, 0][..]);
    let number = [0, 0, 0, 9];
    [
        message(
            3 << 8,
            &[
                head,
                (3, &number),
                (5, &number),
                (13, &number),
                (10, &[0x60; 41]),
            ],
        ),
        message(3 << 8, &[head, (10, &[0x45; 20]), (12, &number)]),
        message(2, &[]),
    ]
}

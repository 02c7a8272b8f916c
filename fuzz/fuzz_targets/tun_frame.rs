// SPDX-License-Identifier: GPL-2.0-or-later
//! What is read from the TUN device: a virtio header and a packet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tylo::dataplane::fuzzing::tun_frame;

fuzz_target!(init: tylo_fuzz::plant(seeds()), |data: &[u8]| {
    let mut frame = data.to_vec();
    if let Some(packet) = tun_frame(&mut frame) {
        assert_eq!(packet.len() + 10, data.len());
        let changed = packet.iter().zip(&data[10..]).filter(|(a, b)| a != b);
        assert!(changed.count() <= if data[0] & 1 == 0 { 0 } else { 2 });
    }
});

/// A packet as it is, and one whose checksum at byte 46 is to be completed.
fn seeds() -> [Vec<u8>; 2] {
    let mut frame = vec![0; 10];
    frame.extend([0x60; 60]);
    let mut partial = frame.clone();
    partial[0] = 1;
    partial[6..8].copy_from_slice(&40_u16.to_ne_bytes());
    partial[8..10].copy_from_slice(&6_u16.to_ne_bytes());
    [frame, partial]
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! Data of super-packets that need not be copied.

use super::*;
use crate::wire::offload::Segments;
use crate::wire::samples::{Load, with_flags4};

/// Translates a TCP packet with much data, once as it is and once as the fourth of its burst; says
/// whether its data stayed where it was. What goes out is the same.
#[track_caller]
pub(in crate::engine) fn stays(instance: &mut Instance, host: &dyn Host, packet: &[u8]) -> bool {
    let mut translate = |place| {
        let meta = Meta {
            offload: Offload {
                partial: true,
                segments: Segments::Of(1_000),
                place,
            },
            host,
            ..META
        };
        let mut out = Output::new();
        let outcome = instance.handle(Tick(2_000), &meta, packet, &mut out);
        assert_eq!((outcome, out.len()), (Outcome::Translated, 1));
        let mut frame = out.frame(0).unwrap().to_vec();
        if frame[10] >> 4 == 4 {
            // Two packets do not have the same identification.
            frame[14..16].fill(0);
            frame[20..22].fill(0);
        }
        (frame, out.rest(0))
    };
    let (whole, none) = translate(None);
    assert_eq!(none, None);
    let (mut frame, rest) = translate(Some(3));
    if let Some(rest) = rest {
        assert_eq!(rest.place, 3);
        frame.extend(&packet[rest.from..]);
    }
    assert_eq!(frame, whole);
    rest.is_some()
}

/// That of a packet whose data is worth it.
pub(in crate::engine) fn bulk(ports: [u16; 2]) -> Load {
    let data: Vec<u8> = (0..9_000).map(|n| n as u8).collect();
    tcp(ports, ACK, &data)
}

#[test]
fn a_session_has_its_data_left_in_place() {
    let mut rig = Rig::new();
    let out = rig.translate(&tcp([4000, 80], SYN, b"").over6(A6, B6));
    let mapped = port(&out, 20);
    rig.translate(&tcp([80, mapped], SYN | ACK, b"").over4(B4, POOL4));
    let up = bulk([4000, 80]).over6(A6, B6);
    assert!(stays(&mut rig.instance, &Nameless, &up));
    let down = with_flags4(bulk([80, mapped]).over4(B4, POOL4), 0x4000);
    assert!(stays(&mut rig.instance, &Nameless, &down));
    // What turns round is translated twice.
    let through = "64:ff9b::192.0.2.1".parse().unwrap();
    rig.translate(&tcp([4001, mapped], SYN, b"").over6(C6, through));
    let round = bulk([4001, mapped]).over6(C6, through);
    assert!(!stays(&mut rig.instance, &Nameless, &round));
}

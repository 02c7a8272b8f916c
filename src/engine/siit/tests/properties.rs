// SPDX-License-Identifier: GPL-2.0-or-later
//! What holds for every table and every packet.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::base::prefix::{Pool6, Prefix4, Prefix6};
use crate::model::HairpinMode;

/// Rows of which none overlaps another: each has a /8 and a /16 for itself.
fn tables() -> impl Strategy<Value = Vec<EamRow>> {
    vec((8u8..=32, 0u8..=96, any::<u32>(), any::<u128>()), 1..12).prop_map(|rows| {
        let rows = rows.into_iter().enumerate();
        rows.map(|(i, (len4, more, low4, low6))| {
            let len6 = (len4 + more).clamp(16, 128);
            let net4 = (20 + i as u32) << 24 | low4 & 0x00ff_ffff;
            let net6 = (0x2001 + i as u128) << 112 | low6 >> 16;
            let keep4 = u32::MAX << (32 - len4);
            let keep6 = u128::MAX << (128 - len6);
            EamRow {
                v6: Prefix6::new((net6 & keep6).into(), len6).unwrap(),
                v4: Prefix4::new((net4 & keep4).into(), len4).unwrap(),
            }
        })
        .collect()
    })
}

fn pools() -> impl Strategy<Value = Pool6> {
    let lengths = prop::sample::select(vec![32, 40, 48, 56, 64, 96]);
    (lengths, any::<u128>()).prop_map(|(len, low)| {
        let net = 0x64_u128 << 112 | low >> 16;
        let net = net & (u128::MAX << (128 - len)) & !(0xff << 56);
        Pool6::strict(Prefix6::new(net.into(), len).unwrap()).unwrap()
    })
}

proptest! {
    /// A host in the table talks to one behind pool6, and each hears from the other under the
    /// name it used itself.
    #[test]
    fn there_and_back_again(
        rows in tables(),
        pool6 in pools(),
        pick in any::<prop::sample::Index>(),
        host in any::<u32>(),
        remote in any::<u16>(),
        ports in any::<[u16; 2]>(),
        payload in vec(any::<u8>(), 0..100),
        mode in prop::sample::select(HairpinMode::ALL.to_vec()),
    ) {
        let mut rig = Rig::new().with(|settings| {
            settings.pool6 = Some(pool6);
            settings.eam_hairpin_mode = mode;
        });
        let siit = rig.instance.siit_mut().unwrap();
        siit.eamt.clear();
        for row in &rows {
            siit.eamt.insert(*row, false).unwrap();
        }
        let row = rows[pick.index(rows.len())];
        let hosts = u32::from(row.v4.network()) ^ u32::from(row.v4.last());
        let inside4 = (u32::from(row.v4.network()) | host & hosts).into();
        let (inside6, _) = siit.eamt.to6(inside4).unwrap();
        let outside4 = (198 << 24 | 18 << 16 | u32::from(remote)).into();
        let outside6 = pool6.embed(outside4);

        let load = udp(ports, &payload);
        let v4 = rig.translate(&load.clone().over6(inside6, outside6));
        prop_assert_eq!(ends4(&v4), (inside4, outside4));
        let answer = rig.translate(&load.over4(outside4, inside4));
        prop_assert_eq!(ends6(&answer), (outside6, inside6));
        if mode != HairpinMode::Simple {
            // The packet itself, handed back, is what it was.
            let again = rig.translate(&v4);
            prop_assert_eq!(ends6(&again), (inside6, outside6));
        }
    }
}

/// From noise to nearly right: each packet ends translated, dropped or left alone, and nothing
/// that was not translated leaves anything behind.
#[test]
fn random_packets_do_no_harm() {
    let mut rig = Rig::new();
    let large = udp([1, 2], &[7; 1400]).over4(B4, A4);
    let sent6 = udp([4000, 53], b"?").over6(rig.pool(A4), C6);
    let sent4 = udp([4000, 53], b"?").over4(A4, B4);
    let seeds = [
        udp([4000, 53], b"some data here").over6(A6, B6),
        tcp([4000, 80], 2, b"more data").over6(A6, rig.pool(C4)),
        icmp(128, 0, [0, 7, 0, 1], b"ping").over6(A6, B6),
        icmp(1, 4, [0; 4], &sent6).over6(C6, rig.pool(A4)),
        icmp(2, 0, [0, 0, 5, 0], &sent6).over6(ROUTER6, rig.pool(A4)),
        udp([53, 4000], b"some data here").over6_behind(44, &fragment6(17, 1, 9)),
        tcp([80, 4000], 2, b"more data").over4(B4, A4),
        icmp(3, 4, [0, 0, 5, 0], &sent4).over4(ROUTER4, A4),
        with_flags4(udp([53, 4000], b"some data").over4(B4, A4), 0x2000),
        large,
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |limit: usize| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        ((state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % limit as u64) as usize
    };
    let mut outcomes = [0u32; 3];
    for _ in 0..200_000 {
        let mut packet = seeds[random(seeds.len())].clone();
        for _ in 0..random(4) {
            let at = random(packet.len().min(120));
            packet[at] = random(256) as u8;
        }
        if random(8) == 0 {
            packet.truncate(random(packet.len() + 1));
        }
        let kind = match rig.handle(&packet) {
            Outcome::Translated => 0,
            Outcome::NotOurs(_) => 1,
            Outcome::Dropped(_) | Outcome::Held => 2,
        };
        outcomes[kind] += 1;
        assert_eq!(kind == 0, !rig.out.is_empty());
        assert!(kind == 2 || rig.out.errors().is_empty());
    }
    assert!(outcomes.iter().all(|n| *n > 1_000), "{outcomes:?}");
}

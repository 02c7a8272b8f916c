// SPDX-License-Identifier: GPL-2.0-or-later
//! What the fuzz targets share: the trial of the property tests, and packets to start from.

#![allow(dead_code)]

#[path = "../../tests/judge/mod.rs"]
mod judge;
#[path = "../../src/wire/samples.rs"]
mod samples;

use judge::trial;
use samples::{
    A4, A6, B4, B6, C4, C6, fragment6, icmp, raw4, raw6, tcp, udp, with_flags4, with_options4,
};

/// Writes what a target starts from to the directory that `TYLO_FUZZ_SEEDS` names, if it does.
pub fn plant<T: AsRef<[u8]>>(seeds: impl IntoIterator<Item = T>) {
    let Some(directory) = std::env::var_os("TYLO_FUZZ_SEEDS") else {
        return;
    };
    for (i, seed) in seeds.into_iter().enumerate() {
        let path = std::path::Path::new(&directory).join(format!("seed-{i:03}"));
        std::fs::write(path, seed).expect("the corpus can be written");
    }
}

/// IPv4 packets of every kind, each with a byte of circumstances.
pub fn seeds4() -> Vec<Vec<u8>> {
    let quoted = udp([53, 4000], &[7; 200]).over4(A4, B4);
    let mut packets = vec![
        tcp([80, 4000], 0x10, b"data").over4(B4, A4),
        udp([53, 4000], b"data").over4(B4, A4),
        udp([53, 4000], &[9; 3000]).over4(B4, A4),
        with_flags4(udp([53, 4000], &[9; 1472]).over4(B4, A4), 0x2000),
        with_flags4(raw4(B4, A4, 17, &[9; 1480]), 0x2000 | 185),
        with_flags4(raw4(B4, A4, 6, &[9; 8]), 0x1fff),
        with_options4(
            tcp([80, 4000], 2, b"").over4(B4, A4),
            &[131, 7, 4, 9, 9, 9, 9, 0],
        ),
        icmp(8, 0, [0, 7, 0, 1], b"ping").over4(B4, A4),
        icmp(0, 0, [0, 7, 0, 1], b"pong").over4(B4, A4),
        raw4(B4, A4, 50, b"secret"),
    ];
    let mut unchecked = udp([53, 4000], b"data").over4(B4, A4);
    unchecked[26..28].fill(0);
    packets.push(unchecked);
    let whole = icmp(8, 0, [0, 7, 0, 1], b"ping").over4(A4, B4);
    let part = with_flags4(quoted.clone(), 0x2000);
    for kind in [3, 11, 12] {
        for quote in [&quoted[..28], &quoted, &whole, &part] {
            packets.push(icmp(kind, 0, [0; 4], quote).over4(C4, A4));
        }
        let extended = [&quoted[..128], &[0x20, 0, 0, 0, 0, 8, 1, 1, 9, 9, 9, 9]].concat();
        packets.push(icmp(kind, 0, [0, 32, 0, 0], &extended).over4(C4, A4));
    }
    packets.push(icmp(3, 4, [0, 0, 5, 0], &quoted).over4(C4, A4));
    chosen(packets)
}

/// IPv6 packets of every kind, each with a byte of circumstances.
pub fn seeds6() -> Vec<Vec<u8>> {
    let quoted = udp([53, 4000], &[7; 200]).over6(B6, A6);
    let options = [44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 1, 0, 0, 0, 9];
    let mut packets = vec![
        tcp([4000, 80], 0x10, b"data").over6(A6, B6),
        udp([4000, 53], b"data").over6(A6, B6),
        udp([4000, 53], b"data").over6_behind(0, &options),
        udp([4000, 53], b"data").over6_behind(43, &[17, 0, 0, 1, 0, 0, 0, 0]),
        udp([4000, 53], b"data").over6_behind(44, &fragment6(17, 0, 9)),
        udp([4000, 53], &[9; 1440]).over6_behind(44, &fragment6(17, 1, 9)),
        raw6(
            A6,
            B6,
            44,
            &[fragment6(17, 1480 | 1, 9), vec![5; 100]].concat(),
        ),
        raw6(
            A6,
            B6,
            44,
            &[fragment6(17, 0xfff8, 9), vec![5; 100]].concat(),
        ),
        icmp(128, 0, [0, 7, 0, 1], b"ping").over6(A6, B6),
        icmp(129, 0, [0, 7, 0, 1], b"pong").over6(A6, B6),
        raw6(A6, B6, 50, b"secret"),
    ];
    let whole = icmp(128, 0, [0, 7, 0, 1], b"ping").over6(B6, A6);
    let part = udp([1, 2], &[0; 100]).over6_behind(44, &fragment6(17, 1, 0x1234_5678));
    for kind in [1, 2, 3, 4] {
        for quote in [&quoted[..48], &quoted, &whole, &part] {
            packets.push(icmp(kind, 0, [0, 0, 0, 6], quote).over6(C6, B6));
        }
        let extended = [&quoted[..128], &[0x20, 0, 0, 0, 0, 8, 1, 1, 9, 9, 9, 9]].concat();
        packets.push(icmp(kind, 0, [16, 0, 0, 0], &extended).over6(C6, B6));
    }
    chosen(packets)
}

fn chosen(packets: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let bits = [0x40, 0x02, 0x28, 0xc0];
    let with = |(i, packet): (usize, Vec<u8>)| [vec![bits[i % bits.len()]], packet].concat();
    packets.into_iter().enumerate().map(with).collect()
}

/// Packets of both families behind the head of an ICMP error.
pub fn seeds_of_replies() -> Vec<Vec<u8>> {
    let head = [3, 0, 0, 0, 5, 0];
    let packets = seeds4().into_iter().chain(seeds6());
    packets
        .map(|packet| [&head[..], &packet[1..]].concat())
        .collect()
}

/// A byte of circumstances, then an IPv4 packet.
pub fn packet4(data: &[u8]) {
    trial::packet4(data);
}

/// A byte of circumstances, then an IPv6 packet.
pub fn packet6(data: &[u8]) {
    trial::packet6(data);
}

/// Six bytes of the head of an ICMP error, then the packet it is about.
pub fn reply(data: &[u8]) {
    trial::reply(data);
}

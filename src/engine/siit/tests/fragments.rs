// SPDX-License-Identifier: GPL-2.0-or-later
//! Fragments go through one by one, in whatever order they come.

use super::*;

const MORE: u16 = 0x2000;

/// An IPv4 packet without options, in pieces that carry at most `room` bytes.
fn cut4(packet: &[u8], room: usize) -> Vec<Vec<u8>> {
    let payload = &packet[20..];
    let pieces = payload.chunks(room).enumerate().map(|(i, part)| {
        let offset = i * room;
        let more = offset + part.len() < payload.len();
        let (src, dst) = ends4(packet);
        let field = (offset / 8) as u16 | if more { MORE } else { 0 };
        with_flags4(raw4(src, dst, packet[9], part), field)
    });
    pieces.collect()
}

/// The same for an IPv6 packet without extension headers.
fn cut6(packet: &[u8], room: usize) -> Vec<Vec<u8>> {
    let payload = &packet[40..];
    let pieces = payload.chunks(room).enumerate().map(|(i, part)| {
        let offset = i * room;
        let more = offset + part.len() < payload.len();
        let (src, dst) = ends6(packet);
        let head = fragment6(packet[6], offset as u16 | u16::from(more), 0xabcd_1234);
        raw6(src, dst, 44, &[&head[..], part].concat())
    });
    pieces.collect()
}

/// Offset, whether more follow, payload and identification of a fragment of either family.
fn fields(packet: &[u8]) -> (usize, bool, &[u8], u32) {
    let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    if packet[0] >> 4 == 4 {
        let field = word(6);
        assert_eq!(field & 0x4000, 0, "may be fragmented further");
        let offset = usize::from(field & 0x1fff) * 8;
        (offset, field & MORE != 0, &packet[20..], word(4).into())
    } else {
        assert_eq!(packet[6], 44);
        let (offset, more) = (word(42) & !7, word(42) & 1 != 0);
        let id = u32::from(word(44)) << 16 | u32::from(word(46));
        (offset.into(), more, &packet[48..], id)
    }
}

/// Puts fragments together again.
fn join(mut packets: Vec<Vec<u8>>) -> Vec<u8> {
    packets.sort_by_key(|packet| fields(packet).0);
    let mut whole = Vec::new();
    let last = packets.len() - 1;
    for (i, packet) in packets.iter().enumerate() {
        let (offset, more, payload, id) = fields(packet);
        assert_eq!((offset, more), (whole.len(), i != last));
        assert_eq!(id, fields(&packets[0]).3);
        whole.extend_from_slice(payload);
    }
    whole
}

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7) as u8).collect()
}

#[test]
fn fragments_become_fragments_on_the_way_to_ipv6() {
    let mut rig = Rig::new();
    let load = udp([4000, 53], &data(4000));
    let pieces = cut4(&load.clone().over4(B4, A4), 1480);
    assert_eq!(pieces.len(), 3);
    for order in [[0, 1, 2], [2, 1, 0]] {
        let mut packets = Vec::new();
        for index in order {
            packets.extend(rig.translate_all(&pieces[index]));
        }
        assert_eq!(packets.len(), 5, "two of three must be cut once more");
        assert!(packets.iter().all(|packet| packet.len() <= 1280));
        assert!(packets.iter().all(|packet| ends6(packet) == (B6, A6)));
        assert_eq!(fields(&packets[0]).3, u32::from(ID));
        assert_eq!(join(packets), load.clone().over6(B6, A6)[40..]);
    }
}

#[test]
fn fragments_become_fragments_on_the_way_to_ipv4() {
    let mut rig = Rig::new();
    let load = udp([4000, 53], &data(4000));
    let pieces = cut6(&load.clone().over6(A6, B6), 1448);
    assert_eq!(pieces.len(), 3);
    for order in [[0, 1, 2], [1, 2, 0]] {
        let mut packets = Vec::new();
        for index in order {
            packets.extend(rig.translate_all(&pieces[index]));
        }
        assert_eq!(packets.len(), 3);
        assert!(packets.iter().all(|packet| ends4(packet) == (A4, B4)));
        assert_eq!(fields(&packets[0]).3, 0x1234, "the low half");
        assert_eq!(join(packets), load.clone().over4(A4, B4)[20..]);
    }
}

#[test]
fn fragments_of_any_transport_pass() {
    let mut rig = Rig::new();
    for load in [
        tcp([4000, 80], 0x10, &data(2000)),
        load(132, data(2000), None),
    ] {
        let (v6, v4) = (load.clone().over6(A6, B6), load.over4(A4, B4));
        let out: Vec<_> = cut6(&v6, 1024)
            .iter()
            .flat_map(|piece| rig.translate_all(piece))
            .collect();
        assert_eq!(join(out), v4[20..]);
    }
}

#[test]
fn hairpinned_fragments_pass_too() {
    let mut rig = Rig::new();
    let load = udp([4000, 53], &data(3000));
    let pieces = cut6(&load.clone().over6(A6, rig.pool(C4)), 1208);
    let mut out = Vec::new();
    for piece in &pieces {
        out.extend(rig.translate_all(piece));
    }
    assert!(out.iter().all(|p| ends6(p) == (rig.pool(A4), C6)));
    assert_eq!(join(out), load.over6(rig.pool(A4), C6)[40..]);
}

#[test]
fn the_first_fragment_without_a_checksum_is_refused_and_the_others_pass() {
    let mut packet = udp([1, 2], &data(2000)).over4(B4, A4);
    packet[26..28].fill(0);
    let pieces = cut4(&packet, 1208);
    for amend in [false, true] {
        let mut rig = Rig::new().with(|settings| settings.amend_udp_checksum_zero = amend);
        let told = rig.drop(&pieces[0], Counter::FourSixFragmentedZeroCsum);
        assert_eq!(told, Some((3, 13)));
        assert_eq!(rig.translate_all(&pieces[1]).len(), 1);
    }
}

#[test]
fn fragmented_pings_are_dropped_only_if_they_are_ours() {
    let mut rig = Rig::new();
    let ping = icmp(8, 0, [0; 4], &data(2000));
    for piece in cut4(&ping.clone().over4(B4, A4), 1208) {
        assert_eq!(rig.drop(&piece, Counter::FourSixFragmentedIcmp), None);
    }
    for piece in cut4(&ping.over4(OWN4, A4), 1208) {
        rig.leave(&piece, Counter::FourSixSrc);
    }
    let ping = icmp(128, 0, [0; 4], &data(2000));
    for piece in cut6(&ping.clone().over6(A6, B6), 1208) {
        assert_eq!(rig.drop(&piece, Counter::SixFourFragmentedIcmp), None);
    }
    for piece in cut6(&ping.over6(A6, C6), 1208) {
        // C is in the table, so this is ours as well.
        assert_eq!(rig.drop(&piece, Counter::SixFourFragmentedIcmp), None);
    }
    for piece in cut6(&icmp(128, 0, [0; 4], &data(2000)).over6(ROUTER6, B6), 1208) {
        rig.leave(&piece, Counter::SixFourDst);
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! Super-packets: cutting one into segments by the header that goes to the TUN device gives what
//! translating the segments one by one would have given.
#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use tylo::wire::offload::{Offload, SAFE, Segments, VIRTIO_LEN};
use tylo::wire::output::Output;
use tylo::wire::{Packet4, Packet6};
use tylo::xlat::{Plan, Rewrite, Rules, four_to_six, six_to_four};

const RULES: Rules<'static> = Rules {
    override_tos: None,
    zeroize_traffic_class: false,
    lowest_ipv6_mtu: 1280,
    plateaus: &[65535, 1492, 68],
    ingress_mtu: u32::MAX,
    egress_mtu: u32::MAX,
    amend_udp_checksum_zero: true,
    reassembled: false,
    identification: 7,
    offload: Offload::NONE,
    segment: 0,
};

const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8];
const SERVER6: [u8; 16] = [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, 203, 0, 113, 2];
const CLIENT4: [u8; 4] = [192, 0, 2, 1];
const SERVER4: [u8; 4] = [203, 0, 113, 2];

const FIN: u8 = 1;
const SYN: u8 = 2;
const PSH: u8 = 8;
const ACK: u8 = 0x10;
const CWR: u8 = 0x80;

/// A stream in one packet.
#[derive(Clone, Debug)]
struct Stream {
    v6: bool,
    dont_fragment: bool,
    options: usize,
    sequence: u32,
    flags: u8,
    data: Vec<u8>,
    /// Data in a segment.
    size: u16,
}

fn streams() -> impl Strategy<Value = Stream> {
    let flags = prop::sample::select(vec![ACK, ACK | PSH, ACK | FIN, ACK | CWR, ACK | CWR | PSH]);
    let head = (
        any::<bool>(),
        any::<bool>(),
        0..=10usize,
        any::<u32>(),
        flags,
    );
    (head, 1..65_400usize, any::<u8>(), 8..9000u16).prop_map(|(head, len, seed, size)| {
        let (v6, dont_fragment, options, sequence, flags) = head;
        let byte = |i: usize| (i * 31 + i / 251 + usize::from(seed)) as u8;
        let options = options * 4;
        Stream {
            v6,
            dont_fragment,
            options,
            sequence,
            flags,
            data: (0..len.min(65_535 - 20 - 20 - options)).map(byte).collect(),
            size,
        }
    })
}

fn sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)))
        .sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// The sum of the pseudo-header of a TCP packet.
fn pseudo(packet: &[u8]) -> u16 {
    let (ip_len, addresses) = if packet[0] >> 4 == 6 {
        (40, &packet[8..40])
    } else {
        (20, &packet[12..20])
    };
    let len = (packet.len() - ip_len) as u32;
    sum(&[addresses, &[0, 6], &len.to_be_bytes()])
}

/// Fills in lengths and the checksum of the IPv4 header.
fn settle(packet: &mut [u8]) {
    if packet[0] >> 4 == 6 {
        let len = (packet.len() - 40) as u16;
        packet[4..6].copy_from_slice(&len.to_be_bytes());
    } else {
        let len = packet.len() as u16;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet[10..12].fill(0);
        let sum = !sum(&[&packet[..20]]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

impl Stream {
    fn ip_len(&self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    /// The packet as the queue delivers it: the checksum holds the sum of the pseudo-header.
    fn whole(&self) -> Vec<u8> {
        let mut packet = if self.v6 {
            let mut head = vec![0x60, 0, 0, 0, 0, 0, 6, 60];
            head.extend(CLIENT6);
            head.extend(SERVER6);
            head
        } else {
            let fragment = if self.dont_fragment { 0x40 } else { 0 };
            let mut head = vec![0x45, 0, 0, 0, 0xff, 0xfe, fragment, 0, 60, 6, 0, 0];
            head.extend(SERVER4);
            head.extend(CLIENT4);
            head
        };
        packet.extend([0x1f, 0x90, 0xf0, 0x01]);
        packet.extend(self.sequence.to_be_bytes());
        packet.extend([
            1,
            2,
            3,
            4,
            ((20 + self.options) * 4) as u8,
            self.flags,
            9,
            9,
        ]);
        packet.extend([0; 4]);
        packet.extend(std::iter::repeat_n(1, self.options));
        packet.extend(&self.data);
        settle(&mut packet);
        let at = self.ip_len() + 16;
        let sum = pseudo(&packet);
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn translate(&self, packet: &[u8], rules: &Rules<'_>) -> Output {
        let mut out = Output::new();
        if self.v6 {
            let packet = Packet6::parse(packet).unwrap();
            let outer = Rewrite {
                src: Ipv4Addr::from(CLIENT4),
                dst: Ipv4Addr::from(SERVER4),
                ports: Some([8080, 61_234]),
            };
            six_to_four(&packet, &Plan { outer, inner: None }, rules, &mut out).unwrap();
        } else {
            let packet = Packet4::parse(packet).unwrap();
            let outer = Rewrite {
                src: Ipv6Addr::from(SERVER6),
                dst: Ipv6Addr::from(CLIENT6),
                ports: Some([8080, 61_234]),
            };
            four_to_six(&packet, &Plan { outer, inner: None }, rules, &mut out).unwrap();
        }
        out
    }

    /// Cut as long as `self.size` says and translated with nothing left to do; several packets for
    /// each segment where it is fragmented.
    fn one_by_one(&self, rules: &Rules<'_>) -> Vec<Vec<u8>> {
        let whole = self.whole();
        let head = self.ip_len() + 20 + self.options;
        let mut all = Vec::new();
        for segment in segments(&whole, head, self.size.into()) {
            let out = self.translate(&segment, rules);
            all.extend(out.packets().map(<[u8]>::to_vec));
        }
        all
    }
}

/// What the kernel makes of a super-packet: segments with complete checksums.
fn segments(packet: &[u8], head: usize, size: usize) -> Vec<Vec<u8>> {
    let tcp = if packet[0] >> 4 == 6 { 40 } else { 20 };
    let (header, data) = packet.split_at(head);
    let count = data.len().div_ceil(size).max(1);
    let mut sequence = u32::from_be_bytes(header[tcp + 4..tcp + 8].try_into().unwrap());
    (0..count)
        .map(|index| {
            let part = &data[index * size..data.len().min((index + 1) * size)];
            let mut segment = [header, part].concat();
            segment[tcp + 4..tcp + 8].copy_from_slice(&sequence.to_be_bytes());
            sequence = sequence.wrapping_add(part.len() as u32);
            if index > 0 {
                segment[tcp + 13] &= !CWR;
            }
            if index + 1 < count {
                segment[tcp + 13] &= !(FIN | PSH);
            }
            if tcp == 20 {
                let id = u16::from_be_bytes([segment[4], segment[5]]);
                let id = id.wrapping_add(index as u16);
                segment[4..6].copy_from_slice(&id.to_be_bytes());
            }
            settle(&mut segment);
            segment[tcp + 16..tcp + 18].fill(0);
            let pseudo = pseudo(&segment);
            let sum = !sum(&[&pseudo.to_be_bytes(), &segment[tcp..]]);
            segment[tcp + 16..tcp + 18].copy_from_slice(&sum.to_be_bytes());
            segment
        })
        .collect()
}

/// What comes out of the TUN device for a frame, by its virtio header alone.
fn cut(frame: &[u8]) -> Vec<Vec<u8>> {
    let (header, packet) = frame.split_at(VIRTIO_LEN);
    let word = |at: usize| usize::from(u16::from_ne_bytes([header[at], header[at + 1]]));
    let v6 = packet[0] >> 4 == 6;
    assert_eq!(header[0], 1, "the checksum is left to the kernel");
    assert_eq!(word(6), if v6 { 40 } else { 20 }, "where TCP starts");
    assert_eq!(word(8), 16, "where its checksum is");
    let field = u16::from_be_bytes(packet[word(6) + 16..word(6) + 18].try_into().unwrap());
    assert_eq!(
        field % 0xffff,
        pseudo(packet) % 0xffff,
        "the sum of the pseudo-header"
    );
    let tcp_len = usize::from(packet[word(6) + 12] >> 4) * 4;
    assert_eq!(word(2), word(6) + tcp_len, "the length of the headers");
    let declared = if v6 {
        40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]))
    } else {
        assert_eq!(
            sum(&[&packet[..20]]),
            0xffff,
            "the checksum of the IPv4 header"
        );
        usize::from(u16::from_be_bytes([packet[2], packet[3]]))
    };
    assert_eq!(declared, packet.len());
    let data = packet.len() - word(2);
    let ecn = if packet[word(6) + 13] & CWR != 0 {
        0x80
    } else {
        0
    };
    match header[1] {
        0 => assert_eq!(word(4), 0),
        kind => {
            assert_eq!(kind, ecn | if v6 { 4 } else { 1 });
            assert!((1..data).contains(&word(4)), "more than one segment");
        }
    }
    let size = if header[1] == 0 { data.max(1) } else { word(4) };
    segments(packet, word(2), size)
}

/// All that may differ: the identification of what is not fragmented, and whether a short last
/// segment may be, which is said for all of them at once.
fn without_identification(mut packets: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    for (index, packet) in packets.iter_mut().enumerate() {
        if packet[0] >> 4 == 4 {
            packet[4..6].fill(0);
            if index > 0 {
                packet[6] = 0;
            }
            settle(packet);
        }
    }
    packets
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn segments_are_those_of_single_translations(stream in streams()) {
        let segment = stream.size + stream.options as u16;
        let rules = Rules {
            offload: Offload { partial: true, segments: Segments::Some, place: None },
            segment,
            ..RULES
        };
        let told = Rules {
            offload: Offload { partial: true, segments: Segments::Of(stream.size), place: None },
            segment: 1,
            ..RULES
        };
        let whole = stream.whole();
        let out = stream.translate(&whole, &rules);
        prop_assert_eq!(out.len(), 1);
        let same = stream.translate(&whole, &told);
        prop_assert_eq!(out.frame(0), same.frame(0));
        // The same with data that stays where it is, if it is worth that.
        let mut apart = rules;
        apart.offload.place = Some(3);
        let apart = stream.translate(&whole, &apart);
        let rest = apart.rest(0).map_or(&[][..], |rest| {
            assert_eq!(rest.place, 3);
            &whole[rest.from..]
        });
        prop_assert_eq!(rest.is_empty(), stream.data.len() < 4096);
        prop_assert_eq!(out.frame(0), Some(&[apart.frame(0).unwrap(), rest].concat()[..]));
        let cut = cut(out.frame(0).unwrap());
        let longest = 40 + 20 + stream.options + usize::from(stream.size).min(stream.data.len());
        if stream.v6 || stream.dont_fragment || longest <= 1280 {
            let expected = without_identification(stream.one_by_one(&RULES));
            prop_assert_eq!(without_identification(cut), expected);
            return Ok(());
        }
        // Would have been fragmented: it is cut into shorter segments instead.
        let head = 40 + 20 + stream.options;
        prop_assert!(cut.iter().all(|segment| segment.len() <= 1280));
        prop_assert!(cut[..cut.len() - 1].iter().all(|segment| segment.len() == 1280));
        prop_assert!(cut.iter().all(|segment| segment[6] == 6), "no fragments");
        let data: Vec<u8> = cut.iter().flat_map(|segment| &segment[head..]).copied().collect();
        prop_assert_eq!(data, stream.data);
    }

    /// One segment, only its checksum is left to do.
    #[test]
    fn partial_checksums_stay_partial(stream in streams(), syn in any::<bool>()) {
        let stream = Stream {
            data: if syn { Vec::new() } else { stream.data[..stream.data.len().min(1200)].to_vec() },
            flags: if syn { SYN } else { stream.flags },
            ..stream
        };
        let rules = Rules {
            offload: Offload { partial: true, segments: Segments::One, place: None },
            lowest_ipv6_mtu: 1500,
            ..RULES
        };
        let out = stream.translate(&stream.whole(), &rules);
        let frame = out.frame(0).unwrap();
        prop_assert_eq!(frame[1], 0, "not cut");
        let whole = Stream { size: u16::MAX, ..stream };
        prop_assert_eq!(
            without_identification(cut(frame)),
            without_identification(whole.one_by_one(&Rules { offload: Offload::NONE, ..rules }))
        );
    }
}

#[test]
fn unknown_segments_are_of_a_size_that_fits_everywhere() {
    for v6 in [false, true] {
        let stream = Stream {
            v6,
            dont_fragment: true,
            options: 12,
            sequence: u32::MAX,
            flags: ACK,
            data: vec![7; 60_000],
            size: SAFE - 12,
        };
        let rules = Rules {
            offload: Offload {
                partial: true,
                segments: Segments::Some,
                place: None,
            },
            ..RULES
        };
        let out = stream.translate(&stream.whole(), &rules);
        let cut = cut(out.frame(0).unwrap());
        assert_eq!(cut[0].len(), if v6 { 1260 } else { 1280 });
        let expected = without_identification(stream.one_by_one(&RULES));
        assert_eq!(without_identification(cut), expected);
    }
}

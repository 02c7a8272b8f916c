// SPDX-License-Identifier: GPL-2.0-or-later
//! What holds for every packet: translation gives what an independent writer (etherparse) makes
//! of the same fields, there and back again gives the packet, and nothing that can come in by
//! wire makes the translator panic.
#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder};
use proptest::prelude::*;
use tylo::base::counters::Counter;
use tylo::wire::checksum::{Sum, update, update_udp};
use tylo::wire::output::Output;
use tylo::wire::{L4, Packet4, Packet6, Refusal, Verdict};
use tylo::xlat::icmp::reply_to;
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
    offload: tylo::wire::offload::Offload::NONE,
    segment: 0,
};
/// Never splits.
const WHOLE: Rules<'static> = Rules {
    lowest_ipv6_mtu: u32::MAX,
    ..RULES
};

/// Everything about a packet that translation keeps.
#[derive(Clone, Debug)]
struct Load {
    kind: Kind,
    /// Source and destination; the first one is the identifier of echo messages.
    ports: [u16; 2],
    payload: Vec<u8>,
    traffic_class: u8,
    hop_limit: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    Request,
    Reply,
}

fn loads() -> impl Strategy<Value = Load> {
    let kinds = prop::sample::select(vec![Kind::Tcp, Kind::Udp, Kind::Request, Kind::Reply]);
    let payloads = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..100),
        1 => prop::collection::vec(any::<u8>(), 1000..1600),
    ];
    (kinds, any::<[u16; 2]>(), payloads, any::<u8>(), 2u8..).prop_map(
        |(kind, ports, payload, traffic_class, hop_limit)| Load {
            kind,
            ports,
            payload,
            traffic_class,
            hop_limit,
        },
    )
}

impl Load {
    fn with_ports(&self, ports: [u16; 2]) -> Self {
        Self {
            ports,
            ..self.clone()
        }
    }

    /// What a plan says about ports.
    fn plan_ports(&self) -> [u16; 2] {
        match self.kind {
            Kind::Tcp | Kind::Udp => self.ports,
            Kind::Request | Kind::Reply => [self.ports[0]; 2],
        }
    }

    fn over6(&self, [src, dst]: [Ipv6Addr; 2]) -> Vec<u8> {
        self.build(IpHeaders::Ipv6(
            Ipv6Header {
                traffic_class: self.traffic_class,
                hop_limit: self.hop_limit,
                source: src.octets(),
                destination: dst.octets(),
                ..Ipv6Header::default()
            },
            etherparse::Ipv6Extensions::default(),
        ))
    }

    fn over4(&self, [src, dst]: [Ipv4Addr; 2], identification: u16, df: bool) -> Vec<u8> {
        let mut header =
            Ipv4Header::new(0, self.hop_limit, IpNumber(0), src.octets(), dst.octets()).unwrap();
        header.identification = identification;
        header.dont_fragment = df;
        let mut bytes = self.build(IpHeaders::Ipv4(
            header,
            etherparse::Ipv4Extensions::default(),
        ));
        bytes[1] = self.traffic_class;
        seal4(&mut bytes);
        bytes
    }

    fn build(&self, ip: IpHeaders) -> Vec<u8> {
        let v4 = matches!(ip, IpHeaders::Ipv4(..));
        let [a, b] = self.ports;
        let to = &mut Vec::new();
        let ip = PacketBuilder::ip(ip);
        match (self.kind, v4) {
            (Kind::Tcp, _) => ip.tcp(a, b, 1, 2).ack(3).write(to, &self.payload),
            (Kind::Udp, _) => ip.udp(a, b).write(to, &self.payload),
            (Kind::Request, true) => ip.icmpv4_echo_request(a, 5).write(to, &self.payload),
            (Kind::Reply, true) => ip.icmpv4_echo_reply(a, 5).write(to, &self.payload),
            (Kind::Request, false) => ip.icmpv6_echo_request(a, 5).write(to, &self.payload),
            (Kind::Reply, false) => ip.icmpv6_echo_reply(a, 5).write(to, &self.payload),
        }
        .unwrap();
        std::mem::take(to)
    }
}

fn seal4(bytes: &mut [u8]) {
    let header = Ipv4Header::from_slice(bytes).unwrap().0;
    bytes[10..12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
}

fn plan<A: Copy>([src, dst]: [A; 2], load: &Load) -> Plan<A> {
    Plan {
        outer: Rewrite {
            src,
            dst,
            ports: Some(load.plan_ports()),
        },
        inner: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn six_to_four_and_back(
        load in loads(),
        six in any::<[Ipv6Addr; 2]>(),
        four in any::<[Ipv4Addr; 2]>(),
        ports in any::<[u16; 2]>(),
    ) {
        let bytes = load.over6(six);
        let mut out = Output::new();
        let mapped = load.with_ports(ports);
        let packet = Packet6::parse(&bytes).unwrap();
        six_to_four(&packet, &plan(four, &mapped), &WHOLE, &mut out).unwrap();
        let df = bytes.len() - 20 > 1260;
        let id = if df { 0 } else { WHOLE.identification };
        prop_assert_eq!(out.get(0).unwrap(), mapped.over4(four, id, df));

        let bytes4 = out.get(0).unwrap().to_vec();
        let packet = Packet4::parse(&bytes4).unwrap();
        four_to_six(&packet, &plan(six, &load), &WHOLE, &mut out).unwrap();
        prop_assert_eq!(out.get(1).unwrap(), bytes);
    }

    #[test]
    fn four_to_six_and_back(
        load in loads(),
        four in any::<[Ipv4Addr; 2]>(),
        six in any::<[Ipv6Addr; 2]>(),
        ports in any::<[u16; 2]>(),
        id in any::<u16>(),
        df in any::<bool>(),
    ) {
        let bytes = load.over4(four, id, df);
        let mut out = Output::new();
        let mapped = load.with_ports(ports);
        let packet = Packet4::parse(&bytes).unwrap();
        four_to_six(&packet, &plan(six, &mapped), &WHOLE, &mut out).unwrap();
        prop_assert_eq!(out.get(0).unwrap(), mapped.over6(six));

        let bytes6 = out.get(0).unwrap().to_vec();
        let packet = Packet6::parse(&bytes6).unwrap();
        six_to_four(&packet, &plan(four, &load), &WHOLE, &mut out).unwrap();
        let df = bytes.len() > 1260;
        let id = if df { 0 } else { WHOLE.identification };
        prop_assert_eq!(out.get(1).unwrap(), load.over4(four, id, df));
    }

    #[test]
    fn an_update_gives_what_a_full_sum_gives(
        mut bytes in prop::collection::vec(any::<u8>(), 2..200),
        at in any::<prop::sample::Index>(),
        new in any::<[u8; 2]>(),
    ) {
        // All-zero bytes are left out: their sum is the other zero, and no packet is like that.
        bytes[0] |= 1;
        let at = at.index(bytes.len() / 2) * 2;
        let checksum = Sum::bytes(&bytes).checksum();
        let removed = Sum::bytes(&bytes[at..at + 2]);
        bytes[at..at + 2].copy_from_slice(&new);
        bytes[0] |= u8::from(at != 0);
        let updated = update(checksum, removed, Sum::bytes(&bytes[at..at + 2]));
        let full = Sum::bytes(&bytes).checksum();
        prop_assert!(updated == full || (full, updated) == (0xffff, 0));
        prop_assert_ne!(update_udp(checksum, removed, Sum::bytes(&bytes[at..at + 2])), 0);
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut tally = Tally::default();
        push(&bytes, &mut Output::new(), &mut tally);
    }
}

/// What became of packets.
#[derive(Debug, Default)]
struct Tally {
    translated: u64,
    refused: u64,
    answered: u64,
    foreign: u64,
}

const SIX: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0xcb00, 0x7101),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
];
const FOUR: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(203, 0, 113, 1)];

fn both<A: Copy>([src, dst]: [A; 2]) -> Plan<A> {
    let outer = Rewrite {
        src,
        dst,
        ports: Some([61001, 80]),
    };
    Plan {
        outer,
        inner: Some(Rewrite {
            src: dst,
            dst: src,
            ports: Some([80, 61001]),
        }),
    }
}

/// Takes a packet in, translates it if it can be read, reads the result, and answers refusals.
fn push(bytes: &[u8], out: &mut Output, tally: &mut Tally) {
    out.clear();
    let refusal = if bytes.first().is_some_and(|b| b >> 4 == 6) {
        assert!(Packet4::parse(bytes).is_err());
        match Packet6::parse(bytes) {
            Ok(packet) => six_to_four(&packet, &both(FOUR), &RULES, out).err(),
            Err(refusal) => Some(refusal),
        }
    } else {
        assert!(Packet6::parse(bytes).is_err());
        match Packet4::parse(bytes) {
            Ok(packet) => four_to_six(&packet, &both(SIX), &RULES, out).err(),
            Err(refusal) => Some(refusal),
        }
    };
    match refusal {
        None => {
            tally.translated += 1;
            assert!(!out.is_empty());
            for packet in out.packets() {
                let readable = if packet[0] >> 4 == 6 {
                    Packet6::parse(packet).map(|p| p.refusal)
                } else {
                    Packet4::parse(packet).map(|p| p.refusal)
                };
                assert!(readable.is_ok(), "{bytes:02x?} became {packet:02x?}");
            }
        }
        Some(Refusal { reason, verdict }) => {
            assert!(out.is_empty(), "{reason:?} left something behind");
            match verdict {
                Verdict::Drop => tally.refused += 1,
                Verdict::Accept => tally.foreign += 1,
                Verdict::Hold => panic!("{reason:?} holds it, and nobody asked for that"),
                Verdict::Reply(reply) => {
                    tally.answered += 1;
                    if let Some(error) = reply_to(bytes, reply) {
                        let most = if error.to.is_ipv6() { 1240 } else { 556 };
                        assert!(error.message.len() <= most);
                    }
                }
            }
        }
    }
}

/// Packets of every kind that the translator knows.
fn seeds() -> Vec<Vec<u8>> {
    let [a6, b6] = [SIX[1], SIX[0]];
    let [a4, b4] = FOUR;
    let mut seeds = Vec::new();
    for kind in [Kind::Tcp, Kind::Udp, Kind::Request, Kind::Reply] {
        let load = Load {
            kind,
            ports: [40000, 443],
            payload: vec![0xa5; 30],
            traffic_class: 0,
            hop_limit: 64,
        };
        let six = load.over6([a6, b6]);
        let four = load.over4([a4, b4], 1, false);

        let behind = |first: u8, headers: &[u8]| {
            let mut bytes = six.clone();
            bytes.splice(40..40, headers.iter().copied());
            bytes[6] = first;
            fix_lengths(&mut bytes);
            bytes
        };
        seeds.push(behind(44, &[six[6], 0, 0, 1, 0, 0, 0, 1]));
        seeds.push(behind(44, &[six[6], 0, 0, 8, 0, 0, 0, 1]));
        seeds.push(behind(
            0,
            &[
                60, 0, 1, 4, 0, 0, 0, 0, 43, 0, 0, 0, 0, 0, 0, 0, six[6], 0, 0, 0, 0, 0, 0, 0,
            ],
        ));
        let mut options = four.clone();
        options.splice(20..20, [1, 131, 7, 4, 9, 9, 9, 9]);
        options[0] = 0x47;
        fix_lengths(&mut options);
        seeds.push(options);
        let mut fragment = four.clone();
        fragment[6] = 0x20;
        seeds.push(fragment);

        // Errors, with and without an extension behind 128 bytes.
        for (v4, kinds, quote) in [
            (false, &[1, 2, 3, 4][..], &six),
            (true, &[3, 11, 12], &four),
        ] {
            for kind in kinds {
                for extended in [false, true] {
                    let unit = if v4 { 4 } else { 8 };
                    let mut data = quote.clone();
                    let mut rest = [0, 0, 0, 0];
                    if extended {
                        data.resize(128, 0);
                        data.extend([0x20, 0, 0, 0, 0, 8, 1, 1, 9, 9, 9, 9]);
                        rest[usize::from(v4)] = 128 / unit;
                    }
                    let mut bytes = if v4 {
                        four[..20].to_vec()
                    } else {
                        six[..40].to_vec()
                    };
                    bytes[if v4 { 9 } else { 6 }] = if v4 { 1 } else { 58 };
                    bytes.extend([*kind, 0, 0, 0]);
                    bytes.extend(rest);
                    bytes.extend(data);
                    fix_lengths(&mut bytes);
                    seeds.push(bytes);
                }
            }
        }
        seeds.extend([six, four]);
    }
    seeds
}

/// Makes the length in the IP header true.
fn fix_lengths(bytes: &mut [u8]) {
    let len = bytes.len();
    if len >= 20 && bytes[0] >> 4 == 4 {
        bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    } else if len >= 40 {
        bytes[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
    }
}

/// Makes the checksum of an ICMP error true, since otherwise few would be looked into.
fn fix_checksum(bytes: &mut [u8]) {
    let found = if bytes[0] >> 4 == 6 {
        Packet6::parse(bytes).ok().and_then(|p| {
            let len = p.bytes.len() - p.l4_offset;
            let pseudo = Sum::pseudo6(p.src, p.dst, 58, len);
            matches!(p.l4, L4::Error { .. }).then_some((p.l4_offset, p.bytes.len(), pseudo))
        })
    } else {
        Packet4::parse(bytes).ok().and_then(|p| {
            matches!(p.l4, L4::Error { .. }).then_some((p.l4_offset, p.bytes.len(), Sum::ZERO))
        })
    };
    if let Some((start, end, pseudo)) = found {
        bytes[start + 2..start + 4].fill(0);
        let checksum = (pseudo + Sum::bytes(&bytes[start..end])).checksum();
        bytes[start + 2..start + 4].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// splitmix64, by Sebastiano Vigna (public domain).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

#[test]
fn a_million_broken_packets_do_no_harm() {
    let seeds = seeds();
    let mut random = Random(2026);
    let mut out = Output::new();
    let mut tally = Tally::default();
    let mut bytes = Vec::new();
    for _ in 0..1_000_000 {
        let how = random.next();
        bytes.clear();
        bytes.extend_from_slice(&seeds[random.below(seeds.len())]);
        if how & 0xf == 0 {
            // Nothing but noise behind a plausible first byte.
            let first = bytes[0];
            bytes.truncate(random.below(100).max(1));
            for byte in &mut bytes {
                *byte = random.next() as u8;
            }
            bytes[0] = first;
        }
        if how & 0x30 == 0 {
            bytes.truncate(random.below(bytes.len()).max(1));
        }
        for _ in 0..how >> 8 & 3 {
            let at = random.below(bytes.len().min(if how & 0x40 == 0 { 256 } else { 72 }));
            bytes[at] = random.next() as u8;
        }
        if how & 0x80 == 0 {
            fix_lengths(&mut bytes);
        }
        if how & 0x1000 == 0 {
            fix_checksum(&mut bytes);
        }
        push(&bytes, &mut out, &mut tally);
    }
    let Tally {
        translated,
        refused,
        answered,
        foreign,
    } = tally;
    assert_eq!(translated + refused + answered + foreign, 1_000_000);
    assert!(translated > 100_000 && refused > 100_000, "{tally:?}");
    assert!(answered > 1000, "{tally:?}");
}

#[test]
fn refusals_carry_the_word_for_statistics() {
    let refusal = Packet6::parse(&[0x60]).unwrap_err();
    assert_eq!(refusal.reason, Counter::SkbTruncated);
    assert_eq!(refusal.reason.name(), "JSTAT_SKB_TRUNCATED");
}

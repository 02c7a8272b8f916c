// SPDX-License-Identifier: GPL-2.0-or-later
//! Arbitrary packets of both families, well-formed and less so: the judge compares each with what
//! became of it, and it goes there and back again.
//!
//! What may be different after 4→6→4: options are gone; identification and DF are those of a
//! packet that needs neither, unless it was a fragment; UDP without a checksum has one; the code
//! of echo messages is 0. After 6→4→6: flow label and extension headers are gone, with them the
//! fragment header of a packet that was not fragmented; identifications of fragments have lost
//! their upper half. Everything else comes back as it was.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use judge::trial::{A4, A6, B4, B6, C4, C6, packet4, packet6, reply};
use judge::{look, sum, word};
use tylo::wire::output::Output;
use tylo::wire::{Packet4, Packet6};
use tylo::xlat::{Plan, Rewrite, Rules, four_to_six, six_to_four};

mod judge;

/// A packet of either family.
#[derive(Clone, Debug)]
struct Shape {
    tos: u8,
    ttl: u8,
    id: u32,
    df: bool,
    /// Offset in units of eight bytes, and whether more follow.
    fragment: Option<(u16, bool)>,
    /// Extension headers: next header number and first bytes.
    extensions: Vec<(u8, [u8; 6])>,
    options: Vec<u8>,
    load: Load,
    /// Added to the transport's checksum.
    damage: u16,
}

#[derive(Clone, Debug)]
enum Load {
    Tcp([u16; 2], Vec<u8>),
    Udp([u16; 2], Vec<u8>, bool),
    Echo(bool, [u8; 4], Vec<u8>),
    Other(u8, Vec<u8>),
    /// Type, code, four bytes, what is quoted, how much of it, an extension behind it.
    Error(u8, u8, [u8; 4], Box<Shape>, usize, bool),
}

/// Source and destination in both families; those of a quoted packet are the other way round.
struct Ends([IpAddr; 2]);

impl Shape {
    fn is_error(&self) -> bool {
        matches!(self.load, Load::Error(..))
    }

    fn build(&self, v6: bool, ends: &Ends) -> Vec<u8> {
        let Ends([src, dst]) = ends;
        let (protocol, payload) = self.payload(v6, ends);
        let octets = |addr: &IpAddr| match addr {
            IpAddr::V4(addr) => addr.octets().to_vec(),
            IpAddr::V6(addr) => addr.octets().to_vec(),
        };
        let addresses = [octets(src), octets(dst)].concat();
        if v6 {
            let (first, headers) = self.headers(protocol);
            let len = (headers.len() + payload.len()) as u16;
            let mut bytes = vec![0x60 | self.tos >> 4, self.tos << 4 | 5, 6, 7];
            bytes.extend(len.to_be_bytes());
            bytes.extend([first, self.ttl]);
            bytes.extend(addresses);
            bytes.extend(headers);
            bytes.extend(payload);
            return bytes;
        }
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        let header = 20 + options.len();
        let (offset, more) = self.fragment.unwrap_or((0, false));
        let flags = u16::from(self.df) << 14 | u16::from(more) << 13 | offset;
        let mut bytes = vec![0x40 | (header / 4) as u8, self.tos];
        bytes.extend(((header + payload.len()) as u16).to_be_bytes());
        bytes.extend((self.id as u16).to_be_bytes());
        bytes.extend(flags.to_be_bytes());
        bytes.extend([self.ttl, protocol, 0, 0]);
        bytes.extend(addresses);
        bytes.extend(options);
        let checksum = !sum(&bytes);
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    /// Number of the first header behind the IPv6 header, and all up to the transport's.
    fn headers(&self, protocol: u8) -> (u8, Vec<u8>) {
        let mut next = protocol;
        let mut headers = Vec::new();
        if let Some((offset, more)) = self.fragment {
            let mut fragment = vec![next, 0];
            fragment.extend((offset << 3 | u16::from(more)).to_be_bytes());
            fragment.extend(self.id.to_be_bytes());
            headers.splice(0..0, fragment);
            next = 44;
        }
        for (kind, data) in &self.extensions {
            headers.splice(0..0, [&[next][..], &[0], data].concat());
            next = *kind;
        }
        (next, headers)
    }

    fn payload(&self, v6: bool, ends: &Ends) -> (u8, Vec<u8>) {
        let icmp = if v6 { 58 } else { 1 };
        let (protocol, mut bytes, at) = match &self.load {
            Load::Tcp([a, b], data) => {
                let mut bytes = [a.to_be_bytes(), b.to_be_bytes()].concat();
                bytes.extend([1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0]);
                bytes.extend(data);
                (6, bytes, Some(16))
            }
            Load::Udp([a, b], data, checked) => {
                let len = 8 + data.len() as u16;
                let mut bytes = [*a, *b, len, 0].map(u16::to_be_bytes).concat();
                bytes.extend(data);
                (17, bytes, checked.then_some(6))
            }
            Load::Echo(request, rest, data) => {
                let kind = match (v6, request) {
                    (true, true) => 128,
                    (true, false) => 129,
                    (false, true) => 8,
                    (false, false) => 0,
                };
                (icmp, [&[kind, 0, 0, 0], &rest[..], data].concat(), Some(2))
            }
            Load::Other(protocol, data) => (*protocol, data.clone(), None),
            Load::Error(kind, code, rest, quoted, cut, extended) => {
                let (kind, back) = match v6 {
                    true => (kind % 4 + 1, Ends([B6.into(), A6.into()])),
                    false => {
                        let kinds = [3, 3, 11, 12, 4, 5];
                        (kinds[usize::from(*kind) % 6], Ends([A4.into(), B4.into()]))
                    }
                };
                let mut data = quoted.build(v6, &back);
                data.truncate((*cut).max(28));
                let mut rest = *rest;
                if *extended {
                    data.resize(data.len().next_multiple_of(8).max(128), 0);
                    rest = match v6 {
                        true => [(data.len() / 8) as u8, 0, 0, 0],
                        false => [rest[0], (data.len() / 4) as u8, 0, 0],
                    };
                    data.extend([0x20, 0, 0, 0, 0, 8, 1, 1, 9, 9, 9, 9]);
                }
                let bytes = [&[kind, code % 16, 0, 0], &rest[..], &data].concat();
                (icmp, bytes, Some(2))
            }
        };
        if let Some(at) = at {
            let checksum = checksum(&bytes, protocol, ends).wrapping_add(self.damage);
            bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        (protocol, bytes)
    }
}

fn checksum(bytes: &[u8], protocol: u8, Ends([src, dst]): &Ends) -> u16 {
    let mut all = Vec::new();
    for addr in [src, dst] {
        match addr {
            IpAddr::V4(_) if protocol == 1 => {}
            IpAddr::V4(addr) => all.extend(addr.octets()),
            IpAddr::V6(addr) => all.extend(addr.octets()),
        }
    }
    if protocol != 1 {
        all.extend((bytes.len() as u32).to_be_bytes());
        all.extend([0, protocol]);
    }
    all.extend(bytes);
    match !sum(&all) {
        0 => 0xffff,
        checksum => checksum,
    }
}

fn datas() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => prop::collection::vec(any::<u8>(), 0..64),
        1 => prop::collection::vec(any::<u8>(), 1150..1700),
        1 => (0usize..4000).prop_map(|len| vec![0xa5; len]),
    ]
}

fn simple_loads() -> impl Strategy<Value = Load> {
    prop_oneof![
        (any::<[u16; 2]>(), datas()).prop_map(|(ports, data)| Load::Tcp(ports, data)),
        (any::<[u16; 2]>(), datas(), prop::bool::weighted(0.9))
            .prop_map(|(ports, data, checked)| Load::Udp(ports, data, checked)),
        (any::<bool>(), any::<[u8; 4]>(), datas())
            .prop_map(|(request, rest, data)| Load::Echo(request, rest, data)),
        (any::<u8>(), datas()).prop_map(|(protocol, data)| Load::Other(protocol, data)),
    ]
}

fn shapes(loads: impl Strategy<Value = Load>) -> impl Strategy<Value = Shape> {
    let fragments = prop_oneof![
        3 => Just(None),
        1 => (prop_oneof![Just(0), 0u16..0x2000], any::<bool>()).prop_map(Some),
    ];
    let extensions = prop::collection::vec(
        (
            prop::sample::select(vec![0, 43, 60]),
            prop_oneof![4 => Just([1, 0, 0, 0, 0, 0]), 1 => any::<[u8; 6]>()],
        ),
        0..3,
    );
    let options = prop_oneof![
        4 => Just(Vec::new()),
        1 => prop::collection::vec(prop::sample::select(vec![0, 1, 7, 131, 137, 4, 8]), 0..40),
    ];
    (
        (any::<u8>(), 0u8.., any::<u32>(), any::<bool>()),
        (fragments, extensions, options, loads),
        prop_oneof![4 => Just(0), 1 => any::<u16>()],
    )
        .prop_map(
            |((tos, ttl, id, df), (fragment, extensions, options, load), damage)| Shape {
                tos,
                ttl,
                id,
                df,
                fragment,
                extensions,
                options,
                load,
                damage,
            },
        )
}

fn packets() -> impl Strategy<Value = Shape> {
    let errors = (
        (any::<u8>(), any::<u8>(), any::<[u8; 4]>()),
        (shapes(simple_loads()), 0usize..2000, any::<bool>()),
    )
        .prop_map(|((kind, code, rest), (quoted, cut, extended))| {
            Load::Error(kind, code, rest, Box::new(quoted), cut, extended)
        });
    shapes(prop_oneof![simple_loads(), errors])
}

/// Nothing in it is lost on the way: whole or a fragment, with a right checksum.
fn plain() -> impl Strategy<Value = Shape> {
    let loads = simple_loads().prop_filter("what exists in both families", |load| match load {
        Load::Tcp(..) | Load::Echo(..) => true,
        Load::Udp(_, _, checked) => *checked,
        Load::Other(protocol, _) => *protocol > 100,
        Load::Error(..) => false,
    });
    shapes(loads).prop_map(|mut shape| {
        shape.extensions.clear();
        shape.options.clear();
        shape.ttl = shape.ttl.max(2);
        shape.damage = 0;
        // ICMP messages in fragments are not translated.
        if let Load::Echo(..) = shape.load {
            shape.fragment = None;
        }
        // Fragments end before 64 KiB.
        if let Some((offset, more)) = &mut shape.fragment {
            *offset %= 0x1c00;
            *more |= *offset == 0;
        }
        shape
    })
}

const RULES: Rules<'static> = Rules {
    override_tos: None,
    zeroize_traffic_class: false,
    lowest_ipv6_mtu: u32::MAX,
    plateaus: &[1492],
    ingress_mtu: u32::MAX,
    egress_mtu: u32::MAX,
    amend_udp_checksum_zero: true,
    reassembled: false,
    identification: 0x4242,
    offload: tylo::wire::offload::Offload::NONE,
    segment: 0,
};

fn plan<A: Copy>([src, dst]: [A; 2]) -> Plan<A> {
    Plan {
        outer: Rewrite {
            src,
            dst,
            ports: None,
        },
        inner: Some(Rewrite {
            src: dst,
            dst: src,
            ports: None,
        }),
    }
}

fn to_six(bytes: &[u8]) -> Vec<u8> {
    let mut out = Output::new();
    let packet = Packet4::parse(bytes).unwrap();
    four_to_six(&packet, &plan([A6, B6]), &RULES, &mut out).unwrap();
    out.get(0).unwrap().to_vec()
}

fn to_four(bytes: &[u8]) -> Vec<u8> {
    let mut out = Output::new();
    let packet = Packet6::parse(bytes).unwrap();
    six_to_four(&packet, &plan([A4, B4]), &RULES, &mut out).unwrap();
    out.get(0).unwrap().to_vec()
}

/// The flow label is lost.
fn unlabelled(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[1] &= 0xf0;
    bytes[2..4].fill(0);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn any_ipv4_packet_becomes_what_the_rfc_says(bits in any::<u8>(), shape in packets()) {
        let from = if shape.is_error() { C4 } else { B4 };
        let bytes = shape.build(false, &Ends([from.into(), A4.into()]));
        packet4(&[&[bits][..], &bytes].concat());
    }

    #[test]
    fn any_ipv6_packet_becomes_what_the_rfc_says(bits in any::<u8>(), shape in packets()) {
        let from = if shape.is_error() { C6 } else { A6 };
        let bytes = shape.build(true, &Ends([from.into(), B6.into()]));
        packet6(&[&[bits][..], &bytes].concat());
    }

    #[test]
    fn noise_is_judged_like_packets(
        bits in 0u8..128,
        shape in packets(),
        v6 in any::<bool>(),
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let ends = if v6 { [A6.into(), B6.into()] } else { [B4.into(), A4.into()] };
        let mut bytes = shape.build(v6, &Ends(ends));
        for (at, byte) in noise {
            let at = at.index(bytes.len().min(100));
            bytes[at] = byte;
        }
        let data = [&[bits][..], &bytes].concat();
        packet4(&data);
        packet6(&data);
        reply(&[&[3, 1, 0, 0, 0, 0][..], &bytes].concat());
    }

    #[test]
    fn there_and_back_from_ipv4(mut shape in plain()) {
        let ends = Ends([A4.into(), B4.into()]);
        let bytes = shape.build(false, &ends);
        let back = to_four(&to_six(&bytes));
        // Who needs an identification gets a new one, and who is long is not to be fragmented.
        if shape.fragment.is_none() {
            shape.df = bytes.len() > 1260;
            shape.id = if shape.df { 0 } else { RULES.identification.into() };
        } else {
            shape.df = false;
        }
        prop_assert_eq!(same_zero(back), same_zero(shape.build(false, &ends)));
    }

    #[test]
    fn there_and_back_from_ipv6(mut shape in plain()) {
        shape.id &= 0xffff;
        let bytes = shape.build(true, &Ends([A6.into(), B6.into()]));
        let back = to_six(&to_four(&bytes));
        prop_assert_eq!(same_zero(back), same_zero(unlabelled(bytes)));
    }

    #[test]
    fn quoted_packets_come_back(
        (kind, code) in prop::sample::select(vec![(1u8, 1u8), (1, 4), (3, 0), (3, 1)]),
        quoted in plain(),
        extended in any::<bool>(),
    ) {
        let mut quoted = quoted;
        quoted.id &= 0xffff;
        // First fragments are quoted, later ones are not.
        if let Some(fragment) = &mut quoted.fragment {
            *fragment = (0, true);
        }
        // As much as an ICMPv4 error may quote, with 20 bytes less of a header.
        let error = Load::Error(kind - 1, code, [0; 4], Box::new(quoted.clone()), 500, extended);
        let shape = Shape {
            load: error,
            fragment: None,
            ..quoted
        };
        let bytes = shape.build(true, &Ends([A6.into(), B6.into()]));
        let mut expected = unlabelled(bytes.clone());
        let inner = unlabelled(expected.split_off(48));
        let back = to_six(&to_four(&bytes));
        prop_assert_eq!(&back[40..42], &expected[40..42]);
        let (one, other) = (look(&inner).unwrap(), look(&back[48..]).unwrap());
        prop_assert_eq!((one.tos, one.ttl, one.protocol), (other.tos, other.ttl, other.protocol));
        prop_assert_eq!((one.fragment, one.id), (other.fragment, other.id));
        prop_assert_eq!((one.src, one.dst, one.declared), (other.src, other.dst, other.declared));
        if extended {
            prop_assert_eq!(&back[back.len() - 12..], &inner[inner.len() - 12..]);
        } else {
            prop_assert_eq!(other.payload, one.payload);
        }
    }
}

/// Both zeros of a checksum are the same.
fn same_zero(mut bytes: Vec<u8>) -> Vec<u8> {
    let seen = look(&bytes).unwrap();
    let at = match seen.protocol {
        1 | 58 => 2,
        6 => 16,
        _ => return bytes,
    };
    let at = bytes.len() - seen.payload.len() + at;
    if seen.fragment.is_none_or(|f| f.0 == 0) && word(&bytes, at) == Some(0xffff) {
        bytes[at..at + 2].fill(0);
    }
    bytes
}

#[test]
fn packets_of_every_kind_are_translated() {
    let runner = &mut proptest::test_runner::TestRunner::deterministic();
    let mut translated = [0, 0];
    for _ in 0..2000 {
        let shape = packets().new_tree(runner).unwrap().current();
        let four = shape.build(false, &Ends([B4.into(), A4.into()]));
        let six = shape.build(true, &Ends([A6.into(), B6.into()]));
        translated[0] += usize::from(packet4(&[&[0x80][..], &four].concat()));
        translated[1] += usize::from(packet6(&[&[0x80][..], &six].concat()));
    }
    // The rest is refused for a reason; if everything were, nothing would be tested.
    assert!(translated.iter().all(|n| *n > 600), "{translated:?}");
}

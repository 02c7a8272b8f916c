// SPDX-License-Identifier: GPL-2.0-or-later
//! What the fuzz targets share: a packet goes through the translator and the judge of the
//! property tests looks at what comes out.

#![allow(dead_code)]

#[path = "../../tests/judge/mod.rs"]
mod judge;
#[path = "../../src/wire/samples.rs"]
mod samples;

use std::net::IpAddr;

use judge::{Expected, judge, look, sum};
use samples::{
    A4, A6, B4, B6, C4, C6, fragment6, icmp, raw4, raw6, tcp, udp, with_flags4, with_options4,
};
use tylo::wire::output::Output;
use tylo::wire::segments::{Run, Segment};
use tylo::wire::{L4, Packet4, Packet6, Refusal, Verdict};
use tylo::xlat::icmp::reply_to;
use tylo::xlat::{Plan, Rewrite, Rules, four_to_six, six_to_four};

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

/// What a translation depends on, taken from the first byte of the input.
struct Choice {
    rules: Rules<'static>,
    ports: Option<[u16; 2]>,
    repair: bool,
}

impl Choice {
    fn new(bits: u8) -> Self {
        let bit = |n: u8| bits >> n & 1 != 0;
        let rules = Rules {
            override_tos: bit(0).then_some(0x20),
            zeroize_traffic_class: bit(0),
            lowest_ipv6_mtu: if bit(1) { 1280 } else { 1500 },
            plateaus: &[65535, 32000, 1492, 68],
            ingress_mtu: if bit(2) { 1400 } else { u32::MAX },
            egress_mtu: if bit(3) { 1481 } else { u32::MAX },
            amend_udp_checksum_zero: !bit(4),
            reassembled: bit(5),
            identification: 0x4242,
        };
        Self {
            rules,
            ports: bit(6).then_some([61001, 80]),
            repair: !bit(7),
        }
    }

    fn plan<A>(&self, [src, dst]: [A; 2], [inner_src, inner_dst]: [A; 2]) -> Plan<A> {
        Plan {
            outer: Rewrite {
                src,
                dst,
                ports: self.ports,
            },
            inner: Some(Rewrite {
                src: inner_src,
                dst: inner_dst,
                ports: self.ports.map(|[src, dst]| [dst, src]),
            }),
        }
    }

    fn expected<A: Into<IpAddr>>(
        &self,
        [src, dst]: [A; 2],
        inner: [A; 2],
        tos: Option<u8>,
    ) -> Expected {
        Expected {
            src: src.into(),
            dst: dst.into(),
            inner: inner.map(Into::into),
            mtu: self.rules.lowest_ipv6_mtu.min(self.rules.egress_mtu) as usize,
            reassembled: self.rules.reassembled,
            tos,
        }
    }
}

/// The first byte chooses the circumstances, the rest is an IPv4 packet.
pub fn packet4(data: &[u8]) {
    let Some((bits, bytes)) = data.split_first() else {
        return;
    };
    let choice = Choice::new(*bits);
    let mut bytes = bytes.to_vec();
    if choice.repair {
        repair(&mut bytes);
    }
    let mut out = Output::new();
    let (outer, inner) = ([B6, A6], [A6, C6]);
    let packet = Packet4::parse(&bytes);
    let result = packet.and_then(|packet| {
        four_to_six(&packet, &choice.plan(outer, inner), &choice.rules, &mut out)?;
        Ok(packet)
    });
    let packet = match result {
        Ok(packet) => packet,
        Err(refusal) => return refused(&bytes, refusal, &out),
    };
    let output: Vec<&[u8]> = out.packets().collect();
    let tos = choice.rules.zeroize_traffic_class.then_some(0);
    judge(packet.bytes, &output, &choice.expected(outer, inner, tos));
    for bytes in &output {
        let read = Packet6::parse(bytes).expect("the parser reads what translation writes");
        assert_eq!(read.refusal, None);
        assert_eq!(
            read.fragment.map(|f| f.offset != 0 || f.more),
            read.fragment.map(|_| true)
        );
    }
    join(&output);
    if let [bytes] = output[..]
        && !matches!(packet.l4, L4::Error { .. })
    {
        back_to_four(&packet, bytes);
    }
}

/// An IPv4 packet that was not split comes back with the same load.
fn back_to_four(packet: &Packet4<'_>, bytes: &[u8]) {
    let choice = Choice::new(0);
    let ports = match packet.l4 {
        L4::Tcp { src, dst, .. } | L4::Udp { src, dst } => Some([src, dst]),
        L4::Echo { identifier, .. } => Some([identifier; 2]),
        _ => None,
    };
    let plan = Plan {
        outer: Rewrite {
            src: packet.src,
            dst: packet.dst,
            ports,
        },
        inner: None,
    };
    let mut out = Output::new();
    let six = Packet6::parse(bytes).expect("readable");
    six_to_four(&six, &plan, &choice.rules, &mut out).expect("what came from IPv4 goes back");
    let (back, from) = (
        look(out.get(0).expect("one packet")).expect("readable"),
        look(packet.bytes).expect("readable"),
    );
    compare(&from, &back);
}

/// The first byte chooses the circumstances, the rest is an IPv6 packet.
pub fn packet6(data: &[u8]) {
    let Some((bits, bytes)) = data.split_first() else {
        return;
    };
    let choice = Choice::new(*bits);
    let mut bytes = bytes.to_vec();
    if choice.repair {
        repair(&mut bytes);
    }
    let mut out = Output::new();
    let (outer, inner) = ([A4, B4], [B4, C4]);
    let packet = Packet6::parse(&bytes);
    let result = packet.and_then(|packet| {
        six_to_four(&packet, &choice.plan(outer, inner), &choice.rules, &mut out)?;
        Ok(packet)
    });
    let packet = match result {
        Ok(packet) => packet,
        Err(refusal) => return refused(&bytes, refusal, &out),
    };
    let output: Vec<&[u8]> = out.packets().collect();
    let tos = choice.rules.override_tos;
    judge(&bytes, &output, &choice.expected(outer, inner, tos));
    let read = Packet4::parse(output[0]).expect("the parser reads what translation writes");
    assert_eq!(read.refusal, None);
    join(&output);
    if !matches!(packet.l4, L4::Error { .. }) {
        back_to_six(&packet, &read);
    }
}

/// An IPv6 packet comes back with the same load, but for an atomic fragment header.
fn back_to_six(packet: &Packet6<'_>, four: &Packet4<'_>) {
    let mut rules = Choice::new(0).rules;
    rules.lowest_ipv6_mtu = u32::MAX;
    let ports = match packet.l4 {
        L4::Tcp { src, dst, .. } | L4::Udp { src, dst } => Some([src, dst]),
        L4::Echo { identifier, .. } => Some([identifier; 2]),
        _ => None,
    };
    let plan = Plan {
        outer: Rewrite {
            src: packet.src,
            dst: packet.dst,
            ports,
        },
        inner: None,
    };
    let mut out = Output::new();
    match four_to_six(four, &plan, &rules, &mut out) {
        Ok(()) => {}
        // A UDP packet that has no checksum in IPv6 cannot always get one.
        Err(_) if matches!(four.l4, L4::Udp { .. }) => return,
        Err(refusal) => panic!("what came from IPv6 goes back: {refusal:?}"),
    }
    let (back, from) = (
        look(out.get(0).expect("one packet")).expect("readable"),
        look(packet.bytes).expect("readable"),
    );
    compare(&from, &back);
}

fn compare(from: &judge::Seen<'_>, back: &judge::Seen<'_>) {
    assert_eq!(
        (from.src, from.dst, from.protocol),
        (back.src, back.dst, back.protocol)
    );
    let real = |f: Option<(usize, bool)>| f.filter(|f| *f != (0, false));
    assert_eq!(real(from.fragment), real(back.fragment));
    let first = from.fragment.is_none_or(|f| f.0 == 0);
    let checksum = match from.protocol {
        6 if first => 16..18,
        17 if first => 6..8,
        1 | 58 if first => 2..4,
        _ => 0..0,
    };
    assert_eq!(from.payload.len(), back.payload.len());
    let echo = matches!(from.protocol, 1 | 58) && first;
    for (at, (a, b)) in from.payload.iter().zip(back.payload).enumerate() {
        // There are two zeros, UDP without a checksum gets one, and echo messages have no code.
        let may_change = checksum.contains(&at) || echo && at == 1;
        assert!(a == b || may_change, "byte {at}");
    }
}

/// What comes out may be joined for the TUN device.
fn join(output: &[&[u8]]) {
    let mut segments = output.iter().filter_map(|bytes| Segment::read(bytes));
    if let Some(first) = segments.next() {
        let mut run = Run::new(first);
        assert!(segments.all(|segment| run.push(&segment)) || output.len() > 1);
    }
}

fn refused(bytes: &[u8], refusal: Refusal, out: &Output) {
    assert!(out.is_empty(), "{refusal:?} left something behind");
    if let Verdict::Reply(reply) = refusal.verdict {
        answered(bytes, reply);
    }
}

/// Six bytes of an ICMP error's head, then the packet it is about.
pub fn reply(data: &[u8]) {
    let Some((head, bytes)) = data.split_first_chunk::<6>() else {
        return;
    };
    let [kind, code, rest @ ..] = *head;
    answered(bytes, tylo::wire::IcmpReply { kind, code, rest });
}

fn answered(bytes: &[u8], reply: tylo::wire::IcmpReply) {
    let Some(error) = reply_to(bytes, reply) else {
        return;
    };
    let message = &error.message;
    let from = look(bytes).expect("what is answered can be read");
    assert_eq!(error.to, from.src);
    assert!(!from.src.is_multicast() && !from.dst.is_multicast());
    assert!(
        from.fragment.is_none_or(|f| f.0 == 0),
        "about a later fragment"
    );
    assert_eq!(
        (message[0], message[1], &message[4..8]),
        (reply.kind, reply.code, &reply.rest[..])
    );
    assert_eq!(message[8..], bytes[..message.len() - 8]);
    assert!(message.len() <= if from.v6 { 1240 } else { 556 });
    assert!(from.v6 || sum(message) == 0xffff);
}

/// Makes lengths and the checksum of an ICMP message true; few inputs would get any further.
fn repair(bytes: &mut [u8]) {
    let len = bytes.len();
    let Some(first) = bytes.first() else { return };
    match first >> 4 {
        4 if (20..=65535).contains(&len) => {
            bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes())
        }
        6 if (40..=65575).contains(&len) => {
            bytes[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes())
        }
        _ => return,
    }
    let Some(seen) = look(bytes) else { return };
    let at = len - seen.payload.len();
    let icmp = seen.protocol == if seen.v6 { 58 } else { 1 };
    if !icmp || seen.payload.len() < 8 {
        return;
    }
    let mut pseudo = Vec::new();
    if let (IpAddr::V6(src), IpAddr::V6(dst)) = (seen.src, seen.dst) {
        pseudo.extend(src.octets());
        pseudo.extend(dst.octets());
        pseudo.extend((seen.payload.len() as u32).to_be_bytes());
        pseudo.extend([0, 58]);
    }
    bytes[at + 2..at + 4].fill(0);
    pseudo.extend(&bytes[at..]);
    let checksum = !sum(&pseudo);
    bytes[at + 2..at + 4].copy_from_slice(&checksum.to_be_bytes());
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

// SPDX-License-Identifier: GPL-2.0-or-later
//! A packet goes through the translator, the judge looks at what comes out, and where nothing was
//! lost it goes back again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tylo::wire::output::Output;
use tylo::wire::segments::{Run, Segment};
use tylo::wire::{IcmpReply, L4, Packet4, Packet6, Refusal, Verdict};
use tylo::xlat::icmp::reply_to;
use tylo::xlat::{Plan, Rewrite, Rules, four_to_six, six_to_four};

use super::{Expected, Seen, judge, look, sum};

pub(crate) const A4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 33);
pub(crate) const B4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
pub(crate) const C4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
pub(crate) const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0xa);
pub(crate) const B6: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0xcb00, 0x7107);
pub(crate) const C6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0xc);

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
            offload: tylo::wire::offload::Offload::NONE,
            segment: 0,
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
///
/// Says whether the packet was translated.
pub(crate) fn packet4(data: &[u8]) -> bool {
    let Some((bits, bytes)) = data.split_first() else {
        return false;
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
        Err(refusal) => {
            refused(&bytes, refusal, &out);
            return false;
        }
    };
    let output: Vec<&[u8]> = out.packets().collect();
    let tos = choice.rules.zeroize_traffic_class.then_some(0);
    judge(packet.bytes, &output, &choice.expected(outer, inner, tos));
    for bytes in &output {
        let read = Packet6::parse(bytes).expect("the parser reads what translation writes");
        // A long ping is cut up here, but nobody translates its pieces back.
        let ping = read.protocol == 58 && read.fragment.is_some();
        assert_eq!(read.refusal.is_some(), ping);
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
    true
}

/// An IPv4 packet that was not split comes back with the same load.
fn back_to_four(packet: &Packet4<'_>, bytes: &[u8]) {
    let choice = Choice::new(0);
    let ports = ports(&packet.l4);
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
///
/// Says whether the packet was translated.
pub(crate) fn packet6(data: &[u8]) -> bool {
    let Some((bits, bytes)) = data.split_first() else {
        return false;
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
        Err(refusal) => {
            refused(&bytes, refusal, &out);
            return false;
        }
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
    true
}

/// An IPv6 packet comes back with the same load, but for an atomic fragment header.
fn back_to_six(packet: &Packet6<'_>, four: &Packet4<'_>) {
    let mut rules = Choice::new(0).rules;
    rules.lowest_ipv6_mtu = u32::MAX;
    let ports = ports(&packet.l4);
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

/// What a plan says to keep them.
fn ports<A>(l4: &L4<A>) -> Option<[u16; 2]> {
    match *l4 {
        L4::Tcp { src, dst, .. } | L4::Udp { src, dst } => Some([src, dst]),
        L4::Echo { identifier, .. } => Some([identifier; 2]),
        L4::Error { .. } | L4::Icmp { .. } | L4::Other | L4::LaterFragment => None,
    }
}

fn compare(from: &Seen<'_>, back: &Seen<'_>) {
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
    for segment in output.iter().filter_map(|bytes| Segment::read(bytes)) {
        let mut run = Run::new(segment);
        if run.push(&segment) {
            // A stream goes on, but two datagrams may be equal.
            assert!(segment.is_udp(), "a segment does not follow itself");
            let head = run.head();
            assert_eq!(usize::from(head.segment_size), segment.data().len());
            assert!(head.bytes().len() + 2 * segment.data().len() <= 65_535 + 40);
        }
    }
}

fn refused(bytes: &[u8], refusal: Refusal, out: &Output) {
    assert!(out.is_empty(), "{refusal:?} left something behind");
    if let Verdict::Reply(reply) = refusal.verdict {
        answered(bytes, reply);
    }
}

/// Six bytes of an ICMP error's head, then the packet it is about.
pub(crate) fn reply(data: &[u8]) {
    let Some((head, bytes)) = data.split_first_chunk::<6>() else {
        return;
    };
    let [kind, code, rest @ ..] = *head;
    answered(bytes, IcmpReply { kind, code, rest });
}

fn answered(bytes: &[u8], reply: IcmpReply) {
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

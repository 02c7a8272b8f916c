// SPDX-License-Identifier: GPL-2.0-or-later
//! Runs of TCP segments, or of UDP datagrams of one flow, that the kernel can carry as one packet.
//!
//! A bulk transfer arrives as dozens of packets that differ in little but their data. Handed back
//! one by one, each costs a system call and a way through the kernel; handed back as one
//! super-packet that names the size of its segments, they cost about as much as a single one, and
//! the kernel (or the network card) cuts them apart again where they leave, into exactly the
//! packets that came. So only what can be restored to the bit is joined: equal headers but for
//! length, checksum and sequence number, equal sizes but for the last, no TCP flags but ACK and
//! PSH, an IPv4 identification that goes up by one unless DF says that it does not matter
//! (RFC 6864 section 4.1), and a checksum that is right, because the kernel will compute it anew.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::checksum::Sum;
use super::offload::{TCP_CHECKSUM, UDP_CHECKSUM, Virtio};
use super::write::{get4, get16, put16};
use super::{TCP, UDP};

/// A packet with data that may be joined with others.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    bytes: &'a [u8],
    ip_len: usize,
    head_len: usize,
    /// If it matters.
    identification: Option<u16>,
    /// Of TCP.
    sequence: Option<u32>,
}

/// Segments that follow each other.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    first: Segment<'a>,
    count: usize,
    data: usize,
    /// Nothing may follow: the last one was shorter, or asked to be delivered.
    closed: bool,
    push: bool,
}

/// The header of a super-packet: IP and transport, with the lengths of the whole and the checksum
/// of the pseudo-header, which is what the kernel completes.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    bytes: [u8; HEAD_MAX],
    len: usize,
    /// Where the transport header starts.
    pub ip_len: usize,
    /// Data in every segment but the last, in bytes.
    pub segment_size: u16,
    pub is_v6: bool,
    pub is_udp: bool,
}

/// Whether a packet is one of UDP, as far as its first header tells.
pub fn is_udp(bytes: &[u8]) -> bool {
    let protocol = match bytes.first().map(|first| first >> 4) {
        Some(4) => bytes.get(9),
        _ => bytes.get(6),
    };
    protocol == Some(&UDP)
}

impl<'a> Segment<'a> {
    /// `None` for whatever has to travel alone. Looks at the whole packet: checksums count.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (ip_len, protocol, identification) = match bytes.first()? {
            0x45 => {
                let fragment = get16(bytes, 6)?;
                if fragment & !DONT_FRAGMENT != 0 || usize::from(get16(bytes, 2)?) != bytes.len() {
                    return None;
                }
                let matters = (fragment == 0).then_some(get16(bytes, 4)?);
                (20, *bytes.get(9)?, matters)
            }
            version if version >> 4 == 6 => {
                if usize::from(get16(bytes, 4)?) + 40 != bytes.len() {
                    return None;
                }
                (40, *bytes.get(6)?, None)
            }
            _ => return None,
        };
        let rest = bytes.get(ip_len..)?;
        let (len, sequence) = match protocol {
            TCP => {
                let (len, flags) = (usize::from(*rest.get(12)? >> 4) * 4, *rest.get(13)?);
                if len < 20 || flags & !PSH != ACK {
                    return None;
                }
                (len, Some(u32::from_be_bytes(get4(rest, 4)?)))
            }
            UDP => {
                // Where none was computed, none may appear.
                if usize::from(get16(rest, 4)?) != rest.len() || get16(rest, UDP_CHECKSUM)? == 0 {
                    return None;
                }
                (8, None)
            }
            _ => return None,
        };
        let segment = Self {
            bytes,
            ip_len,
            head_len: ip_len + len,
            identification,
            sequence,
        };
        if segment.head_len >= bytes.len() {
            return None;
        }
        let sum = segment.pseudo(rest.len())? + Sum::bytes(rest);
        sum.is_valid().then_some(segment)
    }

    pub fn data(&self) -> &'a [u8] {
        &self.bytes[self.head_len..]
    }

    /// Whether both are of one flow.
    pub fn is_of_flow(&self, other: &Self) -> bool {
        let flow = |segment: &Self| {
            let addresses = if segment.ip_len == 20 { 12 } else { 8 };
            let ports = segment.bytes.get(addresses..segment.ip_len + 4);
            (segment.is_udp(), ports)
        };
        flow(self) == flow(other)
    }

    pub const fn is_udp(&self) -> bool {
        self.sequence.is_none()
    }

    fn pushes(&self) -> bool {
        !self.is_udp() && self.bytes[self.ip_len + 13] & PSH != 0
    }

    fn pseudo(&self, len: usize) -> Option<Sum> {
        let bytes = self.bytes;
        let protocol = if self.is_udp() { UDP } else { TCP };
        Some(if self.ip_len == 20 {
            let src = Ipv4Addr::from(get4(bytes, 12)?);
            Sum::pseudo4(src, Ipv4Addr::from(get4(bytes, 16)?), protocol, len)
        } else {
            let addr = |at| {
                Some(Ipv6Addr::from(
                    <[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?,
                ))
            };
            Sum::pseudo6(addr(8)?, addr(24)?, protocol, len)
        })
    }

    /// Whether the headers agree in everything that a super-packet has only once.
    fn like(&self, other: &Self) -> bool {
        if self.head_len != other.head_len || self.ip_len != other.ip_len {
            return false;
        }
        let (a, b) = (&self.bytes[..self.head_len], &other.bytes[..self.head_len]);
        let same = |from: usize, to: usize| a[from..to] == b[from..to];
        let ip = if self.ip_len == 20 {
            // All but total length, identification and checksum.
            same(0, 2) && same(6, 10) && same(12, 20)
        } else {
            same(0, 4) && same(6, 40)
        };
        let ports = self.ip_len;
        ip && same(ports, ports + 4)
            && (self.is_udp()
                // All but sequence number, PSH and checksum.
                || same(ports + 8, ports + 13)
                    && same(ports + 14, ports + 16)
                    && same(ports + 18, self.head_len))
    }
}

impl<'a> Run<'a> {
    pub fn new(first: Segment<'a>) -> Self {
        Self {
            first,
            count: 1,
            data: first.data().len(),
            closed: first.pushes(),
            push: first.pushes(),
        }
    }

    /// Adds a segment; false if it does not continue the run.
    pub fn push(&mut self, segment: &Segment<'_>) -> bool {
        let (len, size) = (segment.data().len(), self.first.data().len());
        let Segment {
            identification,
            sequence,
            ..
        } = self.first;
        if self.closed
            || segment.sequence != sequence.map(|first| first.wrapping_add(self.data as u32))
            || segment.identification
                != identification.map(|first| first.wrapping_add(self.count as u16))
            || len > size
            || self.first.head_len + self.data + len > LONGEST
            || !self.first.like(segment)
        {
            return false;
        }
        self.count += 1;
        self.data += len;
        self.push = segment.pushes();
        self.closed = self.push || len < size;
        true
    }

    /// The segment it starts with.
    pub const fn first(&self) -> &Segment<'a> {
        &self.first
    }

    /// How many segments there are.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The header of the super-packet; the data of all segments follows it.
    pub fn head(&self) -> Head {
        let Segment {
            bytes: first,
            ip_len,
            head_len,
            ..
        } = self.first;
        let is_udp = self.first.is_udp();
        let mut bytes = [0; HEAD_MAX];
        let head = &mut bytes[..head_len];
        head.copy_from_slice(&first[..head_len]);
        let whole = head_len + self.data;
        if ip_len == 20 {
            put16(head, 2, whole as u16);
            put16(head, 10, 0);
            let sum = Sum::bytes(&head[..20]).checksum();
            put16(head, 10, sum);
        } else {
            put16(head, 4, (whole - 40) as u16);
        }
        let checksum = if is_udp {
            put16(head, ip_len + 4, (whole - ip_len) as u16);
            UDP_CHECKSUM
        } else {
            if self.push {
                head[ip_len + 13] |= PSH;
            }
            TCP_CHECKSUM
        };
        let pseudo = self.first.pseudo(whole - ip_len).unwrap_or(Sum::ZERO);
        put16(head, ip_len + checksum, pseudo.fold());
        Head {
            bytes,
            len: head_len,
            ip_len,
            segment_size: self.first.data().len() as u16,
            is_v6: ip_len == 40,
            is_udp,
        }
    }
}

impl Head {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// What the TUN device is told.
    pub const fn virtio(&self) -> Virtio {
        Virtio {
            is_v6: self.is_v6,
            is_udp: self.is_udp,
            ip_len: self.ip_len,
            head_len: self.len,
            segment: Some(self.segment_size),
            reduced: false,
        }
    }
}

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const DONT_FRAGMENT: u16 = 0x4000;

/// IPv6 header and the longest TCP header.
const HEAD_MAX: usize = 40 + 60;

/// The largest IPv4 packet; IPv6 could carry 40 bytes more.
const LONGEST: usize = 65_535;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::samples::{A4, A6, B4, B6, assert_intact, naive, tcp, udp};

    /// A segment of a stream: both families, like the translator writes it.
    fn segment(v6: bool, sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
        let mut packet = if v6 {
            tcp([80, 4000], flags, data).over6(A6, B6)
        } else {
            tcp([80, 4000], flags, data).over4(A4, B4)
        };
        let ip_len = ip_len(&packet);
        packet[ip_len + 4..ip_len + 8].copy_from_slice(&sequence.to_be_bytes());
        identify(&mut packet, DONT_FRAGMENT, 0);
        repair(&mut packet);
        packet
    }

    fn datagram(v6: bool, port: u16, data: &[u8]) -> Vec<u8> {
        let datagram = udp([53, port], data);
        let mut packet = if v6 {
            datagram.over6(A6, B6)
        } else {
            datagram.over4(A4, B4)
        };
        identify(&mut packet, DONT_FRAGMENT, 0);
        packet
    }

    fn ip_len(packet: &[u8]) -> usize {
        if packet[0] >> 4 == 6 { 40 } else { 20 }
    }

    fn identify(packet: &mut [u8], flags: u16, identification: u16) {
        if ip_len(packet) == 20 {
            put16(packet, 4, identification);
            put16(packet, 6, flags);
            packet[10..12].copy_from_slice(&[0, 0]);
            let sum = !naive(&packet[..20]);
            put16(packet, 10, sum);
        }
    }

    /// Computes the checksum anew.
    fn repair(packet: &mut [u8]) {
        let (ip_len, udp) = (ip_len(packet), is_udp(packet));
        let field = ip_len + if udp { 6 } else { 16 };
        put16(packet, field, 0);
        let mut summed = packet[if ip_len == 20 { 12..20 } else { 8..40 }].to_vec();
        summed.extend([0, if udp { UDP } else { TCP }]);
        summed.extend(((packet.len() - ip_len) as u16).to_be_bytes());
        summed.extend(&packet[ip_len..]);
        let sum = match !naive(&summed) {
            0 if udp => 0xffff,
            sum => sum,
        };
        put16(packet, field, sum);
    }

    /// What the kernel makes of a super-packet.
    fn cut(head: &Head, data: &[u8]) -> Vec<Vec<u8>> {
        let chunks: Vec<_> = data.chunks(head.segment_size.into()).collect();
        let (ip_len, is_udp) = (head.ip_len, is_udp(head.bytes()));
        assert_eq!((head.is_udp, head.is_v6), (is_udp, ip_len == 40));
        let mut sequence = u32::from_be_bytes(get4(head.bytes(), ip_len + 4).unwrap());
        let mut cut = Vec::new();
        for (index, chunk) in chunks.iter().enumerate() {
            let mut packet = [head.bytes(), chunk].concat();
            let len = packet.len();
            if head.is_v6 {
                put16(&mut packet, 4, (len - 40) as u16);
            } else {
                put16(&mut packet, 2, len as u16);
                let [flags, first] = [6, 4].map(|at| get16(head.bytes(), at).unwrap());
                identify(&mut packet, flags, first.wrapping_add(index as u16));
            }
            if is_udp {
                put16(&mut packet, ip_len + 4, (len - ip_len) as u16);
            } else {
                if index + 1 < chunks.len() {
                    packet[ip_len + 13] &= !PSH;
                }
                packet[ip_len + 4..ip_len + 8].copy_from_slice(&sequence.to_be_bytes());
                sequence = sequence.wrapping_add(chunk.len() as u32);
            }
            repair(&mut packet);
            cut.push(packet);
        }
        cut
    }

    proptest! {
        /// Whatever is joined is cut into what it was.
        #[test]
        fn joined_segments_come_apart_as_they_were(
            [v6, udp, push, fragmentable] in any::<[bool; 4]>(),
            start in any::<u32>(),
            size in 1usize..3000,
            count in 1usize..60,
            last in 0usize..3000,
        ) {
            let mut packets = Vec::new();
            let mut sequence = start;
            for index in 0..=count {
                let end = index == count;
                let data = vec![index as u8; if end { last % size } else { size }];
                let flags = if end && push { ACK | PSH } else { ACK };
                if !data.is_empty() {
                    let mut packet = if udp {
                        datagram(v6, 4000, &data)
                    } else {
                        segment(v6, sequence, flags, &data)
                    };
                    let flags = if fragmentable { 0 } else { DONT_FRAGMENT };
                    identify(&mut packet, flags, (start as u16).wrapping_add(index as u16));
                    packets.push(packet);
                }
                sequence = sequence.wrapping_add(data.len() as u32);
            }
            let segments: Vec<_> = packets.iter().map(|p| Segment::read(p).unwrap()).collect();
            let mut run = Run::new(segments[0]);
            for segment in &segments[1..] {
                if !run.push(segment) {
                    break;
                }
            }
            let fits = packets.iter().map(|p| p.len() - run.first.head_len).sum::<usize>()
                + run.first.head_len <= LONGEST;
            prop_assert_eq!(run.count() == packets.len(), fits);
            let joined = &segments[..run.count()];
            let data: Vec<u8> = joined.iter().flat_map(|s| s.data().iter().copied()).collect();
            let apart = cut(&run.head(), &data);
            prop_assert_eq!(&apart[..], &packets[..run.count()]);
            for packet in &apart {
                assert_intact(packet);
            }
        }

        #[test]
        fn noise_is_no_segment(bytes in prop::collection::vec(any::<u8>(), 0..200), first in any::<u8>()) {
            let mut bytes = bytes;
            if let Some(byte) = bytes.first_mut() {
                *byte = [0x45, 0x60, first][usize::from(first) % 3];
            }
            prop_assert!(Segment::read(&bytes).is_none());
        }
    }

    #[test]
    fn what_cannot_be_restored_travels_alone() {
        let good = segment(false, 1, ACK, b"data");
        assert!(Segment::read(&good).is_some());
        let mut cases: Vec<Vec<u8>> = [0x02, 0x12, 0x11, 0x14, 0x30, 0x50, 0x90, 0]
            .map(|flags| segment(true, 1, flags, b"data"))
            .to_vec();
        cases.push(segment(true, 1, ACK, b""));
        let mut broken = good.clone();
        broken[45 - 4] ^= 1;
        cases.push(broken);
        for fragment in [0x2000, 1, 0x8000] {
            let mut part = good.clone();
            identify(&mut part, fragment, 0);
            cases.push(part);
        }
        let mut longer = good;
        longer.push(0);
        cases.push(longer);

        let good = datagram(false, 4000, b"data");
        assert!(Segment::read(&good).is_some());
        cases.push(datagram(true, 4000, b""));
        for (at, value) in [
            // Bytes behind the datagram; a broken checksum; none.
            (24, [0, 11]),
            (26, [1, 2]),
            (26, [0, 0]),
        ] {
            let mut other = good.clone();
            other[at..at + 2].copy_from_slice(&value);
            if at == 24 {
                repair(&mut other);
            }
            cases.push(other);
        }
        for packet in cases {
            assert!(Segment::read(&packet).is_none(), "{packet:02x?}");
        }
    }

    fn joins(first: &[u8], second: &[u8]) -> bool {
        let mut run = Run::new(Segment::read(first).unwrap());
        run.push(&Segment::read(second).unwrap())
    }

    #[test]
    fn only_what_follows_is_joined() {
        for v6 in [false, true] {
            let ip_len = if v6 { 40 } else { 20 };
            let one = segment(v6, u32::MAX, ACK, b"data");
            let joins = |second: &[u8]| joins(&one, second);
            let two = segment(v6, 3, ACK, b"more");
            assert!(joins(&two), "also across the end of the sequence numbers");
            assert!(joins(&segment(v6, 3, ACK, b"end")));
            assert!(!joins(&segment(v6, 3, ACK, b"longer")));
            assert!(!joins(&segment(v6, 4, ACK, b"more")));
            assert!(!joins(&segment(!v6, 3, ACK, b"more")));
            assert!(!joins(&datagram(v6, 4000, b"more")));
            // Ports, acknowledgement, window, urgent pointer, then TTL and traffic class.
            for at in [ip_len, ip_len + 3, ip_len + 8, ip_len + 14, ip_len + 19, 1] {
                let mut other = two.clone();
                other[at] ^= 0x10;
                identify(&mut other, DONT_FRAGMENT, 0);
                repair(&mut other);
                assert!(!joins(&other), "byte {at}");
            }
            let mut pushed = Run::new(Segment::read(&one).unwrap());
            let last = segment(v6, 3, ACK | PSH, b"more");
            assert!(pushed.push(&Segment::read(&last).unwrap()));
            let after = segment(v6, 7, ACK, b"more");
            assert!(!pushed.push(&Segment::read(&after).unwrap()));
        }
    }

    #[test]
    fn only_datagrams_of_a_flow_are_joined() {
        for v6 in [false, true] {
            let one = datagram(v6, 4000, b"data");
            assert!(joins(&one, &datagram(v6, 4000, b"more")));
            assert!(joins(&one, &datagram(v6, 4000, b"end")));
            assert!(!joins(&one, &datagram(v6, 4000, b"longer")));
            assert!(!joins(&one, &datagram(v6, 4001, b"more")));
            assert!(!joins(&one, &datagram(!v6, 4000, b"more")));
            let mut marked = datagram(v6, 4000, b"more");
            marked[1] ^= 0x10;
            identify(&mut marked, DONT_FRAGMENT, 0);
            assert!(!joins(&one, &marked));
            let flow = |other: &[u8]| {
                let other = Segment::read(other).unwrap();
                Segment::read(&one).unwrap().is_of_flow(&other)
            };
            // Also what cannot be joined may not overtake.
            assert!(flow(&marked) && flow(&datagram(v6, 4000, b"longer")));
            assert!(!flow(&datagram(v6, 4001, b"more")));
            assert!(!flow(&datagram(!v6, 4000, b"more")));
            assert!(!flow(&segment(v6, 1, ACK, b"more")));
        }
    }

    #[test]
    fn identifications_count_where_packets_may_be_fragmented() {
        for packet in [segment(false, 1, ACK, b"data"), datagram(false, 9, b"data")] {
            let follows = |flags: [u16; 2], identifications: [u16; 2]| {
                let mut next = packet.clone();
                if !is_udp(&next) {
                    next[27] += 4;
                    repair(&mut next);
                }
                let mut first = packet.clone();
                identify(&mut first, flags[0], identifications[0]);
                identify(&mut next, flags[1], identifications[1]);
                joins(&first, &next)
            };
            assert!(follows([0, 0], [7, 8]));
            assert!(follows([0, 0], [0xffff, 0]));
            assert!(!follows([0, 0], [7, 7]));
            assert!(!follows([0, 0], [7, 9]));
            assert!(follows([DONT_FRAGMENT; 2], [7, 9]));
            assert!(!follows([0, DONT_FRAGMENT], [7, 8]));
            assert!(!follows([DONT_FRAGMENT, 0], [7, 8]));
        }
    }
}

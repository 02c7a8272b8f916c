// SPDX-License-Identifier: GPL-2.0-or-later
//! Runs of TCP segments that the kernel can carry as one packet.
//!
//! A bulk transfer arrives as dozens of segments that differ in nothing but their place in the
//! stream. Handed back one by one, each costs a system call and a way through the kernel; handed
//! back as one super-packet that names the segment size, they cost about as much as a single
//! one, and the kernel (or the network card) cuts them apart again where they leave, into exactly
//! the segments that came. So only what can be restored to the bit is joined: equal headers but
//! for length, identification, checksum and sequence number, equal sizes but for the last, no
//! flags but ACK and PSH, and a checksum that is right, because the kernel will compute it anew.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::TCP;
use super::checksum::Sum;
use super::offload::Virtio;
use super::write::{get4, get16, put16};

/// A TCP segment with data that may be joined with others.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    bytes: &'a [u8],
    ip_len: usize,
    head_len: usize,
    sequence: u32,
}

/// Segments that follow each other.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    first: Segment<'a>,
    count: usize,
    data: usize,
    /// The sequence number that continues the run.
    next: u32,
    /// Nothing may follow: the last one was shorter, or asked to be delivered.
    closed: bool,
    push: bool,
}

/// The header of a super-packet: IP and TCP, with the lengths of the whole and the checksum of
/// the pseudo-header, which is what the kernel completes.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    bytes: [u8; HEAD_MAX],
    len: usize,
    /// Where the TCP header starts.
    pub ip_len: usize,
    /// Data in every segment but the last, in bytes.
    pub segment_size: u16,
    pub is_v6: bool,
}

impl<'a> Segment<'a> {
    /// `None` for whatever has to travel alone. Looks at the whole packet: checksums count.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let ip_len = match bytes.first()? {
            0x45 => {
                let fragment = get16(bytes, 6)? & !DONT_FRAGMENT;
                let whole = usize::from(get16(bytes, 2)?) == bytes.len();
                // Without DF the identification matters and would not be restored.
                let fixed = get16(bytes, 6)? & DONT_FRAGMENT != 0;
                (*bytes.get(9)? == TCP && fragment == 0 && whole && fixed).then_some(20)?
            }
            version if version >> 4 == 6 => {
                let whole = usize::from(get16(bytes, 4)?) + 40 == bytes.len();
                (*bytes.get(6)? == TCP && whole).then_some(40)?
            }
            _ => return None,
        };
        let tcp = bytes.get(ip_len..)?;
        let tcp_len = usize::from(*tcp.get(12)? >> 4) * 4;
        let flags = *tcp.get(13)?;
        let head_len = ip_len + tcp_len;
        if tcp_len < 20 || head_len >= bytes.len() || flags & !PSH != ACK {
            return None;
        }
        let segment = Self {
            bytes,
            ip_len,
            head_len,
            sequence: u32::from_be_bytes(get4(bytes, ip_len + 4)?),
        };
        let sum = segment.pseudo(tcp.len())? + Sum::bytes(tcp);
        sum.is_valid().then_some(segment)
    }

    pub fn data(&self) -> &'a [u8] {
        &self.bytes[self.head_len..]
    }

    fn pushes(&self) -> bool {
        self.bytes[self.ip_len + 13] & PSH != 0
    }

    fn pseudo(&self, len: usize) -> Option<Sum> {
        let bytes = self.bytes;
        Some(if self.ip_len == 20 {
            let src = Ipv4Addr::from(get4(bytes, 12)?);
            Sum::pseudo4(src, Ipv4Addr::from(get4(bytes, 16)?), TCP, len)
        } else {
            let addr = |at| {
                Some(Ipv6Addr::from(
                    <[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?,
                ))
            };
            Sum::pseudo6(addr(8)?, addr(24)?, TCP, len)
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
        let tcp = self.ip_len;
        // All but sequence number, PSH and checksum.
        ip && same(tcp, tcp + 4)
            && same(tcp + 8, tcp + 13)
            && same(tcp + 14, tcp + 16)
            && same(tcp + 18, self.head_len)
    }
}

impl<'a> Run<'a> {
    pub fn new(first: Segment<'a>) -> Self {
        let data = first.data().len();
        Self {
            first,
            count: 1,
            data,
            next: first.sequence.wrapping_add(data as u32),
            closed: first.pushes(),
            push: first.pushes(),
        }
    }

    /// Adds a segment; false if it does not continue the run.
    pub fn push(&mut self, segment: &Segment<'_>) -> bool {
        let (len, size) = (segment.data().len(), self.first.data().len());
        if self.closed
            || segment.sequence != self.next
            || len > size
            || self.first.head_len + self.data + len > LONGEST
            || !self.first.like(segment)
        {
            return false;
        }
        self.count += 1;
        self.data += len;
        self.next = self.next.wrapping_add(len as u32);
        self.push = segment.pushes();
        self.closed = self.push || len < size;
        true
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
        if self.push {
            head[ip_len + 13] |= PSH;
        }
        let pseudo = self.first.pseudo(whole - ip_len).unwrap_or(Sum::ZERO);
        put16(head, ip_len + 16, pseudo.fold());
        Head {
            bytes,
            len: head_len,
            ip_len,
            segment_size: self.first.data().len() as u16,
            is_v6: ip_len == 40,
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
    use crate::wire::samples::{A4, A6, B4, B6, assert_intact, naive, tcp};

    /// A segment of a stream: both families, like the translator writes it.
    fn segment(v6: bool, sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
        let mut packet = if v6 {
            tcp([80, 4000], flags, data).over6(A6, B6)
        } else {
            tcp([80, 4000], flags, data).over4(A4, B4)
        };
        let ip_len = if v6 { 40 } else { 20 };
        if !v6 {
            packet[6] = 0x40;
            packet[4..6].copy_from_slice(&[0, 0]);
            repair4(&mut packet);
        }
        packet[ip_len + 4..ip_len + 8].copy_from_slice(&sequence.to_be_bytes());
        repair_tcp(&mut packet, ip_len);
        packet
    }

    fn repair4(packet: &mut [u8]) {
        packet[10..12].copy_from_slice(&[0, 0]);
        let sum = !naive(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }

    fn repair_tcp(packet: &mut [u8], ip_len: usize) {
        packet[ip_len + 16..ip_len + 18].copy_from_slice(&[0, 0]);
        let len = (packet.len() - ip_len) as u32;
        let mut summed = packet[if ip_len == 20 { 12..20 } else { 8..40 }].to_vec();
        summed.extend([0, TCP]);
        summed.extend(len.to_be_bytes());
        summed.extend(&packet[ip_len..]);
        let sum = !naive(&summed);
        packet[ip_len + 16..ip_len + 18].copy_from_slice(&sum.to_be_bytes());
    }

    /// What the kernel makes of a super-packet.
    fn cut(head: &Head, data: &[u8]) -> Vec<Vec<u8>> {
        let chunks: Vec<_> = data.chunks(head.segment_size.into()).collect();
        let mut sequence = u32::from_be_bytes(get4(head.bytes(), head.ip_len + 4).unwrap());
        let mut cut = Vec::new();
        for (index, chunk) in chunks.iter().enumerate() {
            let mut packet = [head.bytes(), chunk].concat();
            let len = packet.len();
            if head.is_v6 {
                put16(&mut packet, 4, (len - 40) as u16);
            } else {
                put16(&mut packet, 2, len as u16);
                repair4(&mut packet);
            }
            if index + 1 < chunks.len() {
                packet[head.ip_len + 13] &= !PSH;
            }
            packet[head.ip_len + 4..head.ip_len + 8].copy_from_slice(&sequence.to_be_bytes());
            sequence = sequence.wrapping_add(chunk.len() as u32);
            repair_tcp(&mut packet, head.ip_len);
            cut.push(packet);
        }
        cut
    }

    proptest! {
        /// Whatever is joined is cut into what it was.
        #[test]
        fn joined_segments_come_apart_as_they_were(
            v6 in any::<bool>(),
            start in any::<u32>(),
            size in 1usize..3000,
            count in 1usize..60,
            last in 0usize..3000,
            push in any::<bool>(),
        ) {
            let mut packets = Vec::new();
            let mut sequence = start;
            for index in 0..=count {
                let end = index == count;
                let data = vec![index as u8; if end { last % size } else { size }];
                let flags = if end && push { ACK | PSH } else { ACK };
                if !data.is_empty() {
                    packets.push(segment(v6, sequence, flags, &data));
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
        let mut fragmentable = good.clone();
        fragmentable[6] = 0;
        repair4(&mut fragmentable);
        cases.push(fragmentable);
        let mut longer = good;
        longer.push(0);
        cases.push(longer);
        for packet in cases {
            assert!(Segment::read(&packet).is_none(), "{packet:02x?}");
        }
    }

    #[test]
    fn only_what_follows_is_joined() {
        for v6 in [false, true] {
            let ip_len = if v6 { 40 } else { 20 };
            let one = segment(v6, u32::MAX, ACK, b"data");
            let joins = |second: &[u8]| {
                let mut run = Run::new(Segment::read(&one).unwrap());
                run.push(&Segment::read(second).unwrap())
            };
            let two = segment(v6, 3, ACK, b"more");
            assert!(joins(&two), "also across the end of the sequence numbers");
            assert!(joins(&segment(v6, 3, ACK, b"end")));
            assert!(!joins(&segment(v6, 3, ACK, b"longer")));
            assert!(!joins(&segment(v6, 4, ACK, b"more")));
            assert!(!joins(&segment(!v6, 3, ACK, b"more")));
            // Ports, acknowledgement, window, urgent pointer, then TTL and traffic class.
            for at in [ip_len, ip_len + 3, ip_len + 8, ip_len + 14, ip_len + 19, 1] {
                let mut other = two.clone();
                other[at] ^= 0x10;
                if !v6 {
                    repair4(&mut other);
                }
                repair_tcp(&mut other, ip_len);
                assert!(!joins(&other), "byte {at}");
            }
            let mut pushed = Run::new(Segment::read(&one).unwrap());
            let last = segment(v6, 3, ACK | PSH, b"more");
            assert!(pushed.push(&Segment::read(&last).unwrap()));
            let after = segment(v6, 7, ACK, b"more");
            assert!(!pushed.push(&Segment::read(&after).unwrap()));
        }
    }
}

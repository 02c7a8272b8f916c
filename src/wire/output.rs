// SPDX-License-Identifier: GPL-2.0-or-later
//! Where translated packets are written: one buffer for a whole burst, used again and again.

use std::net::IpAddr;
use std::ops::Range;

use super::checksum::Sum;
use super::offload::{VIRTIO_LEN, Virtio};
use super::write::{Head4, Head6, put16};
use super::{ICMP4, ICMP6};

/// Room in front of every packet for the `virtio_net_hdr` of the TUN device, in bytes.
///
/// The header is all zeroes unless something is left to the kernel, so the device gets packet and
/// header in one piece.
pub const HEADROOM: usize = VIRTIO_LEN;

/// Hop limit and time to live of packets of our own (RFC 1700).
const HOP_LIMIT: u8 = 64;

/// Packets to reinject and ICMP errors to send, gathered over a burst.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    packets: Vec<Placed>,
    errors: Vec<ErrorMessage>,
    /// Memory for a packet between two passes.
    spare: Vec<u8>,
}

/// Where a packet is.
#[derive(Clone, Debug)]
struct Placed {
    range: Range<usize>,
    rest: Option<Rest>,
}

/// Data that is not copied: that of the `place`-th packet of the burst, from a byte on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    pub place: usize,
    pub from: usize,
}

/// An ICMP message of our own, about a packet that could not be translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorMessage {
    /// Whom it goes to; its family is the family of the message.
    pub to: IpAddr,
    /// The ICMP message without an IP header. The ICMPv4 checksum is filled in, the ICMPv6
    /// checksum is left to the kernel, which chooses the source address.
    pub message: Vec<u8>,
}

impl ErrorMessage {
    /// The message as a packet of its own; `None` if the addresses are of different families, or
    /// if it is longer than a packet can be.
    pub fn packet(&self, src: IpAddr) -> Option<Vec<u8>> {
        let len = self.message.len();
        let mut packet = match (src, self.to) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => Head4 {
                tos: 0,
                total_len: (Head4::LEN + len).try_into().ok()?,
                // What must not be fragmented needs none (RFC 6864 section 4.1).
                identification: 0,
                dont_fragment: true,
                offset: 0,
                more: false,
                ttl: HOP_LIMIT,
                protocol: ICMP4,
                src,
                dst,
            }
            .to_bytes()
            .to_vec(),
            (IpAddr::V6(src), IpAddr::V6(dst)) => Head6 {
                traffic_class: 0,
                payload_len: len.try_into().ok()?,
                next_header: ICMP6,
                hop_limit: HOP_LIMIT,
                src,
                dst,
            }
            .to_bytes()
            .to_vec(),
            _ => return None,
        };
        packet.extend_from_slice(&self.message);
        if let (IpAddr::V6(src), IpAddr::V6(dst)) = (src, self.to) {
            let sum = Sum::pseudo6(src, dst, ICMP6, len) + Sum::bytes(&self.message);
            put16(&mut packet, Head6::LEN + 2, sum.checksum());
        }
        Some(packet)
    }
}

impl Output {
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything but keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.packets.clear();
        self.errors.clear();
    }

    /// Adds a packet of `len` zero bytes and lends it for filling.
    pub fn packet(&mut self, len: usize) -> &mut [u8] {
        let start = self.bytes.len();
        self.bytes.resize(start + HEADROOM + len, 0);
        self.place(start);
        &mut self.bytes[start + HEADROOM..]
    }

    /// Adds a packet of a header and what follows it, and lends the latter. Nothing is cleared
    /// first, as [`Output::packet`] does.
    #[inline]
    pub fn write<const N: usize>(&mut self, header: [u8; N], payload: &[u8]) -> &mut [u8] {
        let start = self.bytes.len();
        self.bytes.reserve(HEADROOM + N + payload.len());
        self.bytes.extend_from_slice(&[0; HEADROOM]);
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(payload);
        self.place(start);
        &mut self.bytes[start + HEADROOM + N..]
    }

    fn place(&mut self, start: usize) {
        self.packets.push(Placed {
            range: start..self.bytes.len(),
            rest: None,
        });
    }

    /// Says what follows the packet added last.
    pub fn follow(&mut self, rest: Rest) {
        if let Some(last) = self.packets.last_mut() {
            last.rest = Some(rest);
        }
    }

    /// What follows the `index`-th packet, if not all of it is here.
    pub fn rest(&self, index: usize) -> Option<Rest> {
        self.packets.get(index)?.rest
    }

    /// Says what is left to do on the packet added last.
    pub fn leave(&mut self, virtio: Virtio) {
        let last = self.packets.last().map_or(0, |last| last.range.start);
        let header = self.bytes.get_mut(last..).unwrap_or_default();
        if let Some(header) = header.first_chunk_mut() {
            *header = virtio.to_bytes();
        }
    }

    /// Whether nothing is left to do on the `index`-th packet.
    pub fn is_done(&self, index: usize) -> bool {
        self.frame(index)
            .is_some_and(|frame| frame.starts_with(&[0; HEADROOM]))
    }

    /// How many packets there are.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Takes back every packet added since there were `len`.
    pub fn truncate(&mut self, len: usize) {
        if let Some(first) = self.packets.get(len) {
            self.bytes.truncate(first.range.start);
            self.packets.truncate(len);
        }
    }

    /// Takes back the `index`-th packet and all after it, and lends that packet for another pass.
    /// Its memory is used again if it is [given back](Self::give_back).
    pub fn take_back(&mut self, index: usize) -> Vec<u8> {
        let mut spare = std::mem::take(&mut self.spare);
        spare.clear();
        spare.extend_from_slice(self.get(index).unwrap_or_default());
        self.truncate(index);
        spare
    }

    pub fn give_back(&mut self, spare: Vec<u8>) {
        self.spare = spare;
    }

    /// The `index`-th packet, without the headroom and without its [rest](Self::rest).
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let range = &self.packets.get(index)?.range;
        Some(&self.bytes[range.start + HEADROOM..range.end])
    }

    /// The `index`-th packet with its headroom in front, ready for the TUN device.
    pub fn frame(&self, index: usize) -> Option<&[u8]> {
        let range = &self.packets.get(index)?.range;
        Some(&self.bytes[range.clone()])
    }

    /// Each packet, without the headroom and without its rest.
    pub fn packets(&self) -> impl Iterator<Item = &[u8]> {
        self.packets
            .iter()
            .map(|placed| &self.bytes[placed.range.start + HEADROOM..placed.range.end])
    }

    pub fn push_error(&mut self, error: ErrorMessage) {
        self.errors.push(error);
    }

    pub fn errors(&self) -> &[ErrorMessage] {
        &self.errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::samples::{addr4, addr6, assert_intact, naive};

    #[test]
    fn packets_are_kept_apart_and_taken_back() {
        let mut out = Output::new();
        out.packet(2).copy_from_slice(&[1, 2]);
        out.packet(3).copy_from_slice(&[3, 4, 5]);
        assert_eq!(out.frame(0).map(<[u8]>::len), Some(12));
        assert_eq!(out.frame(1).map(<[u8]>::len), Some(13));
        out.truncate(1);
        assert_eq!(out.packets().collect::<Vec<_>>(), [[1, 2]]);
        assert_eq!(out.get(1), None);
        out.clear();
        assert!(out.is_empty());
        assert_eq!(out.packet(2), [0, 0], "memory used again is clean");
    }

    #[test]
    fn a_packet_taken_back_is_lent_in_the_same_memory() {
        let mut out = Output::new();
        let mut memory = std::ptr::null();
        for round in 0..3 {
            out.write([1], &[round; 100]);
            let packet = out.take_back(0);
            assert!(out.is_empty());
            assert_eq!(packet[1..], [round; 100]);
            assert!(round == 0 || packet.as_ptr() == memory);
            memory = packet.as_ptr();
            out.give_back(packet);
        }
    }

    #[test]
    fn a_header_and_what_follows_become_one_packet() {
        let mut out = Output::new();
        out.packet(20).fill(0xff);
        out.clear();
        out.write([1, 2], &[3, 4, 5])[1] = 6;
        assert!(out.write([7], &[]).is_empty());
        assert_eq!(
            out.packets().collect::<Vec<_>>(),
            [&[1, 2, 3, 6, 5][..], &[7]]
        );
        assert_eq!(out.frame(0).unwrap()[..HEADROOM], [0; HEADROOM]);
    }

    #[test]
    fn a_message_becomes_a_packet_with_checksums_that_are_right() {
        let message = |to: &str| ErrorMessage {
            to: to.parse().unwrap(),
            message: vec![1, 3, 0, 0, 9, 8, 7],
        };
        let v6 = message("2001:db8::2");
        let packet = v6.packet("2001:db8::1".parse().unwrap()).unwrap();
        let head = [0x60, 0, 0, 0, 0, 7, 58, 64];
        assert_eq!(packet[..8], head);
        assert_eq!(addr6(&packet, 8).to_string(), "2001:db8::1");
        assert_eq!(addr6(&packet, 24).to_string(), "2001:db8::2");
        assert_intact(&packet);
        // That of an ICMPv4 message is filled in when it is made.
        let v4 = message("192.0.2.2");
        let packet = v4.packet("192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(packet[..10], [0x45, 0, 0, 27, 0, 0, 0x40, 0, 64, 1]);
        assert_eq!(naive(&packet[..20]), 0xffff);
        assert_eq!(addr4(&packet, 12).to_string(), "192.0.2.1");
        assert_eq!(packet[20..], v4.message);

        assert_eq!(v4.packet("::1".parse().unwrap()), None);
        let long = ErrorMessage {
            message: vec![0; 65_516],
            ..v4
        };
        assert_eq!(long.packet("192.0.2.1".parse().unwrap()), None);
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! Headers as bytes, and fields read and written in place.
//!
//! Nothing here allocates or decides. Reading outside the bytes gives nothing; writing outside
//! them does nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Fragment;
use super::checksum::Sum;

/// An IPv4 header without options.
#[derive(Clone, Copy, Debug)]
pub struct Head4 {
    pub tos: u8,
    /// Header and payload, in bytes.
    pub total_len: u16,
    pub identification: u16,
    pub dont_fragment: bool,
    /// In bytes, a multiple of 8.
    pub offset: u16,
    pub more: bool,
    pub ttl: u8,
    pub protocol: u8,
    pub src: Ipv4Addr,
    pub dst: Ipv4Addr,
}

impl Head4 {
    pub const LEN: usize = 20;

    /// The header with its checksum filled in.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let flags =
            u16::from(self.dont_fragment) << 14 | u16::from(self.more) << 13 | self.offset >> 3;
        let [l0, l1] = self.total_len.to_be_bytes();
        let [i0, i1] = self.identification.to_be_bytes();
        let [f0, f1] = flags.to_be_bytes();
        let [s0, s1, s2, s3] = self.src.octets();
        let [d0, d1, d2, d3] = self.dst.octets();
        let sum = Sum::ports([0x4500 | u16::from(self.tos), self.total_len])
            + Sum::ports([self.identification, flags])
            + Sum::word(u16::from_be_bytes([self.ttl, self.protocol]))
            + Sum::addr4(self.src)
            + Sum::addr4(self.dst);
        let [c0, c1] = sum.checksum().to_be_bytes();
        [
            0x45,
            self.tos,
            l0,
            l1,
            i0,
            i1,
            f0,
            f1,
            self.ttl,
            self.protocol,
            c0,
            c1,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
        ]
    }
}

/// An IPv6 header; its flow label is 0.
#[derive(Clone, Copy, Debug)]
pub struct Head6 {
    pub traffic_class: u8,
    /// What follows the header, in bytes.
    pub payload_len: u16,
    pub next_header: u8,
    pub hop_limit: u8,
    pub src: Ipv6Addr,
    pub dst: Ipv6Addr,
}

impl Head6 {
    pub const LEN: usize = 40;

    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0] = 0x60 | self.traffic_class >> 4;
        bytes[1] = self.traffic_class << 4;
        bytes[4..6].copy_from_slice(&self.payload_len.to_be_bytes());
        bytes[6] = self.next_header;
        bytes[7] = self.hop_limit;
        bytes[8..24].copy_from_slice(&self.src.octets());
        bytes[24..].copy_from_slice(&self.dst.octets());
        bytes
    }
}

/// Length of an IPv6 fragment header.
pub const FRAGMENT_LEN: usize = 8;

/// An IPv6 fragment header (RFC 8200 section 4.5).
pub fn fragment_header(next_header: u8, fragment: Fragment) -> [u8; FRAGMENT_LEN] {
    let [o0, o1] = (fragment.offset & !7 | u16::from(fragment.more)).to_be_bytes();
    let [i0, i1, i2, i3] = fragment.identification.to_be_bytes();
    [next_header, 0, o0, o1, i0, i1, i2, i3]
}

/// The big-endian word at `at`.
pub fn get16(bytes: &[u8], at: usize) -> Option<u16> {
    let word = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*word))
}

/// The four bytes at `at`.
pub fn get4(bytes: &[u8], at: usize) -> Option<[u8; 4]> {
    bytes.get(at..)?.first_chunk::<4>().copied()
}

/// Writes a big-endian word.
pub fn put16(bytes: &mut [u8], at: usize, word: u16) {
    put(bytes, at, &word.to_be_bytes());
}

/// Writes `what` if there is room for all of it.
pub fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    let slot = bytes
        .get_mut(at..)
        .and_then(|rest| rest.get_mut(..what.len()));
    if let Some(slot) = slot {
        slot.copy_from_slice(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_header_reads_back() {
        let head = Head4 {
            tos: 0xb9,
            total_len: 1234,
            identification: 0xbeef,
            dont_fragment: false,
            offset: 1480,
            more: true,
            ttl: 61,
            protocol: 17,
            src: Ipv4Addr::new(192, 0, 2, 1),
            dst: Ipv4Addr::new(203, 0, 113, 255),
        };
        let bytes = head.to_bytes();
        let (read, _) = etherparse::Ipv4Header::from_slice(&bytes).unwrap();
        assert_eq!(read.calc_header_checksum(), read.header_checksum);
        assert!(Sum::bytes(&bytes).is_valid());
        assert_eq!((read.total_len, read.identification), (1234, 0xbeef));
        assert_eq!((read.fragment_offset.value(), read.time_to_live), (185, 61));
        assert!(read.more_fragments && !read.dont_fragment);
        assert_eq!(bytes[1], 0xb9);
        assert_eq!(
            (read.source, read.destination),
            (head.src.octets(), head.dst.octets())
        );
        let bytes = Head4 {
            dont_fragment: true,
            more: false,
            offset: 0,
            ..head
        }
        .to_bytes();
        assert_eq!(bytes[6..8], [0x40, 0]);
    }

    #[test]
    fn an_ipv6_header_and_its_fragment_header_read_back() {
        let head = Head6 {
            traffic_class: 0xb9,
            payload_len: 1234,
            next_header: 44,
            hop_limit: 61,
            src: "2001:db8::1".parse().unwrap(),
            dst: "64:ff9b::192.0.2.1".parse().unwrap(),
        };
        let (read, _) = etherparse::Ipv6Header::from_slice(&head.to_bytes()).unwrap();
        assert_eq!((read.traffic_class, read.payload_length), (0xb9, 1234));
        assert_eq!((read.next_header.0, read.hop_limit), (44, 61));
        assert_eq!(read.flow_label.value(), 0);
        assert_eq!(
            (read.source_addr(), read.destination_addr()),
            (head.src, head.dst)
        );

        let bytes = fragment_header(
            17,
            Fragment {
                identification: 0xdead_beef,
                offset: 1480,
                more: true,
            },
        );
        let (read, _) = etherparse::Ipv6FragmentHeader::from_slice(&bytes).unwrap();
        assert_eq!(
            (read.fragment_offset.value(), read.more_fragments),
            (185, true)
        );
        assert_eq!((read.identification, read.next_header.0), (0xdead_beef, 17));
    }

    #[test]
    fn fields_outside_the_bytes_are_left_alone() {
        let mut bytes = [1, 2, 3];
        put16(&mut bytes, 2, 0xffff);
        put(&mut bytes, usize::MAX, &[9]);
        assert_eq!(bytes, [1, 2, 3]);
        assert_eq!(get16(&bytes, 2), None);
        assert_eq!(get16(&bytes, usize::MAX), None);
        assert_eq!(get16(&bytes, 1), Some(0x0203));
        assert_eq!(get4(&bytes, 0), None);
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! Packets for tests, and a slow, obvious judge of checksums. It uses nothing of what it judges.

use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0xa);
pub(crate) const B6: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0xcb00, 0x7107);
pub(crate) const C6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0xc);
pub(crate) const A4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 33);
pub(crate) const B4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
pub(crate) const C4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
pub(crate) const TOS: u8 = 0xb9;
pub(crate) const TTL: u8 = 61;
pub(crate) const ID: u16 = 0xbeef;

/// Word by word, as RFC 1071 section 4.1 explains it.
pub(crate) fn naive(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Something that can be put into IP packets of both families.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    protocol: u8,
    bytes: Vec<u8>,
    checksum_at: Option<usize>,
}

pub(crate) fn tcp(ports: [u16; 2], flags: u8, data: &[u8]) -> Load {
    let mut bytes = [ports[0].to_be_bytes(), ports[1].to_be_bytes()].concat();
    bytes.extend([1, 2, 3, 4, 5, 6, 7, 8, 0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    bytes.extend(data);
    load(6, bytes, Some(16))
}

pub(crate) fn udp(ports: [u16; 2], data: &[u8]) -> Load {
    let len = 8 + data.len() as u16;
    let mut bytes = [ports[0], ports[1], len, 0].map(u16::to_be_bytes).concat();
    bytes.extend(data);
    load(17, bytes, Some(6))
}

/// An ICMP message; put into IPv6 it is an ICMPv6 message, with its type unchanged.
pub(crate) fn icmp(kind: u8, code: u8, rest: [u8; 4], data: &[u8]) -> Load {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(rest);
    bytes.extend(data);
    load(1, bytes, Some(2))
}

pub(crate) fn load(protocol: u8, bytes: Vec<u8>, checksum_at: Option<usize>) -> Load {
    Load {
        protocol,
        bytes,
        checksum_at,
    }
}

impl Load {
    fn finish(mut self, pseudo: &[u8]) -> Vec<u8> {
        if let Some(at) = self.checksum_at {
            let sum = !naive(&[pseudo, &self.bytes].concat());
            let sum = if sum == 0 { 0xffff } else { sum };
            self.bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        self.bytes
    }

    pub(crate) fn over6(self, src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
        let protocol = if self.protocol == 1 {
            58
        } else {
            self.protocol
        };
        let bytes = self.finish_for6(src, dst, protocol);
        raw6(src, dst, protocol, &bytes)
    }

    /// With these extension headers between the IPv6 header and the load.
    pub(crate) fn over6_behind(self, first: u8, headers: &[u8]) -> Vec<u8> {
        let protocol = if self.protocol == 1 {
            58
        } else {
            self.protocol
        };
        let bytes = self.finish_for6(A6, B6, protocol);
        raw6(A6, B6, first, &[headers, &bytes].concat())
    }

    fn finish_for6(self, src: Ipv6Addr, dst: Ipv6Addr, protocol: u8) -> Vec<u8> {
        let len = self.bytes.len() as u32;
        self.finish(&pseudo6(src, dst, protocol, len))
    }

    pub(crate) fn over4(self, src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
        let protocol = self.protocol;
        let pseudo = match protocol {
            1 => Vec::new(),
            _ => pseudo4(src, dst, protocol, self.bytes.len() as u32),
        };
        raw4(src, dst, protocol, &self.finish(&pseudo))
    }
}

pub(crate) fn raw6(src: Ipv6Addr, dst: Ipv6Addr, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60 | TOS >> 4, TOS << 4, 0xab, 0xcd];
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend([next_header, TTL]);
    bytes.extend(src.octets());
    bytes.extend(dst.octets());
    bytes.extend(payload);
    bytes
}

pub(crate) fn raw4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45, TOS];
    bytes.extend((20 + payload.len() as u16).to_be_bytes());
    bytes.extend(ID.to_be_bytes());
    bytes.extend([0, 0, TTL, protocol, 0, 0]);
    bytes.extend(src.octets());
    bytes.extend(dst.octets());
    bytes.extend(payload);
    reseal4(&mut bytes);
    bytes
}

/// Sets flags and fragment offset (as on the wire) of an IPv4 packet.
pub(crate) fn with_flags4(mut bytes: Vec<u8>, flags: u16) -> Vec<u8> {
    bytes[6..8].copy_from_slice(&flags.to_be_bytes());
    reseal4(&mut bytes);
    bytes
}

/// Puts options into an IPv4 packet that has none.
pub(crate) fn with_options4(mut bytes: Vec<u8>, options: &[u8]) -> Vec<u8> {
    assert_eq!(options.len() % 4, 0);
    bytes.splice(20..20, options.iter().copied());
    bytes[0] += (options.len() / 4) as u8;
    let len = bytes.len() as u16;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    reseal4(&mut bytes);
    bytes
}

pub(crate) fn reseal4(bytes: &mut [u8]) {
    let end = usize::from(bytes[0] & 15) * 4;
    bytes[10..12].fill(0);
    let sum = !naive(&bytes[..end]);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// A fragment header; `field` is offset and flag as on the wire.
pub(crate) fn fragment6(next_header: u8, field: u16, id: u32) -> Vec<u8> {
    let mut bytes = vec![next_header, 0];
    bytes.extend(field.to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes
}

/// Panics unless every checksum of an unfragmented packet is right.
pub(crate) fn assert_intact(packet: &[u8]) {
    if packet[0] >> 4 == 4 {
        assert_eq!(naive(&packet[..20]), 0xffff, "IPv4 header checksum");
        assert_eq!(
            usize::from(packet[2]) << 8 | usize::from(packet[3]),
            packet.len()
        );
        let (src, dst) = (addr4(packet, 12), addr4(packet, 16));
        let l4 = &packet[20..];
        let pseudo = match packet[9] {
            1 => Vec::new(),
            protocol => pseudo4(src, dst, protocol, l4.len() as u32),
        };
        assert_eq!(naive(&[&pseudo, l4].concat()), 0xffff, "checksum over IPv4");
    } else {
        assert_eq!(
            40 + (usize::from(packet[4]) << 8 | usize::from(packet[5])),
            packet.len()
        );
        let (src, dst) = (addr6(packet, 8), addr6(packet, 24));
        let l4 = &packet[40..];
        let pseudo = pseudo6(src, dst, packet[6], l4.len() as u32);
        assert_eq!(naive(&[&pseudo, l4].concat()), 0xffff, "checksum over IPv6");
    }
}

pub(crate) fn addr4(bytes: &[u8], at: usize) -> Ipv4Addr {
    <[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap().into()
}

pub(crate) fn addr6(bytes: &[u8], at: usize) -> Ipv6Addr {
    <[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap().into()
}

fn pseudo6(src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, len: u32) -> Vec<u8> {
    let mut bytes = [src.octets(), dst.octets()].concat();
    bytes.extend(len.to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

fn pseudo4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: u32) -> Vec<u8> {
    let mut bytes = [src.octets(), dst.octets()].concat();
    bytes.extend([0, protocol]);
    bytes.extend((len as u16).to_be_bytes());
    bytes
}

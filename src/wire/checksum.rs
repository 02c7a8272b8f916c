// SPDX-License-Identifier: GPL-2.0-or-later
//! The Internet checksum: whole, in parts, and brought up to date after a change.
//!
//! The checksum of some bytes is the complement of their sum, taken as 16-bit big-endian words
//! (a lone last byte counts as the high half of a word) in one's complement arithmetic
//! (RFC 1071). One's complement addition is addition modulo 65535 in which a carry out of the top
//! comes back in at the bottom. Three things follow, and this module is built on them:
//!
//! - *Lanes may be wide.* 2^16, 2^32 and 2^48 are all 1 modulo 65535, so the words may be added
//!   32 bits at a time into a 64-bit number; halves are folded together once, at the end.
//! - *Byte order does not matter while summing.* Swapping the bytes of every word swaps the bytes
//!   of the sum, so words are added as the processor reads them and swapped once, at the end.
//! - *Sums are made of parts.* The sum of a header, a pseudo-header and a payload is the sum of
//!   their sums, if each part but the last has an even length. [`Sum`] is such a part.
//!
//! To change part of a packet without reading the rest, RFC 1624 takes the old words out and
//! puts the new ones in. With `C` the old checksum, `m` the sum of what goes and `m'` the sum of
//! what comes (addresses, ports, a type, a pseudo-header):
//!
//! ```text
//! C' = ~(~C + ~m + m')
//! ```
//!
//! `~C` is the old sum; `~m` is `-m`, since `m + ~m` is 0xFFFF, which is zero. That there are two
//! zeros, 0x0000 and 0xFFFF, is the trap: either makes a receiver's verification succeed, but in
//! UDP 0x0000 means "no checksum" (and is forbidden over IPv6), so it is written as 0xFFFF:
//! see [`update_udp`]. The order of the formula matters too: RFC 1141's simpler
//! `C + m - m'` may give 0xFFFF where a full computation gives 0x0000.
//!
//! A checksum that was wrong by some amount before the update is wrong by the same amount after
//! it. That is wanted: damage done on one side of the translator is noticed by the receiver on
//! the other.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Add;

/// A one's complement sum of part of a packet.
///
/// It is kept unfolded; billions of parts can be added before it overflows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    pub const ZERO: Self = Self(0);

    /// The sum of `bytes`, padded with a zero byte if their number is odd.
    pub fn bytes(bytes: &[u8]) -> Self {
        let (lanes, rest) = bytes.as_chunks::<8>();
        let mut sum = 0;
        for lane in lanes {
            let lane = u64::from_ne_bytes(*lane);
            sum += (lane & 0xffff_ffff) + (lane >> 32);
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        let last = u64::from_ne_bytes(last);
        sum += (last & 0xffff_ffff) + (last >> 32);
        Self(u16::from_be(Self(sum).fold()).into())
    }

    pub const fn word(word: u16) -> Self {
        Self(word as u64)
    }

    /// Two ports.
    pub const fn ports(ports: [u16; 2]) -> Self {
        Self(ports[0] as u64 + ports[1] as u64)
    }

    pub const fn addr4(addr: Ipv4Addr) -> Self {
        Self(addr.to_bits() as u64)
    }

    pub const fn addr6(addr: Ipv6Addr) -> Self {
        let bits = addr.to_bits();
        let (high, low) = ((bits >> 64) as u64, bits as u64);
        Self((high >> 32) + (high & 0xffff_ffff) + (low >> 32) + (low & 0xffff_ffff))
    }

    /// The pseudo-header of TCP and UDP over IPv4 (RFC 793, RFC 768); ICMPv4 has none.
    pub fn pseudo4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: usize) -> Self {
        Self::addr4(src) + Self::addr4(dst) + Self(len as u64) + Self(protocol.into())
    }

    /// The pseudo-header of everything over IPv6 (RFC 8200 section 8.1), ICMPv6 included.
    pub fn pseudo6(src: Ipv6Addr, dst: Ipv6Addr, next_header: u8, len: usize) -> Self {
        Self::addr6(src) + Self::addr6(dst) + Self(len as u64) + Self(next_header.into())
    }

    /// The sum as one word.
    pub const fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// What goes into a checksum field that was zero, or not counted, while summing.
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// Whether bytes that include their checksum (and the pseudo-header, if any) are intact.
    pub const fn is_valid(self) -> bool {
        self.checksum() == 0
    }
}

impl Add for Sum {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

/// The checksum after `removed` was replaced by `added` (RFC 1624, equation 3).
//= rfc7915#section-4.5
//= rfc7915#section-5.5
pub fn update(checksum: u16, removed: Sum, added: Sum) -> u16 {
    (Sum::word(!checksum) + Sum::word(!removed.fold()) + added).checksum()
}

/// Like [`update`], for UDP: never 0x0000, which would mean that there is no checksum.
pub fn update_udp(checksum: u16, removed: Sum, added: Sum) -> u16 {
    nonzero(update(checksum, removed, added))
}

/// The checksum as UDP writes it.
pub const fn nonzero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::samples::naive;

    #[test]
    fn sums_agree_with_the_textbook() {
        let bytes: Vec<u8> = (0u32..2000).map(|i| (i * 7 + i / 3) as u8).collect();
        for len in (0..64).chain([1499, 1500, 2000]) {
            assert_eq!(Sum::bytes(&bytes[..len]).fold(), naive(&bytes[..len]));
        }
        assert_eq!(Sum::bytes(&[0xff; 65536]).fold(), 0xffff);
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let sum = Sum::bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624() {
        // There, equation 2 gives 0xFFFF; equation 3 must give 0x0000.
        assert_eq!(update(0xdd2f, Sum::word(0x5555), Sum::word(0x3285)), 0);
        assert_eq!(
            update_udp(0xdd2f, Sum::word(0x5555), Sum::word(0x3285)),
            0xffff
        );
    }

    #[test]
    fn addresses_and_pseudo_headers_sum_like_bytes() {
        let (a, b): (Ipv6Addr, Ipv6Addr) = (
            "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap(),
            "64:ff9b::192.0.2.33".parse().unwrap(),
        );
        assert_eq!(Sum::addr6(a).fold(), naive(&a.octets()));
        let mut bytes = [a.octets(), b.octets()].concat();
        bytes.extend([0, 1, 0x11, 0x70, 0, 0, 0, 58]);
        assert_eq!(Sum::pseudo6(a, b, 58, 70000).fold(), naive(&bytes));

        let (a, b) = (
            Ipv4Addr::new(255, 255, 255, 254),
            Ipv4Addr::new(192, 0, 2, 1),
        );
        let mut bytes = [a.octets(), b.octets()].concat();
        bytes.extend([0, 17, 0x05, 0xdc]);
        assert_eq!(Sum::pseudo4(a, b, 17, 1500).fold(), naive(&bytes));
    }
}

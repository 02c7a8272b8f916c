// SPDX-License-Identifier: GPL-2.0-or-later
//! What the kernel leaves undone on the packets that it hands over, and what is left to it.
//!
//! On their way between two links TCP segments travel as *super-packets*: up to 64 KiB of one
//! stream behind one header, cut into segments by whoever sends them on. The checksum of such a
//! packet is *partial*: the field holds the sum of the pseudo-header, to be completed for each
//! segment. Packets that begin on this host (or in a container behind a virtual link) come with
//! partial checksums, too, if they are one segment long.
//!
//! Translating one header and leaving the rest undone is what makes a translator fast. What the
//! TUN device must know for that stands in a `virtio_net_hdr`, which has the size of the segments.
//! The queue, however, does not tell that size. It must not be more than what sender, receiver and
//! all links between them take, or the network drops what we make; less only costs headers. So it is
//! worked out from what the two ends say about it, see [`segment_size`].

use super::TCP;
use super::write::get16;

/// Room in front of every packet for the `virtio_net_hdr` of the TUN device, in bytes.
pub const VIRTIO_LEN: usize = 10;

/// What is left to do on a packet. None of it is set for anything but TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offload {
    /// The checksum field holds the sum of the pseudo-header, or the packet is several segments
    /// long, which is as good: what it holds does not matter.
    pub partial: bool,
    /// More than one segment.
    pub segments: Segments,
    /// Which packet of its burst it is, if its data need not be copied but may be taken from there.
    pub place: Option<usize>,
}

impl Offload {
    /// Nothing is left to do.
    pub const NONE: Self = Self {
        partial: false,
        segments: Segments::One,
        place: None,
    };
}

/// How many segments a packet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segments {
    One,
    /// Several, and nobody says how long they are.
    Some,
    /// Several, each with so many bytes of data but the last, which may have fewer.
    Of(u16),
}

/// A `virtio_net_hdr` for a TCP packet, or for several UDP datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Virtio {
    pub is_v6: bool,
    pub is_udp: bool,
    /// Where the transport header starts.
    pub ip_len: usize,
    /// Where its data starts.
    pub head_len: usize,
    /// Data in every segment but the last, in bytes; none for a packet that is one segment.
    pub segment: Option<u16>,
    /// CWR is set, which is true of the first segment alone (RFC 3168 section 6.1.2).
    pub reduced: bool,
}

const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
/// Of both families; known to Linux from 6.2 on.
const GSO_UDP: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// Where the checksum is in a TCP header.
pub const TCP_CHECKSUM: usize = 16;

/// Where the checksum is in a UDP header.
pub const UDP_CHECKSUM: usize = 6;

const CWR: u8 = 0x80;

impl Virtio {
    /// The header as the TUN device wants it: in the byte order of the machine.
    pub fn to_bytes(self) -> [u8; VIRTIO_LEN] {
        let kind = match (self.segment, self.is_v6) {
            (None, _) => 0,
            (Some(_), _) if self.is_udp => GSO_UDP,
            (Some(_), false) => GSO_TCPV4 | self.ecn(),
            (Some(_), true) => GSO_TCPV6 | self.ecn(),
        };
        let [l0, l1] = (self.head_len as u16).to_ne_bytes();
        let [s0, s1] = self.segment.unwrap_or(0).to_ne_bytes();
        let [c0, c1] = (self.ip_len as u16).to_ne_bytes();
        let checksum = if self.is_udp {
            UDP_CHECKSUM
        } else {
            TCP_CHECKSUM
        };
        let [o0, o1] = (checksum as u16).to_ne_bytes();
        [NEEDS_CSUM, kind, l0, l1, s0, s1, c0, c1, o0, o1]
    }

    /// For a packet that is one segment, and only its checksum is left to do; none if it is not
    /// plain TCP.
    pub fn of_one(packet: &[u8]) -> Option<Self> {
        let ip_len = tcp_offset(packet)?;
        Some(Self {
            is_v6: packet.first()? >> 4 == 6,
            is_udp: false,
            ip_len,
            head_len: ip_len + tcp_len(packet.get(ip_len..)?),
            segment: None,
            reduced: false,
        })
    }

    const fn ecn(self) -> u8 {
        if self.reduced { GSO_ECN } else { 0 }
    }
}

/// What a `virtio_net_hdr` says about the packet behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing is left to do, or it is a TCP packet as we can handle it.
    Offload(Offload),
    /// A checksum is to be completed: where the sum begins, and where it goes.
    Checksum(usize, usize),
    /// Something that was not asked for, or that contradicts itself.
    Nonsense,
}

/// Reads the header in front of `packet`.
pub fn told(header: &[u8; VIRTIO_LEN], packet: &[u8]) -> Told {
    let [flags, kind, _, _, s0, s1, c0, c1, o0, o1] = *header;
    let partial = flags & NEEDS_CSUM != 0;
    let size = u16::from_ne_bytes([s0, s1]);
    let segments = match kind & !GSO_ECN {
        0 => Segments::One,
        GSO_TCPV4 | GSO_TCPV6 if partial && size != 0 => Segments::Of(size),
        _ => return Told::Nonsense,
    };
    let start = usize::from(u16::from_ne_bytes([c0, c1]));
    let field = start + usize::from(u16::from_ne_bytes([o0, o1]));
    let tcp = tcp_offset(packet);
    match (partial, segments) {
        (false, _) => Told::Offload(Offload::NONE),
        (true, _) if tcp == Some(start) && field == start + TCP_CHECKSUM => {
            Told::Offload(Offload {
                partial,
                segments,
                place: None,
            })
        }
        (true, Segments::One) => Told::Checksum(start, field),
        (true, _) => Told::Nonsense,
    }
}

/// Where the TCP header of a whole packet starts that has no IPv6 extension headers: of one that
/// may have something left to do.
pub fn tcp_offset(packet: &[u8]) -> Option<usize> {
    const FRAGMENT: u16 = 0x3fff;
    let first = packet.first()?;
    match first >> 4 {
        4 => {
            let whole = get16(packet, 6)? & FRAGMENT == 0;
            (whole && *packet.get(9)? == TCP).then_some(usize::from(first & 15) * 4)
        }
        6 => (*packet.get(6)? == TCP).then_some(40),
        _ => None,
    }
}

/// The length of a TCP header that was parsed, options included, in bytes.
pub fn tcp_len(tcp: &[u8]) -> usize {
    tcp.get(12).map_or(20, |byte| usize::from(byte >> 4) * 4)
}

/// Whether the sender says that it has slowed down (RFC 3168).
pub fn is_reduced(tcp: &[u8]) -> bool {
    tcp.get(13).is_some_and(|flags| flags & CWR != 0)
}

/// How much data a segment of a super-packet may have, in bytes, at least 1.
///
/// `agreed` is what segments of the connection have at most, see [`maximum`], without options; 0
/// if that is not known. TCP options take their room from it (RFC 6691).
pub fn segment_size(agreed: u16, tcp_len: usize) -> u16 {
    let agreed = if agreed == 0 { SAFE } else { agreed };
    let options = tcp_len.saturating_sub(20) as u16;
    agreed.saturating_sub(options).max(1)
}

/// The most data that the sender of a SYN wants in a segment: its option "maximum segment size",
/// or what is meant by none (RFC 9293 section 3.7.1). `tcp` starts with the TCP header.
pub fn maximum(tcp: &[u8], is_v6: bool) -> u16 {
    let absent = if is_v6 { SAFE } else { 536 };
    let mut options = tcp.get(20..tcp_len(tcp)).unwrap_or_default();
    loop {
        match *options {
            [1, ref rest @ ..] => options = rest,
            [2, 4, high, low, ..] => return u16::from_be_bytes([high, low]).max(LEAST),
            [] | [0, ..] | [_] | [_, 0 | 1, ..] => return absent,
            [_, len, ..] => options = options.get(usize::from(len)..).unwrap_or_default(),
        }
    }
}

/// How much data fits into a packet that a router of IPv6 (or else IPv4) let pass, from the MTU in
/// its complaint; TCP options take their room from it.
///
/// Never less than [`SAFE`]: every link of IPv6 takes that much, and what is that long on the way
/// to IPv4 may be fragmented there. So nobody makes us send crumbs by forging complaints.
pub fn fitting(mtu: u32, is_v6: bool) -> u16 {
    let headers = if is_v6 { 60 } else { 40 };
    u16::try_from(mtu.saturating_sub(headers))
        .unwrap_or(u16::MAX)
        .max(SAFE)
}

/// What is safe without knowing anything, in bytes: it makes IPv6 packets of 1280 bytes.
pub const SAFE: u16 = 1220;

/// The least that is believed; less would be all header.
const LEAST: u16 = 48;

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(options: &[u8]) -> Vec<u8> {
        let mut header = [0; 20];
        header[12] = ((20 + options.len()) / 4 * 16) as u8;
        [&header[..], options].concat()
    }

    #[test]
    fn the_option_is_found_wherever_it_is() {
        for (options, size) in [
            (&[2, 4, 5, 0xb4][..], 1460),
            (&[1, 1, 1, 1, 2, 4, 5, 0xa0], 1440),
            (
                &[4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 0x22, 0xec],
                8940,
            ),
            (&[2, 4, 0, 1], 48),
            // None, none behind the end, cut short.
            (&[], 536),
            (&[0, 0, 0, 0, 2, 4, 5, 0xb4], 536),
            (&[1, 1, 2, 4], 536),
            (&[3, 0, 2, 4], 536),
            (&[3, 1, 2, 4], 536),
            (&[8, 200, 0, 0], 536),
            (&[2, 3, 0, 0], 536),
        ] {
            assert_eq!(maximum(&tcp(options), false), size, "{options:?}");
        }
        assert_eq!(maximum(&tcp(&[]), true), 1220);
        assert_eq!(maximum(&[], true), 1220);
    }

    #[test]
    fn segments_leave_room_for_options_and_never_vanish() {
        assert_eq!(segment_size(1440, 20), 1440);
        assert_eq!(segment_size(1440, 32), 1428);
        assert_eq!(segment_size(0, 32), 1208);
        assert_eq!(segment_size(48, 60), 8);
        assert_eq!(segment_size(1, 60), 1);
    }

    #[test]
    fn complaints_are_believed_within_reason() {
        assert_eq!(fitting(1400, true), 1340);
        assert_eq!(fitting(1400, false), 1360);
        for mtu in [0, 68, 1260] {
            assert_eq!((fitting(mtu, true), fitting(mtu, false)), (1220, 1220));
        }
        assert_eq!((fitting(1280, true), fitting(1280, false)), (1220, 1240));
        assert_eq!(fitting(u32::MAX, true), u16::MAX);
    }
}

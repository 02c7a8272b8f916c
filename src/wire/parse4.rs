// SPDX-License-Identifier: GPL-2.0-or-later
//! IPv4 packets: one pass over all headers, outer and quoted.
//!
//! Only what makes a packet unreadable is an error here. What is readable but must not be
//! translated is noted in [`Packet4::refusal`], since the packet may not be ours at all. The
//! header checksum is not looked at: the kernel has checked it.

use std::net::Ipv4Addr;

use super::transport::{TRUNCATED, icmp_head, parse, parse_quoted};
use super::{Fragment, ICMP4, Inner, InnerL4, L4, Packet4, Refusal};
use crate::base::counters::Counter;

const HEADER: usize = 20;
const CONTRADICTION: Refusal = Refusal::drop(Counter::Hdr4);

impl<'a> Packet4<'a> {
    /// Reads a packet that starts with its IPv4 header; bytes behind its end are ignored.
    ///
    /// # Errors
    ///
    /// The packet is to be dropped: a header is cut short, or the IPv4 header (or the one quoted
    /// in an ICMPv4 error) contradicts the packet's length or kind.
    // Inlined, and what it calls, since the result is large: the fields of a plain packet stay in
    // registers and are not copied around with those of an ICMP error.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let Some(head) = bytes.first_chunk::<HEADER>() else {
            return Err(TRUNCATED);
        };
        let fixed = Fixed::read(head)?;
        let Some(bytes) = bytes.get(..usize::from(fixed.total_len)) else {
            return Err(CONTRADICTION);
        };
        let options = bytes.get(HEADER..fixed.header_len).unwrap_or_default();
        let mut refusal = refused_option(options);
        let payload = bytes.get(fixed.header_len..).unwrap_or_default();
        let l4 = match fixed.fragment {
            Some(fragment) if fragment.offset != 0 => {
                if usize::from(fragment.offset) + HEADER + payload.len() > usize::from(u16::MAX) {
                    refusal.get_or_insert(CONTRADICTION);
                }
                L4::LaterFragment
            }
            Some(_) | None if fixed.protocol != ICMP4 => parse(fixed.protocol, payload)?,
            Some(_) => {
                let [kind, code, ..] = icmp_head(payload)?;
                L4::Icmp { kind, code }
            }
            None => icmp(bytes, fixed.header_len, icmp_head(payload)?)?,
        };
        if fixed.protocol == ICMP4 && fixed.fragment.is_some() {
            refusal.get_or_insert(Refusal::drop(Counter::FourSixFragmentedIcmp));
        }
        Ok(Self {
            bytes,
            src: fixed.src,
            dst: fixed.dst,
            tos: fixed.tos,
            ttl: fixed.ttl,
            identification: fixed.identification,
            dont_fragment: fixed.dont_fragment,
            fragment: fixed.fragment,
            protocol: fixed.protocol,
            l4_offset: fixed.header_len,
            l4,
            refusal,
        })
    }
}

#[inline]
fn icmp(bytes: &[u8], offset: usize, head: [u8; 8]) -> Result<L4<Ipv4Addr>, Refusal> {
    let [kind, code, _, _, id0, id1, _, _] = head;
    Ok(match kind {
        3 | 4 | 5 | 11 | 12 => L4::Error {
            kind,
            code,
            inner: quoted(bytes, offset + head.len())?,
        },
        0 | 8 => L4::Echo {
            request: kind == 8,
            identifier: u16::from_be_bytes([id0, id1]),
        },
        _ => L4::Icmp { kind, code },
    })
}

/// Reads the packet that an ICMPv4 error is about; it may be cut off anywhere behind the first
/// eight bytes of its transport header.
fn quoted(bytes: &[u8], offset: usize) -> Result<Inner<Ipv4Addr>, Refusal> {
    let Some(head) = bytes.get(offset..).and_then(<[u8]>::first_chunk::<HEADER>) else {
        return Err(TRUNCATED);
    };
    let fixed = Fixed::read(head)?;
    if fixed.fragment.is_some_and(|f| f.offset != 0) {
        return Err(CONTRADICTION);
    }
    let l4_offset = offset + fixed.header_len;
    let Some(l4) = bytes.get(l4_offset..) else {
        return Err(TRUNCATED);
    };
    let l4 = if fixed.protocol == ICMP4 {
        match icmp_head(l4)? {
            [kind @ (0 | 8), _, _, _, id0, id1, _, _] => InnerL4::Echo {
                request: kind == 8,
                identifier: u16::from_be_bytes([id0, id1]),
            },
            [3 | 4 | 5 | 11 | 12, ..] => return Err(Refusal::drop(Counter::DoubleIcmp4Error)),
            _ => InnerL4::Other,
        }
    } else {
        parse_quoted(fixed.protocol, l4)?
    };
    Ok(Inner {
        src: fixed.src,
        dst: fixed.dst,
        offset,
        l4_offset,
        protocol: fixed.protocol,
        traffic_class: fixed.tos,
        hop_limit: fixed.ttl,
        fragment: fixed.fragment,
        l4_len: fixed.total_len - fixed.header_len as u16,
        l4,
    })
}

/// The fixed part of the header, field by field; the header is no longer than the packet.
struct Fixed {
    header_len: usize,
    tos: u8,
    total_len: u16,
    identification: u16,
    dont_fragment: bool,
    fragment: Option<Fragment>,
    ttl: u8,
    protocol: u8,
    src: Ipv4Addr,
    dst: Ipv4Addr,
}

impl Fixed {
    #[inline]
    fn read(head: &[u8; HEADER]) -> Result<Self, Refusal> {
        let header_len = usize::from(head[0] & 15) * 4;
        let total_len = u16::from_be_bytes([head[2], head[3]]);
        if head[0] >> 4 != 4 || header_len < HEADER || usize::from(total_len) < header_len {
            return Err(CONTRADICTION);
        }
        let identification = u16::from_be_bytes([head[4], head[5]]);
        let flags = u16::from_be_bytes([head[6], head[7]]);
        let (offset, more) = ((flags & 0x1fff) << 3, flags & 0x2000 != 0);
        Ok(Self {
            header_len,
            tos: head[1],
            total_len,
            identification,
            dont_fragment: flags & 0x4000 != 0,
            fragment: (more || offset != 0).then_some(Fragment {
                identification: identification.into(),
                offset,
                more,
            }),
            ttl: head[8],
            protocol: head[9],
            src: Ipv4Addr::new(head[12], head[13], head[14], head[15]),
            dst: Ipv4Addr::new(head[16], head[17], head[18], head[19]),
        })
    }
}

/// Looks for a source route that has hops left; all other options are simply lost.
//= rfc7915#section-4.1
fn refused_option(mut options: &[u8]) -> Option<Refusal> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE_ROUTE: u8 = 131;
    const STRICT_ROUTE: u8 = 137;

    loop {
        match *options {
            [] | [END, ..] => return None,
            [NO_OPERATION, ref rest @ ..] => options = rest,
            [LOOSE_ROUTE | STRICT_ROUTE, len, pointer, ..] if len >= pointer => {
                return Some(Refusal::reply(Counter::FourSixSrcRoute, 3, 5, [0; 4]));
            }
            [_] | [_, 0 | 1, ..] => return Some(CONTRADICTION),
            [_, len, ..] => match options.get(usize::from(len)..) {
                Some(rest) => options = rest,
                None => return Some(CONTRADICTION),
            },
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! IPv6 packets: one walk over all headers, outer and quoted.
//!
//! Only what makes a packet unreadable is an error here. What is readable but must not be
//! translated is noted in [`Packet6::refusal`], since the packet may not be ours at all.

use std::net::Ipv6Addr;

use super::transport::{TRUNCATED, icmp_head, parse, parse_quoted};
use super::{Fragment, ICMP6, Inner, InnerL4, L4, Packet6, Refusal};
use crate::base::counters::Counter;

const HEADER: usize = 40;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// More extension headers than any sane packet has.
const MAX_EXTENSIONS: usize = 16;

impl<'a> Packet6<'a> {
    /// Reads a packet that starts with its IPv6 header.
    ///
    /// # Errors
    ///
    /// The packet is to be dropped: a header is cut short, or the IPv6 header (or the one quoted
    /// in an ICMPv6 error) contradicts the packet's length or kind.
    // Inlined, and what it calls, since the result is large: the fields of a plain packet stay in
    // registers and are not copied around with those of an ICMP error.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let Some(head) = bytes.first_chunk::<HEADER>() else {
            return Err(TRUNCATED);
        };
        let fixed = Fixed::read(head);
        if fixed.version != 6 || bytes.len() != HEADER + usize::from(fixed.payload_len) {
            return Err(Refusal::drop(Counter::Hdr6));
        }
        let mut walk = Walk::new(HEADER, fixed.next_header);
        walk.over(bytes)?;
        let l4 = match walk.fragment {
            Some(fragment) if fragment.offset != 0 => L4::LaterFragment,
            Some(_) | None => {
                let l4 = bytes.get(walk.offset..).unwrap_or_default();
                if walk.protocol != ICMP6 {
                    parse(walk.protocol, l4)?
                } else if walk.fragment.is_some_and(|f| f.more) {
                    let [kind, code, ..] = icmp_head(l4)?;
                    L4::Icmp { kind, code }
                } else {
                    icmp(bytes, walk.offset, icmp_head(l4)?)?
                }
            }
        };
        if walk.protocol == ICMP6 && walk.fragment.is_some_and(|f| f.more || f.offset != 0) {
            walk.refuse(Refusal::drop(Counter::SixFourFragmentedIcmp));
        }
        Ok(Self {
            bytes,
            src: fixed.src,
            dst: fixed.dst,
            traffic_class: fixed.traffic_class,
            hop_limit: fixed.hop_limit,
            fragment: walk.fragment,
            protocol: walk.protocol,
            l4_offset: walk.offset,
            l4,
            refusal: walk.refusal,
        })
    }
}

#[inline]
fn icmp(bytes: &[u8], offset: usize, head: [u8; 8]) -> Result<L4<Ipv6Addr>, Refusal> {
    let [kind, code, _, _, id0, id1, _, _] = head;
    Ok(match kind {
        1..=4 => L4::Error {
            kind,
            code,
            inner: quoted(bytes, offset + head.len())?,
        },
        128 | 129 => L4::Echo {
            request: kind == 128,
            identifier: u16::from_be_bytes([id0, id1]),
        },
        _ => L4::Icmp { kind, code },
    })
}

/// Reads the packet that an ICMPv6 error is about; it may be cut off anywhere behind the first
/// eight bytes of its transport header.
fn quoted(bytes: &[u8], offset: usize) -> Result<Inner<Ipv6Addr>, Refusal> {
    let Some(head) = bytes.get(offset..).and_then(<[u8]>::first_chunk::<HEADER>) else {
        return Err(TRUNCATED);
    };
    let fixed = Fixed::read(head);
    if fixed.version != 6 {
        return Err(Refusal::drop(Counter::Hdr6));
    }
    let mut walk = Walk::new(offset + HEADER, fixed.next_header);
    walk.over(bytes)?;
    if let Some(refusal) = walk.refusal {
        return Err(Refusal::drop(refusal.reason));
    }
    if walk.fragment.is_some_and(|f| f.offset != 0) {
        return Err(Refusal::drop(Counter::Hdr6));
    }
    let l4 = bytes.get(walk.offset..).unwrap_or_default();
    let l4 = if walk.protocol == ICMP6 {
        match icmp_head(l4)? {
            [kind @ (128 | 129), _, _, _, id0, id1, _, _] => InnerL4::Echo {
                request: kind == 128,
                identifier: u16::from_be_bytes([id0, id1]),
            },
            // RFC 4443 section 2.1: all these are errors.
            [0..=127, ..] => return Err(Refusal::drop(Counter::DoubleIcmp6Error)),
            [130..=255, ..] => InnerL4::Other,
        }
    } else {
        parse_quoted(walk.protocol, l4)?
    };
    let extensions = u16::try_from(walk.offset - offset - HEADER).unwrap_or(u16::MAX);
    Ok(Inner {
        src: fixed.src,
        dst: fixed.dst,
        offset,
        l4_offset: walk.offset,
        protocol: walk.protocol,
        traffic_class: fixed.traffic_class,
        hop_limit: fixed.hop_limit,
        fragment: walk.fragment,
        l4_len: fixed.payload_len.saturating_sub(extensions),
        l4,
    })
}

/// The number of the protocol behind the extension headers, as far as they can be read.
#[inline]
pub(super) fn protocol(bytes: &[u8]) -> Option<u8> {
    let mut walk = Walk::new(HEADER, *bytes.get(6)?);
    // Cut short or without end: then the header that it ends with is as good an answer as any.
    let _ = walk.over(bytes);
    Some(walk.protocol)
}

/// The fixed header, field by field.
struct Fixed {
    version: u8,
    traffic_class: u8,
    payload_len: u16,
    next_header: u8,
    hop_limit: u8,
    src: Ipv6Addr,
    dst: Ipv6Addr,
}

impl Fixed {
    #[inline]
    fn read(head: &[u8; HEADER]) -> Self {
        let mut src = [0; 16];
        src.copy_from_slice(&head[8..24]);
        let mut dst = [0; 16];
        dst.copy_from_slice(&head[24..40]);
        Self {
            version: head[0] >> 4,
            traffic_class: head[0] << 4 | head[1] >> 4,
            payload_len: u16::from_be_bytes([head[4], head[5]]),
            next_header: head[6],
            hop_limit: head[7],
            src: src.into(),
            dst: dst.into(),
        }
    }
}

/// What the extension headers say.
struct Walk {
    fragment: Option<Fragment>,
    protocol: u8,
    /// Where the transport header starts.
    offset: usize,
    refusal: Option<Refusal>,
}

impl Walk {
    const fn new(offset: usize, next_header: u8) -> Self {
        Self {
            fragment: None,
            protocol: next_header,
            offset,
            refusal: None,
        }
    }

    #[inline]
    fn over(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        for _ in 0..MAX_EXTENSIONS {
            let (HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) = self.protocol else {
                return Ok(());
            };
            self.refuse_second();
            if self.fragment.is_some_and(|f| f.offset != 0) {
                // What follows is the middle of a packet and cannot be read as headers.
                return Ok(());
            }
            let Some(head) = bytes.get(self.offset..).and_then(<[u8]>::first_chunk::<8>) else {
                return Err(TRUNCATED);
            };
            let len = if self.protocol == FRAGMENT {
                let offset = u16::from_be_bytes([head[2], head[3]]);
                self.fragment.get_or_insert_with(|| Fragment {
                    identification: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
                    offset: offset & !7,
                    more: offset & 1 != 0,
                });
                8
            } else {
                if self.protocol == ROUTING && head[3] != 0 {
                    self.refuse_segments_left();
                }
                (usize::from(head[1]) + 1) * 8
            };
            self.protocol = head[0];
            self.offset += len;
            if self.offset > bytes.len() {
                return Err(TRUNCATED);
            }
        }
        Err(Refusal::drop(Counter::Hdr6))
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.refusal.get_or_insert(refusal);
    }

    /// Refuses any extension header behind a fragment header.
    fn refuse_second(&mut self) {
        if self.fragment.is_none() {
        } else if self.protocol == FRAGMENT {
            self.refuse(Refusal::drop(Counter::SixFour2xFrag));
        } else {
            self.refuse(Refusal::reply(Counter::SixFourFragThenExt, 1, 1, [0; 4]));
        }
    }

    //= rfc7915#section-5.1
    fn refuse_segments_left(&mut self) {
        let pointer = u32::try_from(self.offset + 3).unwrap_or(u32::MAX);
        self.refuse(Refusal::reply(
            Counter::SixFourSegmentsLeft,
            4,
            0,
            pointer.to_be_bytes(),
        ));
    }
}

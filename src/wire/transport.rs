// SPDX-License-Identifier: GPL-2.0-or-later
//! Transport headers: what the parsers of both families have in common.

use super::{InnerL4, L4, Refusal, TCP, TcpFlags, UDP};
use crate::base::counters::Counter;

pub(super) const TRUNCATED: Refusal = Refusal::drop(Counter::SkbTruncated);

/// Reads everything but ICMP; `l4` starts with the transport header.
#[inline]
pub(super) fn parse<A>(protocol: u8, l4: &[u8]) -> Result<L4<A>, Refusal> {
    match protocol {
        TCP => {
            let Some(head) = l4.first_chunk::<20>() else {
                return Err(TRUNCATED);
            };
            if usize::from(head[12] >> 4) * 4 > l4.len() {
                return Err(TRUNCATED);
            }
            let bits = head[13];
            Ok(L4::Tcp {
                src: u16::from_be_bytes([head[0], head[1]]),
                dst: u16::from_be_bytes([head[2], head[3]]),
                flags: TcpFlags {
                    fin: bits & 1 != 0,
                    syn: bits & 2 != 0,
                    rst: bits & 4 != 0,
                },
            })
        }
        UDP => {
            let Some(head) = l4.first_chunk::<8>() else {
                return Err(TRUNCATED);
            };
            Ok(L4::Udp {
                src: u16::from_be_bytes([head[0], head[1]]),
                dst: u16::from_be_bytes([head[2], head[3]]),
            })
        }
        _ => Ok(L4::Other),
    }
}

/// The head of an ICMP message of either family.
pub(super) fn icmp_head(l4: &[u8]) -> Result<[u8; 8], Refusal> {
    l4.first_chunk().copied().ok_or(TRUNCATED)
}

/// Reads the quoted head of a TCP or UDP packet. Eight bytes are all that RFC 792 promises.
pub(super) fn parse_quoted(protocol: u8, l4: &[u8]) -> Result<InnerL4, Refusal> {
    let (TCP | UDP) = protocol else {
        return Ok(InnerL4::Other);
    };
    let Some(head) = l4.first_chunk::<8>() else {
        return Err(TRUNCATED);
    };
    let src = u16::from_be_bytes([head[0], head[1]]);
    let dst = u16::from_be_bytes([head[2], head[3]]);
    Ok(if protocol == TCP {
        InnerL4::Tcp { src, dst }
    } else {
        InnerL4::Udp { src, dst }
    })
}

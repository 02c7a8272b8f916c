// SPDX-License-Identifier: GPL-2.0-or-later
//! TCP packets on which something is left to do: by whoever cuts them into segments, and completes
//! their checksums, after they were translated.
//!
//! What a packet's translation depends on, its length above all, depends on the length of a segment
//! here. That of the whole only stands in its header.

use super::Rules;
use super::transport::Header;
use crate::wire::checksum::Sum;
use crate::wire::offload::{Segments, TCP_CHECKSUM, Virtio, is_reduced, segment_size, tcp_len};
use crate::wire::output::Rest;
use crate::wire::write::put16;
use crate::wire::{Fragment, TCP};

/// What is left to do on a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    tcp_len: usize,
    data: usize,
    /// The most data in a segment, in bytes.
    segment: usize,
    reduced: bool,
    place: Option<usize>,
}

impl Left {
    /// `l4` starts with the transport header; none when there is nothing to do, as with fragments,
    /// which are never left anything to do on.
    pub(super) fn of(
        rules: &Rules<'_>,
        header: Option<Header>,
        fragment: Option<Fragment>,
        l4: &[u8],
    ) -> Option<Self> {
        if !rules.offload.partial || header != Some(Header::Tcp) || fragment.is_some() {
            return None;
        }
        let tcp_len = tcp_len(l4);
        let data = l4.len().saturating_sub(tcp_len);
        Some(Self {
            tcp_len,
            data,
            segment: match rules.offload.segments {
                Segments::One => data,
                Segments::Some => segment_size(rules.segment, tcp_len).into(),
                Segments::Of(size) => size.into(),
            },
            reduced: is_reduced(l4),
            place: rules.offload.place.filter(|_| data >= WORTH),
        })
    }

    /// The length of the longest segment with its TCP header, in bytes.
    pub(super) fn longest(&self) -> usize {
        self.tcp_len + self.data.min(self.segment)
    }

    /// Has segments be no longer than `room`, TCP header included. It is TCP's to cut a stream
    /// where it likes, so that nothing needs fragments.
    pub(super) fn limit(&mut self, room: usize) {
        self.segment = self.segment.min(room.saturating_sub(self.tcp_len).max(1));
    }

    /// How much of the payload is written: all, or only the TCP header.
    pub(super) const fn written(&self) -> usize {
        match self.place {
            Some(_) => self.tcp_len,
            None => self.tcp_len + self.data,
        }
    }

    /// Where to find what is not written, in a packet whose TCP header starts at `offset`.
    pub(super) fn rest(&self, offset: usize) -> Option<Rest> {
        let from = offset + self.tcp_len;
        self.place.map(|place| Rest { place, from })
    }

    /// Puts the sum of the pseudo-header where the checksum goes; `addresses` is the sum of the new
    /// ones.
    pub(super) fn prepare(&self, l4: &mut [u8], addresses: Sum) {
        let len = self.tcp_len + self.data;
        let pseudo = addresses + Sum::word(TCP.into()) + Sum::word(len as u16);
        put16(l4, TCP_CHECKSUM, pseudo.fold());
    }

    /// What the TUN device is told, with an IP header of `ip_len` bytes.
    pub(super) fn virtio(&self, is_v6: bool, ip_len: usize) -> Virtio {
        Virtio {
            is_v6,
            is_udp: false,
            ip_len,
            head_len: ip_len + self.tcp_len,
            segment: (self.data > self.segment).then_some(self.segment as u16),
            reduced: self.reduced,
        }
    }
}

/// To take data from where it is costs a little, too: less than so many bytes are copied.
const WORTH: usize = 4096;

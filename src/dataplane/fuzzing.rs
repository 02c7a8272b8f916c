// SPDX-License-Identifier: GPL-2.0-or-later
//! The parsers, for fuzz targets and tests; no other build has this.

use super::message::{Datagram, parse};
use super::tun::strip;

/// The payload of a datagram from the queue socket.
pub fn queue_message(datagram: &[u8]) -> Option<&[u8]> {
    match parse(datagram) {
        Datagram::Packet(queued) => Some(queued.payload),
        Datagram::Answer | Datagram::Malformed => None,
    }
}

/// The packet in a frame from the TUN device.
pub fn tun_frame(frame: &mut [u8]) -> Option<&[u8]> {
    strip(frame).map(|(packet, _)| packet)
}

/// What the kernel says about devices, addresses and routes; all of it is an answer to request 0.
pub fn route_answers(datagram: &[u8]) {
    super::netlink::understand(datagram);
}

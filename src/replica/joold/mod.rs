// SPDX-License-Identifier: GPL-2.0-or-later
//! Jool's protocol: sessions as they change, in UDP datagrams to a multicast group.
//!
//! Nothing in a datagram says who sent it, what version it is or what came before it, and nothing
//! is confirmed or sent again. Whoever can send to the group is believed: the network that it is
//! on must be private.

pub mod queue;
pub mod recent;
pub mod wire;

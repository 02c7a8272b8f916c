// SPDX-License-Identifier: GPL-2.0-or-later
//! Floor 5: what gateways tell each other about their sessions, so that one can take over from
//! another.
//!
//! [`peer`] is our own protocol, [`joold`] that of Jool's nodes, for clusters that have some of them. The rest is
//! what carries it: the [`Socket`] of a multicast group and the [server](stats) of statistics.
//! Nothing here knows the tables; what peers say is merged by
//! [`Nat64::merge_session`](crate::nat64::Nat64::merge_session).

pub mod joold;
pub mod peer;
pub mod socket;
pub mod stats;

pub use self::socket::Socket;

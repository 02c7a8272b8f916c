// SPDX-License-Identifier: GPL-2.0-or-later
//! What is not known here and may be known to another gateway that shares its sessions with us.

use super::{Nat64, peer};
use crate::base::{Protocol, Transport4, Transport6};
use crate::model::settings::Settings;

/// What a packet is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// The client behind a transport address of pool4, which hears from `remote`. The latter has no
    /// port for ICMP.
    Client {
        protocol: Protocol,
        v4: Transport4,
        remote: Transport4,
    },
    /// The transport address that a client is hidden behind.
    Address { protocol: Protocol, v6: Transport6 },
}

impl Question {
    /// About a packet from IPv4, or one that an ICMP error quotes.
    pub const fn client(protocol: Protocol, v4: Transport4, remote: Transport4) -> Self {
        Self::Client {
            protocol,
            v4,
            remote: peer(protocol, remote),
        }
    }
}

impl Nat64 {
    /// Whether the packet that raised a question needs no answer any more.
    pub fn knows(&mut self, settings: &Settings, question: &Question) -> bool {
        match *question {
            Question::Client {
                protocol,
                v4,
                remote,
            } => {
                let table = &mut self.tables[protocol.index()];
                let Some(bib) = table.find_v4(v4) else {
                    return false;
                };
                if protocol == Protocol::Tcp && settings.drop_externally_initiated_tcp {
                    return table.find_session(bib, remote).is_some();
                }
                !settings.address_dependent_filtering || table.knows(bib, remote.addr)
            }
            Question::Address { protocol, v6 } => self.mapped_v4(protocol, v6).is_some(),
        }
    }

    /// Whether another gateway may know the answer: a transport address of this gateway's share of
    /// pool4 is nobody's if it is not known here.
    pub fn may_be_known_elsewhere(&self, question: &Question) -> bool {
        match *question {
            Question::Client { protocol, v4, .. } => {
                self.share.is_none()
                    || !self.is_shared_out(v4.port)
                    || self.mapped_v6(protocol, v4).is_some()
            }
            Question::Address { .. } => true,
        }
    }

    /// Whether a port is one that new clients may get here.
    pub(super) fn is_shared_out(&self, port: u16) -> bool {
        let within = |part: &crate::model::PortRange| (part.min..=part.max).contains(&port);
        let share = self.share.as_deref();
        share.is_none_or(|share| share.iter().any(within))
    }
}

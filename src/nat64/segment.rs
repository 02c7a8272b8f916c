// SPDX-License-Identifier: GPL-2.0-or-later
//! How long the segments of a TCP connection may be: what its two ends asked for, and what routers
//! complained about. Super-packets are cut by it.

use super::table::SessionId;
use super::{Change, Nat64, News};
use crate::base::{Protocol, Transport4};

impl Nat64 {
    /// The most data in a segment of a session, TCP options included, in bytes; 0 where there is no
    /// session, or nothing is known about it.
    pub fn segment(&self, v4: Transport4, remote: Transport4) -> u16 {
        let table = self.table(Protocol::Tcp);
        self.tcp_session(v4, remote)
            .map_or(0, |id| table.session(id).segment)
    }

    /// Whether [`Nat64::bound_segment`] would change anything.
    pub fn would_bound_segment(&self, v4: Transport4, remote: Transport4, most: u16) -> bool {
        self.tcp_session(v4, remote)
            .is_some_and(|id| exceeds(self.table(Protocol::Tcp).session(id).segment, most))
    }

    fn tcp_session(&self, v4: Transport4, remote: Transport4) -> Option<SessionId> {
        let table = self.table(Protocol::Tcp);
        table.find_session(table.find_v4(v4)?, remote)
    }

    /// Segments of a session have no more data than `most` from now on. To raise it again takes a
    /// new session.
    pub fn bound_segment(&mut self, v4: Transport4, remote: Transport4, most: u16) {
        let protocol = Protocol::Tcp;
        let Some(id) = self.tcp_session(v4, remote) else {
            return;
        };
        let session = self.tables[protocol.index()].session_mut(id);
        if !exceeds(session.segment, most) {
            return;
        }
        session.segment = most;
        // The packet that says so was mostly news itself.
        if let Some(Change::Session { session, .. }) = self.changes.last_mut()
            && (session.protocol, session.v4, session.remote) == (protocol, v4, remote)
        {
            session.segment = most;
        } else {
            self.report(protocol, id, News::Changed);
        }
    }
}

/// Whether segments may be longer than `most` as far as is known.
const fn exceeds(segment: u16, most: u16) -> bool {
    segment == 0 || segment > most
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! Sessions that another gateway has: they come, change and go as it says.

use super::merge::coherent;
use super::tcp::Lifetime;
use super::{Change, Mapping, Nat64, News, SessionState, peer};
use crate::base::{Protocol, Transport4, Transport6};

impl Nat64 {
    /// Adds a session with its mapping, or replaces the state that it has here. False if its
    /// mapping contradicts another one or is outside of pool4, its state and its lifetime do not go
    /// together, or the table is full.
    ///
    /// Quick when deadlines come in ascending order.
    pub fn put_foreign(&mut self, client: Transport6, row: SessionState) -> bool {
        let protocol = row.protocol;
        let remote = peer(protocol, row.remote);
        let outside = !self.pool4.is_empty() && !self.pool4.contains(protocol, row.v4);
        let table = &mut self.tables[protocol.index()];
        let bib = match (table.find_v6(client), table.find_v4(row.v4)) {
            _ if !coherent(protocol, row.state, row.lifetime) => None,
            (Some(a), Some(b)) => (a == b).then_some(a),
            (None, None) if !outside => {
                let added = table.add_bib(client, row.v4, false);
                self.changes.extend(added.map(|_| {
                    Change::Mapping(Mapping {
                        protocol,
                        v6: client,
                        v4: row.v4,
                        is_static: false,
                    })
                }));
                added
            }
            (None, None) | (Some(_), None) | (None, Some(_)) => None,
        };
        let Some(bib) = bib else {
            return false;
        };
        let (id, news) = match table.find_session(bib, remote) {
            Some(id) => (Some(id), News::Changed),
            None => {
                let added = table.add_session(bib, remote, row.state, row.lifetime, row.deadline);
                (added, News::Began)
            }
        };
        let Some(id) = id else {
            self.drop_idle(protocol, bib);
            return false;
        };
        let held = table.session(id).lifetime == Lifetime::TcpIncomingSyn;
        table.restart(id, row.lifetime, row.deadline);
        let session = table.session_mut(id);
        session.state = row.state;
        session.reported = row.deadline;
        let change = Change::of(protocol, table.bib(bib), table.session(id), news);
        self.changes.push(change);
        if held && row.lifetime != Lifetime::TcpIncomingSyn {
            self.opens.take_session(row.v4, remote);
        }
        true
    }

    /// Ends a session, and its mapping with the last one unless that is static.
    pub fn remove_foreign(&mut self, protocol: Protocol, v4: Transport4, remote: Transport4) {
        let remote = peer(protocol, remote);
        let table = &mut self.tables[protocol.index()];
        let Some(bib) = table.find_v4(v4) else {
            return;
        };
        let Some(id) = table.find_session(bib, remote) else {
            return;
        };
        let (bib, session) = table.remove_session(id);
        let change = Change::gone(protocol, table.bib(bib), &session);
        self.changes.push(change);
        if session.lifetime == Lifetime::TcpIncomingSyn {
            self.opens.take_session(v4, remote);
        }
        self.drop_idle(protocol, bib);
    }
}

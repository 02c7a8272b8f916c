// SPDX-License-Identifier: GPL-2.0-or-later
//! All sessions of an instance, a page at a time, for peers that want to hear of all.

use std::sync::mpsc::SyncSender;

use crate::base::{Protocol, Transport4};
use crate::daemon::portions::{KEEP, Portions, read, walk};
use crate::daemon::traffic::Slot;
use crate::model::control::Failure;
use crate::nat64::SessionState;
use crate::nat64::table::Table;
use crate::replica::joold::queue::Told;

/// Hands out all sessions in Jool's order: TCP, UDP, ICMP, each by mapping and then by IPv4
/// server. Ends early when nobody takes them.
//= jool#session-advertise
pub(super) fn walk_all(slot: &Slot, pages: &SyncSender<Vec<Told>>) {
    for protocol in Protocol::ALL {
        // It fails when the instance has no sessions any more: then there is nothing to tell.
        let _ = walk(&Sessions(slot, protocol), KEEP, |page| {
            pages.send(page).is_ok()
        });
    }
}

/// The sessions of one protocol as peers are told of them.
struct Sessions<'a>(&'a Slot, Protocol);

impl Portions for Sessions<'_> {
    type Key = (Transport4, Transport4);
    type Row = Told;

    fn positions(&self) -> Result<usize, Failure> {
        read(self.0, self.1, Table::session_positions)
    }

    fn keys(&self, from: usize, to: usize, into: &mut Vec<Self::Key>) -> Result<(), Failure> {
        read(self.0, self.1, |table| {
            let found = table.sessions_at(from..to);
            into.extend(found.map(|(bib, session)| (bib.v4, session.remote)));
        })
    }

    fn rows(&self, keys: &[Self::Key]) -> Result<Vec<Told>, Failure> {
        let protocol = self.1;
        read(self.0, protocol, |table| {
            let found = keys.iter().filter_map(|(v4, remote)| {
                let bib = table.find_v4(*v4)?;
                let session = table.session(table.find_session(bib, *remote)?);
                let (bib, session) = (table.bib(bib), session);
                Some(Told {
                    v6: bib.v6,
                    session: SessionState {
                        protocol,
                        v4: bib.v4,
                        remote: session.remote,
                        state: session.state,
                        lifetime: session.lifetime,
                        deadline: session.deadline(),
                        segment: session.segment,
                    },
                })
            });
            found.collect()
        })
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! The tables of NAT64, as synchronisation sees them.

use super::apply::key_of;
use super::{SessionKey, Table};
use crate::base::{Protocol, Tick, Transport4, Transport6};
use crate::model::settings::Settings;
use crate::nat64::merge::{ForeignSession, Merged, Order};
use crate::nat64::table::{Bib, Session};
use crate::nat64::{Mapping, Nat64, SessionState};

impl Table for Nat64 {
    fn session(&self, key: &SessionKey) -> Option<(Transport6, SessionState)> {
        self.session(key.protocol, key.v4, key.remote)
    }

    fn mapping_of_v4(&self, protocol: Protocol, v4: Transport4) -> Option<Mapping> {
        let table = self.table(protocol);
        let bib = table.bib(table.find_v4(v4)?);
        Some(mapping_of(protocol, bib))
    }

    fn mapping_of_v6(&self, protocol: Protocol, v6: Transport6) -> Option<Mapping> {
        let table = self.table(protocol);
        let bib = table.bib(table.find_v6(v6)?);
        Some(mapping_of(protocol, bib))
    }

    fn sessions_of(&self, mapping: &Mapping) -> Vec<SessionKey> {
        let table = self.table(mapping.protocol);
        let Some(id) = table.find_v4(mapping.v4) else {
            return Vec::new();
        };
        let bib = table.bib(id);
        let sessions = table.sessions_of(id);
        let keys = sessions.map(|s| key_of(&state_of(mapping.protocol, bib, s)));
        keys.collect()
    }

    fn put(
        &mut self,
        now: Tick,
        settings: &Settings,
        session: &ForeignSession,
        linger: u64,
    ) -> bool {
        match self.merge_session(now, settings, session, Order::Newer { linger }) {
            Merged::New | Merged::Updated | Merged::Unchanged => true,
            Merged::Displaced | Merged::Collision | Merged::Refused(_) => false,
        }
    }

    fn remove(&mut self, key: &SessionKey) {
        self.remove_session(key.protocol, key.v4, key.remote);
    }

    fn scan(&self, cursor: usize, into: &mut Vec<SessionKey>) -> Option<usize> {
        let (mut skipped, mut protocols) = (0, Protocol::ALL.into_iter());
        let protocol = protocols.find(|protocol| {
            let here = cursor < skipped + self.table(*protocol).session_positions();
            skipped += if here {
                0
            } else {
                self.table(*protocol).session_positions()
            };
            here
        })?;
        let table = self.table(protocol);
        let first = cursor - skipped;
        let last = (first + PORTION).min(table.session_positions());
        let sessions = table.sessions_at(first..last);
        into.extend(sessions.map(|(bib, s)| key_of(&state_of(protocol, bib, s))));
        Some(skipped + last)
    }
}

fn state_of(protocol: Protocol, bib: &Bib, session: &Session) -> SessionState {
    SessionState {
        protocol,
        v4: bib.v4,
        remote: session.remote,
        state: session.state,
        lifetime: session.lifetime,
        deadline: session.deadline(),
        segment: session.segment,
    }
}

const fn mapping_of(protocol: Protocol, bib: &Bib) -> Mapping {
    Mapping {
        protocol,
        v6: bib.v6,
        v4: bib.v4,
        is_static: bib.is_static,
    }
}

/// Positions looked at in one go.
const PORTION: usize = 4_096;

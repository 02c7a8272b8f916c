// SPDX-License-Identifier: GPL-2.0-or-later
//! What operators and storage do to the tables: import and snapshot, pool4, static mappings,
//! settings that changed.

use std::ops::Range;

use super::pool4::HOST_PORTS;
use super::pool4::Pool4;
use super::sessions::{length, lifetimes};
use super::table::{Bib, BibId};
use super::{Change, Mapping, Nat64, News, SessionState};
use crate::base::{Protocol, Tick, Transport4, Transport6};
use crate::model::settings::Settings;

/// Why a mapping cannot be added or removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BibError {
    #[error("{0} {1} is not in pool4; add it there first")]
    OutsidePool4(Protocol, Transport4),
    #[error("{v6} - {v4} collides with the existing {other}; remove that one first")]
    Collision {
        v6: Transport6,
        v4: Transport4,
        other: String,
    },
    #[error("there is no such mapping")]
    Absent,
    #[error("the table is full")]
    Full,
}

impl Nat64 {
    /// Everything there is, in an order that can be imported.
    pub fn snapshot(&self) -> Vec<Change> {
        let mut all = Vec::new();
        for protocol in Protocol::ALL {
            let table = self.table(protocol);
            all.extend(table.bibs().map(|bib| {
                Change::Mapping(Mapping {
                    protocol,
                    v6: bib.v6,
                    v4: bib.v4,
                    is_static: bib.is_static,
                })
            }));
            all.extend(
                table
                    .sessions()
                    .map(|(bib, session)| Change::of(protocol, bib, session, News::LivesOn)),
            );
        }
        all
    }

    /// Like [`Nat64::snapshot`], of the sessions at some of their positions, each with its mapping.
    pub fn snapshot_at(&self, protocol: Protocol, positions: Range<usize>) -> Vec<Change> {
        let sessions = self.table(protocol).sessions_at(positions);
        let both = sessions.flat_map(|(bib, session)| {
            let mapping = Change::Mapping(Mapping {
                protocol,
                v6: bib.v6,
                v4: bib.v4,
                is_static: bib.is_static,
            });
            [mapping, Change::of(protocol, bib, session, News::LivesOn)]
        });
        both.collect()
    }

    /// Takes a mapping from a copy. False if it contradicts one that exists.
    pub fn import_mapping(&mut self, mapping: Mapping) -> bool {
        let table = &mut self.tables[mapping.protocol.index()];
        table
            .add_bib(mapping.v6, mapping.v4, mapping.is_static)
            .is_some()
    }

    /// Takes a session from a copy. False if its mapping is missing or it exists already.
    ///
    /// Quick when sessions come in ascending order of deadlines. A deadline farther away than its
    /// lifetime is long comes from clocks that disagree, and is brought nearer.
    pub fn import_session(&mut self, now: Tick, settings: &Settings, row: SessionState) -> bool {
        let latest = now.after(length(settings, row.lifetime));
        let table = &mut self.tables[row.protocol.index()];
        let Some(bib) = table.find_v4(row.v4) else {
            return false;
        };
        if table.find_session(bib, row.remote).is_some()
            || !lifetimes(row.protocol).contains(&row.lifetime)
        {
            return false;
        }
        let deadline = row.deadline.min(latest);
        let added = table.add_session(bib, row.remote, row.state, row.lifetime, deadline);
        if let Some(id) = added {
            table.session_mut(id).segment = row.segment;
        }
        added.is_some()
    }

    /// Removes the mappings that an import left without sessions and that are not static.
    pub fn drop_idle_mappings(&mut self) {
        for protocol in Protocol::ALL {
            let table = &mut self.tables[protocol.index()];
            let all: Vec<Transport4> = table.bibs().map(|bib| bib.v4).collect();
            for v4 in all {
                if let Some(id) = table.find_v4(v4)
                    && let Some(Bib { v6, .. }) = table.drop_if_idle(id)
                {
                    self.changes.push(Change::MappingGone { protocol, v6, v4 });
                }
            }
        }
    }

    /// Puts another pool4 into force, and removes the mappings of the protocols in `purge` that
    /// it has no place for.
    pub fn set_pool4(&mut self, pool4: Pool4, purge: &[Protocol]) {
        self.pool4 = pool4;
        for protocol in Protocol::ALL {
            let blocks = self.pool4.blocks().filter(|(p, _)| *p == protocol);
            self.tables[protocol.index()].measure(blocks.map(|(_, block)| block));
        }
        for protocol in purge {
            self.drop_orphans(*protocol);
        }
        if purge.contains(&Protocol::Tcp) {
            let pool4 = &self.pool4;
            let packets = self.opens.take_if(|v4| !pool4.contains(Protocol::Tcp, v4));
            self.unopened.extend(packets);
        }
    }

    /// Adds a static mapping, or makes an existing one static.
    ///
    /// Without pool4, addresses are not looked at: the host's come and go.
    ///
    /// # Errors
    /// [`BibError::OutsidePool4`], [`BibError::Collision`], [`BibError::Full`].
    pub fn bib_add(
        &mut self,
        protocol: Protocol,
        v6: Transport6,
        v4: Transport4,
    ) -> Result<(), BibError> {
        let ours = if self.pool4.is_empty() {
            HOST_PORTS.min <= v4.port
        } else {
            self.pool4.contains(protocol, v4)
        };
        if !ours {
            return Err(BibError::OutsidePool4(protocol, v4));
        }
        let table = &mut self.tables[protocol.index()];
        let change = match (table.find_v6(v6), table.find_v4(v4)) {
            (Some(a), Some(b)) if a == b => {
                table.set_static(a, true);
                Change::MappingFixed
            }
            (Some(other), _) | (None, Some(other)) => {
                let bib = table.bib(other);
                return Err(BibError::Collision {
                    v6,
                    v4,
                    other: format!("{} - {}", bib.v6, bib.v4),
                });
            }
            (None, None) => {
                table.add_bib(v6, v4, true).ok_or(BibError::Full)?;
                Change::Mapping
            }
        };
        self.changes.push(change(Mapping {
            protocol,
            v6,
            v4,
            is_static: true,
        }));
        if protocol == Protocol::Tcp {
            // Who knocked in vain knocks again, and is let in.
            self.opens.take_if(|held| held == v4);
        }
        Ok(())
    }

    /// Removes a mapping, static or not, and its sessions. What is given must match.
    ///
    /// # Errors
    /// [`BibError::Absent`].
    pub fn bib_remove(
        &mut self,
        protocol: Protocol,
        v6: Option<Transport6>,
        v4: Option<Transport4>,
    ) -> Result<(), BibError> {
        let table = &self.tables[protocol.index()];
        let found = match (v6, v4) {
            (Some(v6), _) => table.find_v6(v6),
            (None, Some(v4)) => table.find_v4(v4),
            (None, None) => None,
        };
        let id = found
            .filter(|id| v4.is_none_or(|v4| table.bib(*id).v4 == v4))
            .ok_or(BibError::Absent)?;
        self.purge(protocol, id);
        Ok(())
    }

    /// Applies new settings to what lives already: lifetimes follow their settings at once, and
    /// every session whose end moved is reported.
    pub fn retime(&mut self, old: &Settings, new: &Settings) {
        for protocol in Protocol::ALL {
            let table = &mut self.tables[protocol.index()];
            if !new.address_dependent_filtering {
                table.forget_hosts();
            }
            if new.maximum_sessions_per_prefix == 0 {
                table.forget_prefixes();
            }
            for &lifetime in lifetimes(protocol) {
                let (before, after) = (length(old, lifetime), length(new, lifetime));
                if before == after {
                    continue;
                }
                table.shift(lifetime, before, after);
                let moved = table.sessions().filter(|(_, s)| s.lifetime == lifetime);
                self.changes.extend(
                    moved.map(|(bib, session)| Change::of(protocol, bib, session, News::LivesOn)),
                );
            }
        }
    }

    fn drop_orphans(&mut self, protocol: Protocol) {
        let table = self.table(protocol);
        let orphans: Vec<Transport4> = table
            .bibs()
            .map(|bib| bib.v4)
            .filter(|v4| !self.pool4.contains(protocol, *v4))
            .collect();
        for v4 in orphans {
            if let Some(id) = self.table(protocol).find_v4(v4) {
                self.purge(protocol, id);
            }
        }
    }

    pub(super) fn purge(&mut self, protocol: Protocol, id: BibId) {
        let changes = &mut self.changes;
        let bib = self.tables[protocol.index()].purge_bib(id, |bib, session| {
            changes.push(Change::gone(protocol, bib, session));
        });
        if protocol == Protocol::Tcp {
            let packets = self.opens.take_mapping(bib.v4);
            self.unopened.extend(packets);
        }
        self.changes.push(Change::MappingGone {
            protocol,
            v6: bib.v6,
            v4: bib.v4,
        });
    }
}

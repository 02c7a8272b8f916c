// SPDX-License-Identifier: GPL-2.0-or-later
//! Which of the changes that were gathered have to be written.

use std::collections::HashSet;

use super::InstanceId;
use crate::base::{Protocol, Transport4};
use crate::nat64::Change;

/// A change, whose it is, and when it happened by the wall clock.
pub(super) type Taken = (InstanceId, u64, Change);

/// The changes that count: those of a session that a later one overtakes are left out, and so is
/// all that happened to sessions before their mapping went, which takes them along.
pub(super) fn latest(batch: &[Taken]) -> impl Iterator<Item = &Taken> {
    type Key = (InstanceId, Protocol, Transport4, Transport4);
    let mut seen: HashSet<Key> = HashSet::new();
    let mut gone: HashSet<(InstanceId, Protocol, Transport4)> = HashSet::new();
    let mut keep: Vec<_> = batch
        .iter()
        .rev()
        .filter(|(id, _, change)| match change {
            Change::Session { session: s, .. } => {
                !gone.contains(&(*id, s.protocol, s.v4))
                    && seen.insert((*id, s.protocol, s.v4, s.remote))
            }
            Change::SessionGone {
                protocol,
                v4,
                remote,
                ..
            } => {
                !gone.contains(&(*id, *protocol, *v4))
                    && seen.insert((*id, *protocol, *v4, *remote))
            }
            Change::MappingGone { protocol, v4, .. } => {
                gone.insert((*id, *protocol, *v4));
                true
            }
            Change::Mapping(_) | Change::MappingFixed(_) => true,
        })
        .collect();
    keep.reverse();
    keep.into_iter()
}

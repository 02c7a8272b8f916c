// SPDX-License-Identifier: GPL-2.0-or-later
//! What must be true, whatever happened.

use std::collections::{BTreeMap, BTreeSet};

use super::world::{HANDLE, World};
use crate::base::{Protocol, Transport6};
use crate::model::TcpState;
use crate::nat64::tcp::Lifetime;
use crate::replica::peer::stamp::Stamp;
use crate::replica::peer::{Node, SessionKey};

/// What a table holds, without deadlines.
pub(super) type Content = BTreeMap<SessionKey, (Transport6, TcpState, Lifetime)>;

/// What is remembered of a mapping that was removed by decision, by client.
pub(super) type Removed = BTreeSet<(Protocol, Transport6)>;

impl World {
    pub(super) fn content(&self, i: usize) -> Content {
        let nat64 = &self.sites[i].nat64;
        let mut content = Content::new();
        for protocol in Protocol::ALL {
            for (bib, session) in nat64.table(protocol).sessions() {
                let key = SessionKey {
                    protocol,
                    v4: bib.v4,
                    remote: session.remote,
                };
                content.insert(key, (bib.v6, session.state, session.lifetime));
            }
        }
        content
    }

    pub(super) fn versions(&self, i: usize) -> BTreeMap<SessionKey, Stamp> {
        let Some(node) = &self.sites[i].node else {
            return BTreeMap::new();
        };
        node.instances[&HANDLE].shadow.all().collect()
    }

    /// Whether a node knows the last version of everything that a client has anywhere.
    pub(super) fn knows_all_of(&self, i: usize, protocol: Protocol, client: Transport6) -> bool {
        let ours = self.versions(i);
        (0..self.sites.len()).all(|j| {
            // Somebody who is away may have it on disk or in memory.
            let Some(node) = &self.sites[j].node else {
                return false;
            };
            let theirs = self.versions(j);
            let content = self.content(j);
            let mut its = content
                .iter()
                .filter(|(key, (v6, ..))| (key.protocol, *v6) == (protocol, client));
            its.all(|(key, _)| {
                let pending = node.instances[&HANDLE].pending.has(key);
                !pending && theirs.get(key).is_some_and(|v| ours.get(key) >= Some(v))
            })
        })
    }

    /// Why copies do not agree, if they do not.
    pub(super) fn disagreement(&self) -> Option<String> {
        let sites: Vec<usize> = (0..self.sites.len())
            .filter(|i| self.sites[*i].node.is_some() && self.sites[*i].key == 1)
            .collect();
        let first = *sites.first()?;
        let (content, versions) = (self.content(first), self.versions(first));
        for i in sites {
            if !self.is_ready(i) {
                return Some(format!("{i} is not ready"));
            }
            let (theirs, known) = (self.content(i), self.versions(i));
            if let Some(key) = differs(&content, &theirs) {
                let (a, b) = (content.get(&key), theirs.get(&key));
                return Some(format!("{first} and {i} differ in {key:?}: {a:?} {b:?}"));
            }
            if let Some(key) = differs(&versions, &known) {
                let (a, b) = (versions.get(&key), known.get(&key));
                return Some(format!("{first} and {i} differ in {key:?}: {a:?} {b:?}"));
            }
            let installed = known.keys().find(|key| !theirs.contains_key(key));
            let without = theirs.keys().find(|key| !known.contains_key(key));
            if let Some(key) = installed.or(without) {
                let node = self.sites[i].node.as_ref().unwrap();
                let version = node.instances[&HANDLE].shadow.get(key);
                let pending = node.instances[&HANDLE].pending.has(key);
                let content = theirs.get(key);
                return Some(format!(
                    "{i} has {key:?} as {content:?} in {version:?}, {pending}"
                ));
            }
        }
        None
    }

    /// Who came back from the dead, if somebody did.
    pub(super) fn revived(&self, removed: &Removed) -> Option<String> {
        for i in 0..self.sites.len() {
            for (key, (client, ..)) in self.content(i) {
                if self.is_ready(i) && removed.contains(&(key.protocol, client)) {
                    return Some(format!("{client} is back at {i}: {key:?}"));
                }
            }
        }
        None
    }

    /// What a node keeps although nothing is going on.
    pub(super) fn leftovers(&self) -> Option<String> {
        for (i, site) in self.sites.iter().enumerate() {
            let Some(node) = &site.node else { continue };
            let instance = &node.instances[&HANDLE];
            let waiting = (
                node.bulk.len() + node.wanted.len(),
                node.out.len(),
                node.queries.len(),
                instance.pending.len(),
            );
            if waiting != (0, 0, 0, 0) {
                return Some(format!("{i} keeps {waiting:?}"));
            }
        }
        None
    }

    /// Nodes that may give the same port to new clients.
    pub(super) fn overlap(&self) -> Option<(usize, usize)> {
        let nodes: Vec<(usize, &Node)> = (0..self.sites.len())
            .filter_map(|i| Some((i, self.sites[i].node.as_ref()?)))
            .collect();
        for (n, (i, a)) in nodes.iter().enumerate() {
            for (j, b) in &nodes[n + 1..] {
                if a.share().and(b.share()).slices() > 0 {
                    return Some((*i, *j));
                }
            }
        }
        None
    }
}

fn differs<V: PartialEq>(
    ours: &BTreeMap<SessionKey, V>,
    theirs: &BTreeMap<SessionKey, V>,
) -> Option<SessionKey> {
    let keys = ours.keys().chain(theirs.keys());
    keys.copied().find(|key| ours.get(key) != theirs.get(key))
}

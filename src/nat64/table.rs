// SPDX-License-Identifier: GPL-2.0-or-later
//! The BIB and the sessions of one protocol, found by hash, ordered by deadline.
//!
//! Entries live in slabs and point at each other by index, so that nothing is copied or allocated
//! when a packet touches its session. A session hangs in two lists: its lifetime's, which is in
//! order of deadlines (equal lifetimes expire in the order they began), and its BIB entry's.
//!
//! The table keeps its own house in order: every session belongs to an entry, an entry that is
//! not static dies with its last session, no two entries share a transport address.

use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use siphasher::sip::SipHasher13;
use slab::Slab;

use super::tcp::Lifetime;
use crate::base::{Tick, Transport4, Transport6};
use crate::model::TcpState;

/// Position of a BIB entry; good until the entry is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BibId(u32);

/// Position of a session; good until the session is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionId(u32);

/// A mapping: Binding Information Base entry (RFC 6146 section 3.1).
#[derive(Clone, Debug)]
pub struct Bib {
    pub v6: Transport6,
    pub v4: Transport4,
    pub is_static: bool,
    first: u32,
}

/// A session (RFC 6146 section 3.2). Its addresses are its BIB entry's and `remote`.
#[derive(Clone, Debug)]
pub struct Session {
    bib: u32,
    /// The IPv4 server (`dst4`).
    pub remote: Transport4,
    pub state: TcpState,
    pub lifetime: Lifetime,
    pub deadline: Tick,
    /// The deadline that was last reported as a change.
    pub reported: Tick,
    timer: Link,
    sibling: Link,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    prev: u32,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    first: u32,
    last: u32,
}

/// How many sessions a BIB entry has with one IPv4 address; never 0.
#[derive(Clone, Copy, Debug)]
struct Host {
    bib: u32,
    addr: Ipv4Addr,
    sessions: u32,
}

/// BIB and sessions of one protocol.
pub struct Table {
    bibs: Slab<Bib>,
    sessions: Slab<Session>,
    by_v6: HashTable<u32>,
    by_v4: HashTable<u32>,
    by_peer: HashTable<u32>,
    /// Made when first asked for: see [`Table::knows`].
    hosts: Option<HashTable<Host>>,
    /// One list a lifetime.
    timers: [Ends; LIFETIMES],
    hasher: SipHasher13,
}

impl Table {
    /// `key` makes the hashes unpredictable; strangers choose what is hashed.
    pub fn new(key: [u8; 16]) -> Self {
        Self {
            bibs: Slab::new(),
            sessions: Slab::new(),
            by_v6: HashTable::new(),
            by_v4: HashTable::new(),
            by_peer: HashTable::new(),
            hosts: None,
            timers: [Ends {
                first: NONE,
                last: NONE,
            }; LIFETIMES],
            hasher: SipHasher13::new_with_key(&key),
        }
    }

    pub fn bib_count(&self) -> usize {
        self.bibs.len()
    }

    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    pub fn bib(&self, id: BibId) -> &Bib {
        &self.bibs[id.0 as usize]
    }

    pub fn session(&self, id: SessionId) -> &Session {
        &self.sessions[id.0 as usize]
    }

    pub fn session_mut(&mut self, id: SessionId) -> &mut Session {
        &mut self.sessions[id.0 as usize]
    }

    pub fn bib_of(&self, session: &Session) -> &Bib {
        &self.bibs[session.bib as usize]
    }

    pub fn bibs(&self) -> impl Iterator<Item = &Bib> {
        self.bibs.iter().map(|(_, bib)| bib)
    }

    pub fn sessions(&self) -> impl Iterator<Item = (&Bib, &Session)> {
        self.sessions
            .iter()
            .map(|(_, session)| (self.bib_of(session), session))
    }

    pub fn find_v6(&self, v6: Transport6) -> Option<BibId> {
        let found = self
            .by_v6
            .find(self.hash(&v6), |i| self.bibs[*i as usize].v6 == v6);
        found.copied().map(BibId)
    }

    pub fn find_v4(&self, v4: Transport4) -> Option<BibId> {
        let found = self
            .by_v4
            .find(self.hash(&v4), |i| self.bibs[*i as usize].v4 == v4);
        found.copied().map(BibId)
    }

    pub fn find_session(&self, bib: BibId, remote: Transport4) -> Option<SessionId> {
        let found = self.by_peer.find(self.peer_hash(bib.0, remote), |i| {
            let session = &self.sessions[*i as usize];
            session.bib == bib.0 && session.remote == remote
        });
        found.copied().map(SessionId)
    }

    /// Whether a BIB entry has a session with this address, whatever the port.
    ///
    /// Strangers make us ask, so that the answer must not cost more the more sessions there are.
    /// The first question makes an index, which is kept up to date until [forgotten].
    ///
    /// [forgotten]: Self::forget_hosts
    pub fn knows(&mut self, bib: BibId, addr: Ipv4Addr) -> bool {
        let hosts = self.hosts.get_or_insert_with(|| {
            let mut hosts = HashTable::new();
            for (_, session) in &self.sessions {
                greet(&mut hosts, &self.hasher, session.bib, session.remote.addr);
            }
            hosts
        });
        let hash = hash_with(&self.hasher, &(bib.0, addr));
        hosts
            .find(hash, |h| h.bib == bib.0 && h.addr == addr)
            .is_some()
    }

    /// Gives back the memory that [`Table::knows`] needs.
    pub fn forget_hosts(&mut self) {
        self.hosts = None;
    }

    /// Adds a mapping; `None` when either side belongs to another one or the table is full.
    pub fn add_bib(&mut self, v6: Transport6, v4: Transport4, is_static: bool) -> Option<BibId> {
        if self.find_v6(v6).is_some() || self.bibs.len() >= CAPACITY {
            return None;
        }
        let (hash6, hash4) = (self.hash(&v6), self.hash(&v4));
        let (bibs, hasher) = (&self.bibs, &self.hasher);
        let slot = self.by_v4.entry(
            hash4,
            |i| bibs[*i as usize].v4 == v4,
            |i| hash_with(hasher, &bibs[*i as usize].v4),
        );
        let Entry::Vacant(slot) = slot else {
            return None;
        };
        let id = self.bibs.vacant_key() as u32;
        slot.insert(id);
        self.bibs.insert(Bib {
            v6,
            v4,
            is_static,
            first: NONE,
        });
        let (bibs, hasher) = (&self.bibs, &self.hasher);
        self.by_v6
            .insert_unique(hash6, id, |i| hash_with(hasher, &bibs[*i as usize].v6));
        Some(BibId(id))
    }

    pub fn set_static(&mut self, id: BibId, is_static: bool) {
        self.bibs[id.0 as usize].is_static = is_static;
    }

    /// Removes a mapping that has no sessions.
    fn remove_bib(&mut self, id: BibId) -> Bib {
        let bib = self.bibs.remove(id.0 as usize);
        let (hash6, hash4) = (self.hash(&bib.v6), self.hash(&bib.v4));
        if let Ok(found) = self.by_v6.find_entry(hash6, |i| *i == id.0) {
            found.remove();
        }
        if let Ok(found) = self.by_v4.find_entry(hash4, |i| *i == id.0) {
            found.remove();
        }
        bib
    }

    /// Removes a mapping that has no sessions and is not static, and returns it.
    pub fn drop_if_idle(&mut self, id: BibId) -> Option<Bib> {
        let bib = self.bib(id);
        (bib.first == NONE && !bib.is_static).then(|| self.remove_bib(id))
    }

    /// Removes a mapping with all its sessions and returns it.
    pub fn purge_bib(&mut self, id: BibId) -> Bib {
        while self.bib(id).first != NONE {
            self.unlink_session(self.bib(id).first);
        }
        self.remove_bib(id)
    }

    /// Adds a session to a mapping that has none with this peer; `None` when the table is full.
    pub fn add_session(
        &mut self,
        bib: BibId,
        remote: Transport4,
        state: TcpState,
        lifetime: Lifetime,
        deadline: Tick,
    ) -> Option<SessionId> {
        if self.sessions.len() >= CAPACITY {
            return None;
        }
        let first = self.bib(bib).first;
        let id = self.sessions.insert(Session {
            bib: bib.0,
            remote,
            state,
            lifetime,
            deadline,
            reported: deadline,
            timer: UNLINKED,
            sibling: Link {
                prev: NONE,
                next: first,
            },
        }) as u32;
        if let Some(next) = self.sessions.get_mut(first as usize) {
            next.sibling.prev = id;
        }
        self.bibs[bib.0 as usize].first = id;
        let hash = self.peer_hash(bib.0, remote);
        let (sessions, hasher) = (&self.sessions, &self.hasher);
        self.by_peer.insert_unique(hash, id, |i| {
            let session = &sessions[*i as usize];
            hash_with(hasher, &(session.bib, session.remote))
        });
        if let Some(hosts) = &mut self.hosts {
            greet(hosts, &self.hasher, bib.0, remote.addr);
        }
        self.link_timer(id);
        Some(SessionId(id))
    }

    /// Puts a session on a lifetime that ends at `deadline`.
    pub fn restart(&mut self, id: SessionId, lifetime: Lifetime, deadline: Tick) {
        let session = &self.sessions[id.0 as usize];
        if session.lifetime == lifetime && session.deadline == deadline {
            return;
        }
        self.unlink_timer(id.0);
        let session = &mut self.sessions[id.0 as usize];
        session.lifetime = lifetime;
        session.deadline = deadline;
        self.link_timer(id.0);
    }

    /// Removes a session; its mapping stays.
    pub fn remove_session(&mut self, id: SessionId) -> (BibId, Session) {
        let session = self.unlink_session(id.0);
        (BibId(session.bib), session)
    }

    /// A session of this lifetime whose deadline has come, the most overdue first.
    pub fn due(&self, lifetime: Lifetime, now: Tick) -> Option<SessionId> {
        let first = self.timers[lifetime as usize].first;
        let session = self.sessions.get(first as usize)?;
        (session.deadline <= now).then_some(SessionId(first))
    }

    /// The earliest deadline of all.
    pub fn next_deadline(&self) -> Option<Tick> {
        self.timers
            .iter()
            .filter_map(|ends| self.sessions.get(ends.first as usize))
            .map(|session| session.deadline)
            .min()
    }

    /// Moves the deadlines of a whole lifetime, because its length was set anew. The caller
    /// reports them.
    pub fn shift(&mut self, lifetime: Lifetime, old: u64, new: u64) {
        let mut next = self.timers[lifetime as usize].first;
        while let Some(session) = self.sessions.get_mut(next as usize) {
            session.deadline = Tick(session.deadline.0.saturating_add(new).saturating_sub(old));
            session.reported = session.deadline;
            next = session.timer.next;
        }
    }

    /// Puts a session into its lifetime's list. Nearly always that is the end; only rows from
    /// elsewhere (a database, a peer) come with an earlier deadline.
    fn link_timer(&mut self, id: u32) {
        let session = &self.sessions[id as usize];
        let (lifetime, deadline) = (session.lifetime as usize, session.deadline);
        let mut prev = self.timers[lifetime].last;
        while let Some(before) = self.sessions.get(prev as usize) {
            if before.deadline <= deadline {
                break;
            }
            prev = before.timer.prev;
        }
        let next = match self.sessions.get_mut(prev as usize) {
            Some(before) => std::mem::replace(&mut before.timer.next, id),
            None => std::mem::replace(&mut self.timers[lifetime].first, id),
        };
        match self.sessions.get_mut(next as usize) {
            Some(after) => after.timer.prev = id,
            None => self.timers[lifetime].last = id,
        }
        self.sessions[id as usize].timer = Link { prev, next };
    }

    fn unlink_timer(&mut self, id: u32) {
        let session = &self.sessions[id as usize];
        let (Link { prev, next }, lifetime) = (session.timer, session.lifetime as usize);
        match self.sessions.get_mut(prev as usize) {
            Some(before) => before.timer.next = next,
            None => self.timers[lifetime].first = next,
        }
        match self.sessions.get_mut(next as usize) {
            Some(after) => after.timer.prev = prev,
            None => self.timers[lifetime].last = prev,
        }
    }

    fn unlink_session(&mut self, id: u32) -> Session {
        self.unlink_timer(id);
        let session = self.sessions.remove(id as usize);
        let hash = self.peer_hash(session.bib, session.remote);
        if let Ok(found) = self.by_peer.find_entry(hash, |i| *i == id) {
            found.remove();
        }
        if let Some(hosts) = &mut self.hosts {
            part(hosts, &self.hasher, session.bib, session.remote.addr);
        }
        let Link { prev, next } = session.sibling;
        match self.sessions.get_mut(prev as usize) {
            Some(before) => before.sibling.next = next,
            None => self.bibs[session.bib as usize].first = next,
        }
        if let Some(after) = self.sessions.get_mut(next as usize) {
            after.sibling.prev = prev;
        }
        session
    }

    fn hash(&self, key: &impl Hash) -> u64 {
        hash_with(&self.hasher, key)
    }

    fn peer_hash(&self, bib: u32, remote: Transport4) -> u64 {
        self.hash(&(bib, remote))
    }
}

/// Counts a session with a host.
fn greet(hosts: &mut HashTable<Host>, hasher: &SipHasher13, bib: u32, addr: Ipv4Addr) {
    let slot = hosts.entry(
        hash_with(hasher, &(bib, addr)),
        |h| h.bib == bib && h.addr == addr,
        |h| hash_with(hasher, &(h.bib, h.addr)),
    );
    let new = Host {
        bib,
        addr,
        sessions: 0,
    };
    slot.or_insert(new).into_mut().sessions += 1;
}

/// Takes back what [`greet`] counted.
fn part(hosts: &mut HashTable<Host>, hasher: &SipHasher13, bib: u32, addr: Ipv4Addr) {
    let hash = hash_with(hasher, &(bib, addr));
    if let Ok(mut found) = hosts.find_entry(hash, |h| h.bib == bib && h.addr == addr) {
        found.get_mut().sessions -= 1;
        if found.get().sessions == 0 {
            found.remove();
        }
    }
}

fn hash_with(hasher: &SipHasher13, key: &impl Hash) -> u64 {
    let mut hasher = *hasher;
    key.hash(&mut hasher);
    hasher.finish()
}

/// No entry. Slabs never grow to this index.
const NONE: u32 = u32::MAX;

/// Most entries a slab holds: indexes are 32 bits wide.
const CAPACITY: usize = NONE as usize;

const LIFETIMES: usize = 5;

const UNLINKED: Link = Link {
    prev: NONE,
    next: NONE,
};

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::new([7; 16])
    }

    fn v6(port: u16) -> Transport6 {
        Transport6::new("2001:db8::8".parse().unwrap(), port)
    }

    fn v4(port: u16) -> Transport4 {
        Transport4::new("192.0.2.1".parse().unwrap(), port)
    }

    fn session(table: &mut Table, bib: BibId, port: u16, deadline: u64) -> SessionId {
        table
            .add_session(
                bib,
                v4(port),
                TcpState::Established,
                Lifetime::Udp,
                Tick(deadline),
            )
            .unwrap()
    }

    #[test]
    fn no_two_mappings_share_an_address() {
        let mut table = table();
        let id = table.add_bib(v6(1), v4(1), false).unwrap();
        assert!(table.add_bib(v6(1), v4(2), false).is_none());
        assert!(table.add_bib(v6(2), v4(1), false).is_none());
        assert_eq!(table.find_v6(v6(1)), Some(id));
        assert_eq!(table.find_v4(v4(1)), Some(id));
        assert!(table.drop_if_idle(id).is_some());
        assert_eq!(table.find_v6(v6(1)), None);
        assert_eq!(table.find_v4(v4(1)), None);
    }

    #[test]
    fn sessions_come_due_in_order_of_deadline() {
        let mut table = table();
        let bib = table.add_bib(v6(1), v4(1), false).unwrap();
        let late = session(&mut table, bib, 30, 30);
        let early = session(&mut table, bib, 10, 10);
        let middle = session(&mut table, bib, 20, 20);
        assert_eq!(table.due(Lifetime::Udp, Tick(9)), None);
        assert_eq!(table.due(Lifetime::Udp, Tick(40)), Some(early));
        table.restart(early, Lifetime::Udp, Tick(50));
        assert_eq!(table.due(Lifetime::Udp, Tick(40)), Some(middle));
        table.remove_session(middle);
        assert_eq!(table.due(Lifetime::Udp, Tick(40)), Some(late));
        assert_eq!(table.next_deadline(), Some(Tick(30)));
        table.shift(Lifetime::Udp, 20, 5);
        assert_eq!(table.next_deadline(), Some(Tick(15)));
        table.remove_session(late);
        assert!(table.drop_if_idle(bib).is_none(), "one session is left");
        table.remove_session(early);
        assert!(table.drop_if_idle(bib).is_some());
        assert_eq!(table.next_deadline(), None);
    }

    #[test]
    fn a_purged_mapping_takes_its_sessions_along() {
        let mut table = table();
        let bib = table.add_bib(v6(1), v4(1), true).unwrap();
        let other = table.add_bib(v6(2), v4(2), false).unwrap();
        for port in 0..100 {
            session(&mut table, bib, port, port.into());
        }
        let kept = session(&mut table, other, 1, 1);
        assert_eq!(table.session_count(), 101);
        table.purge_bib(bib);
        assert_eq!(table.session_count(), 1);
        assert_eq!(table.find_session(other, v4(1)), Some(kept));
        assert_eq!(table.due(Lifetime::Udp, Tick(9)), Some(kept));
    }

    #[test]
    fn hosts_are_known_as_long_as_they_have_sessions() {
        let mut table = table();
        let bib = table.add_bib(v6(1), v4(1), false).unwrap();
        let other = table.add_bib(v6(2), v4(2), false).unwrap();
        let addr = v4(0).addr;
        let before = session(&mut table, bib, 10, 10);
        assert!(table.knows(bib, addr) && !table.knows(other, addr));
        assert!(!table.knows(bib, Ipv4Addr::LOCALHOST));
        let after = session(&mut table, bib, 20, 20);
        table.remove_session(before);
        assert!(table.knows(bib, addr));
        table.remove_session(after);
        assert!(!table.knows(bib, addr));
        session(&mut table, other, 10, 10);
        table.forget_hosts();
        assert!(table.knows(other, addr));
        table.purge_bib(other);
        assert!(table.hosts.unwrap().is_empty());
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! The BIB and the sessions of one protocol, found by hash, ordered by deadline.
//!
//! Entries live in slabs and point at each other by index, so that nothing is copied or allocated
//! when a packet touches its session. A session hangs in two lists: its lifetime's, which is in
//! order of deadlines (equal lifetimes expire in the order they began), and its BIB entry's. Rows
//! from elsewhere, whose deadlines come in any order, wait beside their lifetime's list in a tree.
//!
//! Packets only put off the end of their session, which takes no more than a look at the table: the
//! place in the list stays, and is looked after when it has come up to the front.
//!
//! The table keeps its own house in order: every session belongs to an entry, an entry that is
//! not static dies with its last session, no two entries share a transport address.

use core::sync::atomic::{AtomicU16, Ordering};
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use siphasher::sip::SipHasher13;
use slab::Slab;

use super::gradual::Index;
use super::pool4::Block;
use super::tally::Tally;
use super::tcp::Lifetime;
pub use super::used::Usage;
use super::used::Used;
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
#[derive(Debug)]
pub struct Session {
    bib: u32,
    /// The IPv4 server (`dst4`).
    pub remote: Transport4,
    pub state: TcpState,
    pub lifetime: Lifetime,
    /// Its place in the order of deadlines.
    listed: Tick,
    /// By how many milliseconds packets have put off its end since it was listed.
    put_off: AtomicU16,
    /// The deadline that was last reported as a change.
    pub reported: Tick,
    /// The most data in a TCP segment, TCP options included, in bytes; 0 if unknown.
    pub segment: u16,
    timer: Link,
    sibling: Link,
}

impl Session {
    /// When it ends, unless something happens.
    pub fn deadline(&self) -> Tick {
        self.listed
            .after(self.put_off.load(Ordering::Relaxed).into())
    }

    /// Puts off its end, which several threads may do at once: the latest counts. False if its
    /// place in the list would lag too far behind, or is later already.
    pub fn put_off(&self, deadline: Tick) -> bool {
        let lag = deadline.0.checked_sub(self.listed.0);
        let Some(lag) = lag.and_then(|lag| u16::try_from(lag).ok()) else {
            return false;
        };
        // Written once a millisecond at most, not with every packet: the other direction's worker
        // needs this line of its cache, too.
        if self.put_off.load(Ordering::Relaxed) < lag {
            self.put_off.fetch_max(lag, Ordering::Relaxed);
        }
        true
    }

    /// Whether its remote address is one that the client talks to.
    fn counts(&self) -> bool {
        counts(self.lifetime)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    prev: u32,
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    first: u32,
    last: u32,
}

/// BIB and sessions of one protocol.
pub struct Table {
    bibs: Slab<Bib>,
    sessions: Slab<Session>,
    by_v6: Index,
    by_v4: Index,
    by_peer: Index,
    used: Used,
    /// Sessions of a BIB entry with an address. Made when first asked for: see [`Table::knows`].
    hosts: Option<Tally<(u32, Ipv4Addr)>>,
    /// Sessions of an IPv6 prefix, and how long those prefixes are; made when first asked for.
    prefixes: Option<(u8, Tally<Ipv6Addr>)>,
    /// One list a lifetime.
    timers: [Ends; LIFETIMES],
    /// Per lifetime, what came with an earlier deadline than the end of its list: a place in the
    /// list would take a walk along it to find.
    early: [BTreeSet<(Tick, u32)>; LIFETIMES],
    hasher: SipHasher13,
}

impl Table {
    /// `key` makes the hashes unpredictable; strangers choose what is hashed.
    pub fn new(key: [u8; 16]) -> Self {
        let hasher = SipHasher13::new_with_key(&key);
        Self {
            bibs: Slab::new(),
            sessions: Slab::new(),
            by_v6: Index::new(),
            by_v4: Index::new(),
            by_peer: Index::new(),
            used: Used::new(hasher),
            hosts: None,
            prefixes: None,
            timers: [Ends {
                first: NONE,
                last: NONE,
            }; LIFETIMES],
            early: Default::default(),
            hasher,
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

    /// The sessions at some of the positions from 0 to [`Table::session_positions`]. A session keeps
    /// its position for as long as it lives, so that all can be looked at in portions.
    pub fn sessions_at(&self, positions: Range<usize>) -> impl Iterator<Item = (&Bib, &Session)> {
        let found = positions.filter_map(|i| self.sessions.get(i));
        found.map(|session| (self.bib_of(session), session))
    }

    pub fn session_positions(&self) -> usize {
        self.sessions.capacity()
    }

    /// The mappings at some of the positions from 0 to [`Table::bib_positions`], which they keep.
    pub fn bibs_at(&self, positions: Range<usize>) -> impl Iterator<Item = &Bib> {
        positions.filter_map(|i| self.bibs.get(i))
    }

    pub fn bib_positions(&self) -> usize {
        self.bibs.capacity()
    }

    pub fn find_v6(&self, v6: Transport6) -> Option<BibId> {
        let found = self.by_v6.find(self.hash(&v6), |i| self.bibs[i].v6 == v6);
        found.map(BibId)
    }

    pub fn find_v4(&self, v4: Transport4) -> Option<BibId> {
        let found = self.by_v4.find(self.hash(&v4), |i| self.bibs[i].v4 == v4);
        found.map(BibId)
    }

    pub fn find_session(&self, bib: BibId, remote: Transport4) -> Option<SessionId> {
        let hash = peer_hash(&self.hasher, bib.0, remote);
        let found = self.by_peer.find(hash, |i| {
            let session = &self.sessions[i];
            session.bib == bib.0 && session.remote == remote
        });
        found.map(SessionId)
    }

    /// Whether a BIB entry has a session with this address, whatever the port. Sessions that only
    /// wait for their client ([`Lifetime::TcpIncomingSyn`]) do not count.
    ///
    /// Strangers make us ask, so that the answer must not cost more the more sessions there are.
    /// The first question makes an index, which is kept up to date until [forgotten].
    ///
    /// [forgotten]: Self::forget_hosts
    pub fn knows(&mut self, bib: BibId, addr: Ipv4Addr) -> bool {
        let hosts = self.hosts.get_or_insert_with(|| {
            let mut hosts = Tally::new(self.hasher);
            for (_, session) in self.sessions.iter().filter(|(_, s)| s.counts()) {
                hosts.add((session.bib, session.remote.addr));
            }
            hosts
        });
        hosts.get((bib.0, addr)) != 0
    }

    /// Gives back the memory that [`Table::knows`] needs.
    pub fn forget_hosts(&mut self) {
        self.hosts = None;
    }

    /// How many sessions there are of clients whose first `len` bits are those of `addr`.
    ///
    /// The first question about a length makes an index with a counter for every prefix that has
    /// sessions, which is kept up to date until [forgotten](Self::forget_prefixes).
    pub fn sessions_of_prefix(&mut self, addr: Ipv6Addr, len: u8) -> u32 {
        if self.prefixes.as_ref().is_none_or(|(l, _)| *l != len) {
            let mut prefixes = Tally::new(self.hasher);
            for (_, session) in &self.sessions {
                let client = self.bibs[session.bib as usize].v6.addr;
                prefixes.add(prefix_of(client, len));
            }
            self.prefixes = Some((len, prefixes));
        }
        self.prefixes
            .as_ref()
            .map_or(0, |(_, prefixes)| prefixes.get(prefix_of(addr, len)))
    }

    /// Gives back the memory that [`Table::sessions_of_prefix`] needs.
    pub fn forget_prefixes(&mut self) {
        self.prefixes = None;
    }

    /// Has the use of these counted from now on: the blocks of pool4, in ascending order.
    pub(super) fn measure<'a>(&mut self, blocks: impl Iterator<Item = &'a Block>) {
        self.used.measure(blocks);
    }

    /// How much of each range of pool4 mappings have; none without pool4.
    pub fn usage(&self) -> &[Usage] {
        self.used.ranges()
    }

    /// The first port of an address from `first` to `last` that no mapping has.
    pub fn first_free(&self, addr: Ipv4Addr, first: u16, last: u16) -> Option<u16> {
        self.used.first_free(addr, first, last)
    }

    /// The sessions of a mapping.
    pub fn sessions_of(&self, id: BibId) -> impl Iterator<Item = &Session> {
        let first = self.sessions.get(self.bib(id).first as usize);
        std::iter::successors(first, |session| {
            self.sessions.get(session.sibling.next as usize)
        })
    }

    /// Adds a mapping; `None` when either side belongs to another one or the table is full.
    pub fn add_bib(&mut self, v6: Transport6, v4: Transport4, is_static: bool) -> Option<BibId> {
        let taken = self.find_v6(v6).is_some() || self.find_v4(v4).is_some();
        if taken || self.bibs.len() >= CAPACITY {
            return None;
        }
        let id = self.bibs.insert(Bib {
            v6,
            v4,
            is_static,
            first: NONE,
        }) as u32;
        let (hasher, bibs) = (&self.hasher, &self.bibs);
        self.by_v6.insert(hash_with(hasher, &v6), id, |i| {
            hash_with(hasher, &bibs[i].v6)
        });
        self.by_v4.insert(hash_with(hasher, &v4), id, |i| {
            hash_with(hasher, &bibs[i].v4)
        });
        self.used.insert(v4);
        Some(BibId(id))
    }

    pub fn set_static(&mut self, id: BibId, is_static: bool) {
        self.bibs[id.0 as usize].is_static = is_static;
    }

    /// Removes a mapping that has no sessions.
    fn remove_bib(&mut self, id: BibId) -> Bib {
        let bib = self.bibs.remove(id.0 as usize);
        self.used.remove(bib.v4);
        self.by_v6.remove(self.hash(&bib.v6), id.0);
        self.by_v4.remove(self.hash(&bib.v4), id.0);
        bib
    }

    /// Removes a mapping that has no sessions and is not static, and returns it.
    pub fn drop_if_idle(&mut self, id: BibId) -> Option<Bib> {
        let bib = self.bib(id);
        (bib.first == NONE && !bib.is_static).then(|| self.remove_bib(id))
    }

    /// Removes a mapping with all its sessions, hands them to `each`, and returns it.
    pub fn purge_bib(&mut self, id: BibId, mut each: impl FnMut(&Bib, &Session)) -> Bib {
        while self.bib(id).first != NONE {
            let session = self.unlink_session(self.bib(id).first);
            each(self.bib(id), &session);
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
            listed: deadline,
            put_off: AtomicU16::new(0),
            reported: deadline,
            segment: 0,
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
        let (hasher, sessions) = (&self.hasher, &self.sessions);
        self.by_peer
            .insert(peer_hash(hasher, bib.0, remote), id, |i| {
                peer_hash(hasher, sessions[i].bib, sessions[i].remote)
            });
        if let Some(hosts) = self.hosts.as_mut().filter(|_| counts(lifetime)) {
            hosts.add((bib.0, remote.addr));
        }
        if let Some((len, prefixes)) = &mut self.prefixes {
            prefixes.add(prefix_of(self.bibs[bib.0 as usize].v6.addr, *len));
        }
        self.link_timer(id);
        Some(SessionId(id))
    }

    /// Puts a session on a lifetime that ends at `deadline`.
    pub fn restart(&mut self, id: SessionId, lifetime: Lifetime, deadline: Tick) {
        let session = &self.sessions[id.0 as usize];
        if session.lifetime == lifetime && session.deadline() == deadline {
            return;
        }
        self.unlink_timer(id.0);
        let session = &mut self.sessions[id.0 as usize];
        if let Some(hosts) = &mut self.hosts {
            let key = (session.bib, session.remote.addr);
            match (session.counts(), counts(lifetime)) {
                (false, true) => hosts.add(key),
                (true, false) => hosts.take(key),
                (true, true) | (false, false) => {}
            }
        }
        session.lifetime = lifetime;
        session.listed = deadline;
        *session.put_off.get_mut() = 0;
        self.link_timer(id.0);
    }

    /// Moves a session whose end was put off to where it belongs now.
    pub fn list_anew(&mut self, id: SessionId) {
        self.unlink_timer(id.0);
        let session = &mut self.sessions[id.0 as usize];
        session.listed = session.deadline();
        *session.put_off.get_mut() = 0;
        self.link_timer(id.0);
    }

    /// Removes a session; its mapping stays.
    pub fn remove_session(&mut self, id: SessionId) -> (BibId, Session) {
        let session = self.unlink_session(id.0);
        (BibId(session.bib), session)
    }

    /// A session of this lifetime whose turn has come, the most overdue first: its deadline has
    /// come, too, unless that was put off.
    pub fn due(&self, lifetime: Lifetime, now: Tick) -> Option<SessionId> {
        let (deadline, id) = self.first(lifetime as usize)?;
        (deadline <= now).then_some(SessionId(id))
    }

    /// The earliest deadline of all. Looks at every session.
    pub fn next_deadline(&self) -> Option<Tick> {
        let all = self.sessions.iter();
        all.map(|(_, session)| session.deadline()).min()
    }

    /// The session of a lifetime that is listed first.
    fn first(&self, lifetime: usize) -> Option<(Tick, u32)> {
        let id = self.timers[lifetime].first;
        let listed = self.sessions.get(id as usize);
        let listed = listed.map(|session| (session.listed, id));
        let early = self.early[lifetime].first().copied();
        listed.into_iter().chain(early).min()
    }

    /// Moves the deadlines of a whole lifetime, because its length was set anew. The caller
    /// reports them.
    pub fn shift(&mut self, lifetime: Lifetime, old: u64, new: u64) {
        let moved = |deadline: Tick| Tick(deadline.0.saturating_add(new).saturating_sub(old));
        let mut next = self.timers[lifetime as usize].first;
        while let Some(session) = self.sessions.get_mut(next as usize) {
            session.listed = moved(session.listed);
            session.reported = session.deadline();
            next = session.timer.next;
        }
        let early = std::mem::take(&mut self.early[lifetime as usize]);
        let early = early
            .into_iter()
            .map(|(deadline, id)| (moved(deadline), id));
        let early: BTreeSet<_> = early.collect();
        for (deadline, id) in &early {
            let session = &mut self.sessions[*id as usize];
            session.listed = *deadline;
            session.reported = session.deadline();
        }
        self.early[lifetime as usize] = early;
    }

    /// Puts a session at the end of its lifetime's list. That is nearly always its place; only rows
    /// from elsewhere (a database, a peer) come with an earlier deadline.
    fn link_timer(&mut self, id: u32) {
        let session = &self.sessions[id as usize];
        let (lifetime, deadline) = (session.lifetime as usize, session.listed);
        let last = self.timers[lifetime].last;
        match self.sessions.get_mut(last as usize) {
            Some(before) if deadline < before.listed => {
                self.early[lifetime].insert((deadline, id));
                self.sessions[id as usize].timer = EARLY;
                return;
            }
            Some(before) => before.timer.next = id,
            None => self.timers[lifetime].first = id,
        }
        self.timers[lifetime].last = id;
        self.sessions[id as usize].timer = Link {
            prev: last,
            next: NONE,
        };
    }

    fn unlink_timer(&mut self, id: u32) {
        let session = &self.sessions[id as usize];
        let (Link { prev, next }, lifetime) = (session.timer, session.lifetime as usize);
        if session.timer == EARLY {
            self.early[lifetime].remove(&(session.listed, id));
            return;
        }
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
        let hash = peer_hash(&self.hasher, session.bib, session.remote);
        self.by_peer.remove(hash, id);
        if let Some(hosts) = self.hosts.as_mut().filter(|_| session.counts()) {
            hosts.take((session.bib, session.remote.addr));
        }
        if let Some((len, prefixes)) = &mut self.prefixes {
            prefixes.take(prefix_of(self.bibs[session.bib as usize].v6.addr, *len));
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
}

fn counts(lifetime: Lifetime) -> bool {
    lifetime != Lifetime::TcpIncomingSyn
}

/// The first `len` bits of an address, at most 128; the others are zero.
fn prefix_of(addr: Ipv6Addr, len: u8) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
    (u128::from(addr) & mask).into()
}

pub(super) fn hash_with(hasher: &SipHasher13, key: &impl Hash) -> u64 {
    let mut hasher = *hasher;
    key.hash(&mut hasher);
    hasher.finish()
}

fn peer_hash(hasher: &SipHasher13, bib: u32, remote: Transport4) -> u64 {
    hash_with(hasher, &(bib, remote))
}

/// No entry. Slabs never grow to this index.
const NONE: u32 = u32::MAX;

/// In place of a link of the list: not in the list. Slabs never grow to this index either.
const EARLY: Link = Link {
    prev: NONE - 1,
    next: NONE - 1,
};

/// Most entries a slab holds: indexes are 32 bits wide.
const CAPACITY: usize = NONE as usize - 1;

const LIFETIMES: usize = 5;

const UNLINKED: Link = Link {
    prev: NONE,
    next: NONE,
};

#[cfg(test)]
mod tests;

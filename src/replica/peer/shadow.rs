// SPDX-License-Identifier: GPL-2.0-or-later
//! The versions of the sessions in a table, in buckets with a digest each.
//!
//! The table itself knows nothing of versions. Two copies with equal digests hold the same
//! versions of the same sessions; where digests differ, only those buckets are looked at. What
//! was deleted a moment ago is remembered as a grave, so that late records do not revive it.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::{HashTable, hash_table};
use siphasher::sip::SipHasher13;

use super::record::SessionKey;
use super::stamp::Stamp;
use crate::base::{Protocol, Tick, Transport4};

pub(super) struct Shadow {
    buckets: Box<[Bucket]>,
    groups: [u64; GROUPS],
    births: HashTable<Birth>,
    graves: BTreeMap<SessionKey, Grave>,
    /// In the order in which they are opened again.
    opens: VecDeque<(Tick, SessionKey)>,
    len: usize,
    hasher: SipHasher13,
}

#[derive(Clone, Default)]
struct Bucket {
    entries: HashTable<Entry>,
    digest: u64,
}

/// Of one session.
#[derive(Clone, Copy, Debug)]
struct Entry {
    stamp: Stamp,
    key: SessionKey,
    installed: bool,
}

/// Of one mapping.
#[derive(Clone, Copy, Debug)]
struct Birth {
    time: u64,
    sessions: u32,
    protocol: Protocol,
    v4: Transport4,
}

#[derive(Clone, Copy, Debug)]
struct Grave {
    stamp: Stamp,
    birth: u64,
    until: Tick,
}

/// The version of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) stamp: Stamp,
    /// Whether the table took it.
    pub(super) installed: bool,
}

impl Entry {
    const fn version(self) -> Version {
        Version {
            stamp: self.stamp,
            installed: self.installed,
        }
    }
}

impl Shadow {
    /// `key` makes the hashes of this node unpredictable; strangers choose what is hashed.
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self {
            buckets: vec![Bucket::default(); BUCKETS].into(),
            groups: [0; GROUPS],
            births: HashTable::new(),
            graves: BTreeMap::new(),
            opens: VecDeque::new(),
            len: 0,
            hasher: SipHasher13::new_with_key(&key),
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Everything, without looking at what is empty.
    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = (SessionKey, Stamp)> {
        let buckets = self.buckets.iter().filter(|b| !b.entries.is_empty());
        buckets.flat_map(|b| b.entries.iter().map(|e| (e.key, e.stamp)))
    }

    #[cfg(test)]
    pub(super) fn graves(&self) -> usize {
        self.graves.len()
    }

    pub(super) fn get(&self, key: &SessionKey) -> Option<Version> {
        let entries = &self.buckets[bucket_of(key)].entries;
        let entry = entries.find(self.hasher.hash(&name(key)), |entry| entry.key == *key)?;
        Some(entry.version())
    }

    /// Notes a version. `birth` is when its mapping came to be; of several times the last is.
    pub(super) fn set(&mut self, key: SessionKey, version: Version, birth: u64) {
        let Version { stamp, installed } = version;
        let bucket = bucket_of(&key);
        let hasher = self.hasher;
        let entry = Entry {
            stamp,
            key,
            installed,
        };
        let entries = &mut self.buckets[bucket].entries;
        let found = entries.entry(
            hasher.hash(&name(&key)),
            |entry| entry.key == key,
            |entry| hasher.hash(&name(&entry.key)),
        );
        let before = match found {
            hash_table::Entry::Occupied(mut found) => {
                Some(std::mem::replace(found.get_mut(), entry))
            }
            hash_table::Entry::Vacant(free) => {
                free.insert(entry);
                None
            }
        };
        let before = before.map(Entry::version);
        match before {
            Some(before) => self.toggle(bucket, &key, before),
            None => self.len += 1,
        }
        self.toggle(bucket, &key, version);
        let counted = before.is_some_and(|before| before.installed);
        match (counted, installed) {
            (false, true) => self.claim(key.protocol, key.v4, birth).sessions += 1,
            (true, true) => self.be_born(key.protocol, key.v4, birth),
            (true, false) => self.leave(key.protocol, key.v4),
            (false, false) => {}
        }
    }

    pub(super) fn remove(&mut self, key: &SessionKey) -> Option<Version> {
        let bucket = bucket_of(key);
        let hash = self.hasher.hash(&name(key));
        let entries = &mut self.buckets[bucket].entries;
        let found = entries.find_entry(hash, |entry| entry.key == *key).ok()?;
        let (entry, _) = found.remove();
        let version = entry.version();
        self.toggle(bucket, key, version);
        self.len -= 1;
        if entry.installed {
            self.leave(key.protocol, key.v4);
        }
        Some(version)
    }

    /// A mapping has a session less.
    fn leave(&mut self, protocol: Protocol, v4: Transport4) {
        let birth = self.claim(protocol, v4, 0);
        birth.sessions = birth.sessions.saturating_sub(1);
    }

    /// When a mapping came to be; 0 if that is not known.
    pub(super) fn birth(&self, protocol: Protocol, v4: Transport4) -> u64 {
        let known = (protocol, v4);
        let found = self
            .births
            .find(self.hasher.hash(&mapping_name(protocol, v4)), |b| {
                (b.protocol, b.v4) == known
            });
        found.map_or(0, |birth| birth.time)
    }

    /// Notes when a mapping came to be.
    pub(super) fn be_born(&mut self, protocol: Protocol, v4: Transport4, time: u64) {
        self.claim(protocol, v4, time);
    }

    /// Forgets a mapping that is gone from the table.
    pub(super) fn forget_mapping(&mut self, protocol: Protocol, v4: Transport4) {
        let known = (protocol, v4);
        let hash = self.hasher.hash(&mapping_name(protocol, v4));
        let found = self
            .births
            .find_entry(hash, |b| (b.protocol, b.v4) == known && b.sessions == 0);
        if let Ok(found) = found {
            found.remove();
        }
    }

    fn claim(&mut self, protocol: Protocol, v4: Transport4, time: u64) -> &mut Birth {
        let known = (protocol, v4);
        let hasher = self.hasher;
        let entry = self.births.entry(
            hasher.hash(&mapping_name(protocol, v4)),
            |b| (b.protocol, b.v4) == known,
            |b| hasher.hash(&mapping_name(b.protocol, b.v4)),
        );
        let birth = entry.or_insert(Birth {
            time,
            sessions: 0,
            protocol,
            v4,
        });
        let birth = birth.into_mut();
        birth.time = birth.time.max(time);
        birth
    }

    /// Remembers until when that what is written before `stamp`, about a mapping that is not
    /// younger than `birth`, is out of date.
    pub(super) fn bury(&mut self, key: SessionKey, stamp: Stamp, birth: u64, until: Tick) {
        let grave = Grave {
            stamp,
            birth,
            until,
        };
        let known = self.graves.get(&key);
        if known.is_none_or(|known| known.stamp < stamp) {
            self.graves.insert(key, grave);
            self.opens.push_back((until, key));
        }
        while self.opens.len() > GRAVES {
            self.open_first();
        }
    }

    pub(super) fn is_buried(&self, key: &SessionKey, stamp: Stamp, birth: u64) -> bool {
        let grave = self.graves.get(key);
        grave.is_some_and(|grave| stamp <= grave.stamp && birth <= grave.birth)
    }

    /// If that was decided, and did not just come to pass: up to which birth it holds.
    pub(super) fn deleted(&self, key: &SessionKey, stamp: Stamp, birth: u64) -> Option<u64> {
        let grave = self
            .graves
            .get(key)
            .filter(|grave| grave.birth != u64::MAX)?;
        self.is_buried(key, stamp, birth).then_some(grave.birth)
    }

    /// Ends what need not be remembered any more.
    pub(super) fn expire(&mut self, now: Tick) {
        while self.opens.front().is_some_and(|(until, _)| *until <= now) {
            self.open_first();
        }
    }

    fn open_first(&mut self) {
        let Some((until, key)) = self.opens.pop_front() else {
            return;
        };
        // It may have been buried anew since.
        if self.graves.get(&key).is_some_and(|g| g.until == until) {
            self.graves.remove(&key);
        }
    }

    pub(super) fn root(&self) -> u64 {
        self.groups.iter().fold(0, |all, digest| all ^ digest)
    }

    pub(super) fn groups(&self) -> [u64; GROUPS] {
        self.groups
    }

    /// The digests of the buckets of a group.
    pub(super) fn group(&self, group: usize) -> Vec<u64> {
        let buckets = self.buckets.chunks(BUCKETS / GROUPS).nth(group);
        let digests = buckets.unwrap_or_default().iter();
        digests.map(|bucket| bucket.digest).collect()
    }

    pub(super) fn bucket(&self, bucket: u16) -> impl Iterator<Item = (SessionKey, Version)> {
        let bucket = self.buckets.get(usize::from(bucket));
        let entries = bucket.into_iter().flat_map(|bucket| bucket.entries.iter());
        entries.map(|entry| (entry.key, entry.version()))
    }

    /// What is installed differs from what is not, so that it is offered again.
    fn toggle(&mut self, bucket: usize, key: &SessionKey, version: Version) {
        let digest = common(key, version.stamp).rotate_left(version.installed.into());
        self.buckets[bucket].digest ^= digest;
        self.groups[bucket / (BUCKETS / GROUPS)] ^= digest;
    }
}

/// The bucket of a session: the same at every node.
pub(super) fn bucket_of(key: &SessionKey) -> usize {
    (common(key, Stamp::ZERO) % BUCKETS as u64) as usize
}

/// A hash that is the same at every node and on every machine.
fn common(key: &SessionKey, stamp: Stamp) -> u64 {
    let mut bytes = [0; 21];
    bytes[..13].copy_from_slice(&name(key));
    bytes[13..].copy_from_slice(&stamp.bits().to_be_bytes());
    SipHasher13::new().hash(&bytes)
}

fn name(key: &SessionKey) -> [u8; 13] {
    let mut bytes = [0; 13];
    bytes[..7].copy_from_slice(&mapping_name(key.protocol, key.v4));
    bytes[7..11].copy_from_slice(&key.remote.addr.octets());
    bytes[11..].copy_from_slice(&key.remote.port.to_be_bytes());
    bytes
}

fn mapping_name(protocol: Protocol, v4: Transport4) -> [u8; 7] {
    let mut bytes = [0; 7];
    bytes[0] = protocol.index() as u8;
    bytes[1..5].copy_from_slice(&v4.addr.octets());
    bytes[5..].copy_from_slice(&v4.port.to_be_bytes());
    bytes
}

/// How many parts a table is compared in.
pub(super) const BUCKETS: usize = 4096;

/// Buckets are compared in groups first.
pub(super) const GROUPS: usize = 64;

/// How many graves there are at most.
const GRAVES: usize = 1 << 18;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> SessionKey {
        SessionKey {
            protocol: Protocol::Udp,
            v4: Transport4::new([192, 0, 2, 1].into(), port),
            remote: Transport4::new([198, 51, 100, 1].into(), 53),
        }
    }

    const fn version(time: u64) -> Version {
        Version {
            stamp: Stamp::new(time, 1),
            installed: true,
        }
    }

    #[test]
    fn digests_tell_versions_apart_whatever_their_order_was() {
        let (mut a, mut b) = (Shadow::new([1; 16]), Shadow::new([2; 16]));
        for port in 0..1_000 {
            a.set(key(port), version(u64::from(port)), 1);
        }
        for port in (0..1_000).rev() {
            b.set(key(port), version(0), 1);
            b.set(key(port), version(u64::from(port)), 1);
        }
        assert_eq!((a.root(), a.groups()), (b.root(), b.groups()));
        b.set(key(500), version(501), 1);
        let bucket = bucket_of(&key(500));
        let differ = (0..GROUPS).filter(|g| a.groups()[*g] != b.groups()[*g]);
        let group = bucket / (BUCKETS / GROUPS);
        assert_eq!(differ.collect::<Vec<_>>(), [group]);
        let pairs = a.group(group).into_iter().zip(b.group(group));
        let at = pairs.enumerate().filter(|(_, (x, y))| x != y);
        let at: Vec<_> = at.map(|(i, _)| i).collect();
        assert_eq!(at, [bucket % (BUCKETS / GROUPS)]);
        assert!(a.bucket(bucket as u16).any(|(k, _)| k == key(500)));
        for port in 0..1_000 {
            assert!(a.remove(&key(port)).is_some());
        }
        assert_eq!((a.root(), a.len()), (0, 0));
    }

    #[test]
    fn a_digest_is_the_same_on_every_machine() {
        let mut shadow = Shadow::new([1; 16]);
        shadow.set(key(1), version(1), 1);
        assert_eq!(shadow.root(), 11_174_980_189_077_526_745);
    }

    #[test]
    fn a_birth_lasts_as_long_as_its_mapping() {
        let mut shadow = Shadow::new([1; 16]);
        shadow.be_born(Protocol::Udp, key(1).v4, 5);
        shadow.set(key(1), version(9), 3);
        assert_eq!(shadow.birth(Protocol::Udp, key(1).v4), 5);
        shadow.forget_mapping(Protocol::Udp, key(1).v4);
        assert_eq!(shadow.birth(Protocol::Udp, key(1).v4), 5, "still in use");
        shadow.remove(&key(1));
        shadow.forget_mapping(Protocol::Udp, key(1).v4);
        assert_eq!(shadow.birth(Protocol::Udp, key(1).v4), 0);
    }

    #[test]
    fn graves_open_after_their_time_and_are_not_too_many() {
        let mut shadow = Shadow::new([1; 16]);
        shadow.bury(key(1), Stamp::new(5, 1), 4, Tick(10));
        shadow.bury(key(1), Stamp::new(3, 1), 4, Tick(20));
        assert!(shadow.is_buried(&key(1), Stamp::new(5, 1), 4));
        assert!(!shadow.is_buried(&key(1), Stamp::new(6, 1), 4));
        assert!(
            !shadow.is_buried(&key(1), Stamp::new(5, 1), 5),
            "a younger mapping"
        );
        shadow.expire(Tick(10));
        assert_eq!(shadow.graves(), 0);
        for i in 0..GRAVES as u32 + 9 {
            let mut key = key(1);
            key.remote.addr = i.into();
            shadow.bury(key, Stamp::new(5, 1), 4, Tick(20));
        }
        assert_eq!(shadow.graves(), GRAVES);
    }

    #[test]
    fn memory_a_session() {
        let (entry, birth) = (size_of::<Entry>(), size_of::<Birth>());
        assert_eq!((entry, birth), (24, 24));
    }
}

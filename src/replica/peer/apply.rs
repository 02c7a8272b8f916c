// SPDX-License-Identifier: GPL-2.0-or-later
//! What becomes of a record: the rules by which copies come to agree.
//!
//! Of one session the newest version wins. Of mappings that contradict each other, because they
//! share a transport address on either side, the youngest wins: whoever made it either knew that
//! the other one was gone, or could not know that it existed. The loser is deleted everywhere.
//! A static mapping is configuration, and gives way to nobody.

use super::instance::{Ended, Instance, Scene};
use super::record::{Alive, Body, Record, SessionKey};
use super::shadow::Version;
use super::stamp::{Knowledge, Stamp};
use crate::base::Transport6;
use crate::nat64::merge::ForeignSession;
use crate::nat64::{Change, Mapping, News, SessionState};

/// What a record did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Applied,
    Stale,
    Refused,
}

impl Instance {
    /// Takes notice of what happened in the table here.
    pub(super) fn on_change(&mut self, scene: &mut Scene<'_>, change: &Change, expired: bool) {
        let now = scene.now;
        match change {
            Change::Mapping(mapping) => {
                let time = scene.clock.tick(now);
                self.shadow.be_born(mapping.protocol, mapping.v4, time);
            }
            Change::MappingFixed(_) => {}
            Change::MappingGone { protocol, v4, .. } => self.shadow.forget_mapping(*protocol, *v4),
            Change::Session { session, news, .. } => {
                let key = key_of(session);
                let urgent = *news != News::LivesOn || self.shadow.get(&key).is_none();
                self.pending.touch(now, key, urgent);
            }
            Change::SessionGone {
                protocol,
                v4,
                remote,
                ..
            } => {
                let key = SessionKey {
                    protocol: *protocol,
                    v4: *v4,
                    remote: *remote,
                };
                self.on_gone(scene, key, expired);
            }
        }
    }

    /// A session ended here. That of another node ends there as well, by itself, unless that was
    /// decided here.
    pub(super) fn on_gone(&mut self, scene: &mut Scene<'_>, key: SessionKey, expired: bool) {
        self.pending.forget(&key);
        let birth = self.shadow.birth(key.protocol, key.v4);
        let Some(version) = self.shadow.remove(&key) else {
            return;
        };
        if expired {
            let until = scene.now.after(scene.config.grave);
            self.shadow.bury(key, version.stamp, u64::MAX, until);
            if Some(version.stamp.writer()) == self.writer {
                let ended = Ended::Expired(version.stamp);
                self.pending.end(scene.now, key, ended);
            }
        } else {
            self.decide(scene, key, birth);
        }
    }

    /// A session shall be gone everywhere.
    fn decide(&mut self, scene: &mut Scene<'_>, key: SessionKey, birth: u64) {
        let stamp = Stamp::new(scene.clock.tick(scene.now), self.writer.unwrap_or(0));
        let until = scene.now.after(scene.config.grave);
        self.shadow.bury(key, stamp, birth, until);
        self.pending.end(scene.now, key, Ended::Deleted(birth));
    }

    /// Takes notice of what another node says. `late` is how long ago it said so at least, in
    /// milliseconds.
    pub(super) fn apply(&mut self, scene: &mut Scene<'_>, record: &Record, late: u64) -> Effect {
        let Record { key, stamp, body } = record;
        scene.clock.observe(stamp.time());
        let effect = match body {
            Body::Alive(alive) => self.take(scene, *key, *stamp, alive, late),
            Body::Mentioned => self.mention(*key, *stamp),
            Body::Deleted { birth } => self.delete(scene, *key, *stamp, *birth),
            Body::Expired => self.end(scene, *key, *stamp),
        };
        let stats = &mut scene.stats;
        stats.received_records += 1;
        match effect {
            Effect::Applied => stats.applied += 1,
            Effect::Stale => stats.stale += 1,
            Effect::Refused => stats.refused += 1,
        }
        effect
    }

    fn take(
        &mut self,
        scene: &mut Scene<'_>,
        key: SessionKey,
        stamp: Stamp,
        alive: &Alive,
        late: u64,
    ) -> Effect {
        let current = self.shadow.get(&key);
        let stale = match current {
            Some(known) if known.installed => stamp <= known.stamp,
            Some(known) => stamp < known.stamp,
            None => self.knowledge.covers(stamp) || self.shadow.is_buried(&key, stamp, alive.birth),
        };
        if stale {
            // Whoever still says so has not heard that it was deleted, and who deleted it may be gone.
            if current.is_none()
                && let Some(birth) = self.shadow.deleted(&key, stamp, alive.birth)
            {
                self.decide(scene, key, birth);
            }
            return Effect::Stale;
        }
        let left = u64::from(alive.remaining).saturating_sub(late);
        let session = ForeignSession {
            protocol: key.protocol,
            v6: alive.client,
            v4: key.v4,
            remote: key.remote,
            state: alive.state,
            lifetime: alive.lifetime,
            left,
            segment: alive.segment,
        };
        let put = |scene: &mut Scene<'_>| {
            let linger = scene.config.linger;
            scene.table.put(scene.now, scene.settings, &session, linger)
        };
        let version = Version {
            stamp,
            installed: true,
        };
        // What the table takes contradicts nothing in it.
        if !self.pending.is_urgent(&key) && put(scene) {
            self.pending.forget(&key);
            self.shadow.set(key, version, alive.birth);
            return Effect::Applied;
        }
        let mapping = Mapping {
            protocol: key.protocol,
            v6: alive.client,
            v4: key.v4,
            is_static: false,
        };
        let rivals = rivals(scene, &mapping);
        if rivals.iter().any(|rival| rival.is_static) {
            self.refuse(key, stamp);
            return Effect::Refused;
        }
        let ours = (alive.birth, rank(&mapping));
        let beaten =
            |rival: &Mapping| (self.shadow.birth(rival.protocol, rival.v4), rank(rival)) < ours;
        let wins = rivals.iter().all(beaten);
        scene.stats.conflicts += rivals.len() as u64;
        if !wins {
            self.decide(scene, key, alive.birth);
            return Effect::Stale;
        }
        for rival in &rivals {
            self.drop_mapping(scene, rival);
        }
        // What happened here and was not told yet is newer than this, whatever it says.
        let known = scene.table.session(&key);
        let newer_here = self.pending.is_urgent(&key) && known.is_some();
        let installed = newer_here || {
            self.pending.forget(&key);
            put(scene)
        };
        if !installed {
            self.refuse(key, stamp);
            return Effect::Refused;
        }
        self.shadow.set(key, version, alive.birth);
        Effect::Applied
    }

    /// Notes that there is a session that the table has no place for: not to know of it would
    /// mean that it was deleted.
    fn refuse(&mut self, key: SessionKey, stamp: Stamp) {
        let version = Version {
            stamp,
            installed: false,
        };
        self.shadow.set(key, version, 0);
    }

    fn mention(&mut self, key: SessionKey, stamp: Stamp) -> Effect {
        if self.shadow.get(&key).is_none()
            && !self.knowledge.covers(stamp)
            && !self.shadow.is_buried(&key, stamp, 0)
        {
            self.refuse(key, stamp);
        }
        Effect::Stale
    }

    /// A session was deleted, with all its versions before `stamp`.
    pub(super) fn delete(
        &mut self,
        scene: &mut Scene<'_>,
        key: SessionKey,
        stamp: Stamp,
        birth: u64,
    ) -> Effect {
        let until = scene.now.after(scene.config.grave);
        self.shadow.bury(key, stamp, birth, until);
        let younger = self.shadow.birth(key.protocol, key.v4) > birth;
        match self.shadow.get(&key) {
            Some(known) if known.stamp > stamp || (known.installed && younger) => Effect::Stale,
            // Nothing that the table has by itself while it joins is younger, unless it is used.
            None if self.pending.has(&key) || younger => Effect::Stale,
            None if scene.table.session(&key).is_none() => Effect::Stale,
            Some(_) | None => self.remove(scene, key),
        }
    }

    /// The version `stamp` of a session ended of itself.
    fn end(&mut self, scene: &mut Scene<'_>, key: SessionKey, stamp: Stamp) -> Effect {
        let until = scene.now.after(scene.config.grave);
        self.shadow.bury(key, stamp, u64::MAX, until);
        let ended = self.shadow.get(&key).filter(|known| known.stamp <= stamp);
        if ended.is_none() || self.pending.has(&key) {
            return Effect::Stale;
        }
        self.remove(scene, key)
    }

    /// Removes what another node does not have although it knew of it. `theirs` is in order.
    pub(super) fn drop_absent(
        &mut self,
        scene: &mut Scene<'_>,
        bucket: u16,
        theirs: &[SessionKey],
        knowledge: &Knowledge,
    ) -> u64 {
        let absent = self.shadow.bucket(bucket).filter(|(key, version)| {
            theirs.binary_search(key).is_err()
                && knowledge.covers(version.stamp)
                && !self.pending.has(key)
        });
        let absent: Vec<_> = absent.collect();
        for (key, version) in &absent {
            let until = scene.now.after(scene.config.grave);
            self.shadow.bury(*key, version.stamp, u64::MAX, until);
            self.remove(scene, *key);
        }
        absent.len() as u64
    }

    fn remove(&mut self, scene: &mut Scene<'_>, key: SessionKey) -> Effect {
        self.pending.forget(&key);
        let installed = self.shadow.remove(&key).is_none_or(|v| v.installed);
        if installed {
            scene.table.remove(&key);
            if scene.table.mapping_of_v4(key.protocol, key.v4).is_none() {
                self.shadow.forget_mapping(key.protocol, key.v4);
            }
        }
        Effect::Applied
    }

    /// Removes a mapping that lost, here and everywhere.
    fn drop_mapping(&mut self, scene: &mut Scene<'_>, mapping: &Mapping) {
        let birth = self.shadow.birth(mapping.protocol, mapping.v4);
        for key in scene.table.sessions_of(mapping) {
            let known = self.shadow.get(&key).is_some();
            self.remove(scene, key);
            if known {
                self.decide(scene, key, birth);
            }
        }
        self.shadow.forget_mapping(mapping.protocol, mapping.v4);
    }
}

/// The mappings here that cannot exist beside this one: at most two.
fn rivals(scene: &Scene<'_>, mapping: &Mapping) -> Vec<Mapping> {
    let of_v4 = scene.table.mapping_of_v4(mapping.protocol, mapping.v4);
    let of_v6 = scene.table.mapping_of_v6(mapping.protocol, mapping.v6);
    let others = of_v4.into_iter().chain(of_v6);
    others
        .filter(|other| (other.v6, other.v4) != (mapping.v6, mapping.v4))
        .collect()
}

/// Decides between mappings that were born at the same time.
const fn rank(mapping: &Mapping) -> (Transport6, crate::base::Transport4) {
    (mapping.v6, mapping.v4)
}

pub(super) const fn key_of(session: &SessionState) -> SessionKey {
    SessionKey {
        protocol: session.protocol,
        v4: session.v4,
        remote: session.remote,
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! Where the packets meet the instances: the workers' side of the daemon.
//!
//! Workers share an instance for packets that change nothing but the time when their session ends.
//! For what is left of a burst after that, a worker has the instance for itself; never for the
//! system calls around it. What happened to its tables goes to the journal before the instance is
//! given back, so that the journal hears of it in the order in which it happened.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};

use self::serve::{Burst, bit, handle, lane, meta};
use super::cluster::Port;
use super::follow::Followers;
use super::log::{Log, Wanted};
use super::meter::{Meter, Tally};
use super::news::News;
use super::{clock, sync};
use crate::base::counters::{Counter, Counters};
use crate::base::host::Host as _;
use crate::base::{Protocol, Tick};
use crate::dataplane::{Addresses, Handler, Received, SendReport, Source, Verdict, Waker};
use crate::engine::Instance;
use crate::model::settings::Settings;
use crate::model::{Flavour, Framework};
use crate::nat64::{Change, Nat64};
use crate::store::{self, InstanceId, Store};
use crate::wire::output::Output;

mod serve;

/// An instance in service.
pub(super) struct Slot {
    pub(super) id: InstanceId,
    pub(super) name: String,
    pub(super) flavour: Flavour,
    pub(super) framework: Framework,
    /// Which queues it has.
    pub(super) number: usize,
    pub(super) followers: Followers,
    /// Where other gateways hear of its sessions.
    pub(super) sync: sync::Port,
    pub(super) meter: Meter,
    /// Each thread that looks marks a place of its own for that; who changes marks all of them.
    instance: ShardedLock<Instance>,
    complained: Mutex<Option<Instant>>,
}

/// All instances in service, in order of creation.
pub(super) struct Traffic {
    slots: ShardedLock<Vec<Arc<Slot>>>,
    /// Removed, but with something left to say.
    leaving: Mutex<Vec<Arc<Slot>>>,
    pub(super) store: Store,
    /// What this host is called.
    pub(super) host: Addresses,
    /// Where the other gateways of a cluster hear of changes.
    pub(super) cluster: Port,
    /// Has packets resumed.
    waker: OnceLock<Waker>,
    log: Log,
}

/// Who changed a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Packets,
    /// Sessions that ended of themselves.
    Timers,
    /// Commands, and nodes that speak Jool's language.
    Here,
    /// The other gateways of the cluster, which need not be told.
    Cluster,
    /// They as well, while they tell of all they have: it is [written](Traffic::write_down) later.
    Transfer,
}

impl Slot {
    pub(super) fn new(
        id: InstanceId,
        name: String,
        flavour: Flavour,
        framework: Framework,
        number: usize,
        instance: Instance,
    ) -> Self {
        Self {
            id,
            name,
            flavour,
            framework,
            number,
            followers: Followers::default(),
            sync: sync::Port::default(),
            meter: Meter::new(),
            instance: ShardedLock::new(instance),
            complained: Mutex::new(None),
        }
    }

    /// The instance, exclusively. Keep it short: workers wait.
    pub(super) fn lock(&self) -> ShardedLockWriteGuard<'_, Instance> {
        // The tables are sound between any two of their methods, even if a thread died.
        self.instance
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The instance, to look at it. Workers go on with packets of sessions that are known.
    ///
    /// A thread that has it already must not ask again, for this or for more: others that wait
    /// come first.
    pub(super) fn read(&self) -> ShardedLockReadGuard<'_, Instance> {
        self.instance.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn warn_exhausted(&self, mark: u32) {
        let mut last = self
            .complained
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
            *last = Some(Instant::now());
            if self.flavour == Flavour::Mapt {
                tracing::warn!(
                    instance = self.name,
                    "all ports of this customer are in use"
                );
                return;
            }
            tracing::warn!(
                instance = self.name,
                mark,
                "pool4 has no free transport address"
            );
        }
    }
}

impl Traffic {
    pub(super) fn new(slots: Vec<Arc<Slot>>, store: Store, host: Addresses, log: Log) -> Self {
        Self {
            slots: ShardedLock::new(slots),
            leaving: Mutex::new(Vec::new()),
            store,
            host,
            cluster: Port::default(),
            waker: OnceLock::new(),
            log,
        }
    }

    pub(super) fn set_waker(&self, waker: Waker) {
        // There is one data plane in the life of a program.
        let _ = self.waker.set(waker);
    }

    /// Has packets handled that waited for other gateways.
    pub(super) fn resume(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    pub(super) fn slots(&self) -> ShardedLockReadGuard<'_, Vec<Arc<Slot>>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn find(&self, flavour: Flavour, name: &str) -> Option<Arc<Slot>> {
        let slots = self.slots();
        let slot = slots
            .iter()
            .find(|s| s.flavour == flavour && s.name == name);
        slot.cloned()
    }

    pub(super) fn insert(&self, slot: Arc<Slot>) {
        self.write().push(slot);
    }

    pub(super) fn remove(&self, id: InstanceId) {
        let leaving = |slot: &mut Arc<Slot>| slot.id == id;
        self.leaving().extend(self.write().extract_if(.., leaving));
    }

    fn leaving(&self) -> MutexGuard<'_, Vec<Arc<Slot>>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes on what happened to the tables of a locked instance.
    pub(super) fn publish(&self, slot: &Slot, instance: &mut Instance, origin: Origin) {
        let mut changes = Vec::new();
        instance.drain_changes(&mut changes);
        if changes.is_empty() {
            return;
        }
        let settings = instance.settings();
        // Jool's nodes have clocks of their own, and know what they said themselves.
        self.tell(slot, settings, &changes, origin == Origin::Packets);
        let theirs = matches!(origin, Origin::Cluster | Origin::Transfer);
        if settings.ss_enabled && !theirs {
            self.cluster
                .tell(slot.id, &changes, origin == Origin::Timers);
        }
        if origin == Origin::Transfer {
            let gone =
                |c: &Change| matches!(c, Change::MappingGone { .. } | Change::SessionGone { .. });
            changes.retain(gone);
        }
        self.store.journal(slot.id, changes);
    }

    /// Has a portion of the sessions of one protocol written, from a position on; where to go on, if
    /// there are more.
    pub(super) fn write_down(&self, slot: &Slot, protocol: Protocol, at: usize) -> Option<usize> {
        let mut instance = slot.lock();
        // In order: what became of one of them before is not to be written after it.
        self.publish(slot, &mut instance, Origin::Here);
        let (nat64, end) = (instance.nat64()?, at + PORTION);
        let more = end < nat64.table(protocol).session_positions();
        self.store
            .journal(slot.id, nat64.snapshot_at(protocol, at..end));
        more.then_some(end)
    }

    /// Passes changes on to those who read along, if there are any.
    fn tell(&self, slot: &Slot, settings: &Settings, changes: &[Change], to_peers: bool) {
        let wanted = Wanted {
            bib: settings.logging_bib,
            sessions: settings.logging_session,
        };
        let logged = wanted.bib || wanted.sessions;
        let followed = slot.followers.count() > 0;
        let told = to_peers && settings.ss_enabled && slot.sync.is_open();
        let Some(pool6) = settings.pool6.filter(|_| logged || followed || told) else {
            return;
        };
        let news = Arc::new(News {
            clock: clock(),
            pool6,
            changes: changes.to_vec(),
        });
        if followed {
            slot.followers.tell(&news);
        }
        if told {
            slot.sync.tell(&news);
        }
        if logged {
            self.log.take(&slot.name, wanted, &news);
        }
    }

    /// The last news of an instance that was taken out of service.
    pub(super) fn retire(&self, slot: &Slot) {
        let mut instance = slot.lock();
        self.publish(slot, &mut instance, Origin::Here);
        slot.followers.close();
        slot.sync.close();
        let settings = instance.settings();
        if settings.logging_bib || settings.logging_session {
            let snapshot = instance.nat64().map(Nat64::snapshot).unwrap_or_default();
            self.tell(slot, settings, &ends(&snapshot), false);
        }
    }

    /// Ends all following and all exchange with peers; true when there was any.
    pub(super) fn hang_up(&self) -> bool {
        let slots = self.slots();
        let listens = |slot: &Arc<Slot>| slot.followers.count() > 0 || slot.sync.is_open();
        let any = slots.iter().any(listens);
        for slot in slots.iter() {
            slot.followers.close();
            slot.sync.close();
        }
        any
    }

    /// Writes instances anew whose copy on disk has gaps; true when there were any.
    pub(super) fn mend(&self) -> bool {
        let wanted = self.store.take_resync();
        for slot in self.slots().iter().filter(|s| wanted.contains(&s.id)) {
            self.save(slot);
        }
        !wanted.is_empty()
    }

    /// Writes everything an instance has to disk and waits for it, once there is no more traffic.
    pub(super) fn finish(&self, slot: &Slot) -> Result<(), store::Error> {
        let snapshot = slot.read().sessions().map(Nat64::snapshot);
        match snapshot {
            Some(snapshot) => self.store.save(slot.id, snapshot),
            None => Ok(()),
        }
    }

    /// Writes everything an instance has to disk.
    pub(super) fn save(&self, slot: &Slot) {
        let mut instance = slot.lock();
        self.publish(slot, &mut instance, Origin::Here);
        if let Some(nat64) = instance.sessions() {
            self.store.replace(slot.id, nat64.snapshot());
        }
    }

    fn write(&self) -> ShardedLockWriteGuard<'_, Vec<Arc<Slot>>> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Packets that the kernel routed to the TUN device belong to whoever claims their
    /// destination. An instance of the framework "iptables" gets what passes this host by the
    /// administrator's rules alone, and in this way only what begins here.
    fn routed_here(
        &self,
        now: Tick,
        packets: &[Received<'_>],
        verdicts: &mut [Verdict],
        out: &mut Output,
    ) {
        verdicts.fill(Verdict::Accept);
        let slots = self.slots();
        // Before any instance is locked.
        let passing: Vec<bool> = if slots.iter().any(|s| s.framework == Framework::Iptables) {
            let passes = |packet: &Received<'_>| !self.begins_here(&slots, packet.bytes);
            packets.iter().map(passes).collect()
        } else {
            vec![false; packets.len()]
        };
        for slot in slots.iter() {
            let barred = slot.framework == Framework::Iptables;
            let mut wanted = 0;
            {
                let (instance, host) = (slot.read(), self.host.view());
                let packets = packets.iter().zip(verdicts.iter()).zip(&passing);
                for (index, ((packet, verdict), passing)) in packets.enumerate() {
                    let free = *verdict == Verdict::Accept && !(barred && *passing);
                    if free && instance.concerns(&host, packet.bytes) {
                        wanted |= bit(index);
                    }
                }
            }
            // What is written to the TUN device again would come here again.
            let burst = Burst {
                now,
                packets,
                wanted,
                may_wait: false,
            };
            self.serve(slot, &burst, verdicts, out);
        }
    }

    /// Whether this host is the source of a packet, or a NAT64 instance is: what one of them
    /// translated may be for the pool4 of another.
    fn begins_here(&self, slots: &[Arc<Slot>], packet: &[u8]) -> bool {
        if let Some(source) = source4(packet) {
            let has = |slot: &Arc<Slot>| {
                let instance = slot.read();
                instance
                    .nat64()
                    .is_some_and(|nat64| nat64.pool4().has_address(source))
            };
            return self.host.is_local4(source) || slots.iter().any(has);
        }
        source6(packet).is_some_and(|source| self.host.is_local6(source))
    }

    /// A complaint that the kernel is about to send about a packet that may have been translated.
    /// What is for a NAT64 instance goes to the TUN device by its route; the rest belongs to the
    /// first SIIT or MAP-T instance that knows its addresses.
    fn complaint(
        &self,
        slots: &[Arc<Slot>],
        now: Tick,
        packet: (usize, &Received<'_>),
        out: &mut Output,
    ) -> Verdict {
        let of = |flavour| slots.iter().filter(move |slot| slot.flavour == flavour);
        if of(Flavour::Nat64).any(|slot| slot.read().concerns(&self.host, packet.1.bytes)) {
            return Verdict::Accept;
        }
        of(Flavour::Siit)
            .chain(of(Flavour::Mapt))
            .map(|slot| {
                let mut tally = Tally::begin();
                let mut instance = slot.lock();
                let meta = meta(packet, false, &self.host);
                let verdict = handle(&mut instance, now, &meta, packet.1, &mut tally, out);
                slot.meter.add(lane(), &tally);
                verdict
            })
            .find(|verdict| *verdict != Verdict::Accept)
            .unwrap_or(Verdict::Accept)
    }
}

impl Handler for Traffic {
    fn burst(
        &self,
        now: Tick,
        source: Source,
        packets: &[Received<'_>],
        verdicts: &mut [Verdict],
        out: &mut Output,
    ) {
        let number = match source {
            Source::Slot(number) => number,
            Source::Tun | Source::Tick => return self.routed_here(now, packets, verdicts, out),
        };
        // A slot that was just removed takes its packets along: they must not leak.
        let slots = self.slots();
        let Some(slot) = slots.iter().find(|slot| slot.number == number) else {
            return;
        };
        let shared = |packet: &Received<'_>| packet.from_host && slot.flavour != Flavour::Nat64;
        let mut wanted = 0;
        let each = packets.iter().enumerate().zip(verdicts.iter_mut());
        for (packet, verdict) in each {
            if shared(packet.1) {
                *verdict = self.complaint(&slots, now, packet, out);
            } else {
                wanted |= bit(packet.0);
            }
        }
        let burst = Burst {
            now,
            packets,
            wanted,
            may_wait: true,
        };
        self.serve(slot, &burst, verdicts, out);
    }

    fn tick(&self, now: Tick, out: &mut Output) {
        for slot in std::mem::take(&mut *self.leaving()) {
            slot.lock().close(out);
        }
        for slot in self.slots().iter() {
            let mut instance = slot.lock();
            if instance.resume(now, &self.host, out) {
                self.publish(slot, &mut instance, Origin::Packets);
            }
            drop(instance);
            // In portions, so that a million sessions that end at once do not stop the traffic.
            for _ in 0..EXPIRE_PORTIONS {
                let mut instance = slot.lock();
                let more = instance.expire(now, EXPIRE_PORTION, out);
                self.publish(slot, &mut instance, Origin::Timers);
                if !more {
                    break;
                }
            }
        }
    }

    fn sent(&self, source: Source, report: &SendReport) {
        let slots = self.slots();
        let slot = match source {
            Source::Slot(number) => slots.iter().find(|slot| slot.number == number),
            // Whose it was is not known any more.
            Source::Tun | Source::Tick => slots.first(),
        };
        let Some(slot) = slot else {
            return;
        };
        if *report == SendReport::default() {
            return;
        }
        let mut counters = Counters::default();
        for (counter, count) in [
            (Counter::DstOutput, report.failed_packets),
            (Counter::Icmp6errSuccess, report.icmp6_sent),
            (Counter::Icmp6errFailure, report.icmp6_failed),
            (Counter::Icmp4errSuccess, report.icmp4_sent),
            (Counter::Icmp4errFailure, report.icmp4_failed),
        ] {
            counters.add(counter, count);
        }
        slot.read().count(lane(), &counters);
    }
}

/// The end of everything that a snapshot tells of: sessions first, then their mappings.
fn ends(snapshot: &[Change]) -> Vec<Change> {
    let sessions = snapshot.iter().filter_map(|change| match change {
        Change::Session { session, v6, .. } => Some(Change::SessionGone {
            protocol: session.protocol,
            v6: *v6,
            v4: session.v4,
            remote: session.remote,
        }),
        Change::Mapping(_)
        | Change::MappingFixed(_)
        | Change::MappingGone { .. }
        | Change::SessionGone { .. } => None,
    });
    let mappings = snapshot.iter().filter_map(|change| match change {
        Change::Mapping(m) | Change::MappingFixed(m) => Some(Change::MappingGone {
            protocol: m.protocol,
            v6: m.v6,
            v4: m.v4,
        }),
        Change::MappingGone { .. } | Change::Session { .. } | Change::SessionGone { .. } => None,
    });
    sessions.chain(mappings).collect()
}

fn source4(packet: &[u8]) -> Option<Ipv4Addr> {
    let field = packet.get(12..)?.first_chunk::<4>()?;
    (packet.first()? >> 4 == 4).then(|| Ipv4Addr::from(*field))
}

fn source6(packet: &[u8]) -> Option<Ipv6Addr> {
    let field = packet.get(8..)?.first_chunk::<16>()?;
    (packet.first()? >> 4 == 6).then(|| Ipv6Addr::from(*field))
}

/// Positions whose sessions are written while packets wait.
const PORTION: usize = 1_024;
const EXPIRE_PORTION: usize = 1_000;
const EXPIRE_PORTIONS: usize = 50;
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;

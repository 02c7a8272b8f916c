// SPDX-License-Identifier: GPL-2.0-or-later
//! Numbers for Prometheus, gathered from all rooms.
//!
//! No instance is locked for longer than a command takes that displays statistics: what there is
//! much of is counted where it changes.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::gateway::Gateway;
use super::meter::BOUNDS;
use super::traffic::Slot;
use crate::base::Protocol;
use crate::base::counters::{Counter, Counters};
use crate::metrics::{Address, BindError, Buckets, Endpoint, Metric, Page, Source, reason};
use crate::model::Flavour;
use crate::model::cluster::{ClusterHealth, Reach};
use crate::model::sync::SyncHealth;
use crate::nat64::table::Usage;
use crate::nat64::{Nat64, Refused};
use crate::ruleset;

/// Where the numbers can be asked for.
pub(super) struct Endpoints(Vec<(Address, Option<Endpoint>)>);

impl Endpoints {
    /// Listens everywhere, or if not, `patient` is content to try again later: packets matter more.
    ///
    /// # Errors
    /// [`BindError`].
    pub(super) fn open(addresses: &[Address], patient: bool) -> Result<Self, BindError> {
        let endpoints = addresses.iter().map(|address| {
            let endpoint = match Endpoint::bind(address) {
                Ok(endpoint) => Some(endpoint),
                Err(error) if patient => {
                    tracing::error!("{error}; trying again");
                    None
                }
                Err(error) => return Err(error),
            };
            Ok((address.clone(), endpoint))
        });
        Ok(Self(endpoints.collect::<Result<_, _>>()?))
    }

    /// Answers until the tasks are dropped.
    pub(super) fn serve(self, source: &Arc<dyn Source>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for (address, endpoint) in self.0 {
            tasks.spawn(serve(address, endpoint, Arc::clone(source)));
        }
        tasks
    }
}

async fn serve(address: Address, endpoint: Option<Endpoint>, source: Arc<dyn Source>) {
    let mut endpoint = endpoint;
    let endpoint = loop {
        match endpoint.take() {
            Some(endpoint) => break endpoint,
            None => {
                tokio::time::sleep(BIND_AGAIN).await;
                endpoint = Endpoint::bind(&address).ok();
            }
        }
    };
    tracing::info!(%address, "metrics are served");
    if let Err(error) = endpoint.serve(source).await {
        tracing::error!(%error, %address, "metrics are not served any more");
    }
}

impl Source for Gateway {
    fn text(&self) -> String {
        let mut page = Page::new();
        self.program(&mut page);
        let slots = self.traffic.slots().clone();
        for slot in &slots {
            instance(slot, &mut page);
        }
        self.queues(&slots, &mut page);
        workers(&mut page);
        let store = &self.traffic.store;
        page.put(Metric::JournalPending, &[], store.backlog());
        page.put(Metric::JournalLag, &[], seconds(store.lag()));
        page.put(Metric::JournalLost, &[], store.lost());
        if let Some(health) = self.cluster.health() {
            cluster(&health, &mut page);
        }
        page.text()
    }
}

impl Gateway {
    fn program(&self, page: &mut Page) {
        page.put(Metric::BuildInfo, &[env!("CARGO_PKG_VERSION")], 1);
        page.put(Metric::StartTime, &[], seconds(self.began));
        if let Some(bytes) = resident_memory() {
            page.put(Metric::ResidentMemory, &[], bytes);
        }
        let ready =
            self.dataplane.failed().is_none() && ruleset::present(self.mode).unwrap_or(false);
        page.put(Metric::Ready, &[], u8::from(ready));
        page.put(Metric::Takeovers, &[], self.takeover.count);
    }

    fn queues(&self, slots: &[Arc<Slot>], page: &mut Page) {
        let counters = match self.dataplane.counters() {
            Ok(counters) => counters,
            Err(error) => {
                tracing::debug!(%error, "no metrics of queues");
                return;
            }
        };
        for queue in counters {
            let Some(slot) = slots.iter().find(|slot| slot.number == queue.slot) else {
                continue;
            };
            let number = queue.queue.to_string();
            let [name, flavour] = labels(slot);
            let all = [name, flavour, number.as_str()];
            page.put(Metric::QueuePackets, &all, queue.waiting);
            for (reason, count) in [
                ("queue_full", queue.kernel_dropped),
                ("socket_full", queue.user_dropped),
            ] {
                let all = [name, flavour, number.as_str(), reason];
                page.put(Metric::QueueDropped, &all, count);
            }
            page.put(Metric::QueueOverruns, &all, queue.overruns);
            page.put(Metric::QueueMalformed, &all, queue.malformed);
        }
    }
}

fn labels(slot: &Slot) -> [&str; 2] {
    [slot.name.as_str(), slot.flavour.name()]
}

/// What an instance has in its tables.
struct Tables {
    refused: Refused,
    /// Mappings, sessions and use of pool4 by protocol.
    protocols: [(usize, usize, Vec<Usage>); 3],
}

impl Tables {
    fn of(nat64: &Nat64) -> Self {
        Self {
            refused: nat64.refused(),
            protocols: Protocol::ALL.map(|protocol| {
                let table = nat64.table(protocol);
                let usage = table.usage().to_vec();
                (table.bib_count(), table.session_count(), usage)
            }),
        }
    }
}

fn instance(slot: &Slot, page: &mut Page) {
    let [name, flavour] = labels(slot);
    let (counters, tables, limit, enabled) = {
        let instance = slot.read();
        let settings = instance.settings();
        (
            instance.counters(),
            instance.sessions().map(Tables::of),
            settings.maximum_sessions,
            settings.ss_enabled,
        )
    };
    let reading = slot.meter.read();
    for ([direction, protocol, outcome], count) in reading.counts() {
        let labels = [name, flavour, direction, protocol, outcome];
        page.put(Metric::Packets, &labels, count.packets);
        page.put(Metric::Bytes, &labels, count.bytes);
    }
    let buckets = Buckets {
        bounds: &BOUNDS,
        counts: &reading.buckets,
        sum: reading.seconds,
    };
    page.histogram(Metric::TranslationDuration, &[name, flavour], &buckets);
    reasons(slot, &counters, page);
    if let Some(tables) = tables {
        for (protocol, (mappings, sessions, usage)) in PROTOCOLS.iter().zip(&tables.protocols) {
            let labels = [name, flavour, protocol];
            page.put(Metric::BibEntries, &labels, mappings);
            page.put(Metric::Sessions, &labels, sessions);
            for range in usage {
                let addresses = span(range.first, range.last);
                let ports = span(range.ports.min, range.ports.max);
                let labels = [name, flavour, protocol, addresses.as_str(), ports.as_str()];
                page.put(Metric::Pool4Ports, &labels, range.total);
                page.put(Metric::Pool4PortsUsed, &labels, range.used);
            }
        }
        page.put(Metric::SessionsLimit, &[name, flavour], limit);
        for (limit, count) in [
            ("pool4", tables.refused.pool4),
            ("maximum-sessions", tables.refused.sessions),
            ("maximum-sessions-per-prefix", tables.refused.prefix),
        ] {
            page.put(Metric::RefusedFlows, &[name, flavour, limit], count);
        }
    }
    if let Some(health) = slot.sync.health(enabled) {
        joold(slot, &health, page);
    }
}

fn reasons(slot: &Slot, counters: &Counters, page: &mut Page) {
    let [name, flavour] = labels(slot);
    for (counter, count) in counters.iter() {
        if let Some(reason) = reason(counter, slot.flavour) {
            page.put(Metric::Untranslated, &[name, flavour, &reason], count);
        }
    }
    for (family, result, counter) in [
        ("ipv6", "sent", Counter::Icmp6errSuccess),
        ("ipv6", "failed", Counter::Icmp6errFailure),
        ("ipv4", "sent", Counter::Icmp4errSuccess),
        ("ipv4", "failed", Counter::Icmp4errFailure),
    ] {
        let labels = [name, flavour, family, result];
        page.put(Metric::IcmpErrors, &labels, counters.get(counter));
    }
}

fn joold(slot: &Slot, health: &SyncHealth, page: &mut Page) {
    let all = labels(slot);
    let [name, flavour] = all;
    let t = &health.traffic;
    page.put(Metric::JooldEnabled, &all, u8::from(health.enabled));
    page.put(Metric::JooldAdvertising, &all, u8::from(health.advertising));
    for (metric, received, sent) in [
        (Metric::JooldDatagrams, t.datagrams_in, t.datagrams_out),
        (Metric::JooldBytes, t.bytes_in, t.bytes_out),
        (Metric::JooldSessions, t.sessions_in, t.sessions_out),
        (Metric::JooldLost, t.lost_in, t.lost_out),
    ] {
        page.put(metric, &[name, flavour, RECEIVED], received);
        page.put(metric, &[name, flavour, SENT], sent);
    }
    for (result, count) in [
        ("merged", t.merged),
        ("unchanged", t.unchanged),
        ("collision", t.collisions),
        ("refused", t.refused),
    ] {
        page.put(Metric::JooldHandled, &[name, flavour, result], count);
    }
    page.put(Metric::JooldDuplicates, &all, t.duplicates);
    page.put(Metric::JooldMalformed, &all, t.malformed);
    page.put(Metric::JooldUntold, &all, t.untold);
}

fn cluster(health: &ClusterHealth, page: &mut Page) {
    let stats = &health.stats;
    page.put(Metric::SyncReady, &[], u8::from(health.ready));
    page.put(Metric::SyncPeers, &[], health.peers.len());
    let alive = health.peers.iter().map(|peer| (peer.node, 1));
    for (node, up) in alive.chain(health.lost.iter().map(|node| (*node, 0))) {
        page.put(Metric::SyncPeerUp, &[&node.to_string()], up);
    }
    match &health.reach {
        Reach::Group { .. } => {}
        Reach::Peers { peers, .. } => page.put(Metric::SyncConfiguredPeers, &[], peers.len()),
    }
    let broken = u8::from(health.error.is_some());
    page.put(Metric::SyncDuplicateNode, &[], u8::from(health.duplicate));
    page.put(Metric::SyncNetworkDown, &[], broken);
    page.put(Metric::SyncShare, &[], f64::from(health.share) / 64.0);
    page.put(Metric::SyncPending, &[], health.backlog);
    page.put(Metric::SyncLag, &[], seconds(stats.lag));
    for (metric, received, sent) in [
        (
            Metric::SyncDatagrams,
            stats.received_datagrams,
            stats.sent_datagrams,
        ),
        (Metric::SyncBytes, stats.received_bytes, stats.sent_bytes),
        (
            Metric::SyncRecords,
            stats.received_records,
            stats.sent_records,
        ),
    ] {
        page.put(metric, &[RECEIVED], received);
        page.put(metric, &[SENT], sent);
    }
    for (result, count) in [
        ("applied", stats.applied),
        ("stale", stats.stale),
        ("refused", stats.refused),
        ("conflict", stats.conflicts),
        ("mismatched", stats.mismatched),
    ] {
        page.put(Metric::SyncRecordsHandled, &[result], count);
    }
    for (reason, count) in [
        ("malformed", stats.malformed),
        ("auth_failure", stats.auth_failures),
        ("replayed", stats.replayed),
        ("unproven", stats.unproven),
    ] {
        page.put(Metric::SyncRejected, &[reason], count);
    }
    for (metric, count) in [
        (Metric::SyncDuplicates, stats.duplicates),
        (Metric::SyncGaps, stats.gaps),
        (Metric::SyncRepairs, stats.repairs),
        (Metric::SyncResent, stats.resent),
        (Metric::SyncRounds, stats.rounds),
        (Metric::SyncDrift, stats.drift),
        (Metric::SyncOverruns, stats.overruns),
        (Metric::SyncUnsent, health.unsent),
        (Metric::SyncRescans, health.rescans),
    ] {
        page.put(metric, &[], count);
    }
    for replica in &health.instances {
        // No other flavour has sessions to share.
        let labels = [replica.name.as_str(), Flavour::Nat64.name()];
        page.put(Metric::SyncInstanceReady, &labels, u8::from(replica.ready));
        page.put(Metric::SyncInstanceSessions, &labels, replica.sessions);
        let mismatches = replica.mismatches.len();
        page.put(Metric::SyncMismatchedPeers, &labels, mismatches);
    }
}

/// Processor time of the packet workers, as the scheduler counts it.
fn workers(page: &mut Page) {
    let Ok(threads) = fs::read_dir("/proc/self/task") else {
        return;
    };
    let mut workers: Vec<(u16, f64)> = threads
        .filter_map(|thread| {
            let dir = thread.ok()?.path();
            let name = fs::read_to_string(dir.join("comm")).ok()?;
            let number = name.trim_end().strip_prefix("tylo-worker-")?;
            let times = fs::read_to_string(dir.join("schedstat")).ok()?;
            let nanoseconds: u64 = times.split(' ').next()?.parse().ok()?;
            Some((number.parse().ok()?, nanoseconds as f64 / 1e9))
        })
        .collect();
    workers.sort_by_key(|(number, _)| *number);
    for (number, seconds) in workers {
        page.put(Metric::WorkerCpu, &[&number.to_string()], seconds);
    }
}

fn resident_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1e3
}

/// `a` or `a-b`.
fn span<T: ToString + PartialEq>(first: T, last: T) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{}-{}", first.to_string(), last.to_string())
    }
}

/// How soon an address that was in use is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(2);

/// As in [`Protocol::ALL`].
const PROTOCOLS: [&str; 3] = ["tcp", "udp", "icmp"];

const RECEIVED: &str = "received";
const SENT: &str = "sent";

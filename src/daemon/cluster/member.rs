// SPDX-License-Identifier: GPL-2.0-or-later
//! The thread that owns the node.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{io, thread, vec};

use rustix::rand::{GetRandomFlags, getrandom};

use super::Report;
use super::digest::digest;
use super::held::{Held, Seat, restrict};
use super::view::{Orders, View, blank};
use super::wire::Wire;
use crate::base::{Protocol, Tick};
use crate::daemon::clock;
use crate::daemon::outlet::{Inlet, Next};
use crate::daemon::portions::politely;
use crate::daemon::traffic::{Origin, Slot, Traffic};
use crate::dataplane::monotonic;
use crate::model::Flavour;
use crate::model::cluster::{ClusterConfig, ClusterHealth, PeerHealth, Reach, ReplicaHealth};
use crate::nat64::Change;
use crate::nat64::question::Question;
use crate::replica::peer::{Config, Event, Finding, Handle, Key, Letter, Node, Share};
use crate::store::InstanceId;

pub(super) struct Member {
    traffic: Arc<Traffic>,
    node: Node,
    reach: Reach,
    wire: Option<Wire>,
    ear: Ear,
    seats: Vec<Seat>,
    health: ClusterHealth,
    view: Arc<View>,
    orders: Arc<Orders>,
    looked: Option<Instant>,
    /// What the others were asked.
    asked: BTreeMap<u32, (Handle, Question)>,
    /// And what came of it.
    answers: Vec<(u32, Finding)>,
    /// Packets need not wait any more.
    resumes: bool,
    /// Instances that could not be added, so that it is said once.
    refused: Vec<InstanceId>,
    /// What came in a transfer and is to be written, and how far that is with the first of it.
    unwritten: VecDeque<(Handle, Protocol)>,
    written: usize,
}

impl Member {
    /// # Errors
    /// There are no random numbers, without which nothing is secret.
    pub(super) fn new(
        traffic: Arc<Traffic>,
        config: &ClusterConfig,
        wire: Option<Wire>,
        inlet: Inlet<Report>,
        view: Arc<View>,
        orders: Arc<Orders>,
    ) -> io::Result<Self> {
        let epoch = u64::from_ne_bytes(random()?);
        let mut node = Config::new(config.node, keys(config), epoch, random()?, clock().wall);
        node.share = config.share;
        Ok(Self {
            traffic,
            node: Node::new(monotonic(), node),
            reach: config.reach.clone(),
            wire,
            ear: Ear {
                inlet,
                report: None,
                lost: 0,
            },
            orders,
            seats: Vec::new(),
            health: blank(config),
            view,
            looked: None,
            asked: BTreeMap::new(),
            answers: Vec::new(),
            resumes: false,
            refused: Vec::new(),
            unwritten: VecDeque::new(),
            written: 0,
        })
    }

    pub(super) fn run(mut self, stop: &AtomicBool) {
        let mut letters = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            if self.looked.is_none_or(|at| at.elapsed() >= LOOK_AROUND) {
                self.look_around();
                self.looked = Some(Instant::now());
            }
            self.listen(&mut letters);
            while !self.step(&mut letters) {
                self.send();
            }
            // Before the others hear that they may take what is given up here.
            self.divide();
            self.send();
            self.log();
            self.answer();
            self.write_down();
        }
        // The others hear what happened up to now.
        while !self.step(&mut letters) {}
        let mut held = Held::lock(&self.traffic, &self.seats);
        self.node.flush_all(monotonic(), &mut held);
        drop(held);
        for seat in &self.seats {
            seat.slot.lock().set_asking(false);
        }
        self.traffic.resume();
        self.node.leave();
        self.send();
        self.log();
        for seat in self.seats.iter().filter(|seat| self.owes(seat)) {
            self.traffic.save(&seat.slot);
        }
    }

    /// Whether sessions of an instance came in a transfer that are not written yet.
    fn owes(&self, seat: &Seat) -> bool {
        let unwritten = self.unwritten.iter().any(|(h, ..)| *h == seat.handle);
        let came = self.node.stats().applied > 0;
        unwritten || came && !self.node.is_instance_ready(seat.handle)
    }

    /// Has what came in a transfer written, some at a time: during the transfer, the thread that writes
    /// would take the time that the transfer needs.
    fn write_down(&mut self) {
        let Some((handle, protocol)) = self.unwritten.front() else {
            return;
        };
        let seat = self.seats.iter().find(|seat| seat.handle == *handle);
        let next = match seat {
            Some(_) if self.traffic.store.backlog() > BACKLOG => return,
            Some(seat) => politely(|| self.traffic.write_down(&seat.slot, *protocol, self.written)),
            None => None,
        };
        if next.is_none() {
            self.unwritten.pop_front();
        }
        self.written = next.unwrap_or(0);
    }

    /// Passes on what came of questions.
    fn answer(&mut self) {
        let now = monotonic();
        for (query, finding) in self.answers.drain(..) {
            let Some((handle, question)) = self.asked.remove(&query) else {
                continue;
            };
            if let Some(seat) = self.seats.iter().find(|seat| seat.handle == handle) {
                let vain = finding == Finding::Nobody;
                seat.slot.lock().answered(now, &question, vain);
                self.resumes = true;
            }
        }
        if std::mem::take(&mut self.resumes) {
            self.traffic.resume();
        }
    }

    /// Gives new clients what is this node's share of pool4, and has unknown flows asked about
    /// while there is somebody to ask.
    fn divide(&mut self) {
        for seat in &mut self.seats {
            let asks = self.node.can_ask(seat.handle);
            if seat.asks != asks {
                seat.asks = asks;
                seat.slot.lock().set_asking(asks);
            }
        }
        let share = self.node.share();
        for seat in self.seats.iter_mut().filter(|seat| seat.share != share) {
            seat.share = share;
            restrict(&seat.slot, share);
        }
    }

    /// Becomes what a command wants it to be.
    fn obey(&mut self) {
        let Some((config, answer)) = self.orders.take() else {
            return;
        };
        let mut result = Ok(());
        if config.reach != self.reach {
            // The port may be the same.
            self.wire = None;
            match Wire::open(&config.reach) {
                Ok(wire) => {
                    self.wire = Some(wire);
                    self.reach = config.reach.clone();
                    self.health.error = None;
                }
                // The one before is opened again at once, below.
                Err(error) => result = Err(error),
            }
        }
        if result.is_ok() {
            self.node.set_keys(&keys(&config));
            let blank = blank(&config);
            self.health.keys = blank.keys;
            self.health.reach = blank.reach;
        }
        // Whoever asked may have gone.
        let _ = answer.try_send(result);
    }

    /// Waits until there is something to do, but not for long: changes of the tables come without
    /// a sound, so that nobody has to wake this thread.
    fn listen(&mut self, letters: &mut Vec<Letter>) {
        let due = self.node.next_deadline().since(monotonic());
        let patience = Duration::from_millis(due).min(PATIENCE);
        let Some(wire) = &self.wire else {
            thread::sleep(patience);
            return;
        };
        wire.wait(patience);
        let (mut buffer, now) = ([0; DATAGRAM], monotonic());
        for _ in 0..ENOUGH {
            if letters.len() >= BURST {
                break;
            }
            match wire.take(&mut buffer) {
                Ok(Some((length, from))) => {
                    let bytes = buffer.get_mut(..length).unwrap_or_default();
                    letters.extend(self.node.open(now, from, bytes));
                }
                Ok(None) => break,
                // Also what became of something that was sent; the socket itself is fine.
                Err(_) => break,
            }
        }
    }

    /// Has the node work, for a moment; true once it knows everything that happened.
    fn step(&mut self, letters: &mut Vec<Letter>) -> bool {
        // Before it is ready nobody should send it packets, and the sooner it is the better.
        if self.node.is_ready() {
            politely(|| self.work(letters))
        } else {
            self.work(letters)
        }
    }

    fn work(&mut self, letters: &mut Vec<Letter>) -> bool {
        let mut held = Held::lock(&self.traffic, &self.seats);
        let now = monotonic();
        // While the tables are locked, what happened to them is here or was lost.
        let done = self.ear.hear(&mut self.node, now, &mut held);
        if done {
            for letter in letters.drain(..) {
                self.node.on_letter(now, &letter, &mut held);
            }
            if self.node.next_deadline() <= now {
                self.node.on_tick(now, &mut held);
            }
        }
        for (handle, question) in held.questions() {
            let query = self.node.query(now, handle, question);
            self.asked.insert(query, (handle, question));
        }
        self.resumes |= held.reconsider();
        let ready = |handle| self.node.is_instance_ready(handle);
        held.publish(&self.traffic, |handle| match ready(handle) {
            true => Origin::Cluster,
            false => Origin::Transfer,
        });
        done
    }

    fn send(&mut self) {
        while let Some(transmit) = self.node.poll_transmit() {
            let sent = self.wire.as_ref().is_some_and(|wire| wire.send(&transmit));
            self.health.unsent += u64::from(!sent);
        }
    }

    /// Looks who takes part, how the network is, and says how it goes.
    fn look_around(&mut self) {
        self.obey();
        if self.wire.as_ref().is_none_or(|wire| !wire.is_whole()) {
            self.wire = None;
            match Wire::open(&self.reach) {
                Ok(wire) => {
                    self.wire = Some(wire);
                    if self.health.error.take().is_some() {
                        tracing::info!("other gateways can be reached again");
                    }
                }
                Err(error) => {
                    let error = error.to_string();
                    if self.health.error.as_ref() != Some(&error) {
                        tracing::error!(error, "other gateways cannot be reached");
                    }
                    self.health.error = Some(error);
                }
            }
        }
        self.take_seats();
        let peers = self.node.peers();
        let peers = peers.map(|(node, address)| PeerHealth { node, address });
        self.health.peers = peers.collect();
        self.health.lost = self.node.lost().collect();
        let instances = self.seats.iter().map(|seat| ReplicaHealth {
            name: seat.slot.name.clone(),
            ready: self.node.is_instance_ready(seat.handle),
            sessions: self.node.sessions(seat.handle) as u64,
            mismatches: self.node.mismatches(seat.handle),
        });
        self.health.instances = instances.collect();
        self.health.ready = self.node.is_ready();
        self.health.share = self.node.share().slices();
        self.health.backlog = self.node.backlog() as u64;
        self.health.stats = self.node.stats();
        self.health.rescans = self.ear.lost;
        let tallies = self.seats.iter().map(|seat| seat.slot.lock().waiting());
        let tallies: Vec<_> = tallies.collect();
        self.health.waiting = tallies.iter().map(|tally| tally.packets as u64).sum();
        self.health.unasked = tallies.iter().map(|tally| tally.refused).sum();
        self.health.late = tallies.iter().map(|tally| tally.late).sum();
        *self.view.lock() = Some(self.health.clone());
    }

    /// Instances come and go, are switched on and off, and change their settings.
    fn take_seats(&mut self) {
        let slots: Vec<Arc<Slot>> = self.traffic.slots().clone();
        let mut wanted = Vec::new();
        for slot in slots.into_iter().filter(|s| s.flavour == Flavour::Nat64) {
            let found = {
                let instance = slot.read();
                let settings = instance.settings();
                let nat64 = instance.nat64().filter(|_| settings.ss_enabled);
                nat64.map(|nat64| (settings.clone(), nat64.pool4().clone()))
            };
            if let Some((settings, pool4)) = found {
                wanted.push((slot, digest(&settings, &pool4)));
            }
        }
        let stays = |seat: &mut Seat| wanted.iter().any(|(slot, _)| slot.id == seat.slot.id);
        let mut seats = std::mem::take(&mut self.seats);
        for seat in seats.extract_if(.., |seat| !stays(seat)) {
            restrict(&seat.slot, Share::WHOLE);
            seat.slot.lock().set_asking(false);
            if self.owes(&seat) {
                self.traffic.save(&seat.slot);
            }
            self.node.remove_instance(seat.handle);
        }
        self.seats = seats;
        let (node, seats) = (&mut self.node, &self.seats);
        self.asked
            .retain(|_, (handle, _)| seats.iter().any(|seat| seat.handle == *handle));
        self.refused
            .retain(|id| wanted.iter().any(|(slot, _)| slot.id == *id));
        let now = monotonic();
        for (slot, digest) in wanted {
            let mut seats = self.seats.iter_mut();
            if let Some(seat) = seats.find(|seat| seat.slot.id == slot.id) {
                if seat.digest != digest {
                    seat.digest = digest;
                    node.set_instance_config(now, seat.handle, digest);
                }
                continue;
            }
            match node.add_instance(now, slot.flavour, &slot.name, digest) {
                Ok(handle) => self.seats.push(Seat {
                    handle,
                    slot,
                    digest,
                    asks: false,
                    // It may have been told another one before.
                    share: Share::NONE,
                }),
                Err(error) if !self.refused.contains(&slot.id) => {
                    self.refused.push(slot.id);
                    tracing::error!("sessions are not shared: {error}");
                }
                Err(_) => {}
            }
        }
    }

    fn log(&mut self) {
        let mut any = false;
        while let Some(event) = self.node.poll_event() {
            any |= !matches!(event, Event::Answered { .. });
            match event {
                Event::PeerUp(node) => tracing::info!(node, "another gateway is there"),
                Event::PeerDown(node) => tracing::warn!(node, "another gateway is gone"),
                Event::DuplicateNode => {
                    if !self.health.duplicate {
                        tracing::error!(
                            "another gateway has this node's number; give one of them another number with 'tylo sync set'"
                        );
                    }
                    self.health.duplicate = true;
                }
                Event::Mismatch { peer, name, .. } => tracing::error!(
                    node = peer,
                    instance = name,
                    "pool6, pool4 or global settings differ from those of another gateway: sessions are not shared with it until they are equal; 'tylo export' there and 'tylo diff' here show how"
                ),
                Event::Match { peer, name, .. } => tracing::info!(
                    node = peer,
                    instance = name,
                    "the configuration is that of the other gateway again"
                ),
                Event::Ready { instance, alone } => {
                    if self.node.stats().applied > 0 {
                        let all = Protocol::ALL.map(|protocol| (instance, protocol));
                        self.unwritten.extend(all);
                    }
                    let seat = self.seats.iter().find(|seat| seat.handle == instance);
                    let instance = seat.map(|seat| seat.slot.name.as_str());
                    tracing::info!(instance, alone, "has all sessions of the cluster");
                }
                Event::Compared {
                    peer,
                    took,
                    buckets,
                    mended,
                    ..
                } => {
                    tracing::debug!(node = peer, took, buckets, mended, "tables were compared");
                    if mended > 0 {
                        tracing::warn!(
                            node = peer,
                            sessions = mended,
                            "tables had come to differ, and are equal again"
                        );
                    }
                }
                Event::Share(share) => {
                    let of_64 = share.slices();
                    tracing::info!(of_64, "another share of pool4 is for new clients here");
                }
                Event::Answered { query, finding } => self.answers.push((query, finding)),
            }
        }
        if any {
            // Whoever waits for readiness is told at once.
            self.looked = None;
        }
    }
}

/// What the node is told.
struct Ear {
    inlet: Inlet<Report>,
    /// What was begun of a report.
    report: Option<(InstanceId, bool, vec::IntoIter<Change>)>,
    /// How often changes were lost.
    lost: u64,
}

impl Ear {
    /// Tells the node of what happened, some of it at a time; true once nothing is left.
    fn hear(&mut self, node: &mut Node, now: Tick, held: &mut Held<'_>) -> bool {
        let mut left = PORTION;
        loop {
            if let Some((id, expired, changes)) = &mut self.report {
                let handle = held.handle(*id);
                for change in changes.by_ref().take(left) {
                    left -= 1;
                    if let Some(handle) = handle {
                        node.on_change(now, handle, &change, *expired, held);
                    }
                }
                if left == 0 {
                    return false;
                }
                self.report = None;
            }
            match self.inlet.next(Duration::ZERO) {
                Next::News(report) => {
                    let changes = report.changes.into_iter();
                    self.report = Some((report.instance, report.expired, changes));
                }
                Next::Lost(_) => {
                    self.lost += 1;
                    held.handles().for_each(|handle| node.rescan(handle));
                }
                Next::Silence | Next::Closed => return true,
            }
        }
    }
}

fn keys(config: &ClusterConfig) -> Vec<Key> {
    let keys = config.keys.iter().map(|key| Key {
        id: key.number,
        secret: key.bytes,
    });
    keys.collect()
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    // So few bytes come at once or not at all.
    let got = getrandom(&mut bytes, GetRandomFlags::empty())?;
    if got < N {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

/// How often it is looked who takes part.
const LOOK_AROUND: Duration = Duration::from_millis(200);

/// How long a change of a table may go unnoticed.
const PATIENCE: Duration = Duration::from_millis(5);

/// Bytes of the largest datagram that is sent, and more.
const DATAGRAM: usize = 2_048;

/// Datagrams that are opened before there is a look at the tables.
const ENOUGH: usize = 256;

/// Letters that are worked on while packets wait.
const BURST: usize = 32;

/// Changes that wait for the disk, at which no more of what came in a transfer is added to them.
const BACKLOG: u64 = 10_000;

/// Changes that are worked on while packets wait.
const PORTION: usize = 1_024;

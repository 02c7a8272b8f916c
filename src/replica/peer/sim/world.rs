// SPDX-License-Identifier: GPL-2.0-or-later
//! The simulated cluster: sites with a node and a table each, and the network between them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::{Dice, addr_of};
use crate::base::host::Nameless;
use crate::base::{Protocol, Tick, Transport4, Transport6};
use crate::model::settings::Settings;
use crate::model::{Flavour, Pool4Entry, PortRange};
use crate::nat64::pool4::Pool4;
use crate::nat64::{Change, Nat64, Outbound};
use crate::replica::peer::{Config, Destination, Event, Handle, Key, Node, Place, Tables};
use crate::wire::TcpFlags;

pub(super) struct World {
    pub(super) now: Tick,
    pub(super) dice: Dice,
    pub(super) sites: Vec<Site>,
    flying: BinaryHeap<Reverse<(u64, u64, usize, usize)>>,
    datagrams: BTreeMap<u64, Vec<u8>>,
    number: u64,
    /// Percent of datagrams that are lost, and that arrive twice.
    pub(super) loss: u64,
    pub(super) twice: u64,
    /// The longest a datagram takes, in milliseconds; beyond 1 they overtake each other.
    pub(super) delay: u64,
    /// Which side of a partition a site is on.
    pub(super) sides: Vec<u8>,
    pub(super) settings: Settings,
    /// A few datagrams of the past.
    pub(super) recorded: Vec<Vec<u8>>,
    pub(super) tune: fn(&mut Config),
    pub(super) steps: u64,
}

/// Where a node runs.
pub(super) struct Site {
    pub(super) node: Option<Node>,
    pub(super) nat64: Nat64,
    pub(super) key: u8,
    pub(super) config: u64,
    pub(super) disk: Vec<Change>,
    pub(super) events: Vec<Event>,
    /// The wall clock may be wrong.
    skew: u64,
}

/// The tables of a site.
pub(super) struct Here<'a>(pub(super) &'a mut Nat64, pub(super) &'a Settings);

impl Tables for Here<'_> {
    fn table(&mut self, _: Handle) -> Option<Place<'_>> {
        Some((self.0, self.1))
    }
}

pub(super) const HANDLE: Handle = Handle(0);

impl World {
    pub(super) fn new(seed: u64, sites: usize, tune: fn(&mut Config)) -> Self {
        let mut dice = Dice(seed);
        let settings = Settings {
            udp_timeout: 20_000,
            tcp_est_timeout: 300_000,
            ..Settings::default()
        };
        let site = |i: usize| Site {
            node: None,
            nat64: table(i as u8),
            key: 1,
            config: 1,
            disk: Vec::new(),
            events: Vec::new(),
            skew: dice.below(3_600_000),
        };
        Self {
            now: Tick(1_000_000),
            sites: (0..sites).map(site).collect(),
            dice,
            flying: BinaryHeap::new(),
            datagrams: BTreeMap::new(),
            number: 0,
            loss: 0,
            twice: 0,
            delay: 1,
            sides: vec![0; sites],
            settings,
            recorded: Vec::new(),
            tune,
            steps: 0,
        }
    }

    /// Starts the node of a site, with the table that it has.
    pub(super) fn start(&mut self, i: usize) {
        let site = &mut self.sites[i];
        let key = Key {
            id: 1,
            secret: [site.key; 32],
        };
        let wall = 1_800_000_000_000 + self.now.0 + site.skew;
        let epoch = self.dice.roll();
        let mut config = Config::new(i as u16 + 1, vec![key], epoch, [i as u8; 16], wall);
        config.drift = 2_000;
        config.hold = 3_000;
        (self.tune)(&mut config);
        let mut node = Node::new(self.now, config);
        let handle = node.add_instance(self.now, Flavour::Nat64, "default", site.config);
        assert_eq!(handle, Ok(HANDLE));
        site.node = Some(node);
    }

    /// Stops a node as a loss of power does. What it had is on disk up to now, or nothing is.
    pub(super) fn crash(&mut self, i: usize, keep: bool) {
        let site = &mut self.sites[i];
        site.node = None;
        if keep {
            site.disk = site.nat64.snapshot();
        }
        site.nat64 = table(i as u8);
        site.events.clear();
    }

    /// Starts a node with what is on its disk.
    pub(super) fn restart(&mut self, i: usize) {
        let disk = self.sites[i].disk.clone();
        let (now, settings) = (self.now, self.settings.clone());
        let nat64 = &mut self.sites[i].nat64;
        for change in disk {
            match change {
                Change::Mapping(mapping) | Change::MappingFixed(mapping) => {
                    nat64.import_mapping(mapping);
                }
                Change::Session { session, .. } => {
                    nat64.import_session(now, &settings, session);
                }
                Change::MappingGone { .. } | Change::SessionGone { .. } => {}
            }
        }
        nat64.drop_idle_mappings();
        nat64.drain_changes(&mut Vec::new());
        self.start(i);
    }

    pub(super) fn is_ready(&self, i: usize) -> bool {
        self.sites[i].node.as_ref().is_some_and(Node::is_ready)
    }

    /// A packet of a client arrives at a site; the transport address that it was given.
    pub(super) fn traffic(&mut self, i: usize, flow: Outbound) -> Option<Transport4> {
        let site = &mut self.sites[i];
        let given = site
            .nat64
            .outbound(self.now, &self.settings, &Nameless, flow);
        self.report(i, false);
        given.ok()
    }

    /// An administrator removes a mapping.
    pub(super) fn remove(&mut self, i: usize, protocol: Protocol, client: Transport6) -> bool {
        let removed = self.sites[i].nat64.bib_remove(protocol, Some(client), None);
        self.report(i, false);
        removed.is_ok()
    }

    /// Tells a node what happened to its table.
    fn report(&mut self, i: usize, expired: bool) {
        let site = &mut self.sites[i];
        let mut changes = Vec::new();
        site.nat64.drain_changes(&mut changes);
        if let Some(node) = &mut site.node
            && let Some(handle) = node.instances.keys().next().copied()
        {
            for change in &changes {
                let tables = &mut Here(&mut site.nat64, &self.settings);
                node.on_change(self.now, handle, change, expired, tables);
            }
        }
    }

    /// Lets time pass until `until`.
    pub(super) fn run(&mut self, until: Tick) {
        loop {
            let arrival = self.flying.peek().map(|Reverse((at, ..))| Tick(*at));
            let due = |site: &Site| {
                let node = site.node.as_ref().map(|n| n.next_deadline());
                let table = site.nat64.next_deadline();
                [node, table].into_iter().flatten().min()
            };
            let due = self.sites.iter().filter_map(due);
            // Nothing happens twice in one moment, so that a node that is never satisfied shows.
            let due = due.min().map(|due| due.max(self.now.after(1)));
            let next = arrival.into_iter().chain(due).min();
            let Some(next) = next.filter(|next| *next <= until) else {
                self.now = until;
                return;
            };
            self.steps += 1;
            self.now = next.max(self.now);
            while let Some(Reverse((at, ..))) = self.flying.peek()
                && *at <= self.now.0
                && let Some(Reverse((_, id, from, to))) = self.flying.pop()
            {
                let bytes = self.datagrams.remove(&id).unwrap();
                self.arrive(from, to, bytes);
            }
            for i in 0..self.sites.len() {
                self.tick(i);
            }
        }
    }

    fn tick(&mut self, i: usize) {
        let site = &mut self.sites[i];
        if site
            .nat64
            .next_deadline()
            .is_some_and(|due| due <= self.now)
        {
            site.nat64.expire(self.now, &self.settings, usize::MAX);
            self.report(i, true);
        }
        let site = &mut self.sites[i];
        if let Some(node) = &mut site.node
            && node.next_deadline() <= self.now
        {
            node.on_tick(self.now, &mut Here(&mut site.nat64, &self.settings));
            self.collect(i);
        }
    }

    pub(super) fn arrive(&mut self, from: usize, to: usize, mut bytes: Vec<u8>) {
        let site = &mut self.sites[to];
        let Some(node) = &mut site.node else { return };
        let tables = &mut Here(&mut site.nat64, &self.settings);
        if let Some(letter) = node.open(self.now, addr_of(from), &mut bytes) {
            node.on_letter(self.now, &letter, tables);
        }
        self.collect(to);
    }

    /// Takes what a node has to send and to say.
    pub(super) fn collect(&mut self, i: usize) {
        // What it did to its table is not to be told to it.
        self.sites[i].nat64.drain_changes(&mut Vec::new());
        while let Some(event) = self.sites[i].node.as_mut().and_then(Node::poll_event) {
            self.sites[i].events.push(event);
        }
        while let Some(sent) = self.sites[i].node.as_mut().and_then(Node::poll_transmit) {
            assert!(sent.bytes.len() <= 1_400, "{} bytes", sent.bytes.len());
            if self.recorded.len() < 64 || self.dice.percent(2) {
                let at = self.dice.below(64) as usize;
                self.recorded
                    .insert(at.min(self.recorded.len()), sent.bytes.clone());
                self.recorded.truncate(64);
            }
            for to in 0..self.sites.len() {
                let addressed = match sent.to {
                    Destination::Group => true,
                    Destination::Peer(addr) => addr == addr_of(to),
                };
                if addressed && self.sides[i] == self.sides[to] {
                    self.fly(i, to, &sent.bytes);
                }
            }
        }
    }

    fn fly(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let copies = 1 + u64::from(self.dice.percent(self.twice));
        for _ in 0..copies {
            if self.dice.percent(self.loss) {
                continue;
            }
            let at = self.now.0 + 1 + self.dice.below(self.delay);
            self.number += 1;
            self.datagrams.insert(self.number, bytes.to_vec());
            self.flying.push(Reverse((at, self.number, from, to)));
        }
    }
}

/// An empty table. Each site chooses transport addresses in another order.
fn table(site: u8) -> Nat64 {
    let mut pool4 = Pool4::default();
    for protocol in Protocol::ALL {
        pool4.add(&Pool4Entry {
            mark: 0,
            protocol,
            prefix: "192.0.2.1/32".parse().unwrap(),
            ports: PortRange {
                min: 1_024,
                max: 1_024 + PORTS - 1,
            },
            max_iterations: None,
        });
    }
    let mut nat64 = Nat64::new([site; 16]);
    nat64.set_pool4(pool4, &[]);
    nat64
}

pub(super) const PORTS: u16 = 48;

/// A packet of the `client`-th client to the `server`-th server.
pub(super) fn packet(protocol: Protocol, client: u16, server: u8) -> Outbound {
    Outbound {
        protocol,
        client: Transport6::new("2001:db8::1".parse().unwrap(), client),
        remote: Transport4::new([198, 51, 100, server].into(), 443),
        mark: 0,
        flags: TcpFlags {
            syn: protocol == Protocol::Tcp,
            fin: false,
            rst: false,
        },
    }
}

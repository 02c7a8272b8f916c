// SPDX-License-Identifier: GPL-2.0-or-later
//! A chaotic time, and what must be true after it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::oracle::Removed;
use super::world::{HANDLE, World, packet};
use crate::base::Protocol;
use crate::replica::peer::stamp::Stamp;
use crate::replica::peer::{Config, Event, SessionKey, ShareMode};

/// One seed's chaos.
struct Story {
    world: World,
    removed: Removed,
    partitioned: bool,
    next_client: u16,
    /// What a site that joins has to have before it may say that it is ready, if it asks the
    /// other one: what that one had when the site began, and has had since.
    owed: BTreeMap<(usize, usize), BTreeMap<SessionKey, Stamp>>,
    /// Whom a site asked last.
    asked: BTreeMap<usize, usize>,
}

impl Story {
    fn new(seed: u64, tune: fn(&mut Config)) -> Self {
        let mut world = World::new(seed, 2 + (seed % 3) as usize, tune);
        world.loss = [0, 1, 5, 15, 30][world.dice.below(5) as usize];
        world.twice = [0, 0, 5, 50][world.dice.below(4) as usize];
        world.delay = [1, 3, 30, 120][world.dice.below(4) as usize];
        Self {
            world,
            removed: Removed::new(),
            partitioned: false,
            next_client: 0,
            owed: BTreeMap::new(),
            asked: BTreeMap::new(),
        }
    }

    /// A while in which anything may happen.
    fn chaos(&mut self, steps: u64, partitions: bool) {
        for _ in 0..steps {
            let pause = 1 + self.world.dice.below(300);
            self.pass(pause);
            let site = self.world.dice.below(self.world.sites.len() as u64) as usize;
            match self.world.dice.below(100) {
                0..70 => self.traffic(site),
                70..80 => self.remove(site),
                80..86 if partitions => self.part(),
                86..90 => self.world.sides.fill(0),
                90..94 => self.crash(site),
                94..100 => self.start(site),
                _ => {}
            }
        }
    }

    fn pass(&mut self, pause: u64) {
        self.world.run(self.world.now.after(pause));
        self.check_readiness();
        if !self.partitioned
            && let Some((a, b)) = self.world.overlap()
            && self.is_auto()
        {
            panic!("{a} and {b} share ports");
        }
    }

    fn is_auto(&self) -> bool {
        let mut nodes = self.world.sites.iter().filter_map(|s| s.node.as_ref());
        nodes.all(|node| node.common.config.share == ShareMode::Auto)
    }

    fn traffic(&mut self, site: usize) {
        if !self.world.is_ready(site) {
            return;
        }
        for _ in 0..=self.world.dice.below(4) {
            let old = self.next_client > 0 && self.world.dice.percent(60);
            let client = if old {
                self.world.dice.below(self.next_client.into()) as u16
            } else {
                self.next_client += 1;
                self.next_client - 1
            };
            let protocol = Protocol::ALL[usize::from(client % 3)];
            let flow = packet(protocol, client, self.world.dice.below(3) as u8);
            if !self.removed.contains(&(protocol, flow.client)) {
                self.world.traffic(site, flow);
            }
        }
    }

    /// A client that leaves for good: its mapping must not come back, if whoever removes it knew
    /// the last of it.
    fn remove(&mut self, site: usize) {
        if !self.world.is_ready(site) || self.next_client == 0 {
            return;
        }
        let client = self.world.dice.below(self.next_client.into()) as u16;
        let protocol = Protocol::ALL[usize::from(client % 3)];
        let flow = packet(protocol, client, 0);
        let knows = self.world.knows_all_of(site, protocol, flow.client);
        if self.world.remove(site, protocol, flow.client) && knows {
            self.removed.insert((protocol, flow.client));
        }
    }

    fn part(&mut self) {
        self.partitioned = true;
        let sides = self.world.sides.len();
        for i in 0..sides {
            self.world.sides[i] = self.world.dice.below(2) as u8;
        }
    }

    fn crash(&mut self, site: usize) {
        if self.world.sites[site].node.is_some() {
            let keep = self.world.dice.percent(50);
            if self.world.is_ready(site) {
                // Nobody is left to show that it had deleted something, which it may have told.
                let had = self.world.versions(site);
                for owed in self.owed.values_mut() {
                    owed.retain(|key, _| had.contains_key(key));
                }
            }
            self.world.crash(site, keep);
            self.owed.retain(|(joining, _), _| *joining != site);
            // What it removed and could not tell is not removed.
            for i in 0..self.world.sites.len() {
                for (key, (client, ..)) in self.world.content(i) {
                    self.removed.remove(&(key.protocol, client));
                }
            }
        }
    }

    fn start(&mut self, site: usize) {
        if self.world.sites[site].node.is_some() {
            return;
        }
        self.world.restart(site);
        for asked in (0..self.world.sites.len()).filter(|i| self.world.is_ready(*i)) {
            let owed = self.world.versions(asked);
            self.owed.insert((site, asked), owed);
        }
    }

    /// Whoever says that it is ready has what the one that it asked has had since it began. Not
    /// what all have by now: that one may have been ready alone on its side of a partition, and
    /// have learned the rest from the others when it had been asked already.
    fn check_readiness(&mut self) {
        let mut ready = Vec::new();
        for i in 0..self.world.sites.len() {
            for event in std::mem::take(&mut self.world.sites[i].events) {
                if let Event::Compared { peer, .. } = event {
                    self.asked.insert(i, usize::from(peer) - 1);
                } else if let Event::Ready { alone, .. } = event {
                    ready.push((i, alone));
                }
            }
        }
        // This life may begin with less than the one before had; until then nobody learns from it.
        self.owed
            .retain(|(_, asked), _| ready.iter().all(|(i, _)| i != asked));
        for ((_, asked), owed) in &mut self.owed {
            if self.world.is_ready(*asked) {
                let has = self.world.versions(*asked);
                owed.retain(|key, _| has.contains_key(key));
            }
        }
        for (i, alone) in ready {
            if alone {
                // It has taken up what was on its disk.
                for (key, (client, ..)) in self.world.content(i) {
                    self.removed.remove(&(key.protocol, client));
                }
            } else {
                self.check_ready(i);
            }
            self.owed.retain(|(joining, _), _| *joining != i);
        }
    }

    fn check_ready(&mut self, i: usize) {
        let asked = self
            .asked
            .get(&i)
            .and_then(|asked| self.owed.get(&(i, *asked)));
        let ours = self.world.versions(i);
        let others = (0..self.world.sites.len()).filter(|j| *j != i && self.world.is_ready(*j));
        let others: Vec<_> = others.map(|j| self.world.versions(j)).collect();
        for (key, stamp) in asked.into_iter().flatten() {
            // Who does not have it any more may have told so.
            let everywhere = others.iter().all(|o| o.get(key) == Some(stamp));
            if everywhere && !others.is_empty() && !ours.contains_key(key) {
                panic!("{i} is ready without {key:?}");
            }
        }
    }

    /// Everything works again; then the copies must come to agree.
    fn peace(&mut self) {
        self.world.sides.fill(0);
        (self.world.loss, self.world.twice, self.world.delay) = (0, 0, 2);
        for i in 0..self.world.sites.len() {
            self.start(i);
        }
        self.settle("at peace");
        // Of several who say something about one session, the last one is right.
        let mut last = BTreeMap::new();
        for _ in 0..12 {
            let site = self.world.dice.below(self.world.sites.len() as u64) as usize;
            let client = self.world.dice.below(6) as u16 + 60_000;
            let flow = packet(Protocol::Tcp, client, 1);
            if let Some(v4) = self.world.traffic(site, flow) {
                let before = last.insert(flow.client, v4);
                assert!(
                    before.is_none_or(|before| before == v4),
                    "{} moved",
                    flow.client
                );
            }
            self.pass(200);
        }
        self.settle("in the end");
        for i in 0..self.world.sites.len() {
            let nat64 = &self.world.sites[i].nat64;
            for (client, v4) in &last {
                let has = nat64.mapped_v4(Protocol::Tcp, *client);
                assert_eq!(has, Some(*v4), "{client} at {i}");
            }
        }
        // What merely lives on is told late.
        self.pass(6_000);
        let left = |story: &mut Self| {
            story.pass(40);
            story.world.leftovers()
        };
        let left: Vec<_> = (0..10).map_while(|_| left(self)).collect();
        assert!(left.len() < 10, "{left:?}");
        if self.is_auto() {
            assert_eq!(self.world.overlap(), None);
            let nodes = self.world.sites.iter().filter_map(|s| s.node.as_ref());
            assert_eq!(nodes.map(|n| n.share().slices()).sum::<u32>(), 64);
        }
    }

    fn settle(&mut self, when: &str) {
        let begun = self.world.now;
        loop {
            self.pass(500);
            let disagreement = self.world.disagreement();
            let revived = self.world.revived(&self.removed);
            let Some(problem) = disagreement.or(revived) else {
                return;
            };
            let patience = self.world.now.since(begun) < PATIENCE;
            assert!(patience, "no agreement {when}: {problem}");
        }
    }
}

fn run(seed: u64, tune: fn(&mut Config)) {
    let mut story = Story::new(seed, tune);
    for i in 0..story.world.sites.len() {
        story.start(i);
        let pause = story.world.dice.below(5_000);
        story.pass(pause);
    }
    story.chaos(60, !seed.is_multiple_of(4));
    story.peace();
    let steps = story.world.steps;
    assert!(steps < 200_000, "{steps} steps: a node does not rest");
}

/// Runs seeds; what went wrong with which.
fn failures(seeds: std::ops::Range<u64>, tune: fn(&mut Config)) -> Vec<(u64, String)> {
    let mut failed = Vec::new();
    for seed in seeds {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, tune)));
        if let Err(panic) = outcome {
            let text = panic.downcast_ref::<String>().cloned();
            failed.push((seed, text.unwrap_or_default()));
        }
    }
    failed
}

#[test]
fn copies_agree_after_any_chaos() {
    let number = |name| {
        let text = std::env::var(name).ok();
        text.and_then(|text| text.parse::<u64>().ok())
    };
    let (first, count) = (number("TYLO_SIM_SEED"), number("TYLO_SIM_SEEDS"));
    let usual = first.map_or(SEEDS, |_| 1);
    let count = count.unwrap_or(usual);
    let first = first.unwrap_or(0);
    let failed = failures(first..first + count, |config| {
        // Half of the nodes remember little of what they sent.
        if config.epoch.is_multiple_of(2) {
            config.history = 2_000;
        }
    });
    assert!(failed.is_empty(), "TYLO_SIM_SEED is one of {failed:#?}");
}

#[test]
fn ports_are_shared_without_overlap() {
    let failed = failures(10_000..10_000 + SEEDS / 4, |config| {
        config.share = ShareMode::Auto;
    });
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Nodes that become ready without knowing of each other may choose the same number to write
/// under.
#[test]
fn writers_with_one_number_settle_it() {
    let failed = failures(20_000..20_000 + SEEDS / 4, |config| {
        config.epoch = config.epoch & !0xffff | 7;
    });
    assert!(failed.is_empty(), "{failed:#?}");
}

/// The oracle is not blind: without repair it finds something wrong.
#[test]
fn without_repair_copies_do_not_agree() {
    let failed = failures(0..10, |config| config.repair = false);
    assert!(failed.len() >= 5, "{failed:?}");
}

#[test]
fn a_node_has_nothing_to_do_in_peace() {
    let mut world = World::new(1, 3, |_| {});
    for i in 0..3 {
        world.start(i);
    }
    world.run(world.now.after(10_000));
    assert!((0..3).all(|i| world.is_ready(i)));
    let before = world.steps;
    world.run(world.now.after(10_000));
    assert!(world.steps - before < 300, "{}", world.steps - before);
    let node = world.sites[0].node.as_ref().unwrap();
    assert_eq!(node.sessions(HANDLE), 0);
    assert!(node.next_deadline() > world.now);
    assert_eq!(node.peers().count(), 2);
}

/// Milliseconds within which copies agree once everything works again.
const PATIENCE: u64 = 60_000;

/// How many seeds the usual run takes; TYLO_SIM_SEEDS sets another number.
const SEEDS: u64 = 2_000;

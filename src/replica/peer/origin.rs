// SPDX-License-Identifier: GPL-2.0-or-later
//! Streams of batches: what a node has sent and can send again, and how far another one's stream
//! was received.

use std::collections::{BTreeMap, VecDeque};

use super::stamp::Stamp;
use crate::base::Tick;

/// The stream that a node sends.
#[derive(Debug)]
pub(super) struct Outgoing {
    sequence: u64,
    history: VecDeque<Sent>,
    bytes: usize,
    limit: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) sequence: u64,
    pub(super) stamp: Stamp,
    pub(super) at: Tick,
    pub(super) waited: u64,
    pub(super) records: Vec<u8>,
}

impl Outgoing {
    /// Goes on after batch `sequence`. `limit` is how many bytes of records are kept.
    pub(super) const fn after(sequence: u64, limit: usize) -> Self {
        Self {
            sequence,
            history: VecDeque::new(),
            bytes: 0,
            limit,
        }
    }

    /// The number of the last batch; 0 before the first.
    pub(super) const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Adds a batch to the stream.
    pub(super) fn push(&mut self, now: Tick, stamp: Stamp, waited: u64, records: Vec<u8>) -> &Sent {
        self.sequence += 1;
        self.bytes += records.len();
        self.history.push_back(Sent {
            sequence: self.sequence,
            stamp,
            at: now,
            waited,
            records,
        });
        while self.bytes > self.limit && self.history.len() > 1 {
            let gone = self.history.pop_front();
            self.bytes -= gone.map_or(0, |gone| gone.records.len());
        }
        &self.history[self.history.len() - 1]
    }

    /// Counts a batch that nobody is there to receive.
    pub(super) fn skip(&mut self) {
        self.sequence += 1;
        self.history.clear();
        self.bytes = 0;
    }

    /// The batches of a range that are still there, and whether some are not.
    pub(super) fn again(&self, first: u64, last: u64) -> (impl Iterator<Item = &Sent>, bool) {
        let oldest = self.oldest();
        let sent = self.history.iter();
        let wanted = sent.filter(move |sent| (first..=last).contains(&sent.sequence));
        (wanted, first < oldest)
    }

    /// The first batch that can be sent again.
    pub(super) fn oldest(&self) -> u64 {
        let first = self.history.front();
        first.map_or(self.sequence + 1, |sent| sent.sequence)
    }
}

/// How far the stream of another node was received, during one of its lives.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) epoch: u64,
    /// Everything up to here was received, or what came of it by other ways.
    through: Option<u64>,
    /// Received beyond, with what was known by then.
    ahead: BTreeMap<u64, Stamp>,
    /// The highest number heard of.
    announced: u64,
    /// When the gap was first seen or last asked about, and how often that was in vain.
    asked: Option<Tick>,
    tries: u32,
    /// Whether it cannot be repaired by sending again.
    lost: bool,
}

/// What the receipt of a batch means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receipt {
    Duplicate,
    /// Whether it closes a gap, and up to where everything is known now.
    New {
        repair: bool,
        covered: Option<Stamp>,
    },
}

impl Incoming {
    pub(super) const fn new(epoch: u64) -> Self {
        Self {
            epoch,
            through: None,
            ahead: BTreeMap::new(),
            announced: 0,
            asked: None,
            tries: 0,
            lost: false,
        }
    }

    /// Up to where everything is known; `None` when that is not known.
    pub(super) const fn through(&self) -> Option<u64> {
        self.through
    }

    pub(super) const fn is_lost(&self) -> bool {
        self.lost
    }

    /// Takes notice of the last batch that its sender sent.
    pub(super) fn announce(&mut self, now: Tick, sequence: u64) {
        if self.through.is_none() && sequence == 0 {
            self.through = Some(0);
        }
        self.announced = self.announced.max(sequence);
        self.look(now);
    }

    pub(super) fn receive(&mut self, now: Tick, sequence: u64, stamp: Stamp) -> Receipt {
        let known = self.through.is_some_and(|through| sequence <= through);
        if sequence == 0 || known || self.ahead.contains_key(&sequence) {
            return Receipt::Duplicate;
        }
        if self.through.is_none() && sequence == 1 {
            // A writer is known from its first word on.
            self.through = Some(0);
        }
        let repair = sequence < self.announced && self.tries > 0;
        self.announced = self.announced.max(sequence);
        self.ahead.insert(sequence, stamp);
        if self.ahead.len() > AHEAD {
            // Forgotten ones are asked for again when it is their turn.
            self.ahead.pop_last();
        }
        let covered = self.close();
        self.look(now);
        Receipt::New { repair, covered }
    }

    /// The gaps to ask about now.
    pub(super) fn gaps(&mut self, now: Tick) -> Vec<(u64, u64)> {
        let due = self.asked.is_some_and(|asked| {
            let wait = if self.tries == 0 { PATIENCE } else { RETRY };
            now.since(asked) >= wait
        });
        let Some(through) = self.through.filter(|_| due && !self.lost) else {
            return Vec::new();
        };
        if self.tries >= TRIES {
            self.lost = true;
            return Vec::new();
        }
        self.tries += 1;
        self.asked = Some(now);
        let mut gaps = Vec::new();
        let mut next = through + 1;
        for sequence in self.ahead.keys() {
            if *sequence > next {
                gaps.push((next, sequence - 1));
            }
            next = sequence + 1;
            if gaps.len() >= RANGES {
                return gaps;
            }
        }
        if next <= self.announced {
            gaps.push((next, self.announced));
        }
        gaps
    }

    /// When [`Incoming::gaps`] has something to say.
    pub(super) fn deadline(&self) -> Option<Tick> {
        let wait = if self.tries == 0 { PATIENCE } else { RETRY };
        let asked = self.asked.filter(|_| !self.lost && self.through.is_some());
        asked.map(|asked| asked.after(wait))
    }

    /// Batches before `first` are not to be had.
    pub(super) fn give_up(&mut self, first: u64) {
        let missing = self.through.is_some_and(|through| through + 1 < first);
        self.lost |= missing;
    }

    /// Everything up to `sequence` is known by other ways.
    pub(super) fn cover(&mut self, now: Tick, sequence: u64) -> Option<Stamp> {
        if self.through.is_some_and(|through| sequence < through) {
            return None;
        }
        self.through = Some(sequence);
        self.announced = self.announced.max(sequence);
        self.ahead = self.ahead.split_off(&(sequence + 1));
        self.lost = false;
        self.tries = 0;
        self.asked = None;
        let covered = self.close();
        self.look(now);
        covered
    }

    fn close(&mut self) -> Option<Stamp> {
        let mut covered = None;
        while let Some(through) = self.through
            && let Some(stamp) = self.ahead.remove(&(through + 1))
        {
            self.through = Some(through + 1);
            self.tries = 0;
            self.asked = None;
            covered = Some(stamp);
        }
        covered
    }

    fn look(&mut self, now: Tick) {
        let complete = self.through == Some(self.announced);
        if complete {
            self.asked = None;
            self.tries = 0;
            self.lost = false;
        } else if self.asked.is_none() {
            self.asked = Some(now);
        }
    }
}

/// How long a gap may be mere disorder, in milliseconds.
const PATIENCE: u64 = 10;
/// How long to wait for what was asked for.
const RETRY: u64 = 100;
/// After how many questions a gap is given up.
const TRIES: u32 = 20;
/// Gaps in one question.
const RANGES: usize = 64;
/// Batches that are remembered beyond a gap.
const AHEAD: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    const fn stamp(time: u64) -> Stamp {
        Stamp::new(time, 1)
    }

    const fn news(repair: bool, covered: Option<Stamp>) -> Receipt {
        Receipt::New { repair, covered }
    }

    #[test]
    fn a_gap_is_asked_for_and_closed() {
        let mut incoming = Incoming::new(1);
        assert_eq!(
            incoming.receive(Tick(0), 1, stamp(1)),
            news(false, Some(stamp(1)))
        );
        for sequence in [3, 6] {
            let receipt = incoming.receive(Tick(1), sequence, stamp(sequence));
            assert_eq!(receipt, news(false, None));
        }
        assert_eq!(incoming.receive(Tick(1), 3, stamp(3)), Receipt::Duplicate);
        incoming.announce(Tick(1), 7);
        assert_eq!(incoming.gaps(Tick(5)), []);
        assert_eq!(incoming.deadline(), Some(Tick(1 + PATIENCE)));
        assert_eq!(incoming.gaps(Tick(20)), [(2, 2), (4, 5), (7, 7)]);
        assert_eq!(incoming.gaps(Tick(21)), []);
        let receipt = incoming.receive(Tick(22), 2, stamp(2));
        assert_eq!(receipt, news(true, Some(stamp(3))));
        for sequence in [7, 5, 4] {
            incoming.receive(Tick(23), sequence, stamp(sequence));
        }
        assert_eq!((incoming.through(), incoming.deadline()), (Some(7), None));
        assert_eq!(incoming.receive(Tick(24), 1, stamp(1)), Receipt::Duplicate);
    }

    #[test]
    fn what_cannot_be_repaired_is_lost_until_covered() {
        let mut incoming = Incoming::new(1);
        incoming.receive(Tick(0), 1, stamp(1));
        incoming.receive(Tick(0), 9, stamp(9));
        incoming.give_up(2);
        assert!(!incoming.is_lost(), "nothing is missing before 2");
        incoming.give_up(8);
        assert!(incoming.is_lost());
        assert_eq!(incoming.gaps(Tick(500)), []);
        assert_eq!(incoming.cover(Tick(501), 8), Some(stamp(9)));
        assert!(!incoming.is_lost());

        let mut silent = Incoming::new(1);
        silent.announce(Tick(0), 0);
        silent.announce(Tick(0), 3);
        let asked = (0..100).filter(|i| !silent.gaps(Tick(i * 100 + 100)).is_empty());
        assert_eq!(asked.count(), TRIES as usize);
        assert!(silent.is_lost());
    }

    #[test]
    fn a_stream_heard_from_the_middle_is_known_once_it_is_covered() {
        let mut incoming = Incoming::new(1);
        assert_eq!(incoming.receive(Tick(0), 5, stamp(5)), news(false, None));
        assert_eq!(
            (incoming.through(), incoming.gaps(Tick(99))),
            (None, vec![])
        );
        incoming.receive(Tick(0), 7, stamp(7));
        assert_eq!(incoming.cover(Tick(100), 4), Some(stamp(5)));
        assert_eq!(incoming.gaps(Tick(200)), [(6, 6)]);
    }

    #[test]
    fn history_is_bounded() {
        let mut outgoing = Outgoing::after(0, 100);
        for _ in 0..20 {
            outgoing.push(Tick(0), stamp(1), 0, vec![0; 10]);
        }
        assert_eq!((outgoing.sequence(), outgoing.oldest()), (20, 11));
        let (sent, missing) = outgoing.again(10, 12);
        assert_eq!(sent.map(|s| s.sequence).collect::<Vec<_>>(), [11, 12]);
        assert!(missing);
        assert!(!outgoing.again(11, 99).1);
        outgoing.skip();
        assert_eq!((outgoing.sequence(), outgoing.oldest()), (21, 22));
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! When something was written, and by whom: the order of versions, and what was seen of them.

use crate::base::Tick;

/// Names one life of one node: it is drawn anew with every start, see
/// [`Knowledge`].
pub(super) type Writer = u16;

/// The version of a session: a hybrid logical time, and who wrote it.
///
/// Versions are ordered by time, then by writer. A writer never uses a time twice, and its time is
/// later than that of everything it knew when it wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Stamp(u64);

impl Stamp {
    /// Before everything that was ever written.
    pub(super) const ZERO: Self = Self(0);

    /// `time` beyond [`TIME_MAX`] is taken for that.
    pub(super) const fn new(time: u64, writer: Writer) -> Self {
        let time = if time > TIME_MAX { TIME_MAX } else { time };
        Self(time << 16 | writer as u64)
    }

    pub(super) const fn time(self) -> u64 {
        self.0 >> 16
    }

    pub(super) const fn writer(self) -> Writer {
        (self.0 & 0xffff) as Writer
    }

    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// A hybrid logical clock. It follows the wall clock where that is ahead of all others, and is
/// never behind any time it has seen, so that wall clocks need not agree.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    /// What the time was at tick 0, by the wall clock.
    offset: u64,
    last: u64,
}

impl Clock {
    /// `wall` are milliseconds since 1970.
    pub(super) const fn new(now: Tick, wall: u64) -> Self {
        let wall = wall.saturating_sub(EPOCH);
        Self {
            offset: wall.saturating_sub(now.0),
            last: 0,
        }
    }

    /// A time that was never given before.
    pub(super) fn tick(&mut self, now: Tick) -> u64 {
        let wall = self.offset.saturating_add(now.0).saturating_mul(PARTS);
        self.last = wall.max(self.last + 1).min(TIME_MAX);
        self.last
    }

    /// Takes notice of a time that somebody else gave.
    pub(super) fn observe(&mut self, time: u64) {
        self.last = self.last.max(time.min(TIME_MAX));
    }

    pub(super) const fn last(&self) -> u64 {
        self.last
    }
}

/// What was seen: of every writer, everything up to a time.
///
/// This is what makes deletes last without being remembered. Who knows a session that was written
/// at a time that another node has seen, while that node does not have the session, learns that
/// it was deleted there. A node that starts again is another writer, because nobody can say how
/// much of what its former life wrote was lost with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Knowledge(Vec<(Writer, u64)>);

impl Knowledge {
    pub(super) fn covers(&self, stamp: Stamp) -> bool {
        let of = self.0.iter().find(|(writer, _)| *writer == stamp.writer());
        of.is_some_and(|(_, time)| stamp.time() <= *time)
    }

    pub(super) fn knows(&self, writer: Writer) -> bool {
        self.0.iter().any(|(known, _)| *known == writer)
    }

    /// The oldest goes when there are too many writers: by then none of its sessions is alive.
    pub(super) fn advance(&mut self, stamp: Stamp) {
        let (writer, time) = (stamp.writer(), stamp.time());
        if let Some((_, known)) = self.0.iter_mut().find(|(known, _)| *known == writer) {
            *known = time.max(*known);
            return;
        }
        self.0.push((writer, time));
        if self.0.len() > WRITERS {
            let oldest = (0..self.0.len()).min_by_key(|i| self.0[*i].1);
            if let Some(oldest) = oldest {
                self.0.swap_remove(oldest);
            }
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for stamp in other.iter() {
            self.advance(stamp);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Stamp> {
        self.0
            .iter()
            .map(|(writer, time)| Stamp::new(*time, *writer))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Times are 48 bits wide.
pub(super) const TIME_MAX: u64 = (1 << 48) - 1;

/// How many writers are told apart: as many as fit into the smallest datagram with the rest of a
/// [`Top`](super::message::Top).
pub(super) const WRITERS: usize = 40;

/// Time runs in 64ths of a millisecond from the beginning of 2020 on: good until 2159.
const EPOCH: u64 = 1_577_836_800_000;
const PARTS: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_whatever_the_wall_clock_does() {
        let mut clock = Clock::new(Tick(1_000), EPOCH + 5_000);
        let first = clock.tick(Tick(1_000));
        assert_eq!(first, 5_000 * PARTS);
        assert!(clock.tick(Tick(1_000)) > first);
        let mut behind = Clock::new(Tick(0), 0);
        behind.observe(first);
        assert!(behind.tick(Tick(1)) > first);
        behind.observe(u64::MAX);
        assert_eq!(behind.tick(Tick(2)), TIME_MAX);
    }

    #[test]
    fn later_is_newer_and_the_writer_decides_between_equals() {
        assert!(Stamp::new(2, 1) > Stamp::new(1, 9));
        assert!(Stamp::new(2, 2) > Stamp::new(2, 1));
        let stamp = Stamp::new(TIME_MAX, 77);
        assert_eq!((stamp.time(), stamp.writer()), (TIME_MAX, 77));
    }

    #[test]
    fn what_was_seen_covers_what_is_older_of_the_same_writer() {
        let mut seen = Knowledge::default();
        seen.advance(Stamp::new(10, 1));
        assert!(seen.covers(Stamp::new(10, 1)) && seen.covers(Stamp::new(9, 1)));
        assert!(!seen.covers(Stamp::new(11, 1)) && !seen.covers(Stamp::new(9, 2)));
        for writer in 100..100 + WRITERS as Writer {
            seen.advance(Stamp::new(20, writer));
        }
        assert_eq!(seen.len(), WRITERS);
        assert!(!seen.knows(1), "the oldest went");
    }
}

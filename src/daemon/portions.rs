// SPDX-License-Identifier: GPL-2.0-or-later
//! Tables in order, without a copy of them and without holding up packets.
//!
//! A million rows take longer to read than packets can wait, and the tables are not in the order
//! in which they are displayed. So they are read in rounds: one finds the keys of the rows that
//! come next, as many as a [`Smallest`] keeps, and then those rows are fetched. All of it is done
//! in portions, between which the instance belongs to the packets.
//!
//! A row that is there all the time is displayed, once; a row that comes or goes meanwhile may or
//! may not be. None is there twice, for the keys go up.

use std::thread;
use std::time::Instant;

use super::gateway::no_sessions;
use super::news::row;
use super::traffic::Slot;
use crate::base::prefix::Pool6;
use crate::base::{Protocol, Transport4};
use crate::dataplane;
use crate::model::control::Failure;
use crate::model::{BibRow, SessionRow};
use crate::nat64::table::Table;

/// A table whose rows are told apart and put in order by keys.
pub(super) trait Portions {
    type Key: Copy + Ord;
    type Row;

    /// How many positions there are.
    fn positions(&self) -> Result<usize, Failure>;

    /// Adds the keys of some positions.
    fn keys(&self, from: usize, to: usize, into: &mut Vec<Self::Key>) -> Result<(), Failure>;

    /// The rows with these keys that are still there.
    fn rows(&self, keys: &[Self::Key]) -> Result<Vec<Self::Row>, Failure>;
}

/// Hands out all rows in order, in pages, until `each` returns false.
pub(super) fn walk<P: Portions>(
    table: &P,
    keep: usize,
    mut each: impl FnMut(Vec<P::Row>) -> bool,
) -> Result<(), Failure> {
    let mut last = None;
    loop {
        let mut next = Smallest::new(keep);
        let (mut at, mut portion) = (0, Vec::with_capacity(PORTION));
        while at < table.positions()? {
            let to = at.saturating_add(PORTION);
            politely(|| table.keys(at, to, &mut portion))?;
            at = to;
            let new = portion.drain(..).filter(|key| Some(*key) > last);
            new.for_each(|key| next.offer(key));
        }
        drop(portion);
        let keys = next.sorted();
        for page in keys.chunks(PAGE) {
            let rows = politely(|| table.rows(page))?;
            if !rows.is_empty() && !each(rows) {
                return Ok(());
            }
        }
        // Fewer than there is room for: there were no more.
        let Some(key) = keys.last().filter(|_| keys.len() == keep) else {
            return Ok(());
        };
        last = Some(*key);
    }
}

/// Does something that makes packets wait, and then lets them go first for as long as it took.
pub(super) fn politely<T>(work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    // Whoever waits for a lock would not get it if we were to take it again at once.
    thread::sleep(start.elapsed());
    result
}

/// The smallest of many keys.
struct Smallest<K> {
    keep: usize,
    /// Up to twice as many as are kept.
    keys: Vec<K>,
    /// Keys that are not smaller are not among them.
    bound: Option<K>,
}

impl<K: Copy + Ord> Smallest<K> {
    const fn new(keep: usize) -> Self {
        Self {
            keep,
            keys: Vec::new(),
            bound: None,
        }
    }

    fn offer(&mut self, key: K) {
        if self.bound.is_some_and(|bound| key >= bound) {
            return;
        }
        self.keys.push(key);
        if self.keys.len() >= 2 * self.keep {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.keep < self.keys.len() {
            let (_, bound, _) = self.keys.select_nth_unstable(self.keep);
            self.bound = Some(*bound);
            self.keys.truncate(self.keep);
        }
    }

    fn sorted(mut self) -> Vec<K> {
        self.cut();
        self.keys.sort_unstable();
        self.keys
    }
}

/// The mappings of one protocol.
pub(super) struct Mappings<'a>(pub(super) &'a Slot, pub(super) Protocol);

impl Portions for Mappings<'_> {
    type Key = Transport4;
    type Row = BibRow;

    fn positions(&self) -> Result<usize, Failure> {
        read(self.0, self.1, Table::bib_positions)
    }

    fn keys(&self, from: usize, to: usize, into: &mut Vec<Transport4>) -> Result<(), Failure> {
        read(self.0, self.1, |table| {
            into.extend(table.bibs_at(from..to).map(|bib| bib.v4));
        })
    }

    fn rows(&self, keys: &[Transport4]) -> Result<Vec<BibRow>, Failure> {
        let protocol = self.1;
        read(self.0, protocol, |table| {
            let found = keys.iter().filter_map(|v4| table.find_v4(*v4));
            let bibs = found.map(|id| table.bib(id));
            let rows = bibs.map(|bib| BibRow {
                protocol,
                v6: bib.v6,
                v4: bib.v4,
                is_static: bib.is_static,
            });
            rows.collect()
        })
    }
}

/// The sessions of one protocol: by mapping, and then by IPv4 server.
pub(super) struct Sessions<'a>(pub(super) &'a Slot, pub(super) Protocol, pub(super) Pool6);

impl Portions for Sessions<'_> {
    type Key = (Transport4, Transport4);
    type Row = SessionRow;

    fn positions(&self) -> Result<usize, Failure> {
        read(self.0, self.1, Table::session_positions)
    }

    fn keys(&self, from: usize, to: usize, into: &mut Vec<Self::Key>) -> Result<(), Failure> {
        read(self.0, self.1, |table| {
            let found = table.sessions_at(from..to);
            into.extend(found.map(|(bib, session)| (bib.v4, session.remote)));
        })
    }

    fn rows(&self, keys: &[Self::Key]) -> Result<Vec<SessionRow>, Failure> {
        let (Self(slot, protocol, pool6), now) = (self, dataplane::monotonic());
        read(slot, *protocol, |table| {
            let found = keys.iter().filter_map(|(v4, remote)| {
                let bib = table.find_v4(*v4)?;
                Some((bib, table.find_session(bib, *remote)?))
            });
            let rows = found.map(|(bib, session)| {
                let (bib, session) = (table.bib(bib), table.session(session));
                let (left, state) = (session.deadline().since(now), Some(session.state));
                row(
                    *protocol,
                    *pool6,
                    bib.v6,
                    bib.v4,
                    session.remote,
                    left,
                    state,
                )
            });
            rows.collect()
        })
    }
}

/// Has a look at a table. Packets that change it wait.
pub(super) fn read<T>(
    slot: &Slot,
    protocol: Protocol,
    look: impl FnOnce(&Table) -> T,
) -> Result<T, Failure> {
    let instance = slot.read();
    let nat64 = instance.sessions();
    let nat64 = nat64.ok_or_else(|| no_sessions(slot.flavour))?;
    Ok(look(nat64.table(protocol)))
}

/// How many keys are kept at a time, which is what a display needs in memory: 12 bytes each, and
/// twice that while they are looked for.
pub(super) const KEEP: usize = 1 << 18;

/// Positions that are looked at while packets that change the table wait.
pub(super) const PORTION: usize = 1_024;

/// Rows that are fetched while packets that change the table wait, and that go into a line.
const PAGE: usize = 250;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;

    /// A table that changes while it is read: after each look, the next of these happens.
    struct Restless {
        places: RefCell<Vec<Option<u16>>>,
        changes: RefCell<Vec<(usize, Option<u16>)>>,
    }

    impl Restless {
        fn change(&self) {
            let Some((at, value)) = self.changes.borrow_mut().pop() else {
                return;
            };
            let mut places = self.places.borrow_mut();
            if value.is_some() && places.contains(&value) {
                return;
            }
            if let Some(place) = places.get_mut(at) {
                *place = value;
            }
        }
    }

    impl Portions for Restless {
        type Key = u16;
        type Row = u16;

        fn positions(&self) -> Result<usize, Failure> {
            Ok(self.places.borrow().len())
        }

        fn keys(&self, from: usize, to: usize, into: &mut Vec<u16>) -> Result<(), Failure> {
            let places = self.places.borrow();
            let some = places.iter().take(to).skip(from);
            into.extend(some.flatten());
            drop(places);
            self.change();
            Ok(())
        }

        fn rows(&self, keys: &[u16]) -> Result<Vec<u16>, Failure> {
            let places = self.places.borrow();
            let some = keys.iter().filter(|key| places.contains(&Some(**key)));
            let rows = some.copied().collect();
            drop(places);
            self.change();
            Ok(rows)
        }
    }

    proptest! {
        #[test]
        fn what_stays_is_there_once_and_in_order(
            values in prop::collection::btree_set(any::<u16>(), 0..40),
            seed in any::<u64>(),
            changes in prop::collection::vec((0usize..40, prop::option::of(any::<u16>())), 0..30),
            keep in 1usize..12,
        ) {
            // In any order.
            let mut places: Vec<_> = values.iter().copied().map(Some).collect();
            places.sort_by_key(|v| v.map(|v| u64::from(v).wrapping_mul(seed | 1)));
            let stays: Vec<u16> = {
                let touched = |at| changes.iter().any(|(i, _)| *i == at);
                let kept = places.iter().enumerate().filter(|(at, _)| !touched(*at));
                kept.filter_map(|(_, v)| *v).collect()
            };
            let table = Restless { places: places.into(), changes: changes.into() };
            let mut shown = Vec::new();
            walk(&table, keep, |page| {
                shown.extend(page);
                true
            })
            .unwrap();
            prop_assert!(shown.is_sorted_by(|a, b| a < b), "{shown:?}");
            prop_assert!(stays.iter().all(|v| shown.contains(v)), "{stays:?} {shown:?}");
        }

        #[test]
        fn the_smallest_are_kept(
            mut keys in prop::collection::vec(any::<u16>(), 0..100),
            keep in 1usize..40,
        ) {
            let mut smallest = Smallest::new(keep);
            for key in &keys {
                smallest.offer(*key);
                prop_assert!(smallest.keys.len() < 2 * keep.max(1));
            }
            keys.sort_unstable();
            keys.truncate(keep);
            prop_assert_eq!(smallest.sorted(), keys);
        }
    }

    #[test]
    fn who_has_seen_enough_gets_no_more() {
        let table = Restless {
            places: (0..600).map(Some).collect::<Vec<_>>().into(),
            changes: Vec::new().into(),
        };
        let mut pages = 0;
        walk(&table, 1_000, |page| {
            pages += 1;
            assert_eq!(page.len(), PAGE);
            pages < 2
        })
        .unwrap();
        assert_eq!(pages, 2);
    }
}

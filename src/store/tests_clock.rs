// SPDX-License-Identifier: GPL-2.0-or-later
//! Clocks that are set, machines that boot, databases of other times.

use std::cell::Cell;

use super::tests::{Dir, add, clock, lives_on, mapping, session};
use super::*;
use crate::nat64::Change;

const DAY: i64 = 86_400_000;
const BOOTED: u64 = 10_000;
const WALL: u64 = 1_700_000_000_000;

thread_local! {
    /// What this test's clock shows more than it should, in milliseconds.
    static OFF: Cell<i64> = const { Cell::new(0) };
}

/// [`clock`] with a wall clock that can be set; for the test's own thread.
fn settable() -> Clock {
    Clock {
        tick: Tick(BOOTED),
        wall: WALL.saturating_add_signed(OFF.get()),
    }
}

/// The milliseconds that sessions with 90 s left have after a restart with the clock set so.
fn left(name: &str, wall: u64) -> Vec<u64> {
    let dir = Dir::new(name);
    let (store, _) = Store::open(&dir.0, clock).unwrap();
    let id = add(&store);
    let change = [
        Change::Mapping(mapping(1, true)),
        lives_on(session(1, BOOTED + 90_000)),
    ];
    store.journal(id, change.to_vec());
    store.flush(id).unwrap();
    drop(store);
    let db = Connection::open(dir.0.join(DATABASE)).unwrap();
    let now = Clock {
        tick: Tick(1_000),
        wall,
    };
    let saved = load::instances(&db, now).unwrap().remove(0);
    assert_eq!(saved.unusable, 0);
    saved
        .sessions
        .iter()
        .map(|s| s.deadline.since(now.tick))
        .collect()
}

#[test]
fn lifetimes_go_on_by_the_wall_clock_across_boots() {
    assert_eq!(left("same", WALL), [90_000]);
    assert_eq!(left("minute", WALL + 60_000), [30_000]);
    assert_eq!(left("over", WALL + 90_000), [0; 0]);
}

#[test]
fn a_clock_that_was_set_meanwhile_breaks_nothing() {
    assert_eq!(left("forward", WALL + DAY as u64), [0; 0]);
    // The tables do not give them more than their lifetime.
    assert_eq!(left("back", WALL - DAY as u64), [90_000 + DAY as u64]);
    assert_eq!(left("epoch", 0), [90_000 + WALL]);
    assert_eq!(left("end", u64::MAX), [0; 0]);
}

#[test]
fn a_clock_that_is_set_has_all_sessions_written_anew() {
    let dir = Dir::new("step");
    let (store, _) = Store::open(&dir.0, settable).unwrap();
    let id = add(&store);
    store.flush(id).unwrap();
    assert!(store.take_resync().is_empty());
    for off in [DAY, -DAY, 1_000 - DAY] {
        OFF.set(off);
        let wanted = store.take_resync();
        assert_eq!(
            wanted.contains(&id),
            off.abs() == DAY,
            "{off}: slewing is nothing"
        );
        assert!(store.take_resync().is_empty(), "once");
    }
    store.configure(journal::Config::Remove(id)).unwrap();
    OFF.set(0);
    assert!(store.take_resync().is_empty(), "removed");
}

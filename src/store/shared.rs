// SPDX-License-Identifier: GPL-2.0-or-later
//! What the writer thread and those who ask it know in common.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Clock, InstanceId};
use crate::base::Tick;

pub(super) struct Shared {
    pub(super) backlog: AtomicU64,
    /// When the oldest change that is not on disk happened, by the clock that never goes back;
    /// [`NOTHING`] when there is none, or the writer has not looked yet.
    oldest: AtomicU64,
    pub(super) lost: AtomicU64,
    resync: Mutex<HashSet<InstanceId>>,
    instances: Mutex<HashSet<InstanceId>>,
    /// What the wall clock showed when the other one was 0.
    epoch: AtomicI64,
}

impl Shared {
    pub(super) fn new(instances: impl Iterator<Item = InstanceId>, clock: Clock) -> Self {
        Self {
            backlog: AtomicU64::new(0),
            oldest: AtomicU64::new(NOTHING),
            lost: AtomicU64::new(0),
            resync: Mutex::default(),
            instances: Mutex::new(instances.collect()),
            epoch: AtomicI64::new(epoch(clock)),
        }
    }

    /// Whether the wall clock was set since this was asked last. That it is slowed down or sped up
    /// a little, as time servers do it, is not enough.
    pub(super) fn clock_was_set(&self, clock: Clock) -> bool {
        let (now, before) = (epoch(clock), self.epoch.load(Ordering::Relaxed));
        let set = now.abs_diff(before) >= CLOCK_STEP;
        if set {
            self.epoch.store(now, Ordering::Relaxed);
        }
        set
    }

    pub(super) fn instances(&self) -> std::sync::MutexGuard<'_, HashSet<InstanceId>> {
        self.instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn resync(&self) -> std::sync::MutexGuard<'_, HashSet<InstanceId>> {
        self.resync.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many changes are on disk, or given up.
    pub(super) fn done(&self, count: u64) {
        self.backlog.fetch_sub(count, Ordering::Relaxed);
        self.oldest.store(NOTHING, Ordering::Relaxed);
    }

    pub(super) fn lose(&self, instance: InstanceId, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
        self.resync().insert(instance);
    }

    /// Nothing that is not on disk is older than what happened at `at`, by the wall clock.
    pub(super) fn note_oldest(&self, now: Clock, at: u64) {
        let age = now.wall.saturating_sub(at);
        let oldest = now.tick.0.saturating_sub(age);
        self.oldest.store(oldest, Ordering::Relaxed);
    }

    /// Milliseconds since the oldest change happened that is not on disk yet.
    pub(super) fn lag(&self, now: Clock) -> u64 {
        match self.oldest.load(Ordering::Relaxed) {
            NOTHING => 0,
            oldest => now.tick.since(Tick(oldest)),
        }
    }
}

/// See [`Shared::epoch`].
const fn epoch(clock: Clock) -> i64 {
    clock.wall.wrapping_sub(clock.tick.0) as i64
}

/// Milliseconds by which a clock must jump for that to matter.
const CLOCK_STEP: u64 = 2_000;

/// No time.
const NOTHING: u64 = u64::MAX;

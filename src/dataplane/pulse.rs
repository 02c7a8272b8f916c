// SPDX-License-Identifier: GPL-2.0-or-later
//! Whether workers go round their loops: one that waits forever neither fails nor panics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Dataplane;
use crate::base::Tick;

/// When a worker last began a round; not next to what other workers write.
#[repr(align(128))]
pub(super) struct Pulse(AtomicU64);

impl Pulse {
    pub(super) const fn new(now: Tick) -> Self {
        Self(AtomicU64::new(now.0))
    }

    pub(super) fn beat(&self, now: Tick) {
        self.0.store(now.0, Ordering::Relaxed);
    }

    fn is_stuck(&self, now: Tick, limit: Duration) -> bool {
        let age = now.since(Tick(self.0.load(Ordering::Relaxed)));
        Duration::from_millis(age) > limit
    }
}

impl Dataplane {
    /// The first worker that has been busy with, or waiting for, one and the same thing for longer
    /// than `limit`. Without traffic they go round several times a second.
    pub fn stuck(&self, now: Tick, limit: Duration) -> Option<usize> {
        let mut hands = self.workers.iter();
        hands.position(|hand| hand.pulse.is_stuck(now, limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_does_not_come_round_is_stuck() {
        let pulse = Pulse::new(Tick(1000));
        let limit = Duration::from_secs(2);
        assert!(!pulse.is_stuck(Tick(3000), limit));
        assert!(pulse.is_stuck(Tick(3001), limit));
        pulse.beat(Tick(3001));
        assert!(!pulse.is_stuck(Tick(3001), limit));
        assert!(
            !pulse.is_stuck(Tick(2900), limit),
            "it was later than the caller"
        );
    }
}

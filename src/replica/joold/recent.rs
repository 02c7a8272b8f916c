// SPDX-License-Identifier: GPL-2.0-or-later
//! Datagrams that come twice.
//!
//! Rings without a beginning (HSR, PRP) and mirrored switches deliver everything twice. Sessions
//! that are said again a moment later say nothing new, so that the second datagram need not be
//! looked at.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;

use crate::base::Tick;

/// What was heard a moment ago.
pub struct Recent {
    /// Oldest first: when it came, and the hash of sender and bytes.
    heard: VecDeque<(Tick, u64)>,
    hasher: RandomState,
}

impl Recent {
    pub fn new() -> Self {
        Self {
            heard: VecDeque::with_capacity(MOST),
            hasher: RandomState::new(),
        }
    }

    /// Whether the same was heard a moment ago; if not, it is from now on.
    pub fn repeats(&mut self, now: Tick, from: SocketAddr, datagram: &[u8]) -> bool {
        let hash = self.hasher.hash_one((from, datagram));
        while let Some((at, _)) = self.heard.front()
            && (now.since(*at) > MOMENT || self.heard.len() == MOST)
        {
            self.heard.pop_front();
        }
        if self.heard.iter().any(|(_, other)| *other == hash) {
            return true;
        }
        self.heard.push_back((now, hash));
        false
    }
}

impl Default for Recent {
    fn default() -> Self {
        Self::new()
    }
}

/// Milliseconds. Much longer than a datagram needs, much shorter than any lifetime.
const MOMENT: u64 = 500;

/// Datagrams that are remembered.
const MOST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_from_the_same_counts_once_for_a_moment() {
        let (one, two) = ("[::1]:1".parse().unwrap(), "[::1]:2".parse().unwrap());
        let mut recent = Recent::new();
        assert!(!recent.repeats(Tick(0), one, b"a"));
        assert!(recent.repeats(Tick(0), one, b"a"));
        assert!(!recent.repeats(Tick(1), one, b"b"));
        assert!(!recent.repeats(Tick(1), two, b"a"));
        assert!(recent.repeats(Tick(MOMENT), one, b"a"));
        assert!(!recent.repeats(Tick(MOMENT + 1), one, b"a"));
        for n in 0..10_000u32 {
            assert!(!recent.repeats(Tick(600), one, &n.to_be_bytes()));
            assert!(recent.heard.len() <= MOST);
        }
    }
}

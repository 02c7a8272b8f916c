// SPDX-License-Identifier: GPL-2.0-or-later
//! What was translated lately, so that the host's errors about it can be told from its errors
//! about packets that went through untranslated.

use core::sync::atomic::{AtomicU32, Ordering};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Pairs of addresses, each in the one place that its hash names: a newer pair takes the place of
/// an older one. Most errors follow their packet at once, those about absent neighbours within
/// seconds.
#[derive(Debug)]
pub(super) struct Sent(Box<[AtomicU32]>);

/// 256 KiB for each instance.
const PLACES: usize = 1 << 16;

impl Sent {
    pub(super) fn new() -> Self {
        Self(
            std::iter::repeat_with(AtomicU32::default)
                .take(PLACES)
                .collect(),
        )
    }

    pub(super) fn note4(&self, src: Ipv4Addr, dst: Ipv4Addr) {
        self.note(u32::from(src).into(), u32::from(dst).into());
    }

    pub(super) fn note6(&self, src: Ipv6Addr, dst: Ipv6Addr) {
        self.note(src.into(), dst.into());
    }

    pub(super) fn has4(&self, src: Ipv4Addr, dst: Ipv4Addr) -> bool {
        self.has(u32::from(src).into(), u32::from(dst).into())
    }

    pub(super) fn has6(&self, src: Ipv6Addr, dst: Ipv6Addr) -> bool {
        self.has(src.into(), dst.into())
    }

    fn note(&self, src: u128, dst: u128) {
        let (place, mark) = hash(src, dst);
        // Busy flows of several threads share lines of these places: nobody writes what is there.
        let found = self.0.get(place);
        if let Some(found) = found.filter(|found| found.load(Ordering::Relaxed) != mark) {
            found.store(mark, Ordering::Relaxed);
        }
    }

    fn has(&self, src: u128, dst: u128) -> bool {
        let (place, mark) = hash(src, dst);
        let found = self.0.get(place);
        found.is_some_and(|found| found.load(Ordering::Relaxed) == mark)
    }
}

/// A place, and what stands there; never 0. It has no secret: who makes two pairs meet loses no
/// more than an error.
const fn hash(src: u128, dst: u128) -> (usize, u32) {
    const A: u64 = 0x9e37_79b9_7f4a_7c15;
    const B: u64 = 0xd6e8_feb8_6659_fd93;
    let src = (src as u64 ^ A) as u128 * ((src >> 64) as u64 ^ B) as u128;
    let dst = (dst as u64 ^ B) as u128 * ((dst >> 64) as u64 ^ A) as u128;
    let both =
        (src as u64 ^ (src >> 64) as u64).rotate_left(32) ^ (dst as u64 ^ (dst >> 64) as u64);
    let mixed = both as u128 * A as u128;
    let mixed = mixed as u64 ^ (mixed >> 64) as u64;
    (mixed as usize % PLACES, (mixed >> 32) as u32 | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_pairs_are_remembered_in_their_direction() {
        let sent = Sent::new();
        let host = |n: u32| Ipv4Addr::from(0x0a00_0000 + n);
        for n in 0..1000 {
            sent.note4(host(n), host(n + 1));
            assert!(sent.has4(host(n), host(n + 1)));
        }
        let kept = (0..1000).filter(|n| sent.has4(host(*n), host(n + 1)));
        assert!(kept.count() > 950, "few take the place of others");
        let wrong = (0..1000).filter(|n| sent.has4(host(n + 1), host(*n)));
        assert_eq!(wrong.count(), 0);
        let six = |n: u32| host(n).to_ipv6_mapped();
        assert!(!sent.has6(six(1), six(2)));
        sent.note6(six(1), six(2));
        assert!(sent.has6(six(1), six(2)) && !sent.has6(six(2), six(1)));
    }
}

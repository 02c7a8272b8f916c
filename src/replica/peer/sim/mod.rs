// SPDX-License-Identifier: GPL-2.0-or-later
//! Clusters of simulated nodes with real tables, under thousands of misfortunes.
//!
//! Time and the network are made up, and everything follows from a seed: a run that fails names
//! its seed, and `TYLO_SIM_SEED=N cargo test --lib replica::peer::sim` runs it again. The
//! long form is `TYLO_SIM_SEEDS=5000`, from that seed on.

mod attacks;
mod oracle;
mod story;
mod world;

use std::net::SocketAddr;

/// Numbers that look random and are not: splitmix64.
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound.max(1)
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

fn addr_of(site: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, site as u8 + 1], 6400))
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! The latest packets that were dropped because they disagree with a mapping rule, for whoever
//! wonders why. Bounded, and a flow is there once: one that goes on does not push out all others.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::base::counters::Counter;
use crate::model::Stray;
use crate::wire::{Refusal, Verdict};

#[derive(Default)]
pub(in crate::engine) struct Strays {
    latest: VecDeque<Stray>,
    count: u64,
}

impl Strays {
    /// Takes a packet that was refused down, if it is one of those.
    pub(super) fn note(
        &mut self,
        refusal: &Refusal,
        tuple: impl FnOnce() -> Option<([IpAddr; 2], [u16; 2])>,
    ) {
        if !concern(refusal) {
            return;
        }
        let Some(([src, dst], ports)) = tuple() else {
            return;
        };
        let same = |s: &Stray| s.src == src && s.dst == dst && s.ports == ports;
        if let Some(at) = self.latest.iter().position(same) {
            self.latest.remove(at);
        } else if self.latest.len() >= MOST {
            self.latest.pop_front();
        }
        self.count += 1;
        self.latest.push_back(Stray {
            serial: self.count,
            src,
            dst,
            ports,
        });
    }

    /// In the order in which they came.
    pub(in crate::engine) fn rows(&self) -> Vec<Stray> {
        self.latest.iter().copied().collect()
    }
}

/// Whether packets that are refused for this reason are kept.
pub(super) const fn concern(refusal: &Refusal) -> bool {
    let disagrees = matches!(
        refusal.reason,
        Counter::MaptPsid | Counter::MaptEui6p | Counter::MaptAddr4
    );
    disagrees && !matches!(refusal.verdict, Verdict::Accept)
}

const MOST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_disagreements_are_kept() {
        let mut strays = Strays::default();
        let addr: IpAddr = "192.0.2.1".parse().unwrap();
        let mut note = |refusal: Refusal, port| {
            strays.note(&refusal, || Some(([addr; 2], [port, 80])));
        };
        note(Refusal::accept(Counter::MaptPsid), 1);
        note(Refusal::drop(Counter::Hdr6), 2);
        for port in 0..=MOST as u16 {
            note(Refusal::drop(Counter::MaptPsid), port);
            note(Refusal::drop(Counter::MaptPsid), port);
        }
        note(Refusal::drop(Counter::MaptPsid), 1);
        let rows = strays.rows();
        assert_eq!(rows.len(), MOST);
        assert_eq!(rows[0].ports, [2, 80]);
        assert_eq!(rows[MOST - 1].ports, [1, 80], "the last one heard of");
        assert!(rows.is_sorted_by_key(|stray| stray.serial));
    }
}

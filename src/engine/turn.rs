// SPDX-License-Identifier: GPL-2.0-or-later
//! Bursts of packets that several threads handle at the same time.

use core::sync::atomic::Ordering;

use super::nat64::Stateful;
use super::tables::Shared;
use super::{Env, Instance, Meta, Outcome, Translator, Version, outcome};
use crate::base::Tick;
use crate::base::counters::Counters;
use crate::wire::Refusal;
use crate::wire::output::Output;

/// A burst of packets of one thread, while others may have theirs.
///
/// What every packet needs is taken once for all of them, and counted when the turn ends: no two
/// threads write the same line of the processor's cache with every packet, unless it is their
/// packets' common session.
pub struct Turn<'a> {
    instance: &'a Instance,
    lane: usize,
    now: Tick,
    identification: u16,
    counters: Counters,
}

impl Instance {
    /// Begins a burst of so many packets. Threads that have their turns at the same time have
    /// different `lane`s, as far as there are any.
    pub fn turn(&self, now: Tick, lane: usize, packets: usize) -> Turn<'_> {
        let latest = Tick(self.now.load(Ordering::Relaxed));
        if latest < now {
            self.now.fetch_max(now.0, Ordering::Relaxed);
        }
        // Wraps, as identifications do.
        let taken = packets as u16;
        Turn {
            instance: self,
            lane,
            now: now.max(latest),
            identification: self.identification.fetch_add(taken, Ordering::Relaxed),
            counters: Counters::default(),
        }
    }

    /// Adds to the counters what a thread has counted.
    pub fn count(&self, lane: usize, counters: &Counters) {
        self.lanes.add(lane, counters);
    }
}

impl Turn<'_> {
    /// Handles a packet as [`Instance::handle`] does, if nothing comes of it but that its session
    /// lives on. `None` otherwise; then nothing has happened, and the packet is to be handled
    /// there.
    ///
    /// A packet that may be handled here overtakes an earlier one of its flow that may not.
    pub fn handle(&mut self, meta: &Meta<'_>, packet: &[u8], out: &mut Output) -> Option<Outcome> {
        self.identification = self.identification.wrapping_add(1);
        let first = out.len();
        let result = match self.instance.accepts(packet) {
            Ok(version) => self.translate(version, meta, packet, out),
            Err(refusal) => Some(Err(refusal)),
        };
        let Some(result) = result else {
            out.truncate(first);
            return None;
        };
        Some(outcome(result, packet, out, &mut self.counters))
    }

    fn translate(
        &self,
        version: Version,
        meta: &Meta<'_>,
        packet: &[u8],
        out: &mut Output,
    ) -> Option<Result<(), Refusal>> {
        let env = Env {
            settings: &self.instance.settings,
            now: self.now,
            meta,
            identification: self.identification,
        };
        match (&self.instance.translator, version) {
            (Translator::Nat64(stateful), version) => {
                let mut shared = Stateful {
                    nat64: Shared::new(&stateful.nat64),
                    asks: None,
                };
                let result = match version {
                    Version::Six => shared.six(&env, packet, out),
                    Version::Four => shared.four(&env, packet, out),
                };
                (!shared.nat64.unsettled).then_some(result)
            }
            // All there is to remember may be written by several threads.
            (Translator::Siit(stateless), Version::Six) => Some(stateless.six(&env, packet, out)),
            (Translator::Siit(stateless), Version::Four) => Some(stateless.four(&env, packet, out)),
            (Translator::Mapt(mapping), _) => mapping.settled(&env, packet, out),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.instance.count(self.lane, &self.counters);
    }
}

#[cfg(test)]
mod tests;

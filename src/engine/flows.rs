// SPDX-License-Identifier: GPL-2.0-or-later
//! How long the segments of TCP connections may be, where there are no sessions to keep it with.
//!
//! A table of fixed size: a flow that hashes to the place of another takes it. Who is forgotten, or
//! was there before us, gets segments of a size that is always safe. Flows are known by what IPv4
//! sees of them, so that both directions find the same.
//!
//! Several threads may look and write at once: a place is one number. Of two that write to one place
//! at the same time, one may be forgotten.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::hash::{Hash as _, Hasher as _};
use std::net::Ipv4Addr;

use siphasher::sip::SipHasher13;

use crate::wire::offload::{Segments, fitting, maximum};
use crate::wire::output::Output;
use crate::wire::{InnerL4, L4, Packet4, Packet6, Refusal};
use crate::xlat::{self, Plan4, Plan6, Rules};

/// What is known of the flows of an instance.
pub(super) struct Flows {
    hasher: SipHasher13,
    /// Each holds part of the hash, to tell flows apart, and in its lowest 16 bits the most data in a
    /// segment, TCP options included, in bytes; 0 if unknown.
    places: Box<[AtomicU64]>,
}

/// Transport addresses of both ends.
type Flow = [(Ipv4Addr, u16); 2];

impl Flows {
    /// `key` makes the places unpredictable.
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self {
            hasher: SipHasher13::new_with_key(&key),
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// [`xlat::six_to_four`], with segments as the flow takes them.
    pub(super) fn six_to_four(
        &self,
        packet: &Packet6<'_>,
        plan: &Plan4,
        mut rules: Rules<'_>,
        out: &mut Output,
    ) -> Result<(), Refusal> {
        if let L4::Tcp { src, dst, flags } = packet.l4 {
            let [src, dst] = plan.outer.ports.unwrap_or([src, dst]);
            let flow = [(plan.outer.src, src), (plan.outer.dst, dst)];
            if flags.syn {
                self.bound(flow, maximum(packet.transport(), true));
            }
            self.advise(flow, &mut rules);
        }
        xlat::six_to_four(packet, plan, &rules, out)?;
        if let (L4::Error { inner, .. }, Some(mtu)) = (&packet.l4, packet.too_big())
            && let (InnerL4::Tcp { src, dst }, Some(rewrite)) = (inner.l4, &plan.inner)
        {
            let [src, dst] = rewrite.ports.unwrap_or([src, dst]);
            self.bound([(rewrite.src, src), (rewrite.dst, dst)], fitting(mtu, true));
        }
        Ok(())
    }

    /// [`xlat::four_to_six`], with segments as the flow takes them.
    pub(super) fn four_to_six(
        &self,
        packet: &Packet4<'_>,
        plan: &Plan6,
        mut rules: Rules<'_>,
        out: &mut Output,
    ) -> Result<(), Refusal> {
        if let L4::Tcp { src, dst, flags } = packet.l4 {
            let flow = [(packet.src, src), (packet.dst, dst)];
            if flags.syn {
                self.bound(flow, maximum(packet.transport(), false));
            }
            self.advise(flow, &mut rules);
        }
        xlat::four_to_six(packet, plan, &rules, out)?;
        if let (L4::Error { inner, .. }, Some(mtu)) = (&packet.l4, packet.too_big())
            && let InnerL4::Tcp { src, dst } = inner.l4
        {
            let flow = [(inner.src, src), (inner.dst, dst)];
            self.bound(flow, fitting(mtu, false));
        }
        Ok(())
    }

    fn advise(&self, flow: Flow, rules: &mut Rules<'_>) {
        if rules.offload.segments == Segments::Some {
            let (place, tag) = self.place(flow);
            rules.segment = place.map_or(0, |place| known(place, tag));
        }
    }

    fn bound(&self, flow: Flow, most: u16) {
        let (Some(place), tag) = self.place(flow) else {
            return;
        };
        let most = match known(place, tag) {
            0 => most,
            known => known.min(most),
        };
        place.store(tag | u64::from(most), Relaxed);
    }

    fn place(&self, mut flow: Flow) -> (Option<&AtomicU64>, u64) {
        flow.sort_unstable();
        let mut hasher = self.hasher;
        flow.hash(&mut hasher);
        let hash = hasher.finish();
        (self.places.get(hash as usize % PLACES), hash & !SEGMENT)
    }
}

/// What a place says of the flow with this tag.
fn known(place: &AtomicU64, tag: u64) -> u16 {
    let found = place.load(Relaxed);
    if found & !SEGMENT == tag {
        (found & SEGMENT) as u16
    } else {
        0
    }
}

/// The bits of a place that are no tag.
const SEGMENT: u64 = 0xffff;

/// Told apart by bits that the tag leaves out.
const PLACES: usize = 1 << 13;

// SPDX-License-Identifier: GPL-2.0-or-later
//! What a worker does with a burst of packets: beside others what it can, and alone the rest.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Origin, Slot, Traffic};
use crate::base::Tick;
use crate::base::host::Host;
use crate::daemon::meter::Tally;
use crate::dataplane::{BURST, Received, Verdict};
use crate::engine::{Instance, Meta, Outcome};
use crate::nat64::Nat64;
use crate::wire::offload::Offload;
use crate::wire::output::Output;

/// A burst of packets, and which of them an instance is to handle.
pub(super) struct Burst<'a> {
    pub(super) now: Tick,
    pub(super) packets: &'a [Received<'a>],
    /// A [`bit`] for each.
    pub(super) wanted: u64,
    /// They may wait while other gateways are asked.
    pub(super) may_wait: bool,
}

impl Traffic {
    /// Handles what an instance is to handle of a burst: first, beside other workers, what only
    /// keeps sessions alive, and then the rest. No packet overtakes one of its flow.
    pub(super) fn serve(
        &self,
        slot: &Slot,
        burst: &Burst<'_>,
        verdicts: &mut [Verdict],
        out: &mut Output,
    ) {
        if burst.wanted == 0 {
            return;
        }
        let mut tally = Tally::begin();
        let late = self.serve_settled(slot, burst, verdicts, &mut tally, out);
        if late != 0 {
            let mut instance = slot.lock();
            let host = self.host.view();
            let packets = burst.packets.iter().zip(verdicts.iter_mut()).enumerate();
            for (index, (packet, verdict)) in packets {
                if late & bit(index) != 0 {
                    let meta = meta((index, packet), burst.may_wait, &host);
                    *verdict = handle(&mut instance, burst.now, &meta, packet, &mut tally, out);
                }
            }
            drop(host);
            self.publish(slot, &mut instance, Origin::Packets);
            if let Some(mark) = instance.sessions_mut().and_then(Nat64::take_exhausted) {
                slot.warn_exhausted(mark);
            }
        }
        slot.meter.add(lane(), &tally);
    }

    /// Handles what can be handled beside other workers; what is returned are the others.
    fn serve_settled(
        &self,
        slot: &Slot,
        burst: &Burst<'_>,
        verdicts: &mut [Verdict],
        tally: &mut Tally,
        out: &mut Output,
    ) -> u64 {
        let (mut late, mut flows, mut row) = (0, 0, 0);
        let instance = slot.read();
        // The host's addresses are locked once for a burst; always after the instance.
        let host = self.host.view();
        let mut turn = instance.turn(burst.now, lane(), burst.packets.len());
        let packets = burst.packets.iter().zip(verdicts.iter_mut()).enumerate();
        for (index, (packet, verdict)) in packets {
            if burst.wanted & bit(index) == 0 {
                continue;
            }
            let waits = row == ENOUGH || flows != 0 && flows & flow(packet.bytes) != 0;
            let outcome = if waits {
                None
            } else {
                let meta = meta((index, packet), burst.may_wait, &host);
                turn.handle(&meta, packet.bytes, out)
            };
            match outcome {
                Some(outcome) => {
                    tally.count(packet.bytes, outcome);
                    *verdict = verdict_on(outcome);
                    row = 0;
                }
                None => {
                    late |= bit(index);
                    flows |= flow(packet.bytes);
                    row = ENOUGH.min(row + 1);
                }
            }
        }
        late
    }
}

pub(super) fn handle(
    instance: &mut Instance,
    now: Tick,
    meta: &Meta<'_>,
    packet: &Received<'_>,
    tally: &mut Tally,
    out: &mut Output,
) -> Verdict {
    let outcome = instance.handle(now, meta, packet.bytes, out);
    tally.count(packet.bytes, outcome);
    verdict_on(outcome)
}

/// `place` is that of the packet in its burst.
pub(super) const fn meta<'a>(
    (place, packet): (usize, &Received<'_>),
    may_wait: bool,
    host: &'a dyn Host,
) -> Meta<'a> {
    Meta {
        mark: packet.mark,
        ingress_mtu: packet.ingress_mtu,
        reassembled: packet.reassembled,
        from_host: packet.from_host,
        offload: Offload {
            place: Some(place),
            ..packet.offload
        },
        may_wait: may_wait && !packet.from_host,
        host,
    }
}

const fn verdict_on(outcome: Outcome) -> Verdict {
    match outcome {
        Outcome::Translated | Outcome::Dropped(_) | Outcome::Held => Verdict::Taken,
        Outcome::NotOurs(_) => Verdict::Accept,
    }
}

thread_local! {
    static LANE: usize = NEXT_LANE.fetch_add(1, Ordering::Relaxed);
}

static NEXT_LANE: AtomicUsize = AtomicUsize::new(0);

/// Where this thread counts.
pub(super) fn lane() -> usize {
    LANE.with(|lane| *lane)
}

/// The place of a packet of a burst in a set of them.
pub(super) const fn bit(index: usize) -> u64 {
    const { assert!(BURST <= u64::BITS as usize) };
    1 << index
}

/// One of 64 bits for the flow of a packet, by its addresses and ports. Some flows have the same.
fn flow(packet: &[u8]) -> u64 {
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let (addresses, ports) = match packet.first().map(|byte| (byte >> 4, byte & 0xf)) {
        Some((6, _)) => (8..40, 40),
        Some((_, words)) => (12..20, usize::from(words) * 4),
        None => return 1,
    };
    let parts = [packet.get(addresses), packet.get(ports..ports + 4)];
    let words = parts
        .into_iter()
        .flatten()
        .flat_map(|part| part.as_chunks::<4>().0);
    let hash = words.fold(0, |hash: u64, word| {
        (hash.rotate_left(5) ^ u64::from(u32::from_ne_bytes(*word))).wrapping_mul(SPREAD)
    });
    1 << (hash >> 58)
}

/// After so many packets in a row that need an instance alone, the rest of a burst is not tried
/// beside others: where sessions begin, more of them do.
const ENOUGH: u32 = 4;

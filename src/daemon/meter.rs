// SPDX-License-Identifier: GPL-2.0-or-later
//! What metrics count of packets and the engine does not: bytes, protocols, time.
//!
//! A burst is counted on the stack and added once. Each worker adds to a shard of its own, so that
//! no two write to the same cache line; whoever asks adds the shards up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::base::Protocol;
use crate::engine::Outcome;
use crate::wire;

/// By direction, protocol and outcome, as in [`KINDS`].
const COUNTS: usize = 2 * 4 * 3;

/// Upper bounds of the histogram, in seconds.
pub(super) const BOUNDS: [f64; 14] = [
    0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005,
    0.01, 0.05, 0.1, 1.0,
];

const DIRECTIONS: [&str; 2] = ["6to4", "4to6"];
const PROTOCOLS: [&str; 4] = ["tcp", "udp", "icmp", "other"];
const OUTCOMES: [&str; 3] = ["translated", "dropped", "left"];

/// More workers than this share shards.
const SHARDS: usize = 16;

/// The packets of one burst.
pub(super) struct Tally {
    began: Instant,
    counts: [Count; COUNTS],
    translated: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// All packets of an instance, since the program began.
pub(super) struct Meter(Box<[Shard; SHARDS]>);

/// Aligned, because neighbouring cache lines are fetched in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Shard {
    packets: [AtomicU64; COUNTS],
    bytes: [AtomicU64; COUNTS],
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

/// What a [`Meter`] shows.
#[derive(Debug, PartialEq)]
pub(super) struct Reading {
    pub(super) counts: [Count; COUNTS],
    pub(super) buckets: [u64; BOUNDS.len() + 1],
    pub(super) seconds: f64,
}

impl Tally {
    pub(super) fn begin() -> Self {
        Self {
            began: Instant::now(),
            counts: [Count::default(); COUNTS],
            translated: 0,
        }
    }

    pub(super) fn count(&mut self, packet: &[u8], outcome: Outcome) {
        let direction = usize::from(packet.first().is_some_and(|byte| byte >> 4 == 4));
        let protocol = wire::protocol(packet).map_or(3, Protocol::index);
        let outcome = match outcome {
            Outcome::Translated => 0,
            Outcome::Dropped(_) => 1,
            Outcome::NotOurs(_) => 2,
            // Counted when it is decided.
            Outcome::Held => return,
        };
        self.translated += u64::from(outcome == 0);
        let place = (direction * PROTOCOLS.len() + protocol) * OUTCOMES.len() + outcome;
        if let Some(count) = self.counts.get_mut(place) {
            count.packets += 1;
            count.bytes += packet.len() as u64;
        }
    }
}

impl Meter {
    pub(super) fn new() -> Self {
        Self(Box::default())
    }

    /// Adds a burst that was just handled. Workers that add at the same time have different `lane`s; those beyond the shards share.
    pub(super) fn add(&self, lane: usize, tally: &Tally) {
        let Some(shard) = self.0.get(lane % SHARDS) else {
            return;
        };
        let sums = shard.packets.iter().zip(&shard.bytes);
        for ((packets, bytes), count) in sums.zip(&tally.counts) {
            if count.packets != 0 {
                packets.fetch_add(count.packets, Relaxed);
                bytes.fetch_add(count.bytes, Relaxed);
            }
        }
        if tally.translated == 0 {
            return;
        }
        let took = tally.began.elapsed();
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = shard.buckets.get(bucket) {
            bucket.fetch_add(tally.translated, Relaxed);
        }
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let all = nanoseconds.saturating_mul(tally.translated);
        shard.nanoseconds.fetch_add(all, Relaxed);
    }

    pub(super) fn read(&self) -> Reading {
        let mut reading = Reading {
            counts: [Count::default(); COUNTS],
            buckets: [0; BOUNDS.len() + 1],
            seconds: 0.0,
        };
        let mut nanoseconds = 0;
        for shard in self.0.iter() {
            let sums = shard.packets.iter().zip(&shard.bytes);
            for ((packets, bytes), count) in sums.zip(&mut reading.counts) {
                count.packets += packets.load(Relaxed);
                count.bytes += bytes.load(Relaxed);
            }
            for (theirs, bucket) in shard.buckets.iter().zip(&mut reading.buckets) {
                *bucket += theirs.load(Relaxed);
            }
            nanoseconds += shard.nanoseconds.load(Relaxed);
        }
        reading.seconds = nanoseconds as f64 / 1e9;
        reading
    }
}

impl Reading {
    /// The counts with the values of their labels: direction, protocol, outcome.
    pub(super) fn counts(&self) -> impl Iterator<Item = ([&'static str; 3], Count)> {
        let labels = DIRECTIONS.into_iter().flat_map(|direction| {
            PROTOCOLS.into_iter().flat_map(move |protocol| {
                OUTCOMES
                    .into_iter()
                    .map(move |outcome| [direction, protocol, outcome])
            })
        });
        labels.zip(self.counts.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::counters::Counter;
    use crate::wire::samples::{A4, A6, B6, C4, icmp, raw6, tcp, udp};

    #[test]
    fn bursts_of_all_workers_add_up() {
        let meter = Meter::new();
        let (plain, other) = (
            udp([1, 2], b"12345").over6(A6, B6),
            raw6(A6, B6, 50, &[0; 8]),
        );
        let (back, ping) = (
            tcp([1, 2], 0, b"").over4(C4, A4),
            icmp(8, 0, [0; 4], b"").over4(C4, A4),
        );
        let burst = |lane| {
            let mut tally = Tally::begin();
            tally.count(&plain, Outcome::Translated);
            tally.count(&plain, Outcome::Translated);
            tally.count(&back, Outcome::Translated);
            tally.count(&ping, Outcome::Dropped(Counter::FourSixTtl));
            tally.count(&other, Outcome::NotOurs(Counter::UnknownL4Proto));
            tally.count(&[], Outcome::NotOurs(Counter::SkbTruncated));
            meter.add(lane, &tally);
        };
        std::thread::scope(|scope| {
            for lane in 0..SHARDS + 2 {
                scope.spawn(move || burst(lane));
            }
        });
        let bursts = SHARDS as u64 + 2;
        let reading = meter.read();
        let found: Vec<_> = reading.counts().filter(|(_, c)| c.packets != 0).collect();
        let count = |packets: u64, bytes: usize| Count {
            packets: packets * bursts,
            bytes: bytes as u64 * bursts,
        };
        assert_eq!(
            found,
            [
                (["6to4", "udp", "translated"], count(2, 2 * plain.len())),
                (["6to4", "other", "left"], count(2, other.len())),
                (["4to6", "tcp", "translated"], count(1, back.len())),
                (["4to6", "icmp", "dropped"], count(1, ping.len())),
            ]
        );
        assert_eq!(reading.buckets.iter().sum::<u64>(), 3 * bursts);
        assert!(reading.seconds > 0.0);
    }

    #[test]
    fn time_counts_for_each_translated_packet_of_a_burst() {
        let packet = udp([1, 2], b"").over4(C4, A4);
        let meter = Meter::new();
        let mut tally = Tally::begin();
        tally.began -= std::time::Duration::from_millis(30);
        tally.count(&packet, Outcome::Dropped(Counter::Adf));
        meter.add(0, &tally);
        assert_eq!(meter.read().buckets, [0; BOUNDS.len() + 1]);
        tally.count(&packet, Outcome::Translated);
        tally.count(&packet, Outcome::Translated);
        meter.add(0, &tally);
        let reading = meter.read();
        // However long this thread had to wait.
        let later = BOUNDS.partition_point(|bound| *bound < 0.03);
        assert_eq!(reading.buckets[later..].iter().sum::<u64>(), 2);
        assert!(reading.seconds >= 0.06);
    }
}

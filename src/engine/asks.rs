// SPDX-License-Identifier: GPL-2.0-or-later
//! Packets of flows that another gateway may know: they wait while it is asked.
//!
//! Where several gateways are active, the answer of a server may arrive at one that has not heard
//! yet of the session that another has begun. Its first packets are copied and wait until the
//! session is here, or nobody knows of it, or it took too long; then they are handled as if they
//! had arrived at that moment.
//!
//! Strangers fill this store and have it asked, so that everything has a limit: packets, bytes,
//! questions at a time and in a second, and vain questions of one and the same sender. What is over
//! a limit is not held: it gets at once what it would get in the end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use super::{Instance, Meta, Outcome, Translator, conclude};
use crate::base::host::Host;
use crate::base::{Protocol, Tick, Transport4};
use crate::nat64::question::Question;
use crate::wire::offload::{Offload, Segments, Virtio};
use crate::wire::output::Output;

/// The packets that wait, and the questions about them.
#[derive(Default)]
pub(super) struct Asks {
    /// Whether there is anybody to ask.
    open: bool,
    waiting: BTreeMap<Question, Waiting>,
    /// When to give up, in order. Those that were answered are still in it.
    due: VecDeque<(Tick, Question)>,
    /// Not asked yet.
    fresh: Vec<Question>,
    ready: Vec<Held>,
    packets: usize,
    bytes: usize,
    /// What nobody knows, by who made us ask.
    vain: BTreeSet<(IpAddr, Question)>,
    /// Until when that is remembered, in order.
    vain_until: VecDeque<(Tick, (IpAddr, Question))>,
    allowance: Allowance,
    refused: u64,
    late: u64,
}

/// The packets of a question, at least one.
struct Waiting {
    until: Tick,
    packets: Vec<Held>,
}

/// A packet as it arrived.
struct Held {
    mark: u32,
    ingress_mtu: u32,
    reassembled: bool,
    offload: Offload,
    bytes: Box<[u8]>,
}

/// Questions that may be asked at once, in thousandths.
struct Allowance {
    left: u64,
    at: Tick,
}

/// Packets that wait for other gateways' answers, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// That wait now.
    pub packets: usize,
    /// That did not wait because of a limit, since the instance began.
    pub refused: u64,
    /// That waited without anybody knowing their flow or all saying that they do not, likewise.
    pub late: u64,
}

impl Asks {
    pub(super) const fn is_open(&self) -> bool {
        self.open
    }

    /// Keeps a copy of a packet until its question is answered; false if it does not wait.
    #[cold]
    pub(super) fn hold(
        &mut self,
        now: Tick,
        question: Question,
        meta: &Meta<'_>,
        packet: &[u8],
    ) -> bool {
        // Super-packets are large, and belong to a connection that is known somewhere already.
        let one = meta.offload.segments == Segments::One;
        if !self.open || !meta.may_wait || !one {
            return false;
        }
        self.forget(now);
        let from = asker(&question);
        if self.vain.contains(&(from, question)) {
            return false;
        }
        let room = self.packets < PACKETS && self.bytes + packet.len() <= BYTES;
        let admitted = room
            && match self.waiting.get(&question) {
                Some(waiting) => waiting.packets.len() < PACKETS_EACH,
                None => {
                    self.fresh.len() < PACKETS
                        && !self.is_importunate(from)
                        && self.allowance.take(now)
                }
            };
        if !admitted {
            self.refused += 1;
            return false;
        }
        let waiting = self.waiting.entry(question).or_insert_with(|| {
            let until = now.after(LONGEST);
            self.due.push_back((until, question));
            self.fresh.push(question);
            let packets = Vec::new();
            Waiting { until, packets }
        });
        waiting.packets.push(Held {
            mark: meta.mark,
            ingress_mtu: meta.ingress_mtu,
            reassembled: meta.reassembled,
            // It will not be where it was.
            offload: Offload {
                place: None,
                ..meta.offload
            },
            bytes: packet.into(),
        });
        self.packets += 1;
        self.bytes += packet.len();
        true
    }

    /// Whether somebody has made us ask in vain too often.
    fn is_importunate(&self, from: IpAddr) -> bool {
        let theirs = self.vain.range((from, FIRST)..);
        let mut theirs = theirs.take_while(|(addr, _)| *addr == from);
        theirs.nth(VAIN_EACH - 1).is_some()
    }

    fn forget(&mut self, now: Tick) {
        while let Some((until, key)) = self.vain_until.front()
            && (*until <= now || self.vain_until.len() > VAIN)
        {
            self.vain.remove(key);
            self.vain_until.pop_front();
        }
    }

    /// The packets of a question wait no longer.
    fn release(&mut self, question: &Question) {
        if let Some(waiting) = self.waiting.remove(question) {
            self.ready.extend(waiting.packets);
        }
    }

    fn give_up(&mut self, question: &Question) {
        let packets = self
            .waiting
            .get(question)
            .map(|waiting| waiting.packets.len());
        self.late += packets.unwrap_or_default() as u64;
        self.release(question);
    }

    fn take_ready(&mut self, now: Tick) -> Vec<Held> {
        while let Some((due, question)) = self.due.front().copied()
            && due <= now
        {
            self.due.pop_front();
            if self.waiting.get(&question).is_some_and(|w| w.until == due) {
                self.give_up(&question);
            }
        }
        let ready = std::mem::take(&mut self.ready);
        self.packets -= ready.len();
        self.bytes -= ready.iter().map(|held| held.bytes.len()).sum::<usize>();
        ready
    }
}

impl Instance {
    /// Whether there are other gateways to ask. Without any, nothing waits.
    pub fn set_asking(&mut self, open: bool) {
        let Some(asks) = self.asks_mut() else {
            return;
        };
        asks.open = open;
        if !open {
            while let Some((_, waiting)) = asks.waiting.pop_first() {
                asks.ready.extend(waiting.packets);
            }
            asks.fresh.clear();
        }
    }

    /// Takes what is to be asked. An [answer](Self::answered) should follow each; after
    /// 200 ms there is no more waiting for it.
    pub fn take_questions(&mut self) -> Vec<Question> {
        let asks = self.asks_mut();
        asks.map(|asks| std::mem::take(&mut asks.fresh))
            .unwrap_or_default()
    }

    /// There will be no more answers to a question. `vain` says that it is known that nobody knows,
    /// so that the same is not asked again for a second.
    pub fn answered(&mut self, now: Tick, question: &Question, vain: bool) {
        let now = self.clock(now);
        let Some(asks) = self.asks_mut() else {
            return;
        };
        if !vain {
            return asks.give_up(question);
        }
        let key = (asker(question), *question);
        if asks.waiting.contains_key(question) && asks.vain.insert(key) {
            asks.vain_until.push_back((now.after(REMEMBERED), key));
        }
        asks.release(question);
    }

    /// Looks for what waits in vain because the tables know it by now. True if anything can be
    /// [resumed](Self::resume).
    pub fn reconsider(&mut self) -> bool {
        let Translator::Nat64(stateful) = &mut self.translator else {
            return false;
        };
        let super::nat64::Stateful { nat64, asks } = &mut **stateful;
        let Some(asks) = asks else {
            return false;
        };
        if !asks.waiting.is_empty() {
            let waiting = asks.waiting.keys().copied();
            let known: Vec<_> = waiting.filter(|q| nat64.knows(&self.settings, q)).collect();
            known.iter().for_each(|question| asks.release(question));
        }
        !asks.ready.is_empty()
    }

    /// Handles the packets that need not wait any more. What the kernel shall go on with is added to
    /// `out` as it came. True if there were any.
    pub fn resume(&mut self, now: Tick, host: &dyn Host, out: &mut Output) -> bool {
        let now = self.clock(now);
        let ready = self.asks_mut().map(|asks| asks.take_ready(now));
        let ready = ready.unwrap_or_default();
        for held in &ready {
            let meta = Meta {
                mark: held.mark,
                ingress_mtu: held.ingress_mtu,
                reassembled: held.reassembled,
                from_host: false,
                may_wait: false,
                offload: held.offload,
                host,
            };
            let result = self.translate(now, &meta, &held.bytes, out);
            let outcome = conclude(result, &held.bytes, out, &mut self.counters);
            if let Outcome::NotOurs(_) = outcome {
                out.packet(held.bytes.len()).copy_from_slice(&held.bytes);
                if held.offload.partial
                    && let Some(virtio) = Virtio::of_one(&held.bytes)
                {
                    out.leave(virtio);
                }
            }
        }
        !ready.is_empty()
    }

    /// The packets that wait, in numbers.
    pub fn waiting(&self) -> Tally {
        let asks = match &self.translator {
            Translator::Nat64(stateful) => stateful.asks.as_ref(),
            Translator::Siit(_) | Translator::Mapt(_) => None,
        };
        asks.map_or_else(Tally::default, |asks| Tally {
            packets: asks.packets,
            refused: asks.refused,
            late: asks.late,
        })
    }

    fn asks_mut(&mut self) -> Option<&mut Asks> {
        match &mut self.translator {
            Translator::Nat64(stateful) => stateful.asks.as_deref_mut(),
            Translator::Siit(_) | Translator::Mapt(_) => None,
        }
    }
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            left: BURST * 1_000,
            at: Tick::default(),
        }
    }
}

impl Allowance {
    /// Whether one more question may be asked.
    fn take(&mut self, now: Tick) -> bool {
        let earned = now.since(self.at).saturating_mul(PER_SECOND);
        self.at = self.at.max(now);
        self.left = self.left.saturating_add(earned).min(BURST * 1_000);
        let may = self.left >= 1_000;
        self.left -= if may { 1_000 } else { 0 };
        may
    }
}

/// Who makes us ask: the one end of the flow that is not ours.
const fn asker(question: &Question) -> IpAddr {
    match question {
        Question::Client { remote, .. } => IpAddr::V4(remote.addr),
        Question::Address { v6, .. } => IpAddr::V6(v6.addr),
    }
}

/// Packets and bytes that wait at a time, and packets for one question.
const PACKETS: usize = 256;
const BYTES: usize = 512 << 10;
const PACKETS_EACH: usize = 8;

/// Questions at once, and in the long run.
const BURST: u64 = 250;
const PER_SECOND: u64 = 1_000;

/// Milliseconds that a packet waits, should nobody say how the question ended.
const LONGEST: u64 = 200;

/// Milliseconds for which it is remembered that nobody knows; at most so many, and so many until
/// nothing is asked for the sake of the same address.
const REMEMBERED: u64 = 1_000;
const VAIN: usize = 4_096;
const VAIN_EACH: usize = 64;

/// No question comes before it.
const FIRST: Question = {
    let none = Transport4::new(Ipv4Addr::UNSPECIFIED, 0);
    Question::client(Protocol::Tcp, none, none)
};

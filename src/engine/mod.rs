// SPDX-License-Identifier: GPL-2.0-or-later
//! Floor 4: one instance. A packet comes in, what becomes of it comes out.
//!
//! Brings together what the floors below know: parse, decide, translate, count. Time is an
//! argument, packets are slices, output is a buffer of the caller's: nothing here touches the
//! system.

use core::sync::atomic::{AtomicU16, AtomicU64};
use std::net::{Ipv4Addr, Ipv6Addr};

use crossbeam_utils::CachePadded;

use crate::base::counters::{Counter, Counters, Lanes};
use crate::base::host::Host;
use crate::base::{Protocol, Tick};
use crate::map::{Mapt, Siit};
use crate::model::settings::Settings;
use crate::model::{Flavour, Stray};
use crate::nat64::merge::{ForeignSession, Merged, Order};
use crate::nat64::{Change, Nat64};
use crate::wire::offload::{Offload, Segments};
use crate::wire::output::Output;
use crate::wire::{Refusal, Verdict};
use crate::xlat::{self, Rules};

pub mod asks;
mod error_source;
mod flows;
mod mapt;
mod nat64;
mod siit;
mod tables;
mod turn;

pub use self::turn::Turn;

/// An instance: settings, tables, counters.
pub struct Instance {
    settings: Settings,
    translator: Translator,
    counters: Counters,
    /// What was counted in [turns](Turn).
    lanes: Lanes,
    /// Written with every burst, so not beside what every packet reads.
    identification: CachePadded<AtomicU16>,
    /// The latest time that was heard of, in milliseconds.
    now: AtomicU64,
}

/// What sets the flavours apart.
enum Translator {
    Nat64(Box<nat64::Stateful<Nat64>>),
    Siit(Box<siit::Stateless>),
    Mapt(Box<mapt::Mapping>),
}

/// What is known about a packet besides its bytes.
#[derive(Clone, Copy)]
pub struct Meta<'a> {
    /// The packet mark; selects a set of pool4.
    pub mark: u32,
    /// MTU of the link it came in by, in bytes; `u32::MAX` where unknown.
    pub ingress_mtu: u32,
    /// It arrived in fragments, which the kernel put together.
    pub reassembled: bool,
    /// The host itself sends it. Of those, SIIT translates ICMP errors only.
    pub from_host: bool,
    /// It may be kept for a moment, to be handled by [`Instance::resume`].
    pub may_wait: bool,
    /// What is left to do on it.
    pub offload: Offload,
    pub host: &'a dyn Host,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Translated,
    /// The kernel shall go on with it, unchanged.
    NotOurs(Counter),
    /// It is gone; its sender may have been told.
    Dropped(Counter),
    /// A copy is kept: other gateways may know what is missing.
    Held,
}

/// What a packet is translated by, besides the tables.
struct Env<'a> {
    settings: &'a Settings,
    now: Tick,
    meta: &'a Meta<'a>,
    /// For an IPv4 packet that needs one.
    identification: u16,
}

impl<'a> Env<'a> {
    /// `only` says that this is the packet that came, and that what it becomes is not translated
    /// again: so its data may be taken from where it is.
    fn rules(&self, amend_udp_checksum_zero: bool, only: bool) -> Rules<'a> {
        Rules {
            override_tos: if self.settings.override_tos {
                Some(self.settings.tos)
            } else {
                None
            },
            zeroize_traffic_class: self.settings.zeroize_traffic_class,
            lowest_ipv6_mtu: self.settings.lowest_ipv6_mtu,
            plateaus: self.settings.mtu_plateaus.as_slice(),
            ingress_mtu: self.meta.ingress_mtu,
            // The kernel knows the link the packet leaves by, and complains itself.
            egress_mtu: u32::MAX,
            amend_udp_checksum_zero,
            reassembled: self.meta.reassembled,
            identification: self.identification,
            offload: Offload {
                place: self.meta.offload.place.filter(|_| only),
                ..self.meta.offload
            },
            segment: 0,
        }
    }

    /// The same for a packet of a flow; `segment` says what segments it may have, and is asked only
    /// if that matters.
    fn rules_of(&self, only: bool, segment: impl FnOnce() -> u16) -> Rules<'a> {
        let mut rules = self.rules(nat64::AMEND, only);
        if rules.offload.segments == Segments::Some {
            rules.segment = segment();
        }
        rules
    }
}

impl Instance {
    /// `key` seeds hashes and what is chosen at random; it should be random.
    pub fn new(flavour: Flavour, settings: Settings, key: [u8; 16]) -> Self {
        Self {
            translator: match flavour {
                Flavour::Nat64 => Translator::Nat64(Box::new(nat64::Stateful::new(key))),
                Flavour::Siit => Translator::Siit(Box::new(siit::Stateless::new(key))),
                Flavour::Mapt => Translator::Mapt(Box::new(mapt::Mapping::new(key, &settings))),
            },
            settings,
            counters: Counters::default(),
            lanes: Lanes::default(),
            identification: AtomicU16::new(u16::from_ne_bytes([key[0], key[1]])).into(),
            now: AtomicU64::new(0),
        }
    }

    pub const fn flavour(&self) -> Flavour {
        match self.translator {
            Translator::Nat64(_) => Flavour::Nat64,
            Translator::Siit(_) => Flavour::Siit,
            Translator::Mapt(_) => Flavour::Mapt,
        }
    }

    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Puts other settings into force; sessions live on.
    pub fn set_settings(&mut self, settings: Settings) {
        match &mut self.translator {
            Translator::Nat64(stateful) => stateful.nat64.retime(&self.settings, &settings),
            Translator::Siit(_) => {}
            Translator::Mapt(mapping) => {
                mapping.configure(&settings);
                if let Some(napt) = &mut mapping.napt {
                    napt.nat64.retime(&self.settings, &settings);
                }
            }
        }
        self.settings = settings;
    }

    /// The tables of a NAT64 instance.
    pub const fn nat64(&self) -> Option<&Nat64> {
        match &self.translator {
            Translator::Nat64(stateful) => Some(&stateful.nat64),
            Translator::Siit(_) | Translator::Mapt(_) => None,
        }
    }

    pub const fn nat64_mut(&mut self) -> Option<&mut Nat64> {
        match &mut self.translator {
            Translator::Nat64(stateful) => Some(&mut stateful.nat64),
            Translator::Siit(_) | Translator::Mapt(_) => None,
        }
    }

    /// The tables of a NAT64 instance for those who merge into them, and what that is done by.
    pub fn replica(&mut self) -> Option<(&mut Nat64, &Settings)> {
        match &mut self.translator {
            Translator::Nat64(stateful) => Some((&mut stateful.nat64, &self.settings)),
            Translator::Siit(_) | Translator::Mapt(_) => None,
        }
    }

    /// The tables of an SIIT instance.
    pub const fn siit(&self) -> Option<&Siit> {
        match &self.translator {
            Translator::Nat64(_) | Translator::Mapt(_) => None,
            Translator::Siit(stateless) => Some(&stateless.siit),
        }
    }

    pub const fn siit_mut(&mut self) -> Option<&mut Siit> {
        match &mut self.translator {
            Translator::Nat64(_) | Translator::Mapt(_) => None,
            Translator::Siit(stateless) => Some(&mut stateless.siit),
        }
    }

    /// The tables of a MAP-T instance.
    pub const fn mapt(&self) -> Option<&Mapt> {
        match &self.translator {
            Translator::Nat64(_) | Translator::Siit(_) => None,
            Translator::Mapt(mapping) => Some(&mapping.mapt),
        }
    }

    pub const fn mapt_mut(&mut self) -> Option<&mut Mapt> {
        match &mut self.translator {
            Translator::Nat64(_) | Translator::Siit(_) => None,
            Translator::Mapt(mapping) => Some(&mut mapping.mapt),
        }
    }

    /// The tables of whatever keeps sessions: NAT64, or a customer edge of MAP-T that translates
    /// private addresses itself. To the latter, these are IPv4-mapped IPv6 addresses.
    pub fn sessions(&self) -> Option<&Nat64> {
        match &self.translator {
            Translator::Nat64(stateful) => Some(&stateful.nat64),
            Translator::Siit(_) => None,
            Translator::Mapt(mapping) => mapping.napt.as_ref().map(|napt| &napt.nat64),
        }
    }

    pub fn sessions_mut(&mut self) -> Option<&mut Nat64> {
        match &mut self.translator {
            Translator::Nat64(stateful) => Some(&mut stateful.nat64),
            Translator::Siit(_) => None,
            Translator::Mapt(mapping) => mapping.napt.as_mut().map(|napt| &mut napt.nat64),
        }
    }

    /// Has a customer edge keep sessions even if it translates no ports at the moment: they are from
    /// the time when it did.
    pub fn prepare_sessions(&mut self) {
        if let Translator::Mapt(mapping) = &mut self.translator {
            mapping.napt_mut();
        }
    }

    /// The latest packets that were dropped because they disagree with a mapping rule.
    pub fn strays(&self) -> Vec<Stray> {
        match &self.translator {
            Translator::Nat64(_) | Translator::Siit(_) => Vec::new(),
            Translator::Mapt(mapping) => mapping.strays.rows(),
        }
    }

    pub const fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// The counters, gauges included.
    pub fn counters(&self) -> Counters {
        let mut counters = self.counters.clone();
        self.lanes.add_to(&mut counters);
        let Some(nat64) = self.sessions() else {
            return counters;
        };
        let sum = |f: fn(&crate::nat64::table::Table) -> usize| {
            Protocol::ALL
                .iter()
                .map(|p| f(nat64.table(*p)) as u64)
                .sum()
        };
        counters.set(Counter::BibEntries, sum(|t| t.bib_count()));
        counters.set(Counter::Sessions, sum(|t| t.session_count()));
        counters
    }

    /// Whether the destination is one of this instance's: for packets that come without saying
    /// which instance they are for, by a route. Stateless translation never has such: what the
    /// kernel routes back to us has been through it already.
    pub fn concerns(&self, host: &dyn Host, packet: &[u8]) -> bool {
        let nat64 = match &self.translator {
            Translator::Nat64(stateful) => &stateful.nat64,
            Translator::Siit(_) => return false,
            Translator::Mapt(mapping) => return mapping.concerns(&self.settings, host, packet),
        };
        match version(packet) {
            Some(6) => destination6(packet)
                .zip(self.settings.pool6)
                .is_some_and(|(dst, pool6)| pool6.contains(dst)),
            Some(4) => destination4(packet).is_some_and(|dst| nat64.covers_address(host, dst)),
            _ => false,
        }
    }

    /// Handles a packet that starts with its IP header. What is to be sent is added to `out`.
    pub fn handle(
        &mut self,
        now: Tick,
        meta: &Meta<'_>,
        packet: &[u8],
        out: &mut Output,
    ) -> Outcome {
        let result = self.translate(now, meta, packet, out);
        outcome(result, packet, out, &mut self.counters)
    }

    fn translate(
        &mut self,
        now: Tick,
        meta: &Meta<'_>,
        packet: &[u8],
        out: &mut Output,
    ) -> Result<(), Refusal> {
        let now = self.clock(now);
        let version = self.accepts(packet)?;
        let identification = self.identification.get_mut();
        *identification = identification.wrapping_add(1);
        let env = Env {
            settings: &self.settings,
            now,
            meta,
            identification: *identification,
        };
        match (&mut self.translator, version) {
            (Translator::Nat64(stateful), Version::Six) => stateful.six(&env, packet, out),
            (Translator::Nat64(stateful), _) => stateful.four(&env, packet, out),
            (Translator::Siit(stateless), Version::Six) => stateless.six(&env, packet, out),
            (Translator::Siit(stateless), _) => stateless.four(&env, packet, out),
            (Translator::Mapt(mapping), Version::Six) => mapping.six(&env, packet, out),
            (Translator::Mapt(mapping), _) => mapping.four(&env, packet, out),
        }
    }

    /// The version of a packet that is to be looked at.
    fn accepts(&self, packet: &[u8]) -> Result<Version, Refusal> {
        let version = match version(packet) {
            Some(6) => Version::Six,
            Some(4) => Version::Four,
            _ => return Err(Refusal::accept(Counter::SkbTruncated)),
        };
        if !self.settings.manually_enabled {
            return Err(Refusal::accept(Counter::XlatorDisabled));
        }
        Ok(version)
    }

    /// Takes a session from a peer; `None` where there is no state to have any.
    pub fn merge(&mut self, now: Tick, foreign: &ForeignSession, order: Order) -> Option<Merged> {
        let now = self.clock(now);
        match &mut self.translator {
            Translator::Nat64(stateful) => {
                let nat64 = &mut stateful.nat64;
                Some(nat64.merge_session(now, &self.settings, foreign, order))
            }
            // The sessions of a customer edge are its own alone.
            Translator::Siit(_) | Translator::Mapt(_) => None,
        }
    }

    /// Ends at most `budget` sessions that are due; true when more are due. Probes of silent
    /// connections are added to `out`, and errors to those who opened one in vain.
    pub fn expire(&mut self, now: Tick, budget: usize, out: &mut Output) -> bool {
        let now = self.clock(now);
        match &mut self.translator {
            Translator::Nat64(stateful) => stateful.expire(now, &self.settings, budget, out),
            Translator::Siit(_) => false,
            Translator::Mapt(mapping) => match &mut mapping.napt {
                Some(napt) => napt.expire(now, &self.settings, budget, out),
                None => false,
            },
        }
    }

    /// The last that an instance has to say, before it goes: errors to those whose packets it
    /// holds back are added to `out`.
    pub fn close(&mut self, out: &mut Output) {
        match &mut self.translator {
            Translator::Nat64(stateful) => stateful.close(out),
            Translator::Siit(_) => {}
            Translator::Mapt(mapping) => {
                if let Some(napt) = &mut mapping.napt {
                    napt.close(out);
                }
            }
        }
    }

    pub fn next_deadline(&self) -> Option<Tick> {
        self.sessions()?.next_deadline()
    }

    /// The time, which does not go back. A worker looks at its clock before it waits for its turn;
    /// with an older time each of its sessions would be sorted in behind all that others began
    /// meanwhile.
    fn clock(&mut self, now: Tick) -> Tick {
        let latest = self.now.get_mut();
        *latest = now.0.max(*latest);
        Tick(*latest)
    }

    /// Takes what happened to the tables since the last call; `into` is emptied first.
    pub fn drain_changes(&mut self, into: &mut Vec<Change>) {
        match self.sessions_mut() {
            Some(nat64) => nat64.drain_changes(into),
            None => into.clear(),
        }
    }
}

/// Counts a packet and says what becomes of it.
fn outcome(
    result: Result<(), Refusal>,
    packet: &[u8],
    out: &mut Output,
    counters: &mut Counters,
) -> Outcome {
    match version(packet) {
        Some(6) => counters.count(Counter::Received6),
        Some(4) => counters.count(Counter::Received4),
        _ => {}
    }
    conclude(result, packet, out, counters)
}

/// Counts what becomes of a packet that was counted when it came.
fn conclude(
    result: Result<(), Refusal>,
    packet: &[u8],
    out: &mut Output,
    counters: &mut Counters,
) -> Outcome {
    let Err(refusal) = result else {
        counters.count(Counter::Success);
        return Outcome::Translated;
    };
    if refusal.verdict != Verdict::Hold {
        counters.count(refusal.reason);
    }
    match refusal.verdict {
        Verdict::Hold => Outcome::Held,
        Verdict::Accept => Outcome::NotOurs(refusal.reason),
        Verdict::Drop => Outcome::Dropped(refusal.reason),
        Verdict::Reply(reply) => {
            if let Some(error) = xlat::icmp::reply_to(packet, reply) {
                out.push_error(error);
            }
            Outcome::Dropped(refusal.reason)
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Six,
    Four,
}

fn version(packet: &[u8]) -> Option<u8> {
    packet.first().map(|byte| byte >> 4)
}

fn source6(packet: &[u8]) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
    Some(octets.into())
}

fn destination6(packet: &[u8]) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
    Some(octets.into())
}

fn source4(packet: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    Some(octets.into())
}

fn destination4(packet: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    Some(octets.into())
}

#[cfg(test)]
mod tests;

// SPDX-License-Identifier: GPL-2.0-or-later
//! Packets through a MAP-T instance (RFC 7599): addresses by mapping rules (RFC 7597), or else by
//! the prefix of the default mapping rule.
//!
//! The kernel puts fragments together first, so that every packet has its ports. What is not for
//! the instance is left alone; what is, but disagrees with its rule, is dropped.

use std::net::Ipv4Addr;

use self::domain::Role;
use self::napt::Napt;
use self::strays::Strays;
use super::error_source::Random;
use super::flows::Flows;
use super::nat64::{inner_ports, is_one_host4};
use super::tables::{Shared, Tables};
use super::{Env, destination4, destination6, version};
use crate::base::counters::Counter;
use crate::base::host::Host;
use crate::map::Mapt;
use crate::model::settings::Settings;
use crate::nat64::Nat64;
use crate::wire::output::Output;
use crate::wire::{L4, Packet4, Packet6, Refusal};
use crate::xlat::Rewrite;

mod br;
mod ce;
mod domain;
pub(super) mod napt;
mod strays;

/// What a MAP-T instance has besides settings and counters.
pub(super) struct Mapping {
    pub(super) mapt: Mapt,
    /// Of a customer edge that was told to translate private addresses itself.
    pub(super) napt: Option<Box<Napt>>,
    pub(super) strays: Strays,
    key: [u8; 16],
    random: Random,
    flows: Flows,
}

/// What one packet is translated by.
struct Way<'a, T> {
    mapt: &'a Mapt,
    /// The tables of a customer edge that translates private addresses itself.
    napt: Option<&'a mut T>,
    random: &'a Random,
    flows: &'a Flows,
}

/// A packet, which may be between the two passes of a hairpin.
#[derive(Clone, Copy)]
struct Passing<'a> {
    bytes: &'a [u8],
    /// As its sender knows it.
    original: &'a [u8],
    hairpin: bool,
    /// What its sender said, which IPv6 has no word for.
    may_fragment: bool,
}

impl Mapping {
    pub(super) fn new(key: [u8; 16], settings: &Settings) -> Self {
        let mut mapping = Self {
            mapt: Mapt::default(),
            napt: None,
            strays: Strays::default(),
            key,
            random: Random::new(key),
            flows: Flows::new(key),
        };
        mapping.configure(settings);
        mapping
    }

    /// Follows a change of the settings. Mappings that have no place any more go; when the
    /// translation of private addresses is turned off, they end in their time.
    pub(super) fn configure(&mut self, settings: &Settings) {
        if let (true, Role::Ce(own)) = (settings.mapt_napt, Role::of(settings)) {
            self.napt_mut().set_customer(&own);
        }
    }

    pub(super) fn napt_mut(&mut self) -> &mut Napt {
        let key = self.key;
        self.napt.get_or_insert_with(|| Box::new(Napt::new(key)))
    }

    pub(super) fn six(
        &mut self,
        env: &Env<'_>,
        bytes: &[u8],
        out: &mut Output,
    ) -> Result<(), Refusal> {
        let result = self.way().six(env, bytes, out);
        result.inspect_err(|refusal| {
            self.strays.note(refusal, || {
                let packet = Packet6::parse(bytes).ok()?;
                let addresses = [packet.src.into(), packet.dst.into()];
                Some((addresses, ports6(&packet).ok()?))
            });
        })
    }

    pub(super) fn four(
        &mut self,
        env: &Env<'_>,
        bytes: &[u8],
        out: &mut Output,
    ) -> Result<(), Refusal> {
        let result = self.way().four(env, bytes, out);
        result.inspect_err(|refusal| {
            self.strays.note(refusal, || {
                let packet = Packet4::parse(bytes).ok()?;
                let addresses = [packet.src.into(), packet.dst.into()];
                Some((addresses, ports4(&packet).ok()?))
            });
        })
    }

    fn way(&mut self) -> Way<'_, Nat64> {
        Way {
            mapt: &self.mapt,
            napt: self.napt.as_mut().map(|napt| &mut napt.nat64),
            random: &self.random,
            flows: &self.flows,
        }
    }

    /// Translates a packet that changes nothing here but when its session ends. `None` for others;
    /// then nothing has happened.
    pub(super) fn settled(
        &self,
        env: &Env<'_>,
        bytes: &[u8],
        out: &mut Output,
    ) -> Option<Result<(), Refusal>> {
        let mut tables = self.napt.as_ref().map(|napt| Shared::new(&napt.nat64));
        let mut way = Way {
            mapt: &self.mapt,
            napt: tables.as_mut(),
            random: &self.random,
            flows: &self.flows,
        };
        let result = match version(bytes) {
            Some(6) => way.six(env, bytes, out),
            _ => way.four(env, bytes, out),
        };
        let unsettled = tables.is_some_and(|tables| tables.unsettled)
            || result.as_ref().is_err_and(strays::concern);
        (!unsettled).then_some(result)
    }

    /// Whether a packet is for this instance, by its destination.
    pub(super) fn concerns(&self, settings: &Settings, host: &dyn Host, packet: &[u8]) -> bool {
        match (Role::of(settings), version(packet)) {
            (Role::Ce(own), Some(6)) => {
                destination6(packet).is_some_and(|dst| own.own4(dst).is_some())
            }
            (Role::Br, Some(6)) => destination6(packet)
                .zip(settings.pool6)
                .is_some_and(|(dst, dmr)| dmr.contains(dst)),
            (Role::Ce(_), Some(4)) => {
                let beyond = |dst| settings.pool6.is_some() || self.mapt.fmrt.find4(dst).is_some();
                destination4(packet).is_some_and(|dst| !is_near4(host, dst) && beyond(dst))
            }
            (Role::Br, Some(4)) => {
                destination4(packet).is_some_and(|dst| self.mapt.fmrt.find4(dst).is_some())
            }
            (Role::Ce(_) | Role::Br, _) | (Role::Nobody, _) => false,
        }
    }
}

impl<T: Tables> Way<'_, T> {
    fn six(&mut self, env: &Env<'_>, bytes: &[u8], out: &mut Output) -> Result<(), Refusal> {
        match Role::of(env.settings) {
            Role::Ce(own) => self.ce_six(env, &own, Passing::first(bytes), out),
            Role::Br => self.br_six(env, bytes, out),
            Role::Nobody => Err(Refusal::accept(Counter::MaptEui6p)),
        }
    }

    fn four(&mut self, env: &Env<'_>, bytes: &[u8], out: &mut Output) -> Result<(), Refusal> {
        match Role::of(env.settings) {
            Role::Ce(own) => self.ce_four(env, &own, bytes, out),
            Role::Br => self.br_four(env, true, bytes, out),
            Role::Nobody => Err(Refusal::accept(Counter::MaptAddr4)),
        }
    }
}

impl<'a> Passing<'a> {
    const fn first(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            original: bytes,
            hairpin: false,
            may_fragment: false,
        }
    }
}

/// Source and destination port. The identifier of an echo message is both; those of an error are
/// the quoted packet's, whose destination sent the error.
//= rfc7599#section-9
fn ports<A: Copy>(l4: &L4<A>, unknown: Counter, header: Counter) -> Result<[u16; 2], Refusal> {
    match l4 {
        L4::Tcp { src, dst, .. } | L4::Udp { src, dst } => Ok([*src, *dst]),
        L4::Echo { identifier, .. } => Ok([*identifier; 2]),
        L4::Error { inner, .. } => inner_ports(inner).map(|(_, src, dst)| [dst, src]),
        L4::Icmp { .. } => Err(Refusal::accept(unknown)),
        L4::Other => Err(Refusal::accept(Counter::UnknownL4Proto)),
        // The kernel reassembles before we see a packet; a stray one has no ports.
        //= rfc7599#section-10.2
        L4::LaterFragment => Err(Refusal::drop(header)),
    }
}

fn ports6(packet: &Packet6<'_>) -> Result<[u16; 2], Refusal> {
    ports(&packet.l4, Counter::UnknownIcmp6Type, Counter::Hdr6)
}

fn ports4(packet: &Packet4<'_>) -> Result<[u16; 2], Refusal> {
    ports(&packet.l4, Counter::UnknownIcmp4Type, Counter::Hdr4)
}

/// Whether an IPv4 address is the business of the host or its links.
fn is_near4(host: &dyn Host, addr: Ipv4Addr) -> bool {
    !is_one_host4(addr) || addr.is_link_local() || host.is_local4(addr)
}

/// What becomes of a packet after a second pass. The packet in hand is not the one that came:
/// neither kernel nor sender would know it. One answer is about what came.
fn second(result: Result<(), Refusal>) -> Result<(), Refusal> {
    result.map_err(|refusal| {
        if refusal.reason == Counter::SoFull {
            refusal
        } else {
            Refusal::drop(refusal.reason)
        }
    })
}

const fn rewrite<A>(src: A, dst: A) -> Rewrite<A> {
    Rewrite {
        src,
        dst,
        ports: None,
    }
}

#[cfg(test)]
mod tests;

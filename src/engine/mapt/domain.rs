// SPDX-License-Identifier: GPL-2.0-or-later
//! A MAP domain as one of its ends sees it: what each address of a packet becomes, and whether
//! address and port agree with their rule.
//!
//! Seen from a customer edge there is the customer *itself* and what is *beyond*: other customers
//! by forwarding rules, and all else behind the default mapping rule. A border relay has
//! *customers* on one side, by forwarding rules, and all else on the other.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::base::counters::Counter;
use crate::base::prefix::Pool6;
use crate::map::Fmrt;
use crate::map::mapt::{self, Customer, PortSet};
use crate::model::mapt::{MapRule, MaptType};
use crate::model::settings::Settings;
use crate::wire::Refusal;

/// What the addresses of one packet are translated by.
#[derive(Clone, Copy)]
pub(super) struct Domain<'a> {
    fmrt: &'a Fmrt,
    dmr: Option<Pool6>,
    lenient: bool,
}

/// Which end of the domain this is.
#[derive(Clone, Copy)]
pub(super) enum Role {
    Ce(Customer),
    Br,
    /// A customer edge whose settings do not fit together.
    Nobody,
}

impl Role {
    pub(super) fn of(settings: &Settings) -> Self {
        match settings.mapt_role() {
            MaptType::Br => Self::Br,
            MaptType::Ce => match (settings.bmr, settings.end_user_ipv6_prefix) {
                (Some(rule), Some(prefix)) => {
                    Customer::new(rule, prefix).map_or(Self::Nobody, Self::Ce)
                }
                (_, None) | (None, _) => Self::Nobody,
            },
        }
    }
}

impl<'a> Domain<'a> {
    pub(super) const fn new(fmrt: &'a Fmrt, settings: &Settings) -> Self {
        Self {
            fmrt,
            dmr: settings.pool6,
            lenient: settings.mapt_lenient,
        }
    }

    pub(super) fn is_customer4(&self, addr: Ipv4Addr) -> bool {
        self.fmrt.find4(addr).is_some()
    }

    /// The IPv4 address of whoever an ICMPv6 error comes from, if a rule knows it.
    pub(super) fn router4(&self, addr: Ipv6Addr) -> Option<Ipv4Addr> {
        match self.fmrt.find6(addr) {
            Some(rule) => Some(mapt::address4(rule, addr)),
            None => self.dmr?.extract(addr),
        }
    }

    /// All else, from IPv4.
    //= rfc7599#section-5.1
    pub(super) fn outside6(&self, addr: Ipv4Addr) -> Result<Ipv6Addr, Refusal> {
        let dmr = self.dmr.ok_or(Refusal::accept(Counter::Pool6Unset))?;
        Ok(dmr.embed(addr))
    }

    /// All else, from IPv6.
    pub(super) fn outside4(&self, addr: Ipv6Addr) -> Result<Ipv4Addr, Refusal> {
        let addr = self.dmr.and_then(|dmr| dmr.extract(addr));
        addr.ok_or(Refusal::accept(Counter::MaptPool6))
    }

    /// A customer of the border relay, from IPv4.
    pub(super) fn customer6(&self, addr: Ipv4Addr, port: u16) -> Result<Ipv6Addr, Refusal> {
        let rule = self.fmrt.find4(addr);
        let rule = rule.ok_or(Refusal::accept(Counter::MaptFmr4))?;
        self.by_rule6(rule, addr, port)
    }

    /// A customer of the border relay, from IPv6.
    pub(super) fn customer4(&self, addr: Ipv6Addr, port: u16) -> Result<Ipv4Addr, Refusal> {
        let rule = self.fmrt.find6(addr);
        let rule = rule.ok_or(Refusal::accept(Counter::MaptFmr6))?;
        self.by_rule4(rule, addr, port)
    }

    /// What is beyond a customer edge, from IPv4.
    pub(super) fn beyond6(&self, addr: Ipv4Addr, port: u16) -> Result<Ipv6Addr, Refusal> {
        match self.fmrt.find4(addr) {
            Some(rule) => self.by_rule6(rule, addr, port),
            None => self.outside6(addr),
        }
    }

    /// What is beyond a customer edge, from IPv6.
    pub(super) fn beyond4(&self, addr: Ipv6Addr, port: u16) -> Result<Ipv4Addr, Refusal> {
        match self.fmrt.find6(addr) {
            Some(rule) => self.by_rule4(rule, addr, port),
            None => self.outside4(addr),
        }
    }

    /// The customer itself, from IPv4.
    pub(super) fn own6(
        &self,
        own: &Customer,
        addr: Ipv4Addr,
        port: u16,
    ) -> Result<Ipv6Addr, Refusal> {
        if !own.rule().v4().contains(addr) {
            return Err(Refusal::accept(Counter::MaptAddr4));
        }
        if self.lenient {
            let psid = mapt::psid(own.rule(), port);
            return if psid == own.ports().psid() {
                Ok(mapt::address(own.rule(), addr, psid))
            } else {
                Err(Refusal::accept(Counter::MaptPsid))
            };
        }
        if !own.owns(addr) {
            return Err(Refusal::drop(Counter::MaptAddr4));
        }
        if !own.ports().contains(port) {
            return Err(Refusal::drop(Counter::MaptPsid));
        }
        Ok(own.address(addr))
    }

    /// Whether a packet is for the translator of the customer edge. Others in the customer's prefix
    /// are hosts that have IPv6 themselves, and talk to such behind the default mapping rule, too
    /// (RFC 7599 section 12.3).
    //= rfc7599#section-8.2
    pub(super) fn is_for(&self, own: &Customer, src: Ipv6Addr, dst: Ipv6Addr) -> bool {
        own.own4(dst).is_some()
            || self.lenient && own.prefix().contains(dst) && self.router4(src).is_some()
    }

    /// The customer itself, from IPv6.
    //= rfc7599#section-8.2
    pub(super) fn own4(
        &self,
        own: &Customer,
        addr: Ipv6Addr,
        port: u16,
    ) -> Result<Ipv4Addr, Refusal> {
        if !own.prefix().contains(addr) {
            return Err(Refusal::accept(Counter::MaptEui6p));
        }
        if self.lenient {
            return Ok(mapt::address4(own.rule(), addr));
        }
        let v4 = own.own4(addr);
        let v4 = v4.ok_or(Refusal::drop(Counter::MaptEui6p))?;
        if !own.ports().contains(port) {
            return Err(Refusal::drop(Counter::MaptPsid));
        }
        Ok(v4)
    }

    fn by_rule6(&self, rule: MapRule, addr: Ipv4Addr, port: u16) -> Result<Ipv6Addr, Refusal> {
        let psid = mapt::psid(rule, port);
        //= rfc7597#section-5.1
        if !self.lenient && !PortSet::of(rule, psid).contains(port) {
            return Err(Refusal::drop(Counter::MaptPsid));
        }
        Ok(mapt::address(rule, addr, psid))
    }

    //= rfc7599#section-8.2
    //= rfc7599#section-8.3
    fn by_rule4(&self, rule: MapRule, addr: Ipv6Addr, port: u16) -> Result<Ipv4Addr, Refusal> {
        if !self.lenient && !mapt::agrees(rule, addr, port) {
            return Err(FAILED_POLICY);
        }
        Ok(mapt::address4(rule, addr))
    }
}

/// Destination unreachable: source address failed ingress/egress policy.
const FAILED_POLICY: Refusal = Refusal::reply(Counter::MaptPsid, 1, 5, [0; 4]);

// SPDX-License-Identifier: GPL-2.0-or-later
//! How far a packet may change the tables of sessions that it goes by.

use super::Env;
use crate::base::counters::Counter;
use crate::base::{Transport4, Transport6};
use crate::nat64::question::Question;
use crate::nat64::{Inbound, Nat64, Outbound};
use crate::wire::Refusal;

/// Tables that say which addresses and ports a packet gets.
pub(super) trait Tables {
    fn look(&self) -> &Nat64;

    /// There is more to do about a packet than these tables can.
    fn unsettle(&mut self);

    /// See [`Nat64::knows`]; tables that can not tell say that they do.
    fn knows(&mut self, env: &Env<'_>, question: &Question) -> bool;

    /// See [`Nat64::bound_segment`].
    fn bound_segment(&mut self, v4: Transport4, remote: Transport4, most: u16);

    /// See [`Nat64::outbound`].
    fn outbound(&mut self, env: &Env<'_>, flow: Outbound) -> Result<Transport4, Refusal>;

    /// See [`Nat64::inbound`].
    fn inbound(&mut self, env: &Env<'_>, flow: Inbound<'_>) -> Result<Transport6, Refusal>;
}

/// Held by one thread alone: everything may change.
impl Tables for Nat64 {
    fn look(&self) -> &Nat64 {
        self
    }

    fn unsettle(&mut self) {}

    fn knows(&mut self, env: &Env<'_>, question: &Question) -> bool {
        self.knows(env.settings, question)
    }

    fn bound_segment(&mut self, v4: Transport4, remote: Transport4, most: u16) {
        self.bound_segment(v4, remote, most);
    }

    fn outbound(&mut self, env: &Env<'_>, flow: Outbound) -> Result<Transport4, Refusal> {
        self.outbound(env.now, env.settings, env.meta.host, flow)
    }

    fn inbound(&mut self, env: &Env<'_>, flow: Inbound<'_>) -> Result<Transport6, Refusal> {
        self.inbound(env.now, env.settings, flow)
    }
}

/// Looked at by several threads at once: only ends of sessions may be put off.
pub(super) struct Shared<'a> {
    nat64: &'a Nat64,
    /// A packet was refused because it would have changed more. What became of it has no meaning.
    pub(super) unsettled: bool,
}

impl<'a> Shared<'a> {
    pub(super) const fn new(nat64: &'a Nat64) -> Self {
        Self {
            nat64,
            unsettled: false,
        }
    }

    fn settled<A>(&mut self, found: Option<A>) -> Result<A, Refusal> {
        self.unsettled |= found.is_none();
        found.ok_or(Refusal::drop(Counter::Unknown))
    }
}

impl Tables for Shared<'_> {
    fn look(&self) -> &Nat64 {
        self.nat64
    }

    fn unsettle(&mut self) {
        self.unsettled = true;
    }

    fn knows(&mut self, _: &Env<'_>, _: &Question) -> bool {
        true
    }

    fn bound_segment(&mut self, v4: Transport4, remote: Transport4, most: u16) {
        self.unsettled |= self.nat64.would_bound_segment(v4, remote, most);
    }

    fn outbound(&mut self, env: &Env<'_>, flow: Outbound) -> Result<Transport4, Refusal> {
        let (nat64, host) = (self.nat64, env.meta.host);
        self.settled(nat64.outbound_settled(env.now, env.settings, host, flow))
    }

    fn inbound(&mut self, env: &Env<'_>, flow: Inbound<'_>) -> Result<Transport6, Refusal> {
        let nat64 = self.nat64;
        self.settled(nat64.inbound_settled(env.now, env.settings, &flow))
    }
}

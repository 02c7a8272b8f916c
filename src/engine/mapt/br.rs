// SPDX-License-Identifier: GPL-2.0-or-later
//! The border relay (RFC 7599 section 5): customers by forwarding rules, all else by the default
//! mapping rule.

use super::domain::Domain;
use super::{Way, ports4, ports6, rewrite, second};
use crate::base::counters::Counter;
use crate::engine::nat64::{AMEND, is_one_host4};
use crate::engine::{Env, destination4, destination6};
use crate::wire::output::Output;
use crate::wire::{L4, Packet4, Packet6, Refusal};
use crate::xlat::{Plan4, Plan6};

impl<T> Way<'_, T> {
    pub(super) fn br_six(
        &self,
        env: &Env<'_>,
        bytes: &[u8],
        out: &mut Output,
    ) -> Result<(), Refusal> {
        let Some(dst) = destination6(bytes) else {
            return Err(Refusal::drop(Counter::SkbTruncated));
        };
        let domain = Domain::new(&self.mapt.fmrt, env.settings);
        // Before the rest is read: what is wrong with a packet that is not ours does not matter.
        let dst = domain.outside4(dst)?;
        let packet = Packet6::parse(bytes)?;
        let [port, _] = ports6(&packet)?;
        let (src, inner) = if let L4::Error { inner, .. } = &packet.l4 {
            let inner = rewrite(
                domain.outside4(inner.src)?,
                domain.customer4(inner.dst, port)?,
            );
            let src = match domain.router4(packet.src) {
                Some(src) => src,
                None => {
                    let (host, hops) = (env.meta.host, packet.hop_limit);
                    self.random.source4(env.settings, host, hops, dst)?
                }
            };
            (src, Some(inner))
        } else {
            (domain.customer4(packet.src, port)?, None)
        };
        if !is_one_host4(dst) {
            return Err(Refusal::drop(Counter::UntranslatableDst6));
        }
        let returns = domain.is_customer4(dst);
        let outer = rewrite(src, dst);
        let first = out.len();
        let plan = Plan4 { outer, inner };
        self.flows
            .six_to_four(&packet, &plan, env.rules(AMEND, !returns), out)?;
        if !returns {
            return Ok(());
        }
        // From customer to customer.
        let packet = out.take_back(first);
        let result = self.br_four(env, false, &packet, out);
        out.give_back(packet);
        second(result)
    }

    /// `only` says that this is the packet that came.
    pub(super) fn br_four(
        &self,
        env: &Env<'_>,
        only: bool,
        bytes: &[u8],
        out: &mut Output,
    ) -> Result<(), Refusal> {
        let Some(dst) = destination4(bytes) else {
            return Err(Refusal::drop(Counter::SkbTruncated));
        };
        let domain = Domain::new(&self.mapt.fmrt, env.settings);
        if !domain.is_customer4(dst) {
            return Err(Refusal::accept(Counter::MaptFmr4));
        }
        let packet = Packet4::parse(bytes)?;
        if !is_one_host4(packet.src) {
            return Err(Refusal::accept(Counter::FourSixSrc));
        }
        let [_, port] = ports4(&packet)?;
        let src = domain.outside6(packet.src)?;
        let dst = domain.customer6(dst, port)?;
        let inner = match &packet.l4 {
            L4::Error { inner, .. } => Some(rewrite(
                domain.customer6(inner.src, port)?,
                domain.outside6(inner.dst)?,
            )),
            L4::Tcp { .. }
            | L4::Udp { .. }
            | L4::Echo { .. }
            | L4::Icmp { .. }
            | L4::Other
            | L4::LaterFragment => None,
        };
        let outer = rewrite(src, dst);
        let plan = Plan6 { outer, inner };
        self.flows
            .four_to_six(&packet, &plan, env.rules(AMEND, only), out)
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! The customer edge (RFC 7599 section 5): itself by its basic mapping rule, others by forwarding
//! rules, all else by the default mapping rule.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::domain::Domain;
use super::{Passing, Way, is_near4, napt, ports4, ports6, rewrite, second};
use crate::base::Transport4;
use crate::base::counters::Counter;
use crate::engine::nat64::{AMEND, is_one_host4};
use crate::engine::tables::Tables;
use crate::engine::{Env, destination4, destination6, source4, source6};
use crate::map::mapt::Customer;
use crate::wire::output::Output;
use crate::wire::{Inner, L4, Packet4, Packet6, Refusal};
use crate::xlat::{Plan, Plan4, Plan6, Rewrite};

impl<T: Tables> Way<'_, T> {
    pub(super) fn ce_four(
        &mut self,
        env: &Env<'_>,
        own: &Customer,
        bytes: &[u8],
        out: &mut Output,
    ) -> Result<(), Refusal> {
        let Some((src, dst)) = source4(bytes).zip(destination4(bytes)) else {
            return Err(Refusal::drop(Counter::SkbTruncated));
        };
        let napt = env.settings.mapt_napt;
        if is_near4(env.meta.host, dst) || napt && dst.is_private() {
            return Err(Refusal::accept(Counter::FourSixDst));
        }
        let mut packet = Packet4::parse(bytes).map_err(|refusal| {
            // Before the packet can be read, only this tells whose it is.
            if napt || own.rule().v4().contains(src) {
                refusal
            } else {
                Refusal::accept(Counter::MaptAddr4)
            }
        })?;
        let ports = ports4(&packet)?;
        if own.rule().shares() && packet.fragment.is_none() {
            // Other customers with the same address choose from other identifications.
            //= rfc7599#section-10.3
            let set = own.ports();
            let turn = u32::from(env.identification).checked_rem(set.count());
            let free = turn.and_then(|turn| set.port(turn));
            packet.identification = free.unwrap_or(packet.identification);
        }
        let (plan, hairpin) = match (&packet.l4, napt) {
            (L4::Error { inner, .. }, true) => self.private_error6(env, own, &packet, inner)?,
            (L4::Error { inner, .. }, false) => self.error6(env, own, &packet, inner, ports)?,
            (_, true) => self.private6(env, own, &packet, ports)?,
            (_, false) => {
                let domain = Domain::new(&self.mapt.fmrt, env.settings);
                let src = domain.own6(own, packet.src, ports[0])?;
                let (dst, hairpin) = towards(&domain, own, packet.dst, ports[1])?;
                (plain(rewrite(src, dst)), hairpin)
            }
        };
        let first = out.len();
        let mut rules = env.rules(AMEND, !hairpin);
        if hairpin {
            // No link of IPv6 is on its way.
            rules.lowest_ipv6_mtu = u32::MAX;
        }
        self.flows.four_to_six(&packet, &plan, rules, out)?;
        if !hairpin {
            return Ok(());
        }
        let back = out.take_back(first);
        let passing = Passing {
            bytes: &back,
            original: bytes,
            hairpin,
            may_fragment: !packet.dont_fragment,
        };
        let result = self.ce_six(env, own, passing, out);
        out.give_back(back);
        second(result)
    }

    /// A packet from a private address.
    fn private6(
        &mut self,
        env: &Env<'_>,
        own: &Customer,
        packet: &Packet4<'_>,
        ports: [u16; 2],
    ) -> Result<(Plan6, bool), Refusal> {
        if let Some(refusal) = packet.refusal {
            return Err(refusal);
        }
        if !is_one_host4(packet.src) {
            return Err(Refusal::accept(Counter::FourSixSrc));
        }
        let domain = Domain::new(&self.mapt.fmrt, env.settings);
        if !matches!(packet.l4, L4::Echo { .. }) {
            // Ports are few: none is taken for what goes nowhere. That of an echo message is not
            // known before it is taken.
            private_towards(&domain, own, packet.dst, ports[1])?;
        }
        let tables = self.napt.as_deref_mut();
        let tables = tables.ok_or(Refusal::drop(Counter::MaptAddr4))?;
        let (v4, port) = napt::leave(tables, env, packet.src, packet.dst, &packet.l4, ports)?;
        let (dst, hairpin) = private_towards(&domain, own, packet.dst, port)?;
        let outer = Rewrite {
            src: own.address(v4.addr),
            dst,
            ports: Some([v4.port, port]),
        };
        Ok((plain(outer), hairpin))
    }

    /// An error about a packet that was sent to the customer.
    fn error6(
        &mut self,
        env: &Env<'_>,
        own: &Customer,
        packet: &Packet4<'_>,
        inner: &Inner<Ipv4Addr>,
        [from, to]: [u16; 2],
    ) -> Result<(Plan6, bool), Refusal> {
        let domain = Domain::new(&self.mapt.fmrt, env.settings);
        let inner_dst = domain.own6(own, inner.dst, from)?;
        let (inner_src, _) = towards(&domain, own, inner.src, to)?;
        let (dst, hairpin) = towards(&domain, own, packet.dst, to)?;
        let src = match domain.own6(own, packet.src, from) {
            Ok(src) => src,
            // Any router of the customer's.
            Err(_) => self.random.source6(env.settings, env.meta.host, dst)?,
        };
        let plan = Plan {
            outer: rewrite(src, dst),
            inner: Some(rewrite(inner_src, inner_dst)),
        };
        Ok((plan, hairpin))
    }

    /// An error about a packet that was sent to a private address.
    fn private_error6(
        &self,
        env: &Env<'_>,
        own: &Customer,
        packet: &Packet4<'_>,
        inner: &Inner<Ipv4Addr>,
    ) -> Result<(Plan6, bool), Refusal> {
        let tables = self.napt.as_deref();
        let tables = tables.ok_or(Refusal::drop(Counter::MaptAddr4))?;
        let (v4, port) = napt::known_as(tables.look(), inner)?;
        let domain = Domain::new(&self.mapt.fmrt, env.settings);
        let (inner_src, _) = private_towards(&domain, own, inner.src, port)?;
        let (dst, hairpin) = private_towards(&domain, own, packet.dst, port)?;
        let src = own.address(v4.addr);
        let plan = Plan {
            outer: rewrite(src, dst),
            inner: Some(Rewrite {
                src: inner_src,
                dst: src,
                ports: Some([port, v4.port]),
            }),
        };
        Ok((plan, hairpin))
    }

    pub(super) fn ce_six(
        &mut self,
        env: &Env<'_>,
        own: &Customer,
        passing: Passing<'_>,
        out: &mut Output,
    ) -> Result<(), Refusal> {
        let bytes = passing.bytes;
        let Some((src, dst)) = source6(bytes).zip(destination6(bytes)) else {
            return Err(Refusal::drop(Counter::SkbTruncated));
        };
        let domain = Domain::new(&self.mapt.fmrt, env.settings);
        // Before the rest is read: what is wrong with a packet that is not ours does not matter.
        if !domain.is_for(own, src, dst) {
            return Err(Refusal::accept(Counter::MaptEui6p));
        }
        let packet = Packet6::parse(bytes)?;
        let ports = ports6(&packet)?;
        let plan = if let L4::Error { inner, .. } = &packet.l4 {
            self.error4(env, own, &packet, inner, ports, passing.hairpin)?
        } else {
            let src = peer4(&domain, own, packet.src, ports[0], passing.hairpin)?;
            let dst = domain.own4(own, packet.dst, ports[1])?;
            if !is_one_host4(src) {
                return Err(Refusal::drop(Counter::UntranslatableDst6));
            }
            match self.napt.as_deref_mut().filter(|_| env.settings.mapt_napt) {
                None => plain(rewrite(src, dst)),
                Some(tables) => {
                    if let Some(refusal) = packet.refusal {
                        return Err(refusal);
                    }
                    let v4 = Transport4::new(dst, ports[1]);
                    let remote = Transport4::new(src, ports[0]);
                    let original = passing.original;
                    let (client, port) =
                        napt::arrive(tables, env, v4, remote, &packet.l4, original)?;
                    plain(Rewrite {
                        src,
                        dst: client.addr,
                        ports: Some([port, client.port]),
                    })
                }
            }
        };
        let mut rules = env.rules(AMEND, !passing.hairpin);
        rules.reassembled |= passing.may_fragment;
        self.flows.six_to_four(&packet, &plan, rules, out)
    }

    /// An error about a packet that the customer sent.
    fn error4(
        &mut self,
        env: &Env<'_>,
        own: &Customer,
        packet: &Packet6<'_>,
        inner: &Inner<Ipv6Addr>,
        [from, to]: [u16; 2],
        hairpin: bool,
    ) -> Result<Plan4, Refusal> {
        let domain = Domain::new(&self.mapt.fmrt, env.settings);
        let dst = domain.own4(own, packet.dst, to)?;
        let inner_src = domain.own4(own, inner.src, to)?;
        let inner_dst = peer4(&domain, own, inner.dst, from, hairpin)?;
        let known = if hairpin { own.own4(packet.src) } else { None };
        let src = match known.or_else(|| domain.router4(packet.src)) {
            Some(src) => src,
            None => {
                let (host, hops) = (env.meta.host, packet.hop_limit);
                self.random.source4(env.settings, host, hops, dst)?
            }
        };
        let Some(tables) = self.napt.as_deref().filter(|_| env.settings.mapt_napt) else {
            return Ok(Plan {
                outer: rewrite(src, dst),
                inner: Some(rewrite(inner_src, inner_dst)),
            });
        };
        let (client, port) = napt::behind(tables.look(), Transport4::new(inner_src, to), inner)?;
        Ok(Plan {
            outer: rewrite(src, client.addr),
            inner: Some(Rewrite {
                src: client.addr,
                dst: inner_dst,
                ports: Some([client.port, port]),
            }),
        })
    }
}

/// What a destination becomes, and whether a packet to it comes back at once: by a forwarding rule
/// to the customer itself.
fn towards(
    domain: &Domain<'_>,
    own: &Customer,
    dst: Ipv4Addr,
    port: u16,
) -> Result<(Ipv6Addr, bool), Refusal> {
    let v6 = domain.beyond6(dst, port)?;
    Ok((v6, domain.is_customer4(dst) && own.prefix().contains(v6)))
}

/// The same for packets from private addresses: the customer's own ports are known without a rule.
fn private_towards(
    domain: &Domain<'_>,
    own: &Customer,
    dst: Ipv4Addr,
    port: u16,
) -> Result<(Ipv6Addr, bool), Refusal> {
    if own.owns(dst) && own.ports().contains(port) {
        return Ok((own.address(dst), true));
    }
    towards(domain, own, dst, port)
}

/// The other end of a packet to the customer, which may be the customer.
fn peer4(
    domain: &Domain<'_>,
    own: &Customer,
    addr: Ipv6Addr,
    port: u16,
    hairpin: bool,
) -> Result<Ipv4Addr, Refusal> {
    if hairpin && own.prefix().contains(addr) {
        return domain.own4(own, addr, port);
    }
    domain.beyond4(addr, port)
}

const fn plain<A>(outer: Rewrite<A>) -> Plan<A> {
    Plan { outer, inner: None }
}

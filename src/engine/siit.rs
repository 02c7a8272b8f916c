// SPDX-License-Identifier: GPL-2.0-or-later
//! Packets through an SIIT instance (RFC 7915): every address has its translation, whatever came
//! before. Fragments are translated one by one.

use std::net::{Ipv4Addr, Ipv6Addr};

use self::sent::Sent;
use super::error_source::Random;
use super::flows::Flows;
use super::{Env, destination4, destination6, source6};
use crate::base::counters::Counter;
use crate::map::{Role, Siit, Untranslatable};
use crate::model::{AddressRule, HairpinMode};
use crate::wire::output::Output;
use crate::wire::{Inner, L4, Packet4, Packet6, Refusal};
use crate::xlat::{Plan, Rewrite, Rules};

mod sent;

/// What an SIIT instance has besides settings and counters.
pub(super) struct Stateless {
    pub(super) siit: Siit,
    random: Random,
    sent: Sent,
    flows: Flows,
}

/// A pass from IPv4 to IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// Both ends by the EAM table.
    Plain,
    /// The end that the packet (or the one an error is about) comes from by pool6, so that
    /// answers come back to the translator.
    Hairpin,
}

// Jool has the names of the first two the wrong way round, and so have we.
const SRC6: Refusal = Refusal::accept(Counter::SixFourDst);
const DST6: Refusal = Refusal::accept(Counter::SixFourSrc);
const SRC4: Refusal = Refusal::accept(Counter::FourSixSrc);
const DST4: Refusal = Refusal::accept(Counter::FourSixDst);

impl Stateless {
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self {
            siit: Siit::default(),
            random: Random::new(key),
            sent: Sent::new(),
            flows: Flows::new(key),
        }
    }

    pub(super) fn six(&self, env: &Env<'_>, bytes: &[u8], out: &mut Output) -> Result<(), Refusal> {
        // Before the rest is read: what is wrong with a packet that is not ours does not matter.
        let Some(dst) = destination6(bytes) else {
            return Err(Refusal::drop(Counter::SkbTruncated));
        };
        let (dst, dst_rule) = self.end6(env, dst).map_err(|_| DST6)?;
        let packet = Packet6::parse(bytes).map_err(|refusal| match dst_rule {
            AddressRule::Eam(_) => self.unread6(env, bytes, refusal),
            AddressRule::Pool6(_) => refusal,
        })?;
        if let L4::Icmp { kind, .. } = packet.l4
            && is_link_business(kind)
        {
            return Err(Refusal::accept(Counter::UnknownIcmp6Type));
        }
        let (src, inner, hairpin) = if let L4::Error { inner, .. } = &packet.l4 {
            // First what it is about: the host's own errors about others are none of ours.
            if env.meta.from_host && !self.sent.has6(inner.src, inner.dst) {
                return Err(SRC6);
            }
            let (inner, rule) = self.inner4(env, inner)?;
            let src = self.error_source4(env, &packet, dst)?;
            // An error goes to the source of what it quotes (RFC 4443 section 3). One that does not
            // must not return by pool6: it would come back to us with every round that it is sent.
            let returns = self.returns(env, inner.src, rule) && self.siit.eamt.to6(dst).is_some();
            (src, Some(inner), returns)
        } else if env.meta.from_host {
            return Err(SRC6);
        } else {
            let (src, _) = self.end6(env, packet.src).map_err(|_| SRC6)?;
            (src, None, self.returns(env, dst, dst_rule))
        };
        let plan = Plan {
            outer: rewrite(src, dst),
            inner,
        };
        // What is wrong with the packet itself comes to light only here: by now it is ours.
        let first = out.len();
        self.flows
            .six_to_four(&packet, &plan, rules(env, !hairpin), out)?;
        if hairpin {
            return self.hairpin(env, first, out);
        }
        self.sent.note4(src, dst);
        Ok(())
    }

    pub(super) fn four(
        &self,
        env: &Env<'_>,
        bytes: &[u8],
        out: &mut Output,
    ) -> Result<(), Refusal> {
        let pass = match env.settings.eam_hairpin_mode {
            HairpinMode::Simple => Pass::Hairpin,
            HairpinMode::Off | HairpinMode::Intrinsic => Pass::Plain,
        };
        self.four_by(pass, true, env, bytes, out)
    }

    /// `only` says that this is the packet that came.
    fn four_by(
        &self,
        pass: Pass,
        only: bool,
        env: &Env<'_>,
        bytes: &[u8],
        out: &mut Output,
    ) -> Result<(), Refusal> {
        let Some(dst) = destination4(bytes) else {
            return Err(Refusal::drop(Counter::SkbTruncated));
        };
        let dst = self.end4(env, dst, true).map_err(|_| DST4)?;
        let packet = Packet4::parse(bytes)?;
        let (src, inner) = if let L4::Error { inner, .. } = &packet.l4 {
            if env.meta.from_host && !self.sent.has4(inner.src, inner.dst) {
                return Err(SRC4);
            }
            let rewrite = self.inner6(pass, env, inner)?;
            let src = self.error_source6(pass, env, &packet, inner, dst)?;
            (src, Some(rewrite))
        } else if env.meta.from_host {
            return Err(SRC4);
        } else {
            let use_eamt = pass == Pass::Plain;
            let src = self.end4(env, packet.src, use_eamt).map_err(|_| SRC4)?;
            (src, None)
        };
        let plan = Plan {
            outer: rewrite(src, dst),
            inner,
        };
        self.flows
            .four_to_six(&packet, &plan, rules(env, only), out)?;
        self.sent.note6(src, dst);
        Ok(())
    }

    /// Why a packet to a host in the table goes no further that cannot be read. Such a host talks
    /// to others without translation, too: the packet is ours only if its source has one.
    fn unread6(&self, env: &Env<'_>, bytes: &[u8], refusal: Refusal) -> Refusal {
        match source6(bytes).map(|src| self.end6(env, src)) {
            Some(Err(_)) => SRC6,
            Some(Ok(_)) | None => refusal,
        }
    }

    /// Whether a packet to this IPv4 address is for an IPv6 host again. `rule` is what made the
    /// address.
    //= rfc7757#section-4.2.2
    fn returns(&self, env: &Env<'_>, addr: Ipv4Addr, rule: AddressRule) -> bool {
        match rule {
            AddressRule::Pool6(_) => {
                env.settings.eam_hairpin_mode == HairpinMode::Intrinsic
                    && self.siit.eamt.to6(addr).is_some()
            }
            AddressRule::Eam(_) => false,
        }
    }

    /// Translates the packet just written once more, as if it had come from IPv4.
    //= rfc7757#section-4.2.2
    fn hairpin(&self, env: &Env<'_>, first: usize, out: &mut Output) -> Result<(), Refusal> {
        let packet = out.take_back(first);
        let result = self.four_by(Pass::Hairpin, false, env, &packet, out);
        out.give_back(packet);
        // The packet in hand is not the one that came: neither kernel nor sender would know it.
        result.map_err(|refusal| Refusal::drop(refusal.reason))
    }

    fn end6(
        &self,
        env: &Env<'_>,
        addr: Ipv6Addr,
    ) -> Result<(Ipv4Addr, AddressRule), Untranslatable> {
        self.siit.to4(env.settings, env.meta.host, addr, Role::End)
    }

    fn end4(
        &self,
        env: &Env<'_>,
        addr: Ipv4Addr,
        use_eamt: bool,
    ) -> Result<Ipv6Addr, Untranslatable> {
        let (host, role) = (env.meta.host, Role::End);
        let result = self.siit.to6(env.settings, host, addr, role, use_eamt);
        result.map(|(addr, _)| addr)
    }

    /// The new source of an ICMPv6 error; any router may send one, also those that no rule
    /// covers.
    fn error_source4(
        &self,
        env: &Env<'_>,
        packet: &Packet6<'_>,
        dst: Ipv4Addr,
    ) -> Result<Ipv4Addr, Refusal> {
        let (settings, host) = (env.settings, env.meta.host);
        match self.siit.to4(settings, host, packet.src, Role::ErrorSource) {
            Ok((src, _)) => Ok(src),
            Err(Untranslatable::Unknown6(_)) => {
                self.random.source4(settings, host, packet.hop_limit, dst)
            }
            Err(_) => Err(SRC6),
        }
    }

    /// The new source of an ICMPv4 error.
    fn error_source6(
        &self,
        pass: Pass,
        env: &Env<'_>,
        packet: &Packet4<'_>,
        inner: &Inner<Ipv4Addr>,
        dst: Ipv6Addr,
    ) -> Result<Ipv6Addr, Refusal> {
        let (settings, host) = (env.settings, env.meta.host);
        // From the end itself: it must be called what it is called in the quoted packet.
        //= rfc7757#section-4.2.1
        let use_eamt = pass == Pass::Plain || packet.src != inner.dst;
        let role = Role::ErrorSource;
        match self.siit.to6(settings, host, packet.src, role, use_eamt) {
            Ok((src, _)) => Ok(src),
            Err(Untranslatable::Unknown4(_)) => self.random.source6(settings, host, dst),
            Err(_) => Err(SRC4),
        }
    }

    /// The addresses of a quoted packet, and what made its source.
    fn inner4(
        &self,
        env: &Env<'_>,
        inner: &Inner<Ipv6Addr>,
    ) -> Result<(Rewrite<Ipv4Addr>, AddressRule), Refusal> {
        let (dst, _) = self.end6(env, inner.dst).map_err(|_| DST6)?;
        let (src, rule) = self.end6(env, inner.src).map_err(|_| SRC6)?;
        Ok((rewrite(src, dst), rule))
    }

    fn inner6(
        &self,
        pass: Pass,
        env: &Env<'_>,
        inner: &Inner<Ipv4Addr>,
    ) -> Result<Rewrite<Ipv6Addr>, Refusal> {
        //= rfc7757#section-4.2.1
        let use_eamt = pass == Pass::Plain;
        let dst = self.end4(env, inner.dst, use_eamt).map_err(|_| DST4)?;
        let src = self.end4(env, inner.src, true).map_err(|_| SRC4)?;
        Ok(rewrite(src, dst))
    }
}

//= rfc7915#section-4.5
fn rules<'a>(env: &Env<'a>, only: bool) -> Rules<'a> {
    env.rules(env.settings.amend_udp_checksum_zero, only)
}

const fn rewrite<A>(src: A, dst: A) -> Rewrite<A> {
    Rewrite {
        src,
        dst,
        ports: None,
    }
}

/// Multicast listener discovery and neighbour discovery: they end at the router.
const fn is_link_business(kind: u8) -> bool {
    matches!(kind, 130..=137 | 143)
}

#[cfg(test)]
mod tests;

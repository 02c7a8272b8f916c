// SPDX-License-Identifier: GPL-2.0-or-later
//! The rules of stateless instances.
//!
//! Sets of what is diverted are limited to [`MOST_RANGES`]: beyond, the smallest gaps between them
//! are closed. What is diverted for nothing is accepted by the instance, at the price of a way
//! through userspace. Sets of what is left alone are exact: a stateless instance does not know
//! what else this host translates.

use std::ffi::CStr;
use std::net::{Ipv4Addr, Ipv6Addr};

use nftnl::expr::{Cmp, CmpOp, Icmpv6HeaderField, Meta, Payload, TransportHeaderField};
use nftnl::{Hook, Table};

use super::build::{Writer, hook, is, match_prefix6};
use super::commit::Changes;
use super::ranges::{coarsened, merged, range4, range6, single6};
use super::{Error, KERNEL_ERRORS, Mode, Ruleset};
use crate::base::prefix::Prefix4;

pub(super) const CHAIN: &CStr = c"stateless";

/// Before defragmentation (-400).
const PRIORITY: i32 = -420;

/// In one set of what is diverted.
const MOST_RANGES: usize = 1024;

/// The chain for what comes in.
pub(super) fn prerouting(
    changes: &mut Changes,
    mode: Mode,
    table: &Table,
    rules: &Ruleset,
) -> Result<(), Error> {
    let chain = hook(CHAIN, table, Hook::PreRouting, PRIORITY);
    let mut writer = Writer::new(changes, mode, &chain);
    let mut rule = writer.any();
    rule.add_expr(&Meta::IifName);
    rule.add_expr(&Cmp::new(CmpOp::Eq, &rules.device()?));
    writer.accept(rule, "translated");
    if writer.has(libc::NFPROTO_IPV6) {
        six(&mut writer, rules);
    }
    if writer.has(libc::NFPROTO_IPV4) {
        four(&mut writer, rules);
    }
    Ok(())
}

fn four(writer: &mut Writer<'_>, rules: &Ruleset) {
    let ranges = |prefixes: &[Prefix4]| merged(prefixes.iter().map(range4));
    let local = ranges(&rules.local4);
    if !local.is_empty() {
        let mut rule = writer.rule(libc::NFPROTO_IPV4);
        writer.match_daddr::<Ipv4Addr>(&mut rule, "addresses of this host", &local, true);
        writer.accept(rule, "this host");
    }
    for instance in &rules.stateless {
        let eam4 = ranges(&instance.eam4);
        if eam4.is_empty() {
            continue;
        }
        let spare = merged(local.iter().copied().chain(ranges(&instance.deny4)));
        let eam4 = coarsened(&eam4, &spare, MOST_RANGES);
        writer.divert(&instance.label, instance.queues, "IPv4 EAMs", |writer| {
            let mut rule = writer.rule(libc::NFPROTO_IPV4);
            writer.match_daddr::<Ipv4Addr>(&mut rule, "IPv4 EAMs", &eam4, true);
            rule
        });
    }
    for instance in rules.stateless.iter().filter(|i| i.pool6.is_some()) {
        let deny4 = ranges(&instance.deny4);
        let what = "other IPv4 addresses";
        writer.divert(&instance.label, instance.queues, what, |writer| {
            let mut rule = writer.rule(libc::NFPROTO_IPV4);
            if !deny4.is_empty() {
                writer.match_daddr::<Ipv4Addr>(&mut rule, "denied addresses", &deny4, false);
            }
            rule
        });
    }
}

fn six(writer: &mut Writer<'_>, rules: &Ruleset) {
    let local = merged(rules.local6.iter().map(single6));
    for instance in rules.stateless.iter().filter(|i| !i.eam6.is_empty()) {
        let eam6 = merged(instance.eam6.iter().map(range6));
        let eam6 = coarsened(&eam6, &local, MOST_RANGES);
        writer.divert(&instance.label, instance.queues, "IPv6 EAMs", |writer| {
            let mut rule = writer.rule(libc::NFPROTO_IPV6);
            writer.match_daddr::<Ipv6Addr>(&mut rule, "IPv6 EAMs", &eam6, true);
            rule
        });
    }
    if !local.is_empty() {
        let mut rule = writer.rule(libc::NFPROTO_IPV6);
        writer.match_daddr::<Ipv6Addr>(&mut rule, "addresses of this host", &local, true);
        writer.accept(rule, "this host");
    }
    for instance in &rules.stateless {
        if let Some(pool6) = instance.pool6 {
            let what = format!("pool6 {pool6}");
            writer.divert(&instance.label, instance.queues, &what, |writer| {
                let mut rule = writer.rule(libc::NFPROTO_IPV6);
                match_prefix6(&mut rule, pool6);
                rule
            });
        }
    }
}

/// The rules for ICMP errors of the kernel, in the chain for what this host sends.
pub(super) fn kernel_errors(writer: &mut Writer<'_>, queues: (u16, u16)) {
    /// Destination Unreachable; Time Exceeded and Parameter Problem.
    const TYPES4: [(u8, u8); 2] = [(3, 3), (11, 12)];
    /// Destination Unreachable, Packet Too Big, Time Exceeded, Parameter Problem.
    const TYPES6: [(u8, u8); 1] = [(1, 4)];
    // No user has this number. The sockets that the kernel sends its errors by have no user at
    // all, and then the rule does not match.
    const NOBODY: u32 = u32::MAX;
    let mut rule = writer.any();
    rule.add_expr(&Meta::SkUid);
    rule.add_expr(&Cmp::new(CmpOp::Neq, NOBODY));
    writer.accept(rule, "sent by programs");
    let four = TYPES4.map(|types| (libc::NFPROTO_IPV4, libc::IPPROTO_ICMP, types));
    let six = TYPES6.map(|types| (libc::NFPROTO_IPV6, libc::IPPROTO_ICMPV6, types));
    for (family, protocol, (min, max)) in four.into_iter().chain(six) {
        if !writer.has(family) {
            continue;
        }
        let mut rule = writer.rule(family);
        is(&mut rule, &Meta::L4Proto, protocol as u8);
        // The type is where ICMPv6 has it in ICMP, too.
        rule.add_expr(&Payload::Transport(TransportHeaderField::Icmpv6(
            Icmpv6HeaderField::Type,
        )));
        if min == max {
            rule.add_expr(&Cmp::new(CmpOp::Eq, min));
        } else {
            rule.add_expr(&Cmp::new(CmpOp::Gte, min));
            rule.add_expr(&Cmp::new(CmpOp::Lte, max));
        }
        let about = format!("the rule for ICMP types {min} to {max}");
        writer.show(rule, KERNEL_ERRORS, queues, about);
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! The rules of MAP-T instances.
//!
//! Ports are what tells customers apart, and only the first fragment has them: so packets are taken
//! where the kernel has put them together, as for a stateful instance.

use std::net::Ipv4Addr;

use nftnl::Rule;
use nftnl::expr::{Ipv4HeaderField, NetworkHeaderField};

use super::build::{Writer, match_prefix6};
use super::ranges::{merged, range4};
use super::{Four, Ruleset};
use crate::base::prefix::Prefix4;

/// Adds the rules of all MAP-T instances to the chain for what comes in.
pub(super) fn prerouting(writer: &mut Writer<'_>, rules: &Ruleset) {
    for instance in &rules.mapt {
        let (label, queues) = (&instance.label, instance.queues);
        if writer.has(libc::NFPROTO_IPV6) {
            for prefix in &instance.to6 {
                let what = format!("IPv6 prefix {prefix}");
                writer.divert(label, queues, &what, |writer| {
                    let mut rule = writer.rule(libc::NFPROTO_IPV6);
                    match_prefix6(&mut rule, *prefix);
                    rule
                });
            }
        }
        if writer.has(libc::NFPROTO_IPV4) {
            match &instance.four {
                Four::Nothing => {}
                Four::To(prefixes) => {
                    let ranges = merged(prefixes.iter().map(range4));
                    writer.divert(label, queues, "IPv4 of the domain", |writer| {
                        let mut rule = writer.rule(libc::NFPROTO_IPV4);
                        writer.match_daddr::<Ipv4Addr>(&mut rule, "the domain", &ranges, true);
                        rule
                    });
                }
                Four::From { source, near } => {
                    let source = [range4(source)];
                    writer.divert(label, queues, "IPv4 of this customer", |writer| {
                        let mut rule = writer.rule(libc::NFPROTO_IPV4);
                        let field = NetworkHeaderField::Ipv4(Ipv4HeaderField::Saddr);
                        let what = "this customer";
                        writer.match_in::<Ipv4Addr>(&mut rule, field, what, &source, true);
                        far(writer, &mut rule, near);
                        rule
                    });
                }
                Four::Far { near } => {
                    writer.divert(label, queues, "IPv4 to elsewhere", |writer| {
                        let mut rule = writer.rule(libc::NFPROTO_IPV4);
                        far(writer, &mut rule, near);
                        rule
                    });
                }
            }
        }
    }
}

/// Matches destinations that are not near.
fn far(writer: &mut Writer<'_>, rule: &mut Rule<'_>, near: &[Prefix4]) {
    let near = merged(near.iter().map(range4));
    if !near.is_empty() {
        writer.match_daddr::<Ipv4Addr>(rule, "near addresses", &near, false);
    }
}

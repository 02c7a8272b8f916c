// SPDX-License-Identifier: GPL-2.0-or-later
//! Puts tables, chains and rules together.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};

use nftnl::expr::{
    Bitwise, Cmp, CmpOp, Conntrack, Counter, Expression, Immediate, InterfaceName, Ipv4HeaderField,
    Ipv6HeaderField, Lookup, Meta, NetworkHeaderField, Payload, Register, TcpHeaderField,
    TransportHeaderField, Verdict,
};
use nftnl::{Chain, ChainType, Hook, Policy, Priority, ProtoFamily, Rule, Table};

use super::commit::Changes;
use super::expr::{CompatQueue, Notrack, OwnedTable, Queue, Tproxy, range_set};
use super::{Defragmenter, Divert, Error, Mode, Ruleset, families, ranges};
use crate::base::Protocol;
use crate::base::prefix::{Prefix4, Prefix6};

const TABLE: &CStr = c"tylo";

/// Behind defragmentation (-400) and "raw" (-300), where marks may be set; before connection
/// tracking (-200).
const PREROUTING: Priority = -250;

/// "raw": before connection tracking.
const OUTPUT: Priority = -300;

/// Deletes our tables in every family. Adding them first makes this work when they are absent; to
/// say that one is owned is needed to touch it as its owner.
pub(super) fn clear(changes: &mut Changes, owned: bool) {
    for family in [ProtoFamily::Inet, ProtoFamily::Ipv4, ProtoFamily::Ipv6] {
        let table = Table::new(TABLE, family);
        let about = format!("table {} tylo", family_name(family));
        add_table(changes, &table, owned, &about);
        changes.delete(&table, about);
    }
}

fn add_table(changes: &mut Changes, table: &Table, owned: bool, about: &str) {
    if owned {
        changes.add(&OwnedTable(table), about);
    } else {
        changes.add(table, about);
    }
}

/// Tables with nothing but a queue rule, deleted at the end of the batch.
pub(super) fn probe(mode: Mode) -> Changes {
    let mut changes = Changes::new();
    let name = CString::new(format!("tylo-probe-{}", std::process::id())).unwrap_or_default();
    for family in families(mode) {
        let table = Table::new(&name, *family);
        changes.add(&table, "probe table");
        let chain = Chain::new(c"probe", &table);
        changes.add(&chain, "probe chain");
        let mut rule = Rule::new(&chain);
        queue(&mut rule, mode, (0, 2));
        changes.add(&rule, format!("a rule that queues packets ({mode})"));
        changes.delete(&table, "probe table");
    }
    changes
}

/// Adds the table for one family with all it has.
pub(super) fn table(
    changes: &mut Changes,
    mode: Mode,
    family: ProtoFamily,
    rules: &Ruleset,
    with: Defragmenter,
    owned: bool,
) -> Result<(), Error> {
    let tun = CString::new(rules.tun.as_str())
        .ok()
        .filter(|name| (1..=15).contains(&name.as_bytes().len()))
        .map(InterfaceName::Exact)
        .ok_or_else(|| Error::Device(rules.tun.clone()))?;
    let table = Table::new(TABLE, family);
    let place = format!("table {} tylo", family_name(family));
    add_table(changes, &table, owned, &place);

    let mut chain = Chain::new(c"prerouting", &table);
    hook(&mut chain, Hook::PreRouting, PREROUTING);
    changes.add(&chain, format!("chain prerouting in {place}"));

    let mut rule = Rule::new(&chain);
    rule.add_expr(&Meta::IifName);
    rule.add_expr(&Cmp::new(CmpOp::Eq, &tun));
    if !rules.track {
        rule.add_expr(&Notrack);
    }
    rule.add_expr(&Verdict::Accept);
    comment(&mut rule, "translated");
    changes.add(&rule, format!("the rule for {} in {place}", rules.tun));

    let mut writer = Writer {
        changes,
        table: &table,
        chain: &chain,
        mode,
        next_set: 1,
    };
    for divert in &rules.diverts {
        let (first, count) = divert.queues;
        if count == 0 || first.checked_add(count - 1).is_none() {
            return Err(Error::Queues(divert.label.clone(), count, first));
        }
        if family != ProtoFamily::Ipv4 {
            writer.six(divert);
        }
        if family != ProtoFamily::Ipv6 {
            writer.four(divert);
        }
    }

    let mut output = Chain::new(c"output", &table);
    hook(&mut output, Hook::Out, OUTPUT);
    changes.add(&output, format!("chain output in {place}"));
    if !rules.track {
        let mut rule = Rule::new(&output);
        rule.add_expr(&Meta::OifName);
        rule.add_expr(&Cmp::new(CmpOp::Eq, &tun));
        rule.add_expr(&Notrack);
        comment(&mut rule, "to be translated");
        changes.add(&rule, format!("the rule for output in {place}"));
    }

    let chain = Chain::new(c"defragment", &table);
    changes.add(&chain, format!("chain defragment in {place}"));
    let mut rule = Rule::new(&chain);
    match with {
        Defragmenter::Tproxy => {
            is(&mut rule, &Meta::L4Proto, libc::IPPROTO_TCP as u8);
            rule.add_expr(&Immediate::new(1_u16.to_be_bytes(), Register::Reg1));
            rule.add_expr(&Tproxy);
        }
        Defragmenter::Conntrack => {
            rule.add_expr(&Conntrack::State);
            rule.add_expr(&Cmp::new(CmpOp::Eq, 0_u32));
        }
    }
    comment(&mut rule, "never entered, switches defragmentation on");
    changes.add(&rule, format!("the rule for defragmentation in {place}"));
    Ok(())
}

/// Writes the rules of the instances into a chain.
struct Writer<'a> {
    changes: &'a mut Changes,
    table: &'a Table,
    chain: &'a Chain<'a>,
    mode: Mode,
    next_set: u32,
}

impl<'a> Writer<'a> {
    fn six(&mut self, divert: &Divert) {
        let mut rule = self.rule(libc::NFPROTO_IPV6);
        match_prefix6(&mut rule, divert.pool6);
        self.push(rule, divert, &format!("pool6 {}", divert.pool6));
    }

    fn four(&mut self, divert: &Divert) {
        let mut groups: BTreeMap<_, Vec<Prefix4>> = BTreeMap::new();
        for entry in &divert.pool4 {
            let number = match entry.protocol {
                Protocol::Tcp => libc::IPPROTO_TCP,
                Protocol::Udp => libc::IPPROTO_UDP,
                Protocol::Icmp => continue,
            };
            groups
                .entry((number as u8, entry.ports.min, entry.ports.max))
                .or_default()
                .push(entry.prefix);
        }
        for ((protocol, min, max), prefixes) in groups {
            let what = format!("pool4 protocol {protocol} ports {min}-{max}");
            let mut rule = self.rule(libc::NFPROTO_IPV4);
            is(&mut rule, &Meta::L4Proto, protocol);
            self.match_prefixes4(&mut rule, &what, prefixes.into_iter());
            // The destination port is where UDP has it, too.
            rule.add_expr(&Payload::Transport(TransportHeaderField::Tcp(
                TcpHeaderField::Dport,
            )));
            rule.add_expr(&Cmp::new(CmpOp::Gte, &min.to_be_bytes()[..]));
            rule.add_expr(&Cmp::new(CmpOp::Lte, &max.to_be_bytes()[..]));
            self.push(rule, divert, &what);
        }
        if !divert.pool4.is_empty() {
            let mut rule = self.rule(libc::NFPROTO_IPV4);
            is(&mut rule, &Meta::L4Proto, libc::IPPROTO_ICMP as u8);
            let prefixes = divert.pool4.iter().map(|entry| entry.prefix);
            self.match_prefixes4(&mut rule, "pool4 ICMP", prefixes);
            self.push(rule, divert, "pool4 ICMP");
        }
    }

    /// A rule for the packets of one family.
    fn rule(&self, family: libc::c_int) -> Rule<'a> {
        let mut rule = Rule::new(self.chain);
        // Other tables see no other family.
        if self.table.get_family() == ProtoFamily::Inet {
            is(&mut rule, &Meta::NfProto, family as u8);
        }
        rule
    }

    fn match_prefixes4(
        &mut self,
        rule: &mut Rule<'_>,
        what: &str,
        prefixes: impl Iterator<Item = Prefix4>,
    ) {
        let set = range_set(self.next_set, self.table, &ranges(prefixes));
        self.next_set += 1;
        self.changes.add(&set, format!("the address set of {what}"));
        for elements in set.elems_iter() {
            self.changes
                .add(&elements, format!("addresses to the set of {what}"));
        }
        rule.add_expr(&Payload::Network(NetworkHeaderField::Ipv4(
            Ipv4HeaderField::Daddr,
        )));
        rule.add_expr(&Lookup::new(&set));
    }

    fn push(&mut self, mut rule: Rule<'_>, divert: &Divert, what: &str) {
        rule.add_expr(&Counter);
        queue(&mut rule, self.mode, divert.queues);
        comment(&mut rule, &divert.label);
        self.changes.add(
            &rule,
            format!("the rule of instance '{}' for {what}", divert.label),
        );
    }
}

fn hook(chain: &mut Chain<'_>, hook: Hook, priority: Priority) {
    chain.set_hook(hook, priority);
    chain.set_type(ChainType::Filter);
    chain.set_policy(Policy::Accept);
}

fn is(rule: &mut Rule<'_>, what: &impl Expression, value: u8) {
    rule.add_expr(what);
    rule.add_expr(&Cmp::new(CmpOp::Eq, value));
}

fn match_prefix6(rule: &mut Rule<'_>, prefix: Prefix6) {
    let mask = u128::MAX
        .checked_shl(128 - u32::from(prefix.prefix_len()))
        .unwrap_or(0)
        .to_be_bytes();
    rule.add_expr(&Payload::Network(NetworkHeaderField::Ipv6(
        Ipv6HeaderField::Daddr,
    )));
    rule.add_expr(&Bitwise::new(&mask[..], &[0_u8; 16][..]));
    rule.add_expr(&Cmp::new(CmpOp::Eq, prefix.network()));
}

fn queue(rule: &mut Rule<'_>, mode: Mode, (first, total): (u16, u16)) {
    match mode {
        Mode::Native => rule.add_expr(&Queue { first, total }),
        Mode::Compat => rule.add_expr(&CompatQueue { first, total }),
    }
}

/// A comment that does not fit, or cannot be one, is left out.
fn comment(rule: &mut Rule<'_>, text: &str) {
    if let Ok(text) = CString::new(text) {
        let _ = rule.set_comment(text);
    }
}

const fn family_name(family: ProtoFamily) -> &'static str {
    match family {
        ProtoFamily::Ipv4 => "ip",
        ProtoFamily::Ipv6 => "ip6",
        ProtoFamily::Inet => "inet",
        ProtoFamily::Unspec
        | ProtoFamily::Arp
        | ProtoFamily::NetDev
        | ProtoFamily::Bridge
        | ProtoFamily::DecNet => "other",
    }
}

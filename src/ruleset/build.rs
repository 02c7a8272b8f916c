// SPDX-License-Identifier: GPL-2.0-or-later
//! Puts tables, chains and rules together.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::net::Ipv4Addr;

use nftnl::expr::{
    Bitwise, Cmp, CmpOp, Conntrack, Counter, Expression, Immediate, Ipv6HeaderField, Lookup, Meta,
    NetworkHeaderField, Payload, Register, TcpHeaderField, TransportHeaderField, Verdict,
};
use nftnl::{Chain, ChainType, Hook, Policy, Priority, ProtoFamily, Rule, Table};

use super::commit::Changes;
use super::expr::{Address, CompatQueue, Notrack, Outside, OwnedTable, Queue, Tproxy, range_set};
use super::ranges::{Range, merged, range4};
use super::{Defragmenter, Divert, Error, Mode, Queues, Ruleset, families, mapt, stateless};
use crate::base::Protocol;
use crate::base::prefix::{Prefix4, Prefix6};

const TABLE: &CStr = c"tylo";

const DEFRAGMENT: &CStr = c"defragment";

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

/// Deletes the chains of a table that `before` had and `rules` do not have.
pub(super) fn prune(changes: &mut Changes, family: ProtoFamily, before: &Ruleset, rules: &Ruleset) {
    let table = Table::new(TABLE, family);
    let stateless = (!before.stateless.is_empty(), !rules.stateless.is_empty());
    let defragment = (before.defragment, rules.defragment);
    for (name, there) in [(stateless::CHAIN, stateless), (DEFRAGMENT, defragment)] {
        if there == (true, false) {
            let chain = Chain::new(name, &table);
            let about = format!("chain {} of before", name.to_string_lossy());
            changes.delete(&Rule::new(&chain), format!("the rules of {about}"));
            changes.delete(&chain, about);
        }
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
        queue(&mut rule, mode, (0, 2), false);
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
    let tun = rules.device()?;
    rules.check_queues()?;
    let table = Table::new(TABLE, family);
    let place = format!("table {} tylo", family_name(family));
    add_table(changes, &table, owned, &place);

    if !rules.stateless.is_empty() {
        stateless::prerouting(changes, mode, &table, rules)?;
    }

    let chain = hook(c"prerouting", &table, Hook::PreRouting, PREROUTING);
    let mut writer = Writer::new(changes, mode, &chain);
    let mut rule = writer.any();
    rule.add_expr(&Meta::IifName);
    rule.add_expr(&Cmp::new(CmpOp::Eq, &tun));
    if !rules.track {
        rule.add_expr(&Notrack);
    }
    writer.accept(rule, "translated");
    for divert in &rules.diverts {
        if family != ProtoFamily::Ipv4 {
            writer.six(divert);
        }
        if family != ProtoFamily::Ipv6 {
            writer.four(divert);
        }
    }
    mapt::prerouting(&mut writer, rules);

    let chain = hook(c"output", &table, Hook::Out, OUTPUT);
    let mut writer = Writer::new(changes, mode, &chain);
    if !rules.track {
        let mut rule = writer.any();
        rule.add_expr(&Meta::OifName);
        rule.add_expr(&Cmp::new(CmpOp::Eq, &tun));
        rule.add_expr(&Notrack);
        writer.add(rule, "to be translated");
    }
    if let Some(queues) = rules.kernel_errors {
        stateless::kernel_errors(&mut writer, queues);
    }

    // Whoever translates every packet on its own does without.
    if !rules.defragment {
        return Ok(());
    }
    let chain = Chain::new(DEFRAGMENT, &table);
    let mut writer = Writer::new(changes, mode, &chain);
    let mut rule = writer.any();
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
    writer.add(rule, "never entered, switches defragmentation on");
    Ok(())
}

/// Writes rules into a chain.
pub(super) struct Writer<'a> {
    changes: &'a mut Changes,
    table: &'a Table,
    chain: &'a Chain<'a>,
    mode: Mode,
    /// Chain and table, for errors.
    place: String,
}

impl<'a> Writer<'a> {
    /// Adds the chain.
    pub(super) fn new(changes: &'a mut Changes, mode: Mode, chain: &'a Chain<'a>) -> Self {
        let table = chain.get_table();
        let name = chain.get_name().to_string_lossy();
        let place = format!(
            "chain {name} in table {} tylo",
            family_name(table.get_family())
        );
        changes.add(chain, place.clone());
        if changes.refill {
            changes.delete(&Rule::new(chain), format!("the rules of {place}"));
        }
        Self {
            changes,
            table,
            chain,
            mode,
            place,
        }
    }

    /// Whether packets of a family come here.
    pub(super) fn has(&self, family: libc::c_int) -> bool {
        let ours = self.table.get_family();
        ours == ProtoFamily::Inet || ours as libc::c_int == family
    }

    /// A rule for the packets of all families that come here.
    pub(super) fn any(&self) -> Rule<'a> {
        Rule::new(self.chain)
    }

    /// A rule for the packets of one family.
    pub(super) fn rule(&self, family: libc::c_int) -> Rule<'a> {
        let mut rule = self.any();
        // Other tables see no other family.
        if self.table.get_family() == ProtoFamily::Inet {
            is(&mut rule, &Meta::NfProto, family as u8);
        }
        rule
    }

    /// Matches destination addresses that are `inside` the ranges, or those that are not.
    pub(super) fn match_daddr<A: Address>(
        &mut self,
        rule: &mut Rule<'_>,
        what: &str,
        ranges: &[Range],
        inside: bool,
    ) {
        self.match_in::<A>(rule, A::DESTINATION, what, ranges, inside);
    }

    /// The same for another address of the header.
    pub(super) fn match_in<A: Address>(
        &mut self,
        rule: &mut Rule<'_>,
        field: NetworkHeaderField,
        what: &str,
        ranges: &[Range],
        inside: bool,
    ) {
        // Not a set where none is needed: while rules are replaced, that of a new rule is empty for
        // the moment that a few packets take.
        if let ([range], true) = (ranges, inside) {
            compare::<A>(rule, field, *range);
            return;
        }
        let set = range_set::<A>(self.changes.next_set(), self.table, ranges);
        self.changes.add(&set, format!("the address set of {what}"));
        for elements in set.elems_iter() {
            self.changes
                .add(&elements, format!("addresses to the set of {what}"));
        }
        rule.add_expr(&Payload::Network(field));
        if inside {
            rule.add_expr(&Lookup::new(&set));
        } else {
            rule.add_expr(&Outside(Lookup::new(&set)));
        }
    }

    /// Adds a rule for packets to be left alone.
    pub(super) fn accept(&mut self, mut rule: Rule<'_>, why: &str) {
        rule.add_expr(&Verdict::Accept);
        self.add(rule, why);
    }

    /// Adds rules for packets that an instance gets, whatever their protocol; `make` makes one that
    /// matches them.
    pub(super) fn divert(
        &mut self,
        label: &str,
        queues: Queues,
        what: &str,
        make: impl Fn(&mut Self) -> Rule<'a>,
    ) {
        if let Some(tcp) = queues.tcp {
            let mut rule = make(self);
            is(&mut rule, &Meta::L4Proto, libc::IPPROTO_TCP as u8);
            self.divert_to(rule, label, tcp, &format!("TCP of {what}"));
        }
        let rule = make(self);
        self.divert_to(rule, label, queues.all, what);
    }

    fn divert_to(&mut self, rule: Rule<'_>, label: &str, queues: (u16, u16), what: &str) {
        let about = format!("the rule of instance '{label}' for {what}");
        self.queue(rule, label, queues, false, about);
    }

    /// Adds a rule for packets that the daemon gets to see; while there is none, they pass.
    pub(super) fn show(&mut self, rule: Rule<'_>, why: &str, queues: (u16, u16), about: String) {
        self.queue(rule, why, queues, true, about);
    }

    fn queue(
        &mut self,
        mut rule: Rule<'_>,
        why: &str,
        queues: (u16, u16),
        bypass: bool,
        about: String,
    ) {
        rule.add_expr(&Counter);
        queue(&mut rule, self.mode, queues, bypass);
        comment(&mut rule, why);
        self.changes.add(&rule, about);
    }

    pub(super) fn add(&mut self, mut rule: Rule<'_>, why: &str) {
        comment(&mut rule, why);
        self.changes
            .add(&rule, format!("the rule \"{why}\" in {}", self.place));
    }

    fn six(&mut self, divert: &Divert) {
        let what = format!("pool6 {}", divert.pool6);
        self.divert(&divert.label, divert.queues, &what, |writer| {
            let mut rule = writer.rule(libc::NFPROTO_IPV6);
            match_prefix6(&mut rule, divert.pool6);
            rule
        });
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
            let queues = match divert.queues.tcp {
                Some(tcp) if i32::from(protocol) == libc::IPPROTO_TCP => tcp,
                _ => divert.queues.all,
            };
            for ranges in few_each(&merged(prefixes.iter().map(range4))) {
                let mut rule = self.rule(libc::NFPROTO_IPV4);
                is(&mut rule, &Meta::L4Proto, protocol);
                self.match_daddr::<Ipv4Addr>(&mut rule, &what, ranges, true);
                // The destination port is where UDP has it, too.
                rule.add_expr(&Payload::Transport(TransportHeaderField::Tcp(
                    TcpHeaderField::Dport,
                )));
                rule.add_expr(&Cmp::new(CmpOp::Gte, &min.to_be_bytes()[..]));
                rule.add_expr(&Cmp::new(CmpOp::Lte, &max.to_be_bytes()[..]));
                self.divert_to(rule, &divert.label, queues, &what);
            }
        }
        let ranges = merged(divert.pool4.iter().map(|entry| range4(&entry.prefix)));
        for ranges in few_each(&ranges) {
            let mut rule = self.rule(libc::NFPROTO_IPV4);
            is(&mut rule, &Meta::L4Proto, libc::IPPROTO_ICMP as u8);
            self.match_daddr::<Ipv4Addr>(&mut rule, "pool4 ICMP", ranges, true);
            self.divert_to(rule, &divert.label, divert.queues.all, "pool4 ICMP");
        }
    }
}

/// What one rule each matches: a few ranges one by one, so that none needs a set, see
/// [`Writer::match_in`]; many all at once, since each rule costs every packet a comparison.
fn few_each(ranges: &[Range]) -> impl Iterator<Item = &[Range]> {
    let few = ranges.len() <= FEW;
    ranges.chunks(if few { 1 } else { ranges.len() })
}

const FEW: usize = 8;

/// A chain that sees every packet at a hook.
pub(super) fn hook<'a>(name: &CStr, table: &'a Table, hook: Hook, priority: Priority) -> Chain<'a> {
    let mut chain = Chain::new(name, table);
    chain.set_hook(hook, priority);
    chain.set_type(ChainType::Filter);
    chain.set_policy(Policy::Accept);
    chain
}

pub(super) fn is(rule: &mut Rule<'_>, what: &impl Expression, value: u8) {
    rule.add_expr(what);
    rule.add_expr(&Cmp::new(CmpOp::Eq, value));
}

pub(super) fn match_prefix6(rule: &mut Rule<'_>, prefix: Prefix6) {
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

fn compare<A: Address>(rule: &mut Rule<'_>, field: NetworkHeaderField, (first, last): Range) {
    let bytes = |number: u128| {
        let all = number.to_be_bytes();
        all[A::HIGHEST.leading_zeros() as usize / 8..].to_vec()
    };
    let spread = first ^ last;
    rule.add_expr(&Payload::Network(field));
    if first == last {
        rule.add_expr(&Cmp::new(CmpOp::Eq, &bytes(first)[..]));
    } else if spread & spread.wrapping_add(1) == 0 && first & spread == 0 {
        let none = bytes(0);
        rule.add_expr(&Bitwise::new(&bytes(A::HIGHEST ^ spread)[..], &none[..]));
        rule.add_expr(&Cmp::new(CmpOp::Eq, &bytes(first)[..]));
    } else {
        rule.add_expr(&Cmp::new(CmpOp::Gte, &bytes(first)[..]));
        rule.add_expr(&Cmp::new(CmpOp::Lte, &bytes(last)[..]));
    }
}

fn queue(rule: &mut Rule<'_>, mode: Mode, (first, total): (u16, u16), bypass: bool) {
    match mode {
        Mode::Native => rule.add_expr(&Queue {
            first,
            total,
            bypass,
        }),
        Mode::Compat => rule.add_expr(&CompatQueue {
            first,
            total,
            bypass,
        }),
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

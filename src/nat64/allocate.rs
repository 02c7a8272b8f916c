// SPDX-License-Identifier: GPL-2.0-or-later
//! Who gets a mapping and a session, which transport address it is, and who has to wait.

use std::hash::Hasher;
use std::net::Ipv6Addr;

use siphasher::sip::SipHasher13;

use super::pool4::Set;
use super::sessions::TCP_INCOMING_SYN;
use super::table::{Bib, BibId, Table};
use super::{Change, Inbound, Mapping, Nat64, Outbound};
use crate::base::counters::Counter;
use crate::base::host::Host;
use crate::base::{Protocol, Tick, Transport4, Transport6};
use crate::model::PortRange;
use crate::model::settings::Settings;
use crate::wire::{IcmpReply, Refusal, Verdict};

impl Nat64 {
    /// Whether a client may have one more session.
    ///
    /// All sessions count, whoever opened them: otherwise strangers could fill what a subscriber
    /// cannot. Prefixes are counted only while there is a limit for them (4 bytes of counter and 16
    /// of prefix for each that has sessions).
    pub(super) fn admit(&mut self, settings: &Settings, client: Ipv6Addr) -> Result<(), Refusal> {
        let most = settings.maximum_sessions as usize;
        if most != 0 && self.tables.iter().map(Table::session_count).sum::<usize>() >= most {
            self.refused.sessions += 1;
            return Err(Refusal::drop(Counter::Enomem));
        }
        let (most, len) = (
            settings.maximum_sessions_per_prefix,
            settings.source_prefix_length,
        );
        if most == 0 {
            return Ok(());
        }
        let tables = self.tables.iter_mut();
        let count: u64 = tables
            .map(|table| u64::from(table.sessions_of_prefix(client, len)))
            .sum();
        if count >= most.into() {
            self.refused.prefix += 1;
            return Err(Refusal::drop(Counter::Enomem));
        }
        Ok(())
    }

    /// Chooses a transport address for a client that has none.
    //= rfc6056#section-3.3.3
    pub(super) fn map(
        &mut self,
        settings: &Settings,
        host: &dyn Host,
        flow: Outbound,
    ) -> Result<BibId, Refusal> {
        let offset = self.offset(settings.f_args, flow);
        let own;
        let set = if self.pool4.is_empty() {
            //= jool#pool4
            let source = host.source4(flow.remote.addr);
            // A route may name one that the host does not have: answers would not be ours.
            let source = source.filter(|addr| self.covers_address(host, *addr));
            own = source.map(Set::of_host);
            own.as_ref()
        } else {
            self.pool4.set(flow.protocol, flow.mark)
        };
        let Some(set) = set else {
            return Err(Refusal::drop(Counter::MaskDomainNotFound));
        };
        let table = &mut self.tables[flow.protocol.index()];
        let (found, tries) = search(table, set, self.share.as_deref(), offset);
        self.counter = self.counter.wrapping_add(tries);
        let id = found.and_then(|v4| table.add_bib(flow.client, v4, false));
        let Some(id) = id else {
            self.refused.pool4 += 1;
            self.exhausted = Some(flow.mark);
            return Err(Refusal::drop(match flow.protocol {
                Protocol::Tcp => Counter::Unknown,
                Protocol::Udp | Protocol::Icmp => Counter::Bib6NotFound,
            }));
        };
        self.report_new(flow.protocol, id);
        Ok(id)
    }

    /// Gives a client that opens a connection the transport address that its server has already
    /// knocked at, if it may have it.
    //= rfc6146#section-3.5.2.2
    pub(super) fn awaited(&mut self, host: &dyn Host, flow: Outbound) -> Option<BibId> {
        if flow.protocol != Protocol::Tcp {
            return None;
        }
        let v4 = self.opens.target(flow.remote)?;
        let ours = match self.pool4.set(flow.protocol, flow.mark) {
            Some(set) => set.contains(v4),
            None => self.covers(host, flow.protocol, v4),
        };
        if !ours || !self.is_shared_out(v4.port) {
            return None;
        }
        let id = self.tables[flow.protocol.index()].add_bib(flow.client, v4, false)?;
        self.opens.take(flow.remote);
        self.report_new(flow.protocol, id);
        Some(id)
    }

    /// Holds back a SYN to a transport address that nobody has.
    //= rfc6146#section-3.5.2.2
    pub(super) fn hold_unmapped(
        &mut self,
        now: Tick,
        settings: &Settings,
        flow: Inbound<'_>,
    ) -> Refusal {
        if self.opens.target(flow.remote).is_some() {
            return Refusal::drop(Counter::SoExists);
        }
        if let Err(refusal) = self.room_to_hold(settings) {
            return refusal;
        }
        let deadline = now.after(TCP_INCOMING_SYN);
        self.opens.hold(flow.remote, flow.v4, deadline, flow.packet);
        Refusal::drop(Counter::Type1pkt)
    }

    /// Whether another packet may be held back.
    pub(super) fn room_to_hold(&self, settings: &Settings) -> Result<(), Refusal> {
        if self.opens.len() < settings.maximum_simultaneous_opens as usize {
            return Ok(());
        }
        Err(Refusal {
            reason: Counter::SoFull,
            verdict: Verdict::Reply(PORT_UNREACHABLE),
        })
    }

    /// Hands all packets that are held back over to [`Nat64::drain_unopened`]: the instance ends.
    pub fn release_held(&mut self) {
        let packets = std::mem::take(&mut self.opens).into_packets();
        self.unopened.extend(packets);
    }

    /// Without pool4 a mapping is good only as long as the host has its address; one that is not
    /// goes, so that its client gets another.
    //= jool#pool4
    pub(super) fn drop_displaced(
        &mut self,
        host: &dyn Host,
        protocol: Protocol,
        client: Transport6,
    ) {
        let table = self.table(protocol);
        let Some(id) = table.find_v6(client) else {
            return;
        };
        if self.is_displaced(host, protocol, table.bib(id)) {
            self.purge(protocol, id);
        }
    }

    pub(super) fn is_displaced(&self, host: &dyn Host, protocol: Protocol, bib: &Bib) -> bool {
        !bib.is_static && !self.covers(host, protocol, bib.v4)
    }

    fn report_new(&mut self, protocol: Protocol, id: BibId) {
        let bib = self.tables[protocol.index()].bib(id);
        self.changes.push(Change::Mapping(Mapping {
            protocol,
            v6: bib.v6,
            v4: bib.v4,
            is_static: bib.is_static,
        }));
    }

    /// RFC 6056's F(), of the fields that `f-args` selects, plus the counter.
    fn offset(&self, f_args: u8, flow: Outbound) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        if f_args & 0b1000 != 0 {
            hasher.write(&flow.client.addr.octets());
        }
        if f_args & 0b0100 != 0 {
            hasher.write_u16(flow.client.port);
        }
        if f_args & 0b0010 != 0 {
            hasher.write(&flow.remote.addr.octets());
        }
        if f_args & 0b0001 != 0 {
            hasher.write_u16(flow.remote.port);
        }
        (hasher.finish() >> 1).wrapping_add(self.counter)
    }
}

/// The first free transport address of a set from the `offset`-th on, and how many were looked at.
/// `share` has the ports that may be given, in order; all when it is missing.
fn search(
    table: &Table,
    set: &Set,
    share: Option<&[PortRange]>,
    offset: u64,
) -> (Option<Transport4>, u64) {
    let limit = set.max_iterations().map_or(u64::MAX, u64::from);
    let mut tries = 0;
    for (addr, span) in set.spans(offset) {
        let whole = [span];
        let parts = share.unwrap_or(&whole);
        let first = parts.partition_point(|part| part.max < span.min);
        let parts = parts.iter().skip(first);
        for part in parts.take_while(|part| part.min <= span.max) {
            let (min, max) = (part.min.max(span.min), part.max.min(span.max));
            let left = limit - tries;
            if left == 0 {
                return (None, tries);
            }
            let reach = u16::try_from(left - 1).unwrap_or(u16::MAX);
            let last = max.min(min.saturating_add(reach));
            if let Some(port) = table.first_free(addr, min, last) {
                tries += u64::from(port - min) + 1;
                return (Some(Transport4::new(addr, port)), tries);
            }
            tries += u64::from(last - min) + 1;
        }
    }
    (None, tries)
}

const PORT_UNREACHABLE: IcmpReply = IcmpReply {
    kind: 3,
    code: 3,
    rest: [0; 4],
};

// SPDX-License-Identifier: GPL-2.0-or-later
//! Floor 2: the tables and decisions of stateful NAT64 (RFC 6146).
//!
//! Takes tuples and TCP flags and says which addresses a packet gets; never sees a byte of one.
//! What the tables went through is gathered as [`Change`]s for whoever keeps a copy.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use self::pool4::Pool4;
use self::table::{Bib, BibId, Session, SessionId, Table};
use self::tcp::{Lifetime, Side};
use crate::base::counters::Counter;
use crate::base::{Protocol, Tick, Transport4, Transport6};
use crate::model::settings::Settings;
use crate::model::{PortRange, TcpState};
use crate::wire::{IcmpReply, Refusal, TcpFlags, Verdict};

pub mod manage;
pub mod pool4;
pub mod table;
pub mod tcp;

/// The state of one NAT64 instance.
pub struct Nat64 {
    pool4: Pool4,
    tables: [Table; 3],
    changes: Vec<Change>,
    probes: Vec<Probe>,
    key: [u8; 16],
    /// RFC 6056 algorithm 3: goes up with every candidate tried, whoever asked.
    counter: u64,
    exhausted: Option<u32>,
}

/// Something that happened to a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A mapping came to be, or became static.
    Mapping(Mapping),
    /// A mapping is gone, and its sessions with it.
    MappingGone { protocol: Protocol, v4: Transport4 },
    /// A session came to be, changed its state, or lives on.
    Session(SessionState),
    SessionGone {
        protocol: Protocol,
        v4: Transport4,
        remote: Transport4,
    },
}

/// A BIB entry as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub protocol: Protocol,
    pub v6: Transport6,
    pub v4: Transport4,
    pub is_static: bool,
}

/// A session as a value; `v4` names its mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionState {
    pub protocol: Protocol,
    pub v4: Transport4,
    pub remote: Transport4,
    pub state: TcpState,
    pub lifetime: Lifetime,
    pub deadline: Tick,
}

impl SessionState {
    fn of(protocol: Protocol, bib: &Bib, session: &Session) -> Self {
        Self {
            protocol,
            v4: bib.v4,
            remote: session.remote,
            state: session.state,
            lifetime: session.lifetime,
            deadline: session.deadline,
        }
    }
}

/// An established connection that fell silent: its IPv6 end is asked whether it still exists
/// (RFC 6146 section 3.5.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    pub client: Transport6,
    pub remote: Transport4,
}

impl Nat64 {
    /// `key` seeds hashes and port selection; it should be random.
    pub fn new(key: [u8; 16]) -> Self {
        Self {
            pool4: Pool4::default(),
            tables: [Table::new(key), Table::new(key), Table::new(key)],
            changes: Vec::new(),
            probes: Vec::new(),
            key,
            counter: 0,
            exhausted: None,
        }
    }

    pub fn pool4(&self) -> &Pool4 {
        &self.pool4
    }

    pub fn table(&self, protocol: Protocol) -> &Table {
        &self.tables[protocol.index()]
    }

    /// Decides on a packet from IPv6: the transport address that `src6` is hidden behind.
    /// `flags` are given for TCP.
    ///
    /// # Errors
    /// The packet must not be translated.
    //= rfc6146#section-3.5
    pub fn outbound(
        &mut self,
        now: Tick,
        settings: &Settings,
        flow: Outbound,
    ) -> Result<Transport4, Refusal> {
        let flow = Outbound {
            remote: peer(flow.protocol, flow.remote),
            ..flow
        };
        let Outbound {
            protocol, client, ..
        } = flow;
        let table = &self.tables[protocol.index()];
        let bib = table.find_v6(client);
        if self.pool4.set(protocol, flow.mark).is_none() {
            return Err(Refusal::drop(Counter::MaskDomainNotFound));
        }
        let session = bib.and_then(|bib| table.find_session(bib, flow.remote));
        if let (Some(bib), Some(session)) = (bib, session) {
            let v4 = table.bib(bib).v4;
            self.touch(now, settings, protocol, session, Side::V6, flow.flags);
            return Ok(v4);
        }
        if protocol == Protocol::Tcp && !flow.flags.syn {
            // Nothing to begin a session with, but a mapping is good enough to go through.
            return match bib {
                Some(bib) => Ok(table.bib(bib).v4),
                None => Err(Refusal::drop(Counter::Syn6Expected)),
            };
        }
        let bib = match bib {
            Some(bib) => bib,
            None => self.map(settings, flow)?,
        };
        self.begin(now, settings, protocol, bib, flow.remote, TcpState::V6Init)?;
        Ok(self.tables[protocol.index()].bib(bib).v4)
    }

    /// Decides on a packet from IPv4: the client that `v4`, inside pool4, stands for.
    ///
    /// # Errors
    /// The packet must not be translated.
    //= rfc6146#section-3.5
    pub fn inbound(
        &mut self,
        now: Tick,
        settings: &Settings,
        flow: Inbound,
    ) -> Result<Transport6, Refusal> {
        let Inbound {
            protocol,
            v4,
            remote,
            flags,
        } = flow;
        let remote = peer(protocol, remote);
        let table = &mut self.tables[protocol.index()];
        let tcp = protocol == Protocol::Tcp;
        let Some(bib) = table.find_v4(v4) else {
            return Err(match (tcp, flags.syn) {
                (true, true) if settings.drop_externally_initiated_tcp => {
                    Refusal::drop(Counter::V4Syn)
                }
                (true, _) => Refusal::drop(Counter::Syn4Expected),
                (false, _) => Refusal::accept(Counter::Bib4NotFound),
            });
        };
        let client = table.bib(bib).v6;
        if let Some(session) = table.find_session(bib, remote) {
            self.touch(now, settings, protocol, session, Side::V4, flags);
            return Ok(client);
        }
        if tcp && !flags.syn {
            return Ok(client);
        }
        if tcp && settings.drop_externally_initiated_tcp {
            return Err(Refusal::drop(Counter::V4Syn));
        }
        //= rfc6146#section-3.5.1.2
        if settings.address_dependent_filtering && !table.knows(bib, remote.addr) {
            return Err(Refusal {
                reason: Counter::Adf,
                verdict: if tcp {
                    Verdict::Drop
                } else {
                    Verdict::Reply(ADMINISTRATIVELY_PROHIBITED)
                },
            });
        }
        self.begin(now, settings, protocol, bib, remote, TcpState::V4Init)?;
        Ok(client)
    }

    /// The transport address that a client is hidden behind, if it has one.
    pub fn mapped_v4(&self, protocol: Protocol, client: Transport6) -> Option<Transport4> {
        let table = self.table(protocol);
        table.find_v6(client).map(|bib| table.bib(bib).v4)
    }

    /// The client that a transport address stands for, if any.
    pub fn mapped_v6(&self, protocol: Protocol, v4: Transport4) -> Option<Transport6> {
        let table = self.table(protocol);
        table.find_v4(v4).map(|bib| table.bib(bib).v6)
    }

    /// Ends what is due, at most `budget` sessions; true when more is due.
    //= rfc6146#section-3.5
    pub fn expire(&mut self, now: Tick, settings: &Settings, budget: usize) -> bool {
        let mut left = budget;
        for protocol in Protocol::ALL {
            for &lifetime in lifetimes(protocol) {
                while let Some(id) = self.tables[protocol.index()].due(lifetime, now) {
                    if left == 0 {
                        return true;
                    }
                    left -= 1;
                    self.expire_one(now, settings, protocol, id);
                }
            }
        }
        false
    }

    pub fn next_deadline(&self) -> Option<Tick> {
        self.tables.iter().filter_map(Table::next_deadline).min()
    }

    /// Takes what happened since the last call; `into` is emptied first.
    pub fn drain_changes(&mut self, into: &mut Vec<Change>) {
        into.clear();
        std::mem::swap(&mut self.changes, into);
    }

    /// Takes the probes to send.
    pub fn drain_probes(&mut self) -> Vec<Probe> {
        std::mem::take(&mut self.probes)
    }

    /// The mark whose set ran out since the last call, if any did.
    pub fn take_exhausted(&mut self) -> Option<u32> {
        self.exhausted.take()
    }

    /// Chooses a transport address for a client that has none.
    //= rfc6056#section-3.3.3
    fn map(&mut self, settings: &Settings, flow: Outbound) -> Result<BibId, Refusal> {
        let offset = self.offset(settings.f_args, flow);
        let table = &mut self.tables[flow.protocol.index()];
        let Some(set) = self.pool4.set(flow.protocol, flow.mark) else {
            return Err(Refusal::drop(Counter::MaskDomainNotFound));
        };
        let limit = set.max_iterations().map_or(u64::MAX, u64::from);
        let mut tries = 0;
        let mut found = None;
        for candidate in set.from_offset(offset) {
            if tries == limit {
                break;
            }
            tries += 1;
            if table.find_v4(candidate).is_none() {
                found = Some(candidate);
                break;
            }
        }
        self.counter = self.counter.wrapping_add(tries);
        let id = found.and_then(|v4| table.add_bib(flow.client, v4, false));
        let Some(id) = id else {
            self.exhausted = Some(flow.mark);
            return Err(Refusal::drop(match flow.protocol {
                Protocol::Tcp => Counter::Unknown,
                Protocol::Udp | Protocol::Icmp => Counter::Bib6NotFound,
            }));
        };
        self.changes.push(Change::Mapping(Mapping {
            protocol: flow.protocol,
            v6: flow.client,
            v4: table.bib(id).v4,
            is_static: false,
        }));
        Ok(id)
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

    fn begin(
        &mut self,
        now: Tick,
        settings: &Settings,
        protocol: Protocol,
        bib: BibId,
        remote: Transport4,
        state: TcpState,
    ) -> Result<(), Refusal> {
        let lifetime = match protocol {
            Protocol::Tcp => Lifetime::TcpTransitory,
            Protocol::Udp => Lifetime::Udp,
            Protocol::Icmp => Lifetime::Icmp,
        };
        let deadline = now.after(length(settings, lifetime));
        let table = &mut self.tables[protocol.index()];
        let Some(id) = table.add_session(bib, remote, state, lifetime, deadline) else {
            return Err(Refusal::drop(Counter::Enomem));
        };
        self.report(protocol, id);
        Ok(())
    }

    /// A packet belongs to a session: its state moves on and it lives on.
    fn touch(
        &mut self,
        now: Tick,
        settings: &Settings,
        protocol: Protocol,
        id: SessionId,
        side: Side,
        flags: TcpFlags,
    ) {
        let table = &mut self.tables[protocol.index()];
        let session = table.session(id);
        let before = (session.state, session.lifetime);
        let (state, restart) = match protocol {
            Protocol::Tcp => {
                let step = tcp::step(before.0, side, flags, settings.handle_rst_during_fin_rcv);
                (step.state, step.restart)
            }
            Protocol::Udp => (before.0, Some(Lifetime::Udp)),
            Protocol::Icmp => (before.0, Some(Lifetime::Icmp)),
        };
        if let Some(lifetime) = restart {
            table.restart(id, lifetime, now.after(length(settings, lifetime)));
        }
        let session = table.session_mut(id);
        session.state = state;
        // A busy session is reported now and then, not with every packet.
        let same = (state, session.lifetime) == before;
        if !same || session.deadline.0.abs_diff(session.reported.0) >= REPORT_AFTER {
            session.reported = session.deadline;
            self.report(protocol, id);
        }
    }

    fn report(&mut self, protocol: Protocol, id: SessionId) {
        let table = &self.tables[protocol.index()];
        let session = table.session(id);
        let row = SessionState::of(protocol, table.bib_of(session), session);
        self.changes.push(Change::Session(row));
    }

    fn expire_one(&mut self, now: Tick, settings: &Settings, protocol: Protocol, id: SessionId) {
        let table = &mut self.tables[protocol.index()];
        let session = table.session(id);
        let established =
            session.lifetime == Lifetime::TcpEstablished && session.state == TcpState::Established;
        if established {
            self.probes.push(Probe {
                client: table.bib_of(session).v6,
                remote: session.remote,
            });
            let deadline = now.after(length(settings, Lifetime::TcpTransitory));
            table.restart(id, Lifetime::TcpTransitory, deadline);
            let session = table.session_mut(id);
            session.state = TcpState::Trans;
            session.reported = deadline;
            self.report(protocol, id);
            return;
        }
        let (bib, session) = table.remove_session(id);
        let v4 = table.bib(bib).v4;
        self.changes.push(Change::SessionGone {
            protocol,
            v4,
            remote: session.remote,
        });
        if table.drop_if_idle(bib).is_some() {
            self.changes.push(Change::MappingGone { protocol, v4 });
        }
    }
}

/// A packet from IPv6, as the tables see it.
#[derive(Clone, Copy, Debug)]
pub struct Outbound {
    pub protocol: Protocol,
    /// `src6`.
    pub client: Transport6,
    /// `dst4`: the destination without pool6. For ICMP its port is not looked at.
    pub remote: Transport4,
    pub mark: u32,
    /// All false for other protocols than TCP.
    pub flags: TcpFlags,
}

/// A packet from IPv4, as the tables see it.
#[derive(Clone, Copy, Debug)]
pub struct Inbound {
    pub protocol: Protocol,
    /// The destination: a transport address of pool4.
    pub v4: Transport4,
    pub remote: Transport4,
    pub flags: TcpFlags,
}

impl PortRange {
    /// All ports.
    pub const ALL: Self = Self {
        min: 0,
        max: u16::MAX,
    };
}

/// What tells the sessions of a mapping apart: an ICMP session is known by addresses and the
/// mapping's identifier alone (RFC 6146 section 3.1).
const fn peer(protocol: Protocol, remote: Transport4) -> Transport4 {
    match protocol {
        Protocol::Tcp | Protocol::Udp => remote,
        Protocol::Icmp => Transport4::new(remote.addr, 0),
    }
}

/// The lifetimes that sessions of a protocol can be on.
fn lifetimes(protocol: Protocol) -> &'static [Lifetime] {
    match protocol {
        Protocol::Tcp => &[
            Lifetime::TcpEstablished,
            Lifetime::TcpTransitory,
            Lifetime::TcpIncomingSyn,
        ],
        Protocol::Udp => &[Lifetime::Udp],
        Protocol::Icmp => &[Lifetime::Icmp],
    }
}

/// How long a lifetime is, in milliseconds.
//= rfc6146#section-4
fn length(settings: &Settings, lifetime: Lifetime) -> u64 {
    match lifetime {
        Lifetime::TcpEstablished => settings.tcp_est_timeout,
        Lifetime::TcpTransitory => settings.tcp_trans_timeout,
        Lifetime::TcpIncomingSyn => TCP_INCOMING_SYN,
        Lifetime::Udp => settings.udp_timeout,
        Lifetime::Icmp => settings.icmp_timeout,
    }
}

/// Milliseconds; RFC 6146 section 4.
const TCP_INCOMING_SYN: u64 = 6_000;

/// How far a deadline moves, in milliseconds, before that is worth a [`Change`].
const REPORT_AFTER: u64 = 5_000;

const ADMINISTRATIVELY_PROHIBITED: IcmpReply = IcmpReply {
    kind: 3,
    code: 13,
    rest: [0; 4],
};

#[cfg(test)]
mod tests;

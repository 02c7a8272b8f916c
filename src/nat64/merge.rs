// SPDX-License-Identifier: GPL-2.0-or-later
//! Sessions that another gateway tells of.
//!
//! Whatever a peer says, the tables keep their own promises: a client has one transport address, a
//! transport address one client, both inside pool4; no state without a lifetime that goes with it,
//! no lifetime longer than this instance's settings have it, no more sessions than they allow. Where
//! the peer contradicts what is here, what is here wins: who knows better removes that first.

use super::sessions::{REPORT_AFTER, length, lifetimes};
use super::table::{BibId, SessionId};
use super::tcp::Lifetime;
use super::{Change, HOST_PORTS, Mapping, Nat64, News, SessionState, peer};
use crate::base::{Protocol, Tick, Transport4, Transport6};
use crate::model::TcpState;
use crate::model::settings::Settings;

/// A session as a peer describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignSession {
    pub protocol: Protocol,
    /// The client.
    pub v6: Transport6,
    /// What the client is hidden behind.
    pub v4: Transport4,
    /// The IPv4 server. For ICMP its port is not looked at.
    pub remote: Transport4,
    /// Of other protocols than TCP it is looked at with [`Order::Newer`] only.
    pub state: TcpState,
    pub lifetime: Lifetime,
    /// Milliseconds until the lifetime ends.
    pub left: u64,
    /// The most data in a TCP segment, in bytes; 0 if the peer does not say.
    pub segment: u16,
}

/// What is known about the age of what a peer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Nothing. Of the same state the later end counts, and a connection that is established does
    /// not open again: what says otherwise was overtaken on its way.
    Unknown,
    /// It is newer than what is here, and about the same mapping. It may live so many milliseconds
    /// longer here than there.
    Newer { linger: u64 },
}

/// What became of a [`ForeignSession`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// There is such a session now.
    New,
    /// There is such a session now, but its client is hidden behind another transport address
    /// here than there.
    Displaced,
    /// The session that was there moved on.
    Updated,
    /// It was known, or older than what is known.
    Unchanged,
    /// Both have this session, behind different transport addresses.
    Collision,
    Refused(Refusal),
}

/// Why nothing was made of a [`ForeignSession`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("its transport address is not in pool4")]
    OutsidePool4,
    #[error("its transport address belongs to another client here")]
    Taken,
    #[error("its state and its lifetime do not go together")]
    Incoherent,
    #[error("it is over")]
    Over,
    #[error("there may be no more sessions")]
    Full,
}

impl ForeignSession {
    /// The state that it has here. Jool's nodes have none for other protocols than TCP.
    const fn state_for(&self, order: Order, otherwise: TcpState) -> TcpState {
        match (self.protocol, order) {
            (Protocol::Tcp, _) | (_, Order::Newer { .. }) => self.state,
            (Protocol::Udp | Protocol::Icmp, Order::Unknown) => otherwise,
        }
    }
}

impl Nat64 {
    /// Takes a session from a peer.
    //= jool#session-merge
    pub fn merge_session(
        &mut self,
        now: Tick,
        settings: &Settings,
        foreign: &ForeignSession,
        order: Order,
    ) -> Merged {
        let merged = self.merge(now, settings, foreign, order);
        // What either gateway heard counts.
        if foreign.protocol == Protocol::Tcp && foreign.segment != 0 {
            self.bound_segment(foreign.v4, foreign.remote, foreign.segment);
        }
        merged
    }

    fn merge(
        &mut self,
        now: Tick,
        settings: &Settings,
        foreign: &ForeignSession,
        order: Order,
    ) -> Merged {
        if !coherent(foreign.protocol, foreign.state, foreign.lifetime) {
            return Merged::Refused(Refusal::Incoherent);
        }
        let linger = match order {
            Order::Unknown => 0,
            Order::Newer { linger } => linger,
        };
        // The two clocks need not agree, and neither need the settings.
        let left = foreign.left.min(length(settings, foreign.lifetime));
        let left = left.saturating_add(linger);
        if left == 0 {
            return Merged::Refused(Refusal::Over);
        }
        let protocol = foreign.protocol;
        let remote = peer(protocol, foreign.remote);
        let deadline = now.after(left);
        let table = &self.tables[protocol.index()];
        let known = table.find_v6(foreign.v6);
        if order != Order::Unknown && known.is_some_and(|bib| table.bib(bib).v4 != foreign.v4) {
            return Merged::Collision;
        }
        if let Some(bib) = known
            && let Some(id) = table.find_session(bib, remote)
        {
            if table.bib(bib).v4 != foreign.v4 {
                return Merged::Collision;
            }
            return self.follow(foreign, id, deadline, order);
        }
        match self.enter(settings, foreign, known, deadline, order) {
            Ok(bib) if self.tables[protocol.index()].bib(bib).v4 == foreign.v4 => Merged::New,
            Ok(_) => Merged::Displaced,
            Err(refusal) => Merged::Refused(refusal),
        }
    }

    /// Removes a session that a peer says is gone, and its mapping if that was its last. False if
    /// there is none.
    pub fn remove_session(
        &mut self,
        protocol: Protocol,
        v4: Transport4,
        remote: Transport4,
    ) -> bool {
        let Some((_, id)) = self.locate(protocol, v4, remote) else {
            return false;
        };
        let table = &mut self.tables[protocol.index()];
        let (bib, session) = table.remove_session(id);
        let change = Change::gone(protocol, table.bib(bib), &session);
        self.changes.push(change);
        if session.lifetime == Lifetime::TcpIncomingSyn {
            let packet = self.opens.take_session(v4, session.remote);
            self.unopened.extend(packet);
        }
        self.drop_idle(protocol, bib);
        true
    }

    /// The session with a server by way of a transport address, as it is now, and its client.
    pub fn session(
        &self,
        protocol: Protocol,
        v4: Transport4,
        remote: Transport4,
    ) -> Option<(Transport6, SessionState)> {
        let (bib, id) = self.locate(protocol, v4, remote)?;
        let table = self.table(protocol);
        let bib = table.bib(bib);
        Some((bib.v6, SessionState::of(protocol, bib, table.session(id))))
    }

    fn locate(
        &self,
        protocol: Protocol,
        v4: Transport4,
        remote: Transport4,
    ) -> Option<(BibId, SessionId)> {
        let table = self.table(protocol);
        let bib = table.find_v4(v4)?;
        Some((bib, table.find_session(bib, peer(protocol, remote))?))
    }

    /// Lets a session that is here follow what a peer says of it.
    fn follow(
        &mut self,
        foreign: &ForeignSession,
        id: SessionId,
        deadline: Tick,
        order: Order,
    ) -> Merged {
        let protocol = foreign.protocol;
        let table = &mut self.tables[protocol.index()];
        let session = table.session(id);
        let state = foreign.state_for(order, session.state);
        let same = (session.state, session.lifetime) == (state, foreign.lifetime);
        let waits = |lifetime| lifetime == Lifetime::TcpIncomingSyn;
        // What waits for its client, only its client gets through. Who came need not come again.
        let came = waits(foreign.lifetime) && !waits(session.lifetime);
        let overtaken = match order {
            Order::Unknown if same => deadline <= session.deadline(),
            Order::Unknown => came || opens(state) && !opens(session.state),
            Order::Newer { .. } => same && deadline == session.deadline(),
        };
        if overtaken {
            return Merged::Unchanged;
        }
        let (v4, remote) = (table.bib_of(session).v4, session.remote);
        let opened = session.lifetime == Lifetime::TcpIncomingSyn
            && foreign.lifetime != Lifetime::TcpIncomingSyn;
        table.restart(id, foreign.lifetime, deadline);
        let session = table.session_mut(id);
        session.state = state;
        if !same || deadline.0.abs_diff(session.reported.0) >= REPORT_AFTER {
            session.reported = deadline;
            let news = if same { News::LivesOn } else { News::Changed };
            self.report(protocol, id, news);
        }
        if opened {
            // The client has opened the connection by way of the peer.
            self.opens.take_session(v4, remote);
        }
        Merged::Updated
    }

    /// Begins a session that only the peer had, under the mapping that its client has, if any.
    fn enter(
        &mut self,
        settings: &Settings,
        foreign: &ForeignSession,
        known: Option<BibId>,
        deadline: Tick,
        order: Order,
    ) -> Result<BibId, Refusal> {
        let ForeignSession {
            protocol, v6, v4, ..
        } = *foreign;
        if known.is_none() {
            if self.tables[protocol.index()].find_v4(v4).is_some() {
                return Err(Refusal::Taken);
            }
            // Without pool4 the host's addresses are not looked at: they come and go, most of all
            // when one gateway takes over from another.
            let ours = if self.pool4.is_empty() {
                HOST_PORTS.min <= v4.port
            } else {
                self.pool4.contains(protocol, v4)
            };
            if !ours {
                return Err(Refusal::OutsidePool4);
            }
        }
        self.admit(settings, v6.addr).map_err(|_| Refusal::Full)?;
        let bib = match known {
            Some(bib) => bib,
            None => {
                let table = &mut self.tables[protocol.index()];
                let bib = table.add_bib(v6, v4, false).ok_or(Refusal::Full)?;
                self.changes.push(Change::Mapping(Mapping {
                    protocol,
                    v6,
                    v4,
                    is_static: false,
                }));
                bib
            }
        };
        let remote = peer(protocol, foreign.remote);
        let state = foreign.state_for(order, TcpState::V6Init);
        self.begin(protocol, bib, remote, state, foreign.lifetime, deadline)
            .map_err(|_| Refusal::Full)?;
        if protocol == Protocol::Tcp {
            let v4 = self.tables[protocol.index()].bib(bib).v4;
            self.opens.settle(remote, v4);
        }
        Ok(bib)
    }
}

/// Whether a connection in this state is about to open.
const fn opens(state: TcpState) -> bool {
    matches!(state, TcpState::V6Init | TcpState::V4Init)
}

/// Whether a session can be in this state on this lifetime.
fn coherent(protocol: Protocol, state: TcpState, lifetime: Lifetime) -> bool {
    use Lifetime::{TcpEstablished as Est, TcpIncomingSyn as Syn, TcpTransitory as Trans};
    if protocol != Protocol::Tcp {
        return lifetimes(protocol).contains(&lifetime);
    }
    match state {
        TcpState::Established => lifetime == Est,
        TcpState::V6Init | TcpState::V4FinV6FinRcv | TcpState::Trans => lifetime == Trans,
        TcpState::V4Init => lifetime == Trans || lifetime == Syn,
        // On the shorter one after a RST, see `handle-rst-during-fin-rcv`.
        TcpState::V4FinRcv | TcpState::V6FinRcv => lifetime == Est || lifetime == Trans,
    }
}

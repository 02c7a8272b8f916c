// SPDX-License-Identifier: GPL-2.0-or-later
//! The life of a session: it begins, packets keep it alive, it ends.

use super::table::{Bib, BibId, SessionId};
use super::tcp::{self, Lifetime, Side};
use super::{Change, Nat64, News, Probe};
use crate::base::counters::Counter;
use crate::base::{Protocol, Tick, Transport4};
use crate::model::TcpState;
use crate::model::settings::Settings;
use crate::wire::{Refusal, TcpFlags};

impl Nat64 {
    /// Ends what is due, at most `budget` sessions and held packets; true when more is due.
    //= rfc6146#section-3.5
    pub fn expire(&mut self, now: Tick, settings: &Settings, budget: usize) -> bool {
        let mut left = budget;
        while self.opens.next_deadline().is_some_and(|due| due <= now) {
            if left == 0 {
                return true;
            }
            left -= 1;
            self.unopened.extend(self.opens.take_due(now));
        }
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

    /// Begins a session. Should that fail, a mapping made for it goes again.
    pub(super) fn begin(
        &mut self,
        protocol: Protocol,
        bib: BibId,
        remote: Transport4,
        state: TcpState,
        lifetime: Lifetime,
        deadline: Tick,
    ) -> Result<(), Refusal> {
        let table = &mut self.tables[protocol.index()];
        let Some(id) = table.add_session(bib, remote, state, lifetime, deadline) else {
            self.drop_idle(protocol, bib);
            return Err(Refusal::drop(Counter::Enomem));
        };
        self.report(protocol, id, News::Began);
        Ok(())
    }

    /// A packet belongs to a session: keeps it alive, if that is all there is to it. False if more
    /// is to be done, by [`Nat64::touch`].
    //= rfc6146#section-3.5
    pub(super) fn keep(
        &self,
        now: Tick,
        settings: &Settings,
        protocol: Protocol,
        id: SessionId,
        side: Side,
        flags: TcpFlags,
    ) -> bool {
        let session = self.table(protocol).session(id);
        let (state, restart) = step(settings, protocol, session.state, side, flags);
        let Some(lifetime) = restart else {
            return state == session.state;
        };
        let deadline = now.after(length(settings, lifetime));
        (state, lifetime) == (session.state, session.lifetime)
            // A busy session is reported now and then, not with every packet.
            && deadline.0.abs_diff(session.reported.0) < REPORT_AFTER
            && session.put_off(deadline)
    }

    /// A packet belongs to a session: its state moves on and it lives on.
    pub(super) fn touch(
        &mut self,
        now: Tick,
        settings: &Settings,
        protocol: Protocol,
        id: SessionId,
        side: Side,
        flags: TcpFlags,
    ) {
        if self.keep(now, settings, protocol, id, side, flags) {
            return;
        }
        let table = &mut self.tables[protocol.index()];
        let session = table.session(id);
        let before = (session.state, session.lifetime);
        let (state, restart) = step(settings, protocol, before.0, side, flags);
        if let Some(lifetime) = restart {
            table.restart(id, lifetime, now.after(length(settings, lifetime)));
        }
        let session = table.session_mut(id);
        session.state = state;
        let opened = before.1 == Lifetime::TcpIncomingSyn && session.lifetime != before.1;
        let same = (state, session.lifetime) == before;
        if !same || session.deadline().0.abs_diff(session.reported.0) >= REPORT_AFTER {
            session.reported = session.deadline();
            let news = if same { News::LivesOn } else { News::Changed };
            self.report(protocol, id, news);
        }
        if opened {
            // The client's own SYN is on its way: what was held back has done its duty.
            let table = &self.tables[protocol.index()];
            let session = table.session(id);
            let v4 = table.bib_of(session).v4;
            self.opens.take_session(v4, session.remote);
        }
    }

    pub(super) fn report(&mut self, protocol: Protocol, id: SessionId, news: News) {
        let table = &self.tables[protocol.index()];
        let session = table.session(id);
        let change = Change::of(protocol, table.bib_of(session), session, news);
        self.changes.push(change);
    }

    fn expire_one(&mut self, now: Tick, settings: &Settings, protocol: Protocol, id: SessionId) {
        let table = &mut self.tables[protocol.index()];
        let session = table.session(id);
        if now < session.deadline() {
            table.list_anew(id);
            return;
        }
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
            self.report(protocol, id, News::Changed);
            return;
        }
        let (bib, session) = table.remove_session(id);
        let change = Change::gone(protocol, table.bib(bib), &session);
        let v4 = table.bib(bib).v4;
        self.changes.push(change);
        if session.lifetime == Lifetime::TcpIncomingSyn {
            let packet = self.opens.take_session(v4, session.remote);
            self.unopened.extend(packet);
        }
        self.drop_idle(protocol, bib);
    }

    /// Removes a mapping that has no sessions left and is not static.
    pub(super) fn drop_idle(&mut self, protocol: Protocol, bib: BibId) {
        if let Some(Bib { v6, v4, .. }) = self.tables[protocol.index()].drop_if_idle(bib) {
            self.changes.push(Change::MappingGone { protocol, v6, v4 });
        }
    }
}

/// The state that a packet makes a session take, and the lifetime that begins anew with it.
fn step(
    settings: &Settings,
    protocol: Protocol,
    state: TcpState,
    side: Side,
    flags: TcpFlags,
) -> (TcpState, Option<Lifetime>) {
    match protocol {
        Protocol::Tcp => {
            let step = tcp::step(state, side, flags, settings.handle_rst_during_fin_rcv);
            (step.state, step.restart)
        }
        Protocol::Udp => (state, Some(Lifetime::Udp)),
        Protocol::Icmp => (state, Some(Lifetime::Icmp)),
    }
}

/// The lifetimes that sessions of a protocol can be on.
pub(super) fn lifetimes(protocol: Protocol) -> &'static [Lifetime] {
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
pub(super) fn length(settings: &Settings, lifetime: Lifetime) -> u64 {
    match lifetime {
        Lifetime::TcpEstablished => settings.tcp_est_timeout,
        Lifetime::TcpTransitory => settings.tcp_trans_timeout,
        Lifetime::TcpIncomingSyn => TCP_INCOMING_SYN,
        Lifetime::Udp => settings.udp_timeout,
        Lifetime::Icmp => settings.icmp_timeout,
    }
}

/// Milliseconds; RFC 6146 section 4.
pub(super) const TCP_INCOMING_SYN: u64 = 6_000;

/// How far a deadline moves, in milliseconds, before that is worth a [`Change`].
pub(super) const REPORT_AFTER: u64 = 5_000;

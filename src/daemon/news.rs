// SPDX-License-Identifier: GPL-2.0-or-later
//! What happened to the tables of an instance, for those who read along.

use crate::base::prefix::Pool6;
use crate::base::{Protocol, Transport4, Transport6};
use crate::model::control::{SessionEvent, SessionEventKind};
use crate::model::{SessionRow, TcpState};
use crate::nat64::{self, Change};
use crate::store::Clock;

/// Changes that were made at the same time.
#[derive(Debug)]
pub(super) struct News {
    pub(super) clock: Clock,
    pub(super) pool6: Pool6,
    pub(super) changes: Vec<Change>,
}

/// The row of a session.
pub(super) fn row(
    protocol: Protocol,
    pool6: Pool6,
    v6: Transport6,
    v4: Transport4,
    remote: Transport4,
    expires_in: u64,
    state: Option<TcpState>,
) -> SessionRow {
    let (port4, port6) = match protocol {
        Protocol::Tcp | Protocol::Udp => (remote.port, remote.port),
        // An ICMP session has one identifier on each side.
        Protocol::Icmp => (v4.port, v6.port),
    };
    SessionRow {
        protocol,
        src6: v6,
        dst6: Transport6::new(pool6.embed(remote.addr), port6),
        src4: v4,
        dst4: Transport4::new(remote.addr, port4),
        expires_in,
        state: state.filter(|_| protocol == Protocol::Tcp),
    }
}

impl News {
    /// What followers of sessions see of it: births, changes of state, and `ends` if wanted. That
    /// a session lives on is not worth a line: busy ones would fill the screen.
    pub(super) fn events(&self, ends: bool) -> impl Iterator<Item = SessionEvent> {
        let wanted = self.changes.iter().filter(move |c| is_event(c, ends));
        wanted.filter_map(|change| self.event(change))
    }

    /// How many [`News::events`] there are.
    pub(super) fn count(&self, ends: bool) -> usize {
        self.changes.iter().filter(|c| is_event(c, ends)).count()
    }

    fn event(&self, change: &Change) -> Option<SessionEvent> {
        match change {
            Change::Session { session, v6, news } => {
                let kind = match news {
                    nat64::News::Began => SessionEventKind::New,
                    nat64::News::Changed | nat64::News::LivesOn => SessionEventKind::Update,
                };
                let left = session.deadline.since(self.clock.tick);
                let (v4, remote) = (session.v4, session.remote);
                let (protocol, state) = (session.protocol, Some(session.state));
                Some(SessionEvent {
                    event: kind,
                    session: row(protocol, self.pool6, *v6, v4, remote, left, state),
                })
            }
            Change::SessionGone {
                protocol,
                v6,
                v4,
                remote,
            } => Some(SessionEvent {
                event: SessionEventKind::End,
                session: row(*protocol, self.pool6, *v6, *v4, *remote, 0, None),
            }),
            Change::Mapping(_) | Change::MappingFixed(_) | Change::MappingGone { .. } => None,
        }
    }
}

fn is_event(change: &Change, ends: bool) -> bool {
    match change {
        Change::Session { news, .. } => match news {
            nat64::News::Began | nat64::News::Changed => true,
            nat64::News::LivesOn => false,
        },
        Change::SessionGone { .. } => ends,
        Change::Mapping(_) | Change::MappingFixed(_) | Change::MappingGone { .. } => false,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::Tick;
    use crate::nat64::tcp::Lifetime;
    use crate::nat64::{Mapping, SessionState};

    const V6: &str = "2001:db8::8#5000";
    const V4: &str = "192.0.2.1#61001";
    const REMOTE: &str = "203.0.113.2#80";

    /// One change of each kind.
    pub(in crate::daemon) fn everything(protocol: Protocol) -> News {
        let (v6, v4): (Transport6, Transport4) = (V6.parse().unwrap(), V4.parse().unwrap());
        let remote = REMOTE.parse().unwrap();
        let mapping = Mapping {
            protocol,
            v6,
            v4,
            is_static: false,
        };
        let session = SessionState {
            protocol,
            v4,
            remote,
            state: TcpState::V6Init,
            lifetime: Lifetime::TcpTransitory,
            deadline: Tick(240_500),
            segment: 0,
        };
        let says = |news| Change::Session { session, v6, news };
        News {
            clock: Clock {
                tick: Tick(500),
                wall: 1_795_236_483_999,
            },
            pool6: "64:ff9b::/96".to_owned().try_into().unwrap(),
            changes: vec![
                Change::Mapping(mapping),
                Change::MappingFixed(mapping),
                says(nat64::News::Began),
                says(nat64::News::LivesOn),
                says(nat64::News::Changed),
                Change::SessionGone {
                    protocol,
                    v6,
                    v4,
                    remote,
                },
                Change::MappingGone { protocol, v6, v4 },
            ],
        }
    }

    #[test]
    fn followers_see_births_changes_of_state_and_ends() {
        let news = everything(Protocol::Tcp);
        let kinds = |ends| {
            let events: Vec<_> = news.events(ends).map(|event| event.event).collect();
            assert_eq!(events.len(), news.count(ends));
            events
        };
        let (new, update) = (SessionEventKind::New, SessionEventKind::Update);
        assert_eq!(kinds(false), [new, update]);
        assert_eq!(kinds(true), [new, update, SessionEventKind::End]);
    }

    #[test]
    fn an_event_has_the_row_that_a_display_has() {
        let news = everything(Protocol::Tcp);
        let rows: Vec<_> = news.events(true).map(|event| event.session).collect();
        let expected = SessionRow {
            protocol: Protocol::Tcp,
            src6: V6.parse().unwrap(),
            dst6: "64:ff9b::cb00:7102#80".parse().unwrap(),
            src4: V4.parse().unwrap(),
            dst4: REMOTE.parse().unwrap(),
            expires_in: 240_000,
            state: Some(TcpState::V6Init),
        };
        assert_eq!(rows[0], expected);
        let gone = SessionRow {
            expires_in: 0,
            state: None,
            ..expected
        };
        assert_eq!(rows[2], gone);
        let ping = everything(Protocol::Icmp)
            .events(false)
            .next()
            .unwrap()
            .session;
        assert_eq!((ping.dst6.port, ping.dst4.port), (5000, 61001));
        assert_eq!(ping.state, None);
    }
}

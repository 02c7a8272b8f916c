// SPDX-License-Identifier: GPL-2.0-or-later
//! Every state of a TCP session, every event, and what comes of it.

use super::*;

/// What segments and the timer do to a session. The head names the side a segment comes from.
///
/// `=` leaves state and timer alone; `=est` and `=trans` begin that lifetime anew; a state with
/// `+est` or `+trans` is a new state with that lifetime begun; a state alone keeps the timer.
/// `drop` is not translated and changes nothing; after `probe` the session is in TRANS and its
/// client is asked for a sign of life; after `gone` there is no session.
const SEGMENTS: &str = "
state     6SYN       6FIN         6RST        6ACK     4SYN       4FIN         4RST        4ACK     timer
V6_INIT   =trans     =            =           =        EST+est    =            =           =        gone
V4_INIT   EST+est    =            =           =        =          =            =           =        gone
HELD      EST+est    =            =           =        drop       drop         drop        drop     gone
EST       =est       V6_FIN       TRANS+trans =est     =est       V4_FIN       TRANS+trans =est     probe
V4_FIN    =est       BOTH+trans   =est        =est     =est       =est         =est        =est     gone
V6_FIN    =est       =est         =est        =est     =est       BOTH+trans   =est        =est     gone
BOTH      =          =            =           =        =          =            =           =        gone
TRANS     EST+est    EST+est      =           EST+est  EST+est    EST+est      =           EST+est  gone
";

/// What is different with `handle-rst-during-fin-rcv`.
const WITH_RST: &str = "
state     6RST       4RST
V4_FIN    =trans     =trans
V6_FIN    =trans     =trans
";

/// What a packet without a session does. `new` begins one in the state named, `map` goes through
/// by its mapping alone, anything else is the reason why it is refused.
const CLOSED: &str = "
mapping   filter  closed  6SYN     6FIN          6RST          6ACK          4SYN      4FIN          4RST          4ACK
none      off     off     V6_INIT  Syn6Expected  Syn6Expected  Syn6Expected  Type1pkt  Syn4Expected  Syn4Expected  Syn4Expected
none      on      off     V6_INIT  Syn6Expected  Syn6Expected  Syn6Expected  Type1pkt  Syn4Expected  Syn4Expected  Syn4Expected
none      off     on      V6_INIT  Syn6Expected  Syn6Expected  Syn6Expected  V4Syn     Syn4Expected  Syn4Expected  Syn4Expected
there     off     off     V6_INIT  map           map           map           V4_INIT   map           map           map
there     on      off     V6_INIT  map           map           map           Type2pkt  map           map           map
there     on      on      V6_INIT  map           map           map           V4Syn     map           map           map
";

const TCP: Protocol = Protocol::Tcp;
const SERVER: Transport4 = Transport4::new(Ipv4Addr::new(203, 0, 113, 1), 80);
const V4: Transport4 = Transport4::new(Ipv4Addr::new(192, 0, 2, 1), 61_001);

/// When the session was last heard of, and when the event comes.
const BEGIN: Tick = Tick(1_000);
const EVENT: Tick = Tick(3_500);

fn state(name: &str) -> (TcpState, Lifetime) {
    use Lifetime::{TcpEstablished as Est, TcpIncomingSyn, TcpTransitory as Trans};
    match name {
        "V6_INIT" => (TcpState::V6Init, Trans),
        "V4_INIT" => (TcpState::V4Init, Trans),
        "HELD" => (TcpState::V4Init, TcpIncomingSyn),
        "EST" => (TcpState::Established, Est),
        "V4_FIN" => (TcpState::V4FinRcv, Est),
        "V6_FIN" => (TcpState::V6FinRcv, Est),
        "BOTH" => (TcpState::V4FinV6FinRcv, Trans),
        "TRANS" => (TcpState::Trans, Trans),
        other => panic!("{other}"),
    }
}

fn lifetime(name: &str) -> Lifetime {
    match name {
        "est" => Lifetime::TcpEstablished,
        "trans" => Lifetime::TcpTransitory,
        other => panic!("{other}"),
    }
}

fn mapping() -> Mapping {
    Mapping {
        protocol: TCP,
        v6: client(8, 5),
        v4: V4,
        is_static: true,
    }
}

/// The one session, as a value.
fn session(nat64: &Nat64) -> Option<SessionState> {
    let mut all = nat64.table(TCP).sessions();
    all.next()
        .map(|(bib, session)| SessionState::of(TCP, bib, session))
}

/// Sends the segment that a column is headed by.
fn segment(nat64: &mut Nat64, settings: &Settings, event: &str) -> Result<(), Counter> {
    let flags = match &event[1..] {
        "SYN" => SYN,
        "FIN" => FIN,
        "RST" => RST,
        "ACK" => ACK,
        other => panic!("{other}"),
    };
    let result = if event.starts_with('6') {
        let flow = out(TCP, client(8, 5), SERVER, flags);
        let sent = nat64.outbound(EVENT, settings, &Nameless, flow);
        sent.map(drop)
    } else {
        let flow = inc(TCP, SERVER, V4, flags);
        nat64.inbound(EVENT, settings, flow).map(drop)
    };
    result.map_err(|refusal| refusal.reason)
}

/// Puts a session into a state, lets the event happen and compares with the cell.
fn check(settings: &Settings, name: &str, event: &str, cell: &str) {
    let what = format!("{name} {event}");
    let mut nat64 = nat64();
    assert!(nat64.import_mapping(mapping()));
    let (begin, on) = state(name);
    let before = SessionState {
        protocol: TCP,
        v4: V4,
        remote: SERVER,
        state: begin,
        lifetime: on,
        deadline: BEGIN.after(length(settings, on)),
        segment: 0,
    };
    assert!(nat64.import_session(BEGIN, settings, before));
    if event == "timer" {
        nat64.expire(Tick(before.deadline.0 - 1), settings, 9);
        assert_eq!(session(&nat64), Some(before), "{what} comes too early");
        nat64.expire(before.deadline, settings, 9);
        let probes = nat64.drain_probes();
        let after = session(&nat64).map(|s| (s.state, s.lifetime, s.deadline));
        match cell {
            "gone" => assert!(after.is_none() && probes.is_empty(), "{what}"),
            "probe" => {
                let end = before.deadline.after(settings.tcp_trans_timeout);
                let expected = (TcpState::Trans, Lifetime::TcpTransitory, end);
                assert_eq!((after, probes.len()), (Some(expected), 1), "{what}");
            }
            other => panic!("{other}"),
        }
        return;
    }
    let result = segment(&mut nat64, settings, event);
    let restarted = |on| EVENT.after(length(settings, on));
    let expected = match (cell, cell.split_once('+'), cell.strip_prefix('=')) {
        ("=" | "drop", _, _) => before,
        (_, Some((to, on)), _) => SessionState {
            state: state(to).0,
            lifetime: lifetime(on),
            deadline: restarted(lifetime(on)),
            ..before
        },
        (_, _, Some(on)) => SessionState {
            lifetime: lifetime(on),
            deadline: restarted(lifetime(on)),
            ..before
        },
        (to, None, None) => SessionState {
            state: state(to).0,
            ..before
        },
    };
    assert_eq!(session(&nat64), Some(expected), "{what}");
    let translated = if cell == "drop" {
        Err(Counter::SoExists)
    } else {
        Ok(())
    };
    assert_eq!(result, translated, "{what}");
}

/// The cells of a table, each with its row's first word and its column's head.
fn cells(table: &'static str) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let mut lines = table.trim().lines();
    let head: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    lines.flat_map(move |line| {
        let row: Vec<_> = line.split_whitespace().collect();
        assert_eq!(row.len(), head.len(), "{line}");
        let columns = head.clone().into_iter().zip(row.clone()).skip(1);
        columns
            .map(|(event, cell)| (row[0], event, cell))
            .collect::<Vec<_>>()
    })
}

//= rfc6146#section-3.5.2.2
//= type=test
#[test]
fn every_state_and_event() {
    for handle_rst_during_fin_rcv in [false, true] {
        let settings = Settings {
            handle_rst_during_fin_rcv,
            ..Settings::default()
        };
        for (name, event, cell) in cells(SEGMENTS) {
            let other = cells(WITH_RST)
                .find(|(n, e, _)| handle_rst_during_fin_rcv && (*n, *e) == (name, event));
            check(
                &settings,
                name,
                event,
                other.map_or(cell, |(_, _, cell)| cell),
            );
        }
    }
    let rows: std::collections::BTreeSet<_> = cells(SEGMENTS)
        .map(|(name, _, _)| format!("{:?}", state(name).0))
        .collect();
    assert_eq!(rows.len(), TcpState::ALL.len(), "no state is left out");
}

//= rfc6146#section-3.5.2.2
//= type=test
#[test]
fn every_segment_without_a_session() {
    for line in CLOSED.trim().lines().skip(1) {
        let words: Vec<_> = line.split_whitespace().collect();
        let settings = Settings {
            address_dependent_filtering: words[1] == "on",
            drop_externally_initiated_tcp: words[2] == "on",
            ..Settings::default()
        };
        let events = [
            "6SYN", "6FIN", "6RST", "6ACK", "4SYN", "4FIN", "4RST", "4ACK",
        ];
        for (event, cell) in events.into_iter().zip(&words[3..]) {
            let mut nat64 = nat64();
            if words[0] == "there" {
                assert!(nat64.import_mapping(mapping()));
            }
            let result = segment(&mut nat64, &settings, event);
            let found = session(&nat64);
            let what = format!("{} {event}", words[..3].join(" "));
            match *cell {
                "map" => assert_eq!((result, found), (Ok(()), None), "{what}"),
                "V6_INIT" | "V4_INIT" => {
                    let (state, on) = state(cell);
                    let found = found.map(|s| (s.state, s.lifetime, s.deadline));
                    let end = EVENT.after(settings.tcp_trans_timeout);
                    assert_eq!(result, Ok(()), "{what}");
                    assert_eq!(found, Some((state, on, end)), "{what}");
                }
                "Type2pkt" => {
                    let found = found.map(|s| (s.state, s.lifetime, s.deadline));
                    let (state, on) = state("HELD");
                    assert_eq!(result, Err(Counter::Type2pkt), "{what}");
                    assert_eq!(found, Some((state, on, EVENT.after(6_000))), "{what}");
                }
                reason => {
                    assert_eq!(found, None, "{what}");
                    let result = result.map_err(|reason| format!("{reason:?}"));
                    assert_eq!(result, Err(reason.to_owned()), "{what}");
                }
            }
        }
    }
}

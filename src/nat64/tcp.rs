// SPDX-License-Identifier: GPL-2.0-or-later
//! The TCP session state machine of RFC 6146 section 3.5.2, as a table: state and segment in,
//! state and timer out.

use crate::model::TcpState;
use crate::wire::TcpFlags;

/// Which side a packet came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    V6,
    V4,
}

/// The lifetimes that a session can be on. Their lengths are settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    TcpEstablished,
    TcpTransitory,
    /// Fixed: RFC 6146 section 4, TCP_INCOMING_SYN.
    TcpIncomingSyn,
    Udp,
    Icmp,
}

/// What a segment does to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub state: TcpState,
    /// The lifetime to begin anew; `None` lets the current one run on.
    pub restart: Option<Lifetime>,
}

/// The step that a segment from `side` makes a session in `state` take.
///
/// A SYN counts whatever else is set, a FIN before a RST. `rst_during_fin` is the setting
/// `handle-rst-during-fin-rcv`: whether a RST ends a half-closed session early.
//= rfc6146#section-3.5.2.2
pub fn step(state: TcpState, side: Side, flags: TcpFlags, rst_during_fin: bool) -> Step {
    use Lifetime::{TcpEstablished as Est, TcpTransitory as Trans};
    let to = |state, restart| Step {
        state,
        restart: Some(restart),
    };
    let stay = Step {
        state,
        restart: None,
    };
    match (state, side) {
        (TcpState::V6Init, Side::V4) if flags.syn => to(TcpState::Established, Est),
        (TcpState::V6Init, Side::V6) if flags.syn => to(state, Trans),
        (TcpState::V4Init, Side::V6) if flags.syn => to(TcpState::Established, Est),
        (TcpState::V6Init | TcpState::V4Init, _) => stay,
        (TcpState::Established, Side::V4) if flags.fin => Step {
            state: TcpState::V4FinRcv,
            restart: None,
        },
        (TcpState::Established, Side::V6) if flags.fin => Step {
            state: TcpState::V6FinRcv,
            restart: None,
        },
        (TcpState::Established, _) if flags.rst => to(TcpState::Trans, Trans),
        (TcpState::Established, _) => to(state, Est),
        (TcpState::V4FinRcv, Side::V6) | (TcpState::V6FinRcv, Side::V4) if flags.fin => {
            to(TcpState::V4FinV6FinRcv, Trans)
        }
        (TcpState::V4FinRcv | TcpState::V6FinRcv, _) if flags.rst && rst_during_fin => {
            to(state, Trans)
        }
        (TcpState::V4FinRcv | TcpState::V6FinRcv, _) => to(state, Est),
        (TcpState::V4FinV6FinRcv, _) => stay,
        (TcpState::Trans, _) if flags.rst => stay,
        (TcpState::Trans, _) => to(TcpState::Established, Est),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: TcpFlags = flags(true, false, false);
    const FIN: TcpFlags = flags(false, true, false);
    const RST: TcpFlags = flags(false, false, true);
    const ACK: TcpFlags = flags(false, false, false);

    const fn flags(syn: bool, fin: bool, rst: bool) -> TcpFlags {
        TcpFlags { syn, fin, rst }
    }

    //= rfc6146#section-3.5.2.2
    //= type=test
    #[test]
    fn every_state_event_and_direction() {
        use Lifetime::{TcpEstablished as Est, TcpTransitory as Trans};
        use TcpState::{
            Established, Trans as T, V4FinRcv, V4FinV6FinRcv, V4Init, V6FinRcv, V6Init,
        };
        let same = |s| (s, None);
        // Rows: state; then (V6 SYN, V6 FIN, V6 RST, V6 other), (the same from V4).
        let table = [
            (
                V6Init,
                [
                    (V6Init, Some(Trans)),
                    same(V6Init),
                    same(V6Init),
                    same(V6Init),
                ],
                [
                    (Established, Some(Est)),
                    same(V6Init),
                    same(V6Init),
                    same(V6Init),
                ],
            ),
            (
                V4Init,
                [
                    (Established, Some(Est)),
                    same(V4Init),
                    same(V4Init),
                    same(V4Init),
                ],
                [same(V4Init), same(V4Init), same(V4Init), same(V4Init)],
            ),
            (
                Established,
                [
                    (Established, Some(Est)),
                    same(V6FinRcv),
                    (T, Some(Trans)),
                    (Established, Some(Est)),
                ],
                [
                    (Established, Some(Est)),
                    same(V4FinRcv),
                    (T, Some(Trans)),
                    (Established, Some(Est)),
                ],
            ),
            (
                V4FinRcv,
                [
                    (V4FinRcv, Some(Est)),
                    (V4FinV6FinRcv, Some(Trans)),
                    (V4FinRcv, Some(Est)),
                    (V4FinRcv, Some(Est)),
                ],
                [
                    (V4FinRcv, Some(Est)),
                    (V4FinRcv, Some(Est)),
                    (V4FinRcv, Some(Est)),
                    (V4FinRcv, Some(Est)),
                ],
            ),
            (
                V6FinRcv,
                [
                    (V6FinRcv, Some(Est)),
                    (V6FinRcv, Some(Est)),
                    (V6FinRcv, Some(Est)),
                    (V6FinRcv, Some(Est)),
                ],
                [
                    (V6FinRcv, Some(Est)),
                    (V4FinV6FinRcv, Some(Trans)),
                    (V6FinRcv, Some(Est)),
                    (V6FinRcv, Some(Est)),
                ],
            ),
            (
                V4FinV6FinRcv,
                [same(V4FinV6FinRcv); 4],
                [same(V4FinV6FinRcv); 4],
            ),
            (
                T,
                [
                    (Established, Some(Est)),
                    (Established, Some(Est)),
                    same(T),
                    (Established, Some(Est)),
                ],
                [
                    (Established, Some(Est)),
                    (Established, Some(Est)),
                    same(T),
                    (Established, Some(Est)),
                ],
            ),
        ];
        assert_eq!(table.len(), TcpState::ALL.len());
        for (state, v6, v4) in table {
            for (side, row) in [(Side::V6, v6), (Side::V4, v4)] {
                for (event, (next, restart)) in [SYN, FIN, RST, ACK].into_iter().zip(row) {
                    let expected = Step {
                        state: next,
                        restart,
                    };
                    let got = step(state, side, event, false);
                    assert_eq!(got, expected, "{state:?} {side:?} {event:?}");
                }
            }
        }
    }

    #[test]
    fn a_reset_may_end_a_half_closed_session() {
        for state in [TcpState::V4FinRcv, TcpState::V6FinRcv] {
            for side in [Side::V6, Side::V4] {
                let expected = Step {
                    state,
                    restart: Some(Lifetime::TcpTransitory),
                };
                assert_eq!(step(state, side, RST, true), expected);
            }
        }
    }
}

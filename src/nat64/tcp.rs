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

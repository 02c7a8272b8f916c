// SPDX-License-Identifier: GPL-2.0-or-later
//! Packets of sessions that go on as they are. Several threads may decide on them at once.

use super::tcp::{Lifetime, Side};
use super::{Inbound, Nat64, Outbound, peer};
use crate::base::host::Host;
use crate::base::{Tick, Transport4, Transport6};
use crate::model::settings::Settings;

impl Nat64 {
    /// Decides as [`Nat64::outbound`] does, if nothing comes of the packet but that its session
    /// lives on. `None` otherwise; then nothing has happened.
    ///
    /// `now` is not earlier than that of any change before.
    pub fn outbound_settled(
        &self,
        now: Tick,
        settings: &Settings,
        host: &dyn Host,
        flow: Outbound,
    ) -> Option<Transport4> {
        let Outbound {
            protocol, flags, ..
        } = flow;
        // SYNs are few, and tell about connections what other segments do not.
        if flags.syn {
            return None;
        }
        let table = self.table(protocol);
        let id = table.find_v6(flow.client)?;
        let session = table.find_session(id, peer(protocol, flow.remote))?;
        let bib = table.bib(id);
        let usable = if self.pool4.is_empty() {
            !self.is_displaced(host, protocol, bib)
        } else {
            self.pool4.set(protocol, flow.mark).is_some()
        };
        let kept = usable && self.keep(now, settings, protocol, session, Side::V6, flags);
        kept.then_some(bib.v4)
    }

    /// Decides as [`Nat64::inbound`] does, on the same terms.
    pub fn inbound_settled(
        &self,
        now: Tick,
        settings: &Settings,
        flow: &Inbound<'_>,
    ) -> Option<Transport6> {
        let Inbound {
            protocol, flags, ..
        } = *flow;
        if flags.syn {
            return None;
        }
        let table = self.table(protocol);
        let bib = table.find_v4(flow.v4)?;
        let id = table.find_session(bib, peer(protocol, flow.remote))?;
        let kept = table.session(id).lifetime != Lifetime::TcpIncomingSyn
            && self.keep(now, settings, protocol, id, Side::V4, flags);
        kept.then_some(table.bib(bib).v6)
    }
}

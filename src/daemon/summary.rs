// SPDX-License-Identifier: GPL-2.0-or-later
//! How many sessions there are of each kind, and which clients have most of them.
//!
//! One walk through the tables, in portions as for a display, but without putting anything in
//! order. There may be as many clients as sessions, so not all are remembered: Misra and Gries'
//! summary, cut by half at a time.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use ipnet::Ipv6Net;

use super::gateway::failure;
use super::portions::{PORTION, politely, read};
use super::traffic::Slot;
use crate::base::Protocol;
use crate::model::TcpState;
use crate::model::control::{Failure, SessionSummary};
use crate::nat64::table::Table;

/// Goes through all tables; clients are told apart by the first `prefix` bits of their addresses,
/// and counted for one protocol or all.
pub(super) fn of(
    slot: &Slot,
    prefix: u8,
    protocol: Option<Protocol>,
) -> Result<SessionSummary, Failure> {
    if prefix > 128 {
        let message = format!("a prefix of {prefix} bits is longer than an address; at most 128");
        return Err(failure(libc::EINVAL, message));
    }
    let mut summary = SessionSummary::default();
    let mut most = Most::new(CLIENTS);
    let mut portion = Vec::with_capacity(PORTION);
    for table in Protocol::ALL {
        let mut at = 0;
        while at < read(slot, table, Table::session_positions)? {
            let to = at.saturating_add(PORTION);
            politely(|| {
                read(slot, table, |table| {
                    let found = table.sessions_at(at..to);
                    portion.extend(found.map(|(bib, session)| (bib.v6.addr, session.state)));
                })
            })?;
            at = to;
            for (client, state) in portion.drain(..) {
                match table {
                    Protocol::Tcp => count(&mut summary.tcp, state),
                    Protocol::Udp => summary.udp += 1,
                    Protocol::Icmp => summary.icmp += 1,
                }
                if protocol.is_none_or(|protocol| protocol == table) {
                    let client = Ipv6Net::new(client, prefix);
                    most.count(client.map_or(Ipv6Addr::UNSPECIFIED, |net| net.network()));
                }
            }
        }
    }
    (summary.talkers, summary.slack) = most.first(TALKERS);
    Ok(summary)
}

fn count(states: &mut [u64; TcpState::ALL.len()], state: TcpState) {
    let counts = TcpState::ALL.iter().zip(states);
    for (_, count) in counts.filter(|(known, _)| **known == state) {
        *count += 1;
    }
}

/// How often each came, of those that came most often: exactly while they are no more than there is
/// room for, else too low by up to `missed`, which is at most twice what came divided by the room.
struct Most {
    counts: HashMap<Ipv6Addr, u64>,
    room: usize,
    missed: u64,
}

impl Most {
    fn new(room: usize) -> Self {
        Self {
            counts: HashMap::new(),
            room,
            missed: 0,
        }
    }

    fn count(&mut self, client: Ipv6Addr) {
        *self.counts.entry(client).or_default() += 1;
        if self.counts.len() > self.room {
            self.cut();
        }
    }

    /// Takes from all as much as the lower half has at most, so that it is gone.
    fn cut(&mut self) {
        let mut all: Vec<u64> = self.counts.values().copied().collect();
        let middle = all.len() / 2;
        if middle == 0 {
            return;
        }
        let (_, median, _) = all.select_nth_unstable(middle);
        let median = *median;
        self.missed += median;
        self.counts.retain(|_, count| {
            *count = count.saturating_sub(median);
            *count > 0
        });
    }

    /// Those that came most often, and how much too low their counts may be.
    fn first(self, number: usize) -> (Vec<(Ipv6Addr, u64)>, u64) {
        let mut all: Vec<_> = self.counts.into_iter().collect();
        let by_count = |(client, count): &(Ipv6Addr, u64)| (u64::MAX - count, *client);
        if number < all.len() {
            all.select_nth_unstable_by_key(number, by_count);
            all.truncate(number);
        }
        all.sort_unstable_by_key(by_count);
        (all, self.missed)
    }
}

/// Clients that are remembered at a time, about 50 bytes each.
const CLIENTS: usize = 1 << 16;

/// Clients that are told.
const TALKERS: usize = 100;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_are_exact_or_too_low_by_a_bounded_number(
            came in prop::collection::vec(prop_oneof![0u128..4, 0u128..60], 0..400),
            room in 2usize..50,
            number in 0usize..20,
        ) {
            let mut most = Most::new(room);
            let mut real = BTreeMap::new();
            for client in &came {
                let client = Ipv6Addr::from(*client);
                most.count(client);
                prop_assert!(most.counts.len() <= room);
                *real.entry(client).or_insert(0) += 1;
            }
            let (first, missed) = most.first(number);
            prop_assert!(missed <= 2 * came.len() as u64 / room as u64);
            prop_assert!(real.len() > room || missed == 0);
            prop_assert!(first.is_sorted_by_key(|(client, count)| (u64::MAX - count, *client)));
            for (client, count) in &first {
                prop_assert!((*count..=count + missed).contains(&real[client]));
            }
            // Who is not told of has no more than the last that is, but for what was missed.
            let least = first.last().map_or(0, |(_, count)| *count);
            if number > 0 {
                for (client, count) in real {
                    let told = first.iter().any(|(known, _)| *known == client);
                    prop_assert!(told || count <= least + missed);
                }
            }
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! When sessions end, against a list of the times when their packets came.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

proptest! {
    /// Never before its last packet and the whole lifetime, and not a moment later.
    //= rfc6146#section-4
    //= type=test
    #[test]
    fn a_session_lives_as_long_as_its_packets_have_it(
        steps in prop::collection::vec(
            (
                prop::sample::select(vec![0, 1, 900, 4_999, 5_000, 60_000, 119_999, 120_000, 300_000]),
                0u16..6,
                any::<bool>(),
                prop::option::weighted(0.05, 120_000u64..400_000),
                1usize..4,
            ),
            1..120,
        ),
    ) {
        let (mut nat64, mut settings) = (nat64(), Settings::default());
        let (mut now, mut ends) = (Tick(1), BTreeMap::<u16, Tick>::new());
        for (wait, port, beside, timeout, budget) in steps {
            now = now.after(wait);
            while nat64.expire(now, &settings, budget) {}
            ends.retain(|_, end| *end > now);
            if let Some(udp_timeout) = timeout {
                let new = Settings { udp_timeout, ..settings.clone() };
                for end in ends.values_mut() {
                    *end = Tick(end.0 + udp_timeout - settings.udp_timeout);
                }
                nat64.retime(&settings, &new);
                settings = new;
            }
            let flow = out(Protocol::Udp, client(1, port), server(1, 53), ACK);
            let known = ends.contains_key(&port);
            // Another worker's clock may be a little behind.
            let seen = if beside { Tick(now.0.saturating_sub(7)) } else { now };
            let kept = beside && nat64.outbound_settled(seen, &settings, &Nameless, flow).is_some();
            prop_assert!(known || !kept);
            if !kept {
                nat64.outbound(now, &settings, &Nameless, flow).unwrap();
            }
            let end = if kept { seen } else { now }.after(settings.udp_timeout);
            let latest = ends.entry(port).or_insert(end);
            *latest = end.max(*latest);
            let found: BTreeMap<_, _> = nat64
                .table(Protocol::Udp)
                .sessions()
                .map(|(bib, session)| (bib.v6.port, session.deadline()))
                .collect();
            prop_assert_eq!(&found, &ends);
            prop_assert_eq!(nat64.next_deadline(), ends.values().min().copied());
        }
    }
}

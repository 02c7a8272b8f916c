// SPDX-License-Identifier: GPL-2.0-or-later
//! The counters that say why packets were not translated.

use crate::base::counters::Counter;
use crate::model::Flavour;

/// The counter as a label of [`Untranslated`](super::Metric::Untranslated), if packets of such an
/// instance may be dropped or left alone because of it: `JSTAT46_TTL` is `46_ttl`.
pub fn reason(counter: Counter, flavour: Flavour) -> Option<String> {
    let other = matches!(
        counter,
        Counter::Received6
            | Counter::Received4
            | Counter::Success
            | Counter::BibEntries
            | Counter::Sessions
            | Counter::Icmp6errSuccess
            | Counter::Icmp6errFailure
            | Counter::Icmp4errSuccess
            | Counter::Icmp4errFailure
    );
    let name = counter.name().strip_prefix("JSTAT")?;
    let name = name.strip_prefix('_').unwrap_or(name);
    let foreign = name.starts_with("JOOLD_")
        || name.starts_with("SYNC_")
        || (flavour != Flavour::Mapt && name.starts_with("MAPT_"));
    (!other && !foreign).then(|| name.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_named_as_statistics_are() {
        let of = |counter| reason(counter, Flavour::Nat64);
        assert_eq!(of(Counter::FourSixTtl).as_deref(), Some("46_ttl"));
        assert_eq!(of(Counter::Adf).as_deref(), Some("adf"));
        for other in [
            Counter::Received6,
            Counter::Sessions,
            Counter::JooldAds,
            Counter::SyncPeers,
            Counter::MaptPsid,
        ] {
            assert_eq!(of(other), None);
        }
        let mapt = reason(Counter::MaptPsid, Flavour::Mapt);
        assert_eq!(mapt.as_deref(), Some("mapt_psid"));
    }
}

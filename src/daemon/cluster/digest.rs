// SPDX-License-Identifier: GPL-2.0-or-later
//! A hash of what must be equal at all nodes.

use serde::Serialize;

use crate::base::Protocol;
use crate::model::settings::Settings;
use crate::nat64::pool4::Pool4;

/// Pool6, pool4 and the global settings, except those that concern this node alone: what it logs
/// and remembers, and how it speaks to Jool's nodes. The same at every node and version.
pub(super) fn digest(settings: &Settings, pool4: &Pool4) -> u64 {
    let own = Settings::default();
    let shared = Settings {
        manually_enabled: own.manually_enabled,
        logging_debug: own.logging_debug,
        logging_bib: own.logging_bib,
        logging_session: own.logging_session,
        history_retention: own.history_retention,
        history_max_entries: own.history_max_entries,
        ss_flush_asap: own.ss_flush_asap,
        ss_flush_deadline: own.ss_flush_deadline,
        ss_capacity: own.ss_capacity,
        ss_max_payload: own.ss_max_payload,
        ss_max_sessions_per_packet: own.ss_max_sessions_per_packet,
        ..settings.clone()
    };
    let mut hash = add(FNV_START, &shared);
    for protocol in Protocol::ALL {
        for row in pool4.rows(protocol) {
            hash = add(hash, &row);
        }
    }
    hash
}

/// FNV-1a over the form that commands and the database know.
fn add(hash: u64, value: &impl Serialize) -> u64 {
    let text = serde_json::to_vec(value).unwrap_or_default();
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
    text.iter().fold(hash, step)
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Pool4Entry, PortRange};

    #[test]
    fn what_translation_depends_on_counts_and_what_is_a_nodes_own_does_not() {
        let (settings, pool4) = (Settings::default(), Pool4::default());
        let same = digest(&settings, &pool4);
        let logs = Settings {
            logging_bib: true,
            ss_capacity: 9,
            ..settings.clone()
        };
        assert_eq!(digest(&logs, &pool4), same);
        let longer = Settings {
            udp_timeout: settings.udp_timeout + 1,
            ..settings.clone()
        };
        assert_ne!(digest(&longer, &pool4), same);
        let prefix = Settings {
            pool6: Some("64:ff9b::/96".to_owned().try_into().unwrap()),
            ..settings.clone()
        };
        assert_ne!(digest(&prefix, &pool4), same);
        let mut other = pool4;
        other.add(&Pool4Entry {
            mark: 0,
            protocol: Protocol::Udp,
            prefix: "192.0.2.1/32".parse().unwrap(),
            ports: PortRange { min: 1, max: 9 },
            max_iterations: None,
        });
        assert_ne!(digest(&settings, &other), same);
    }
}

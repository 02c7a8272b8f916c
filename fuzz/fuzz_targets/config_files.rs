// SPDX-License-Identifier: GPL-2.0-or-later
//! Files of commands: configurations of all three kinds, those of `joold`, and what a node of a cluster
//! is told. The first byte chooses the kind and whether to insist.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tylo::cli::fuzzing::files;
use tylo::model::Flavour;
use tylo::model::cluster::{ClusterConfig, Secret};

fuzz_target!(init: tylo_fuzz::plant(seeds()), |data: &[u8]| {
    let Some((choice, text)) = data.split_first() else { return };
    let flavour = [Flavour::Nat64, Flavour::Siit, Flavour::Mapt][usize::from(choice % 3)];
    files(flavour, choice & 0x80 != 0, text);
    if let Ok(config) = serde_json::from_slice::<ClusterConfig>(text) {
        if let Err(error) = config.check() {
            assert!(!error.to_string().is_empty());
        }
        let written = serde_json::to_vec(&config).expect("a configuration can be written");
        assert_eq!(serde_json::from_slice::<ClusterConfig>(&written).ok(), Some(config));
    }
    let secret = std::str::from_utf8(text).ok().and_then(|text| text.parse::<Secret>().ok());
    if let Some(secret) = secret {
        let written = String::from(secret.clone());
        assert_eq!(written.parse(), Ok(secret));
    }
});

fn seeds() -> Vec<Vec<u8>> {
    let key = "07".repeat(33);
    let secret = format!("{key}\n");
    let reach = r#"{"group":{"group":"ff08::1","port":6465,"device":"eth2"}}"#;
    let node = format!(r#"{{"node":4,"keys":["{key}"],"reach":{reach},"share":{{"static":{{"index":0,"of":2}}}}}}"#);
    let peers = format!(r#"{{"node":1,"keys":["{key}"],"reach":{{"peers":{{"bind":"[::1]:1","peers":["[::2]:1"]}}}}}}"#);
    let texts = [
        (0, include_str!("../../tests/fixtures/cli/nat64/atomic.json")),
        (1, include_str!("../../tests/fixtures/cli/siit/atomic-siit.json")),
        (
            2,
            r#"{"framework": "netfilter", "global": {"bmr": {"ipv6 prefix": "2001:db8:ce::/51",
               "ipv4 prefix": "192.0.2.0/24", "ea-bits length": 13, "a": 0}, "map-t-type": "BR"},
               "fmrt": [{"ipv6 prefix": "2001:db8:ce::/51", "ipv4 prefix": "192.0.2.0/24",
               "ea-bits length": 13}]}"#,
        ),
        (
            0,
            r#"{"multicast address": "ff08::db8:64:64", "multicast port": "6464", "in interface": "eth0",
               "out interface": "eth0", "reuseaddr": 1, "ttl": 3, "format": "c"}"#,
        ),
        (0, r#"{"instance": "default"}"#),
        (0, &secret),
        (0, &node),
        (0, &peers),
    ];
    texts.iter().map(|(choice, text)| [&[*choice][..], text.as_bytes()].concat()).collect()
}

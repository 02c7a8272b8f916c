// SPDX-License-Identifier: GPL-2.0-or-later
//! Lines of the control protocol, in both directions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tylo::model::control::{Reply, Request};

fuzz_target!(init: tylo_fuzz::plant(SEEDS), |data: &[u8]| {
    if let Ok(request) = serde_json::from_slice::<Request>(data) {
        let line = serde_json::to_vec(&request).expect("a request can be written");
        assert!(!line.contains(&b'\n'));
        assert_eq!(serde_json::from_slice::<Request>(&line).ok(), Some(request));
    }
    if let Ok(reply) = serde_json::from_slice::<Reply>(data) {
        let line = serde_json::to_vec(&reply).expect("a reply can be written");
        assert!(!line.contains(&b'\n'));
        assert_eq!(serde_json::from_slice::<Reply>(&line).ok(), Some(reply));
    }
});

const SEEDS: &[&str] = &[
    r#"{"version":1,"flavour":"nat64","instance":"default","command":"instance-display"}"#,
    r#"{"version":1,"flavour":"nat64","instance":"a","command":{"instance-add":{"framework":"netfilter","pool6":"64:ff9b::/96"}}}"#,
    r#"{"version":1,"flavour":"nat64","instance":"a","command":{"global-update":{"key":"tos","value":{"number":3},"force":false}}}"#,
    r#"{"version":1,"flavour":"nat64","instance":"a","command":{"pool4-add":{"entry":{"mark":0,"protocol":"tcp","prefix":"192.0.2.0/24","ports":{"min":1,"max":2},"max_iterations":{"fixed":3}},"force":true}}}"#,
    r#"{"version":1,"flavour":"nat64","instance":"a","command":{"bib-add":{"protocol":"udp","v6":"2001:db8::1#80","v4":"192.0.2.1#80"}}}"#,
    r#"{"version":1,"flavour":"nat64","instance":"a","command":{"session-display":{"protocol":"icmp"}}}"#,
    r#"{"status":{"running":true}}"#,
    r#"{"stats":[["JSTAT_RECEIVED6",1]]}"#,
    r#"{"sessions":[{"protocol":"tcp","src6":"2001:db8::1#1","dst6":"64:ff9b::1#2","src4":"192.0.2.1#3","dst4":"192.0.2.2#4","expires_in":5,"state":"V4_FIN_V6_FIN_RCV"}]}"#,
    r#"{"error":{"code":22,"message":"no"}}"#,
    r#""done""#,
];

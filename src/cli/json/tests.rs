// SPDX-License-Identifier: GPL-2.0-or-later
use super::*;
use crate::base::Protocol;
use crate::model::control::{Command, VERSION as PROTOCOL};
use crate::model::{Flavour, Framework, PortRange, TcpState};

fn request(flavour: Flavour) -> Request {
    Request {
        version: PROTOCOL,
        flavour,
        instance: "a \"b\"".to_owned(),
        // Which command it was does not matter here.
        command: Command::GlobalDisplay,
    }
}

fn print(flavour: Flavour, table: Table, replies: &[Reply]) -> Json {
    let request = request(flavour);
    let mut document = Document::new(Vec::new(), table, &request);
    for reply in replies {
        assert_eq!(document.reply(reply).unwrap(), Ok(()));
    }
    document.end().unwrap();
    let text = String::from_utf8(document.out).unwrap();
    assert!(text.ends_with("]}\n"), "{text}");
    serde_json::from_str(&text).unwrap()
}

/// The rows of a document of a NAT64 instance, whose head is checked.
fn rows(table: Table, replies: &[Reply]) -> Json {
    let mut whole = print(Flavour::Nat64, table, replies);
    assert_eq!(whole["version"], 1);
    assert_eq!(whole["flavour"], "nat64");
    assert_eq!(whole["instance"], "a \"b\"");
    whole["rows"].take()
}

fn sessions(count: u16) -> Reply {
    let row = |port| SessionRow {
        protocol: Protocol::Tcp,
        src6: format!("2001:db8::8#{port}").parse().unwrap(),
        dst6: "64:ff9b::c000:208#80".parse().unwrap(),
        src4: "192.0.2.1#62805".parse().unwrap(),
        dst4: "192.0.2.8#80".parse().unwrap(),
        expires_in: 1500,
        state: Some(TcpState::V4FinV6FinRcv),
    };
    Reply::Sessions((0..count).map(row).collect())
}

#[test]
fn tables_have_the_documented_keys() {
    let pool4 = Pool4Row {
        mark: 7,
        protocol: Protocol::Icmp,
        iterations: None,
        iterations_fixed: true,
        addr: "192.0.2.1".parse().unwrap(),
        ports: PortRange { min: 1, max: 9 },
    };
    assert_eq!(
        rows(Table::Pool4, &[Reply::Pool4(vec![pool4])]),
        json!([{
            "mark": 7, "protocol": "ICMP", "address": "192.0.2.1",
            "ports": { "min": 1, "max": 9 },
            "max_iterations": null, "max_iterations_fixed": true,
        }])
    );
    let mapping = BibRow {
        protocol: Protocol::Udp,
        v6: "2001:db8::1#2".parse().unwrap(),
        v4: "192.0.2.1#3".parse().unwrap(),
        is_static: true,
    };
    assert_eq!(
        rows(Table::Bib, &[Reply::Bib(vec![mapping])]),
        json!([{
            "protocol": "UDP", "ipv6": { "address": "2001:db8::1", "port": 2 },
            "ipv4": { "address": "192.0.2.1", "port": 3 }, "static": true,
        }])
    );
    assert_eq!(
        rows(Table::Sessions, &[sessions(1)]),
        json!([{
            "protocol": "TCP",
            "ipv6_remote": { "address": "2001:db8::8", "port": 0 },
            "ipv6_local": { "address": "64:ff9b::c000:208", "port": 80 },
            "ipv4_local": { "address": "192.0.2.1", "port": 62805 },
            "ipv4_remote": { "address": "192.0.2.8", "port": 80 },
            "expires_in_ms": 1500, "state": "V4_FIN_V6_FIN_RCV",
        }])
    );
    let stats = Reply::Stats(vec![("JSTAT_SESSIONS".to_owned(), 5), ("X".to_owned(), 0)]);
    let shown = |all, explain| rows(Table::Stats { all, explain }, std::slice::from_ref(&stats));
    assert_eq!(
        shown(false, false),
        json!([{ "name": "JSTAT_SESSIONS", "value": 5 }])
    );
    assert!(shown(true, true)[0]["explanation"].is_string());
    assert_eq!(
        shown(true, true)[1],
        json!({ "name": "X", "value": 0, "explanation": null })
    );
}

#[test]
fn settings_are_as_in_files() {
    let settings = Reply::Settings(Box::default());
    let shown = rows(Table::Settings(Flavour::Nat64), &[settings]);
    let shown = shown.as_array().unwrap();
    assert_eq!(shown.len(), Setting::of(Flavour::Nat64).count());
    for expected in [
        json!({ "key": "manually-enabled", "value": true }),
        json!({ "key": "pool6", "value": null }),
        json!({ "key": "tos", "value": 0 }),
        json!({ "key": "udp-timeout", "value": "0:05:00" }),
    ] {
        assert!(shown.contains(&expected), "{expected}");
    }
}

#[test]
fn stateless_tables() {
    let row = EamRow {
        v6: "2001:db8::/124".parse().unwrap(),
        v4: "192.0.2.0/28".parse().unwrap(),
    };
    let eam = json!({ "ipv6_prefix": "2001:db8::/124", "ipv4_prefix": "192.0.2.0/28" });
    let show = |table, reply| print(Flavour::Siit, table, &[reply]);
    let shown = show(Table::Eamt, Reply::Eamt(vec![row]));
    assert_eq!(shown["rows"], json!([eam]));
    assert_eq!(shown["flavour"], "siit");
    let shown = show(Table::Denylist4, Reply::Denylist4(vec![row.v4]));
    assert_eq!(shown["rows"], json!([{ "ipv4_prefix": "192.0.2.0/28" }]));
    let found = Translation {
        query: "192.0.2.1".parse().unwrap(),
        result: "2001:db8::1".parse().unwrap(),
        rule: AddressRule::Eam(row),
    };
    let table = Table::Translation { verbose: false };
    assert_eq!(
        show(table, Reply::Translation(found))["rows"],
        json!([{ "query": "192.0.2.1", "result": "2001:db8::1", "rule": { "eam": eam } }])
    );
    let row = InstanceRow {
        namespace: 0xab,
        name: "x".to_owned(),
        framework: Framework::Iptables,
    };
    let shown = show(Table::Instances, Reply::Instances(vec![row]));
    assert_eq!(
        shown,
        json!({ "version": 1, "flavour": "siit", "rows": [
            { "namespace": "ab", "name": "x", "framework": "iptables" }
        ] })
    );
}

#[test]
fn a_document_without_rows_is_one() {
    assert_eq!(rows(Table::Sessions, &[]), json!([]));
    assert_eq!(rows(Table::Sessions, &[Reply::Sessions(vec![])]), json!([]));
}

#[test]
fn rows_are_written_as_they_come() {
    let request = request(Flavour::Nat64);
    let mut document = Document::new(Vec::new(), Table::Sessions, &request);
    for page in 1..=100 {
        document.reply(&sessions(500)).unwrap().unwrap();
        // All of the page and no more is on its way: nothing is kept for later.
        let rows = document.out.iter().filter(|b| **b == b'\n').count();
        assert_eq!(rows, 500 * page);
    }
    document.end().unwrap();
    let whole: Json = serde_json::from_slice(&document.out).unwrap();
    assert_eq!(whole["rows"].as_array().unwrap().len(), 50_000);
}

#[test]
fn replies_about_something_else_are_foreign() {
    let request = request(Flavour::Nat64);
    let mut document = Document::new(Vec::new(), Table::Bib, &request);
    assert_eq!(document.reply(&sessions(1)).unwrap(), Err(Foreign));
    assert!(document.out.is_empty());
}

#[test]
fn a_status_is_a_row_too() {
    for (running, expected) in [(Some(true), json!(true)), (None, json!(null))] {
        let mut out = Vec::new();
        status(&mut out, &request(Flavour::Siit), running).unwrap();
        let shown: Json = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            shown,
            json!({ "version": 1, "flavour": "siit", "instance": "a \"b\"",
                    "rows": [{ "running": expected }] })
        );
    }
}

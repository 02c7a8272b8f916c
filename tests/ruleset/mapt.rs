// SPDX-License-Identifier: GPL-2.0-or-later
//! The rules of MAP-T instances.

use super::*;
use tylo::ruleset::{Four, Mapt};

/// A border relay, a customer edge, and one that translates ports itself.
fn mapt() -> Ruleset {
    let instance = |label: &str, first, to6: &str, four| Mapt {
        label: label.to_owned(),
        queues: Queues {
            all: (first, 2),
            tcp: (label == "relay").then_some((9000, 2)),
        },
        to6: vec![to6.parse().unwrap()],
        four,
    };
    let near: Vec<Prefix4> = ["10.0.0.0/24", "127.0.0.0/8"]
        .map(|p| p.parse().unwrap())
        .into();
    let domain = ["192.0.2.0/25", "192.0.2.128/25", "198.51.100.0/24"];
    let domain = domain.map(|p| p.parse().unwrap()).into();
    let source = "192.0.2.8".parse().unwrap();
    Ruleset {
        diverts: Vec::new(),
        mapt: vec![
            instance("relay", 6400, "64:ff9b::/96", Four::To(domain)),
            instance(
                "edge",
                6402,
                "2001:db8:ce:11b::/64",
                Four::From {
                    source,
                    near: near.clone(),
                },
            ),
            instance("napt", 6404, "2001:db8:ce:774::/64", Four::Far { near }),
            instance("none", 6406, "2001:db8:ce::/64", Four::Nothing),
        ],
        ..example()
    }
}

#[test]
fn compat_rules_are_as_described() {
    if !privileged("mapt::compat_rules_are_as_described") {
        return;
    }
    let gateway = Netns::new();
    gateway.enter(|| install(Mode::Compat, &mapt())).unwrap();
    let list = |family: &str| rules(&gateway, &format!("nft list table {family} tylo"));
    assert_eq!(
        list("ip")[1..9],
        [
            "chain prerouting {",
            "type filter hook prerouting priority -250; policy accept;",
            "iifname \"tylo0\" notrack accept comment \"translated\"",
            "ip daddr { 192.0.2.0/24, 198.51.100.0/24 } meta l4proto tcp counter comment \"relay\"",
            "ip daddr { 192.0.2.0/24, 198.51.100.0/24 } counter comment \"relay\"",
            "ip saddr 192.0.2.8 ip daddr != { 10.0.0.0/24, 127.0.0.0/8 } counter comment \"edge\"",
            "ip daddr != { 10.0.0.0/24, 127.0.0.0/8 } counter comment \"napt\"",
            "}",
        ]
    );
    assert_eq!(
        list("ip6")[4..9],
        [
            "ip6 daddr 64:ff9b::/96 meta l4proto tcp counter comment \"relay\"",
            "ip6 daddr 64:ff9b::/96 counter comment \"relay\"",
            "ip6 daddr 2001:db8:ce:11b::/64 counter comment \"edge\"",
            "ip6 daddr 2001:db8:ce:774::/64 counter comment \"napt\"",
            "ip6 daddr 2001:db8:ce::/64 counter comment \"none\"",
        ]
    );
    assert_eq!((targets(&gateway, "ip"), targets(&gateway, "ip6")), (4, 5));
    let whole = list("ip").join("\n");
    assert!(whole.contains("switches defragmentation on"), "{whole}");
}

#[test]
fn queues_beyond_the_last_are_refused() {
    if !privileged("mapt::queues_beyond_the_last_are_refused") {
        return;
    }
    let mut rules = mapt();
    rules.mapt[3].queues.all = (65535, 2);
    let gateway = Netns::new();
    let error = gateway.enter(move || install(Mode::Compat, &rules).unwrap_err());
    assert!(error.to_string().contains("'none'"), "{error}");
}

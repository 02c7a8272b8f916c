// SPDX-License-Identifier: GPL-2.0-or-later
//! The rules, put into force in namespaces of their own and read back with `nft`.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::net::Ipv4Addr;

use tylo::base::Protocol;
use tylo::base::prefix::Prefix4;
use tylo::model::PortRange;
use tylo::ruleset::{Divert, Error, Keeper, Mode, Pool4Match, Ruleset, install, probe, remove};

use netns::{Netns, privileged};

#[path = "dataplane/netns.rs"]
mod netns;

#[test]
fn the_probe_leaves_nothing_behind() {
    if !privileged("the_probe_leaves_nothing_behind") {
        return;
    }
    let gateway = Netns::new();
    let mode = gateway.enter(probe).unwrap();
    eprintln!("this kernel queues packets in {mode} mode");
    assert_eq!(gateway.sh("nft list ruleset"), "");
}

#[test]
fn without_rights_the_error_says_so() {
    if !privileged("without_rights_the_error_says_so") {
        return;
    }
    let gateway = Netns::new();
    let error = gateway.enter(|| {
        // Of this thread only.
        let nobody = rustix::process::Uid::from_raw(65534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        probe().unwrap_err()
    });
    assert!(matches!(error, Error::Permission), "{error}");
}

#[test]
fn tables_outlive_their_keeper_and_get_a_new_one() {
    if !privileged("tables_outlive_their_keeper_and_get_a_new_one") {
        return;
    }
    let gateway = Netns::new();
    let present = |mode| gateway.enter(move || tylo::ruleset::present(mode).unwrap());
    let keeper = gateway.enter(|| {
        let keeper = Keeper::open().unwrap();
        keeper.install(Mode::Compat, &example()).unwrap();
        keeper.install(Mode::Compat, &example()).unwrap();
        keeper
    });
    assert!(present(Mode::Compat) && !present(Mode::Native));
    drop(keeper);
    assert!(present(Mode::Compat), "as after a crash");
    gateway.enter(|| {
        let keeper = Keeper::open().unwrap();
        keeper.install(Mode::Compat, &example()).unwrap();
        keeper.remove().unwrap();
        keeper.remove().unwrap();
    });
    assert!(!present(Mode::Compat));

    // A table that was made without owner, as older kernels and programs do.
    gateway.sh("nft add table ip tylo; nft add table ip6 tylo");
    gateway.enter(|| {
        let keeper = Keeper::open().unwrap();
        keeper.install(Mode::Compat, &example()).unwrap();
        keeper.remove().unwrap();
    });
    assert_eq!(gateway.sh("nft list tables"), "");
}

#[test]
fn compat_rules_are_as_described() {
    if !privileged("compat_rules_are_as_described") {
        return;
    }
    let gateway = Netns::new();
    gateway.enter(|| install(Mode::Compat, &example())).unwrap();
    assert_eq!(
        gateway.sh("nft list tables"),
        "table ip tylo\ntable ip6 tylo\n"
    );
    let list = |family: &str| rules(&gateway, &format!("nft list table {family} tylo"));
    assert_eq!(
        list("ip"),
        [
            "table ip tylo {",
            "chain prerouting {",
            "type filter hook prerouting priority -250; policy accept;",
            "iifname \"tylo0\" notrack accept comment \"translated\"",
            "ip daddr { 192.0.2.1, 198.51.100.0/24 } tcp dport 61001-65535 counter comment \"default\"",
            "ip daddr { 192.0.2.1 } udp dport 1-65535 counter comment \"default\"",
            "meta l4proto icmp ip daddr { 192.0.2.1, 198.51.100.0/24 } counter comment \"default\"",
            "}",
            "chain output {",
            "type filter hook output priority raw; policy accept;",
            "oifname \"tylo0\" notrack comment \"to be translated\"",
            "}",
            "chain defragment {",
            "meta l4proto tcp tproxy to :1 comment \"never entered, switches defragmentation on\"",
            "}",
            "}",
        ]
    );
    assert_eq!(
        list("ip6")[4],
        "ip6 daddr 64:ff9b::/96 counter comment \"default\""
    );
    assert_eq!((targets(&gateway, "ip"), targets(&gateway, "ip6")), (3, 1));
}

#[test]
fn native_rules_are_as_described() {
    if !privileged("native_rules_are_as_described") {
        return;
    }
    let gateway = Netns::new();
    if gateway.enter(probe).unwrap() != Mode::Native {
        let error = gateway.enter(|| install(Mode::Native, &example()));
        let error = error.unwrap_err().to_string();
        assert!(
            error.starts_with("nftables: cannot add the rule of instance 'default' for pool6"),
            "{error}"
        );
        assert_eq!(gateway.sh("nft list ruleset"), "");
        // Not with a macro: the test harness would swallow it.
        let line = b"SKIPPED the rest of native_rules_are_as_described: no CONFIG_NFT_QUEUE\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line);
        return;
    }
    gateway.enter(|| install(Mode::Native, &example())).unwrap();
    assert_eq!(gateway.sh("nft list tables"), "table inet tylo\n");
    let list = rules(&gateway, "nft list table inet tylo");
    for (start, end) in [
        (
            "iifname \"tylo0\" notrack accept",
            " comment \"translated\"",
        ),
        (
            "ip6 daddr 64:ff9b::/96 counter queue ",
            "6400-6401 comment \"default\"",
        ),
        (
            "ip daddr { 192.0.2.1 } udp dport 1-65535 counter queue ",
            "6400-6401 comment \"default\"",
        ),
    ] {
        assert!(
            list.iter()
                .any(|line| line.starts_with(start) && line.ends_with(end)),
            "{start}: {list:#?}"
        );
    }
}

#[test]
fn only_our_tables_are_replaced_and_removed() {
    if !privileged("only_our_tables_are_replaced_and_removed") {
        return;
    }
    let gateway = Netns::new();
    gateway.enter(remove).unwrap();
    // A leftover of the other mode, and a table of somebody else.
    gateway
        .sh("nft add table inet tylo; nft add chain inet tylo prerouting; nft add table ip other");
    let mut ruleset = example();
    for _ in 0..2 {
        gateway.enter(|| install(Mode::Compat, &ruleset)).unwrap();
        assert_eq!(
            gateway.sh("nft list tables"),
            "table ip other\ntable ip tylo\ntable ip6 tylo\n"
        );
    }
    // What cannot be installed leaves what is in force.
    ruleset.diverts[0].queues = (65535, 2);
    let error = gateway.enter(|| install(Mode::Compat, &ruleset));
    assert!(matches!(error, Err(Error::Queues(..))));
    ruleset.tun = "a name too long for a device".to_owned();
    let error = gateway.enter(|| install(Mode::Compat, &ruleset));
    assert!(matches!(error, Err(Error::Device(..))));
    assert_eq!((targets(&gateway, "ip"), targets(&gateway, "ip6")), (3, 1));

    ruleset = example();
    ruleset.track = true;
    ruleset.diverts[0].pool4.clear();
    gateway.enter(|| install(Mode::Compat, &ruleset)).unwrap();
    let list = gateway.sh("nft list table ip tylo");
    assert!(!list.contains("notrack"), "{list}");
    assert_eq!((targets(&gateway, "ip"), targets(&gateway, "ip6")), (0, 1));

    gateway.enter(remove).unwrap();
    gateway.enter(remove).unwrap();
    assert_eq!(gateway.sh("nft list tables"), "table ip other\n");
}

#[test]
fn every_prefix_and_port_range_fits() {
    if !privileged("every_prefix_and_port_range_fits") {
        return;
    }
    let gateway = Netns::new();
    for (pool6, shown) in [
        ("2001:db8::/32", "ip6 daddr 2001:db8::/32 counter"),
        ("2001:db8::1", "ip6 daddr 2001:db8::1 counter"),
        ("2001:db8::8/125", "ip6 daddr 2001:db8::8/125 counter"),
    ] {
        let mut ruleset = example();
        ruleset.diverts[0].pool6 = pool6.parse().unwrap();
        ruleset.diverts[0].pool4 = vec![Pool4Match {
            protocol: Protocol::Tcp,
            prefix: "0.0.0.0/0".parse().unwrap(),
            ports: PortRange { min: 7, max: 7 },
        }];
        gateway.enter(|| install(Mode::Compat, &ruleset)).unwrap();
        let list = gateway.sh("nft list table ip6 tylo");
        assert!(list.contains(shown), "{list}");
        let list = gateway.sh("nft list table ip tylo");
        assert!(
            list.contains("ip daddr { 0.0.0.0/0 } tcp dport 7"),
            "{list}"
        );
    }
}

#[test]
fn a_pool_of_thousands_of_ranges_is_one_batch() {
    if !privileged("a_pool_of_thousands_of_ranges_is_one_batch") {
        return;
    }
    let gateway = Netns::new();
    let mut ruleset = example();
    ruleset.diverts[0].pool4 = (0..2000)
        .map(|i| Pool4Match {
            protocol: Protocol::Tcp,
            prefix: Prefix4::new(Ipv4Addr::from(0x0a00_0000 + i * 8), 30).unwrap(),
            ports: PortRange { min: 1, max: 65535 },
        })
        .collect();
    gateway.enter(|| install(Mode::Compat, &ruleset)).unwrap();
    let list = gateway.sh("nft list table ip tylo");
    // In the rule for TCP and in the one for ICMP.
    assert_eq!(list.matches("/30").count(), 4000);
    assert!(list.contains("10.0.62.120/30"), "the last one");

    // And as many rules.
    for (i, entry) in ruleset.diverts[0].pool4.iter_mut().enumerate() {
        entry.ports.min = i as u16;
    }
    gateway.enter(|| install(Mode::Compat, &ruleset)).unwrap();
    let list = gateway.sh("nft list table ip tylo");
    assert_eq!(list.matches("tcp dport").count(), 2000);
}

/// How many rules queue with the iptables target. (Their queue numbers show in tests of the data
/// plane.)
fn targets(gateway: &Netns, family: &str) -> usize {
    let list = gateway.sh(&format!("nft --debug=netlink list table {family} tylo"));
    list.matches("[ target name NFQUEUE rev 3 ]").count()
}

/// The lines of a listing, without blanks, counts, and what is only printed where the iptables
/// extensions are installed.
fn rules(gateway: &Netns, list: &str) -> Vec<String> {
    gateway
        .sh(list)
        .replace(" packets 0 bytes 0", "")
        .replace("queue num 6400-6401 comment", "comment")
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        // How the table is protected depends on the kernel, and its name on nft's version.
        .filter(|line| !line.is_empty() && !line.starts_with("flags"))
        .collect()
}

fn example() -> Ruleset {
    let entry = |protocol, prefix: &str, min, max| Pool4Match {
        protocol,
        prefix: prefix.parse().unwrap(),
        ports: PortRange { min, max },
    };
    Ruleset {
        tun: "tylo0".to_owned(),
        track: false,
        stateless: Vec::new(),
        local4: Vec::new(),
        local6: Vec::new(),
        kernel_errors: None,
        diverts: vec![Divert {
            label: "default".to_owned(),
            queues: (6400, 2),
            pool6: "64:ff9b::/96".parse().unwrap(),
            pool4: vec![
                entry(Protocol::Tcp, "192.0.2.1", 61001, 65535),
                entry(Protocol::Tcp, "198.51.100.0/25", 61001, 65535),
                entry(Protocol::Tcp, "198.51.100.128/25", 61001, 65535),
                entry(Protocol::Udp, "192.0.2.1", 1, 65535),
                entry(Protocol::Icmp, "192.0.2.1", 0, 65535),
            ],
        }],
    }
}

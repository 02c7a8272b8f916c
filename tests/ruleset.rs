// SPDX-License-Identifier: GPL-2.0-or-later
//! The rules, put into force in namespaces of their own and read back with `nft`.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::net::{Ipv4Addr, Ipv6Addr};

use tylo::base::Protocol;
use tylo::base::prefix::{Prefix4, Prefix6};
use tylo::model::PortRange;
use tylo::ruleset::{
    Divert, Error, Keeper, Mode, Pool4Match, Queues, Ruleset, Stateless, install, present, probe,
    remove,
};

use examples::{example, stateless};
use netns::{Netns, privileged};

#[path = "ruleset/examples.rs"]
mod examples;
#[path = "ruleset/mapt.rs"]
mod mapt;
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
    let present = |mode| gateway.enter(move || present(mode).unwrap());
    let keeper = gateway.enter(|| {
        let keeper = Keeper::open().unwrap();
        keeper.install(Mode::Compat, None, &example()).unwrap();
        keeper.install(Mode::Compat, None, &example()).unwrap();
        keeper
    });
    assert!(present(Mode::Compat) && !present(Mode::Native));
    drop(keeper);
    assert!(present(Mode::Compat), "as after a crash");
    gateway.enter(|| {
        let keeper = Keeper::open().unwrap();
        keeper.install(Mode::Compat, None, &example()).unwrap();
        keeper.remove().unwrap();
        keeper.remove().unwrap();
    });
    assert!(!present(Mode::Compat));

    // A table that was made without owner, as older kernels and programs do.
    gateway.sh("nft add table ip tylo; nft add table ip6 tylo");
    gateway.enter(|| {
        let keeper = Keeper::open().unwrap();
        keeper.install(Mode::Compat, None, &example()).unwrap();
        keeper.remove().unwrap();
    });
    assert_eq!(gateway.sh("nft list tables"), "");
}

/// Whatever rules were before: other rules in the same chains are those that new tables would have.
#[test]
fn chains_that_stay_get_the_same_rules_as_new_ones() {
    if !privileged("chains_that_stay_get_the_same_rules_as_new_ones") {
        return;
    }
    let without = Ruleset {
        defragment: false,
        ..example()
    };
    let both = Ruleset {
        defragment: true,
        ..stateless()
    };
    let all = [example(), without, stateless(), both];
    let list = |gateway: &Netns| rules(gateway, "nft list ruleset");
    for (before, after) in all.iter().flat_map(|b| all.iter().map(move |a| (b, a))) {
        let (fresh, used) = (Netns::new(), Netns::new());
        fresh.enter(|| install(Mode::Compat, after)).unwrap();
        let handles = || {
            let chains = used.sh("nft -a list chains");
            let of = |line: &&str| line.contains("chain prerouting");
            chains
                .lines()
                .filter(of)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let keeper = used.enter(|| {
            let keeper = Keeper::open().unwrap();
            keeper.install(Mode::Compat, None, before).unwrap();
            keeper
        });
        let chains = handles();
        used.enter(|| keeper.install(Mode::Compat, Some(before), after))
            .unwrap();
        let mut now = list(&used);
        let mut wanted = list(&fresh);
        now.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(now, wanted);
        assert_eq!((handles(), chains.len()), (chains, 2));
        // Somebody took the tables away meanwhile.
        used.enter(|| keeper.remove()).unwrap();
        used.enter(|| keeper.install(Mode::Compat, Some(before), after))
            .unwrap();
        assert_eq!(list(&used), list(&fresh));
    }
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
            "ip daddr 192.0.2.1 tcp dport 61001-65535 counter comment \"default\"",
            "ip daddr 198.51.100.0/24 tcp dport 61001-65535 counter comment \"default\"",
            "ip daddr 192.0.2.1 udp dport 1-65535 counter comment \"default\"",
            "meta l4proto icmp ip daddr 192.0.2.1 counter comment \"default\"",
            "meta l4proto icmp ip daddr 198.51.100.0/24 counter comment \"default\"",
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
        list("ip6")[4..6],
        [
            "ip6 daddr 64:ff9b::/96 meta l4proto tcp counter comment \"default\"",
            "ip6 daddr 64:ff9b::/96 counter comment \"default\"",
        ]
    );
    assert_eq!((targets(&gateway, "ip"), targets(&gateway, "ip6")), (5, 2));
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
            error.starts_with(
                "nftables: cannot add the rule of instance 'default' for TCP of pool6"
            ),
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
            "ip6 daddr 64:ff9b::/96 meta l4proto tcp counter queue ",
            "9000-9001 comment \"default\"",
        ),
        (
            "ip daddr 192.0.2.1 tcp dport 61001-65535 counter queue ",
            "9000-9001 comment \"default\"",
        ),
        (
            "ip daddr 198.51.100.0/24 tcp dport 61001-65535 counter queue ",
            "9000-9001 comment \"default\"",
        ),
        (
            "ip daddr 192.0.2.1 udp dport 1-65535 counter queue ",
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
    ruleset.diverts[0].queues.all = (65535, 2);
    let error = gateway.enter(|| install(Mode::Compat, &ruleset));
    assert!(matches!(error, Err(Error::Queues(..))));
    for change in [
        (|rules| rules.kernel_errors = Some((65535, 2))) as fn(&mut Ruleset),
        |rules| rules.stateless[0].queues.all = (6400, 0),
        |rules| rules.stateless[0].queues.tcp = Some((65535, 2)),
    ] {
        let mut ruleset = stateless();
        change(&mut ruleset);
        let error = gateway.enter(|| install(Mode::Compat, &ruleset));
        assert!(matches!(error, Err(Error::Queues(..))));
    }
    ruleset.tun = "a name too long for a device".to_owned();
    let error = gateway.enter(|| install(Mode::Compat, &ruleset));
    assert!(matches!(error, Err(Error::Device(..))));
    assert_eq!((targets(&gateway, "ip"), targets(&gateway, "ip6")), (5, 2));

    ruleset = example();
    ruleset.track = true;
    ruleset.diverts[0].pool4.clear();
    gateway.enter(|| install(Mode::Compat, &ruleset)).unwrap();
    let list = gateway.sh("nft list table ip tylo");
    assert!(!list.contains("notrack"), "{list}");
    assert_eq!((targets(&gateway, "ip"), targets(&gateway, "ip6")), (0, 2));

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
        assert!(list.contains("ip daddr 0.0.0.0/0 tcp dport 7"), "{list}");
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

#[test]
fn stateless_compat_rules_are_as_described() {
    if !privileged("stateless_compat_rules_are_as_described") {
        return;
    }
    let gateway = Netns::new();
    let keeper = gateway.enter(|| {
        let keeper = Keeper::open().unwrap();
        keeper.install(Mode::Compat, None, &stateless()).unwrap();
        keeper
    });
    assert!(gateway.enter(|| present(Mode::Compat)).unwrap());
    let list = |family: &str| rules(&gateway, &format!("nft list table {family} tylo"));
    assert_eq!(
        list("ip"),
        [
            "table ip tylo {",
            "chain stateless {",
            "type filter hook prerouting priority -420; policy accept;",
            "iifname \"tylo0\" accept comment \"translated\"",
            "ip daddr { 127.0.0.0/8, 192.0.2.1, 192.0.2.255, 224.0.0.0/4 } accept comment \"this host\"",
            "ip daddr { 198.51.100.0/24, 255.255.255.255 } counter comment \"default\"",
            "ip daddr 203.0.113.1 counter comment \"second\"",
            "ip daddr != { 192.0.2.8/29, 203.0.113.128/25 } counter comment \"default\"",
            "counter comment \"third\"",
            "}",
            "chain prerouting {",
            "type filter hook prerouting priority -250; policy accept;",
            "iifname \"tylo0\" notrack accept comment \"translated\"",
            "}",
            "chain output {",
            "type filter hook output priority raw; policy accept;",
            "oifname \"tylo0\" notrack comment \"to be translated\"",
            "meta skuid != 4294967295 accept comment \"sent by programs\"",
            "icmp type destination-unreachable counter comment \"errors of the kernel\"",
            "icmp type 11-12 counter comment \"errors of the kernel\"",
            "}",
            "}",
        ]
    );
    assert_eq!(
        list("ip6"),
        [
            "table ip6 tylo {",
            "chain stateless {",
            "type filter hook prerouting priority -420; policy accept;",
            "iifname \"tylo0\" accept comment \"translated\"",
            "ip6 daddr { 2001:db8:1::/120, 2001:db8:2::/63 } counter comment \"default\"",
            "ip6 daddr ff00::/8 counter comment \"second\"",
            "ip6 daddr { 64:ff9b::1, 2001:db8:1::1 } accept comment \"this host\"",
            "ip6 daddr 64:ff9b::/96 counter comment \"default\"",
            "ip6 daddr 64:ff9b:1::/48 counter comment \"third\"",
            "}",
            "chain prerouting {",
            "type filter hook prerouting priority -250; policy accept;",
            "iifname \"tylo0\" notrack accept comment \"translated\"",
            "}",
            "chain output {",
            "type filter hook output priority raw; policy accept;",
            "oifname \"tylo0\" notrack comment \"to be translated\"",
            "meta skuid != 4294967295 accept comment \"sent by programs\"",
            "icmpv6 type 1-4 counter comment \"errors of the kernel\"",
            "}",
            "}",
        ]
    );
    assert_eq!((targets(&gateway, "ip"), targets(&gateway, "ip6")), (6, 5));
    // Where the kernel knows owners, nobody else empties the chain.
    let owned = gateway.sh("nft list table ip tylo").contains("progname");
    let flush = "nft flush chain ip tylo stateless 2>/dev/null || echo refused";
    assert_eq!(gateway.sh(flush) == "refused\n", owned);
    drop(keeper);

    // Both kinds side by side.
    let mut ruleset = stateless();
    ruleset.diverts = example().diverts;
    ruleset.defragment = true;
    gateway.enter(|| install(Mode::Compat, &ruleset)).unwrap();
    assert_eq!((targets(&gateway, "ip"), targets(&gateway, "ip6")), (11, 7));
    let list = gateway.sh("nft list table ip tylo");
    assert!(list.contains("tproxy"), "{list}");
    gateway.enter(remove).unwrap();
    assert_eq!(gateway.sh("nft list tables"), "");
}

/// Without it, whoever diverts packets to a NAT64 by rules of their own would divert fragments.
#[test]
fn fragments_are_put_together_for_an_instance_without_rules_here() {
    if !privileged("fragments_are_put_together_for_an_instance_without_rules_here") {
        return;
    }
    let gateway = Netns::new();
    for defragment in [true, false] {
        let ruleset = Ruleset {
            diverts: Vec::new(),
            defragment,
            ..example()
        };
        gateway
            .enter(move || install(Mode::Compat, &ruleset))
            .unwrap();
        let list = gateway.sh("nft list tables; nft list ruleset");
        assert_eq!(list.contains("tproxy"), defragment, "{list}");
        assert_eq!((targets(&gateway, "ip"), targets(&gateway, "ip6")), (0, 0));
    }
}

/// All but the queues: for these the kernel may have no word.
#[test]
fn the_rest_of_stateless_native_rules_is_as_described() {
    if !privileged("the_rest_of_stateless_native_rules_is_as_described") {
        return;
    }
    let gateway = Netns::new();
    let mut ruleset = stateless();
    let native = gateway.enter(probe).unwrap() == Mode::Native;
    if !native {
        ruleset.kernel_errors = None;
        for instance in &mut ruleset.stateless {
            instance.pool6 = None;
            instance.eam6.clear();
            instance.eam4.clear();
        }
    }
    gateway.enter(|| install(Mode::Native, &ruleset)).unwrap();
    let list = rules(&gateway, "nft list table inet tylo");
    let expected = [
        "iifname \"tylo0\" accept comment \"translated\"",
        "ip6 daddr { 64:ff9b::1, 2001:db8:1::1 } accept comment \"this host\"",
        "ip daddr { 127.0.0.0/8, 192.0.2.1, 192.0.2.255, 224.0.0.0/4 } accept comment \"this host\"",
    ];
    for line in expected {
        assert!(list.iter().any(|l| l == line), "{line}: {list:#?}");
    }
    if !native {
        // Not with a macro: the test harness would swallow it.
        let line = b"SKIPPED the queues of stateless_native_rules: no CONFIG_NFT_QUEUE\n";
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line);
        return;
    }
    for (start, end) in [
        (
            "ip6 daddr { 2001:db8:1::/120, 2001:db8:2::/63 } counter queue ",
            "6402-6403 comment \"default\"",
        ),
        (
            "ip daddr != { 192.0.2.8/29, 203.0.113.128/25 } counter queue ",
            "6402-6403 comment \"default\"",
        ),
        (
            "icmpv6 type 1-4 counter queue ",
            "6402-6403 comment \"errors of the kernel\"",
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
fn many_eams_become_a_coarser_set() {
    if !privileged("many_eams_become_a_coarser_set") {
        return;
    }
    let gateway = Netns::new();
    let mut ruleset = stateless();
    let default = &mut ruleset.stateless[0];
    // Gaps of three addresses, and a wider one every 256 prefixes.
    let place = |i: u32| 4 * i + 16 * (i / 256);
    default.eam4 = (0..100_000)
        .map(|i| Prefix4::new(Ipv4Addr::from(0x0a00_0000 + place(i)), 32).unwrap())
        .collect();
    default.eam6 = (0..100_000)
        .map(|i| {
            let network = u128::from(u32::from(i == 0)) | u128::from(place(i)) << 64;
            Prefix6::new(Ipv6Addr::from(0x2001_0db8 << 96 | network & !0xff), 120).unwrap()
        })
        .collect();
    // A host's own address in a gap, and a denied one.
    ruleset.local6 = vec!["2001:db8:0:2::1".parse().unwrap()];
    default.deny4 = vec!["10.0.0.6".parse().unwrap()];
    gateway.enter(|| install(Mode::Compat, &ruleset)).unwrap();
    // The gaps of three, but for those with something in them, are the first to be closed.
    let four = elements(&gateway, "ip", "counter");
    assert_eq!(four.len(), 1024);
    assert_eq!(four[..2], ["10.0.0.0-10.0.0.4", "10.0.0.8-10.0.3.252"]);
    let six = elements(&gateway, "ip6", "counter");
    assert_eq!(six.len(), 1024);
    assert_eq!(
        six[..2],
        ["2001:db8::/120", "2001:db8:0:4::-2001:db8:0:3fc::ff"]
    );

    // What is left alone is left alone exactly.
    ruleset = stateless();
    ruleset.stateless[0].eam4.clear();
    ruleset.stateless[0].deny4 = (0..100_000)
        .map(|i| Prefix4::new(Ipv4Addr::from(0x0a00_0000 + 4 * i), 32).unwrap())
        .collect();
    gateway.enter(|| install(Mode::Compat, &ruleset)).unwrap();
    assert_eq!(
        elements(&gateway, "ip", "comment \"default\"").len(),
        100_000
    );
}

/// The elements of the first set of the stateless chain in a rule that has `word` behind it.
fn elements(gateway: &Netns, family: &str, word: &str) -> Vec<String> {
    let list = gateway.sh(&format!("nft list chain {family} tylo stateless"));
    let sets = list.split('{').skip(2);
    let set = sets
        .filter_map(|text| text.split_once('}'))
        .find(|(_, behind)| behind.lines().next().unwrap().contains(word));
    set.unwrap()
        .0
        .split(',')
        .map(|e| e.trim().to_owned())
        .collect()
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
        .lines()
        // Who owns the table.
        .filter_map(|line| line.split(" # ").next())
        .map(|line| {
            let mut words: Vec<_> = line.split_whitespace().collect();
            // nft shows this of an iptables target only where iptables' extensions are installed.
            if let Some(at) = words.iter().position(|word| *word == "queue") {
                words.drain(at..at + 3);
                if words.get(at) == Some(&"bypass") {
                    words.remove(at);
                }
            }
            words.join(" ")
        })
        // How the table is protected depends on the kernel, and its name on nft's version.
        .filter(|line| !line.is_empty() && !line.starts_with("flags"))
        .collect()
}

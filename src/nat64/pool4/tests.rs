// SPDX-License-Identifier: GPL-2.0-or-later
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn entry(prefix: &str, min: u16, max: u16, mark: u32) -> Pool4Entry {
    Pool4Entry {
        mark,
        protocol: Protocol::Tcp,
        prefix: prefix.parse().unwrap(),
        ports: PortRange { min, max },
        max_iterations: None,
    }
}

/// The transport addresses one by one.
fn each(set: &Set, offset: u64) -> impl Iterator<Item = Transport4> + '_ {
    set.spans(offset).flat_map(|(addr, ports)| {
        (ports.min..=ports.max).map(move |port| Transport4::new(addr, port))
    })
}

fn shown(pool4: &Pool4) -> Vec<String> {
    pool4
        .rows(Protocol::Tcp)
        .map(|r| format!("{} {} {}-{}", r.mark, r.addr, r.ports.min, r.ports.max))
        .collect()
}

#[test]
fn ranges_fuse_split_and_sort() {
    let mut pool4 = Pool4::default();
    pool4.add(&entry("192.0.2.1/32", 2000, 1000, 0));
    pool4.add(&entry("192.0.2.1/32", 1500, 2500, 0));
    pool4.add(&entry("192.0.2.1/32", 2501, 2600, 0));
    pool4.add(&entry("192.0.2.0/30", 0, 10, 7));
    assert_eq!(
        shown(&pool4),
        [
            "7 192.0.2.0 1-10",
            "7 192.0.2.1 1-10",
            "7 192.0.2.2 1-10",
            "7 192.0.2.3 1-10",
            "0 192.0.2.1 1000-2600",
        ]
    );
    pool4.remove(&entry("192.0.2.2/31", 0, 65535, 7));
    pool4.remove(&entry("192.0.2.1/32", 1200, 1300, 0));
    assert_eq!(
        shown(&pool4),
        [
            "7 192.0.2.0 1-10",
            "7 192.0.2.1 1-10",
            "0 192.0.2.1 1000-1199",
            "0 192.0.2.1 1301-2600",
        ]
    );
    assert!(pool4.contains(Protocol::Tcp, "192.0.2.1#5".parse().unwrap()));
    assert!(!pool4.contains(Protocol::Tcp, "192.0.2.1#1250".parse().unwrap()));
    assert!(!pool4.contains(Protocol::Udp, "192.0.2.1#5".parse().unwrap()));
    pool4.remove(&entry("0.0.0.0/0", 0, 65535, 7));
    pool4.remove(&entry("0.0.0.0/0", 0, 65535, 0));
    assert!(pool4.is_empty());
}

#[test]
fn overlaps_are_seen() {
    let mut pool4 = Pool4::default();
    pool4.add(&entry("192.0.2.4/30", 100, 200, 7));
    for (prefix, min, max, expected) in [
        ("192.0.2.7/32", 200, 300, true),
        ("192.0.2.0/24", 300, 150, true),
        ("192.0.2.7/32", 201, 300, false),
        ("192.0.2.8/32", 100, 200, false),
        ("192.0.2.0/30", 100, 200, false),
    ] {
        let other = entry(prefix, min, max, 0);
        assert_eq!(pool4.overlaps(&other), expected, "{prefix} {min}-{max}");
    }
    let udp = Pool4Entry {
        protocol: Protocol::Udp,
        ..entry("192.0.2.4/30", 100, 200, 7)
    };
    assert!(!pool4.overlaps(&udp));
}

#[test]
fn candidates_go_round_once() {
    let mut pool4 = Pool4::default();
    pool4.add(&entry("192.0.2.0/31", 5, 6, 0));
    pool4.add(&entry("192.0.2.0/31", 9, 9, 0));
    let set = pool4.set(Protocol::Tcp, 0).unwrap();
    assert_eq!(set.len(), 6);
    let from = |o| {
        let shown: Vec<_> = each(set, o).map(|t| t.to_string()).collect();
        shown.join(" ")
    };
    assert_eq!(
        from(2),
        "192.0.2.0#9 192.0.2.1#5 192.0.2.1#6 192.0.2.1#9 192.0.2.0#5 192.0.2.0#6"
    );
    assert_eq!(from(8), from(2));
}

#[test]
fn the_largest_pool_is_counted() {
    let mut pool4 = Pool4::default();
    pool4.add(&entry("0.0.0.0/0", 0, 65535, 0));
    let set = pool4.set(Protocol::Tcp, 0).unwrap();
    assert_eq!(set.len(), 65535 << 32);
    assert_eq!(set.max_iterations(), Some(8192));
    assert_eq!(
        each(set, set.len() - 1).take(2).collect::<Vec<_>>(),
        [
            "255.255.255.255#65535".parse().unwrap(),
            "0.0.0.0#1".parse().unwrap()
        ]
    );
}

proptest! {
    #[test]
    fn blocks_behave_like_a_set_of_transport_addresses(
        steps in prop::collection::vec(
            (any::<bool>(), 0u32..16, 0u8..4, 1u16..12, 0u16..6), 1..40),
        offset in any::<usize>(),
    ) {
        let mut blocks = Blocks::default();
        let mut model = BTreeSet::new();
        for (add, addr, host_bits, min, more) in steps {
            let first = addr >> host_bits << host_bits;
            let prefix = Prefix4::new(first.into(), 32 - host_bits).unwrap();
            let ports = PortRange { min, max: min + more };
            for a in first..first + (1 << host_bits) {
                for p in ports.min..=ports.max {
                    if add { model.insert((a, p)); } else { model.remove(&(a, p)); }
                }
            }
            if add { blocks.add(&prefix, ports) } else { blocks.remove(&prefix, ports) }
            let mut set = Set::default();
            set.edit(|b| *b = blocks.clone());
            let all: Vec<_> = model.iter().copied().collect();
            prop_assert_eq!(set.len(), all.len() as u64);
            let turn = (offset % all.len().max(1)) as u64;
            let listed = each(&set, turn).map(|t| (u32::from(t.addr), t.port));
            let mut expected = all.clone();
            expected.rotate_left(turn as usize);
            prop_assert_eq!(listed.collect::<Vec<_>>(), expected);
            for window in blocks.0.windows(2) {
                prop_assert!(window[0].last < window[1].first);
            }
            for a in 0..20 { for p in 0..20 {
                prop_assert_eq!(
                    blocks.contains(Transport4::new(a.into(), p)), model.contains(&(a, p)));
            }}
        }
    }
}

#[test]
fn many_ranges_at_once_are_what_they_are_one_by_one() {
    let prefix: Prefix4 = "192.0.2.8/30".parse().unwrap();
    let ranges = [(0, 0), (4, 7), (1024, 1024)].map(|(min, max)| PortRange { min, max });
    let mut one_by_one = Pool4::default();
    for protocol in Protocol::ALL {
        for ports in ranges {
            if protocol == Protocol::Icmp || ports.max != 0 {
                one_by_one.add(&Pool4Entry {
                    mark: 3,
                    protocol,
                    prefix,
                    ports,
                    max_iterations: Some(MaxIterations::Infinity),
                });
            }
        }
    }
    let at_once = Pool4::of_ranges(3, prefix, ranges.into_iter());
    assert_eq!(at_once.entries(), one_by_one.entries());
    let v4 = |port| Transport4::new(Ipv4Addr::new(192, 0, 2, 9), port);
    for protocol in Protocol::ALL {
        let set = at_once.set(protocol, 3).unwrap();
        assert_eq!(set.len(), one_by_one.set(protocol, 3).unwrap().len());
        for port in [0, 1, 4, 7, 8, 1024] {
            assert_eq!(
                at_once.contains(protocol, v4(port)),
                one_by_one.contains(protocol, v4(port))
            );
        }
        assert!(!at_once.contains(protocol, v4(1)) && at_once.contains(protocol, v4(5)));
    }
    let nothing = [PortRange { min: 0, max: 0 }].into_iter();
    let only_icmp = Pool4::of_ranges(0, prefix, nothing);
    assert!(only_icmp.set(Protocol::Tcp, 0).is_none() && !only_icmp.is_empty());
}

// SPDX-License-Identifier: GPL-2.0-or-later
use proptest::prelude::*;

use super::*;
use crate::base::prefix::{Prefix4, Prefix6};
use crate::model::PortRange;
use crate::model::mapt::CeError;

fn rule(text: &str) -> MapRule {
    text.parse().unwrap()
}

fn addr<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

/// IPv4 prefix length, EA bits and offset; the address that comes of it.
type Vector = (u8, u8, u8, &'static str);

/// A rule of 2001:db8::/(64-o) and the network around `host`, and what it makes of port 1234.
fn check((offset, r, o, expected): Vector, host: &str) {
    let host: Ipv4Addr = addr(host);
    let mask = u32::MAX.checked_shl(32 - u32::from(r)).unwrap_or(0);
    let v4 = Prefix4::new((u32::from(host) & mask).into(), r).unwrap();
    let v6 = Prefix6::new(addr("2001:db8::"), 64 - o).unwrap();
    let rule = MapRule::new(v6, v4, o, offset).unwrap();
    let result = address_of(rule, host, 1234);
    assert_eq!(result, addr::<Ipv6Addr>(expected), "a {offset} r {r} o {o}");
    assert_eq!(address4(rule, result), host);
    assert_eq!(psid_in(rule, result), psid(rule, 1234));
}

//= rfc7597#section-6
//= type=test
#[test]
fn addresses_where_every_customer_has_one_or_shares_it() {
    for vector in [
        (0, 24, 8, "2001:db8:0:59:0:c000:259:0"),
        (0, 24, 24, "2001:db8:59:4d2:0:c000:259:4d2"),
        (16, 24, 8, "2001:db8:0:59:0:c000:259:0"),
        (0, 24, 16, "2001:db8:0:5904:0:c000:259:4"),
        (8, 24, 8, "2001:db8:0:59:0:c000:259:0"),
        (8, 24, 16, "2001:db8:0:59d2:0:c000:259:d2"),
        (0, 24, 15, "2001:db8:0:2c82:0:c000:259:2"),
        (7, 24, 8, "2001:db8:0:59:0:c000:259:0"),
        (7, 24, 17, "2001:db8:0:b2d2:0:c000:259:d2"),
        (0, 24, 17, "2001:db8:0:b209:0:c000:259:9"),
        (9, 24, 8, "2001:db8:0:59:0:c000:259:0"),
        (9, 24, 15, "2001:db8:0:2cd2:0:c000:259:52"),
        (6, 24, 16, "2001:db8:0:5934:0:c000:259:34"),
        (0, 16, 16, "2001:db8:0:259:0:c000:259:0"),
        (16, 16, 16, "2001:db8:0:259:0:c000:259:0"),
        (8, 16, 16, "2001:db8:0:259:0:c000:259:0"),
        (7, 16, 16, "2001:db8:0:259:0:c000:259:0"),
        (9, 16, 16, "2001:db8:0:259:0:c000:259:0"),
        (0, 32, 16, "2001:db8:0:4d2:0:c000:259:4d2"),
        (0, 23, 16, "2001:db8:0:2c82:0:c000:259:2"),
        (7, 25, 16, "2001:db8:0:b2d2:0:c000:259:d2"),
        (0, 25, 16, "2001:db8:0:b209:0:c000:259:9"),
        (9, 23, 16, "2001:db8:0:2cd2:0:c000:259:52"),
    ] {
        check(vector, "192.0.2.89");
    }
}

//= rfc7597#section-5.2
//= type=test
#[test]
fn addresses_where_customers_have_prefixes() {
    for vector in [
        (0, 8, 8, "2001:db8:0:33:6459:c633:6459:0"),
        (0, 16, 15, "2001:db8:0:322c:8000:c633:6459:0"),
        (0, 15, 16, "2001:db8:0:b22c:8000:c633:6459:0"),
        (0, 0, 0, "2001:db8::c633:6459:6459:0"),
        (0, 0, 31, "2001:db8:6319:b22c:8000:c633:6459:0"),
        (0, 31, 0, "2001:db8::8000:c633:6459:0"),
    ] {
        check(vector, "198.51.100.89");
    }
}

#[test]
fn addresses_of_known_networks() {
    let tutorial = "2001:db8:ce::/51 192.0.2.0/24 13 0";
    let (equal, shared) = (
        "2001:db8:4464:1::/64 192.0.2.0/24 8",
        "2001:db8:4464:1::/64 192.0.2.0/28 8",
    );
    let (split, long) = (
        "2001:db8:4464:1::/64 192.0.2.0/28 1",
        "2001:db8:4464:1::/112 192.0.2.0/24 16",
    );
    for (text, v4, port, v6) in [
        (
            tutorial,
            "192.0.2.8",
            55296,
            "2001:db8:ce:11b:0:c000:208:1b",
        ),
        (
            tutorial,
            "192.0.2.8",
            57343,
            "2001:db8:ce:11b:0:c000:208:1b",
        ),
        (
            tutorial,
            "192.0.2.59",
            40960,
            "2001:db8:ce:774:0:c000:23b:14",
        ),
        (
            tutorial,
            "192.0.2.59",
            43007,
            "2001:db8:ce:774:0:c000:23b:14",
        ),
        (
            "2001:db8:4464::/56 192.0.2.0/24 8",
            "192.0.2.8",
            1,
            "2001:db8:4464:8:0:c000:208:0",
        ),
        (equal, "192.0.2.1", 9, "2001:db8:4464:1:100:c000:201:0"),
        (shared, "192.0.2.1", 1088, "2001:db8:4464:1:1100:c000:201:1"),
        (shared, "192.0.2.1", 1154, "2001:db8:4464:1:1200:c000:201:2"),
        (split, "192.0.2.2", 9, "2001:db8:4464:1:2000:c000:202:0"),
        (split, "192.0.2.10", 9, "2001:db8:4464:1:a000:c000:20a:0"),
        (long, "192.0.2.1", 1024, "2001:db8:4464:1::100"),
        (long, "192.0.2.1", 1030, "2001:db8:4464:1::101"),
    ] {
        let (rule, host) = (rule(text), addr(v4));
        assert_eq!(address_of(rule, host, port), addr::<Ipv6Addr>(v6), "{text}");
        assert_eq!(address4(rule, addr(v6)), host, "{text}");
        assert!(agrees(rule, addr(v6), port), "{text}");
    }
}

//= rfc7597#section-5.1
//= type=test
#[test]
fn port_sets_are_those_of_the_standard() {
    let ranges = |set: PortSet| {
        let ranges = set.ranges().map(|range| (range.min, range.max));
        ranges.collect::<Vec<_>>()
    };
    // RFC 7597 appendix A.
    let set = PortSet::of(rule("2001:db8::/40 192.0.2.0/24 16"), 0x34);
    let all = ranges(set);
    assert_eq!(set.count(), 252);
    assert_eq!(all[..2], [(1232, 1235), (2256, 2259)]);
    assert_eq!(all[61..], [(63696, 63699), (64720, 64723)]);
    assert!(
        !set.contains(208),
        "as if it were theirs, but the offset is zero"
    );
    let set = PortSet::of(rule("2001:db8:ce::/51 192.0.2.0/24 13 0"), 27);
    assert_eq!(ranges(set), [(55296, 57343)]);
    let set = PortSet::of(rule("2001:db8:ce::/56 192.0.2.0/24 8"), 7);
    assert_eq!((ranges(set), set.count()), (vec![(0, 65535)], 65536));
    let set = PortSet::of(rule("2001:db8::/40 192.0.2.0/24 9 15"), 1);
    assert_eq!(set.count(), 32767);
    assert_eq!(ranges(set)[..2], [(3, 3), (5, 5)]);
}

//= rfc7597#section-5.2
//= type=test
#[test]
fn customers_are_told_by_their_prefix() {
    let tutorial = rule("2001:db8:ce::/51 192.0.2.0/24 13 0");
    let customer = Customer::new(tutorial, addr("2001:db8:ce:774::/64")).unwrap();
    assert_eq!(customer.first4(), addr::<Ipv4Addr>("192.0.2.59"));
    assert_eq!((customer.ports().psid(), customer.v4_len()), (20, 32));
    let own: Ipv6Addr = addr("2001:db8:ce:774:0:c000:23b:14");
    assert_eq!(customer.address(addr("192.0.2.59")), own);
    assert_eq!(customer.own4(own), Some(addr("192.0.2.59")));
    for other in ["2001:db8:ce:774::1", "2001:db8:ce:774:0:c000:23b:15", "::"] {
        assert_eq!(customer.own4(addr(other)), None, "{other}");
    }
    assert!(customer.owns(addr("192.0.2.59")) && !customer.owns(addr("192.0.2.58")));
    assert_eq!(
        Customer::of(tutorial, addr("192.0.2.59"), 40961),
        Some(customer)
    );
    assert_eq!(Customer::of(tutorial, addr("192.0.3.59"), 40961), None);
    let wrong = Customer::new(tutorial, addr("2001:db8:ce:774::/63"));
    assert!(matches!(wrong, Err(CeError::Length { .. })));

    let split = rule("2001:db8:4464:1::/64 192.0.2.0/28 1");
    let customer = Customer::new(split, addr("2001:db8:4464:1:8000::/65")).unwrap();
    assert_eq!(customer.first4(), addr::<Ipv4Addr>("192.0.2.8"));
    assert_eq!((customer.v4_len(), customer.ports().count()), (29, 65536));
    let host = addr("192.0.2.10");
    assert!(customer.owns(host) && !customer.owns(addr("192.0.2.7")));
    assert_eq!(
        customer.own4(addr("2001:db8:4464:1:a000:c000:20a:0")),
        Some(host)
    );
    let everything = rule("2001:db8::/64 0.0.0.0/0 0 0");
    let customer = Customer::new(everything, addr("2001:db8::/64")).unwrap();
    assert!(customer.owns(addr("255.255.255.255")));
}

#[test]
fn other_offsets_give_other_customers() {
    let right = rule("2001:db8:ce::/51 192.0.2.0/24 13 0");
    let prefixes: Vec<_> = calc::offsets(right)
        .map(|rule| {
            let holder = calc::holder(rule, addr("192.0.2.8"), 55300).unwrap();
            let prefix = holder.customer.prefix().to_string();
            (rule.psid_offset(), prefix, holder.allowed)
        })
        .collect();
    assert_eq!(prefixes.len(), 12, "11 bits are left");
    assert_eq!(prefixes[0], (0, "2001:db8:ce:11b::/64".to_owned(), true));
    assert_eq!(prefixes[6], (6, "2001:db8:ce:100::/64".to_owned(), true));
    let unshared = rule("2001:db8:ce::/56 192.0.2.0/24 8");
    assert_eq!(calc::offsets(unshared).collect::<Vec<_>>(), [unshared]);
    assert!(calc::holder(right, addr("192.0.3.8"), 1).is_none());
    let low = calc::holder(
        rule("2001:db8::/40 192.0.2.0/24 16"),
        addr("192.0.2.18"),
        208,
    );
    assert!(!low.unwrap().allowed);
}

#[test]
fn rules_are_found_by_the_longest_prefix() {
    let mut table = Fmrt::default();
    let wide = rule("2001:db8::/32 192.0.2.0/24 8 0");
    let narrow = rule("2001:db8:f000::/40 198.51.100.0/24 8 0");
    let other = rule("2001:db9::/32 203.0.113.0/24 8");
    table.insert(narrow).unwrap();
    table.insert(wide).unwrap();
    table.insert(other).unwrap();
    assert_eq!(table.find6(addr("2001:db8:f012::1")), Some(narrow));
    assert_eq!(table.find6(addr("2001:db8:e012::1")), Some(wide));
    assert_eq!(table.find4(addr("203.0.113.9")), Some(other));
    assert_eq!(table.find4(addr("203.0.114.9")), None);
    assert_eq!(table.rows(), [other, narrow, wide]);
    assert_eq!(table.insert(wide), Err(FmrError::Duplicate(wide)));
    for text in [
        "2001:db9:1::/48 10.0.0.0/8 8",
        "2001:dba::/48 203.0.113.128/25 8",
        "2001:db9::/32 203.0.113.0/24 8 7",
    ] {
        let new = rule(text);
        let overlap = FmrError::Overlap { new, old: other };
        assert_eq!(table.insert(new), Err(overlap), "{text}");
        assert_eq!(table.remove(new), Err(FmrError::Absent(new)));
    }
    assert_eq!(table.len(), 3);
    table.remove(other).unwrap();
    assert_eq!(table.find4(addr("203.0.113.9")), None);
    assert_eq!(table.find6(addr("2001:db9::9")), None);
    table.clear();
    assert!(table.is_empty() && table.rows().is_empty());
}

#[test]
fn a_hundred_thousand_rules_are_as_quick_as_one() {
    let mut table = Fmrt::default();
    let rule = |n: u32| {
        let v6 = (0x2001_0db8_u128 << 96 | u128::from(n) << 64).into();
        let v4 = (0x0a00_0000 + n * 16).into();
        MapRule::new(
            Prefix6::new(v6, 64).unwrap(),
            Prefix4::new(v4, 28).unwrap(),
            0,
            6,
        )
        .unwrap()
    };
    // A look-up or a check that walked the table would make ten thousand million steps of this.
    for n in 0..100_000 {
        table.insert(rule(n)).unwrap();
    }
    for n in 0..100_000 {
        assert_eq!(table.find4((0x0a00_0003 + n * 16).into()), Some(rule(n)));
        table.remove(rule(n)).unwrap();
    }
    assert!(table.is_empty());
}

/// Rules of every shape that exists.
fn rules() -> impl Strategy<Value = MapRule> {
    let parts = (
        any::<u128>(),
        0..=128_u8,
        any::<u32>(),
        0..=32_u8,
        0..=48_u8,
        0..=16_u8,
    );
    parts.prop_filter_map("no such rule", |(v6, n6, v4, r, o, a)| {
        let v6 = v6 & u128::MAX.checked_shl(128 - u32::from(n6)).unwrap_or(0);
        let v4 = v4 & u32::MAX.checked_shl(32 - u32::from(r)).unwrap_or(0);
        let v6 = Prefix6::new(v6.into(), n6).unwrap();
        MapRule::new(v6, Prefix4::new(v4.into(), r).unwrap(), o, a).ok()
    })
}

proptest! {
    #[test]
    fn what_goes_to_ipv6_comes_back(rule in rules(), host: u32, port: u16) {
        let hosts = u32::MAX.checked_shr(rule.v4().prefix_len().into()).unwrap_or(0);
        let host: Ipv4Addr = (u32::from(rule.v4().network()) | host & hosts).into();
        let v6 = address_of(rule, host, port);
        prop_assert!(rule.v6().contains(v6));
        prop_assert_eq!(address4(rule, v6), host);
        let customer = Customer::of(rule, host, port).unwrap();
        prop_assert_eq!(customer.own4(v6), Some(host));
        prop_assert!(customer.owns(host));
        prop_assert_eq!(customer.address(host), v6);
        let set = customer.ports();
        prop_assert_eq!(agrees(rule, v6, port), set.contains(port));
        let text = rule.to_string();
        prop_assert_eq!(text.parse::<MapRule>().unwrap(), rule);
    }

}

proptest! {
    // Every case walks through all ports.
    #![proptest_config(ProptestConfig::with_cases(32))]

    //= rfc7597#section-5.1
    //= type=test
    #[test]
    fn every_port_is_in_one_set_at_most(rule in rules()) {
        let (a, k) = (rule.psid_offset(), rule.psid_len());
        let nobody = if k > 0 && a > 0 { 1_u32 << (16 - a) } else { 0 };
        let mut owners = vec![None; 65536];
        let some = [0, 1, (1_u32 << k) - 1].map(|psid| psid as u16 & ((1_u32 << k) - 1) as u16);
        for psid in some {
            let set = PortSet::of(rule, psid);
            prop_assert_eq!(set.count() << k, 65536 - nobody);
            let (mut places, mut past) = (0, None);
            for PortRange { min, max } in set.ranges() {
                prop_assert!(past.is_none_or(|past: u16| past < min - 1));
                past = Some(max);
                for port in min..=max {
                    prop_assert!(u32::from(port) >= nobody);
                    prop_assert!(owners[usize::from(port)].is_none_or(|owner| owner == psid));
                    owners[usize::from(port)] = Some(psid);
                    prop_assert!(set.contains(port));
                    prop_assert_eq!(set.index(port), Some(places));
                    prop_assert_eq!(set.port(places), Some(port));
                    places += 1;
                }
            }
            prop_assert_eq!((places, set.port(places)), (set.count(), None));
        }
        for port in 0..=u16::MAX {
            let theirs = PortSet::of(rule, psid(rule, port)).contains(port);
            prop_assert_eq!(theirs, u32::from(port) >= nobody);
            if !theirs {
                prop_assert_eq!(PortSet::of(rule, 0).index(port), None);
            }
            let seen = owners[usize::from(port)].is_some();
            let should = theirs && some.contains(&psid(rule, port));
            prop_assert_eq!(seen, should);
        }
    }
}

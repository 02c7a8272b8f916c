// SPDX-License-Identifier: GPL-2.0-or-later

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn row(v6: &str, v4: &str) -> EamRow {
    EamRow {
        v6: v6.parse().unwrap(),
        v4: v4.parse().unwrap(),
    }
}

/// The table of RFC 7757 section 3.1.
fn rfc_7757() -> Eamt {
    let mut eamt = Eamt::default();
    for (v4, v6) in [
        ("192.0.2.1", "2001:db8:aaaa::"),
        ("192.0.2.2/32", "2001:db8:bbbb::b/128"),
        ("192.0.2.16/28", "2001:db8:cccc::/124"),
        ("192.0.2.128/26", "2001:db8:dddd::/64"),
        ("192.0.2.192/29", "2001:db8:eeee:8::/62"),
        ("192.0.2.224/31", "64:ff9b::/127"),
    ] {
        eamt.insert(row(v6, v4), false).unwrap();
    }
    eamt
}

//= rfc7757#section-3.1
//= type=test
//= rfc7757#section-3.3.1
//= type=test
//= rfc7757#section-3.3.2
//= type=test
#[test]
fn the_examples_of_rfc_7757() {
    let eamt = rfc_7757();
    for (v4, v6) in [
        ("192.0.2.1", "2001:db8:aaaa::"),
        ("192.0.2.2", "2001:db8:bbbb::b"),
        ("192.0.2.16", "2001:db8:cccc::"),
        ("192.0.2.24", "2001:db8:cccc::8"),
        ("192.0.2.31", "2001:db8:cccc::f"),
        ("192.0.2.128", "2001:db8:dddd::"),
        ("192.0.2.152", "2001:db8:dddd:0:6000::"),
        ("192.0.2.183", "2001:db8:dddd:0:dc00::"),
        ("192.0.2.191", "2001:db8:dddd:0:fc00::"),
        ("192.0.2.193", "2001:db8:eeee:8:8000::"),
        ("192.0.2.199", "2001:db8:eeee:b:8000::"),
        ("192.0.2.225", "64:ff9b::1"),
    ] {
        let (a4, a6) = (v4.parse().unwrap(), v6.parse().unwrap());
        assert_eq!(eamt.to6(a4).unwrap().0, a6, "{v4}");
        assert_eq!(eamt.to4(a6).unwrap().0, a4, "{v6}");
    }
    // What follows the part that is copied has no meaning.
    let noisy = "2001:db8:dddd:0:6123::9".parse().unwrap();
    assert_eq!(eamt.to4(noisy).unwrap().0, Ipv4Addr::new(192, 0, 2, 152));
    assert!(eamt.to4("2001:db8:eeee:c::".parse().unwrap()).is_none());
    assert!(eamt.to6("192.0.2.3".parse().unwrap()).is_none());
}

#[test]
fn whole_address_spaces_stand_for_each_other() {
    let mut eamt = Eamt::default();
    eamt.insert(row("::/0", "0.0.0.0/0"), false).unwrap();
    let (v4, v6) = (Ipv4Addr::new(192, 0, 2, 1), "c000:201::".parse().unwrap());
    assert_eq!(eamt.to6(v4).unwrap().0, v6);
    assert_eq!(eamt.to4(v6).unwrap().0, v4);
    eamt.clear();
    let one = Ipv4Addr::new(198, 51, 100, 1);
    eamt.insert(row("::/0", "198.51.100.1"), false).unwrap();
    assert_eq!(eamt.to6(one).unwrap().0, Ipv6Addr::UNSPECIFIED);
    assert_eq!(eamt.to4(v6).unwrap().0, one);
}

//= jool#eamt
//= type=test
#[test]
fn rows_that_contradict_others_are_refused() {
    let old = row("2001:db8:1::/120", "192.0.2.0/24");
    let mut eamt = Eamt::default();
    eamt.insert(old, false).unwrap();
    for (new, error) in [
        (old, EamError::Duplicate(old)),
        (
            row("2001:db8:1::/120", "10.0.0.0/24"),
            EamError::V6Taken(old),
        ),
        (
            row("2001:db8:2::/120", "192.0.2.0/24"),
            EamError::V4Taken(old),
        ),
        (
            row("2001:db8:3::/126", "10.0.0.0/24"),
            EamError::SuffixTooLong(row("2001:db8:3::/126", "10.0.0.0/24")),
        ),
    ] {
        assert_eq!(eamt.insert(new, false), Err(error));
        assert_eq!(eamt.insert(new, true), Err(error), "even with force");
    }
    for new in [
        row("2001:db8:1::10/128", "10.0.0.1/32"),
        row("2001:db8:9::/128", "192.0.2.5/32"),
        // Shorter, but beginning with the same address.
        row("2001:db8:1::/64", "10.0.0.0/24"),
        row("2001:db8:2::/64", "192.0.2.0/23"),
    ] {
        assert_eq!(
            eamt.insert(new, false),
            Err(EamError::Overlap { new, old }),
            "{new:?}"
        );
        eamt.insert(new, true).unwrap();
        eamt.remove(Some(new.v6), Some(new.v4)).unwrap();
    }
    // As with Jool: around it, but beginning elsewhere.
    eamt.insert(row("2001:db8::/32", "10.0.0.0/24"), false)
        .unwrap();
    assert_eq!(eamt.len(), 2);
    let message = EamError::SuffixTooLong(row("2001:db8:3::/126", "10.0.0.0/24")).to_string();
    assert!(message.starts_with("10.0.0.0/24 leaves 8 bits for hosts, more than the 2 of"));
}

#[test]
fn rows_go_by_either_prefix() {
    let mut eamt = rfc_7757();
    let one = row("2001:db8:aaaa::", "192.0.2.1");
    let wrong = "192.0.2.2".parse().ok();
    assert_eq!(eamt.remove(Some(one.v6), wrong), Err(EamError::Absent));
    assert_eq!(eamt.remove(None, None), Err(EamError::Absent));
    assert_eq!(eamt.remove(Some(one.v6), None), Ok(one));
    assert_eq!(eamt.remove(Some(one.v6), None), Err(EamError::Absent));
    let two = row("2001:db8:dddd::/64", "192.0.2.128/26");
    assert_eq!(eamt.remove(None, Some(two.v4)), Ok(two));
    assert_eq!(eamt.len(), 4);
    assert!(eamt.to6("192.0.2.152".parse().unwrap()).is_none());
    let mut other = eamt.clone();
    other.clear();
    assert!(other.is_empty() && other.rows().is_empty());
    for row in eamt.rows() {
        assert!(!eamt.is_empty());
        assert_eq!(eamt.remove(Some(row.v6), Some(row.v4)), Ok(row));
    }
    assert!(eamt.is_empty());
}

#[test]
fn rows_are_shown_as_jool_shows_them() {
    let mut eamt = Eamt::default();
    let prefixes = [
        "128.0.0.0/1",
        "192.0.2.128/25",
        "192.0.2.128/26",
        "192.0.2.191/32",
        "192.0.2.0/24",
        "10.0.0.1/32",
    ];
    for (i, prefix) in prefixes.iter().enumerate().rev() {
        eamt.insert(row(&format!("{i}::/16"), prefix), true)
            .unwrap();
    }
    let shown: Vec<_> = eamt.rows().iter().map(|r| r.v4.to_string()).collect();
    assert_eq!(
        shown,
        [
            "128.0.0.0/1",
            "192.0.2.0/24",
            "192.0.2.128/25",
            "192.0.2.128/26",
            "192.0.2.191/32",
            "10.0.0.1/32"
        ]
    );
}

#[test]
fn a_hundred_thousand_rows() {
    let mut eamt = Eamt::default();
    let base = u128::from("2001:db8::".parse::<Ipv6Addr>().unwrap());
    for i in 0..100_000u32 {
        let v6 = Prefix6::new((base + u128::from(i)).into(), 128).unwrap();
        let v4 = Prefix4::new((0x0a00_0000 + i).into(), 32).unwrap();
        eamt.insert(EamRow { v6, v4 }, false).unwrap();
    }
    assert_eq!((eamt.len(), eamt.rows().len()), (100_000, 100_000));
    let (addr, _) = eamt.to6(Ipv4Addr::new(10, 1, 0, 0)).unwrap();
    assert_eq!(u128::from(addr), base + 0x1_0000);
}

/// Few different prefixes, so that they nest and collide.
fn rows() -> impl Strategy<Value = Vec<EamRow>> {
    let one = (0u8..=32, any::<u8>(), 0u8..=96, any::<u8>());
    vec(
        one.prop_map(|(len4, bits4, more, bits6)| {
            let len6 = len4 + more;
            let net4 = u32::from_be_bytes([bits4 & 0x81, bits4 & 0x42, 0, bits4 & 0x24]);
            let net6 = u128::from(bits6 & 0x81) << 120 | u128::from(bits6 & 0x7e);
            let keep4 = u32::MAX.checked_shl((32 - len4).into()).unwrap_or(0);
            let keep6 = u128::MAX.checked_shl((128 - len6).into()).unwrap_or(0);
            EamRow {
                v6: Prefix6::new((net6 & keep6).into(), len6).unwrap(),
                v4: Prefix4::new((net4 & keep4).into(), len4).unwrap(),
            }
        }),
        0..40,
    )
}

proptest! {
    #[test]
    fn the_longest_match_is_what_a_plain_search_finds(
        rows in rows(),
        gone in vec(any::<prop::sample::Index>(), 0..5),
        addrs in vec((any::<u8>(), any::<u8>()), 20),
    ) {
        let mut eamt = Eamt::default();
        let mut kept: Vec<EamRow> = Vec::new();
        for row in rows {
            let taken = kept.iter().any(|k| k.v6 == row.v6 || k.v4 == row.v4);
            prop_assert_eq!(eamt.insert(row, true).is_err(), taken);
            if !taken {
                kept.push(row);
            }
        }
        for index in gone {
            if !kept.is_empty() {
                let row = kept.swap_remove(index.index(kept.len()));
                prop_assert_eq!(eamt.remove(None, Some(row.v4)), Ok(row));
            }
        }
        prop_assert_eq!(eamt.len(), kept.len());
        for (a, b) in addrs {
            let v4 = Ipv4Addr::new(a & 0x81, a & 0x42, b & 1, a & 0x24);
            let best = kept.iter().filter(|r| r.v4.contains(v4)).max_by_key(|r| r.v4.prefix_len());
            prop_assert_eq!(eamt.to6(v4).map(|(_, row)| row), best.copied());
            let v6 = (u128::from(b & 0x81) << 120 | u128::from(b & 0x7e) | u128::from(a & 1)).into();
            let best = kept.iter().filter(|r| r.v6.contains(v6)).max_by_key(|r| r.v6.prefix_len());
            prop_assert_eq!(eamt.to4(v6).map(|(_, row)| row), best.copied());
        }
    }

    #[test]
    fn what_goes_to_ipv6_comes_back(rows in rows(), addr in any::<u32>()) {
        for row in rows {
            let mut eamt = Eamt::default();
            eamt.insert(row, false).unwrap();
            let hosts = u32::from(row.v4.network()) ^ u32::from(row.v4.last());
            let v4 = (u32::from(row.v4.network()) | addr & hosts).into();
            let (v6, _) = eamt.to6(v4).unwrap();
            prop_assert!(row.v6.contains(v6));
            prop_assert_eq!(eamt.to4(v6), Some((v4, row)));
        }
    }
}

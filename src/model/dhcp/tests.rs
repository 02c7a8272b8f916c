// SPDX-License-Identifier: GPL-2.0-or-later
use proptest::prelude::*;

use super::*;

/// A container with the rule of the tutorial's domain and its default mapping rule, and an
/// identity association with the prefix of the customer edge 11b.
const CE_11B: &str = "
    005f 0030
          0059 0017  01 0d 18 c0000200 33 20010db800ce00
                     005d 0004 00 05 d800
          005b 000d  60 0064ff9b0000000000000000
          0011 0000
        0019 0029
          00000001 00000e10 00001518
          001a 0019  00001c20 00002a30 40 20010db800ce011b0000000000000000
    ";

fn p6(text: &str) -> Prefix6 {
    text.parse().unwrap()
}

fn rule_of_11b() -> ProvisionedRule {
    ProvisionedRule {
        v6: p6("2001:db8:ce::/51"),
        v4: "192.0.2.0/24".parse().unwrap(),
        ea_bits: 13,
        offset: Some(0),
        forwarding: true,
    }
}

fn read(text: &str) -> Result<Provision, DhcpError> {
    parse(&bytes(text)?)
}

/// The container above with other bytes in one place.
fn with(from: &str, to: &str) -> Result<Provision, DhcpError> {
    assert!(CE_11B.contains(from), "{from}");
    read(&CE_11B.replace(from, to))
}

//= rfc7598#section-4.1
//= type=test
//= rfc7598#section-4.3
//= type=test
//= rfc7598#section-5.2
//= type=test
#[test]
fn a_container_and_a_delegated_prefix_are_read() {
    let all = read(CE_11B).unwrap();
    assert_eq!(
        all,
        Provision {
            rules: vec![rule_of_11b()],
            dmr: Some(p6("64:ff9b::/96")),
            delegated: vec![p6("2001:db8:ce:11b::/64")],
        }
    );
    // What is inside the container will do, too.
    let inside = read("005b 0009 40 20010db8ffff0000").unwrap();
    assert_eq!(inside.dmr, Some(p6("2001:db8:ffff::/64")));
    let closed = with("01 0d 18", "00 0d 18").unwrap();
    assert!(!closed.rules[0].forwarding);
    for (from, to) in [
        ("20010db800ce00\n", "20010db800ce1f\n"),
        ("c0000200", "c0000201"),
    ] {
        assert_eq!(
            with(from, to).unwrap(),
            all,
            "bits behind the length are padding"
        );
    }
    let expired = with("00002a30", "00000000").unwrap();
    assert_eq!(expired.delegated, []);
}

//= rfc7597#section-5
//= type=test
#[test]
fn the_longest_rule_that_fits_is_the_basic_one() {
    let mut options = read(CE_11B).unwrap();
    let edge = options.customer_edge(None, None).unwrap();
    let rule = "2001:db8:ce::/51 192.0.2.0/24 13 0".parse().unwrap();
    assert_eq!(
        edge,
        CustomerEdge {
            dmr: p6("64:ff9b::/96"),
            end_user: p6("2001:db8:ce:11b::/64"),
            bmr: rule,
            fmrt: vec![rule],
        }
    );
    let wide = ProvisionedRule {
        v6: p6("2001:db8::/32"),
        ea_bits: 32,
        offset: None,
        ..rule_of_11b()
    };
    options.rules.push(ProvisionedRule {
        forwarding: false,
        ..wide
    });
    options.delegated.insert(0, p6("2001:db8:ff00::/64"));
    let again = options.customer_edge(None, None).unwrap();
    assert_eq!(again, edge, "the other rule is not for forwarding");

    let given = Some(p6("2001:db8:ce:774::/64"));
    let other = options.customer_edge(Some(p6("2001:db8:64::/96")), given);
    let other = other.unwrap();
    assert_eq!(other.end_user, p6("2001:db8:ce:774::/64"));
    assert_eq!(other.dmr, p6("2001:db8:64::/96"));
}

#[test]
fn what_does_not_make_a_customer_edge_is_refused() {
    let options = read(CE_11B).unwrap();
    let edge = |change: fn(&mut Provision)| {
        let mut options = options.clone();
        change(&mut options);
        options.customer_edge(None, None).unwrap_err()
    };
    assert_eq!(edge(|o| o.dmr = None), DhcpError::NoDmr);
    assert_eq!(edge(|o| o.rules.clear()), DhcpError::NoRule);
    assert_eq!(edge(|o| o.delegated.clear()), DhcpError::NoPrefix);
    assert!(matches!(
        edge(|o| o.delegated = vec![p6("2001:db8:cf::/64")]),
        DhcpError::NoRuleFor(_)
    ));
    assert!(matches!(
        edge(|o| o.delegated = vec![p6("2001:db8:ce::/56")]),
        DhcpError::Ce(CeError::Length { .. })
    ));
    assert!(matches!(
        edge(|o| o.rules[0].offset = Some(15)),
        DhcpError::Rule(MapRuleError::PsidAndOffset(_))
    ));
}

//= rfc7598#section-4.5
//= type=test
#[test]
fn port_parameters_must_fit_the_rule() {
    let offset = |text| Ok::<_, DhcpError>(with("00 05 d800", text)?.rules[0].offset);
    assert_eq!(offset("06 05 d800"), Ok(Some(6)));
    assert_eq!(offset("0f 00 0000"), Ok(Some(15)), "no length is given");
    assert_eq!(offset("10 05 d800"), Err(DhcpError::Offset(16)));
    let error = offset("00 06 d800").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("a PSID of 6 bits, but EA-bits length 13 less the 8 bits"),
        "{error}"
    );
    let other = with("005d 0004 00 05 d800", "0111 0004 00 05 d800").unwrap();
    assert_eq!(other.rules[0].offset, None);
}

#[test]
fn what_cannot_be_is_refused() {
    for (from, to, error) in [
        ("01 0d 18", "01 31 18", DhcpError::EaBits(49)),
        (
            "01 0d 18",
            "01 0d 21",
            DhcpError::Length("a MAP rule (option 89)", 33, 32),
        ),
        (
            "000d  60",
            "000d  61",
            DhcpError::Truncated("the default mapping rule (option 91)"),
        ),
    ] {
        assert_eq!(with(from, to), Err(error), "{to}");
    }
    let two = "005b 0009 40 20010db8ffff0000 005b 0009 40 20010db8fffe0000";
    assert!(matches!(read(two), Err(DhcpError::TwoDmrs(..))));
    let long = "005b 0012 81 20010db8ffff000000000000000000000080";
    assert_eq!(
        read(long),
        Err(DhcpError::Length(
            "the default mapping rule (option 91)",
            129,
            128
        ))
    );
    assert_eq!(read("0001 0002 abcd"), Err(DhcpError::NoMapT));
    assert_eq!(
        read("005e 0000"),
        Err(DhcpError::OtherSoftwire("MAP-E", 94))
    );
}

#[test]
fn a_prefix_of_no_bits_and_one_of_all_are_prefixes() {
    assert_eq!(read("005b 0001 00").unwrap().dmr, Some(p6("::/0")));
    let all = read("005b 0011 80 20010db8000000000000000000000001").unwrap();
    assert_eq!(all.dmr, Some(p6("2001:db8::1/128")));
}

#[test]
fn bytes_are_read_in_many_spellings() {
    for text in ["005f001b", "0x005F001B", " 00:5f:00:1b\n", "00 5f, 00-1b"] {
        assert_eq!(bytes(text).unwrap(), [0, 0x5f, 0, 0x1b], "{text}");
    }
    assert_eq!(bytes("005"), Err(DhcpError::OddHex));
    assert_eq!(bytes(" "), Err(DhcpError::Empty));
    assert_eq!(bytes("00xx"), Err(DhcpError::NotHex('x')));
}

/// Every beginning of good options is an error or good itself, but never a different rule.
#[test]
fn options_that_end_early_are_noticed() {
    let all = bytes(CE_11B).unwrap();
    for end in 0..all.len() {
        match parse(&all[..end]) {
            Ok(found) => assert_eq!(found.rules, [rule_of_11b()], "{end}"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }

    /// Reaches what random bytes alone would not.
    #[test]
    fn damaged_options_are_read_or_refused(at in 0usize..120, value in any::<u8>()) {
        let mut all = bytes(CE_11B).unwrap();
        if let Some(byte) = all.get_mut(at) {
            *byte = value;
        }
        let _ = parse(&all);
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later

use super::*;
use crate::base::host::Nameless;
use crate::base::prefix::Pool6;
use crate::model::EamRow;

/// A host with one address, 203.0.113.1.
struct Router;

impl Host for Router {
    fn has_address4(&self, addr: Ipv4Addr) -> bool {
        addr == Ipv4Addr::new(203, 0, 113, 1)
    }

    fn has_broadcast4(&self, _: Ipv4Addr) -> bool {
        false
    }

    fn source4(&self, _: Ipv4Addr) -> Option<Ipv4Addr> {
        None
    }

    fn source6(&self, _: Ipv6Addr) -> Option<Ipv6Addr> {
        None
    }
}

fn addr<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn settings(pool6: bool) -> Settings {
    let prefix = "64:ff9b::/96".to_owned();
    Settings {
        pool6: pool6.then(|| Pool6::try_from(prefix).unwrap()),
        ..Settings::default()
    }
}

const ROW: (&str, &str) = ("2001:db8:1::/120", "198.51.100.0/24");

fn siit() -> Siit {
    let mut siit = Siit::default();
    let row = EamRow {
        v6: addr(ROW.0),
        v4: addr(ROW.1),
    };
    siit.eamt.insert(row, false).unwrap();
    siit.denylist4.add(addr("192.0.2.0/25"), false).unwrap();
    siit
}

//= rfc7915#section-6
//= type=test
#[test]
fn queries_say_how() {
    let (siit, settings) = (siit(), settings(true));
    let query = |text: &str| siit.query(&settings, &Router, addr(text)).unwrap();
    let row = EamRow {
        v6: addr(ROW.0),
        v4: addr(ROW.1),
    };
    for (one, other) in [("198.51.100.7", "2001:db8:1::7")] {
        for (from, to) in [(one, other), (other, one)] {
            let translation = query(from);
            assert_eq!(translation.query, addr::<IpAddr>(from));
            assert_eq!(translation.result, addr::<IpAddr>(to));
            assert_eq!(translation.rule, AddressRule::Eam(row));
        }
    }
    for (from, to) in [
        ("192.0.2.200", "64:ff9b::c000:2c8"),
        ("64:ff9b::c000:2c8", "192.0.2.200"),
    ] {
        let translation = query(from);
        assert_eq!(translation.result, addr::<IpAddr>(to));
        let pool6 = settings.pool6.unwrap();
        assert_eq!(translation.rule, AddressRule::Pool6(pool6));
    }
}

//= rfc7915#section-5.1
//= type=test
#[test]
fn queries_say_why_not() {
    use Untranslatable::{Denied4, Local4, Loopback6, OnlyDenied4, Unknown4, Unknown6};

    let siit = siit();
    let query = |pool6: bool, text: &str| {
        let result = siit.query(&settings(pool6), &Router, addr(text));
        result.unwrap_err()
    };
    assert_eq!(query(true, "::1"), Loopback6);
    let out = "2001:db8:2::7";
    assert_eq!(query(true, out), Unknown6(addr(out)));
    assert_eq!(
        query(false, "64:ff9b::1"),
        Unknown6(addr("64:ff9b::1")),
        "no pool6 to be inside of"
    );
    let denied = addr("192.0.2.5");
    assert_eq!(query(true, "64:ff9b::192.0.2.5"), Denied4(denied));
    assert_eq!(query(true, "192.0.2.5"), OnlyDenied4(denied));
    assert_eq!(query(false, "192.0.2.5"), OnlyDenied4(denied));
    assert_eq!(query(false, "192.0.2.200"), Unknown4(addr("192.0.2.200")));
    for local in [
        "203.0.113.1",
        "0.0.0.1",
        "127.0.0.1",
        "169.254.3.4",
        "224.0.0.5",
        "255.255.255.255",
    ] {
        assert_eq!(query(true, local), Local4(addr(local)));
        assert_eq!(
            query(true, &format!("64:ff9b::{local}")),
            Local4(addr(local))
        );
    }
    let settings = settings(true);
    let elsewhere = siit.query(&settings, &Nameless, addr("203.0.113.1"));
    assert!(elsewhere.is_ok(), "it is this host's address only here");
}

#[test]
fn mappings_win_over_the_denylist_but_not_over_the_host() {
    let mut siit = siit();
    let settings = settings(true);
    siit.denylist4.add(addr("198.51.100.0/24"), false).unwrap();
    for text in ["198.51.100.7", "2001:db8:1::7"] {
        assert!(siit.query(&settings, &Router, addr(text)).is_ok());
    }
    let row = EamRow {
        v6: addr("2001:db8:9::"),
        v4: addr("203.0.113.1"),
    };
    siit.eamt.insert(row, false).unwrap();
    for text in ["2001:db8:9::", "203.0.113.1"] {
        let local = Untranslatable::Local4(row.v4.network());
        assert_eq!(siit.query(&settings, &Router, addr(text)), Err(local));
    }
}

#[test]
fn sources_of_errors_are_spared_checks() {
    let (siit, settings) = (siit(), settings(true));
    let to4 = |text: &str| siit.to4(&settings, &Router, addr(text), Role::ErrorSource);
    let to6 = |text: &str| siit.to6(&settings, &Router, addr(text), Role::ErrorSource, true);
    for local in ["203.0.113.1", "127.0.0.1", "192.0.2.5"] {
        assert!(to4(&format!("64:ff9b::{local}")).is_ok(), "{local}");
    }
    assert_eq!(to4("::1"), Err(Untranslatable::Loopback6));
    assert!(to6("203.0.113.1").is_ok() && to6("127.0.0.1").is_ok());
    let denied = Untranslatable::OnlyDenied4(addr("192.0.2.5"));
    assert_eq!(to6("192.0.2.5"), Err(denied));
}

#[test]
fn without_the_table_only_pool6_is_left() {
    let (siit, host) = (siit(), addr("198.51.100.7"));
    let to6 = |settings: &Settings| siit.to6(settings, &Nameless, host, Role::End, false);
    let (v6, rule) = to6(&settings(true)).unwrap();
    assert_eq!(v6, addr::<Ipv6Addr>("64:ff9b::198.51.100.7"));
    assert!(matches!(rule, AddressRule::Pool6(_)));
    assert_eq!(to6(&settings(false)), Err(Untranslatable::Unknown4(host)));
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! Every test that the tables in `docs/conformance` name exists; and clauses that have no better
//! place for a test than here.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use tylo::base::host::Nameless;
use tylo::base::prefix::Pool6;
use tylo::base::{Protocol, Tick, Transport4, Transport6};
use tylo::model::settings::{Setting, Settings, Value};
use tylo::model::{Flavour, Pool4Entry, PortRange};
use tylo::nat64::pool4::Pool4;
use tylo::nat64::{Nat64, Outbound};
use tylo::wire::TcpFlags;

/// Clause, what is asked, what is done, tests.
const COLUMNS: usize = 4;

/// Instead of tests, for what is not done or cannot be asked of this program.
const WITHOUT_TESTS: [&str; 2] = ["not met", "not applicable"];

#[test]
fn every_clause_names_tests_that_exist() {
    let index = fs::read_to_string(root().join("docs/conformance.md")).unwrap();
    assert_eq!(
        rows(&index).count(),
        0,
        "tables are in the files of the index"
    );
    let mut count = 0;
    for file in fs::read_dir(root().join("docs/conformance")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let complaints = complaints(&text);
        assert!(complaints.is_empty(), "{name}\n{}", complaints.join("\n"));
        let link = format!("(conformance/{name})");
        assert!(
            index.contains(&link),
            "docs/conformance.md has no link to {name}"
        );
        assert_ne!(rows(&text).count(), 0, "{name} has no table");
        count += rows(&text).count();
    }
    assert!(count > 250, "only {count} rows were found");
}

#[test]
fn what_does_not_exist_is_found() {
    let row = |tests: &str| format!("| 9.9 | asked | done | {tests} |\n");
    for tests in [
        "`wire::tests::headers_of_plain_packets_are_read`",
        "`xlat::tables::tests::an_mtu_of_zero_is_guessed`",
        "`wire::segments::tests::noise_is_no_segment`",
        "`tests/conformance.rs::what_does_not_exist_is_found`",
        "`tests/xlat_roundtrip.rs::there_and_back_from_ipv4`",
        "`tests/netns/10-ping-http.sh`, `tests/layers.rs::imports_go_down_only`",
        "not met",
        "not applicable",
    ] {
        assert_eq!(complaints(&row(tests)), [""; 0], "{tests}");
    }
    for tests in [
        "",
        "none",
        "TODO(siit)",
        "Not met",
        "not met, `tests/netns/10-ping-http.sh`",
        "`tests/netns/10-ping-http.sh`, not met",
        "wire::tests::headers_of_plain_packets_are_read",
        "`wire::tests::banana`",
        "`wire::tests::parsed6`",
        "`wire::banana::headers_of_plain_packets_are_read`",
        "`banana::tests::headers_of_plain_packets_are_read`",
        "`headers_of_plain_packets_are_read`",
        "`tests/conformance.rs::banana`",
        "`tests/conformance.rs::complaints`",
        "`tests/banana.rs::what_does_not_exist_is_found`",
        "`tests/netns/99-banana.sh`",
        "`tests/netns/lib.sh`",
        "`tests/netns/10-ping-http.sh`, `tests/netns/99-banana.sh`",
        "`tests/netns/10-ping-http.sh` |",
    ] {
        assert_eq!(complaints(&row(tests)).len(), 1, "{tests}");
    }
}

/// The rows of all tables but their heads, with line numbers.
fn rows(text: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    let lines = text.lines().enumerate();
    lines.filter_map(|(number, line)| {
        let inner = line.strip_prefix('|')?;
        let inner = inner.strip_suffix('|').unwrap_or(inner);
        let cells: Vec<_> = inner.split('|').map(str::trim).collect();
        let head = cells[0] == "Clause" || cells[0].starts_with("---");
        (!head).then_some((number + 1, cells))
    })
}

/// What is wrong with the tables, line by line.
fn complaints(text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (line, cells) in rows(text) {
        let [.., tests] = &cells[..] else { continue };
        if cells.len() != COLUMNS || cells.iter().any(|cell| cell.is_empty()) {
            complaints.push(format!(
                "line {line}: not {COLUMNS} cells with something in each"
            ));
            continue;
        }
        if WITHOUT_TESTS.contains(tests) {
            continue;
        }
        for test in tests.split(", ") {
            let name = test.strip_prefix('`').and_then(|t| t.strip_suffix('`'));
            if !name.is_some_and(exists) {
                complaints.push(format!("line {line}: there is no test {test}"));
            }
        }
    }
    complaints
}

fn exists(name: &str) -> bool {
    if let Some(script) = name.strip_prefix("tests/netns/") {
        let list = fs::read_to_string(root().join("tests/netns.rs")).unwrap();
        return root().join(name).is_file() && list.contains(&format!("\"{script}\""));
    }
    let Some((place, function)) = name.rsplit_once("::") else {
        return false;
    };
    let file = match place.strip_prefix("tests/") {
        Some(_) => Some(root().join(place)),
        None => module(place),
    };
    let text = file.and_then(|file| fs::read_to_string(file).ok());
    text.is_some_and(|text| is_test(&text, function))
}

/// The file of a module of the library; only a last `tests` may be inside the file of its parent.
fn module(path: &str) -> Option<PathBuf> {
    let file = |path: &str| {
        let stem = root().join("src").join(path.replace("::", "/"));
        let files = [stem.with_extension("rs"), stem.join("mod.rs")];
        files.into_iter().find(|file| file.is_file())
    };
    file(path).or_else(|| file(path.strip_suffix("::tests")?))
}

/// Whether there is a function with this name and the attribute `test`, also inside `proptest!`.
fn is_test(text: &str, function: &str) -> bool {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let start = format!("fn {function}(");
    let Some(at) = lines.iter().position(|line| line.starts_with(&start)) else {
        return false;
    };
    let above = lines[..at].iter().rev();
    above
        .take_while(|line| line.starts_with("#[") || line.starts_with("//"))
        .any(|line| *line == "#[test]")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One of each length.
const PREFIXES: [&str; 6] = [
    "2001:db8::/32",
    "2001:db8:100::/40",
    "2001:db8:122::/48",
    "2001:db8:122:300::/56",
    "2001:db8:122:344::/64",
    "64:ff9b::/96",
];

fn pools() -> impl Iterator<Item = Pool6> {
    PREFIXES
        .iter()
        .map(|prefix| Pool6::strict(prefix.parse().unwrap()).unwrap())
}

/// A host finds the prefix where the answer for `ipv4only.arpa` has one of the two addresses.
//= rfc7050#section-3
//= type=test
#[test]
fn the_addresses_of_ipv4only_arpa_show_the_prefix() {
    for pool6 in pools() {
        for last in [170, 171] {
            let addr = Ipv4Addr::new(192, 0, 0, last);
            let octets = pool6.embed(addr).octets();
            // RFC 6052 section 2.2: where the address is, by the length of the prefix.
            let len = usize::from(pool6.prefix().prefix_len() / 8);
            let places = (len..).filter(|at| *at != 8 || len == 12).take(4);
            let found: Vec<u8> = places.map(|at| octets[at]).collect();
            assert_eq!(found, addr.octets(), "{pool6}");
            let network = pool6.prefix().network().octets();
            assert_eq!(octets[..len], network[..len], "{pool6}");
        }
    }
}

//= rfc6052#section-2.2
//= type=test
#[test]
fn suffixes_and_bits_64_to_71_are_ignored() {
    let addr = Ipv4Addr::new(192, 0, 2, 33);
    for pool6 in pools() {
        let len = usize::from(pool6.prefix().prefix_len() / 8);
        let mut octets = pool6.embed(addr).octets();
        let used = |at: usize| {
            at < len
                || (len..)
                    .filter(|n| *n != 8 || len == 12)
                    .take(4)
                    .any(|n| n == at)
        };
        for at in (0..16).filter(|at| !used(*at)) {
            assert_eq!(octets[at], 0, "{pool6} byte {at}");
            octets[at] = 0xff;
        }
        assert_eq!(pool6.extract(Ipv6Addr::from(octets)), Some(addr), "{pool6}");
    }
}

/// RFC 4787 REQ-5, RFC 5382 REQ-5 and RFC 5508 REQ-2 ask for no less.
//= rfc6146#section-4
//= type=test
#[test]
fn lifetimes_are_those_of_the_standards() {
    const MINUTE: u64 = 60_000;

    for (key, default, least) in [
        ("udp-timeout", 5 * MINUTE, 2 * MINUTE),
        ("tcp-trans-timeout", 4 * MINUTE, 4 * MINUTE),
        ("tcp-est-timeout", 120 * MINUTE, 120 * MINUTE),
        ("icmp-timeout", MINUTE, 0),
    ] {
        let mut settings = Settings::default();
        let setting = Setting::find(Flavour::Nat64, key).unwrap();
        assert_eq!(setting.value(&settings), Value::Duration(default), "{key}");
        let mut set = |length| settings.set(Flavour::Nat64, key, Value::Duration(length), true);
        assert_eq!(set(least), Ok(()), "{key}");
        if let Some(less) = least.checked_sub(1) {
            assert!(set(less).is_err(), "{key}, even with force");
        }
    }
}

/// RFC 6888 REQ-12.
#[test]
fn nobody_is_logged_by_default() {
    for key in ["logging-bib", "logging-session", "logging-debug"] {
        let setting = Setting::find(Flavour::Nat64, key).unwrap();
        let value = setting.value(&Settings::default());
        assert_eq!(value, Value::Bool(false), "{key}");
    }
}

/// RFC 6888 REQ-15: whoever does not know the key does not know where the search begins.
//= rfc6056#section-3.3.3
//= type=test
#[test]
fn ports_depend_on_a_secret() {
    let port = |key| {
        let mut pool4 = Pool4::default();
        pool4.add(&Pool4Entry {
            mark: 0,
            protocol: Protocol::Udp,
            prefix: "192.0.2.1".parse().unwrap(),
            ports: PortRange::ALL,
            max_iterations: None,
        });
        let mut nat64 = Nat64::new([key; 16]);
        nat64.set_pool4(pool4, &[]);
        let flow = Outbound {
            protocol: Protocol::Udp,
            client: Transport6::new("2001:db8::8".parse().unwrap(), 4000),
            remote: Transport4::new(Ipv4Addr::new(203, 0, 113, 1), 53),
            mark: 0,
            flags: TcpFlags {
                syn: false,
                fin: false,
                rst: false,
            },
        };
        let v4 = nat64.outbound(Tick(0), &Settings::default(), &Nameless, flow);
        v4.unwrap().port
    };
    let ports: BTreeSet<_> = (0..100).map(port).collect();
    assert!(ports.len() > 90, "{} different ports", ports.len());
    assert_eq!(port(7), port(7));
}

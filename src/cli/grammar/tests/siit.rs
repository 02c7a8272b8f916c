// SPDX-License-Identifier: GPL-2.0-or-later
//! The words of `jool_siit`.

use super::*;
use crate::model::EamRow;

#[test]
fn explicit_mappings_in_any_order() {
    let (v6, v4) = (
        "2001:db8:4::/124".parse().unwrap(),
        "192.0.2.0/28".parse().unwrap(),
    );
    let row = EamRow { v6, v4 };
    for (line, force) in [
        ("siit eamt add 192.0.2.0/28 2001:db8:4::/124", false),
        ("siit eamt add 2001:db8:4::/124 192.0.2.0/28", false),
        ("siit e a -f 192.0.2.0/28 2001:db8:4::/124", true),
        ("siit eamt add 192.0.2.0/28 --force 2001:db8:4::/124", true),
    ] {
        assert_eq!(command(line), Command::EamtAdd { row, force }, "{line}");
    }
    let remove = |v6, v4| Command::EamtRemove { v6, v4 };
    assert_eq!(
        command("siit eamt remove 192.0.2.0/28 2001:db8:4::/124"),
        remove(Some(v6), Some(v4))
    );
    assert_eq!(
        command("siit eamt remove 192.0.2.0/28"),
        remove(None, Some(v4))
    );
    assert_eq!(
        command("siit eamt remove 2001:db8:4::/124"),
        remove(Some(v6), None)
    );
    assert_eq!(command("siit eamt flush"), Command::EamtFlush);
    let style = Style {
        csv: true,
        headers: false,
        numeric: false,
    };
    let shown = call("siit -i x eamt display --csv --no-headers");
    assert_eq!(shown.request.flavour, Flavour::Siit);
    assert_eq!(shown.request.instance, "x");
    assert_eq!(shown.request.command, Command::EamtDisplay);
    assert_eq!(shown.output, Output::Table(Table::Eamt, style));
}

#[test]
fn denied_prefixes_by_the_new_and_the_old_word() {
    let prefix = "127.0.0.0/8".parse().unwrap();
    for word in ["denylist4", "blacklist4"] {
        let old = word == "blacklist4";
        for (rest, expected) in [
            (
                "add 127.0.0.0/8 --force",
                Command::Denylist4Add {
                    prefix,
                    force: true,
                },
            ),
            ("remove 127.0.0.0/8", Command::Denylist4Remove { prefix }),
            ("flush", Command::Denylist4Flush),
            ("display", Command::Denylist4Display),
        ] {
            let call = call(&format!("siit {word} {rest}"));
            assert_eq!(call.request.command, expected);
            let warning = call.warning.unwrap_or_default();
            assert_eq!(warning.contains("write 'denylist4'"), old, "{warning}");
        }
    }
    assert_eq!(command("siit d f"), Command::Denylist4Flush);
}

#[test]
fn addresses_are_asked_about() {
    for (line, verbose) in [
        ("siit address query 2001:db8::1", false),
        ("siit a q -v 2001:db8::1", true),
        ("siit a q 2001:db8::1 --verb", true),
    ] {
        let call = call(line);
        let address = "2001:db8::1".parse().unwrap();
        assert_eq!(call.request.command, Command::AddressQuery { address });
        assert!(
            matches!(call.output, Output::Table(Table::Translation { verbose: v }, _) if v == verbose)
        );
    }
}

#[test]
fn an_instance_of_siit_needs_no_pool6() {
    assert_eq!(
        command("siit instance add x --iptables"),
        Command::InstanceAdd {
            framework: Framework::Iptables,
            pool6: None
        }
    );
}

#[test]
fn help_of_one_flavour_does_not_mention_the_other() {
    let (ours, theirs) = (printed("siit --help"), printed("--help"));
    let lists = |help: &str, word: &str| help.contains(&format!("\n  {word} "));
    for word in ["eamt", "denylist4", "address"] {
        assert!(lists(&ours, word) && !lists(&theirs, word), "{word}");
    }
    for word in ["pool4", "bib", "session"] {
        assert!(lists(&theirs, word) && !lists(&ours, word), "{word}");
    }
    assert!(lists(&ours, "blacklist4"));
    assert!(printed("siit global update --help").contains("off, simple or intrinsic"));
    assert!(printed("siit eamt add --help").contains("jool_siit eamt add"));
    assert!(printed("siit blacklist4 --help").contains("flush"));
}

#[test]
fn nonsense_is_refused_with_its_status_and_its_name() {
    for (line, status, mention) in [
        ("siit pool4 display", 234, "'pool4'"),
        (
            "siit x",
            234,
            "instance stats address global eamt blacklist4 denylist4 file",
        ),
        ("siit global update udp-timeout 5", 234, "'udp-timeout'"),
        ("siit global update eam-hairpin-mode 1", 234, "'1'"),
        ("siit global update rfc6791v4-prefix x", 234, "'x'"),
        ("siit global update rfc6791v6-prefix ::1/64", 22, "'::1/64'"),
        (
            "siit eamt add",
            234,
            "an IPv6 prefix or address and an IPv4 prefix or address",
        ),
        ("siit eamt add 192.0.2.0/24", 234, "an IPv6 prefix"),
        ("siit eamt add 2001:db8::/120", 234, "an IPv4 prefix"),
        (
            "siit eamt add 192.0.2.0/24 198.51.100.0/24",
            234,
            "an IPv6 prefix",
        ),
        ("siit eamt add ::1 192.0.2.1 ::2", 64, "'::2'"),
        ("siit eamt add ::1 x", 64, "'x'"),
        ("siit eamt add 192.0.2.0/33 ::1", 234, "33"),
        ("siit eamt add 192.0.2.1/24 ::1", 22, "'192.0.2.0/24'"),
        ("siit eamt remove", 234, "a prefix"),
        ("siit eamt flush x", 64, "x"),
        ("siit denylist4 add", 234, "an IPv4 prefix"),
        ("siit denylist4 add x", 234, "'x'"),
        ("siit denylist4 add ::1", 234, "'::1'"),
        ("siit denylist4 remove 10.0.0.0/8 11.0.0.0/8", 64, "11"),
        ("siit address query", 234, "an IP address"),
        ("siit address query x", 64, "'x'"),
        ("siit address query 192.0.2.0/24", 234, "'192.0.2.0/24'"),
        ("siit address query ::1 ::2", 64, "::2"),
    ] {
        refuses(line, status, mention);
    }
}

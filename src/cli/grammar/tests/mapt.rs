// SPDX-License-Identifier: GPL-2.0-or-later
//! The words of `jool_mapt`.

use super::*;
use crate::model::mapt::MaptType;

const RULE: &str = "2001:db8:ce::/51 192.0.2.0/24 13 0";

#[test]
fn instances_have_a_default_mapping_rule() {
    let dmr = Some("64:ff9b::/96".parse().unwrap());
    let add = |framework, pool6| Command::InstanceAdd { framework, pool6 };
    for (line, expected) in [
        (
            "instance add BR --dmr 64:ff9b::/96",
            add(Framework::Netfilter, dmr),
        ),
        (
            "instance add BR -n -6 64:ff9b::/96",
            add(Framework::Netfilter, dmr),
        ),
        ("instance add -i", add(Framework::Iptables, None)),
    ] {
        assert_eq!(command(&format!("mapt {line}")), expected, "{line}");
    }
    let named = call("mapt instance add BR --netfilter").request;
    assert_eq!((named.flavour, &*named.instance), (Flavour::Mapt, "BR"));
}

#[test]
fn forwarding_rules() {
    let rule = RULE.parse().unwrap();
    for words in ["fmrt add", "fmr a", "fmrt add --"] {
        let line = format!("mapt {words} {RULE}");
        assert_eq!(command(&line), Command::FmrtAdd { rule }, "{line}");
    }
    assert_eq!(
        command("mapt fmrt add 2001:db8::/40 192.0.2.0/24 16"),
        Command::FmrtAdd {
            rule: "2001:db8::/40 192.0.2.0/24 16 6".parse().unwrap()
        }
    );
    assert_eq!(
        command(&format!("mapt fmrt remove {RULE}")),
        Command::FmrtRemove { rule }
    );
    assert_eq!(command("mapt fmrt flush"), Command::FmrtFlush);
    let style = Style {
        csv: true,
        headers: false,
        numeric: false,
    };
    let shown = call("mapt fmrt display --csv --no-headers");
    assert_eq!(shown.request.command, Command::FmrtDisplay);
    assert_eq!(shown.output, Output::Table(Table::Fmrt, style));
}

#[test]
fn settings_may_have_several_words() {
    let update = |key: &str, value| Command::GlobalUpdate {
        key: key.to_owned(),
        value,
        force: false,
    };
    let rule = Some(RULE.parse().unwrap());
    for (line, expected) in [
        (format!("bmr {RULE}"), update("bmr", Value::MapRule(rule))),
        ("bmr null".to_owned(), update("bmr", Value::MapRule(None))),
        (
            "end-user-ipv6-prefix 2001:db8:ce:11b::/64".to_owned(),
            update(
                "end-user-ipv6-prefix",
                Value::Prefix6(Some("2001:db8:ce:11b::/64".parse().unwrap())),
            ),
        ),
        (
            "map-t-type CE".to_owned(),
            update("map-t-type", Value::MaptType(Some(MaptType::Ce))),
        ),
        (
            "mapt-napt on".to_owned(),
            update("mapt-napt", Value::Bool(true)),
        ),
    ] {
        let line = format!("mapt global update {line}");
        assert_eq!(command(&line), expected, "{line}");
    }
}

#[test]
fn options_of_dhcp_make_an_instance() {
    let options = "005f003000590017010d18c00002003320010db800ce00005d00040005d800\
                   005b000d600064ff9b000000000000000000110000";
    let line = format!(
        "mapt instance add x --from-dhcp {options} --end-user-ipv6-prefix 2001:db8:ce:11b::/64"
    );
    let Command::Create { config } = command(&line) else {
        panic!("{line}");
    };
    assert_eq!(config.framework, Framework::Netfilter);
    assert_eq!(config.fmrt, [RULE.parse().unwrap()]);
    let keys: Vec<_> = config
        .settings
        .iter()
        .map(|(key, _)| key.as_str())
        .collect();
    assert_eq!(keys, ["pool6", "end-user-ipv6-prefix", "bmr"]);
    let again = command(&format!("{line} --dmr 2001:db8:64::/96"));
    assert_ne!(again, Command::Create { config });
    refuses(
        &format!("mapt instance add x --from-dhcp {options}"),
        22,
        "--end-user-ipv6-prefix",
    );
}

#[test]
fn nonsense_is_refused_with_its_status_and_its_name() {
    for (line, status, mention) in [
        ("mapt x", 234, "instance stats global fmrt file"),
        ("mapt eamt display", 234, "'eamt'"),
        ("mapt fmrt add", 234, "0 were given"),
        (
            "mapt fmrt add 2001:db8::/51 192.0.2.0/24",
            234,
            "2 were given",
        ),
        ("mapt fmrt remove 2001:db8::/51", 234, "1 were given"),
        (
            "mapt fmrt add 2001:db8::/51 192.0.2.0/24 1 2 3",
            234,
            "5 were given",
        ),
        ("mapt fmrt add 2001:db8::/51 192.0.2.0/24 49", 22, "49"),
        ("mapt fmrt add 2001:db8::/51 192.0.2.0/24 13 17", 22, "17"),
        ("mapt fmrt add 2001:db8::/51 192.0.2.0/24 x", 1, "'x'"),
        (
            "mapt fmrt add 2001:db8::1/51 192.0.2.0/24 13",
            22,
            "'2001:db8::/51'",
        ),
        (
            "mapt fmrt add 192.0.2.0/24 2001:db8::/51 13",
            234,
            "'192.0.2.0/24'",
        ),
        ("mapt global update bmr", 234, "bmr"),
        ("mapt global update bmr 2001:db8::/51", 234, "1 were given"),
        ("mapt global update map-t-type ce", 234, "'ce'"),
        ("mapt global update tos 1 2", 64, "'2'"),
        ("mapt global update f-args 5", 234, "'f-args'"),
        ("mapt instance add -n -i", 234, "one framework"),
        ("mapt instance add --pool6 64:ff9b::/96", 64, "--pool6"),
        (
            "mapt instance add --end-user-ipv6-prefix 2001:db8::/64",
            64,
            "--from-dhcp",
        ),
        ("mapt instance add --from-dhcp 00xx", 22, "'x'"),
        ("mapt instance add --from-dhcp 005f", 22, "end within"),
    ] {
        refuses(line, status, mention);
    }
}

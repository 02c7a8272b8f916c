// SPDX-License-Identifier: GPL-2.0-or-later
//! `jool_mapt` and the daemon together. There are no recordings of Jool's.

use std::fs;

use super::lab::{Lab, text};

const RULE: &str = "2001:db8:ce::/51 192.0.2.0/24 13 0";

/// The command fails with this status and says this.
#[track_caller]
fn refuses(lab: &Lab, line: &str, status: i32, mention: &str) {
    let out = lab.jool(line, false);
    assert_eq!(out.status.code(), Some(status), "{line}: {out:?}");
    assert!(text(&out.stderr).contains(mention), "{line}: {out:?}");
}

fn started(topic: &str) -> Option<Lab> {
    let mut lab = Lab::new(topic)?;
    lab.start();
    Some(lab)
}

#[test]
fn a_customer_edge_is_checked_with_every_change() {
    let Some(lab) = started("mapt-ce") else {
        return;
    };
    lab.must("jool_mapt instance add --netfilter --dmr 64:ff9b::/96");
    let set = "jool_mapt global update";
    refuses(
        &lab,
        &format!("{set} map-t-type CE"),
        22,
        "end-user-ipv6-prefix",
    );
    lab.must(&format!("{set} end-user-ipv6-prefix 2001:db8:ce:11b::/64"));
    refuses(&lab, &format!("{set} map-t-type CE"), 22, "bmr");
    let shorter = RULE.replace(" 13 ", " 12 ");
    refuses(&lab, &format!("{set} bmr {shorter}"), 22, "makes 63");
    let other = RULE.replace(":ce::", ":cf::");
    refuses(&lab, &format!("{set} bmr {other}"), 22, "not inside");
    lab.must(&format!("{set} bmr {RULE}"));
    let shown = lab.must("jool_mapt global display");
    assert!(shown.contains("  map-t-type: CE\n"), "{shown}");
    refuses(
        &lab,
        &format!("{set} end-user-ipv6-prefix 2001:db8:ce:100::/56"),
        22,
        "has 56",
    );
    // Nothing of what was refused is there.
    assert_eq!(lab.must("jool_mapt global display"), shown);
    lab.must(&format!("{set} bmr null"));
    let shown = lab.must("jool_mapt global display");
    assert!(shown.contains("  map-t-type: BR\n"), "{shown}");
    refuses(&lab, &format!("{set} pool6 2001:db8::/60"), 22, "60");
    refuses(&lab, "jool_mapt bib display", 234, "'bib'");
}

#[test]
fn forwarding_rules_come_and_go() {
    let Some(mut lab) = started("mapt-fmrt") else {
        return;
    };
    refuses(&lab, &format!("jool_mapt fmrt add {RULE}"), 3, "'default'");
    lab.must("jool_mapt instance add");
    lab.must(&format!("jool_mapt fmrt add {RULE}"));
    refuses(&lab, &format!("jool_mapt fmrt add {RULE}"), 17, RULE);
    let within = "2001:db8:ce:1000::/56 192.0.2.0/28 8";
    refuses(&lab, &format!("jool_mapt fmrt add {within}"), 17, RULE);
    lab.must("jool_mapt fmrt add 2001:db8:cf::/48 198.51.100.0/24 16");
    let rows = lab.must("jool_mapt fmrt display --csv --no-headers");
    assert_eq!(rows.lines().count(), 2, "{rows}");
    let other = RULE.replace(" 13 0", " 13 1");
    refuses(&lab, &format!("jool_mapt fmrt remove {other}"), 3, &other);
    lab.must(&format!("jool_mapt fmrt remove {RULE}"));
    let rows = "2001:db8:cf::/48,198.51.100.0/24,16,6\n";
    assert_eq!(lab.must("jool_mapt fmrt display --csv --no-headers"), rows);
    lab.stop();
    lab.start();
    assert_eq!(lab.must("jool_mapt fmrt display --csv --no-headers"), rows);
    lab.must("jool_mapt fmrt flush");
    assert_eq!(lab.must("jool_mapt fmrt display --count"), "0\n");
}

#[test]
fn a_file_is_taken_whole_or_not_at_all() {
    let Some(lab) = started("mapt-file") else {
        return;
    };
    let file = |global: &str, fmrt: &str| {
        format!(
            "{{ \"instance\": \"f\", \"framework\": \"netfilter\",\n\"global\": {{ \"pool6\": \"64:ff9b::/96\"{global} }},\n\"fmrt\": [ {fmrt} ] }}"
        )
    };
    let rule = |ea: u8| {
        format!(
            r#"{{ "IPv6 Prefix": "2001:db8:ce::/51", "ipv4 prefix": "192.0.2.0/24", "EA-bits length": {ea}, "a": 0 }}"#
        )
    };
    let prefix = ", \"end-user-ipv6-prefix\": \"2001:db8:ce:11b::/64\"";
    let bmr = |ea| format!("{prefix}, \"bmr\": {}", rule(ea));
    let path = lab.folder.join("f.json");
    fs::write(&path, file(&bmr(13), &rule(13))).unwrap();
    lab.must("jool_mapt file check f.json");
    lab.must("jool_mapt file handle f.json");
    let exported = lab.must("tylo export -i f");
    for (text, status, mention) in [
        (file(&bmr(12), ""), 22, "makes 63"),
        (
            file("", &format!("{}, {}", rule(13), rule(13))),
            17,
            "2001:db8:ce::/51",
        ),
        (file("", &rule(49)), 22, "line 3: fmrt[0]: "),
        (file(", \"bmr\": 5", ""), 234, "line 2: global.bmr: "),
        (file(", \"tos\": 256", &rule(13)), 234, "global.tos"),
    ] {
        fs::write(&path, text).unwrap();
        refuses(&lab, "jool_mapt file handle f.json", status, mention);
        assert_eq!(lab.must("tylo export -i f"), exported, "{mention}");
    }
    refuses(&lab, "jool_siit file handle f.json", 234, "fmrt");
    // What is left out goes.
    fs::write(&path, file("", "")).unwrap();
    let difference = lab.jool("tylo diff f.json", false);
    assert!(
        text(&difference.stdout).contains("- fmrt 2001:db8:ce::/51"),
        "{difference:?}"
    );
    lab.must("jool_mapt file handle f.json");
    assert_eq!(lab.must("jool_mapt -i f fmrt display --count"), "0\n");
}

#[test]
fn dhcp_makes_new_instances_only() {
    let Some(lab) = started("mapt-dhcp") else {
        return;
    };
    let options = "005f003000590017010d18c00002003320010db800ce00005d00040005d800\
                   005b000d600064ff9b000000000000000000110000";
    fs::write(lab.folder.join("options"), options).unwrap();
    let add = "jool_mapt instance add d --from-dhcp options --end-user-ipv6-prefix";
    refuses(
        &lab,
        &format!("{add} 2001:db8:cf::/64"),
        22,
        "2001:db8:cf::/64",
    );
    lab.must(&format!("{add} 2001:db8:ce:11b::/64"));
    refuses(&lab, &format!("{add} 2001:db8:ce:774::/64"), 17, "'d'");
    let shown = lab.must("jool_mapt -i d global display --csv --no-headers");
    for line in [
        "pool6,64:ff9b::/96",
        "map-t-type,CE",
        "end-user-ipv6-prefix,2001:db8:ce:11b::/64",
        "bmr,2001:db8:ce::/51,192.0.2.0/24,13,0",
    ] {
        assert!(shown.lines().any(|l| l == line), "{line}\n{shown}");
    }
    let explained = lab.must("tylo mapt calc -i d");
    assert!(
        explained.contains("ports            2048: 55296-57343\n"),
        "{explained}"
    );
    assert!(lab.must("tylo mapt napt -i d").starts_with("off"));
    assert!(lab.must("tylo mapt napt on -i d").starts_with("on"));
    lab.must("tylo mapt check -i d --seconds 0");
    // A border relay is no customer.
    lab.must("jool_mapt -i d global update bmr null");
    refuses(&lab, "tylo mapt calc -i d", 1, "border relay");
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! What Jool does not have: JSON, checks of files, exports, differences.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::{Value, json};

use super::lab::{Lab, program, run, text};

#[test]
fn every_display_has_json() {
    let Some(mut lab) = Lab::new("json") else {
        return;
    };
    lab.start();
    lab.must("jool instance add --pool6 64:ff9b::/96");
    lab.must("jool pool4 add --tcp 192.0.2.1 100-200");
    lab.must("jool bib add --tcp 2001:db8::1#1 192.0.2.1#100");
    lab.must("jool_siit -i x instance add --iptables --pool6 64:ff9b::/96");
    lab.must("jool_siit -i x eamt add 192.0.2.9 2001:db8::9");
    lab.must("jool_siit -i x denylist4 add 198.51.100.0/24");
    lab.must("jool_mapt -i x instance add --iptables --dmr 64:ff9b::/96");
    lab.must("jool_mapt -i x fmrt add 2001:db8:ce::/51 192.0.2.0/24 13 0");
    for (line, rows, key) in [
        ("jool instance display --json", 1, "framework"),
        ("jool instance status --json", 1, "running"),
        ("jool stats display --all --json", 70, "value"),
        ("jool global display --json", 27, "key"),
        ("jool pool4 display --tcp --json", 1, "ports"),
        ("jool pool4 display --udp --json", 0, ""),
        ("jool bib display --tcp --json", 1, "static"),
        ("jool session display --json", 0, ""),
        ("jool_siit -i x eamt display --json", 1, "ipv6_prefix"),
        ("jool_siit -i x denylist4 display --json", 1, "ipv4_prefix"),
        ("jool_siit -i x address query 192.0.2.9 --json", 1, "result"),
        ("jool_mapt -i x fmrt display --json", 1, "ea_bits_length"),
    ] {
        let shown: Value = serde_json::from_str(&lab.must(line)).expect(line);
        assert_eq!(shown["version"], 1, "{line}");
        let found = shown["rows"].as_array().expect(line);
        assert!(found.len() >= rows, "{line}: {shown}");
        assert!(found.len() == rows || rows > 1, "{line}: {shown}");
        assert!(found.iter().all(|row| row.get(key).is_some()), "{line}");
    }
    let out = lab.jool("jool -i none instance status --json", false);
    let shown: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(shown["rows"], json!([{ "running": false }]));
    let refused = lab.jool("jool -i none bib display --json", false);
    assert_eq!(refused.status.code(), Some(3));
    assert_eq!(text(&refused.stdout), "");
    assert_eq!(lab.must("jool bib display --tcp --count"), "1\n");
    assert_eq!(lab.must("jool_siit -i x eamt display --count"), "1\n");
}

/// Fills an instance of each flavour with everything that a file can hold.
fn furnish(lab: &Lab) {
    for line in [
        "jool instance add n --iptables --pool6 64:ff9b::/96",
        "jool -i n pool4 add --tcp 192.0.2.0/30 100-200 --mark 7 --max-iterations infinity",
        "jool -i n pool4 add --tcp 192.0.2.4 100-200 --mark 7",
        "jool -i n pool4 add --udp 198.51.100.1 1-65535 --max-iterations 9",
        "jool -i n pool4 add --icmp 198.51.100.1 0-65535",
        "jool -i n bib add --udp 2001:db8::1#53 198.51.100.1#53",
        "jool -i n global update tos 7",
        "jool -i n global update udp-timeout 0:06:00.500",
        "jool -i n global update mtu-plateaus 1500,1280",
        "jool_siit instance add s --iptables --pool6 2001:db8:64::/96",
        "jool_siit -i s eamt add 2001:db8:4::/120 203.0.113.0/24",
        "jool_siit -i s eamt add 2001:db8:5:: 192.0.2.1",
        "jool_siit -i s denylist4 add 198.51.100.0/24",
        "jool_siit -i s global update eam-hairpin-mode off",
        "jool_siit -i s global update rfc6791v6-prefix 2001:db8:6::/96",
        "jool_mapt instance add m --iptables --dmr 64:ff9b:1::/96",
        "jool_mapt -i m global update end-user-ipv6-prefix 2001:db8:ce:11b::/64",
        "jool_mapt -i m global update bmr 2001:db8:ce::/51 192.0.2.0/24 13 0",
        "jool_mapt -i m global update mapt-napt on",
        "jool_mapt -i m fmrt add 2001:db8:ce::/51 192.0.2.0/24 13 0",
        "jool_mapt -i m fmrt add 2001:db8:cf::/48 198.51.100.0/24 16",
    ] {
        lab.must(line);
    }
}

#[test]
fn an_export_makes_the_same_instance_again() {
    let Some(mut lab) = Lab::new("export") else {
        return;
    };
    lab.start();
    furnish(&lab);
    for (program, name) in [("jool", "n"), ("jool_siit", "s"), ("jool_mapt", "m")] {
        let exported = lab.must(&format!("tylo export -i {name}"));
        fs::write(lab.folder.join("x.json"), &exported).unwrap();
        assert_eq!(lab.must("tylo diff x.json"), "", "nothing would change");
        lab.must(&format!("{program} file check x.json"));
        lab.must(&format!("{program} file handle x.json"));
        assert_eq!(lab.must(&format!("tylo export -i {name}")), exported);
        lab.must(&format!("{program} instance remove {name}"));
        lab.must(&format!("{program} file handle x.json"));
        assert_eq!(lab.must(&format!("tylo export -i {name}")), exported);
        for table in ["\"tos\": ", "\"framework\": \"iptables\""] {
            assert!(exported.contains(table), "{exported}");
        }
    }
    let exported = lab.must("tylo export -i m");
    for line in [
        r#""bmr": {"a":0,"ea-bits length":13,"ipv4 prefix":"192.0.2.0/24","ipv6 prefix":"2001:db8:ce::/51"}"#,
        r#""mapt-napt": true"#,
        r#"{ "ipv6 prefix": "2001:db8:cf::/48", "ipv4 prefix": "198.51.100.0/24", "ea-bits length": 16, "a": 6 }"#,
    ] {
        assert!(exported.contains(line), "{exported}");
    }
    assert!(!exported.contains("map-t-type"), "it was not given");
    let exported = lab.must("tylo export -i n");
    for line in [
        r#"{ "protocol": "TCP", "prefix": "192.0.2.0/30", "port range": "100-200", "mark": 7, "max-iterations": "infinity" }"#,
        r#"{ "protocol": "UDP", "ipv6 address": "2001:db8::1#53", "ipv4 address": "198.51.100.1#53" }"#,
        r#""udp-timeout": "0:06:00.500""#,
        r#""mtu-plateaus": [1500,1280]"#,
    ] {
        assert!(exported.contains(line), "{exported}");
    }
    let out = lab.jool("tylo export -i none", false);
    assert_eq!(
        (out.status.code(), text(&out.stdout)),
        (Some(3), ""),
        "{out:?}"
    );
    // One name, two instances.
    lab.must("jool_siit instance add n --iptables");
    let out = lab.jool("tylo export -i n", false);
    assert_eq!(out.status.code(), Some(64), "{out:?}");
    assert_eq!(lab.must("tylo export -i n --flavour nat64"), exported);
    assert!(
        lab.must("tylo export -i n --flavour siit")
            .contains("\"eamt\": []")
    );
    // What needed force once needs it again, and is told so.
    lab.must("jool_siit -i n denylist4 add 127.0.0.0/8 --force");
    let out = lab.jool("tylo export -i n --flavour siit", false);
    assert!(
        out.status.success() && text(&out.stderr).contains("--force"),
        "{out:?}"
    );
    // A mapping whose place in pool4 is gone would be refused.
    lab.must("jool -i n pool4 flush --quick");
    let out = lab.jool("tylo export -i n --flavour nat64", false);
    let complaint = text(&out.stderr);
    assert!(
        out.status.success() && complaint.contains("would not take this"),
        "{out:?}"
    );
}

#[test]
fn a_check_says_what_handling_would_and_changes_nothing() {
    let Some(mut lab) = Lab::new("check") else {
        return;
    };
    let file = lab.folder.join("x.json");
    let fine = r#"{ "instance": "x", "framework": "netfilter",
                    "global": { "pool6": "64:ff9b::/96", "tos": 7 } }"#;
    fs::write(&file, fine).unwrap();
    let offline = lab.jool("jool file check x.json", false);
    assert_eq!(offline.status.code(), Some(0));
    assert!(
        text(&offline.stderr).starts_with("Warning: no tylod"),
        "{offline:?}"
    );
    lab.start();
    assert_eq!(lab.must("jool file check x.json"), "");
    let out = lab.jool("jool -i x instance status", false);
    assert!(text(&out.stdout).starts_with("Dead"), "{out:?}");
    lab.must("jool file handle x.json");
    let other_pool6 = fine.replace("64:ff9b::/96", "2001:db8::/96");
    let second = fine.replace("\"x\"", "\"y\"");
    let framework = fine.replace("netfilter", "iptables");
    let orphan = fine.replace(
        "\"framework\"",
        r#""bib": [ { "protocol": "TCP", "ipv6 address": "2001:db8::1#1",
                      "ipv4 address": "192.0.2.1#1" } ], "framework""#,
    );
    let junk = fine.replace("7", "700");
    for text_of_file in [&other_pool6, &second, &framework, &orphan, &junk] {
        fs::write(&file, text_of_file).unwrap();
        let checked = lab.jool("jool file check x.json", false);
        let handled = lab.jool("jool file handle x.json", false);
        assert!(!handled.status.success(), "{text_of_file}");
        assert_eq!(checked, handled, "{text_of_file}");
    }
    assert!(lab.must("jool -i x global display").contains("  tos: 7\n"));
}

#[test]
fn differences_are_listed_and_counted_by_the_status() {
    let Some(mut lab) = Lab::new("diff") else {
        return;
    };
    lab.start();
    let file = lab.folder.join("x.json");
    let whole = r#"{ "instance": "x", "framework": "netfilter",
        "global": { "pool6": "64:ff9b::/96", "tos": 7 },
        "pool4": [ { "protocol": "TCP", "prefix": "192.0.2.0/31", "port range": "1-9" } ],
        "bib": [ { "protocol": "TCP", "ipv6 address": "2001:db8::1#1",
                   "ipv4 address": "192.0.2.1#1" } ] }"#;
    fs::write(&file, whole).unwrap();
    let differs = |lab: &Lab| {
        let out = lab.jool("tylo diff x.json", false);
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        text(&out.stdout).to_owned()
    };
    let new = differs(&lab);
    assert!(
        new.starts_with("nat64 'x' (new)\n+ framework netfilter\n"),
        "{new}"
    );
    assert!(
        new.contains("+ bib TCP 2001:db8::1#1 192.0.2.1#1\n"),
        "{new}"
    );
    lab.must("jool file handle x.json");
    assert_eq!(lab.must("tylo diff x.json"), "");
    // The same table in other words.
    let halves = whole.replace(
        r#"[ { "protocol": "TCP", "prefix": "192.0.2.0/31", "port range": "1-9" } ]"#,
        r#"[ { "protocol": "tcp", "prefix": "192.0.2.1", "port range": "0-9" },
             { "protocol": "TCP", "prefix": "192.0.2.0", "port range": "9-1", "mark": 0 } ]"#,
    );
    fs::write(&file, halves).unwrap();
    assert_eq!(lab.must("tylo diff x.json"), "");
    let changed = whole
        .replace("1-9", "1-8")
        .replace("\"tos\": 7", "\"tos\": 8");
    fs::write(&file, changed).unwrap();
    assert_eq!(
        differs(&lab),
        "nat64 'x'\n\
         - global tos 7\n\
         - pool4 TCP 192.0.2.0/31 1-9 mark 0 max-iterations auto\n\
         + global tos 8\n\
         + pool4 TCP 192.0.2.0/31 1-8 mark 0 max-iterations auto\n"
    );
    let mapping = whole.replace("::1#1", "::2#2").replace(".1#1", ".1#2");
    fs::write(&file, mapping).unwrap();
    let out = lab.jool("tylo diff x.json", false);
    assert!(
        out.status.success() && text(&out.stderr).contains("'bib'"),
        "{out:?}"
    );
    // An error is no difference.
    for junk in [
        "{",
        r#"{ "framework": "netfilter" }"#,
        &whole.replace("0/31", "0/x"),
    ] {
        fs::write(&file, junk).unwrap();
        let out = lab.jool("tylo diff x.json", false);
        assert!(out.status.code() > Some(1), "{out:?}");
    }
}

#[test]
fn one_command_for_every_instance() {
    let Some(mut lab) = Lab::new("all") else {
        return;
    };
    lab.start();
    assert_eq!(lab.must("tylo all stats display"), "");
    furnish(&lab);
    assert_eq!(
        lab.must("tylo all instance status"),
        "nat64 'n':\nRunning\nsiit 's':\nRunning\nmapt 'm':\nRunning\n"
    );
    assert_eq!(
        lab.must("tylo all bib display --udp --count"),
        "nat64 'n':\n1\n"
    );
    let documents = lab.must("tylo all global display --json");
    let documents: Vec<Value> = serde_json::Deserializer::from_str(&documents)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap();
    let names: Vec<_> = documents.iter().map(|d| &d["instance"]).collect();
    assert_eq!(names, ["n", "s", "m"]);
    lab.must("tylo all global update manually-enabled false");
    assert!(
        lab.must("jool_siit -i s global display")
            .contains("manually-enabled: false")
    );
    // pool6 of a NAT64 instance cannot be unset; the other one is asked nevertheless.
    let out = lab.jool("tylo all global update pool6 null", false);
    assert_eq!(out.status.code(), Some(22), "{out:?}");
    assert!(
        text(&out.stderr).starts_with("Error: nat64 'n': "),
        "{out:?}"
    );
    assert!(
        lab.must("jool_siit -i s global display")
            .contains("pool6: (unset)")
    );
    for (line, code) in [
        ("tylo all frob", 234),
        ("tylo all instance flush", 64),
        ("tylo all instance add", 64),
        ("tylo all -i x stats display", 64),
        ("tylo all", 64),
        ("tylo all stats display --frob", 64),
    ] {
        let out = lab.jool(line, false);
        assert_eq!(out.status.code(), Some(code), "{line}: {out:?}");
    }
    assert!(
        lab.must("tylo all pool4 add --help")
            .contains("--max-iterations")
    );
}

#[test]
fn every_level_has_help() {
    let help = |words: &[&str]| {
        let out = program("tylo").args(words).arg("--help").output().unwrap();
        assert!(out.status.success(), "{words:?}: {out:?}");
        text(&out.stdout).to_owned()
    };
    let usage = help(&[]);
    let mut columns = BTreeSet::new();
    for line in usage.lines().filter(|line| line.contains("tylo ")) {
        if let Some((call, about)) = line.trim().rsplit_once("  ") {
            columns.insert(line.len() - about.len());
            let words = call.trim_start_matches("Usage: ").trim();
            let word = words.split(' ').nth(1).unwrap();
            let name = ["tylod", "joold", "jool", "jool_siit", "jool_mapt"].contains(&word);
            let called = if name { "" } else { "tylo " };
            let page = help(&[word]);
            assert!(page.contains(&format!("Usage: {called}{word}")), "{page}");
        }
    }
    assert_eq!(columns.len(), 1, "{usage}");
    for part in ["calc", "rules", "napt", "check"] {
        let page = help(&["mapt", part]);
        assert!(page.contains(&format!("Usage: tylo mapt {part}")), "{page}");
    }
    assert!(help(&["jool", "pool4", "add"]).contains("Examples:\n  jool pool4 add --tcp "));
    // A health check that lost its name must not find that all is well.
    let bare = program("tylo").output().unwrap();
    assert_eq!(bare.status.code(), Some(64), "{bare:?}");
    let out = program("tylo").arg("frob").output().unwrap();
    assert_eq!(out.status.code(), Some(64), "{out:?}");
    assert!(text(&out.stderr).starts_with("Error: 'frob' "), "{out:?}");
}

#[test]
fn commands_keep_their_names_when_links_are_followed() {
    let folder = std::env::temp_dir().join(format!("tylo-links-{}", std::process::id()));
    let bin = folder.join("it's a folder");
    fs::create_dir_all(&bin).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_tylo"), folder.join("it's")).unwrap();
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/link-commands");
    // The second time over what is there.
    for _ in 0..2 {
        let mut command = Command::new(tool);
        run(command.arg(&bin).arg(folder.join("it's")));
    }
    for name in ["jool", "jool_siit", "jool_mapt"] {
        // As keepalived does.
        let path = fs::canonicalize(bin.join(name)).unwrap();
        let out = Command::new(path).arg("--help").output().unwrap();
        let usage = format!("Usage: {name} ");
        assert!(text(&out.stdout).contains(&usage), "{out:?}");
    }
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn pages_and_completion_are_made() {
    let folder = std::env::temp_dir().join(format!("tylo-verbs-{}", std::process::id()));
    let made = program("tylo").arg("man").arg(&folder).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    for name in ["jool", "jool_siit", "jool_mapt", "joold", "tylo", "tylod"] {
        let page = fs::read_to_string(folder.join(format!("{name}.8"))).unwrap();
        assert!(
            page.starts_with(&format!(".TH {}", name.to_uppercase())),
            "{page}"
        );
    }
    let page = fs::read_to_string(folder.join("tylod.8")).unwrap();
    assert!(page.contains(r"\-\-state\-dir"), "{page}");
    let refused = program("tylo").args(["man", "/dev/null"]).output().unwrap();
    assert!(!refused.status.success() && !refused.stderr.is_empty());

    for name in ["jool", "jool_siit", "jool_mapt", "tylo"] {
        symlink(env!("CARGO_BIN_EXE_tylo"), folder.join(name)).unwrap();
    }
    let complete = |function: &str, words: &[&str]| {
        let script = format!(
            "PATH={}:$PATH; source <(tylo completion bash); COMP_WORDS=(\"$@\")\n\
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); {function}; echo \"${{COMPREPLY[*]}}\"",
            folder.display()
        );
        let out = Command::new("bash")
            .args(["-c", &script, "bash"])
            .args(words)
            .output()
            .unwrap();
        assert!(out.stderr.is_empty(), "{out:?}");
        text(&out.stdout).trim_end().to_owned()
    };
    for (function, words, expected) in [
        ("_tylo_jool", &["jool", "s"][..], "stats session"),
        ("_tylo_jool", &["jool", "bib", "a"], "add"),
        ("_tylo_jool", &["jool", "bib", "add", "--t"], "--tcp"),
        ("_tylo_jool", &["jool_siit", "add"], "address"),
        ("_tylo", &["tylo", "ex"], "explain export"),
        ("_tylo", &["tylo", "jool_siit", "eamt", "d"], "display"),
        ("_tylo", &["tylo", "all", "e"], "eamt"),
        ("_tylo_jool", &["jool_mapt", "fmrt", "a"], "add"),
        ("_tylo", &["tylo", "all", "f"], "file fmrt"),
        ("_tylo", &["tylo", "jool_mapt", "fmrt", "f"], "flush"),
        ("_tylo", &["tylo", "mapt", "c"], "calc check"),
        ("_tylo", &["tylo", "db", "v"], "vacuum"),
        ("_tylo", &["tylo", "mapt", "calc", "c"], ""),
    ] {
        assert_eq!(complete(function, words), expected, "{words:?}");
    }
    fs::remove_dir_all(&folder).unwrap();
}

//= jool#session-proxy
//= type=test
#[test]
fn synchronisation_needs_a_daemon_an_instance_and_the_switch() {
    let Some(mut lab) = Lab::new("sync") else {
        return;
    };
    let advertise = [
        "jool session advertise",
        "jool joold advertise",
        "jool --joold --advertise",
    ];
    let fails = |lab: &Lab, line: &str, code, mention| {
        let out = lab.jool(line, false);
        assert_eq!(out.status.code(), Some(code), "{line}: {out:?}");
        assert!(text(&out.stderr).contains(mention), "{line}: {out:?}");
    };
    let proxy = "jool session proxy ff08::db8:64:64";
    for line in advertise.into_iter().chain([proxy]) {
        fails(&lab, line, 253, "no tylod runs");
    }
    lab.start();
    for line in advertise.into_iter().chain([proxy]) {
        fails(&lab, line, 3, "no instance 'default'");
    }
    lab.must("jool instance add --pool6 64:ff9b::/96");
    for line in advertise {
        fails(&lab, line, 22, "'jool global update ss-enabled true'");
    }
    lab.must("jool global update ss-enabled true");
    for line in advertise {
        fails(&lab, line, 107, "run 'jool session proxy' first");
    }
    fails(
        &lab,
        "jool session proxy --net.dev.in no0 ff08::1",
        19,
        "'no0'",
    );
    let out = program("joold").arg("/nonexistent").output().unwrap();
    assert_eq!(out.status.code(), Some(2), "{out:?}");
    assert!(text(&out.stderr).starts_with("Warning: "), "{out:?}");
}

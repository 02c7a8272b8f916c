// SPDX-License-Identifier: GPL-2.0-or-later
//! What Jool does not have: JSON, checks of files, exports, differences.

use serde_json::{Value, json};

use super::lab::{Lab, text};

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

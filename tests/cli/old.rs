// SPDX-License-Identifier: GPL-2.0-or-later
//! Jool 3's command lines, and the ways in which watchdogs ask.

use std::fs;

use super::lab::{Lab, program, text};

/// Runs a line that succeeds and says how to write it today.
#[track_caller]
fn hinted(lab: &Lab, line: &str) -> String {
    let out = lab.jool(line, false);
    assert!(out.status.success(), "{line}: {out:?}");
    let hint = text(&out.stderr);
    assert!(
        hint.starts_with("Hint: ") && hint.lines().count() == 1,
        "{line}: {hint}"
    );
    text(&out.stdout).to_owned()
}

//= jool#3.x
//= type=test
#[test]
fn lines_of_jool_3_work() {
    let Some(mut lab) = Lab::new("old") else {
        return;
    };
    lab.start();
    lab.must("jool instance add --pool6 64:ff9b::/96");
    hinted(&lab, "jool --pool4 --add --tcp --udp 192.0.2.1 61001-65535");
    hinted(&lab, "jool --pool4 --add --icmp 192.0.2.1 0-65535");
    let pool4 = "Mark,Protocol,Address,Min port,Max port,Iterations,Iterations fixed\n\
                 0,TCP,192.0.2.1,61001,65535,1024,0\n\
                 0,UDP,192.0.2.1,61001,65535,1024,0\n\
                 0,ICMP,192.0.2.1,0,65535,1024,0\n";
    assert_eq!(hinted(&lab, "jool --pool4 --csv"), pool4);
    hinted(&lab, "jool --ss-enabled true");
    hinted(&lab, "jool --tos=16 --override-tos 1");
    let settings = hinted(&lab, "jool --global");
    for line in [
        "  ss-enabled: true\n",
        "  tos: 16\n",
        "  override-tos: true\n",
    ] {
        assert!(settings.contains(line), "{settings}");
    }
    hinted(
        &lab,
        "jool --bib --add --tcp --udp 2001:db8::1#1 192.0.2.1#61001",
    );
    let row = |protocol| format!("[Static {protocol}] 192.0.2.1#61001 - 2001:db8::1#1\n");
    assert_eq!(hinted(&lab, "jool -bn"), row("TCP") + &row("UDP"));
    assert_eq!(hinted(&lab, "jool -bcn"), "TCP: 1\nUDP: 1\nICMP: 0\n");
    let line = "---------------------------------\n";
    assert_eq!(
        hinted(&lab, "jool --session --numeric"),
        format!("TCP:\n{line}UDP:\n{line}ICMP:\n{line}")
    );
    assert_eq!(hinted(&lab, "jool -sin"), line);
    // Two of the three tables have it.
    hinted(&lab, "jool --bib --remove 192.0.2.1#61001");
    let out = lab.jool("jool --bib --remove 192.0.2.1#61001", false);
    assert_eq!(out.status.code(), Some(3), "{out:?}");
    // The second protocol is refused, the first was taken.
    let out = lab.jool("jool --bib --add -ti 2001:db8::1#1 192.0.2.1#61001", false);
    assert!(out.status.success());
    let out = lab.jool("jool --bib --add -tu 2001:db8::2#1 192.0.2.1#61001", false);
    assert_eq!(out.status.code(), Some(17), "{out:?}");
    hinted(&lab, "jool --bib --remove -i 192.0.2.1#61001");
    let out = lab.jool("jool --bib --add -ui 2001:db8::1#1 192.0.2.7#9", false);
    assert_eq!(out.status.code(), Some(22), "{out:?}");

    fs::write(
        lab.folder.join("x.json"),
        r#"{ "instance": "x", "framework": "iptables", "global": { "pool6": "64:ff9b::/96" } }"#,
    )
    .unwrap();
    hinted(&lab, "jool --file x.json");
    let named = lab.jool("jool --file x.json global display", false);
    assert_eq!((named.status.code(), text(&named.stderr)), (Some(0), ""));
    let out = hinted(&lab, "jool --file x.json --pool4 --csv --no-headers");
    assert_eq!(out, "", "instance x has none");

    lab.must("jool_siit instance add --pool6 64:ff9b::/96");
    hinted(&lab, "jool_siit --eamt --add 192.0.2.9 2001:db8::9");
    hinted(&lab, "jool_siit --blacklist --add 198.51.100.0/24");
    assert_eq!(
        hinted(&lab, "jool_siit -e --csv --no-headers"),
        "2001:db8::9/128,192.0.2.9/32\n"
    );
    assert_eq!(hinted(&lab, "jool_siit -ec"), "1\n");
}

#[test]
fn an_unknown_option_at_the_front_is_an_error() {
    for option in ["--frob", "-x", "--poool4", "--s"] {
        let out = program("jool").args([option, "display"]).output().unwrap();
        assert_eq!(out.status.code(), Some(64), "{option}");
        assert_eq!(text(&out.stdout), "");
        assert!(text(&out.stderr).contains(option), "{out:?}");
    }
}

//= jool#health
//= type=test
#[test]
fn bare_commands_are_health_checks() {
    let Some(mut lab) = Lab::new("bare") else {
        return;
    };
    let check = |lab: &Lab, line: &str, code: i32, mention: &str| {
        let out = lab.jool(line, true);
        assert!(text(&out.stdout).contains("Usage: "), "{out:?}");
        assert_eq!(out.status.code(), Some(code), "{out:?}");
        let complaint = text(&out.stderr);
        assert_eq!(
            complaint.lines().count(),
            usize::from(code != 0),
            "{complaint}"
        );
        assert!(complaint.contains(mention), "{complaint}");
    };
    check(&lab, "jool", 253, "no tylod runs");
    lab.start();
    check(&lab, "jool", 1, "jool instance add");
    lab.must("jool instance add --pool6 64:ff9b::/96");
    check(&lab, "jool", 0, "");
    check(&lab, "jool -i default", 0, "");
    check(&lab, "jool -i other", 1, "'other'");
    check(&lab, "jool_siit", 1, "jool_siit instance add");
    check(&lab, "jool --help", 0, "");
}

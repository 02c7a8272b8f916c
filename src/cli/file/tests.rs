// SPDX-License-Identifier: GPL-2.0-or-later
use super::*;
use crate::base::Protocol;
use crate::model::settings::Value;
use crate::model::{EamRow, Framework, HairpinMode, MaxIterations, PortRange};

/// What `read` makes of a file that holds `text`.
fn file<T>(text: impl AsRef<[u8]>, read: impl Fn(&Path) -> T) -> T {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = format!("tylo-cli-file-{}-{n}.json", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, text).unwrap();
    let result = read(&path);
    std::fs::remove_file(path).unwrap();
    result
}

#[track_caller]
fn taken(flavour: Flavour, text: &str) -> (Option<String>, Config) {
    file(text, |path| configuration(path, flavour, false)).unwrap()
}

/// Line, key, message and exit status of what is wrong.
#[track_caller]
fn problem(flavour: Flavour, force: bool, text: &str) -> (usize, String, String, u8) {
    let error = file(text, |path| configuration(path, flavour, force)).unwrap_err();
    let code = error.code();
    let FileError::Problem { span, problem, .. } = error else {
        panic!("{error}");
    };
    (span.line, span.key, problem.to_string(), code)
}

#[test]
fn the_name_is_found_whatever_else_there_is() {
    let text = r#"{"framework": 7, "INSTANCE": "x", "global": {"instance": "y"}}"#;
    assert_eq!(file(text, instance).unwrap(), "x");
}

#[test]
fn files_without_a_name_are_refused() {
    let refused = |text: &str| file(text, instance).unwrap_err();
    assert!(matches!(refused("{}"), FileError::NoInstance(_)));
    assert!(matches!(refused("{"), FileError::NotJson { .. }));
    for (text, mention) in [
        ("[]", "line 1: write an object instead of []"),
        (r#"{"instance": 3}"#, "instance: write a text instead of 3"),
        (
            r#"{"instance": "a", "Instance": "b"}"#,
            "Instance: this key stands here twice",
        ),
        (r#"{"instance": "abcdefghijklmnop"}"#, "too long"),
    ] {
        let error = refused(text);
        assert!(error.to_string().contains(mention), "{error}");
        assert_eq!(error.code(), 234);
    }
}

#[test]
fn a_missing_file_has_the_systems_error_number() {
    assert_eq!(instance(Path::new("/nonexistent")).unwrap_err().code(), 2);
    let error = configuration(Path::new("/nonexistent"), Flavour::Siit, false).unwrap_err();
    assert_eq!(error.code(), 2);
}

#[test]
fn the_recorded_files_are_understood() {
    let text = include_str!("../../../tests/fixtures/cli/siit/atomic-siit.json");
    let (name, config) = taken(Flavour::Siit, text);
    assert_eq!(name.as_deref(), Some("atomic"));
    let v6 = "2001:db8:1::/120".parse().unwrap();
    let v4 = "198.51.100.0/24".parse().unwrap();
    let pool6 = Value::Prefix6(Some("64:ff9b::/96".parse().unwrap()));
    let source = Value::Prefix4(Some("203.0.113.0/24".parse().unwrap()));
    assert_eq!(
        config,
        Config {
            framework: Framework::Iptables,
            settings: vec![
                ("pool6".to_owned(), pool6.clone()),
                ("rfc6791v4-prefix".to_owned(), source),
            ],
            eamt: vec![EamRow { v6, v4 }],
            denylist4: vec!["192.0.2.0/24".parse().unwrap()],
            fmrt: Vec::new(),
            pool4: Vec::new(),
            bib: Vec::new(),
        }
    );
    let text = include_str!("../../../tests/fixtures/cli/nat64/atomic.json");
    let (_, config) = taken(Flavour::Nat64, text);
    assert_eq!(config.framework, Framework::Netfilter);
    assert_eq!(
        config.settings,
        [
            ("pool6".to_owned(), pool6),
            ("manually-enabled".to_owned(), Value::Bool(true)),
            ("udp-timeout".to_owned(), Value::Duration(300_000)),
            ("f-args".to_owned(), Value::Number(11)),
            (
                "mtu-plateaus".to_owned(),
                Value::Plateaus(vec![65535, 1500, 68])
            ),
        ]
    );
    let protocols: Vec<_> = config.pool4.iter().map(|e| e.protocol).collect();
    assert_eq!(protocols, Protocol::ALL);
    assert_eq!(
        config.pool4[0].max_iterations,
        Some(MaxIterations::Fixed(1024))
    );
    assert_eq!(config.pool4[1].max_iterations, None);
    assert_eq!(config.bib[0].v4, "192.0.2.7#1080".parse().unwrap());
}

//= jool#file-handle
//= type=test
#[test]
fn keys_in_any_case_comments_and_defaults() {
    let text = r#"{
        "comment": {"any": ["thing"]}, "COMMENT": 2,
        "FrameWork": "netfilter",
        "Global": {"comment": 1, "Comment": 2, "POOL6": null, "Eam-Hairpin-Mode": "simple",
                   "tos": 1e1, "lowest-ipv6-mtu": 1400.0},
        "EAMT": [{"IPv6 Prefix": "2001:db8::1", "comment": "x", "IPv4 PREFIX": "192.0.2.1"}],
        "denylist4": ["10.0.0.0/8"],
        "blacklist4": ["10.0.0.0/8", "192.0.2.9"]
    }"#;
    let (name, config) = taken(Flavour::Siit, text);
    assert_eq!(name, None);
    assert_eq!(
        config.settings,
        [
            ("pool6".to_owned(), Value::Prefix6(None)),
            (
                "eam-hairpin-mode".to_owned(),
                Value::Hairpin(HairpinMode::Simple)
            ),
            ("tos".to_owned(), Value::Number(10)),
            ("lowest-ipv6-mtu".to_owned(), Value::Number(1400)),
        ]
    );
    assert_eq!(config.eamt[0].v6, "2001:db8::1/128".parse().unwrap());
    let denied: Vec<_> = config.denylist4.iter().map(ToString::to_string).collect();
    assert_eq!(denied, ["10.0.0.0/8", "10.0.0.0/8", "192.0.2.9/32"]);

    let text = r#"{"framework": "iptables", "pool4": [
        {"protocol": "icmp", "prefix": "192.0.2.1", "mark": 4294967295, "max-iterations": "auto"},
        {"protocol": "Udp", "prefix": "10.0.0.0/8", "port range": "9-7", "max-iterations": "infinity"}
    ]}"#;
    let (_, config) = taken(Flavour::Nat64, text);
    let [ping, udp] = config.pool4.as_slice() else {
        panic!("{config:?}");
    };
    assert_eq!((ping.protocol, ping.mark), (Protocol::Icmp, u32::MAX));
    assert_eq!(
        ping.ports,
        PortRange {
            min: 61001,
            max: 65535
        }
    );
    assert_eq!(ping.max_iterations, Some(MaxIterations::Auto));
    assert_eq!((udp.ports.min, udp.ports.max), (7, 9));
    assert_eq!(udp.max_iterations, Some(MaxIterations::Infinity));
}

#[test]
fn problems_have_their_line_their_key_and_their_status() {
    let (siit, nat64) = (Flavour::Siit, Flavour::Nat64);
    for (flavour, text, line, key, mention, code) in [
        (siit, "3", 1, "", "write an object instead of 3", 234),
        (siit, "\n\n{}", 3, "", "'framework' is missing", 234),
        (
            siit,
            "{\"framework\":\n\"nftables\"}",
            2,
            "framework",
            "'nftables' is none of: netfilter, iptables",
            234,
        ),
        (
            siit,
            "{\"pool4\": []}",
            1,
            "pool4",
            "unknown here; choose one of: instance, framework, global, eamt, denylist4",
            234,
        ),
        (
            nat64,
            "{\"eamt\": []}",
            1,
            "eamt",
            "unknown here; choose one of: instance, framework, global, pool4, bib",
            234,
        ),
        (
            siit,
            "{\"framework\": \"netfilter\",\n\"eamt\": [\n\
             {\"ipv6 prefix\": \"::1\", \"ipv4 prefix\": \"192.0.2.1\"},\n\
             {\"ipv6 prefix\": \"::2\",\n\"ipv4 prefix\": \"192.0.2.1/24\"}]}",
            5,
            "eamt[1].ipv4 prefix",
            "did you mean '192.0.2.0/24'",
            22,
        ),
        (
            siit,
            "{\"framework\": \"netfilter\",\n\"eamt\": [\n{\"ipv6 prefix\": \"::2\"}]}",
            3,
            "eamt[0]",
            "the key 'ipv4 prefix' is missing",
            234,
        ),
        (
            siit,
            "{\"framework\": \"netfilter\", \"eamt\": {\"x\": 1}}",
            1,
            "eamt",
            "write an array instead of {\"x\": 1}",
            234,
        ),
        (
            siit,
            "{\"framework\": \"netfilter\",\n\"eamt\": [[]]}",
            2,
            "eamt[0]",
            "write an object instead of []",
            234,
        ),
        (
            siit,
            "{\"framework\": \"netfilter\", \"denylist4\": [\n\"127.0.0.1\"]}",
            2,
            "denylist4[0]",
            "never leave their link",
            22,
        ),
        (
            siit,
            "{\"framework\": \"netfilter\", \"global\": {\n\"udp-timeout\": \"5\"}}",
            2,
            "global.udp-timeout",
            "manually-enabled, pool6",
            234,
        ),
        (
            siit,
            "{\"framework\": \"netfilter\", \"global\": {\"tos\": 1,\n\"TOS\": 2}}",
            2,
            "global.TOS",
            "twice",
            234,
        ),
        (
            siit,
            "{\"framework\": \"netfilter\", \"global\": {\"tos\": 256}}",
            1,
            "global.tos",
            "256",
            234,
        ),
        (
            siit,
            "{\"framework\": \"netfilter\", \"global\": {\"tos\": -1}}",
            1,
            "global.tos",
            "-1",
            234,
        ),
        (
            siit,
            "{\"framework\": \"netfilter\", \"global\": {\"tos\": 1.5}}",
            1,
            "global.tos",
            "1.5 is not a whole number",
            234,
        ),
        (
            siit,
            "{\"framework\": \"netfilter\", \"global\": {\"tos\": \"high\"}}",
            1,
            "global.tos",
            "write a number instead of \"high\"",
            234,
        ),
        (
            siit,
            "{\"framework\": \"netfilter\", \"global\": {\"lowest-ipv6-mtu\": 1279}}",
            1,
            "global.lowest-ipv6-mtu",
            "1280",
            22,
        ),
        (
            siit,
            "{\"framework\": \"netfilter\", \"global\": {\"mtu-plateaus\": []}}",
            1,
            "global.mtu-plateaus",
            "empty",
            234,
        ),
        (
            siit,
            "{\"framework\": \"netfilter\", \"global\": {\"mtu-plateaus\": [1,\n70000]}}",
            2,
            "global.mtu-plateaus[1]",
            "70000",
            234,
        ),
        (
            siit,
            "{\"framework\": \"netfilter\", \"global\": {\"pool6\": \"2001:db8:0:0:ff00::/96\"}}",
            1,
            "global.pool6",
            "--force",
            22,
        ),
        (
            siit,
            "{\"framework\": \"\\ud800\"}",
            1,
            "framework",
            "\\ud800\" cannot be read as a text",
            234,
        ),
        (
            siit,
            "{\"framework\": \"netfilter\", \"global\": {\"tos\": 1e999}}",
            1,
            "global.tos",
            "1e999 cannot be read as a number",
            234,
        ),
        (
            nat64,
            "{\"framework\": \"netfilter\", \"pool4\": [{\"protocol\": \"SCTP\"}]}",
            1,
            "pool4[0].protocol",
            "'SCTP' is none of: TCP, UDP, ICMP",
            234,
        ),
        (
            nat64,
            "{\"framework\": \"netfilter\", \"pool4\": [{\"protocol\": \"TCP\", \
             \"prefix\": \"192.0.2.1\", \"port range\": 7}]}",
            1,
            "pool4[0].port range",
            "write a text instead of 7",
            234,
        ),
        (
            nat64,
            "{\"framework\": \"netfilter\", \"pool4\": [{\"protocol\": \"TCP\", \
             \"prefix\": \"192.0.2.1\", \"max-iterations\": 0}]}",
            1,
            "pool4[0].max-iterations",
            "0",
            22,
        ),
        (
            nat64,
            "{\"framework\": \"netfilter\", \"bib\": [{\"protocol\": \"TCP\",\n\
             \"ipv6 address\": \"::1\",\n\"ipv4 address\": \"192.0.2.1#1\"}]}",
            2,
            "bib[0].ipv6 address",
            "'::1'",
            234,
        ),
    ] {
        let (l, k, message, c) = problem(flavour, false, text);
        assert!(message.contains(mention), "{text}: {message}");
        assert_eq!((l, k.as_str(), c), (line, key, code), "{text}: {message}");
    }
}

#[test]
fn force_takes_what_looks_like_a_mistake() {
    let text = r#"{"framework": "netfilter", "global": {"pool6": "2001:db8:0:0:ff00::/96",
        "rfc6791v4-prefix": "127.0.0.0/8"}, "denylist4": ["127.0.0.1"]}"#;
    assert!(file(text, |path| configuration(path, Flavour::Siit, true)).is_ok());
    let (_, key, message, _) = problem(Flavour::Siit, true, r#"{"framework": "x"}"#);
    assert_eq!(key, "framework", "{message}");
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    let text = "\u{feff}{\"instance\": \"x\"}";
    assert_eq!(file(text, instance).unwrap(), "x");
    let text = "\u{feff}\n{\"framework\": 1}";
    let (line, key, ..) = problem(Flavour::Siit, false, text);
    assert_eq!((line, key.as_str()), (2, "framework"));
}

#[test]
fn what_is_not_json_says_where() {
    for (text, mention) in [
        ("{\"instance\": \"x\",\n\n", "line 3"),
        ("{\"framework\": \"netfilter\"}\n}", "line 2"),
        ("{\"framework\": nothing\n}", "line 1"),
        ("", "line 1"),
    ] {
        let error = file(text, |path| configuration(path, Flavour::Siit, false)).unwrap_err();
        assert!(matches!(error, FileError::NotJson { .. }), "{text}");
        assert!(error.to_string().contains(mention), "{text}: {error}");
        assert_eq!(error.code(), 234);
    }
    let error = file(b"{\n\xff}", instance).unwrap_err();
    assert!(error.to_string().contains("line 2"), "{error}");
}

#[test]
fn deep_nests_are_no_danger() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let text = format!(r#"{{"comment": {deep}, "framework": {deep}}}"#);
    match file(text, |path| configuration(path, Flavour::Siit, false)) {
        Err(FileError::NotJson { .. } | FileError::Problem { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn long_values_are_not_quoted_in_full() {
    let text = format!(r#"{{"framework": [{}]}}"#, "1, ".repeat(1000) + "1");
    let (_, _, message, _) = problem(Flavour::Siit, false, &text);
    assert!(message.len() < 100, "{message}");
}

// SPDX-License-Identifier: GPL-2.0-or-later
use super::*;
use crate::base::Protocol;
use crate::model::control::Command;
use crate::model::settings::Value;
use crate::model::{Framework, MaxIterations, Pool4Entry, PortRange};

mod mapt;
mod siit;

const JOOL: Personality = Personality {
    program: "jool",
    flavour: Flavour::Nat64,
};

const JOOL_SIIT: Personality = Personality {
    program: "jool_siit",
    flavour: Flavour::Siit,
};

const JOOL_MAPT: Personality = Personality {
    program: "jool_mapt",
    flavour: Flavour::Mapt,
};

/// Reads a line of words; `''` is an empty one. `siit` or `mapt` at the front makes it one of
/// `jool_siit` or `jool_mapt`.
fn read(line: &str) -> Result<Invocation, GrammarError> {
    let (who, line) = match (line.strip_prefix("siit"), line.strip_prefix("mapt")) {
        (Some(line), _) => (JOOL_SIIT, line),
        (_, Some(line)) => (JOOL_MAPT, line),
        (None, None) => (JOOL, line),
    };
    let words = line.split_whitespace();
    let words = words.map(|w| OsString::from(if w == "''" { "" } else { w }));
    parse(who, words)
}

#[track_caller]
fn call(line: &str) -> Call {
    match read(line) {
        Ok(Invocation::Call(call)) => *call,
        other => panic!("{line}: {other:?}"),
    }
}

#[track_caller]
fn command(line: &str) -> Command {
    call(line).request.command
}

#[track_caller]
fn printed(line: &str) -> String {
    match read(line) {
        Ok(Invocation::Print(text) | Invocation::Bare { help: text, .. }) => text,
        other => panic!("{line}: {other:?}"),
    }
}

/// The exit status of a line that is refused, and its message.
#[track_caller]
fn refused(line: &str) -> (u8, String) {
    match read(line) {
        Err(error) => (error.code(), error.to_string()),
        Ok(taken) => panic!("{line}: {taken:?}"),
    }
}

#[track_caller]
fn refuses(line: &str, status: u8, mention: &str) {
    let (code, message) = refused(line);
    assert_eq!(code, status, "{line}: {message}");
    assert!(message.contains(mention), "{line}: {message}");
}

fn range(min: u16, max: u16) -> PortRange {
    PortRange { min, max }
}

#[test]
fn instances_are_added_by_either_name() {
    let add = |framework, pool6: Option<&str>| Command::InstanceAdd {
        framework,
        pool6: pool6.map(|p| p.parse().unwrap()),
    };
    let nat64 = Some("64:ff9b::/96");
    let default = call("instance add --netfilter --pool6 64:ff9b::/96");
    assert_eq!(default.request.command, add(Framework::Netfilter, nat64));
    assert_eq!(default.request.instance, "default");
    assert_eq!(default.output, Output::Nothing);
    for line in [
        "instance add Example --iptables --pool6 64:ff9b::/96",
        "instance add --iptables Example -6 64:ff9b::/96",
        "-i Example instance add --ipt --po=64:ff9b::/96",
        "-iExample instance add Example --iptables -664:ff9b::/96",
        "--inst=Example i a --iptables --iptables --pool6 64:ff9b::/96",
        "-i other -i Example instance add --iptables --pool6 64:ff9b::/96",
    ] {
        let call = call(line);
        assert_eq!(call.request.instance, "Example", "{line}");
        assert_eq!(
            call.request.command,
            add(Framework::Iptables, nat64),
            "{line}"
        );
    }
    // What only the daemon can judge is passed on.
    assert_eq!(command("instance add"), add(Framework::Netfilter, None));
    assert_eq!(
        command("instance add --pool6 2001:db8::"),
        add(Framework::Netfilter, Some("2001:db8::/128"))
    );
}

#[test]
fn other_instance_operations() {
    assert_eq!(call("instance remove x").request.instance, "x");
    assert_eq!(call("-i x instance remove").request.instance, "x");
    assert_eq!(command("instance flush"), Command::InstanceFlush);
    let status = call("-i x instance status");
    assert_eq!(status.output, Output::Status { json: false });
    assert_eq!(status.request.instance, "x");
    assert!(call("instance display").warning.is_none());
    assert!(call("-i x instance display").warning.is_some());
    assert!(call("-i x instance flush").warning.is_some());
}

#[test]
fn displays_know_their_style() {
    let style = |csv, headers, numeric| Style {
        csv,
        headers,
        numeric,
    };
    assert_eq!(call("b d --json").output, Output::Json(Table::Bib));
    assert_eq!(call("se d --count").output, Output::Count);
    for (line, table, style) in [
        (
            "gl di",
            Table::Settings(Flavour::Nat64),
            style(false, true, false),
        ),
        (
            "g d --c",
            Table::Settings(Flavour::Nat64),
            style(true, true, false),
        ),
        ("p d --no", Table::Pool4, style(false, false, false)),
        ("b d --numeric", Table::Bib, style(false, true, true)),
        (
            "session display --csv --num --no-h",
            Table::Sessions,
            style(true, false, true),
        ),
        (
            "stats display -ae",
            Table::Stats {
                all: true,
                explain: true,
            },
            style(false, true, false),
        ),
    ] {
        assert_eq!(call(line).output, Output::Table(table, style), "{line}");
    }
    assert_eq!(
        command("bib display"),
        Command::BibDisplay {
            protocol: Protocol::Tcp
        }
    );
    assert_eq!(
        command("session display -i"),
        Command::SessionDisplay {
            protocol: Protocol::Icmp
        }
    );
    assert_eq!(
        command("pool4 display --udp -u"),
        Command::Pool4Display {
            protocol: Protocol::Udp
        }
    );
}

#[test]
fn following_shows_ends_only_where_a_column_says_so() {
    for (line, events, json) in [
        ("session follow", false, false),
        ("se f --events", true, false),
        ("-i x session fol --json --ev", true, true),
    ] {
        let Call {
            request, output, ..
        } = call(line);
        let expected = Command::SessionFollow { ends: events };
        assert_eq!(request.command, expected, "{line}");
        assert_eq!(output, Output::Follow(Form { events, json }), "{line}");
    }
    assert_eq!(refused("session follow --tcp").0, 64);
    assert_eq!(refused("session follow now").0, 64);
}

//= jool#pool4-add
//= type=test
#[test]
fn pool4_entries() {
    let entry = |mark, prefix: &str, ports, max_iterations| Pool4Entry {
        mark,
        protocol: Protocol::Tcp,
        prefix: prefix.parse().unwrap(),
        ports,
        max_iterations,
    };
    for (line, entry, force) in [
        (
            "pool4 add 192.0.2.1 1024-65535 --tcp",
            entry(0, "192.0.2.1", range(1024, 65535), None),
            false,
        ),
        (
            "pool4 add --tcp 5000-6000 --mark 7 198.51.100.8/30 --max-iterations 50",
            entry(
                7,
                "198.51.100.8/30",
                range(5000, 6000),
                Some(MaxIterations::Fixed(50)),
            ),
            false,
        ),
        (
            "pool4 add 192.0.2.1 2000-1000 -t --max-iterations=infinity -f",
            entry(
                0,
                "192.0.2.1",
                range(1000, 2000),
                Some(MaxIterations::Infinity),
            ),
            true,
        ),
        (
            "pool4 add 10.0.0.0/8 0 --tcp --force --max auto --mark 1 --mark 4294967295",
            entry(
                u32::MAX,
                "10.0.0.0/8",
                range(0, 0),
                Some(MaxIterations::Auto),
            ),
            true,
        ),
    ] {
        assert_eq!(command(line), Command::Pool4Add { entry, force }, "{line}");
    }
    assert_eq!(
        command("pool4 remove 192.0.2.40"),
        Command::Pool4Remove {
            mark: 0,
            protocol: Protocol::Tcp,
            prefix: "192.0.2.40".parse().unwrap(),
            ports: range(0, 65535),
            quick: false,
        }
    );
    assert_eq!(
        command("pool4 remove 10.0.0.0/8 7 -qu --mark 8"),
        Command::Pool4Remove {
            mark: 8,
            protocol: Protocol::Udp,
            prefix: "10.0.0.0/8".parse().unwrap(),
            ports: range(7, 7),
            quick: true,
        }
    );
    assert_eq!(
        command("pool4 flush --quick"),
        Command::Pool4Flush { quick: true }
    );
}

//= jool#positionals
//= type=test
#[test]
fn mappings_in_any_order() {
    let (v6, v4) = (
        "2001:db8::1#80".parse().unwrap(),
        "192.0.2.1#81".parse().unwrap(),
    );
    for line in [
        "bib add 2001:db8::1#80 192.0.2.1#81 --udp",
        "bib add --udp 192.0.2.1#81 2001:db8::1#80",
    ] {
        let protocol = Protocol::Udp;
        assert_eq!(command(line), Command::BibAdd { protocol, v6, v4 });
    }
    assert_eq!(
        command("bib remove 192.0.2.1#81"),
        Command::BibRemove {
            protocol: Protocol::Tcp,
            v6: None,
            v4: Some(v4),
        }
    );
}

#[test]
fn settings_by_any_clear_prefix() {
    let update = |key: &str, value, force| Command::GlobalUpdate {
        key: key.to_owned(),
        value,
        force,
    };
    for (line, expected) in [
        (
            "global update manually-enabled YES",
            update("manually-enabled", Value::Bool(true), false),
        ),
        (
            "g u man 0",
            update("manually-enabled", Value::Bool(false), false),
        ),
        (
            "global update to --force 16",
            update("tos", Value::Number(16), true),
        ),
        (
            "global update udp 0:06:00 -f",
            update("udp-timeout", Value::Duration(360_000), true),
        ),
        (
            "global update max 20",
            update("maximum-simultaneous-opens", Value::Number(20), false),
        ),
        (
            "global update maximum-sessions 20",
            update("maximum-sessions", Value::Number(20), false),
        ),
        (
            "global update pool6 null",
            update("pool6", Value::Prefix6(None), false),
        ),
        (
            "global update pool6 64:ff9b::/97",
            update(
                "pool6",
                Value::Prefix6(Some("64:ff9b::/97".parse().unwrap())),
                false,
            ),
        ),
    ] {
        assert_eq!(command(line), expected, "{line}");
    }
}

//= jool#exit-status
//= type=test
#[test]
fn nonsense_is_refused_with_its_status_and_its_name() {
    for (line, status, mention) in [
        ("frobnicate", 234, "'frobnicate'"),
        ("eamt display", 234, "pool4 bib session"),
        ("instance", 234, "display add remove flush status"),
        ("instance frobnicate", 234, "'frobnicate'"),
        ("s d", 234, "stats session"),
        ("''", 234, "''"),
        ("global update", 234, "manually-enabled pool6"),
        ("global update trace false", 234, "'trace'"),
        (
            "global update m 1",
            234,
            "manually-enabled mtu-plateaus maximum-simultaneous-opens",
        ),
        ("global update tos", 234, "tos"),
        ("global update tos 256", 234, "256"),
        ("global update tos x", 1, "'x'"),
        ("global update tos 1x", 1, "'1x'"),
        ("global update tos -1", 64, "'-1'"),
        ("global update tos 1 2", 64, "'2'"),
        ("global update mtu-plateaus 1,2,x", 1, "'x'"),
        ("global update mtu-plateaus ''", 234, "empty"),
        ("global update manually-enabled maybe", 234, "'maybe'"),
        ("global update udp-timeout soon", 234, "'soon'"),
        ("global update pool6 64:ff9b::1/96", 22, "64:ff9b::1/96"),
        ("global update pool6 64:ff9b::/x", 1, "'x'"),
        ("instance add x y --iptables", 64, "'y'"),
        ("instance add --netfilter --iptables", 234, "--iptables"),
        ("-i a instance add b", 234, "'a' and 'b'"),
        ("instance add ''", 234, "empty"),
        ("-i '' global display", 234, "empty"),
        ("instance add abcdefghijklmnop", 234, "abcdefghijklmnop"),
        ("instance add --pool6 hello", 234, "hello"),
        ("instance add --pool6 192.0.2.0/24", 234, "192.0.2.0"),
        ("instance add --pool6 64:ff9b::/129", 234, "129"),
        ("instance add --pool6", 64, "--pool6"),
        ("instance status x", 64, "'x'"),
        ("instance flush x", 64, "'x'"),
        ("instance display --frob", 64, "--frob"),
        ("bib display --n", 64, "--n"),
        ("bib display --json --csv", 64, "--json"),
        ("pool4 display --csv --count", 64, "--count"),
        ("instance display --json --count", 64, "--json"),
        ("--frob instance display", 64, "--frob"),
        ("-x", 64, "-x"),
        ("-i", 64, "--instance"),
        ("instance -i x display", 234, "'-i'"),
        (
            "pool4 add",
            234,
            "an IPv4 prefix or address, a port (or ICMP identifier) range and a protocol \
             (--tcp, --udp or --icmp)",
        ),
        (
            "pool4 add 192.0.2.1 --tcp",
            234,
            "pool4 add lacks a port (or ICMP identifier) range",
        ),
        ("pool4 remove 5", 234, "an IPv4 prefix"),
        ("pool4 add 192.0.2.1 1 2 --tcp", 64, "'2'"),
        ("pool4 add 192.0.2.1 192.0.2.2 1 --tcp", 64, "'192.0.2.2'"),
        ("pool4 add 192.0.2.1 1-2 --tcp --udp", 234, "one protocol"),
        ("pool4 display --tcp --icmp", 234, "one protocol"),
        ("pool4 add 2001:db8::1 1-2 --tcp", 234, "2001:db8::1"),
        ("pool4 add 192.0.2.1 abc --tcp", 1, "'abc'"),
        ("pool4 add 192.0.2.1 1-70000 --tcp", 234, "'70000'"),
        ("pool4 add 10.0.0.0/8 1-2 --tcp", 249, "--force"),
        ("pool4 add 192.0.2.1 1-2 --tcp --mark x", 1, "mark: 'x'"),
        ("pool4 add 192.0.2.1 1-2 --tcp --mark -1", 1, "mark: '-1'"),
        ("pool4 add 192.0.2.1 1-2 --tcp --max-iterations 0", 22, "0"),
        (
            "bib add",
            234,
            "an IPv6 transport address (ADDRESS#PORT) and an IPv4",
        ),
        ("bib add 192.0.2.1#1", 234, "IPv6"),
        ("bib add 2001:db8::1#1", 234, "IPv4"),
        ("bib add 2001:db8::1 192.0.2.1", 234, "2001:db8::1"),
        ("bib add 2001:db8::1#99999 192.0.2.1#1", 234, "99999"),
        ("bib add ::1#1 ::2#2", 64, "'::2#2'"),
        ("bib add x", 64, "'x'"),
        ("bib remove --tcp", 234, "at least one"),
        ("-f /nonexistent global display", 2, "/nonexistent"),
        ("blacklist4 display", 234, "'blacklist4'"),
        ("file handle", 234, "the name of a file"),
        ("file handle /nonexistent", 2, "/nonexistent"),
        ("file handle a b", 64, "b"),
    ] {
        refuses(line, status, mention);
    }
}

#[test]
fn help_and_version_are_everywhere() {
    for line in [
        "",
        "--help",
        "-?",
        "-h",
        "-i x --he",
        "--usage",
        "-? instance",
        "-i x",
    ] {
        let text = printed(line);
        assert!(text.contains("pool4"), "{line}: {text}");
        assert!(text.contains("display, add, remove, flush, status"));
    }
    for line in ["pool4 --help", "p -h", "pool4 -?"] {
        assert!(printed(line).contains("flush"), "{line}");
    }
    for line in [
        "pool4 add --help",
        "p a -h",
        "pool4 add 192.0.2.1 -?",
        "pool4 add --usage",
    ] {
        let text = printed(line);
        assert!(text.contains("--max-iterations"), "{line}: {text}");
        assert!(text.contains("jool pool4 add"), "{line}: {text}");
    }
    assert!(printed("global update --help").contains("udp-timeout"));
    assert!(printed("global update tos --help").contains("VALUE"));
    for line in ["-V", "--version", "--ver instance", "pool4 add -V"] {
        assert_eq!(printed(line), "4.1.15.0\n", "{line}");
    }
}

#[test]
fn every_operation_has_sound_options() {
    for who in [JOOL, JOOL_SIIT] {
        for mode in Mode::of(who.flavour) {
            for operation in mode.operations {
                help::of_operation(operation.action, operation.about, "jool x y").debug_assert();
            }
        }
        help::top(who).debug_assert();
    }
}

#[test]
fn files_name_instances() {
    let file = Scratch::new(r#"{"Instance": "from-file"}"#);
    let file = file.0.display();
    let name = |line: String| call(&line).request.instance;
    assert_eq!(name(format!("-f {file} global display")), "from-file");
    assert_eq!(
        name(format!("-i x --fi {file} global display")),
        "from-file"
    );
    assert_eq!(name(format!("--file={file} -i x global display")), "x");
}

#[test]
fn words_that_are_not_text_are_refused() {
    use std::os::unix::ffi::OsStringExt;
    let odd = || OsString::from_vec(vec![0xff, b'x']);
    let code = |words: Vec<OsString>| parse(JOOL, words.into_iter()).unwrap_err().code();
    assert_eq!(code(vec![odd()]), 234);
    assert_eq!(code(vec!["instance".into(), "add".into(), odd()]), 64);
    assert_eq!(code(vec!["-i".into(), odd(), "bib".into()]), 64);
}

/// A file that is gone with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(text: &str) -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("tylo-grammar-{}-{n}.json", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

//= jool#file-handle
//= type=test
#[test]
fn files_say_which_instance_or_the_command_line_does() {
    let with = Scratch::new(r#"{"instance": "x", "framework": "iptables"}"#);
    let without = Scratch::new(r#"{"framework": "iptables"}"#);
    let (with, without) = (with.0.display(), without.0.display());
    for (line, name, force) in [
        (format!("siit file handle {with}"), "x", false),
        (format!("siit f h {with} -f"), "x", true),
        (format!("siit -i x file handle --force {with}"), "x", true),
        (format!("siit -i y file handle {without}"), "y", false),
        (format!("siit -f {with} file handle {without}"), "x", false),
    ] {
        let call = call(&line);
        assert_eq!(call.request.instance, name, "{line}");
        assert_eq!(call.output, Output::Nothing);
        let Command::Replace { config, force: f } = call.request.command else {
            panic!("{line}");
        };
        assert_eq!((config.framework, f), (Framework::Iptables, force));
    }
    let (code, message) = refused(&format!("-i y file handle {with}"));
    assert_eq!(code, 234);
    assert!(message.contains("'y' and 'x'"), "{message}");
    let (code, message) = refused(&format!("file handle {without}"));
    assert_eq!(code, 234);
    assert!(message.contains("-i NAME"), "{message}");
}

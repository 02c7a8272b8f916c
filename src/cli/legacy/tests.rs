// SPDX-License-Identifier: GPL-2.0-or-later
use proptest::prelude::*;

use super::*;
use crate::cli::grammar::Invocation;
use crate::cli::run::read;
use crate::model::Flavour;

const JOOL: Personality = Personality {
    program: "jool",
    flavour: Flavour::Nat64,
};

const JOOL_SIIT: Personality = Personality {
    program: "jool_siit",
    flavour: Flavour::Siit,
};

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

/// Whose line it is: that of `jool_siit` begins with `siit`.
fn whose(line: &str) -> (Personality, Vec<OsString>) {
    match line.strip_prefix("siit ") {
        Some(line) => (JOOL_SIIT, words(line)),
        None => (JOOL, words(line)),
    }
}

/// Today's lines.
#[track_caller]
fn today(line: &str) -> Vec<String> {
    let (who, words) = whose(line);
    let rewritten = rewrite(who, &words).unwrap().expect(line);
    let lines = rewritten.lines.iter().map(|line| {
        let words: Vec<_> = line.iter().map(|word| word.to_str().unwrap()).collect();
        words.join(" ")
    });
    lines.collect()
}

#[track_caller]
fn refuses(line: &str, mention: &str) {
    let (who, words) = whose(line);
    let error = rewrite(who, &words).unwrap_err();
    assert_eq!(error.code(), 64, "{line}: {error}");
    assert!(error.to_string().contains(mention), "{line}: {error}");
}

//= jool#3.x
//= type=test
#[test]
fn old_lines_become_lines_of_today() {
    for (line, expected) in [
        (
            "--pool4 --add --tcp --udp 192.0.2.1 61001-65535",
            &[
                "pool4 add --tcp 192.0.2.1 61001-65535",
                "pool4 add --udp 192.0.2.1 61001-65535",
            ][..],
        ),
        (
            "--pool4 --add --icmp 192.0.2.1 0-65535",
            &["pool4 add --icmp 192.0.2.1 0-65535"],
        ),
        (
            "-4a 192.0.2.1 --mark=5 --force -u",
            &["pool4 add --udp 192.0.2.1 0-65535 --mark 5 --force"],
        ),
        (
            "--pool4 --add 192.0.2.1 7 --max-iterations 9",
            &[
                "pool4 add --tcp 192.0.2.1 7 --max-iterations 9",
                "pool4 add --udp 192.0.2.1 7 --max-iterations 9",
                "pool4 add --icmp 192.0.2.1 7 --max-iterations 9",
            ],
        ),
        (
            "--pool4 --remove --tcp 192.0.2.1 -qm5",
            &["pool4 remove --tcp 192.0.2.1 --quick --mark 5"],
        ),
        ("-4fq", &["pool4 flush --quick"]),
        (
            "--pool4 --csv",
            &[
                "pool4 display --tcp --csv",
                "pool4 display --udp --csv",
                "pool4 display --icmp --csv",
            ],
        ),
        ("--ss-enabled true", &["global update ss-enabled true"]),
        ("--tos=16", &["global update tos 16"]),
        (
            "--udp-timeout 400 --logging-b 1",
            &[
                "global update udp-timeout 400",
                "global update logging-bib 1",
            ],
        ),
        (
            "--global --update --tos 3 --force",
            &["global update tos 3 --force"],
        ),
        ("--enable", &["global update manually-enabled true"]),
        ("--disable", &["global update manually-enabled false"]),
        ("--global", &["global display"]),
        ("-gd --csv", &["global display --csv"]),
        ("-sin", &["session display --icmp --numeric"]),
        ("-i -s -n", &["session display --icmp --numeric"]),
        (
            "--session --numeric",
            &[
                "session display --tcp --numeric",
                "session display --udp --numeric",
                "session display --icmp --numeric",
            ],
        ),
        ("--session --count -t", &["session display --tcp --count"]),
        ("-bcu", &["bib display --udp --count"]),
        ("--bib -b -t", &["bib display --tcp"]),
        (
            "--bib --add 2001:db8::1#80 192.0.2.1#80 --tcp --tcp",
            &["bib add --tcp 2001:db8::1#80 192.0.2.1#80"],
        ),
        (
            "-b -r 192.0.2.1#80 -tu",
            &[
                "bib remove --tcp 192.0.2.1#80",
                "bib remove --udp 192.0.2.1#80",
            ],
        ),
        ("--pool6", &["global display"]),
        (
            "-6 --add 64:ff9b::/96",
            &["global update pool6 64:ff9b::/96"],
        ),
        ("-6r 64:ff9b::/96", &["global update pool6 null"]),
        ("--joold --advertise", &["session advertise"]),
        ("--instance --add x --force", &["instance add x --force"]),
        ("--file x.json", &["file handle x.json"]),
        ("--file=x.json", &["file handle x.json"]),
        ("--fi x.json --force", &["file handle x.json --force"]),
        ("-p x.json", &["file handle x.json"]),
        ("-px.json", &["file handle x.json"]),
        ("-i x --session -t", &["-i x session display --tcp"]),
        ("-i x --file x.json", &["-i x file handle x.json"]),
        (
            "--file x.json --bib -t",
            &["--file x.json bib display --tcp"],
        ),
        ("--pool4 -t -- -x", &["pool4 display --tcp -x"]),
        ("siit -e", &["eamt display"]),
        (
            "siit --eamt --add 2001:db8::/96 192.0.2.1",
            &["eamt add 2001:db8::/96 192.0.2.1"],
        ),
        ("siit -ec", &["eamt display --count"]),
        (
            "siit --blacklist --add 192.0.2.0/24",
            &["denylist4 add 192.0.2.0/24"],
        ),
        (
            "siit --pool6791 --add 192.0.2.0/24",
            &["global update rfc6791v4-prefix 192.0.2.0/24"],
        ),
        (
            "siit --pool6791 --add 2001:db8::/96",
            &["global update rfc6791v6-prefix 2001:db8::/96"],
        ),
        (
            "siit --pool6791 --flush",
            &["global update rfc6791v4-prefix null"],
        ),
    ] {
        assert_eq!(today(line), expected, "{line}");
    }
}

#[test]
fn lines_of_today_are_left_alone() {
    for line in [
        "",
        "instance display",
        "-i x",
        "-isn",
        "-i",
        "-i --pool4 global display",
        "-i -x instance add",
        "--instance=--add instance add",
        "-f x.json",
        "--file x.json global display",
        "--file=x.json -i x",
        "--file",
        "--help",
        "-h",
        "-V --pool4",
        "--usage",
        "--vers",
        "pool4 --add",
        "-- --pool4",
    ] {
        assert_eq!(rewrite(JOOL, &words(line)).unwrap(), None, "{line}");
    }
}

#[test]
fn old_nonsense_is_refused() {
    for (line, mention) in [
        ("--frob", "'--frob'"),
        ("-x", "'-x'"),
        ("-sx", "'-sx'"),
        ("--pool4 --frob", "'--frob'"),
        ("--log x", "'--log'"),
        ("--pool4 --bib", "two modes"),
        ("--pool4 --add --remove", "--add and --remove"),
        ("--pool4 --add=5", "takes no value"),
        ("--pool4 --mark", "'--mark' needs a value"),
        (
            "--pool4 --update --max-iterations 5 --tcp",
            "--max-iterations",
        ),
        ("--tos", "'--tos' needs a value"),
        ("--tos 5 --pool4", "a command of their own"),
        ("--tos 5 --remove", "a command of their own"),
        ("--eam-hairpin-mode off", "'--eam-hairpin-mode'"),
        ("--joold", "--advertise"),
        ("--pool6 --count", "--count"),
        ("--fragment-arrival-timeout 5", "leave it out"),
    ] {
        refuses(line, mention);
    }
    // What is left to say about these is the grammar's to say.
    for (line, code) in [
        ("--csv pool4 display", 64),
        ("--global --tcp", 64),
        ("--eamt", 234),
        ("--pool4 --add --tcp", 234),
        ("--tos x", 1),
    ] {
        let error = read(JOOL, words(line).into_iter()).unwrap_err();
        assert_eq!(error.code(), code, "{line}: {error}");
    }
}

#[test]
fn the_hint_can_be_typed() {
    let plan = read(JOOL, words("--pool4 -ftuq").into_iter());
    assert_eq!(plan.unwrap_err().code(), 64, "protocols do not matter");
    let plan = read(JOOL, words("-4a -tu 192.0.2.1 1-2").into_iter()).unwrap();
    assert_eq!(
        plan.hint.unwrap(),
        "these options are Jool 3's; write: jool pool4 add --tcp 192.0.2.1 1-2 && \
         jool pool4 add --udp 192.0.2.1 1-2"
    );
    assert_eq!(plan.steps.len(), 2);
    let odd = ["--instance", "--remove", "a b", "x\n\u{1b}[31m"].map(OsString::from);
    let rewritten = rewrite(JOOL, &odd).unwrap().unwrap();
    assert_eq!(
        rewritten.hint("jool"),
        r"these options are Jool 3's; write: jool instance remove 'a b' 'x\n\u{1b}[31m'"
    );
    let plan = read(JOOL, words("gl di").into_iter()).unwrap();
    assert_eq!((plan.hint, plan.steps.len()), (None, 1));
}

#[test]
fn words_that_are_not_text_pass_through() {
    let odd = OsString::from_vec(vec![b'/', 0xff]);
    let line = [OsString::from("--file"), odd.clone()];
    let rewritten = rewrite(JOOL, &line).unwrap().unwrap();
    assert_eq!(rewritten.lines[0].last(), Some(&odd));
    let joined = OsString::from_vec(b"--file=/\xff".to_vec());
    let rewritten = rewrite(JOOL, &[joined]).unwrap().unwrap();
    assert_eq!(rewritten.lines[0].last(), Some(&odd));
    let line = [OsString::from_vec(vec![b'-', 0xff])];
    assert_eq!(rewrite(JOOL, &line).unwrap_err().code(), 64);
    let bare = read(JOOL, std::iter::empty()).unwrap();
    assert!(matches!(bare.steps[..], [Invocation::Bare { .. }]));
}

proptest! {
    /// Any mixture of words is read to the end, and what comes out is of today.
    #[test]
    fn what_is_rewritten_is_not_old_any_more(
        words in prop::collection::vec(
            prop_oneof![
                prop::sample::select(OPTIONS).prop_map(|(_, long, _)| format!("--{long}")),
                prop::sample::select(OPTIONS)
                    .prop_map(|(short, ..)| format!("-{}", short.unwrap_or('x'))),
                prop::sample::select(&["-i", "-sin", "--tos=5", "--file", "x", "192.0.2.1", "--"][..])
                    .prop_map(str::to_owned),
                "[-a-z0-9=. ]{0,6}",
            ],
            0..6,
        )
    ) {
        let words: Vec<OsString> = words.into_iter().map(OsString::from).collect();
        if let Ok(Some(rewritten)) = rewrite(JOOL, &words) {
            for line in rewritten.lines {
                prop_assert_eq!(rewrite(JOOL, &line).unwrap(), None, "{:?}", line);
            }
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
use std::fs;
use std::io::Cursor;
use std::path::PathBuf;

use proptest::collection::vec;
use proptest::prelude::*;

use self::captures::{ethernet, pcap, pcapng};
use super::advice::advice;
use super::story::End;
use super::*;
use crate::base::counters::Counter;
use crate::engine::{Meta, Outcome};
use crate::model::settings::Setting;
use crate::model::{Flavour, Framework};
use crate::wire::offload::Offload;

mod captures;

/// The recordings, each against a configuration of the same name.
const ALL: [&str; 8] = [
    "nat64", "adf", "cluster", "bare", "siit", "br", "ce", "napt",
];

fn fixture(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/fixtures/explain").join(name)
}

fn world(name: &str) -> World {
    let path = fixture(&format!("{name}.json"));
    let flavour = match name {
        "siit" => Flavour::Siit,
        "br" | "ce" | "napt" => Flavour::Mapt,
        _ => Flavour::Nat64,
    };
    let choice = Choice {
        name: None,
        flavour: Some(flavour),
    };
    World::of_file(&path, &choice).unwrap()
}

fn asked(words: &str) -> Asked {
    let words = std::iter::once("explain").chain(words.split(' '));
    Asked::of(&command().try_get_matches_from(words).unwrap()).unwrap()
}

fn packet(words: &str) -> Vec<u8> {
    asked(words).packet.unwrap().bytes
}

/// Carries the commands of a recording out, one after the other in one world, and writes what they
/// say below them.
fn replay(name: &str) -> (String, String) {
    let recorded = fs::read_to_string(fixture(&format!("{name}.txt"))).unwrap();
    let mut world = world(name);
    let mut played = String::new();
    for line in recorded.lines() {
        let Some(words) = line.strip_prefix("$ ") else {
            if line.starts_with('#') {
                played.push_str(&format!("{line}\n"));
            }
            continue;
        };
        let asked = asked(words);
        let packet = asked.packet.as_ref().unwrap();
        let story = tell(&mut world, &asked.choice, packet, START);
        let mut out = Vec::new();
        asked.print(&mut out, &story, None, true).unwrap();
        let text = String::from_utf8(out).unwrap();
        played.push_str(&format!("{line}\n{text}\n"));
    }
    (recorded, played)
}

#[test]
fn explanations_are_as_recorded() {
    for name in ALL {
        let (recorded, played) = replay(name);
        assert_eq!(played, recorded, "{name}");
    }
}

#[test]
fn every_reason_of_a_recording_has_a_clause_or_a_key_and_a_remedy() {
    for name in ALL {
        let (_, played) = replay(name);
        let lines: Vec<&str> = played.lines().collect();
        for (at, line) in lines
            .iter()
            .enumerate()
            .filter(|(_, line)| line.contains("JSTAT"))
        {
            assert!(line.ends_with(']'), "{line}");
            assert!(lines[at + 1].trim().starts_with("-> "), "{line}");
        }
    }
}

/// What may stand in brackets besides clauses.
const TABLES: [&str; 5] = ["pool4", "eamt", "denylist4", "fmrt", "pool6"];

#[test]
fn what_is_cited_exists() {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/conformance");
    for flavour in Flavour::ALL {
        for reason in Counter::ALL {
            let Some(found) = advice(*reason, flavour) else {
                continue;
            };
            for why in found.why.split(", ") {
                let known = |flavour| Setting::known(flavour).any(|s| s.key == why);
                if Flavour::ALL.into_iter().any(known) || TABLES.contains(&why) {
                    continue;
                }
                let clause = why.strip_prefix("RFC ").expect(why);
                let (number, section) = clause.split_once(" section ").expect(why);
                // Those that there is a table about.
                if let Ok(text) = fs::read_to_string(docs.join(format!("rfc{number}.md"))) {
                    let row = format!("| {section}");
                    let exists = text.lines().any(|line| line.starts_with(&row));
                    assert!(exists, "{why}, of {}", reason.name());
                }
            }
            assert!(!found.remedy.is_empty(), "{}", reason.name());
        }
    }
}

#[test]
fn only_what_is_no_reason_has_no_advice() {
    let counted: Vec<&str> = Counter::ALL
        .iter()
        .filter(|reason| advice(**reason, Flavour::Siit).is_none())
        .map(|reason| reason.explanation())
        .collect();
    for text in counted {
        let reason = text.starts_with("Packets dropped") && !text.contains("stays 0");
        assert!(!reason, "{text}");
    }
}

#[test]
fn command_lines_are_read_and_refused() {
    let refused = |line: &str| {
        let words = std::iter::once("explain").chain(line.split(' '));
        match command().try_get_matches_from(words) {
            Ok(found) => Asked::of(&found).err().map(|error| error.code()),
            Err(_) => Some(64),
        }
    };
    for line in [
        "tcp ::1#1 ::2#2",
        "tcp ::1#1 ::2#2 --json -i x --flavour siit",
        "--pcap x --limit 3 -v",
        "--live icmp6 --config x --mark 7",
    ] {
        assert_eq!(refused(line), None, "{line}");
    }
    for line in [
        "--json",
        "tcp ::1#1",
        "tcp ::1#1 ::2#2 ::3#3",
        "tcp ::1#1 ::2#2 --pcap x",
        "--pcap x --live y",
        "--pcap x --flags S",
        "--pcap x --limit 0",
        "--live y --mark z",
        "tcp ::1#1 ::2#2 --limit 3",
        "tcp ::1#1 ::2#2 -i toolongnameofaninstance",
    ] {
        assert!(refused(line).is_some_and(|code| code != 0), "{line}");
    }
}

#[test]
fn a_file_must_be_about_one_kind_of_instance() {
    let choice = Choice::default();
    for name in ["nat64", "siit", "br"] {
        let world = World::of_file(&fixture(&format!("{name}.json")), &choice);
        assert!(world.is_ok(), "{name}");
    }
    let folder = std::env::temp_dir().join(format!("tylo-explain-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("vague.json");
    let text = r#"{ "framework": "netfilter", "global": { "pool6": "64:ff9b::/96" } }"#;
    fs::write(&path, text).unwrap();
    let error = World::of_file(&path, &choice).err().unwrap().to_string();
    assert!(
        error.contains("nat64 or siit or mapt; add --flavour"),
        "{error}"
    );
    // Without a name, it is whose it is said to be.
    let other = Choice {
        name: Some("other".to_owned()),
        flavour: Some(Flavour::Siit),
    };
    assert_eq!(
        World::of_file(&path, &other).unwrap().locals[0].name,
        "other"
    );
    for (flavour, text, complaint) in [
        (Flavour::Nat64, r#"{ "framework": "netfilter" }"#, "pool6"),
        (
            Flavour::Mapt,
            r#"{ "framework": "netfilter", "global": { "map-t-type": "CE" } }"#,
            "end-user",
        ),
    ] {
        fs::write(&path, text).unwrap();
        let choice = Choice {
            name: None,
            flavour: Some(flavour),
        };
        let error = World::of_file(&path, &choice).err().unwrap().to_string();
        assert!(error.contains(complaint), "{error}");
    }
    let other = Choice {
        flavour: None,
        ..other
    };
    let error = World::of_file(&fixture("nat64.json"), &other)
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("there is nat64 'default'"),
        "{error}"
    );
    fs::remove_dir_all(folder).unwrap();
}

/// What the rules of several instances do with a packet.
fn shared(locals: Vec<&str>, words: &str, choice: &Choice) -> Story {
    let mut all = world("nat64");
    all.locals = locals
        .into_iter()
        .flat_map(|name| world(name).locals)
        .collect();
    tell(&mut all, choice, &asked(words).packet.unwrap(), START)
}

#[test]
fn of_several_instances_the_first_by_its_rules_gets_a_packet() {
    let anybody = Choice::default();
    let decided = |locals: &[&str], words: &str, choice: &Choice| {
        let story = shared(locals.to_vec(), words, choice);
        (story.end, story.instance.map(|(_, name)| name))
    };
    let to = |name: &str| Some(name.to_owned());
    // What a stateless one leaves alone goes on to the next chain; in one chain, the first has it.
    let words = "udp 2001:db8:b::7#5000 2001:db8:64::203.0.113.7#53";
    assert_eq!(
        decided(&["nat64", "siit"], words, &anybody),
        (End::Kernel(Some(Counter::SixFourDst)), to("dc"))
    );
    let words = "udp 2001:db8::8#7 64:ff9b::192.0.2.8#80";
    for (locals, first) in [
        (["nat64", "adf", "br"], "default"),
        (["adf", "nat64", "br"], "strict"),
        (["br", "adf", "nat64"], "strict"),
    ] {
        let story = shared(locals.to_vec(), words, &anybody);
        assert_eq!(story.instance.map(|(_, name)| name), to(first));
        let later = story.steps.iter();
        let later = later.filter(|step| step.text.contains("an earlier rule does"));
        assert_eq!(
            later.count(),
            0,
            "nobody asks who comes behind the one that decides"
        );
    }
    let chosen = Choice {
        name: to("br"),
        flavour: None,
    };
    assert_eq!(
        decided(&["nat64", "br"], words, &chosen),
        (End::Kernel(Some(Counter::MaptFmr6)), to("br"))
    );
    // An address of pool4 is not for SIIT, whose pool6 would take all of IPv4.
    let words = "udp 198.51.100.7#1 203.0.113.1#61001";
    assert_eq!(
        decided(&["siit", "nat64"], words, &anybody).1,
        to("default")
    );
    assert_eq!(decided(&["siit"], words, &anybody).1, to("dc"));
    assert_eq!(decided(&[], words, &anybody), (End::Kernel(None), None));
}

#[test]
fn an_instance_without_rules_is_explained_when_it_is_asked_for() {
    let words = asked("udp 2001:db8::8#7 64:ff9b::192.0.2.8#80")
        .packet
        .unwrap();
    let run = |world: &mut World, choice: &Choice| tell(world, choice, &words, START);
    let mut several = world("nat64");
    several.locals.extend(world("adf").locals);
    several.locals[0].framework = Framework::Iptables;
    several.locals.swap(0, 1);
    several.locals[0].framework = Framework::Iptables;
    let story = run(&mut several, &Choice::default());
    assert_eq!((story.end, story.instance), (End::Kernel(None), None));
    let hints = story.steps.iter();
    let hints = hints.filter(|step| step.text.starts_with("perhaps to nat64"));
    assert_eq!(hints.count(), 2);
    let chosen = Choice {
        name: Some("default".to_owned()),
        flavour: None,
    };
    assert_eq!(run(&mut several, &chosen).end, End::Translated);
    let mut alone = world("nat64");
    alone.locals[0].framework = Framework::Iptables;
    assert_eq!(run(&mut alone, &Choice::default()).end, End::Translated);
}

// --- what cannot be foreseen

/// What the engine does with the same packet, on a copy of its own.
fn engine(world: &mut World, bytes: &[u8], mark: u32) -> (Outcome, Vec<Vec<u8>>) {
    let meta = Meta {
        mark,
        ingress_mtu: u32::MAX,
        reassembled: false,
        from_host: false,
        may_wait: false,
        offload: Offload::NONE,
        host: &world.here,
    };
    let mut out = Output::new();
    let outcome = world.locals[0]
        .instance
        .handle(START, &meta, bytes, &mut out);
    (outcome, out.packets().map(<[u8]>::to_vec).collect())
}

/// Packets of some meaning: those of the recordings, with some bytes changed.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let mut known = Vec::new();
    for name in ALL {
        let text = fs::read_to_string(fixture(&format!("{name}.txt"))).unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix("$ "));
        known.extend(lines.map(packet));
    }
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (prop::sample::select(known), changes, any::<bool>()).prop_map(|(mut bytes, changes, cut)| {
        for (at, value) in changes {
            let at = at.index(bytes.len().min(96));
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(bytes.len() - bytes.len() / 4);
        }
        bytes
    })
}

proptest! {
    #[test]
    fn what_is_told_is_what_the_engine_does(
        burst in vec(prop_oneof![4 => packets(), 1 => vec(any::<u8>(), 0..100)], 1..8),
        mark in prop_oneof![Just(0), any::<u32>()],
    ) {
        for name in ALL {
            let (mut told, mut real) = (world(name), world(name));
            for bytes in &burst {
                let packet = Packet { bytes: bytes.clone(), mark };
                let story = tell(&mut told, &Choice::default(), &packet, START);
                prop_assert!(!story.packet.is_empty() && !story.steps.is_empty());
                if story.instance.is_none() || story.end == End::Fragment {
                    continue;
                }
                let (outcome, sent) = engine(&mut real, bytes, mark);
                let end = match outcome {
                    Outcome::Translated => End::Translated,
                    Outcome::NotOurs(reason) => End::Kernel(Some(reason)),
                    Outcome::Dropped(reason) => End::Dropped(reason),
                    Outcome::Held => End::Held,
                };
                prop_assert_eq!(story.end, end);
                prop_assert_eq!(&story.bytes, &sent);
                if let End::Dropped(reason) | End::Kernel(Some(reason)) = end {
                    let flavour = told.locals[0].flavour;
                    prop_assert!(advice(reason, flavour).is_some(), "{}", reason.name());
                }
            }
        }
    }

    #[test]
    fn no_bytes_of_a_capture_make_it_fall(
        noise in vec(any::<u8>(), 0..300),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        packet in packets(),
        link in prop_oneof![Just(1), Just(101), Just(113), Just(276)],
        kind in 0..4,
    ) {
        let frame = ethernet(0x0800, &packet);
        let frames = [(&frame[..], frame.len()), (&packet[..], packet.len())];
        let mut file = match kind {
            0 => noise,
            1 => pcap(link, false, &frames),
            2 => pcap(link, true, &frames),
            _ => pcapng(link as u16, &frames),
        };
        for (at, value) in changes {
            if !file.is_empty() {
                let at = at.index(file.len());
                file[at] = value;
            }
        }
        if let Ok(capture) = Capture::open(Cursor::new(file), None) {
            let asked = asked("--pcap x -v");
            let mut out = Vec::new();
            // Whatever is wrong with it is said in words.
            if let Err(error) = records(&asked, capture, &mut world("siit"), &mut out).unwrap() {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}

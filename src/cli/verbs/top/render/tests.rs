// SPDX-License-Identifier: GPL-2.0-or-later

use std::net::Ipv6Addr;
use std::time::Duration;

use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::base::counters::Counter;
use crate::cli::verbs::top::Target;
use crate::cli::verbs::top::numbers::Numbers;
use crate::cli::verbs::top::state::{Key, Look, Sample, Wanted};
use crate::metrics::{Metric, Page};
use crate::model::cluster::{ClusterHealth, PeerHealth, Reach, Stats};
use crate::model::control::{Health, InstanceHealth, Queued, SessionSummary, Takeover};
use crate::model::sync::{Format, SyncHealth, Traffic};
use crate::model::{Flavour, Framework};

const PLAIN: Theme = Theme { colours: false };

fn instance(flavour: Flavour, name: &str) -> InstanceHealth {
    InstanceHealth {
        flavour,
        name: name.to_owned(),
        framework: Framework::Netfilter,
        queues: (0, 2),
        tcp_queues: None,
        queued: Queued::default(),
        sessions: 12_391,
        sync: None,
    }
}

fn cluster() -> ClusterHealth {
    ClusterHealth {
        node: 1,
        keys: vec![1],
        reach: Reach::Group {
            group: "ff02::1".parse().unwrap(),
            port: 6465,
            device: "eth2".to_owned(),
        },
        ready: true,
        error: None,
        duplicate: false,
        peers: [2, 3]
            .map(|node| PeerHealth {
                node,
                address: "10.0.0.2:6465".parse().unwrap(),
            })
            .into(),
        lost: vec![4],
        instances: Vec::new(),
        share: 64,
        backlog: 7,
        unsent: 0,
        rescans: 0,
        waiting: 0,
        unasked: 0,
        late: 0,
        stats: Stats {
            lag: 12,
            gaps: 3,
            ..Stats::default()
        },
    }
}

fn health() -> Health {
    Health {
        version: "1.2.3".to_owned(),
        pid: 77,
        began: 1_000,
        ready: true,
        queue_expression: "native".to_owned(),
        instances: vec![
            instance(Flavour::Nat64, "default"),
            instance(Flavour::Siit, "s"),
        ],
        ephemeral: false,
        takeover: Takeover::default(),
        sandbox: crate::model::control::Sandbox::default(),
        cluster: None,
        journal_backlog: 0,
        journal_lost: 0,
    }
}

/// What the daemon says after so many seconds.
fn told(seconds: u64) -> Sample {
    let health = health();
    let target = Target::of(&health.instances[0]);
    let labels = ["default", "nat64"];
    let [name, flavour] = labels;
    let mut page = Page::new();
    let kinds = ["6to4", "4to6"].map(|direction| {
        ["tcp", "udp", "icmp", "other"].map(|protocol| {
            ["translated", "dropped", "left"].map(|outcome| [direction, protocol, outcome])
        })
    });
    for [direction, protocol, outcome] in kinds.as_flattened().as_flattened() {
        let rate = match (*direction, *protocol, *outcome) {
            ("6to4", "tcp", "translated") => 12_345,
            ("4to6", "tcp", "translated") => 20_000,
            ("6to4", "tcp", "dropped") => 3,
            (_, "icmp", "left") => 1,
            _ => 0,
        };
        let labels = [name, flavour, *direction, *protocol, *outcome];
        page.put(Metric::Packets, &labels, rate * seconds);
        page.put(Metric::Bytes, &labels, rate * seconds * 1_000);
    }
    for (protocol, sessions) in [("tcp", 12_345), ("udp", 44), ("icmp", 2)] {
        page.put(Metric::Sessions, &[name, flavour, protocol], sessions);
        page.put(Metric::BibEntries, &[name, flavour, protocol], sessions);
        let labels = [name, flavour, protocol, "192.0.2.1", "61001-65535"];
        page.put(Metric::Pool4Ports, &labels, 4_535);
        page.put(Metric::Pool4PortsUsed, &labels, sessions.min(4_535));
    }
    page.put(Metric::SessionsLimit, &labels, 20_000);
    page.put(
        Metric::Untranslated,
        &[name, flavour, "bib6_not_found"],
        3 * seconds,
    );
    page.put(Metric::Untranslated, &[name, flavour, "adf"], 1_000_000);
    page.put(Metric::QueuePackets, &[name, flavour, "0"], 5);
    page.put(Metric::QueuePackets, &[name, flavour, "1"], 7);
    page.put(Metric::WorkerCpu, &["0"], 0.45 * seconds as f64);
    page.put(Metric::WorkerCpu, &["1"], 0);
    page.put(Metric::JournalPending, &[], 9);
    page.put(Metric::JournalLag, &[], 0.25);
    let mut numbers = Numbers::default();
    numbers.read(&page.text(), &target);
    Sample {
        at: Duration::from_secs(seconds),
        wall: 1_000 + seconds * 1_000,
        health,
        target: Some(target),
        numbers,
        denied: None,
    }
}

fn new() -> State {
    State::new("gw1".to_owned(), Wanted::default(), Duration::from_secs(1))
}

/// A gateway that has been watched for two seconds.
fn watched() -> State {
    let mut state = new();
    state.hear(Ok(told(100)));
    state.hear(Ok(told(102)));
    state.now = Duration::from_secs(105);
    state.saw(Look {
        at: state.now - Duration::from_secs(3),
        took: Duration::from_millis(10),
        question: state.question().unwrap(),
        found: Ok(SessionSummary {
            tcp: [12_000, 1, 2, 3, 4, 5, 330],
            udp: 44,
            icmp: 2,
            talkers: (0..9)
                .map(|i| (format!("2001:db8::{i:x}").parse().unwrap(), 900 - i))
                .collect(),
            slack: 0,
        }),
    });
    state
}

fn screen(state: &State, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw(state, PLAIN, frame.area(), frame.buffer_mut()))
        .unwrap();
    let buffer = terminal.backend().buffer();
    let rows = buffer.content.chunks(usize::from(width).max(1));
    let line = |row: &[ratatui::buffer::Cell]| row.iter().map(|cell| cell.symbol()).collect();
    rows.map(|row| {
        let line: String = line(row);
        line.trim_end().to_owned()
    })
    .collect()
}

fn shows(state: &State, text: &str) -> bool {
    screen(state, 80, 24).iter().any(|line| line.contains(text))
}

#[test]
fn the_least_screen_has_all_parts() {
    let mut state = watched();
    for seconds in [103, 105] {
        let mut sample = told(seconds);
        sample.wall = 103_000;
        let mut cluster = Box::new(cluster());
        cluster.stats.gaps = (seconds - 102) * 3;
        sample.health.cluster = Some(cluster);
        state.hear(Ok(sample));
    }
    let expected = include_str!("least.txt");
    let found = screen(&state, 80, 24);
    assert_eq!(
        found.join("\n"),
        expected.trim_end_matches('\n'),
        "{found:#?}"
    );
}

#[test]
fn larger_screens_have_more() {
    let lines = screen(&watched(), 160, 50);
    assert!(lines.iter().any(|line| line.starts_with("2001:db8::8 ")));
    assert!(!lines.iter().any(|line| line.contains("more")));
    assert!(lines[49].starts_with("q quit"));
    assert_eq!(
        screen(&watched(), 79, 24)[0],
        "too small: 79x24, needs 80x24"
    );
}

#[test]
fn what_is_wrong_is_said_in_words() {
    let mut state = watched();
    let health = &mut state.latest.as_mut().unwrap().health;
    health.ready = false;
    health.journal_lost = 5;
    health.cluster = Some(Box::new(ClusterHealth {
        ready: false,
        duplicate: true,
        ..cluster()
    }));
    health.instances[0].sync = Some(SyncHealth {
        group: "ff08::1".parse().unwrap(),
        port: 6400,
        format: Format::C,
        enabled: false,
        advertising: false,
        traffic: Traffic::default(),
    });
    for text in [
        "  NOT READY  5 CHANGES NOT STORED",
        "SYNC     node 1 NOT READY, peers 2 3, LOST 4, NUMBER TAKEN TWICE",
        "JOOLD    DISABLED",
    ] {
        assert!(shows(&state, text), "{text}");
    }
    state.press(Key::Pause);
    assert!(shows(&state, "PAUSED"));
}

#[test]
fn an_answer_that_fails_makes_all_old() {
    let mut state = watched();
    state.hear(Err("no tylod runs here".to_owned()));
    assert!(shows(
        &state,
        "all of this is 3 s old, trying again: no tylod runs here"
    ));
    assert!(shows(&state, "tcp              -"));
    // The same daemon went on counting.
    state.hear(Ok(told(110)));
    assert!(shows(&state, "tcp          12345"));
    let mut nothing = new();
    assert!(shows(&nothing, "asking tylod ..."));
    nothing.hear(Err("a\x1b[2Jb".to_owned()));
    assert!(shows(&nothing, "trying again: a?[2Jb"));
}

#[test]
fn counters_that_begin_anew_have_no_rates() {
    let again = |change: fn(&mut Sample)| {
        let mut state = new();
        state.hear(Ok(told(100)));
        let mut next = told(101);
        change(&mut next);
        state.hear(Ok(next));
        state.rate(Metric::WorkerCpu, &["0"])
    };
    assert!(again(|_| {}).is_some_and(|rate| (rate - 0.45).abs() < 1e-9));
    // Another process, another program in it, another instance, an instance added anew.
    assert_eq!(again(|sample| sample.health.pid += 1), None);
    assert_eq!(again(|sample| sample.health.began += 1), None);
    let other = |sample: &mut Sample| {
        sample.target = Some(Target::of(&sample.health.instances[1]));
    };
    assert_eq!(again(other), None);
    let anew = |sample: &mut Sample| {
        let early = told(1);
        sample.numbers = early.numbers;
    };
    assert_eq!(again(anew), None);
}

#[test]
fn keys_choose_what_is_shown() {
    let mut state = watched();
    assert!(state.press(Key::Next));
    let place = |state: &State| {
        let health = &state.latest.as_ref().unwrap().health;
        let picked = state.wanted().pick(health).unwrap();
        (picked.flavour, picked.name.clone())
    };
    assert_eq!(place(&state), (Flavour::Siit, "s".to_owned()));
    let health = health();
    state.latest.as_mut().unwrap().target = Some(Target::of(&health.instances[1]));
    assert!(shows(&state, "siit 's'  (2 of 2)"));
    assert!(shows(&state, "without sessions"));
    state.press(Key::Next);
    assert_eq!(place(&state), (Flavour::Nat64, "default".to_owned()));

    let mut state = watched();
    let asked = state.question().unwrap();
    for key in [Key::Sort, Key::Group] {
        for _ in 0..4 {
            state.press(key);
            let same = state.question().unwrap() == asked;
            assert_eq!(same, state.answer().is_some());
        }
        // All the way round.
        assert_eq!(state.question().unwrap(), asked);
    }
    // A look that took long is not taken again soon.
    state.look.as_mut().unwrap().took = Duration::from_secs(1);
    assert_eq!(state.look_due(), Duration::from_secs(122));
    state.press(Key::Sort);
    assert_eq!(state.look_due(), state.now);
    state.press(Key::Slower);
    assert_eq!(state.interval, Duration::from_secs(2));
    for _ in 0..20 {
        state.press(Key::Faster);
    }
    assert_eq!(state.interval, Duration::from_millis(500));
    assert!(!state.press(Key::Pause) && state.press(Key::Pause));
    state.press(Key::Help);
    assert!(shows(&state, "KEYS") && !shows(&state, "RATES"));
}

#[test]
fn statistics_alone_are_totals() {
    let mut state = new();
    for seconds in [1, 2] {
        let mut sample = told(seconds);
        let target = sample.target.clone().unwrap();
        sample.denied = Some("this needs root".to_owned());
        sample.numbers = Numbers::default();
        let rows = [
            (Counter::Received6, 50),
            (Counter::Received4, 60),
            (Counter::Adf, 7),
        ];
        let rows = rows.map(|(counter, rate)| (counter.name().to_owned(), rate * seconds));
        sample.numbers.take(&rows, &target);
        state.hear(Ok(sample));
    }
    for text in [
        "nat64 'default'  (1 of 2)  totals only: this needs root",
        "received        50         -           60         -",
        "adf                     7      14",
        "SESSIONS 12391  tcp -  udp -  icmp -  mappings -",
    ] {
        assert!(shows(&state, text), "{text}");
    }
}

#[test]
fn numbers_stay_short() {
    for (value, text) in [
        (0.0, "0"),
        (0.25, "0.2"),
        (9.94, "9.9"),
        (9.96, "10"),
        (99_999.0, "99999"),
        (99_999.6, "100k"),
        (123_456.0, "123k"),
        (1_234_567.0, "1.2M"),
        (999_499.0, "999k"),
        (999_600.0, "1.0M"),
        (1e30, "1000000000000000P"),
    ] {
        assert_eq!(number(value), text);
    }
    assert_eq!(bar(0.5, 12), "[#####.....]");
    assert_eq!(bar(f64::INFINITY, 2), "[]");
    assert_eq!(bar(1.5, 4), "[##]");
    assert_eq!(parts::age(93_784), "1d 2:03:04");
}

prop_compose! {
    fn any_instance()(
        name in ".{0,20}",
        nat64 in any::<bool>(),
        sessions in any::<u64>(),
        lost in any::<u64>(),
        joold in any::<bool>(),
    ) -> InstanceHealth {
        let flavour = if nat64 { Flavour::Nat64 } else { Flavour::Mapt };
        let queued = Queued { queue_full: lost, socket_full: lost, overruns: sessions, ..Queued::default() };
        let sync = joold.then(|| SyncHealth {
            group: "ff08::1".parse().unwrap(),
            port: 6400,
            format: Format::C,
            enabled: true,
            advertising: true,
            traffic: Traffic { sessions_in: lost, untold: sessions, ..Traffic::default() },
        });
        InstanceHealth { sessions, queued, sync, ..instance(flavour, &name) }
    }
}

prop_compose! {
    fn any_sample()(
        instances in prop::collection::vec(any_instance(), 0..4),
        values in prop::collection::vec(
            (0..Metric::ALL.len(), prop::collection::vec(".{0,12}", 0..6), any::<f64>()),
            0..60,
        ),
        (at, wall, began, pid) in (any::<u16>(), any::<u64>(), any::<u64>(), 0u32..2),
        (error, nodes, records) in (
            prop::option::of(".{0,90}"),
            prop::collection::vec(any::<u16>(), 0..70),
            any::<u64>(),
        ),
        denied in prop::option::of(".{0,90}"),
        version in ".{0,40}",
    ) -> Sample {
        let target = instances.first().map(Target::of);
        let mut numbers = Numbers::default();
        if let Some(target) = &target {
            let mut page = Page::new();
            let [name, flavour] = [target.name.as_str(), target.flavour.name()];
            for (metric, labels, value) in &values {
                let metric = Metric::ALL[*metric];
                let own = labels.iter().map(String::as_str);
                let whose = [name, flavour].into_iter().filter(|_| metric.labels().len() > 1);
                let all = whose.chain(own).chain(std::iter::repeat("x"));
                let all: Vec<_> = all.take(metric.labels().len()).collect();
                page.put(metric, &all, value);
            }
            numbers.read(&page.text(), target);
        }
        let cluster = error.is_some().then(|| Box::new(ClusterHealth {
            error,
            peers: Vec::new(),
            lost: nodes,
            backlog: records,
            stats: Stats { sent_records: records, ..Stats::default() },
            ..cluster()
        }));
        let health = Health { instances, cluster, began, pid, version, ..health() };
        let at = Duration::from_millis(at.into());
        Sample { at, wall, health, target, numbers, denied }
    }
}

fn any_key() -> impl Strategy<Value = Key> {
    use Key::{Faster, Group, Help, Next, Pause, Quit, Slower, Sort};
    prop::sample::select(vec![Quit, Next, Pause, Sort, Group, Slower, Faster, Help])
}

proptest! {
    #[test]
    fn anything_can_be_shown_at_any_size(
        answers in prop::collection::vec(prop::result::maybe_ok(any_sample(), ".{0,90}"), 0..4),
        keys in prop::collection::vec(any_key(), 0..4),
        look in prop::option::of((
            prop::result::maybe_ok(prop::collection::vec(any::<(u128, u64)>(), 0..200), ".{0,90}"),
            any::<u64>(),
        )),
        (width, height, now) in (0u16..200, 0u16..120, any::<u16>()),
        colours in any::<bool>(),
    ) {
        let mut state = new();
        for answer in answers {
            state.hear(answer);
            for key in &keys {
                state.press(*key);
            }
        }
        state.now = Duration::from_millis(now.into());
        if let (Some((found, count)), Some(question)) = (look, state.question()) {
            let talkers = |all: Vec<(u128, u64)>| {
                all.into_iter().map(|(client, n)| (Ipv6Addr::from(client), n)).collect()
            };
            let found = found.map(|all| SessionSummary {
                tcp: [count; 7],
                talkers: talkers(all),
                slack: count,
                ..SessionSummary::default()
            });
            let took = Duration::from_millis(count);
            state.saw(Look { at: state.now, took, question, found });
        }
        state.look_due();
        for height in [height, wanted_height(&state)] {
            let area = Rect::new(0, 0, width, height);
            let mut buffer = Buffer::empty(area);
            draw(&state, Theme { colours }, area, &mut buffer);
            let signs = buffer.content.iter().flat_map(|cell| cell.symbol().chars());
            prop_assert!(!signs.into_iter().any(char::is_control));
        }
    }
}

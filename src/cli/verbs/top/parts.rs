// SPDX-License-Identifier: GPL-2.0-or-later
//! What is known, in words and figures: a line each, as wide as the least width of the screen.

use std::fmt::Write;

use super::numbers::{ANY, RECEIVED};
use super::state::State;
use crate::base::Protocol;
use crate::metrics::Metric;
use crate::model::TcpState;
use crate::model::cluster::ClusterHealth;
use crate::model::control::InstanceHealth;
use crate::model::sync::SyncHealth;

/// A number in at most six signs.
pub(super) fn number(value: f64) -> String {
    const UNITS: [&str; 6] = ["", "k", "M", "G", "T", "P"];
    if value < 9.95 && value.fract() != 0.0 {
        return format!("{value:.1}");
    }
    if value < 99_999.5 {
        return format!("{value:.0}");
    }
    let (mut value, mut unit) = (value, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(value < 99.95);
    format!(
        "{value:.digits$}{}",
        UNITS.get(unit).copied().unwrap_or_default()
    )
}

/// A number that may not be known.
fn maybe(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), number)
}

/// A part of 1 as a bar of so many signs.
pub(super) fn bar(part: f64, width: usize) -> String {
    let inside = width.saturating_sub(2);
    let full = (part.clamp(0.0, 1.0) * inside as f64).round() as usize;
    format!("[{}{}]", "#".repeat(full), ".".repeat(inside - full))
}

/// Seconds as days, hours and minutes.
pub(super) fn age(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let clock = format!("{hours}:{minutes:02}:{:02}", seconds % 60);
    match days {
        0 => clock,
        _ => format!("{days}d {clock}"),
    }
}

pub(super) fn instance(instance: &InstanceHealth) -> String {
    format!("{} '{}'", instance.flavour.name(), instance.name)
}

pub(super) fn journal(state: &State) -> String {
    let pending = state.value(Metric::JournalPending, &[]);
    let lag = state.value(Metric::JournalLag, &[]).unwrap_or_default();
    pending.map_or_else(String::new, |pending| {
        format!("  journal: {} changes wait, {lag:.1} s", number(pending))
    })
}

/// Rates by protocol and direction.
pub(super) fn traffic(state: &State) -> Vec<String> {
    let row = |name: &str, columns: [Option<f64>; 6]| {
        let [packets6, bits6, packets4, bits4, dropped, left] = columns.map(maybe);
        format!(
            "{name:<8}{packets6:>10}{bits6:>10}   {packets4:>10}{bits4:>10}   {dropped:>10}{left:>10}"
        )
    };
    let sum = |values: [Option<f64>; 2]| values.into_iter().sum::<Option<f64>>();
    let of = |protocol: &str| {
        let rate = |metric, direction, outcome| state.rate(metric, &[direction, protocol, outcome]);
        let both = |outcome| sum(DIRECTIONS.map(|d| rate(Metric::Packets, d, outcome)));
        let [six, four] = DIRECTIONS.map(|direction| {
            let bytes = rate(Metric::Bytes, direction, "translated");
            let packets = rate(Metric::Packets, direction, "translated");
            (packets, bytes.map(|bytes| bytes * 8.0))
        });
        [six.0, six.1, four.0, four.1, both("dropped"), both("left")]
    };
    let mut rows = Vec::new();
    let mut all = [Some(0.0); 6];
    for protocol in PROTOCOLS {
        let columns = of(protocol);
        rows.push(row(protocol, columns));
        for (all, one) in all.iter_mut().zip(columns) {
            *all = sum([*all, one]);
        }
    }
    let total = |direction| state.value(Metric::Packets, &[direction, ANY, RECEIVED]);
    if DIRECTIONS
        .into_iter()
        .any(|direction| total(direction).is_some())
    {
        let [six, four] = DIRECTIONS.map(|d| state.rate(Metric::Packets, &[d, ANY, RECEIVED]));
        rows.push(row("received", [six, None, four, None, None, None]));
    } else {
        rows.push(row("all", all));
    }
    rows
}

/// How many there are; `None` without state.
pub(super) fn sessions(state: &State) -> Option<(String, Vec<String>)> {
    state.question()?;
    let (instance, ..) = state.instance()?;
    let mut title = format!("SESSIONS {}", instance.sessions);
    if let Some(limit) = state.value(Metric::SessionsLimit, &[]).filter(|n| *n > 0.0) {
        let _ = write!(title, " of {}", number(limit));
    }
    for protocol in ["tcp", "udp", "icmp"] {
        let sessions = state.value(Metric::Sessions, &[protocol]);
        let _ = write!(title, "  {protocol} {}", maybe(sessions));
    }
    let mappings = state
        .latest
        .as_ref()
        .map(|s| s.numbers.sum(Metric::BibEntries));
    let mappings = mappings.filter(|_| state.value(Metric::BibEntries, &["tcp"]).is_some());
    let _ = write!(title, "  mappings {}", maybe(mappings));
    let found = state.answer().and_then(|look| look.found.as_ref().ok());
    let (mut names, mut counts) = (String::new(), String::new());
    for (place, name) in STATES.iter().enumerate() {
        let _ = write!(names, "{name:>11}");
        let count = found.and_then(|found| found.tcp.get(place));
        let _ = write!(
            counts,
            "{:>11}",
            count.map_or_else(|| "-".to_owned(), u64::to_string)
        );
    }
    Some((title, vec![names, counts]))
}

/// Clients with the most sessions.
pub(super) fn talkers(state: &State) -> (String, Vec<String>) {
    let Some(question) = state.question() else {
        let row = "this instance translates without sessions".to_owned();
        return ("TALKERS".to_owned(), vec![row]);
    };
    let kind = question.protocol.map_or("all", protocol);
    let mut title = format!("TALKERS  {kind} sessions, /{}", question.prefix);
    let Some(look) = state.answer() else {
        return (title, vec!["looking ...".to_owned()]);
    };
    let age = state.now.saturating_sub(look.at).as_secs();
    let _ = write!(title, ", {age} s ago");
    let rows = match &look.found {
        Err(trouble) => vec![trouble.clone()],
        Ok(found) => {
            if found.slack > 0 {
                let _ = write!(title, ", +{}", found.slack);
            }
            let length = match question.prefix {
                128 => String::new(),
                length => format!("/{length}"),
            };
            let talkers = found.talkers.iter();
            let row = |(client, count): &(_, u64)| {
                format!("{:<38} {count:>7}", format!("{client}{length}"))
            };
            talkers.map(row).collect()
        }
    };
    (title, rows)
}

/// Reasons not to translate: what happens now comes first.
pub(super) fn drops(state: &State) -> Vec<String> {
    let Some(sample) = &state.latest else {
        return Vec::new();
    };
    let reasons = sample.numbers.all(Metric::Untranslated);
    let mut reasons: Vec<_> = reasons
        .filter(|(_, total)| *total > 0.0)
        .filter_map(|(labels, total)| {
            let [reason] = labels else { return None };
            Some((reason, state.rate(Metric::Untranslated, &[reason]), total))
        })
        .collect();
    let rank = |rate: Option<f64>| rate.unwrap_or_default();
    reasons.sort_by(|(_, a, all), (_, b, of_b)| {
        rank(*b).total_cmp(&rank(*a)).then(of_b.total_cmp(all))
    });
    let row = |(reason, rate, total): (&String, Option<f64>, f64)| {
        format!("{reason:<18.18} {:>6} {:>7}", maybe(rate), number(total))
    };
    reasons.into_iter().map(row).collect()
}

/// How much of a range of pool4 is in use.
pub(super) struct Range<'a> {
    pub(super) protocol: &'a str,
    pub(super) addresses: &'a str,
    pub(super) ports: &'a str,
    pub(super) total: f64,
    pub(super) used: f64,
}

impl Range<'_> {
    pub(super) fn part(&self) -> f64 {
        if self.total > 0.0 {
            self.used / self.total
        } else {
            0.0
        }
    }
}

/// Ranges of pool4: those that are nearly full come first.
pub(super) fn pool4(state: &State) -> Vec<Range<'_>> {
    let Some(sample) = &state.latest else {
        return Vec::new();
    };
    let ranges = sample.numbers.all(Metric::Pool4Ports);
    let mut ranges: Vec<_> = ranges
        .filter_map(|(labels, total)| {
            let [protocol, addresses, ports] = labels else {
                return None;
            };
            let labels = [protocol.as_str(), addresses, ports];
            Some(Range {
                protocol,
                addresses,
                ports,
                total,
                used: state
                    .value(Metric::Pool4PortsUsed, &labels)
                    .unwrap_or_default(),
            })
        })
        .collect();
    // By percents, so that they do not change places all the time.
    ranges.sort_by_key(|range| -(range.part() * 100.0) as i64);
    ranges
}

/// How busy the workers are, and what their queues do.
pub(super) fn queues(state: &State) -> Option<(String, Vec<String>)> {
    let (instance, ..) = state.instance()?;
    let sample = state.latest.as_ref()?;
    let mut workers: Vec<_> = sample
        .numbers
        .all(Metric::WorkerCpu)
        .filter_map(|(labels, _)| {
            let [worker] = labels else { return None };
            let busy = state.rate(Metric::WorkerCpu, &[worker]);
            let busy = busy.map_or_else(|| "-".to_owned(), |part| format!("{:.0}%", part * 100.0));
            Some((worker.parse().unwrap_or(u32::MAX), busy))
        })
        .collect();
    workers.sort_by_key(|(worker, _)| *worker);
    let mut rows: Vec<String> = workers
        .chunks(8)
        .map(|some| {
            let some = some
                .iter()
                .map(|(worker, busy)| format!("{worker}: {busy:<4} "));
            some.collect()
        })
        .collect();
    if rows.is_empty() {
        rows.push("-".to_owned());
    }
    let title = format!("WORKERS  {}", rows.remove(0));
    let queued = &instance.queued;
    let waiting = sample.numbers.all(Metric::QueuePackets);
    let waiting = waiting.map(|(_, packets)| packets).reduce(|a, b| a + b);
    let lost = of_instance(state, |instance| Some(instance.queued.lost()));
    rows.push(format!(
        "QUEUES   {} packets wait, lost {} ({}/s), overruns {}, malformed {}",
        maybe(waiting),
        queued.lost(),
        maybe(lost),
        queued.overruns,
        queued.malformed
    ));
    Some((title, rows))
}

/// The rate of something that is counted for the instance that is shown.
fn of_instance(state: &State, count: impl Fn(&InstanceHealth) -> Option<u64>) -> Option<f64> {
    state.rate_of(|sample| {
        let target = sample.target.as_ref();
        let mut all = sample.health.instances.iter();
        let found = all.find(|instance| target.is_some_and(|target| target.is(instance)));
        found.and_then(&count)
    })
}

/// The exchange of sessions with other gateways, if there is any.
pub(super) fn sync(state: &State) -> Option<(String, Vec<String>)> {
    let sample = state.latest.as_ref()?;
    let mut rows = Vec::new();
    if let Some(cluster) = &sample.health.cluster {
        rows.extend(of_cluster(state, cluster));
    }
    if let Some(sync) = state
        .instance()
        .and_then(|(instance, ..)| instance.sync.as_ref())
    {
        rows.push(of_joold(state, sync));
    }
    (!rows.is_empty()).then(|| (rows.remove(0), rows))
}

fn of_cluster(state: &State, cluster: &ClusterHealth) -> [String; 2] {
    let rate = |count: fn(&ClusterHealth) -> u64| {
        maybe(state.rate_of(|sample| sample.health.cluster.as_deref().map(count)))
    };
    let mut first = format!(
        "SYNC     node {} {}, peers",
        cluster.node,
        if cluster.ready { "ready" } else { "NOT READY" }
    );
    for peer in &cluster.peers {
        let _ = write!(first, " {}", peer.node);
    }
    if cluster.peers.is_empty() {
        first.push_str(" none");
    }
    if !cluster.lost.is_empty() {
        first.push_str(", LOST");
        for node in &cluster.lost {
            let _ = write!(first, " {node}");
        }
    }
    if cluster.duplicate {
        first.push_str(", NUMBER TAKEN TWICE");
    }
    if let Some(error) = &cluster.error {
        let _ = write!(first, ", {error}");
    }
    let stats = &cluster.stats;
    let second = format!(
        "  lag {} ms, gaps {} ({}/s), to tell {}, sent {}/s, got {}/s, conflicts {}",
        stats.lag,
        stats.gaps,
        rate(|cluster| cluster.stats.gaps),
        number(cluster.backlog as f64),
        rate(|cluster| cluster.stats.sent_records),
        rate(|cluster| cluster.stats.received_records),
        stats.conflicts
    );
    [first, second]
}

fn of_joold(state: &State, sync: &SyncHealth) -> String {
    let rate = |count: fn(&SyncHealth) -> u64| {
        maybe(of_instance(state, |instance| {
            instance.sync.as_ref().map(count)
        }))
    };
    format!(
        "JOOLD    {}, sent {}/s, got {}/s, lost {} in {} out, untold {}",
        if sync.enabled { "enabled" } else { "DISABLED" },
        rate(|sync| sync.traffic.sessions_out),
        rate(|sync| sync.traffic.sessions_in),
        sync.traffic.lost_in,
        sync.traffic.lost_out,
        sync.traffic.untold
    )
}

const fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Icmp => "icmp",
    }
}

const DIRECTIONS: [&str; 2] = ["6to4", "4to6"];

const PROTOCOLS: [&str; 4] = ["tcp", "udp", "icmp", "other"];

/// As in [`TcpState::ALL`], but no longer than eleven letters.
const STATES: [&str; TcpState::ALL.len()] = [
    "ESTABLISHED",
    "V4_INIT",
    "V6_INIT",
    "V4_FIN",
    "V6_FIN",
    "BOTH_FIN",
    "TRANS",
];

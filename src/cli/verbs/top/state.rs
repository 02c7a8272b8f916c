// SPDX-License-Identifier: GPL-2.0-or-later
//! What is known, and what the keys do to it. No clock and no terminal here.

use std::time::Duration;

use super::Target;
use super::numbers::Numbers;
use crate::base::Protocol;
use crate::metrics::Metric;
use crate::model::Flavour;
use crate::model::control::{Health, InstanceHealth, SessionSummary};

/// What the daemon said at one moment.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// Since some moment in the past that is always the same.
    pub(super) at: Duration,
    /// Milliseconds since 1970.
    pub(super) wall: u64,
    pub(super) health: Health,
    /// Which instance the numbers are of; `None` if there is none.
    pub(super) target: Option<Target>,
    pub(super) numbers: Numbers,
    /// Why some numbers are missing.
    pub(super) denied: Option<String>,
}

/// Which sessions are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) target: Target,
    /// How many bits of a client's address count.
    pub(super) prefix: u8,
    /// `None` for all.
    pub(super) protocol: Option<Protocol>,
}

/// What came of looking at the sessions.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) at: Duration,
    pub(super) took: Duration,
    pub(super) question: Question,
    pub(super) found: Result<SessionSummary, String>,
}

/// What a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Next,
    Pause,
    Sort,
    Group,
    Slower,
    Faster,
    Help,
}

#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) host: String,
    /// The instance that was named or chosen.
    wanted: Wanted,
    pub(super) interval: Duration,
    pub(super) paused: bool,
    pub(super) help: bool,
    prefix: u8,
    protocol: Option<Protocol>,
    /// The time of what happened last.
    pub(super) now: Duration,
    pub(super) latest: Option<Sample>,
    before: Option<Sample>,
    /// Why the daemon was not understood last.
    pub(super) trouble: Option<String>,
    pub(super) look: Option<Look>,
}

/// What is known of an instance that is to be shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) flavour: Option<Flavour>,
    pub(super) name: Option<String>,
}

impl Wanted {
    /// The first instance that it fits.
    pub(super) fn pick<'a>(&self, health: &'a Health) -> Option<&'a InstanceHealth> {
        health.instances.iter().find(|instance| {
            self.flavour.is_none_or(|f| f == instance.flavour)
                && self.name.as_ref().is_none_or(|n| *n == instance.name)
        })
    }
}

impl State {
    pub(super) fn new(host: String, wanted: Wanted, interval: Duration) -> Self {
        Self {
            host,
            wanted,
            interval,
            paused: false,
            help: false,
            prefix: PREFIXES[0],
            protocol: None,
            now: Duration::ZERO,
            latest: None,
            before: None,
            trouble: None,
            look: None,
        }
    }

    pub(super) const fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// What came of asking.
    pub(super) fn hear(&mut self, answer: Result<Sample, String>) {
        match answer {
            Ok(sample) => {
                self.trouble = None;
                let last = self.latest.replace(sample);
                self.before = last.filter(|last| self.continues(last));
            }
            Err(trouble) => {
                self.trouble = Some(trouble);
                // What was counted meanwhile, and by whom, is not known.
                self.before = None;
            }
        }
    }

    /// Whether counters went on since then: neither program nor instance began anew.
    fn continues(&self, last: &Sample) -> bool {
        let Some(latest) = &self.latest else {
            return false;
        };
        let life = |sample: &Sample| (sample.health.pid, sample.health.began);
        life(latest) == life(last) && latest.target == last.target && latest.at > last.at
    }

    pub(super) fn saw(&mut self, look: Look) {
        self.look = Some(look);
    }

    /// What to ask of the sessions; `None` where there are none.
    pub(super) fn question(&self) -> Option<Question> {
        let target = self.latest.as_ref()?.target.clone()?;
        (target.flavour == Flavour::Nat64).then_some(Question {
            target,
            prefix: self.prefix,
            protocol: self.protocol,
        })
    }

    /// The answer to [`State::question`], if it is there.
    pub(super) fn answer(&self) -> Option<&Look> {
        let question = self.question()?;
        self.look.as_ref().filter(|look| look.question == question)
    }

    /// When to look at the sessions again: that costs more than all else, a twentieth of a
    /// processor at most.
    pub(super) fn look_due(&self) -> Duration {
        match self.answer() {
            Some(look) => {
                let rest = self.interval.max(look.took.saturating_mul(REST));
                look.at.saturating_add(rest)
            }
            None => self.now,
        }
    }

    /// The numbers now.
    pub(super) fn value(&self, metric: Metric, labels: &[&str]) -> Option<f64> {
        self.latest.as_ref()?.numbers.get(metric, labels)
    }

    /// By how much a counter went up in a second.
    pub(super) fn rate(&self, metric: Metric, labels: &[&str]) -> Option<f64> {
        let (before, now) = (self.before.as_ref()?, self.latest.as_ref()?);
        let was = before.numbers.get(metric, labels);
        self.per_second(was.unwrap_or(0.0), now.numbers.get(metric, labels)?)
    }

    /// The same for anything that is counted.
    pub(super) fn rate_of(&self, count: impl Fn(&Sample) -> Option<u64>) -> Option<f64> {
        let (before, now) = (self.before.as_ref()?, self.latest.as_ref()?);
        self.per_second(count(before)? as f64, count(now)? as f64)
    }

    fn per_second(&self, was: f64, is: f64) -> Option<f64> {
        let (before, now) = (self.before.as_ref()?, self.latest.as_ref()?);
        let time = now.at.saturating_sub(before.at).as_secs_f64();
        // An instance that was removed and added anew counts from 0.
        let rate = (is - was) / time;
        (rate >= 0.0 && rate.is_finite()).then_some(rate)
    }

    /// The instance that is shown, its place among all and how many these are.
    pub(super) fn instance(&self) -> Option<(&InstanceHealth, usize, usize)> {
        let sample = self.latest.as_ref()?;
        let target = sample.target.as_ref()?;
        let all = &sample.health.instances;
        let is = |instance: &InstanceHealth| target.is(instance);
        let place = all.iter().position(is)?;
        Some((all.get(place)?, place, all.len()))
    }

    /// Obeys a key. True if the daemon should be asked at once.
    pub(super) fn press(&mut self, key: Key) -> bool {
        match key {
            Key::Quit => {}
            Key::Help => self.help = !self.help,
            Key::Pause => {
                self.paused = !self.paused;
                return !self.paused;
            }
            Key::Sort => {
                self.protocol = match self.protocol {
                    None => Some(Protocol::Tcp),
                    Some(Protocol::Tcp) => Some(Protocol::Udp),
                    Some(Protocol::Udp) => Some(Protocol::Icmp),
                    Some(Protocol::Icmp) => None,
                };
            }
            Key::Group => {
                let longer = PREFIXES.iter().position(|prefix| *prefix == self.prefix);
                let next = longer.map_or(0, |place| (place + 1) % PREFIXES.len());
                self.prefix = PREFIXES.get(next).copied().unwrap_or(128);
            }
            Key::Slower => {
                let longer = INTERVALS.into_iter().find(|i| *i > self.interval);
                self.interval = longer.unwrap_or(self.interval);
            }
            Key::Faster => {
                let shorter = INTERVALS.into_iter().rfind(|i| *i < self.interval);
                self.interval = shorter.unwrap_or(self.interval);
            }
            Key::Next => return self.next(),
        }
        false
    }

    fn next(&mut self) -> bool {
        let Some(sample) = &self.latest else {
            return false;
        };
        let place = self.instance().map(|(_, place, _)| place);
        let all = &sample.health.instances;
        let next = place.map_or(0, |place| place + 1);
        let Some(next) = all.get(next).or_else(|| all.first()) else {
            return false;
        };
        self.wanted = Wanted {
            flavour: Some(next.flavour),
            name: Some(next.name.clone()),
        };
        self.paused = false;
        true
    }
}

/// How long the sessions are left alone, as a multiple of what looking at them took.
const REST: u32 = 20;

/// How clients are told apart: each, or by what sites usually have.
const PREFIXES: [u8; 4] = [128, 64, 56, 48];

/// What keys choose from.
const INTERVALS: [Duration; 8] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(300),
];

// SPDX-License-Identifier: GPL-2.0-or-later
//! The daemon's metrics as numbers that can be compared with earlier ones.

use std::collections::BTreeMap;

use super::Target;
use crate::base::counters::Counter;
use crate::metrics::{Metric, reason};

/// The metrics of one instance, and those that belong to none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Numbers(BTreeMap<(usize, Vec<String>), f64>);

impl Numbers {
    /// Adds whole lines of the text format of Prometheus. What is of other instances or makes no
    /// sense is left out, and so are histograms.
    pub(super) fn read(&mut self, text: &str, target: &Target) {
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some(series) = Series::read(line) else {
                continue;
            };
            let Some(metric) = Metric::ALL.iter().find(|m| m.name() == series.name) else {
                continue;
            };
            if !series.is(INSTANCE, &target.name) || !series.is(FLAVOUR, target.flavour.name()) {
                continue;
            }
            let labels = series.labels.into_iter();
            let own = labels.filter(|(name, _)| ![INSTANCE, FLAVOUR].contains(name));
            let own = own.map(|(_, value)| value).collect();
            self.0.insert((*metric as usize, own), series.value);
        }
    }

    /// Adds what statistics have, which everybody may ask for.
    pub(super) fn take(&mut self, stats: &[(String, u64)], target: &Target) {
        for (name, count) in stats {
            let Some(counter) = Counter::ALL.iter().find(|counter| counter.name() == name) else {
                continue;
            };
            let received = [(Counter::Received6, "6to4"), (Counter::Received4, "4to6")];
            let direction = received.iter().find(|(known, _)| known == counter);
            let key = match (direction, reason(*counter, target.flavour)) {
                (Some((_, direction)), _) => key(Metric::Packets, &[direction, ANY, RECEIVED]),
                (None, Some(reason)) => key(Metric::Untranslated, &[&reason]),
                (None, None) => continue,
            };
            self.0.insert(key, *count as f64);
        }
    }

    /// The value with these labels, the instance's left out.
    pub(super) fn get(&self, metric: Metric, labels: &[&str]) -> Option<f64> {
        self.0.get(&key(metric, labels)).copied()
    }

    /// All values of a metric, with their labels.
    pub(super) fn all(&self, metric: Metric) -> impl Iterator<Item = (&[String], f64)> {
        let first = (metric as usize, Vec::new());
        let from = self.0.range(first..);
        let ours = from.take_while(move |((number, _), _)| *number == metric as usize);
        ours.map(|((_, labels), value)| (labels.as_slice(), *value))
    }

    pub(super) fn sum(&self, metric: Metric) -> f64 {
        self.all(metric).map(|(_, value)| value).sum()
    }
}

fn key(metric: Metric, labels: &[&str]) -> (usize, Vec<String>) {
    let labels = labels.iter().map(|label| (*label).to_owned());
    (metric as usize, labels.collect())
}

/// A line of the text: `name{label="value",...} 1`.
struct Series<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
}

impl<'a> Series<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at(end);
        let mut labels = Vec::new();
        if let Some(mut inside) = rest.strip_prefix('{') {
            loop {
                inside = inside.strip_prefix(',').unwrap_or(inside);
                if let Some(behind) = inside.strip_prefix('}') {
                    rest = behind;
                    break;
                }
                let (label, behind) = inside.split_once("=\"")?;
                let (value, behind) = quoted(behind)?;
                labels.push((label, value));
                inside = behind;
            }
        }
        let value: f64 = rest.trim().parse().ok()?;
        value.is_finite().then_some(Self {
            name,
            labels,
            value,
        })
    }

    /// Whether it is of that, or does not say of which.
    fn is(&self, label: &str, wanted: &str) -> bool {
        let mut of_it = self.labels.iter().filter(|(name, _)| *name == label);
        of_it.all(|(_, value)| value == wanted)
    }
}

/// What is before the closing quotation mark, and what is behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut signs = text.chars();
    loop {
        match signs.next()? {
            '"' => return Some((value, signs.as_str())),
            '\\' => value.push(match signs.next()? {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
}

const INSTANCE: &str = "tylo_instance";
const FLAVOUR: &str = "flavour";

/// Stands for all protocols where they are not told apart.
pub(super) const ANY: &str = "any";

/// Stands for all outcomes.
pub(super) const RECEIVED: &str = "received";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::Page;
    use crate::model::Flavour;

    fn target() -> Target {
        Target {
            flavour: Flavour::Nat64,
            name: "a\"b\\c".to_owned(),
        }
    }

    #[test]
    fn what_the_daemon_writes_is_read() {
        let target = target();
        let (name, flavour) = (target.name.as_str(), target.flavour.name());
        let mut page = Page::new();
        page.put(Metric::Ready, &[], 1);
        page.put(Metric::WorkerCpu, &["0"], 0.25);
        page.put(Metric::WorkerCpu, &["1"], 2.5);
        page.put(Metric::SessionsLimit, &[name, flavour], 7);
        page.put(Metric::Sessions, &[name, flavour, "tcp"], 5);
        page.put(Metric::Sessions, &[name, "siit", "tcp"], 6);
        page.put(Metric::Sessions, &["other", flavour, "udp"], 8);
        let mut numbers = Numbers::default();
        numbers.read(&page.text(), &target);
        assert_eq!(numbers.get(Metric::Ready, &[]), Some(1.0));
        assert_eq!(numbers.get(Metric::SessionsLimit, &[]), Some(7.0));
        let sessions: Vec<_> = numbers.all(Metric::Sessions).collect();
        assert_eq!(sessions, [(["tcp".to_owned()].as_slice(), 5.0)]);
        assert_eq!(numbers.sum(Metric::WorkerCpu), 2.75);
        assert_eq!(numbers.get(Metric::Packets, &["6to4"]), None);
    }

    #[test]
    fn statistics_are_read_too() {
        let row = |counter: Counter, count| (counter.name().to_owned(), count);
        let mut numbers = Numbers::default();
        let rows = [
            row(Counter::Received4, 5),
            row(Counter::Sessions, 6),
            row(Counter::Adf, 7),
            ("JSTAT_OF_TOMORROW".to_owned(), 8),
        ];
        numbers.take(&rows, &target());
        let received = numbers.get(Metric::Packets, &["4to6", ANY, RECEIVED]);
        assert_eq!(received, Some(5.0));
        assert_eq!(numbers.get(Metric::Untranslated, &["adf"]), Some(7.0));
        assert_eq!(numbers.0.len(), 2);
    }

    proptest! {
        #[test]
        fn nonsense_is_left_out(text in "(tylo_sessions|tylo_ready|x)?[{}\"\\\\=, a1\n]{0,30}") {
            Numbers::default().read(&text, &target());
        }
    }
}

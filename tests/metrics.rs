// SPDX-License-Identifier: GPL-2.0-or-later
//! Metrics, their documentation, the dashboard and the alerts know the same names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use tylo::base::counters::Counter;
use tylo::metrics::{Kind, Metric};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = |word: &&str| word.starts_with("tylo_") || word.starts_with("process_");
    // This one is a label.
    words
        .filter(ours)
        .filter(|word| *word != "tylo_instance")
        .collect()
}

fn series() -> BTreeSet<String> {
    Metric::ALL
        .iter()
        .flat_map(|metric| metric.series())
        .collect()
}

#[test]
fn every_metric_is_documented_as_it_is() {
    let text = read("docs/metrics.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let documented: BTreeMap<_, _> = rows
        .map(|row| {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            let labels = cells[3]
                .split(',')
                .map(|label| label.trim().trim_matches('`'));
            let labels: Vec<_> = labels.filter(|label| !label.is_empty()).collect();
            (cells[1].trim_matches('`'), (cells[2], labels))
        })
        .collect();
    let there: BTreeMap<_, _> = Metric::ALL
        .iter()
        .map(|m| (m.name(), (m.kind().name(), m.labels().to_vec())))
        .collect();
    assert_eq!(documented, there);
    assert_eq!(there.len(), Metric::ALL.len(), "no name is there twice");
}

#[test]
fn names_follow_the_conventions() {
    for metric in Metric::ALL {
        let (name, kind) = (metric.name(), metric.kind());
        assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
        assert!(metric.help().ends_with('.'), "{name}");
        for reserved in ["job", "instance", "le", "quantile"] {
            assert!(!metric.labels().contains(&reserved), "{name}");
        }
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("docs/grafana/tylo.json")).unwrap();
    let series = series();
    let mut asked = String::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(
            ids.insert(panel["id"].as_u64().unwrap()),
            "{}",
            panel["title"]
        );
        let targets = panel["targets"].as_array().into_iter().flatten();
        for target in targets {
            asked.push_str(target["expr"].as_str().unwrap());
            asked.push('\n');
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        asked.push_str(variable["definition"].as_str().unwrap_or_default());
        asked.push('\n');
    }
    let asked = names(&asked);
    let unknown: Vec<_> = asked
        .iter()
        .filter(|name| !series.contains(**name))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    // And shows all there are.
    let shown = |metric: &&Metric| {
        metric
            .series()
            .iter()
            .any(|name| asked.contains(name.as_str()))
    };
    let missing: Vec<_> = Metric::ALL.iter().filter(|m| !shown(m)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn alerts_are_about_metrics_that_exist_and_all_are_tried() {
    let series = series();
    let (rules, tests) = (
        read("docs/prometheus/alerts.yml"),
        read("docs/prometheus/alerts_test.yml"),
    );
    for name in names(&rules).into_iter().chain(names(&tests)) {
        assert!(series.contains(name), "{name}");
    }
    let alerts = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let alerts: Vec<_> = alerts.collect();
    assert!(!alerts.is_empty());
    for alert in alerts {
        let tried = tests.matches(&format!("alertname: {alert}\n")).count();
        assert!(tried >= 2, "{alert} is tried {tried} times");
    }
}

#[test]
fn reasons_are_told_apart_when_they_are_labels() {
    let labels: BTreeSet<_> = Counter::ALL
        .iter()
        .map(|counter| {
            counter
                .name()
                .trim_start_matches("JSTAT")
                .trim_start_matches('_')
                .to_lowercase()
        })
        .collect();
    assert_eq!(labels.len(), Counter::ALL.len());
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! The text format of Prometheus, version 0.0.4.
//!
//! Written here, because the official crate writes OpenMetrics alone, with which `promtool check
//! metrics` finds fault.

use std::fmt::{Display, Write as _};

use super::names::{Kind, Metric};

/// What is known of all metrics at one moment.
#[derive(Debug)]
pub struct Page {
    /// The lines of each metric of [`Metric::ALL`].
    lines: Vec<String>,
}

/// Counts by upper bound.
#[derive(Clone, Copy, Debug)]
pub struct Buckets<'a> {
    /// In ascending order, without the last one, which has no bound.
    pub bounds: &'a [f64],
    /// One more than there are bounds; each has what is in no bucket before it.
    pub counts: &'a [u64],
    pub sum: f64,
}

impl Page {
    pub fn new() -> Self {
        Self {
            lines: vec![String::new(); Metric::ALL.len()],
        }
    }

    /// Adds a value. There are as many labels as the metric has.
    pub fn put(&mut self, metric: Metric, labels: &[&str], value: impl Display) {
        self.line(metric, "", labels, None, value);
    }

    /// Adds the values of a histogram.
    pub fn histogram(&mut self, metric: Metric, labels: &[&str], buckets: &Buckets<'_>) {
        let mut count = 0;
        let bounds = buckets.bounds.iter().map(ToString::to_string);
        let bounds = bounds.chain(std::iter::once("+Inf".to_owned()));
        for (bound, more) in bounds.zip(buckets.counts) {
            count += more;
            self.line(metric, "_bucket", labels, Some(("le", &bound)), count);
        }
        self.line(metric, "_sum", labels, None, buckets.sum);
        self.line(metric, "_count", labels, None, count);
    }

    fn line(
        &mut self,
        metric: Metric,
        suffix: &str,
        labels: &[&str],
        more: Option<(&str, &str)>,
        value: impl Display,
    ) {
        debug_assert_eq!(labels.len(), metric.labels().len(), "{metric:?}");
        let Some(lines) = self.lines.get_mut(metric as usize) else {
            return;
        };
        lines.push_str(metric.name());
        lines.push_str(suffix);
        let labels = metric.labels().iter().zip(labels);
        let labels = labels.map(|(name, value)| (*name, *value)).chain(more);
        let mut separator = '{';
        for (name, value) in labels {
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            // Nothing that is written to a string fails.
            let _ = write!(lines, "{separator}{name}=\"{value}\"");
            separator = ',';
        }
        let end = if separator == ',' { "}" } else { "" };
        let _ = writeln!(lines, "{end} {value}");
    }

    /// The page as a text, without metrics that have no values.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (metric, lines) in Metric::ALL.iter().zip(&self.lines) {
            if !lines.is_empty() {
                let (name, help, kind) = (metric.name(), metric.help(), metric.kind());
                let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
                text.push_str(lines);
            }
        }
        text
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::new()
    }
}

impl Metric {
    /// The names that its values have: those of a histogram end differently.
    pub fn series(self) -> Vec<String> {
        let suffixes: &[&str] = match self.kind() {
            Kind::Counter | Kind::Gauge => &[""],
            Kind::Histogram => &["_bucket", "_sum", "_count"],
        };
        let names = suffixes
            .iter()
            .map(|suffix| format!("{}{suffix}", self.name()));
        names.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_grouped_by_metric_and_labels_are_quoted() {
        let mut page = Page::new();
        page.put(Metric::JournalPending, &[], 7);
        page.put(Metric::BuildInfo, &["a\"b\\c\nd"], 1);
        page.put(Metric::SyncPeerUp, &["1"], 1);
        page.put(Metric::JournalLag, &[], 0.25);
        page.put(Metric::SyncPeerUp, &["2"], u64::MAX);
        let expected = "\
            # HELP tylo_build_info Always 1; the label has the version of the program.\n\
            # TYPE tylo_build_info gauge\n\
            tylo_build_info{version=\"a\\\"b\\\\c\\nd\"} 1\n\
            # HELP tylo_journal_pending_changes Changes of sessions and mappings that are not on disk yet.\n\
            # TYPE tylo_journal_pending_changes gauge\n\
            tylo_journal_pending_changes 7\n\
            # HELP tylo_journal_lag_seconds Age of the oldest change that is not on disk yet.\n\
            # TYPE tylo_journal_lag_seconds gauge\n\
            tylo_journal_lag_seconds 0.25\n\
            # HELP tylo_sync_peer_up 1 for a node that is alive, 0 for one that was since this one began.\n\
            # TYPE tylo_sync_peer_up gauge\n\
            tylo_sync_peer_up{node=\"1\"} 1\n\
            tylo_sync_peer_up{node=\"2\"} 18446744073709551615\n";
        assert_eq!(page.text(), expected);
    }

    #[test]
    fn buckets_of_a_histogram_add_up() {
        let mut page = Page::new();
        let buckets = Buckets {
            bounds: &[0.00001, 0.5],
            counts: &[2, 0, 3],
            sum: 4.5,
        };
        let labels = ["default", "nat64"];
        page.histogram(Metric::TranslationDuration, &labels, &buckets);
        let text = page.text();
        let lines: Vec<_> = text.lines().skip(2).collect();
        let name = "tylo_translation_duration_seconds";
        let labels = "tylo_instance=\"default\",flavour=\"nat64\"";
        assert_eq!(
            lines,
            [
                format!("{name}_bucket{{{labels},le=\"0.00001\"}} 2"),
                format!("{name}_bucket{{{labels},le=\"0.5\"}} 2"),
                format!("{name}_bucket{{{labels},le=\"+Inf\"}} 5"),
                format!("{name}_sum{{{labels}}} 4.5"),
                format!("{name}_count{{{labels}}} 5"),
            ]
        );
    }
}

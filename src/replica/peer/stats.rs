// SPDX-License-Identifier: GPL-2.0-or-later
//! What happened, in numbers.

/// Counters of a node, all since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub sent_datagrams: u64,
    pub sent_bytes: u64,
    pub received_datagrams: u64,
    pub received_bytes: u64,
    /// Too short, of another version, or not to be understood although genuine.
    pub malformed: u64,
    /// Sealed with a key that this node does not have, or that is another one under its number.
    pub auth_failures: u64,
    /// Datagrams seen before, or from a life of a node that has ended.
    pub replayed: u64,
    /// Datagrams of lives that have not proven themselves yet, which were not looked at.
    pub unproven: u64,
    /// Batches that arrived twice.
    pub duplicates: u64,
    /// Gaps that were asked about.
    pub gaps: u64,
    /// Batches that closed a gap after it was asked about.
    pub repairs: u64,
    /// Batches sent again because somebody asked.
    pub resent: u64,
    pub sent_records: u64,
    pub received_records: u64,
    /// Records that changed the table.
    pub applied: u64,
    /// Records that were not newer than what is known.
    pub stale: u64,
    /// Records that the table had no place for.
    pub refused: u64,
    /// Mappings that lost against a younger one.
    pub conflicts: u64,
    /// Records for instances that are not here or are configured differently.
    pub mismatched: u64,
    /// Comparisons that came to an end.
    pub rounds: u64,
    pub buckets_fetched: u64,
    /// Differences that a comparison found although there should have been none.
    pub drift: u64,
    /// Answers that were not sent because too much was to be sent already.
    pub overruns: u64,
    pub queries_sent: u64,
    pub queries_answered: u64,
    /// Milliseconds from the oldest change in the batch received last to its first sending.
    pub lag: u64,
}

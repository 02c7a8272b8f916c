// SPDX-License-Identifier: GPL-2.0-or-later
//! Every metric there is: one list for the endpoint, its documentation and their tests.

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up, and begins at 0 with the program.
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// The word for it in the text format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! metrics {
    ($($variant:ident $kind:ident $name:literal [$($label:literal)*] $help:literal)*) => {
        /// A metric; [`Metric::ALL`] is in the order of the output.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Metric { $($variant),* }

        impl Metric {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name by the conventions of Prometheus: unit and `_total` come last.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            pub const fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind),* }
            }

            /// The names of its labels, in order.
            pub const fn labels(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($label),*]),* }
            }

            /// What it tells, in a sentence.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help),* }
            }
        }
    };
}

metrics! {
    BuildInfo Gauge "tylo_build_info" ["version"]
        "Always 1; the label has the version of the program."
    StartTime Gauge "tylo_start_time_seconds" []
        "When this program began, after an upgrade the new one, in seconds since 1970; counters began at 0 then."
    ResidentMemory Gauge "process_resident_memory_bytes" []
        "Memory of the process that is in RAM."
    Ready Gauge "tylo_ready" []
        "1 while rules are in force and all workers run."
    Takeovers Counter "tylo_takeovers_total" []
        "How often a program followed another one without a packet lost."

    Packets Counter "tylo_packets_total" ["tylo_instance" "flavour" "direction" "protocol" "outcome"]
        "Packets handed to the instance, by the family that they came in, and what became of them."
    Bytes Counter "tylo_bytes_total" ["tylo_instance" "flavour" "direction" "protocol" "outcome"]
        "Length of those packets as they came, IP headers included."
    Untranslated Counter "tylo_untranslated_packets_total" ["tylo_instance" "flavour" "reason"]
        "Packets dropped or left to the kernel, by reason; reasons are those of 'jool stats display'."
    IcmpErrors Counter "tylo_icmp_errors_total" ["tylo_instance" "flavour" "family" "result"]
        "ICMP errors of the translator's own."
    TranslationDuration Histogram "tylo_translation_duration_seconds" ["tylo_instance" "flavour"]
        "Time from handing a burst of packets to the instance until all were translated, for each translated packet."

    Sessions Gauge "tylo_sessions" ["tylo_instance" "flavour" "protocol"]
        "Sessions that exist."
    SessionsLimit Gauge "tylo_sessions_limit" ["tylo_instance" "flavour"]
        "The setting maximum-sessions; 0 is no limit."
    BibEntries Gauge "tylo_bib_entries" ["tylo_instance" "flavour" "protocol"]
        "Mappings (BIB entries) that exist."
    Pool4Ports Gauge "tylo_pool4_ports" ["tylo_instance" "flavour" "protocol" "addresses" "ports"]
        "Transport addresses (ports of all addresses, or ICMP identifiers) of a range of pool4."
    Pool4PortsUsed Gauge "tylo_pool4_ports_used" ["tylo_instance" "flavour" "protocol" "addresses" "ports"]
        "Transport addresses of a range of pool4 that mappings have."
    RefusedFlows Counter "tylo_refused_flows_total" ["tylo_instance" "flavour" "limit"]
        "Flows refused for want of room: no free port in pool4, or a limit of sessions."

    QueuePackets Gauge "tylo_queue_packets" ["tylo_instance" "flavour" "queue"]
        "Packets that wait in a netfilter queue."
    QueueDropped Counter "tylo_queue_dropped_packets_total" ["tylo_instance" "flavour" "queue" "reason"]
        "Packets that the kernel dropped because the queue or its socket was full."
    QueueOverruns Counter "tylo_queue_overruns_total" ["tylo_instance" "flavour" "queue"]
        "Reads of a queue that found that the kernel had lost packets (ENOBUFS)."
    QueueMalformed Counter "tylo_queue_malformed_total" ["tylo_instance" "flavour" "queue"]
        "Messages of a queue that could not be read, and packets too long to be copied; all dropped."

    WorkerCpu Counter "tylo_worker_cpu_seconds_total" ["worker"]
        "Processor time of a packet worker thread; its rate is the part of a processor that it uses."

    JournalPending Gauge "tylo_journal_pending_changes" []
        "Changes of sessions and mappings that are not on disk yet."
    JournalLag Gauge "tylo_journal_lag_seconds" []
        "Age of the oldest change that is not on disk yet."
    JournalLost Counter "tylo_journal_lost_changes_total" []
        "Changes that could not be journalled; the instances are written anew as a whole."

    SyncReady Gauge "tylo_sync_ready" []
        "1 when this node has what the others have, or there are no others."
    SyncPeers Gauge "tylo_sync_peers" []
        "Other nodes of the cluster that are alive."
    SyncPeerUp Gauge "tylo_sync_peer_up" ["node"]
        "1 for a node that is alive, 0 for one that was since this one began."
    SyncConfiguredPeers Gauge "tylo_sync_configured_peers" []
        "Nodes named by 'sync set --peer'; not there with a multicast group."
    SyncDuplicateNode Gauge "tylo_sync_duplicate_node" []
        "1 when another node was heard under this node's number."
    SyncNetworkDown Gauge "tylo_sync_network_down" []
        "1 while the other nodes cannot be reached at all: no interface or no address."
    SyncShare Gauge "tylo_sync_share_ratio" []
        "The part of pool4 that new clients may get here, 0 to 1."
    SyncPending Gauge "tylo_sync_pending_sessions" []
        "Sessions with news that were not told to the others yet."
    SyncLag Gauge "tylo_sync_lag_seconds" []
        "How old the oldest change in the batch received last was when its sender first sent it."
    SyncDatagrams Counter "tylo_sync_datagrams_total" ["direction"]
        "Datagrams exchanged with other nodes."
    SyncBytes Counter "tylo_sync_bytes_total" ["direction"]
        "Length of those datagrams."
    SyncRecords Counter "tylo_sync_records_total" ["direction"]
        "Records of sessions in those datagrams."
    SyncRecordsHandled Counter "tylo_sync_records_handled_total" ["result"]
        "What became of records that were received."
    SyncRejected Counter "tylo_sync_rejected_datagrams_total" ["reason"]
        "Datagrams received that were not looked at further."
    SyncDuplicates Counter "tylo_sync_duplicates_total" []
        "Batches that arrived twice."
    SyncGaps Counter "tylo_sync_gaps_total" []
        "Missing batches that were asked for."
    SyncRepairs Counter "tylo_sync_repairs_total" []
        "Batches that closed a gap after it was asked about."
    SyncResent Counter "tylo_sync_resent_total" []
        "Batches sent again because another node asked."
    SyncRounds Counter "tylo_sync_rounds_total" []
        "Comparisons of all sessions with another node that came to an end."
    SyncDrift Counter "tylo_sync_drift_total" []
        "Differences that a comparison found although there should have been none."
    SyncOverruns Counter "tylo_sync_overruns_total" []
        "Answers not sent because too much was to be sent already."
    SyncUnsent Counter "tylo_sync_unsent_datagrams_total" []
        "Datagrams that the kernel had no room for."
    SyncRescans Counter "tylo_sync_rescans_total" []
        "How often the tables were gone through again because changes came too fast."
    SyncInstanceReady Gauge "tylo_sync_instance_ready" ["tylo_instance" "flavour"]
        "1 when the copy of this instance is complete."
    SyncInstanceSessions Gauge "tylo_sync_instance_sessions" ["tylo_instance" "flavour"]
        "Sessions of this instance that are known to the cluster."
    SyncMismatchedPeers Gauge "tylo_sync_mismatched_peers" ["tylo_instance" "flavour"]
        "Nodes whose pool6, pool4 or global settings differ from those here."

    JooldEnabled Gauge "tylo_joold_enabled" ["tylo_instance" "flavour"]
        "1 when ss-enabled lets 'session proxy' exchange sessions; not there without 'session proxy'."
    JooldAdvertising Gauge "tylo_joold_advertising" ["tylo_instance" "flavour"]
        "1 while all sessions are being told."
    JooldDatagrams Counter "tylo_joold_datagrams_total" ["tylo_instance" "flavour" "direction"]
        "Datagrams of 'session proxy'."
    JooldBytes Counter "tylo_joold_bytes_total" ["tylo_instance" "flavour" "direction"]
        "Length of those datagrams."
    JooldSessions Counter "tylo_joold_sessions_total" ["tylo_instance" "flavour" "direction"]
        "Sessions in those datagrams."
    JooldHandled Counter "tylo_joold_sessions_handled_total" ["tylo_instance" "flavour" "result"]
        "What became of sessions that were received."
    JooldDuplicates Counter "tylo_joold_duplicates_total" ["tylo_instance" "flavour"]
        "Datagrams that came a second time."
    JooldMalformed Counter "tylo_joold_malformed_total" ["tylo_instance" "flavour"]
        "Datagrams and sessions that make no sense."
    JooldLost Counter "tylo_joold_lost_datagrams_total" ["tylo_instance" "flavour" "direction"]
        "Datagrams that the kernel had no room for, or did not send."
    JooldUntold Counter "tylo_joold_untold_changes_total" ["tylo_instance" "flavour"]
        "Changes of sessions that were not told because they came too fast."
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! The control protocol between the commands and the daemon.
//!
//! A stream socket in the abstract namespace, so that a command finds the daemon of the network
//! namespace it runs in. One JSON object per line: one [`Request`], then any number of [`Reply`]
//! lines, the last of which is [`Reply::Done`] or [`Reply::Error`]. Several requests may follow
//! each other on one connection.

use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::cluster::{ClusterConfig, ClusterHealth};
use super::mapt::MapRule;
use super::settings::{Settings, Value};
use super::sync::{Network, SyncHealth};
use super::{
    BibEntry, BibRow, EamRow, Flavour, Framework, InstanceRow, Pool4Entry, Pool4Row, PortRange,
    SessionRow, Stray, TcpState, Translation,
};
use crate::base::prefix::{Prefix4, Prefix6};
use crate::base::{Protocol, Transport4, Transport6};

/// The name of the daemon's socket in the abstract namespace.
pub const SOCKET: &str = "tylo";

/// The version both sides must agree on, unless an [upgrade](Command::Upgrade) or
/// [health](Command::Health) is asked for: these two and their answers only ever grow.
pub const VERSION: u32 = 1;

/// The longest request line the daemon reads, in bytes.
pub const REQUEST_MAX: usize = 64 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub version: u32,
    pub flavour: Flavour,
    pub instance: String,
    pub command: Command,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Answered by [`Reply::Instances`]; does not look at `instance`.
    InstanceDisplay,
    /// Adds `instance`.
    InstanceAdd {
        framework: Framework,
        pool6: Option<Prefix6>,
    },
    /// Removes `instance` with all it has.
    InstanceRemove,
    /// Removes every instance; does not look at `instance`.
    InstanceFlush,
    /// Answered by [`Reply::Status`].
    InstanceStatus,
    /// Answered by [`Reply::Settings`].
    GlobalDisplay,
    GlobalUpdate {
        key: String,
        value: Value,
        force: bool,
    },
    /// Answered by [`Reply::Pool4`], rows in display order.
    Pool4Display {
        protocol: Protocol,
    },
    Pool4Add {
        entry: Pool4Entry,
        force: bool,
    },
    Pool4Remove {
        mark: u32,
        protocol: Protocol,
        prefix: Prefix4,
        ports: PortRange,
        /// Leave the mappings that use it alone.
        quick: bool,
    },
    Pool4Flush {
        quick: bool,
    },
    /// Answered by [`Reply::Bib`], rows in display order.
    BibDisplay {
        protocol: Protocol,
    },
    BibAdd {
        protocol: Protocol,
        v6: Transport6,
        v4: Transport4,
    },
    /// At least one of the two must be given; both must match.
    BibRemove {
        protocol: Protocol,
        v6: Option<Transport6>,
        v4: Option<Transport4>,
    },
    /// Answered by [`Reply::Sessions`], rows in display order.
    SessionDisplay {
        protocol: Protocol,
    },
    /// Answered by [`Reply::Events`] and [`Reply::Lost`] for as long as somebody listens. The first
    /// line comes at once, and then at least one a second or so, empty if need be.
    SessionFollow {
        /// With the ends of sessions.
        ends: bool,
    },
    /// Exchanges sessions with other gateways for as long as somebody listens. Answered by empty
    /// [`Reply::Events`]: the first when it begins, and then one a second at least.
    SessionProxy {
        network: Network,
    },
    /// Tells other gateways of all sessions; they are on their way when it is answered.
    SessionAdvertise,
    /// Makes the gateway a node of a cluster, or one with another configuration. Does not look at
    /// `instance`, like the next one.
    SyncSet {
        config: Box<ClusterConfig>,
    },
    /// Leaves the cluster.
    SyncOff,
    /// Answered by [`Reply::Eamt`], rows in display order.
    EamtDisplay,
    EamtAdd {
        row: EamRow,
        force: bool,
    },
    /// At least one of the two must be given; both must match.
    EamtRemove {
        v6: Option<Prefix6>,
        v4: Option<Prefix4>,
    },
    EamtFlush,
    /// Answered by [`Reply::Denylist4`], in the order in which they were added.
    Denylist4Display,
    Denylist4Add {
        prefix: Prefix4,
        force: bool,
    },
    Denylist4Remove {
        prefix: Prefix4,
    },
    Denylist4Flush,
    /// Answered by [`Reply::Fmrt`], rows in display order.
    FmrtDisplay,
    FmrtAdd {
        rule: MapRule,
    },
    /// The whole rule must match.
    FmrtRemove {
        rule: MapRule,
    },
    FmrtFlush,
    /// Answered by [`Reply::Strays`].
    Strays,
    /// Answered by [`Reply::Translation`].
    AddressQuery {
        address: IpAddr,
    },
    /// Adds `instance` with all of this.
    Create {
        config: Box<Config>,
    },
    /// Makes `instance` be exactly this, or leaves everything as it is.
    Replace {
        config: Box<Config>,
        force: bool,
    },
    /// Answered by [`Reply::Config`]: everything, as [`Command::Replace`] would take it.
    Export,
    /// Refused as [`Command::Replace`] with the same contents would be; changes nothing.
    Check {
        config: Box<Config>,
        force: bool,
    },
    /// Answered by [`Reply::Stats`].
    StatsDisplay,
    /// Answered by [`Reply::Summary`].
    SessionSummary {
        /// Clients whose addresses begin with the same bits, so many, are counted as one; 0-128.
        prefix: u8,
        /// Count the sessions of clients for this protocol alone.
        protocol: Option<Protocol>,
    },
    /// Answered by [`Reply::Metrics`]; does not look at `instance`.
    Metrics,
    /// Answered by [`Reply::Health`]; does not look at `instance`.
    Health,
    /// Replaces the running program by what lies where it was started from; does not look at
    /// `instance`. Answered when the new one is known to start; [`Health::takeover`] says when it
    /// has.
    Upgrade,
    /// Answered by [`Reply::Holders`]; does not look at `instance`.
    Who {
        protocol: Protocol,
        v4: Transport4,
        /// Milliseconds since 1970; now when it is missing.
        at: Option<u64>,
    },
}

/// The whole configuration of an instance, as a file has it. What it leaves out gets its default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    pub framework: Framework,
    pub settings: Vec<(String, Value)>,
    /// SIIT only.
    pub eamt: Vec<EamRow>,
    /// SIIT only.
    pub denylist4: Vec<Prefix4>,
    /// MAP-T only.
    #[serde(default)]
    pub fmrt: Vec<MapRule>,
    /// NAT64 only.
    pub pool4: Vec<Pool4Entry>,
    /// NAT64 only; matters only when the instance is new.
    pub bib: Vec<BibEntry>,
}

impl Config {
    /// Cuts it into parts whose tables have `rows` rows at most; the first has the settings.
    pub fn pages(self, rows: usize) -> impl Iterator<Item = Self> {
        let framework = self.framework;
        let mut settings = Some(self.settings);
        let mut eamt = self.eamt.into_iter();
        let mut denylist4 = self.denylist4.into_iter();
        let mut fmrt = self.fmrt.into_iter();
        let mut pool4 = self.pool4.into_iter();
        let mut bib = self.bib.into_iter();
        std::iter::from_fn(move || {
            let rest = eamt.len() + denylist4.len() + fmrt.len() + pool4.len() + bib.len();
            if settings.is_none() && rest == 0 {
                return None;
            }
            Some(Self {
                framework,
                settings: settings.take().unwrap_or_default(),
                eamt: eamt.by_ref().take(rows).collect(),
                denylist4: denylist4.by_ref().take(rows).collect(),
                fmrt: fmrt.by_ref().take(rows).collect(),
                pool4: pool4.by_ref().take(rows).collect(),
                bib: bib.by_ref().take(rows).collect(),
            })
        })
    }

    /// Puts the next part behind this one.
    pub fn append(&mut self, mut page: Self) {
        self.settings.append(&mut page.settings);
        self.eamt.append(&mut page.eamt);
        self.denylist4.append(&mut page.denylist4);
        self.fmrt.append(&mut page.fmrt);
        self.pool4.append(&mut page.pool4);
        self.bib.append(&mut page.bib);
    }
}

/// One line of an answer. Rows may be spread over several lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    Instances(Vec<InstanceRow>),
    Status {
        running: bool,
    },
    Settings(Box<Settings>),
    Pool4(Vec<Pool4Row>),
    Bib(Vec<BibRow>),
    Sessions(Vec<SessionRow>),
    Events(Vec<SessionEvent>),
    /// So many events did not find their way here: the listener was too slow.
    Lost(u64),
    Eamt(Vec<EamRow>),
    Denylist4(Vec<Prefix4>),
    Fmrt(Vec<MapRule>),
    /// The latest ones, in order.
    Strays(Vec<Stray>),
    Translation(Translation),
    /// Name and value of every counter, in display order.
    Stats(Vec<(String, u64)>),
    Summary(SessionSummary),
    /// Whole lines of the text format of Prometheus.
    Metrics(String),
    Health(Box<Health>),
    Holders(Holders),
    /// Tables that are spread over several lines follow each other; the rest is in each.
    Config(Box<Config>),
    /// The request was carried out; the answer ends here.
    Done,
    /// The request was not carried out; the answer ends here.
    Error(Failure),
}

/// What happened to a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEvent {
    pub event: SessionEventKind,
    /// As it is now; the state of one that ended is not known.
    pub session: SessionRow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionEventKind {
    New,
    /// Its state is another one, and with it its end.
    Update,
    End,
}

impl SessionEventKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Update => "update",
            Self::End => "end",
        }
    }
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// An `errno` value, which the command exits with, as Jool's does.
    pub code: u8,
    /// What is wrong, the value, what to do.
    pub message: String,
}

/// What there is in the session tables of an instance. They are read in portions, so that sessions
/// that came or went meanwhile may be there or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSummary {
    /// As in [`TcpState::ALL`].
    pub tcp: [u64; TcpState::ALL.len()],
    pub udp: u64,
    pub icmp: u64,
    /// Clients with the most sessions, and how many; the first has most.
    pub talkers: Vec<(Ipv6Addr, u64)>,
    /// Each of them may have so many more. 0 unless there are very many clients.
    pub slack: u64,
}

/// Who had an IPv4 transport address at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holders {
    /// Usually one; several where the clock was set, or in the very moment of a change.
    pub holders: Vec<Holder>,
    /// Since when mappings are recorded, by the instance that does it longest.
    pub since: Option<u64>,
}

/// Who had it, and how long. Times are milliseconds since 1970, by the gateway's wall clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub v6: Transport6,
    /// `None` when it is there now and nobody recorded since when.
    pub began: Option<u64>,
    /// It was there then, perhaps before.
    pub began_or_before: bool,
    /// `None` when it is there now.
    pub ended: Option<u64>,
    /// It was gone then, perhaps before.
    pub ended_or_before: bool,
    /// Whether it is there now as a static one.
    pub is_static: bool,
    /// `None` when it was removed since.
    pub instance: Option<String>,
}

/// What a monitoring system wants to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The program's version.
    pub version: String,
    pub pid: u32,
    /// When this program began, in milliseconds since 1970: counters were 0 then. 0 when that is not
    /// told.
    #[serde(default)]
    pub began: u64,
    /// Whether rules are in force and workers run.
    pub ready: bool,
    /// `native` or `compat`: how rules hand packets over.
    pub queue_expression: String,
    pub instances: Vec<InstanceHealth>,
    /// Whether nothing is stored at all.
    #[serde(default)]
    pub ephemeral: bool,
    /// How this program came to run.
    #[serde(default)]
    pub takeover: Takeover,
    #[serde(default)]
    pub sandbox: Sandbox,
    /// There while the gateway is a node of a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Box<ClusterHealth>>,
    /// Changes that are not on disk yet.
    pub journal_backlog: u64,
    /// Changes that were not journalled because the backlog was full, or storage failed.
    pub journal_lost: u64,
}

/// What the daemon has given up, so that somebody who gets hold of it has little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// All capabilities but those that translation needs.
    pub capabilities: bool,
    /// All system calls but those that the program makes.
    pub system_calls: bool,
}

/// How a program followed another one without a packet lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Takeover {
    /// How often that happened since the process was started.
    pub count: u64,
    /// The version of the program before; empty when there was none.
    pub from: String,
    /// How long packets waited in the kernel, in milliseconds.
    pub waited_ms: u64,
    /// Why the last attempt failed, after which the same program went on.
    pub failed: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceHealth {
    pub flavour: Flavour,
    pub name: String,
    pub framework: Framework,
    /// First queue number and how many there are.
    pub queues: (u16, u16),
    /// The same for queues that only TCP goes through, in super-packets.
    #[serde(default)]
    pub tcp_queues: Option<(u16, u16)>,
    /// What became of packets in all of them.
    #[serde(default)]
    pub queued: Queued,
    pub sessions: u64,
    /// There while its sessions are exchanged with other gateways.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<SyncHealth>,
}

/// Packets in the queues of an instance, since these were opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// Super-packets that came whole.
    pub super_packets: u64,
    /// Packets given back to the kernel, to be cut and come again.
    pub cut: u64,
    /// Lost because a queue was full.
    pub queue_full: u64,
    /// Lost because the socket of a queue was full.
    pub socket_full: u64,
    /// How often the kernel said so.
    pub overruns: u64,
    /// Lost because they could not be read.
    pub malformed: u64,
}

impl Queued {
    /// Packets lost for want of room.
    pub const fn lost(&self) -> u64 {
        self.queue_full.saturating_add(self.socket_full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_configuration_make_the_whole() {
        let whole = Config {
            framework: Framework::Iptables,
            settings: vec![("tos".to_owned(), Value::Number(1))],
            eamt: Vec::new(),
            denylist4: vec!["192.0.2.0/24".parse().unwrap(); 5],
            fmrt: vec!["2001:db8::/51 192.0.2.0/24 13 0".parse().unwrap(); 3],
            pool4: Vec::new(),
            bib: vec![
                BibEntry {
                    protocol: Protocol::Tcp,
                    v6: "2001:db8::1#1".parse().unwrap(),
                    v4: "192.0.2.1#1".parse().unwrap(),
                };
                2
            ],
        };
        let mut pages = whole.clone().pages(2);
        let mut joined = pages.next().unwrap();
        assert_eq!(joined.denylist4.len(), 2);
        assert_eq!((joined.fmrt.len(), joined.bib.len()), (2, 2));
        pages.for_each(|page| joined.append(page));
        assert_eq!(joined, whole);
        let empty = Config {
            denylist4: Vec::new(),
            fmrt: Vec::new(),
            bib: Vec::new(),
            ..whole
        };
        assert_eq!(empty.pages(2).count(), 1);
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! `tylo sync`: makes this gateway a node of a cluster, and says how that goes.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command as Clap, value_parser};

use super::{Args, request, take};
use crate::cli::client::{Client, ClientError};
use crate::cli::{health, say};
use crate::model::cluster::{ClusterConfig, ClusterHealth, Reach, Secret, ShareMode};
use crate::model::control::Command;
use crate::model::{DEFAULT_INSTANCE, Flavour};

pub(super) fn command() -> Clap {
    Clap::new("tylo sync")
        .about("Shares the sessions of NAT64 instances with other gateways, encrypted")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(
            "Instances take part whose global 'ss-enabled' is true. All nodes need the same pool6, \
             pool4 and global settings, and a number of their own.",
        )
        .subcommand(set())
        .subcommand(Clap::new("off").about("Leaves the cluster, also after the next start"))
        .subcommand(
            Clap::new("status")
                .about("Says who is there and how far this node is")
                .after_help(
                    "Exits with 0 when this node is ready, 1 when not, 107 when it is none.",
                )
                .arg(
                    Arg::new("json")
                        .long("json")
                        .action(ArgAction::SetTrue)
                        .help("Print everything that is known, as one JSON object"),
                ),
        )
        .subcommand(
            Clap::new("keygen")
                .about("Makes a key for all nodes of a cluster")
                .after_help("FILE must not exist; nobody but its owner may read it.")
                .arg(
                    Arg::new("file")
                        .value_name("FILE")
                        .required(true)
                        .value_parser(value_parser!(PathBuf)),
                ),
        )
}

fn set() -> Clap {
    Clap::new("set")
        .about("Makes this gateway a node, now and after the next start")
        .after_help(
            "The keys are copied: change them with another 'tylo sync set'. To exchange a key \
             without a gap, first give all nodes the new one as the second --key, then as the \
             first, and then alone.",
        )
        .arg(
            Arg::new("node")
                .long("node")
                .value_name("NUMBER")
                .required(true)
                .value_parser(value_parser!(u16).range(1..))
                .help("The number of this node, 1-65535; every node has another one"),
        )
        .arg(
            Arg::new("key")
                .long("key")
                .value_name("FILE")
                .required(true)
                .action(ArgAction::Append)
                .value_parser(value_parser!(PathBuf))
                .help("A key as of 'tylo sync keygen'; the first one encrypts, all decrypt"),
        )
        .arg(
            Arg::new("group")
                .long("group")
                .value_name("ADDRESS")
                .requires("dev")
                .value_parser(value_parser!(IpAddr))
                .help("A multicast group that all nodes are in"),
        )
        .arg(
            Arg::new("dev")
                .long("dev")
                .value_name("INTERFACE")
                .requires("group")
                .help("The interface to the other nodes"),
        )
        .arg(
            Arg::new("port")
                .long("port")
                .value_name("PORT")
                .requires("group")
                .default_value(PORT)
                .value_parser(value_parser!(u16).range(1..))
                .help("The UDP port of the group"),
        )
        .arg(
            Arg::new("peer")
                .long("peer")
                .value_name("ADDRESS:PORT")
                .requires("bind")
                .action(ArgAction::Append)
                .value_parser(value_parser!(SocketAddr))
                .help("Another node, where there is no multicast"),
        )
        .arg(
            Arg::new("bind")
                .long("bind")
                .value_name("ADDRESS:PORT")
                .requires("peer")
                .value_parser(value_parser!(SocketAddr))
                .help("What the other nodes reach this one by"),
        )
        .arg(
            Arg::new("share")
                .long("share")
                .value_name("auto|I/N")
                .value_parser(share)
                .help("Several nodes are active: new clients get this part of the ports of pool4"),
        )
        .group(
            ArgGroup::new("reach")
                .args(["group", "peer"])
                .required(true),
        )
}

/// `auto`, or the I-th of N equal parts.
fn share(text: &str) -> Result<ShareMode, String> {
    if text == "auto" {
        return Ok(ShareMode::Auto);
    }
    let parts = text.split_once('/');
    let parts = parts.and_then(|(i, n)| Some((i.parse::<u8>().ok()?, n.parse::<u8>().ok()?)));
    match parts {
        Some((i, of @ 1..=64)) if (1..=of).contains(&i) => {
            Ok(ShareMode::Static { index: i - 1, of })
        }
        Some(_) | None => Err("say 'auto', or 1/2 and 2/2 for two nodes, up to 64/64".to_owned()),
    }
}

pub(super) fn sync(args: Args<'_>) -> ExitCode {
    let found = match take(command(), args) {
        Ok(found) => found,
        Err(code) => return code,
    };
    let done = match found.subcommand() {
        Some(("set", found)) => configure(found),
        Some(("off", _)) => tell(Command::SyncOff),
        Some(("status", found)) => return status(found.get_flag("json")),
        Some(("keygen", found)) => keygen(found),
        Some(_) | None => Ok(()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say("Error", &error);
            ExitCode::from(error.code())
        }
    }
}

/// Why `tylo sync` failed.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot read the key file '{0}': {1}")]
    Read(String, #[source] std::io::Error),
    #[error("'{0}': {1}")]
    Key(String, #[source] crate::model::cluster::NotAKey),
    #[error("cannot write the key file '{0}': {1}")]
    Write(String, #[source] std::io::Error),
    #[error("there are no random numbers: {0}")]
    Random(#[source] std::io::Error),
}

impl SyncError {
    fn code(&self) -> u8 {
        match self {
            Self::Client(error) => error.code(),
            Self::Key(..) => 22,
            Self::Read(_, e) | Self::Write(_, e) | Self::Random(e) => {
                let code = e.raw_os_error().and_then(|code| u8::try_from(code).ok());
                code.filter(|code| *code != 0).unwrap_or(5)
            }
        }
    }
}

fn configure(found: &ArgMatches) -> Result<(), SyncError> {
    let files = found.get_many::<PathBuf>("key").unwrap_or_default();
    let keys = files.map(|file| {
        let name = || file.display().to_string();
        let text = fs::read_to_string(file).map_err(|e| SyncError::Read(name(), e))?;
        text.parse().map_err(|e| SyncError::Key(name(), e))
    });
    let keys = keys.collect::<Result<Vec<Secret>, SyncError>>()?;
    let reach = match (found.get_one("group"), found.get_one("bind")) {
        (Some(group), _) => Reach::Group {
            group: *group,
            port: found.get_one("port").copied().unwrap_or_default(),
            device: found.get_one("dev").cloned().unwrap_or_default(),
        },
        (None, bind) => Reach::Peers {
            // The grammar has seen to it that it is there.
            bind: bind.copied().unwrap_or_else(|| ([0, 0, 0, 0], 0).into()),
            peers: found
                .get_many("peer")
                .unwrap_or_default()
                .copied()
                .collect(),
        },
    };
    let config = Box::new(ClusterConfig {
        node: found.get_one("node").copied().unwrap_or_default(),
        keys,
        reach,
        share: found.get_one("share").copied().unwrap_or_default(),
    });
    tell(Command::SyncSet { config })
}

fn tell(command: Command) -> Result<(), SyncError> {
    let request = request(Flavour::Nat64, DEFAULT_INSTANCE, command);
    Ok(Client::connect()?.call::<ClientError>(&request, |_| Ok(()))?)
}

fn keygen(found: &ArgMatches) -> Result<(), SyncError> {
    let Some(file) = found.get_one::<PathBuf>("file") else {
        return Ok(());
    };
    let mut bytes = [0; 33];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    let short = || std::io::ErrorKind::UnexpectedEof.into();
    let got = got.map_err(|e| SyncError::Random(e.into()))?;
    let [number, secret @ ..] = bytes;
    if got < bytes.len() {
        return Err(SyncError::Random(short()));
    }
    let text = String::from(Secret {
        number,
        bytes: secret,
    });
    let write = || {
        let mut options = fs::OpenOptions::new();
        let mut out = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(file)?;
        writeln!(out, "{text}")?;
        out.sync_all()
    };
    write().map_err(|e| SyncError::Write(file.display().to_string(), e))
}

fn status(json: bool) -> ExitCode {
    let cluster = match health::ask() {
        Ok(health) => health.cluster,
        Err(error) => {
            say("Error", &error);
            return ExitCode::from(error.code());
        }
    };
    let Some(cluster) = cluster else {
        say(
            "Error",
            &"this gateway is no node of a cluster; see 'tylo sync set --help'",
        );
        return ExitCode::from(NOT_CONNECTED);
    };
    let text = if json {
        let mut text = serde_json::to_string(&cluster).unwrap_or_default();
        text.push('\n');
        text
    } else {
        lines(&cluster)
    };
    // The exit status tells, even if nobody reads the lines.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::from(u8::from(!cluster.ready))
}

fn lines(cluster: &ClusterHealth) -> String {
    let ready = if cluster.ready { "ready" } else { "not ready" };
    let keys: Vec<String> = cluster.keys.iter().map(u8::to_string).collect();
    let mut text = format!("node {}: {ready}, keys {}\n", cluster.node, keys.join(", "));
    if cluster.share < 64 {
        text += &format!("new clients get {}/64 of pool4\n", cluster.share);
    }
    if let Some(error) = &cluster.error {
        text += &format!("  the others cannot be reached: {error}\n");
    }
    if cluster.duplicate {
        text += "  another gateway has this node's number\n";
    }
    for peer in &cluster.peers {
        text += &format!("peer {}: {}\n", peer.node, peer.address);
    }
    for instance in &cluster.instances {
        let ready = if instance.ready { "ready" } else { "not ready" };
        let (name, sessions) = (&instance.name, instance.sessions);
        text += &format!("instance '{name}': {ready}, {sessions} sessions\n");
        for node in &instance.mismatches {
            text +=
                &format!("  pool6, pool4 or global settings differ from those of node {node}\n");
        }
    }
    if cluster.instances.is_empty() {
        text += "no instance takes part; see 'jool global update ss-enabled true'\n";
    }
    let stats = &cluster.stats;
    for (name, value) in [
        ("lag in ms", stats.lag),
        ("changes not told yet", cluster.backlog),
        ("datagrams sent", stats.sent_datagrams),
        ("datagrams not sent", cluster.unsent),
        ("datagrams received", stats.received_datagrams),
        ("authentication failures", stats.auth_failures),
        ("replayed", stats.replayed),
        ("malformed", stats.malformed),
        ("duplicates", stats.duplicates),
        ("gaps", stats.gaps),
        ("repairs", stats.repairs),
        ("conflicts", stats.conflicts),
        ("refused", stats.refused),
        ("drift", stats.drift),
        ("rescans", cluster.rescans),
        ("unknown flows asked about", stats.queries_sent),
        ("of these, known to others", stats.queries_found),
        ("known to nobody", stats.queries_vain),
        ("not answered in time", stats.queries_timed_out),
        ("packets that wait for an answer", cluster.waiting),
        ("packets over the limits", cluster.unasked),
        ("packets that waited too long", cluster.late),
        ("questions of others answered", stats.queries_answered),
    ] {
        text += &format!("{name}: {value}\n");
    }
    text
}

/// Jool's exchange has 6464.
const PORT: &str = "6465";

/// ENOTCONN.
const NOT_CONNECTED: u8 = 107;

#[cfg(test)]
mod tests {
    use super::*;

    fn try_set(words: &str) -> Result<ArgMatches, clap::Error> {
        let words = format!("sync set --node 4 --key k {words}");
        command().try_get_matches_from(words.split_whitespace())
    }

    #[test]
    fn shares_are_counted_from_one() {
        assert_eq!(share("auto"), Ok(ShareMode::Auto));
        assert_eq!(share("2/2"), Ok(ShareMode::Static { index: 1, of: 2 }));
        for bad in ["", "0/2", "3/2", "1/0", "1/65", "1", "a/b"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nodes_are_reached_in_one_way() {
        command().debug_assert();
        assert!(try_set("--group ff02::1:64 --dev eth2").is_ok());
        assert!(try_set("--group ff02::1:64 --dev eth2 --port 7").is_ok());
        assert!(try_set("--bind 10.0.0.4:1 --peer 10.0.0.5:1 --peer 10.0.0.6:1").is_ok());
        for bad in [
            "",
            "--group ff02::1:64",
            "--dev eth2",
            "--peer 10.0.0.5:1",
            "--bind 10.0.0.4:1",
            "--group ff02::1:64 --dev eth2 --bind 10.0.0.4:1 --peer 10.0.0.5:1",
            "--group ff02::1:64 --dev eth2 --node 0",
        ] {
            assert!(try_set(bad).is_err(), "{bad}");
        }
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! `tylo health`: one line and an exit status for a monitoring system.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command as Clap};

use super::client::{Client, ClientError};
use super::run::foreign;
use super::say;
use crate::model::control::{Command, Health, Reply, Request, VERSION};
use crate::model::{DEFAULT_INSTANCE, Flavour};

pub(super) fn command() -> Clap {
    Clap::new("tylo health")
        .about("Says whether the gateway of this network namespace works")
        .version(env!("CARGO_PKG_VERSION"))
        .after_help(
            "Exits with 0 when the daemon answers, its workers run and at least one instance \
             exists; with 1 otherwise, 253 without a daemon. With --ready, also with 1 while this \
             node of a cluster (see 'tylo sync') does not have all sessions yet.",
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print everything that is known, as one JSON object"),
        )
        .arg(
            Arg::new("ready")
                .long("ready")
                .action(ArgAction::SetTrue)
                .help("Ask whether this gateway may become active, for keepalived and the like"),
        )
}

/// The command `tylo health`. `args` begins with its name.
pub(super) fn health(args: impl Iterator<Item = OsString>) -> ExitCode {
    let parsed = command().bin_name("tylo health").try_get_matches_from(args);
    let (json, ready) = match parsed {
        Ok(matches) => (matches.get_flag("json"), matches.get_flag("ready")),
        Err(error) => {
            // Nothing sensible can be done when even this cannot be printed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    let health = match ask() {
        Ok(health) => health,
        Err(error) => {
            say("Error", &error);
            return ExitCode::from(error.code());
        }
    };
    let line = if json {
        serde_json::to_string(&health).unwrap_or_default()
    } else {
        let waits = ready.then(|| unready(&health)).flatten();
        waits.unwrap_or_else(|| summary(&health))
    };
    // The exit status tells, even if nobody reads the line.
    let _ = writeln!(std::io::stdout(), "{line}");
    let sick = !health.ready || health.instances.is_empty();
    ExitCode::from(u8::from(sick || ready && unready(&health).is_some()))
}

/// Why a node of a cluster may not become active, when that is all that is wrong.
fn unready(health: &Health) -> Option<String> {
    let cluster = health.cluster.as_ref().filter(|cluster| !cluster.ready)?;
    if !health.ready || health.instances.is_empty() {
        return None;
    }
    let node = cluster.node;
    let mut why: Vec<String> = cluster.error.iter().cloned().collect();
    for instance in cluster.instances.iter().filter(|i| !i.ready) {
        let name = &instance.name;
        why.push(match instance.mismatches.first() {
            Some(peer) => format!(
                "pool6, pool4 or global settings of '{name}' differ from those of node {peer}"
            ),
            None => format!("'{name}' does not have all sessions yet"),
        });
    }
    if why.is_empty() {
        why.push("it has just begun".to_owned());
    }
    Some(format!("NOT READY: node {node}: {}", why.join("; ")))
}

/// Asks the daemon how it is.
pub(super) fn ask() -> Result<Health, ClientError> {
    let request = Request {
        version: VERSION,
        flavour: Flavour::Nat64,
        instance: DEFAULT_INSTANCE.to_owned(),
        command: Command::Health,
    };
    let mut found = None;
    Client::connect()?.call(&request, |reply| {
        let Reply::Health(health) = reply else {
            return Err(foreign());
        };
        found = Some(*health);
        Ok(())
    })?;
    found.ok_or_else(foreign)
}

fn summary(health: &Health) -> String {
    let sessions: u64 = health.instances.iter().map(|i| i.sessions).sum();
    let state = match (health.ready, health.instances.len()) {
        (false, _) => "FAILED: rules or packet workers are gone, see the log".to_owned(),
        (true, 0) => "IDLE: no instance; add one with 'jool instance add', \
                      'jool_siit instance add' or 'jool_mapt instance add'"
            .to_owned(),
        (true, 1) => format!("OK: 1 instance ({})", names(health)),
        (true, n) => format!("OK: {n} instances ({})", names(health)),
    };
    let storage = if health.ephemeral {
        "nothing is stored (--ephemeral)".to_owned()
    } else {
        let (backlog, lost) = (health.journal_backlog, health.journal_lost);
        format!("{backlog} changes not on disk yet, {lost} lost")
    };
    let lost: u64 = health.instances.iter().map(|i| i.queued.lost()).sum();
    let lost = match lost {
        0 => String::new(),
        lost => format!(", {lost} packets lost in full queues"),
    };
    let open = match (health.sandbox.capabilities, health.sandbox.system_calls) {
        (true, true) => "",
        (true, false) => ", no filter of system calls",
        (false, _) => ", no sandbox",
    };
    format!(
        "{state}, {sessions} sessions, {storage}{lost} (tylod {}, {} rules{open})",
        health.version, health.queue_expression
    )
}

/// The instances; the same name may belong to one of each flavour.
fn names(health: &Health) -> String {
    let instances = health.instances.iter();
    let names: Vec<_> = instances
        .map(|i| format!("{} '{}'", i.flavour.name(), i.name))
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Framework;
    use crate::model::cluster::{ClusterHealth, Reach, ReplicaHealth, Stats};
    use crate::model::control::{InstanceHealth, Queued, Sandbox, Takeover};

    fn sick() -> Health {
        Health {
            version: "1".to_owned(),
            pid: 1,
            began: 0,
            ready: false,
            queue_expression: "native".to_owned(),
            instances: Vec::new(),
            ephemeral: false,
            takeover: Takeover::default(),
            sandbox: Sandbox {
                capabilities: true,
                system_calls: true,
            },
            cluster: None,
            journal_backlog: 2,
            journal_lost: 3,
        }
    }

    #[test]
    fn the_line_says_what_is_wrong() {
        let health = sick();
        assert_eq!(
            summary(&health),
            "FAILED: rules or packet workers are gone, see the log, 0 sessions, 2 changes not on \
             disk yet, 3 lost (tylod 1, native rules)"
        );
        let idle = Health {
            ready: true,
            ephemeral: true,
            ..health
        };
        let line = summary(&idle);
        assert!(line.starts_with("IDLE: no instance;"));
        assert!(
            line.contains(", 0 sessions, nothing is stored (--ephemeral) ("),
            "{line}"
        );
        let mut open = idle;
        open.sandbox.system_calls = false;
        assert!(summary(&open).ends_with("native rules, no filter of system calls)"));
        open.sandbox.capabilities = false;
        assert!(summary(&open).ends_with("native rules, no sandbox)"));
    }

    #[test]
    fn a_node_that_waits_says_what_for() {
        let instance = ReplicaHealth {
            name: "default".to_owned(),
            ready: false,
            sessions: 0,
            mismatches: Vec::new(),
        };
        let mut cluster = ClusterHealth {
            node: 4,
            keys: vec![1],
            reach: Reach::Peers {
                bind: "10.0.0.4:6465".parse().unwrap(),
                peers: Vec::new(),
            },
            ready: false,
            error: None,
            duplicate: false,
            peers: Vec::new(),
            lost: Vec::new(),
            instances: vec![instance],
            share: 64,
            backlog: 0,
            unsent: 0,
            rescans: 0,
            waiting: 0,
            unasked: 0,
            late: 0,
            stats: Stats::default(),
        };
        let says = |cluster: &ClusterHealth, expected: Option<&str>| {
            let health = Health {
                ready: true,
                instances: vec![InstanceHealth {
                    flavour: Flavour::Nat64,
                    name: "default".to_owned(),
                    framework: Framework::Netfilter,
                    queues: (0, 1),
                    tcp_queues: Some((9, 1)),
                    queued: Queued::default(),
                    sessions: 4,
                    sync: None,
                }],
                cluster: Some(Box::new(cluster.clone())),
                ..sick()
            };
            assert_eq!(unready(&health).as_deref(), expected);
            // It comes back as it was sent.
            let json = serde_json::to_string(&health).unwrap();
            assert_eq!(serde_json::from_str::<Health>(&json).unwrap(), health);
        };
        let missing = "NOT READY: node 4: 'default' does not have all sessions yet";
        says(&cluster, Some(missing));
        cluster.instances[0].mismatches.push(5);
        let differs = "NOT READY: node 4: pool6, pool4 or global settings of 'default' differ from those of node 5";
        says(&cluster, Some(differs));
        cluster.instances.clear();
        says(&cluster, Some("NOT READY: node 4: it has just begun"));
        cluster.ready = true;
        says(&cluster, None);
        // What is worse is said elsewhere.
        assert_eq!(unready(&sick()), None);
    }

    #[test]
    fn instances_of_one_name_are_told_apart() {
        let instance = |flavour| InstanceHealth {
            flavour,
            name: "default".to_owned(),
            framework: Framework::Netfilter,
            queues: (0, 1),
            tcp_queues: None,
            queued: Queued::default(),
            sessions: 4,
            sync: None,
        };
        let mut health = Health {
            ready: true,
            instances: vec![instance(Flavour::Siit)],
            ..sick()
        };
        assert!(summary(&health).starts_with("OK: 1 instance (siit 'default'), 4 sessions,"));
        health.instances[0].queued.queue_full = 2;
        health.instances[0].queued.socket_full = 3;
        assert!(summary(&health).contains(" lost, 5 packets lost in full queues (tylod"));
        health.instances.insert(0, instance(Flavour::Nat64));
        assert!(
            summary(&health).starts_with("OK: 2 instances (nat64 'default', siit 'default'), 8")
        );
        let json = serde_json::to_string(&health).unwrap();
        assert!(json.contains(r#"{"flavour":"siit","name":"default""#));
    }
}

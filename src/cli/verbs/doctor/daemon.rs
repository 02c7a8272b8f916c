// SPDX-License-Identifier: GPL-2.0-or-later
//! The daemon, its storage, its queues and its peers.

use std::fs;

use super::Finding;
use super::system::System;
use crate::cli::client::ClientError;
use crate::model::cluster::{ClusterHealth, Reach};

pub(super) fn daemon(system: &System) -> Vec<Finding> {
    let health = match &system.health {
        Ok(health) => health,
        Err(ClientError::NoDaemon) => {
            return vec![Finding::wrong(
                "no tylod runs in this network namespace",
                "systemctl start tylod  # or look elsewhere: ip netns exec NAME tylo doctor",
            )];
        }
        Err(error) => return vec![Finding::wrong(error.to_string(), "journalctl -u tylod")],
    };
    let mut findings = Vec::new();
    if !health.ready {
        findings.push(Finding::wrong(
            "rules or packet workers are gone",
            "journalctl -u tylod; systemctl restart tylod",
        ));
    }
    if health.version != env!("CARGO_PKG_VERSION") {
        findings.push(Finding::doubt(
            format!(
                "tylod is version {}, this command is {}",
                health.version,
                env!("CARGO_PKG_VERSION")
            ),
            "tylo upgrade",
        ));
    }
    if health.instances.is_empty() {
        findings.push(Finding::doubt(
            "there is no instance, so nothing is translated",
            "jool instance add --netfilter --pool6 64:ff9b::/96",
        ));
    }
    if findings.is_empty() {
        let number = health.instances.len();
        findings.push(Finding::fine(format!(
            "tylod {} runs, instances: {number}",
            health.version
        )));
    }
    findings
}

pub(super) fn storage(system: &System) -> Vec<Finding> {
    let Ok(health) = &system.health else {
        return Vec::new();
    };
    if health.ephemeral {
        let what = "nothing is stored (--ephemeral): a restart loses all sessions";
        return vec![Finding::doubt(
            what,
            "systemctl edit tylod  # start it without --ephemeral",
        )];
    }
    let mut findings = Vec::new();
    if health.journal_lost > 0 {
        findings.push(Finding::wrong(
            format!(
                "{} changes could not be stored, and a restart would not know them",
                health.journal_lost
            ),
            "journalctl -u tylod  # once there is room, all of it is written",
        ));
    }
    let dir = system.state_dir.display();
    match rustix::fs::statvfs(&system.state_dir) {
        Ok(stats) => {
            let free = stats.f_bavail.saturating_mul(stats.f_frsize);
            let size = fs::metadata(system.state_dir.join("state.db")).map_or(0, |file| file.len());
            // A log that cannot be moved into the database may grow to its size.
            if free < size.max(ROOM) {
                findings.push(Finding::wrong(
                    format!(
                        "{} MB are free in {dir}, and the database may need {} more",
                        free >> 20,
                        size.max(ROOM) >> 20
                    ),
                    format!("df -h {dir}  # make room, or use another --state-dir"),
                ));
            }
        }
        Err(error) => findings.push(Finding::unknown(
            format!("the free space of {dir} cannot be read: {error}"),
            "tylo doctor --state-dir DIR  # as it is given to tylod",
        )),
    }
    if findings.is_empty() {
        findings.push(Finding::fine(format!(
            "there is room in {dir}, {} changes wait",
            health.journal_backlog
        )));
    }
    findings
}

/// What should be free at least, in bytes: some hundred thousand sessions.
const ROOM: u64 = 64 << 20;

pub(super) fn queue_drops(system: &System) -> Vec<Finding> {
    let Ok(health) = &system.health else {
        return Vec::new();
    };
    let dropped: u64 = health.instances.iter().map(|i| i.queued.lost()).sum();
    if dropped == 0 {
        return vec![Finding::fine("no packet was dropped by a full queue")];
    }
    vec![Finding::doubt(
        format!("{dropped} packets were dropped by full queues since tylod took them over"),
        "top -H -p $(pidof tylod)  # more --workers if there are idle processors",
    )]
}

pub(super) fn cluster(system: &System) -> Vec<Finding> {
    let Some(cluster) = system
        .health
        .as_ref()
        .ok()
        .and_then(|health| health.cluster.as_ref())
    else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    if let Some(error) = &cluster.error {
        findings.push(Finding::wrong(error.clone(), "tylo sync status"));
    }
    if cluster.duplicate {
        findings.push(Finding::wrong(
            format!("another node has the number {}, too", cluster.node),
            "tylo sync set --node N  # a number of its own on each",
        ));
    }
    for replica in cluster
        .instances
        .iter()
        .filter(|i| !i.mismatches.is_empty())
    {
        findings.push(Finding::wrong(
            format!(
                "pool6, pool4 or settings of '{}' differ from those of node {:?}: its sessions \
                 are not shared",
                replica.name, replica.mismatches
            ),
            "tylo export >here.json  # and on the other node: tylo diff here.json",
        ));
    }
    findings.extend(reach(system, cluster));
    if findings.is_empty() {
        let peers = cluster.peers.len();
        findings.push(Finding::fine(format!("other nodes that answer: {peers}")));
    }
    findings
}

/// Whether others can be heard at all.
fn reach(system: &System, cluster: &ClusterHealth) -> Option<Finding> {
    let Reach::Group { device, port, .. } = &cluster.reach else {
        return cluster.peers.is_empty().then(|| {
            let what = "no other node answers";
            Finding::doubt(
                what,
                "tylo sync status  # there as well; do firewalls let UDP through?",
            )
        });
    };
    let link = system
        .links
        .iter()
        .flatten()
        .find(|link| link.name == *device);
    match link {
        None => Some(Finding::wrong(
            format!("the device of the cluster, {device}, is not there"),
            "tylo sync set --dev DEVICE",
        )),
        Some(link) if !link.up => Some(Finding::wrong(
            format!("the device of the cluster, {device}, is down"),
            format!("ip link set {device} up"),
        )),
        Some(link) if !link.multicast => Some(Finding::wrong(
            format!("the device of the cluster, {device}, does no multicast"),
            format!("ip link set {device} multicast on  # or tylo sync set --peer"),
        )),
        Some(_) => cluster.peers.is_empty().then(|| {
            Finding::doubt(
                "no other node answers: it is away, or multicast does not reach it",
                format!(
                    "tcpdump -ni {device} udp port {port}  # on both; IGMP or MLD snooping of the \
                     switch? firewalls?"
                ),
            )
        }),
    }
}

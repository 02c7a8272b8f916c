// SPDX-License-Identifier: GPL-2.0-or-later
//! What commands and the member tell each other.

use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::wire::WireError;
use crate::model::cluster::{ClusterConfig, ClusterHealth};

/// How the node is, for those who ask.
#[derive(Default)]
pub(super) struct View(Mutex<Option<ClusterHealth>>);

impl View {
    /// `alive` says whether the thread still runs.
    pub(super) fn health(&self, config: &ClusterConfig, alive: bool) -> ClusterHealth {
        let seen = self.lock().clone();
        let mut health = seen.unwrap_or_else(|| blank(config));
        if !alive {
            health.ready = false;
            health.error = Some("the thread that shares sessions died".to_owned());
        }
        health
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Option<ClusterHealth>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node that has not looked around yet.
pub(super) fn blank(config: &ClusterConfig) -> ClusterHealth {
    ClusterHealth {
        node: config.node,
        keys: config.keys.iter().map(|key| key.number).collect(),
        reach: config.reach.clone(),
        ready: false,
        error: None,
        duplicate: false,
        peers: Vec::new(),
        lost: Vec::new(),
        instances: Vec::new(),
        share: 0,
        backlog: 0,
        unsent: 0,
        rescans: 0,
        waiting: 0,
        unasked: 0,
        late: 0,
        stats: Default::default(),
    }
}

/// What a command wants the node to be from now on.
#[derive(Default)]
pub(super) struct Orders(Mutex<Option<Order>>);

/// A configuration, and where to say how it goes.
pub(super) type Order = (ClusterConfig, SyncSender<Result<(), WireError>>);

impl Orders {
    pub(super) fn give(&self, config: ClusterConfig, answer: SyncSender<Result<(), WireError>>) {
        *self.lock() = Some((config, answer));
    }

    pub(super) fn take(&self) -> Option<Order> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Order>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

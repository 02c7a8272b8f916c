// SPDX-License-Identifier: GPL-2.0-or-later
//! This gateway as a node of a cluster: [`replica::peer`](crate::replica::peer) in service.
//!
//! ```text
//!   workers, timers, commands ─► Port ─► outlet ─► member: Node ─► socket ─► other nodes
//!                                                    │  ▲             │
//!              journal, followers ◄─ tables ◄────────┘  └─────────────┘
//! ```
//!
//! One thread, the [member](member), owns the node. It holds the locks of the instances while the
//! node works on their tables, never while it reads or sends.
//!
//! The configuration is a file of its own in the state directory, not a table of the database:
//! it holds keys, and databases are copied, exported and attached to reports.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::{self, JoinHandle};

use self::member::{Member, View};
use self::wire::Wire;
use super::gateway::failure;
use super::outlet::{Outlet, outlet};
use super::traffic::Traffic;
use crate::model::cluster::{ClusterConfig, ClusterHealth};
use crate::model::control::Failure;
use crate::nat64::Change;
use crate::store::InstanceId;

mod digest;
mod member;
mod wire;

/// Where changes of tables are handed over.
#[derive(Default)]
pub(super) struct Port {
    open: AtomicBool,
    outlet: RwLock<Option<Outlet<Report>>>,
}

/// Changes of the tables of an instance.
struct Report {
    instance: InstanceId,
    changes: Vec<Change>,
    /// Sessions that are gone ended of themselves.
    expired: bool,
}

impl Port {
    /// Hands over what happened; never waits. To be called while the instance is locked.
    pub(super) fn tell(&self, instance: InstanceId, changes: &[Change], expired: bool) {
        if !self.open.load(Ordering::Relaxed) {
            return;
        }
        let outlet = self.outlet.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(outlet) = &*outlet {
            let report = Report {
                instance,
                changes: changes.to_vec(),
                expired,
            };
            outlet.offer(report, changes.len());
        }
    }

    fn set(&self, outlet: Option<Outlet<Report>>) {
        self.open.store(outlet.is_some(), Ordering::Relaxed);
        *self.outlet.write().unwrap_or_else(PoisonError::into_inner) = outlet;
    }
}

/// The gateway's membership in a cluster.
pub(super) struct Cluster {
    traffic: Arc<Traffic>,
    /// Where the configuration is kept.
    file: Option<PathBuf>,
    running: Mutex<Option<Running>>,
}

struct Running {
    config: ClusterConfig,
    stop: Arc<AtomicBool>,
    view: Arc<View>,
    thread: JoinHandle<()>,
}

impl Cluster {
    pub(super) fn new(traffic: Arc<Traffic>, state_dir: Option<PathBuf>) -> Self {
        Self {
            traffic,
            file: state_dir.map(|dir| dir.join(FILE)),
            running: Mutex::new(None),
        }
    }

    /// Goes on as what this gateway was configured to be.
    pub(super) fn resume(&self) {
        let Some(file) = &self.file else { return };
        let config = match read(file) {
            Ok(Some(config)) => config,
            Ok(None) => return,
            Err(error) => {
                let file = file.display();
                tracing::error!(%file, %error, "no node of a cluster: run 'tylo sync set' again");
                return;
            }
        };
        // An interface may come later.
        let wire = Wire::open(&config.reach);
        if let Err(failure) = self.begin(&mut self.running(), config, wire.ok()) {
            tracing::error!("no node of a cluster: {failure}");
        }
    }

    /// Becomes a node, or one with another configuration.
    pub(super) fn set(&self, config: ClusterConfig) -> Result<(), Failure> {
        let check = config.check();
        check.map_err(|error| failure(libc::EINVAL, error.to_string()))?;
        let mut running = self.running();
        let before = running.take().map(Running::end);
        let back = |running: &mut Option<Running>| {
            if let Some(before) = before {
                let wire = Wire::open(&before.reach).ok();
                // It ran a moment ago; if it does not any more, the error below says enough.
                let _ = self.begin(running, before, wire);
            }
        };
        let wire = match Wire::open(&config.reach) {
            Ok(wire) => wire,
            Err(error) => {
                back(&mut running);
                return Err(failure(
                    libc::EADDRNOTAVAIL,
                    format!("{error}; nothing was changed"),
                ));
            }
        };
        if let Some(file) = &self.file
            && let Err(error) = write(file, &config)
        {
            drop(wire);
            back(&mut running);
            let file = file.display();
            return Err(failure(
                libc::EIO,
                format!("cannot write {file}: {error}; nothing was changed"),
            ));
        }
        self.begin(&mut running, config, Some(wire))
    }

    /// Leaves the cluster for good.
    pub(super) fn off(&self) -> Result<(), Failure> {
        let mut running = self.running();
        if let Some(file) = &self.file {
            match fs::remove_file(file) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    let file = file.display();
                    return Err(failure(libc::EIO, format!("cannot remove {file}: {e}")));
                }
                Ok(()) | Err(_) => {}
            }
        }
        self.traffic.cluster.set(None);
        let before = running.take().map(Running::end);
        match before {
            Some(_) => Ok(()),
            None => Err(failure(
                libc::ENOTCONN,
                "this gateway is no node of a cluster",
            )),
        }
    }

    /// Takes leave of the others, until the next start.
    pub(super) fn stop(&self) {
        self.traffic.cluster.set(None);
        self.running().take().map(Running::end);
    }

    pub(super) fn health(&self) -> Option<ClusterHealth> {
        let running = self.running();
        let running = running.as_ref()?;
        let (alive, config) = (!running.thread.is_finished(), &running.config);
        Some(running.view.health(config, alive))
    }

    fn begin(
        &self,
        running: &mut Option<Running>,
        config: ClusterConfig,
        wire: Option<Wire>,
    ) -> Result<(), Failure> {
        let stop = Arc::<AtomicBool>::default();
        let view = Arc::<View>::default();
        let (outlet, inlet) = outlet();
        let traffic = Arc::clone(&self.traffic);
        let member = Member::new(traffic, &config, wire, inlet, Arc::clone(&view));
        let member = member.map_err(|e| failure(libc::EIO, format!("no random numbers: {e}")))?;
        // Before the first look at the tables: nothing that happens behind it is missed.
        self.traffic.cluster.set(Some(outlet));
        let ends = Arc::clone(&stop);
        let thread = thread::Builder::new().name("tylo-cluster".to_owned());
        let thread = thread.spawn(move || member.run(&ends)).map_err(|e| {
            self.traffic.cluster.set(None);
            failure(libc::EAGAIN, format!("there can be no more threads: {e}"))
        })?;
        tracing::info!(
            node = config.node,
            "sessions are shared with other gateways"
        );
        *running = Some(Running {
            config,
            stop,
            view,
            thread,
        });
        Ok(())
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// Returns what it was.
    fn end(self) -> ClusterConfig {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            tracing::error!("the thread that shares sessions died; please report this");
        }
        tracing::info!("sessions are not shared any more");
        self.config
    }
}

fn read(file: &Path) -> Result<Option<ClusterConfig>, String> {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    // What serde says may quote what it read.
    let config: ClusterConfig = serde_json::from_slice(&text)
        .map_err(|e| format!("line {} column {} makes no sense", e.line(), e.column()))?;
    config.check().map_err(|error| error.to_string())?;
    Ok(Some(config))
}

/// Replaces the file at once or not at all; nobody else may read it.
fn write(file: &Path, config: &ClusterConfig) -> io::Result<()> {
    let new = file.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = fs::OpenOptions::new();
    let mut out = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    out.write_all(&serde_json::to_vec_pretty(config)?)?;
    out.sync_all()?;
    fs::rename(&new, file)?;
    let dir = file.parent().map(fs::File::open).transpose()?;
    dir.map_or(Ok(()), |dir| dir.sync_all())
}

const FILE: &str = "sync.json";

#[cfg(test)]
mod tests;

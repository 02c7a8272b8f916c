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
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use self::member::Member;
use self::view::{Orders, View};
use self::wire::Wire;
use super::gateway::failure;
use super::outlet::{Inlet, Outlet, outlet};
use super::traffic::Traffic;
use crate::model::cluster::{ClusterConfig, ClusterHealth, ShareMode};
use crate::model::control::Failure;
use crate::nat64::Change;
use crate::replica::peer::Share;
use crate::store::InstanceId;

mod digest;
mod held;
mod member;
mod view;
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
    state: Mutex<State>,
}

#[derive(Default)]
enum State {
    #[default]
    Off,
    /// Configured; changes of tables are kept until it runs.
    Prepared(ClusterConfig, Inlet<Report>),
    Running(Running),
}

struct Running {
    config: ClusterConfig,
    stop: Arc<AtomicBool>,
    view: Arc<View>,
    orders: Arc<Orders>,
    thread: JoinHandle<()>,
}

impl Cluster {
    pub(super) fn new(traffic: Arc<Traffic>, state_dir: Option<PathBuf>) -> Self {
        Self {
            traffic,
            file: state_dir.map(|dir| dir.join(FILE)),
            state: Mutex::default(),
        }
    }

    /// Has changes of tables kept for the node that this gateway was configured to be. To be
    /// called before there are packets: what they do then is not to be taken for something old.
    pub(super) fn prepare(&self) {
        let Some(file) = &self.file else { return };
        match read(file) {
            Ok(Some(config)) => {
                let (outlet, inlet) = outlet();
                self.traffic.cluster.set(Some(outlet));
                if config.share != ShareMode::Whole {
                    // Nothing is given away before it is known what may be.
                    for slot in self.traffic.slots().iter() {
                        if slot.read().settings().ss_enabled {
                            held::restrict(slot, Share::NONE);
                        }
                    }
                }
                *self.state() = State::Prepared(config, inlet);
            }
            Ok(None) => {}
            Err(error) => {
                let file = file.display();
                tracing::error!(%file, error, "no node of a cluster: run 'tylo sync set' again");
            }
        }
    }

    /// Goes on as what this gateway was configured to be.
    pub(super) fn resume(&self) {
        let mut state = self.state();
        if let State::Prepared(config, inlet) = std::mem::take(&mut *state) {
            // An interface may come later.
            let wire = Wire::open(&config.reach).ok();
            match self.begin(config, wire, inlet) {
                Ok(running) => *state = State::Running(running),
                Err(failure) => tracing::error!("no node of a cluster: {failure}"),
            }
        }
    }

    /// Becomes a node, or one with another configuration.
    pub(super) fn set(&self, config: ClusterConfig) -> Result<(), Failure> {
        let check = config.check();
        check.map_err(|error| failure(libc::EINVAL, error.to_string()))?;
        let mut state = self.state();
        let unreachable =
            |error| failure(libc::EADDRNOTAVAIL, format!("{error}; nothing was changed"));
        if let State::Running(running) = &mut *state
            && (running.config.node, running.config.share) == (config.node, config.share)
            && !running.thread.is_finished()
        {
            // The node lives on: one that begins anew believes nothing of what it has.
            let (answer, answers) = sync_channel(1);
            running.orders.give(config.clone(), answer);
            let answer = answers.recv_timeout(PATIENCE);
            let answer = answer.map_err(|_| {
                failure(
                    libc::ETIMEDOUT,
                    "the thread that shares sessions does not answer; look at the log",
                )
            })?;
            answer.map_err(unreachable)?;
            running.config = config;
        } else {
            if let State::Running(running) = std::mem::take(&mut *state) {
                running.end();
            }
            let wire = Wire::open(&config.reach).map_err(|error| {
                self.traffic.cluster.set(None);
                self.unite();
                failure(
                    libc::EADDRNOTAVAIL,
                    format!("{error}; this gateway is no node of a cluster now"),
                )
            })?;
            let (outlet, inlet) = outlet();
            // Before the first look at the tables: nothing that happens behind it is missed.
            self.traffic.cluster.set(Some(outlet));
            *state = State::Running(self.begin(config.clone(), Some(wire), inlet)?);
            return self.keep(&config);
        }
        let State::Running(running) = &*state else {
            return Ok(());
        };
        self.keep(&running.config)
    }

    /// Has the configuration outlive the daemon.
    fn keep(&self, config: &ClusterConfig) -> Result<(), Failure> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        write(file, config).map_err(|error| {
            let file = file.display();
            failure(
                libc::EIO,
                format!(
                    "cannot write {file}: {error}; this is in force but does not outlive the daemon"
                ),
            )
        })
    }

    /// Leaves the cluster for good.
    pub(super) fn off(&self) -> Result<(), Failure> {
        let mut state = self.state();
        if let Some(file) = &self.file {
            match fs::remove_file(file) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    let file = file.display();
                    return Err(failure(libc::EIO, format!("cannot remove {file}: {e}")));
                }
                Ok(()) | Err(_) => {}
            }
        }
        let was = self.leave(&mut state);
        self.unite();
        match was {
            true => Ok(()),
            false => Err(failure(
                libc::ENOTCONN,
                "this gateway is no node of a cluster",
            )),
        }
    }

    /// All of pool4 is for the clients of this gateway again.
    fn unite(&self) {
        for slot in self.traffic.slots().iter() {
            held::restrict(slot, Share::WHOLE);
        }
    }

    /// Takes leave of the others, until the next start.
    pub(super) fn stop(&self) {
        self.leave(&mut self.state());
    }

    /// Whether it was a node.
    fn leave(&self, state: &mut State) -> bool {
        let running = match std::mem::take(state) {
            State::Running(running) => Some(running),
            State::Prepared(..) | State::Off => None,
        };
        let was = running.is_some();
        // It still hears what happened before.
        if let Some(running) = running {
            running.end();
        }
        self.traffic.cluster.set(None);
        was
    }

    pub(super) fn health(&self) -> Option<ClusterHealth> {
        match &*self.state() {
            State::Running(running) => {
                let alive = !running.thread.is_finished();
                Some(running.view.health(&running.config, alive))
            }
            State::Prepared(config, _) => Some(View::default().health(config, true)),
            State::Off => None,
        }
    }

    fn begin(
        &self,
        config: ClusterConfig,
        wire: Option<Wire>,
        inlet: Inlet<Report>,
    ) -> Result<Running, Failure> {
        let stop = Arc::<AtomicBool>::default();
        let (view, orders) = (Arc::<View>::default(), Arc::<Orders>::default());
        let traffic = Arc::clone(&self.traffic);
        let asked = (Arc::clone(&view), Arc::clone(&orders));
        let member = Member::new(traffic, &config, wire, inlet, asked.0, asked.1);
        let member = member.map_err(|e| failure(libc::EIO, format!("no random numbers: {e}")))?;
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
        Ok(Running {
            config,
            stop,
            view,
            orders,
            thread,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            tracing::error!("the thread that shares sessions died; please report this");
        }
        tracing::info!("sessions are not shared any more");
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

/// How long a command waits for the member.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;

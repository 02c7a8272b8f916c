// SPDX-License-Identifier: GPL-2.0-or-later
//! The sessions of an instance, exchanged with other gateways.
//!
//! ```text
//!   workers ─► Port ─► outlet ─► speaker: queue ─► socket ─► peers
//!                                  ▲
//!   'session advertise' ──► walker ┘        peers ─► socket ─► listener ─► tables ─► journal, followers
//! ```
//!
//! It lasts as long as the command `session proxy`, which listens to empty lines meanwhile. The
//! thread that serves the command is the speaker. No instance is locked during a system call, and
//! what packets do to the tables waits for nobody: what peers cannot be told fast enough is
//! counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use self::listener::Listener;
use self::speaker::Speaker;
use super::gateway::{Gateway, failure, stateful};
use super::news::News;
use super::outlet::{Inlet, Outlet, outlet};
use super::traffic::Slot;
use crate::model::control::{Failure, Reply};
use crate::model::sync::{Network, SyncHealth, Traffic as Counts};
use crate::nat64::Change;
use crate::nat64::tcp::Lifetime;
use crate::replica::Socket;
use crate::replica::socket::SocketError;
use crate::replica::stats::Server;

mod listener;
mod speaker;
mod walker;

/// Where what packets do to the sessions of an instance is handed over.
#[derive(Default)]
pub(super) struct Port {
    open: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// For good.
    closed: bool,
    talk: Option<(Outlet<Arc<News>>, Arc<Talk>)>,
}

/// An exchange that is under way.
struct Talk {
    network: Network,
    counts: Mutex<Counts>,
    /// All sessions are to be told, or being told.
    advertising: AtomicBool,
    /// The threads shall end.
    ended: AtomicBool,
}

impl Port {
    /// Whether anybody wants to hear.
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Hands over what packets did; never waits.
    pub(super) fn tell(&self, news: &Arc<News>) {
        if let Some((outlet, _)) = &self.state().talk {
            let lines = news.changes.iter().filter(|c| is_told(c)).count();
            outlet.offer(Arc::clone(news), lines);
        }
    }

    /// Ends the exchange, for good.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.talk = None;
        self.open.store(false, Ordering::Relaxed);
    }

    /// How the exchange goes, if there is one.
    pub(super) fn health(&self, enabled: bool) -> Option<SyncHealth> {
        let talk = Arc::clone(&self.state().talk.as_ref()?.1);
        let (network, traffic) = (&talk.network, *talk.counts());
        Some(SyncHealth {
            group: network.group,
            port: network.port,
            format: network.format,
            enabled,
            advertising: talk.advertising.load(Ordering::Relaxed),
            traffic,
        })
    }

    /// Begins an exchange; `Ok(None)` when there never will be one. A command that was just ended
    /// may not be noticed to be gone yet.
    fn begin(&self, name: &str, network: Network) -> Result<Option<Guard<'_>>, Failure> {
        let end = Instant::now() + GONE_WITHIN;
        loop {
            let mut state = self.state();
            if state.closed {
                return Ok(None);
            }
            let Some((_, other)) = &state.talk else {
                let (outlet, inlet) = outlet();
                let talk = Arc::new(Talk {
                    network,
                    counts: Mutex::default(),
                    advertising: AtomicBool::new(false),
                    ended: AtomicBool::new(false),
                });
                state.talk = Some((outlet, Arc::clone(&talk)));
                self.open.store(true, Ordering::Relaxed);
                return Ok(Some(Guard {
                    port: self,
                    talk,
                    inlet,
                }));
            };
            if Instant::now() >= end {
                let Network { group, port, .. } = other.network;
                return Err(failure(
                    libc::EBUSY,
                    format!(
                        "the sessions of instance '{name}' are exchanged by another 'session proxy' already, with the group {group} port {port}; end that one first"
                    ),
                ));
            }
            drop(state);
            thread::sleep(LOOK_AGAIN);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Talk {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An exchange's own end; dropping it ends the exchange.
struct Guard<'a> {
    port: &'a Port,
    talk: Arc<Talk>,
    inlet: Inlet<Arc<News>>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.port.state().talk = None;
        self.port.open.store(false, Ordering::Relaxed);
    }
}

impl Gateway {
    /// Exchanges the sessions of an instance until nobody listens, or there is nothing left to
    /// exchange.
    pub(super) fn exchange(
        &self,
        slot: &Slot,
        network: Network,
        reply: &mut dyn FnMut(Reply) -> bool,
    ) -> Result<(), Failure> {
        let (pool6, enabled) = {
            let mut instance = slot.lock();
            stateful(&mut instance)?;
            (instance.settings().pool6, instance.settings().ss_enabled)
        };
        let guard = slot.sync.begin(&slot.name, network)?;
        let (Some(mut guard), Some(pool6)) = (guard, pool6) else {
            return Err(self.over(slot));
        };
        let talk = Arc::clone(&guard.talk);
        let socket = Socket::join(&talk.network).map_err(unreachable)?;
        let server = talk.network.stats.map(Server::bind).transpose();
        let server = server.map_err(|e| failure(libc::EADDRINUSE, e.to_string()))?;
        let Network {
            group,
            port,
            format,
            ..
        } = talk.network;
        tracing::info!(
            instance = slot.name,
            %group,
            port,
            format = format.name(),
            "sessions are exchanged with other gateways"
        );
        if !enabled {
            tracing::warn!(
                instance = slot.name,
                "session synchronisation is off; 'jool global update ss-enabled true' switches it on"
            );
        }
        let heard = thread::scope(|scope| {
            let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
            let (talk, socket) = (&*talk, &socket);
            let result = spawn("tylo-sync-in").spawn_scoped(scope, move || {
                Listener::new(&self.traffic, slot, talk, pool6).listen(socket);
            });
            let result = result.and_then(|_| match &server {
                Some(server) => spawn("tylo-sync-stats")
                    .spawn_scoped(scope, || server.serve(&talk.ended, || *talk.counts()))
                    .map(drop),
                None => Ok(()),
            });
            let heard = result.map(|()| {
                let speaker = Speaker::new(slot, talk, socket, pool6);
                speaker.speak(scope, &mut guard.inlet, reply)
            });
            talk.ended.store(true, Ordering::Relaxed);
            // Whoever waits for the end is waiting already.
            socket.close();
            if let Some(server) = &server {
                server.wake();
            }
            heard
        });
        tracing::info!(instance = slot.name, "sessions are not exchanged any more");
        match heard {
            Ok(speaker::End::NobodyListens) => Ok(()),
            Ok(speaker::End::NothingLeft) => Err(self.over(slot)),
            Ok(speaker::End::Cut(error)) => Err(unreachable(error)),
            Err(error) => Err(failure(
                libc::EAGAIN,
                format!("there can be no more threads: {error}"),
            )),
        }
    }

    /// Has all sessions of an instance told to other gateways.
    //= jool#session-advertise
    pub(super) fn advertise(&self, slot: &Slot) -> Result<(), Failure> {
        let name = &slot.name;
        {
            let mut instance = slot.lock();
            stateful(&mut instance)?;
            if !instance.settings().ss_enabled {
                return Err(failure(
                    libc::EINVAL,
                    format!(
                        "session synchronisation is off for instance '{name}'; 'jool global update ss-enabled true' switches it on"
                    ),
                ));
            }
        }
        let state = slot.sync.state();
        let Some((_, talk)) = &state.talk else {
            return Err(failure(
                libc::ENOTCONN,
                format!(
                    "the sessions of instance '{name}' are not exchanged with anybody; run 'jool session proxy' first"
                ),
            ));
        };
        if talk.advertising.swap(true, Ordering::Relaxed) {
            let error = crate::replica::joold::queue::InProgress;
            return Err(failure(libc::EINVAL, error.to_string()));
        }
        Ok(())
    }

    /// Why an exchange or a following came to its end.
    pub(super) fn over(&self, slot: &Slot) -> Failure {
        let name = &slot.name;
        let removed = self.traffic.slots().iter().all(|s| s.id != slot.id);
        if removed {
            failure(libc::ESRCH, format!("instance '{name}' was removed"))
        } else {
            failure(libc::ESHUTDOWN, "tylod was stopped")
        }
    }
}

/// Whether peers hear of a change. What waits for its client alone, they do not: the packet that
/// is held back is here.
//= jool#session-queue
fn is_told(change: &Change) -> bool {
    match change {
        Change::Session { session, .. } => session.lifetime != Lifetime::TcpIncomingSyn,
        Change::Mapping(_)
        | Change::MappingFixed(_)
        | Change::MappingGone { .. }
        | Change::SessionGone { .. } => false,
    }
}

fn unreachable(error: SocketError) -> Failure {
    let code = match error {
        SocketError::NoInterface(_) | SocketError::Replaced(_) => libc::ENODEV,
        SocketError::NoAddress(_) => libc::EADDRNOTAVAIL,
        SocketError::Family(_) | SocketError::NoLink(_) => libc::EINVAL,
        SocketError::Join(..) | SocketError::Other(..) => libc::EIO,
    };
    failure(code, error.to_string())
}

/// How long it may take to notice that a command is gone.
const GONE_WITHIN: Duration = Duration::from_secs(3);

const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests;

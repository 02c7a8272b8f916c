// SPDX-License-Identifier: GPL-2.0-or-later
//! Tells a service manager that waits for it (systemd's `WatchdogSec=`) that packets and commands
//! are still taken.
//!
//! The main loop says so, between all else that it does, and only while every worker comes round.
//! When it falls silent, the service manager starts another daemon; packets wait for that one.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::dataplane::{Dataplane, monotonic};

pub(super) struct Watchdog(Option<Interval>);

impl Watchdog {
    /// As the service manager asks for it, if there is one.
    pub(super) fn from_environment() -> Self {
        Self(sd_notify::watchdog_enabled().map(|limit| {
            // Twice within the time, at least.
            let mut every = interval((limit / 2).max(Duration::from_millis(1)));
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            every
        }))
    }

    /// Returns when the service manager is to hear something.
    pub(super) async fn tick(&mut self) {
        match &mut self.0 {
            Some(every) => drop(every.tick().await),
            None => std::future::pending().await,
        }
    }

    /// Says that all is well, if it is.
    pub(super) fn report(&self, dataplane: &Dataplane) {
        let Some(every) = &self.0 else { return };
        match dataplane.stuck(monotonic(), every.period()) {
            None => {
                // Another one comes before the time is over.
                let _ = sd_notify::notify(&[NotifyState::Watchdog]);
            }
            Some(worker) => tracing::error!(worker, "a worker is stuck"),
        }
    }

    /// Waits for what another thread does for the main loop. A slow disk may take its time, but not
    /// for ever.
    ///
    /// # Errors
    /// It panicked.
    pub(super) async fn patiently<T>(
        &mut self,
        mut chore: JoinHandle<T>,
        dataplane: &Dataplane,
    ) -> Result<T, tokio::task::JoinError> {
        let begin = Instant::now();
        loop {
            tokio::select! {
                done = &mut chore => return done,
                () = self.tick() => {
                    if begin.elapsed() < PATIENCE {
                        self.report(dataplane);
                    }
                }
            }
        }
    }
}

/// How long something of the main loop may take before that counts as stuck.
const PATIENCE: Duration = Duration::from_secs(300);

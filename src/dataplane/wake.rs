// SPDX-License-Identifier: GPL-2.0-or-later
//! What wakes a worker that waits for packets.

use std::io;
use std::os::fd::OwnedFd;

use super::{Dataplane, Error};

/// Wakes the worker that calls [`Handler::tick`](super::Handler::tick).
pub struct Waker(Option<OwnedFd>);

impl Waker {
    /// Has [`Handler::tick`](super::Handler::tick) called at once; by a worker that has died, never.
    pub fn wake(&self) {
        if let Some(event) = &self.0 {
            // Otherwise it is called a moment later anyway.
            let _ = wake(event);
        }
    }
}

impl Dataplane {
    /// Who has [`Handler::tick`](super::Handler::tick) called at once.
    ///
    /// # Errors
    /// A descriptor cannot be duplicated.
    pub fn waker(&self) -> Result<Waker, Error> {
        let event = self.workers.first().map(|hand| hand.wake.try_clone());
        let event = event.transpose();
        event
            .map(Waker)
            .map_err(Error::system("duplicate an event"))
    }
}

pub(super) fn wake(event: &OwnedFd) -> io::Result<()> {
    match rustix::io::write(event, &1_u64.to_ne_bytes()) {
        // The counter is at its limit, so the worker has been woken.
        Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

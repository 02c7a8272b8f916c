// SPDX-License-Identifier: GPL-2.0-or-later
//! Descriptors that one program leaves to the next, so that packets wait in the kernel meanwhile
//! instead of finding nobody there.

use std::os::fd::{AsFd as _, OwnedFd};

use super::queue;
use super::{Error, sys};

/// Queues of the TUN device and sockets of kernel queues.
#[derive(Debug, Default)]
pub struct Inherited {
    /// One for each worker.
    pub(super) tuns: Vec<OwnedFd>,
    /// With the number of the queue.
    pub(super) queues: Vec<(u16, OwnedFd)>,
}

impl Inherited {
    /// Takes a descriptor by the name that [`Inherited::into_named`] gave it; gives it back when it
    /// is not one of these.
    ///
    /// # Errors
    /// It is not what its name says.
    pub fn take(&mut self, name: &str, fd: OwnedFd) -> Result<Option<OwnedFd>, Error> {
        if name == TUN {
            self.tuns.push(fd);
            return Ok(None);
        }
        let number = name.strip_prefix(QUEUE).and_then(|n| n.parse().ok());
        let Some(number) = number else {
            return Ok(Some(fd));
        };
        if !queue::is_socket_of(fd.as_fd(), number)? {
            return Err(Error::Adopt(number));
        }
        self.queues.push((number, fd));
        Ok(None)
    }

    /// All descriptors, with names.
    pub fn into_named(self) -> impl Iterator<Item = (String, OwnedFd)> {
        let tuns = self.tuns.into_iter().map(|fd| (TUN.to_owned(), fd));
        let queues = self.queues.into_iter();
        tuns.chain(queues.map(|(number, fd)| (format!("{QUEUE}{number}"), fd)))
    }

    /// The queues of a device, when there are exactly as many as wanted; others would leave
    /// packets waiting for nobody, so they are closed.
    pub(super) fn take_tuns(&mut self, device: &str, count: usize) -> Option<Vec<OwnedFd>> {
        let tuns = std::mem::take(&mut self.tuns);
        let name = sys::device_name(device);
        let fits = |fd: &OwnedFd| sys::tun_name(fd.as_fd()).ok() == name;
        (tuns.len() == count && tuns.iter().all(fits)).then_some(tuns)
    }

    pub(super) fn take_queue(&mut self, number: u16) -> Option<OwnedFd> {
        let position = self.queues.iter().position(|(n, _)| *n == number)?;
        Some(self.queues.swap_remove(position).1)
    }
}

/// The name of a queue of the TUN device.
const TUN: &str = "tun";

/// The name of a kernel queue begins with this and ends with its number.
const QUEUE: &str = "queue-";

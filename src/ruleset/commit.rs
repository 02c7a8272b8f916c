// SPDX-License-Identifier: GPL-2.0-or-later
//! Sends a batch of nftables changes to the kernel, which carries out all of it or nothing.

use std::hash::Hasher as _;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use nftnl::{Batch, MsgType, NlMsg};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg, sockopt};
use siphasher::sip::SipHasher13;

use super::Error;

/// Room for the whole batch and for the answers to it, in bytes.
const SOCKET_BUFFER: usize = 64 << 20;

/// The kernel answers while it carries out the batch, so an answer is there at once.
const TIMEOUT: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// A batch that remembers what each message is about.
pub(super) struct Changes {
    batch: Batch,
    about: Vec<String>,
    sets: u32,
    /// Chains may be there already, and get other rules.
    pub(super) refill: bool,
}

impl Changes {
    pub(super) fn new() -> Self {
        Self {
            batch: Batch::new(),
            about: Vec::new(),
            sets: 0,
            refill: false,
        }
    }

    /// A number for a set that no other set of the batch has, in whatever table.
    pub(super) const fn next_set(&mut self) -> u32 {
        self.sets += 1;
        self.sets
    }

    pub(super) fn add(&mut self, message: &impl NlMsg, about: impl Into<String>) {
        self.batch.add(message, MsgType::Add);
        self.about.push(format!("add {}", about.into()));
    }

    pub(super) fn delete(&mut self, message: &impl NlMsg, about: impl Into<String>) {
        self.batch.add(message, MsgType::Del);
        self.about.push(format!("delete {}", about.into()));
    }

    /// A number that two batches share only when they say the same.
    pub(super) fn fingerprint(self) -> u64 {
        let mut hasher = SipHasher13::new();
        let batch = self.batch.finalize();
        batch.iter().for_each(|page| hasher.write(page));
        hasher.finish()
    }

    /// Sends everything as one datagram: pages sent one by one overflow the socket when there
    /// are many.
    pub(super) fn commit(self, socket: BorrowedFd<'_>) -> Result<(), Error> {
        // After an error, the rest of the answers is still there.
        let mut stale = [0; 4096];
        while recv(socket, &mut stale[..], RecvFlags::DONTWAIT).is_ok() {}
        // Without the right to exceed the limits, small batches still fit.
        let _ = sockopt::set_socket_send_buffer_size_force(socket, SOCKET_BUFFER)
            .or_else(|_| sockopt::set_socket_send_buffer_size(socket, SOCKET_BUFFER));
        let _ = sockopt::set_socket_recv_buffer_size_force(socket, SOCKET_BUFFER)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(socket, SOCKET_BUFFER));
        let batch = self.batch.finalize();
        let pages: Vec<_> = batch.iter().map(IoSlice::new).collect();
        sendmsg(
            socket,
            &pages,
            &mut SendAncillaryBuffer::default(),
            SendFlags::empty(),
        )
        .map_err(|error| Error::Socket(error.into()))?;

        // Newer kernels also acknowledge the begin and the end of the batch, which are numbered
        // as well then.
        let mut numbers = batch.sequence_numbers();
        let first = numbers.start + u32::from(numbers.len() > self.about.len());
        let about = |number: u32| {
            let index = number.checked_sub(first).map(|index| index as usize);
            index
                .and_then(|index| self.about.get(index))
                .map_or("commit the batch", String::as_str)
        };
        let mut buffer = vec![0; 1 << 16];
        while !numbers.is_empty() {
            let mut ready = [PollFd::new(&socket, PollFlags::IN)];
            if poll(&mut ready, Some(&TIMEOUT)).is_ok_and(|count| count == 0) {
                return Err(Error::Socket(io::ErrorKind::TimedOut.into()));
            }
            let (_, length) = match recv(socket, &mut buffer[..], RecvFlags::empty()) {
                Ok(length) => length,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(Error::Socket(error.into())),
            };
            let mut rest = &buffer[..length.min(buffer.len())];
            while let Some((answer, next)) = answer(rest) {
                rest = next;
                if answer.errno == libc::EPERM {
                    return Err(Error::Permission);
                }
                if answer.errno != 0 {
                    return Err(Error::Refused(
                        about(answer.number).to_owned(),
                        io::Error::from_raw_os_error(answer.errno),
                    ));
                }
                numbers.next();
            }
        }
        Ok(())
    }
}

/// A socket for batches.
pub(super) fn socket() -> Result<OwnedFd, Error> {
    let socket = mnl::Socket::new(mnl::Bus::Netfilter).map_err(Error::Socket)?;
    // The duplicate stands for the same socket and can be handed to other threads.
    descriptor(&socket)
        .try_clone_to_owned()
        .map_err(Error::Socket)
}

#[allow(unsafe_code)]
fn descriptor(socket: &mnl::Socket) -> BorrowedFd<'_> {
    // Safety: the socket keeps its descriptor open as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

/// What the kernel says to one message.
struct Answer {
    number: u32,
    /// 0 for success.
    errno: i32,
}

/// Takes the first answer off; `None` at the end.
fn answer(bytes: &[u8]) -> Option<(Answer, &[u8])> {
    // struct nlmsghdr (length, type, flags, sequence number, port), then struct nlmsgerr.
    let word = |at: usize| -> Option<[u8; 4]> { bytes.get(at..at + 4)?.try_into().ok() };
    let length = u32::from_ne_bytes(word(0)?) as usize;
    let number = u32::from_ne_bytes(word(8)?);
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    // Nothing but errors and acknowledgements is asked for.
    let errno = if i32::from(kind) == libc::NLMSG_ERROR {
        i32::from_ne_bytes(word(16)?).wrapping_neg()
    } else {
        0
    };
    let next = bytes.get(length.next_multiple_of(4).max(16)..);
    Some((Answer { number, errno }, next.unwrap_or_default()))
}

/// What is made of a datagram from the kernel, for fuzz targets.
#[cfg(any(fuzzing, test))]
pub(super) fn understand(bytes: &[u8]) {
    let mut rest = bytes;
    while let Some((_, next)) = answer(rest) {
        assert!(next.len() < rest.len());
        rest = next;
    }
}

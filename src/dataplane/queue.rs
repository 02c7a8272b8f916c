// SPDX-License-Identifier: GPL-2.0-or-later
//! One kernel queue: set up by the `nfq` crate, then read in bursts through a descriptor of our
//! own, because that crate (0.2.5) shows no descriptor and knows no batch verdicts.
//!
//! Two traps lie in wait where the rules exist already, that is after a restart, because packets
//! arrive as soon as the queue is bound:
//! - While the crate waits for the acknowledgement of a setting, it throws packets away; they stay
//!   in the kernel without a verdict. Ids ascend within a queue, so the first batch verdict,
//!   which is given whatever the handler says, drops them with the rest.
//! - If packets fill the socket, the acknowledgement is lost and the crate waits for ever. So the
//!   socket gets its large buffer, which the 1,024 packets of an unset queue do not fill, before
//!   it is bound, and a time limit.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Once};
use std::time::Duration;

use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, SendFlags, getsockname, send, sockopt};
use socket2::{Domain, Socket, Type};

use super::message::{self, Datagram, Queued, Verdicts, parse};
use super::plain::Plain;
use super::{BURST, Error, Verdict, patiently, sys};

/// Room for the packets that wait in the socket, in bytes; the kernel doubles it. The default
/// overflows at a few hundred small packets, this takes some 2,000 super-packets.
const RECEIVE_BUFFER: usize = 64 << 20;

/// How many packets are taken from a queue of super-packets at once: a megabyte, most of which a
/// processor still has in a cache when what became of it is written.
const TCP_BURST: usize = 16;

/// Room for one message: the longest packet that is copied, and its attributes.
pub(super) const STRIDE: usize = (1 << 16) + 1024;

/// How many packets may wait while one program follows another: half a second of a busy gateway's.
const LONG: u32 = 1 << 16;

/// How long the kernel may take to acknowledge a setting; it does so at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the kernel lists its queues. `/proc/net` would be that of the main thread.
const LIST: &str = "/proc/thread-self/net/netfilter/nfnetlink_queue";

/// What went wrong on a queue, counted by its worker.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Receives that the kernel answered with ENOBUFS: packets were lost before.
    pub(super) overruns: AtomicU64,
    /// Messages that could not be read, and packets too long to be copied; all dropped.
    pub(super) malformed: AtomicU64,
    /// Super-packets received.
    pub(super) super_packets: AtomicU64,
    /// Packets given back to be cut.
    pub(super) cut: AtomicU64,
}

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Anything; the kernel cuts super-packets and completes checksums first.
    Plain,
    /// TCP as it comes. What we cannot handle like that goes through the plain queue named here.
    Tcp(u16),
}

/// How a queue is read.
enum Way {
    Socket(OwnedFd),
    /// Its descriptor cannot be told from others.
    Crate(Box<Plain>),
}

/// A queue socket, ready to be read.
pub(super) struct Queue {
    pub(super) slot: usize,
    pub(super) number: u16,
    kind: Kind,
    way: Way,
    pub(super) faults: Arc<Faults>,
    verdicts: Verdicts,
    /// No batch verdict was given yet.
    fresh: bool,
    /// More may wait than usual, and this is what is usual.
    long: Option<u32>,
}

impl Queue {
    /// Opens queue `number`; waits a little when a predecessor is just letting go of it.
    pub(super) fn open(slot: usize, number: u16, kind: Kind, length: u32) -> Result<Self, Error> {
        patiently(
            || Self::try_open(slot, number, kind, length),
            |error| matches!(error, Error::QueueBusy(_)),
        )
    }

    /// Goes on with a queue that a predecessor left, every packet of which has had its verdict or
    /// was not read yet.
    pub(super) fn inherit(
        slot: usize,
        number: u16,
        kind: Kind,
        socket: OwnedFd,
        length: u32,
    ) -> Self {
        Self {
            slot,
            number,
            kind,
            way: Way::Socket(socket),
            faults: Arc::default(),
            verdicts: Verdicts::default(),
            fresh: false,
            long: Some(length),
        }
    }

    /// Another descriptor of the socket, which keeps the queue as it is while nobody reads it; if
    /// it is known.
    pub(super) fn keep(&self) -> io::Result<Option<OwnedFd>> {
        self.socket().map(OwnedFd::try_clone).transpose()
    }

    /// What says that there are packets, if it is known.
    pub(super) fn socket(&self) -> Option<&OwnedFd> {
        match &self.way {
            Way::Socket(socket) => Some(socket),
            Way::Crate(_) => None,
        }
    }

    /// When to look for packets at the latest, in milliseconds from now: nothing says that there
    /// are any.
    pub(super) const fn impatience(&self) -> Option<u64> {
        match &self.way {
            Way::Socket(_) => None,
            Way::Crate(plain) => Some(plain.impatience()),
        }
    }

    fn try_open(slot: usize, number: u16, kind: Kind, length: u32) -> Result<Self, Error> {
        let fail = |what: &'static str| {
            move |error: io::Error| match error.raw_os_error() {
                // Also the answer when the queue belongs to another socket.
                Some(libc::EPERM | libc::EBUSY) if is_bound(number) => Error::QueueBusy(number),
                Some(libc::EPERM) => Error::Permission("open netfilter queues"),
                Some(libc::EPROTONOSUPPORT) => Error::NoQueueSupport,
                _ => Error::Queue(what, number, error),
            }
        };
        let mut queue = nfq::Queue::open().map_err(fail("open"))?;
        prepare_sockets()?;
        // Without the netfilter part of the kernel, binding is answered by EINVAL.
        queue.bind(number).map_err(fail("bind"))?;
        queue
            .set_fail_open(number, false)
            .map_err(fail("set the fail-open flag of"))?;
        let whole = matches!(kind, Kind::Tcp(_));
        match queue.set_recv_gso(number, whole) {
            Err(error) if whole => {
                // Then they come cut, as by any other queue.
                tracing::warn!(%error, queue = number, "the kernel does not queue super-packets whole; going on without");
            }
            other => other.map_err(fail("set the GSO flag of"))?,
        }
        queue
            .set_queue_max_len(number, length)
            .map_err(fail("set the length of"))?;
        let way = match adopt(number) {
            Ok(socket) => {
                // The duplicate keeps the queue bound when the crate closes its own descriptor.
                drop(queue);
                Way::Socket(socket)
            }
            Err(error) => {
                tracing::warn!(%error, queue = number, "cannot tell which descriptor belongs to the queue; going on with a system call for every packet, and without super-packets");
                if whole {
                    queue
                        .set_recv_gso(number, false)
                        .map_err(fail("set the GSO flag of"))?;
                }
                Way::Crate(Box::new(Plain::new(queue)))
            }
        };
        Ok(Self {
            slot,
            number,
            kind,
            way,
            faults: Arc::default(),
            verdicts: Verdicts::default(),
            fresh: true,
            long: None,
        })
    }

    /// Receives what is there, at most [`BURST`] datagrams, into `buffer`.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        lens: &mut [usize; BURST],
    ) -> io::Result<usize> {
        let most = match self.kind {
            Kind::Plain => BURST,
            Kind::Tcp(_) => TCP_BURST,
        };
        let room = buffer.get_mut(..most * STRIDE).unwrap_or_default();
        let received = match &mut self.way {
            Way::Socket(socket) => sys::receive_many(socket.as_fd(), room, STRIDE, lens),
            Way::Crate(plain) => plain.receive(room, lens),
        };
        match received {
            Ok(count) => {
                if count < most
                    && let Some(usual) = self.long.take()
                    && let Some(socket) = self.socket()
                {
                    set_length(socket.as_fd(), self.number, usual);
                }
                Ok(count)
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR) => Ok(0),
                Some(libc::ENOBUFS) => {
                    self.faults.overruns.fetch_add(1, Relaxed);
                    Ok(0)
                }
                _ => Err(error),
            },
        }
    }

    /// Reads one datagram of a burst; `None` if it is not a packet, or one that will come by
    /// another queue.
    pub(super) fn read<'a>(&mut self, datagram: &'a [u8]) -> Option<Queued<'a>> {
        match parse(datagram) {
            Datagram::Packet(queued) => {
                if queued.info & libc::NFQA_SKB_GSO as u32 != 0 {
                    self.faults.super_packets.fetch_add(1, Relaxed);
                }
                if let Kind::Tcp(plain) = self.kind
                    && !queued.is_plain_tcp()
                {
                    self.verdicts.pass_on(self.number, queued.id, plain);
                    self.faults.cut.fetch_add(1, Relaxed);
                    return None;
                }
                if queued.payload.is_empty() {
                    self.faults.malformed.fetch_add(1, Relaxed);
                }
                Some(queued)
            }
            Datagram::Answer => None,
            Datagram::Malformed => {
                self.faults.malformed.fetch_add(1, Relaxed);
                None
            }
        }
    }

    /// Gives the verdicts of a burst: `decided` holds what the handler saw, `last` is the highest
    /// id received, `all` says that the handler saw every packet.
    pub(super) fn settle(
        &mut self,
        decided: impl Iterator<Item = (u32, Verdict)>,
        last: u32,
        all: bool,
    ) -> io::Result<()> {
        let mut drop_rest = self.fresh || !all;
        for (id, verdict) in decided {
            match verdict {
                Verdict::Accept => {
                    self.verdicts.accept(self.number, id);
                    if let Way::Crate(plain) = &mut self.way {
                        plain.accept(id);
                    }
                }
                Verdict::Taken => drop_rest = true,
            }
        }
        if drop_rest {
            self.verdicts.drop_up_to(self.number, last);
            self.fresh = false;
        }
        self.give()
    }

    /// Hands the verdicts so far to the kernel.
    pub(super) fn give(&mut self) -> io::Result<()> {
        let socket = match &mut self.way {
            Way::Socket(socket) => socket,
            Way::Crate(plain) => {
                self.verdicts.clear();
                return plain.give();
            }
        };
        if self.verdicts.bytes().is_empty() {
            return Ok(());
        }
        let given = send(socket, self.verdicts.bytes(), SendFlags::empty());
        self.verdicts.clear();
        match given {
            // The packets stay until the next batch drops them.
            Ok(_) | Err(Errno::NOBUFS | Errno::NOMEM | Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A line of the kernel's list of queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) number: u16,
    pub(super) port: u32,
    pub(super) waiting: u32,
    pub(super) kernel_dropped: u32,
    pub(super) user_dropped: u32,
}

/// The queues of this network namespace.
pub(super) fn list() -> Result<Vec<Listed>, Error> {
    let text = fs::read_to_string(LIST).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            Error::NoQueueSupport
        } else {
            Error::System(format!("read {LIST}"), error)
        }
    })?;
    Ok(text.lines().filter_map(parse_line).collect())
}

fn is_bound(number: u16) -> bool {
    list().is_ok_and(|lines| lines.iter().any(|line| line.number == number))
}

/// Columns: queue, port id, waiting, copy mode, copy range, dropped because the queue was full,
/// dropped because the socket was full, last id, 1.
fn parse_line(line: &str) -> Option<Listed> {
    let mut columns = line.split_whitespace();
    let mut next = || columns.next()?.parse::<i64>().ok();
    // The port is printed as a signed number by some kernels.
    let (number, port, waiting) = (next()?, next()? as u32, next()?);
    let (_mode, _range) = (next()?, next()?);
    let (kernel_dropped, user_dropped) = (next()?, next()?);
    Some(Listed {
        number: number.try_into().ok()?,
        port,
        waiting: waiting.try_into().ok()?,
        kernel_dropped: kernel_dropped.try_into().ok()?,
        user_dropped: user_dropped.try_into().ok()?,
    })
}

/// Gives every netfilter socket of this process a large buffer and a time limit: before it is
/// bound, the one that the crate just opened cannot be told from others, which are not harmed.
fn prepare_sockets() -> Result<(), Error> {
    let prepare = |fd: BorrowedFd<'_>| {
        if !is_netfilter(fd) {
            return None;
        }
        // The crate leaves it to be inherited by child processes, which would keep the queue bound.
        let _ = fcntl_setfd(fd, FdFlags::CLOEXEC);
        let _ = sockopt::set_socket_timeout(fd, sockopt::Timeout::Recv, Some(PATIENCE));
        if sockopt::set_socket_recv_buffer_size_force(fd, RECEIVE_BUFFER).is_err() {
            let _ = sockopt::set_socket_recv_buffer_size(fd, RECEIVE_BUFFER);
            static ONCE: Once = Once::new();
            ONCE.call_once(|| {
                tracing::warn!(
                    "no right to exceed net.core.rmem_max; queues may overflow under load"
                );
            });
        }
        None::<()>
    };
    sys::find_descriptor(prepare)
        .map(drop)
        .map_err(Error::system("read /proc/self/fd"))
}

/// A descriptor of our own for the socket that queue `number` is bound to.
///
/// Netlink port ids are unique within a network namespace, so there is no other candidate.
fn adopt(number: u16) -> Result<OwnedFd, Error> {
    let probe = Socket::new(Domain::UNIX, Type::DGRAM, None);
    let here = probe
        .map(|socket| sys::namespace_cookie(socket.as_fd()))
        .map_err(Error::system("open a socket"))?;
    let port = list()?
        .into_iter()
        .find(|line| line.number == number)
        .map(|line| line.port)
        .ok_or(Error::Adopt(number))?;
    let take = |fd: BorrowedFd<'_>| {
        // Duplicating anything else would be wrong: closing a duplicate drops the POSIX locks on
        // a file.
        let wanted = is_netfilter(fd)
            && sys::namespace_cookie(fd) == here
            && getsockname(fd)
                .ok()
                .and_then(|address| SocketAddrNetlink::try_from(address).ok())
                .is_some_and(|address| address.pid() == port);
        wanted.then(|| fd.try_clone_to_owned())
    };
    match sys::find_descriptor(take) {
        Ok(Some(Ok(socket))) => Ok(socket),
        Ok(None) => Err(Error::Adopt(number)),
        Ok(Some(Err(error))) | Err(error) => Err(Error::system("read /proc/self/fd")(error)),
    }
}

/// Makes room for what comes until a successor reads the queue.
pub(super) fn widen(socket: &OwnedFd, number: u16) {
    set_length(socket.as_fd(), number, LONG);
}

fn set_length(socket: BorrowedFd<'_>, number: u16, length: u32) {
    // A queue that keeps its length may overflow, and says so in its counters.
    let _ = send(
        socket,
        &message::set_length(number, length),
        SendFlags::empty(),
    );
}

/// Whether a descriptor is the socket that queue `number` is bound to.
pub(super) fn is_socket_of(fd: BorrowedFd<'_>, number: u16) -> Result<bool, Error> {
    let port = getsockname(fd)
        .ok()
        .filter(|_| is_netfilter(fd))
        .and_then(|address| SocketAddrNetlink::try_from(address).ok())
        .map(|address| address.pid());
    let lines = list()?;
    Ok(lines
        .iter()
        .any(|line| line.number == number && Some(line.port) == port))
}

fn is_netfilter(fd: BorrowedFd<'_>) -> bool {
    // Protocol numbers mean something else in other families.
    sockopt::socket_domain(fd) == Ok(AddressFamily::NETLINK)
        && sockopt::socket_protocol(fd) == Ok(Some(NETFILTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_queues_is_read() {
        let line = " 6400  -4093     3 2 65531     1     2       17  1";
        assert_eq!(
            parse_line(line),
            Some(Listed {
                number: 6400,
                port: 4_294_963_203,
                waiting: 3,
                kernel_dropped: 1,
                user_dropped: 2,
            })
        );
        assert_eq!(parse_line("6400 1 0 2"), None);
    }
}

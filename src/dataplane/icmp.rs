// SPDX-License-Identifier: GPL-2.0-or-later
//! Sends our own ICMP errors, at a limited rate, with a source that the kernel chooses.
//!
//! By raw sockets, so that firewalls see them as what this host sends. Those need `CAP_NET_RAW`;
//! without it errors are handed to the TUN device as translated packets are, and are forwarded.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;

use socket2::{Domain, Protocol, Socket, Type};

use super::tun::Tun;
use super::{Error, SendReport, sys};
use crate::base::Tick;
use crate::wire::output::{ErrorMessage, HEADROOM};

/// Errors per second and worker, in the long run; what kernels before 6.11 allow themselves.
//= rfc4443#section-2.4
const PER_SECOND: u64 = 1000;

/// Errors that may leave at once.
const AT_ONCE: u64 = 50;

pub(super) struct Sender {
    /// `None` without `CAP_NET_RAW`.
    sockets: Option<Sockets>,
    bucket: Bucket,
}

struct Sockets {
    v4: Socket,
    v6: Socket,
}

impl Sender {
    pub(super) fn open(now: Tick) -> Result<Self, Error> {
        let sockets = match Sockets::open() {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => None,
            other => Some(other.map_err(Error::system("open raw ICMP sockets"))?),
        };
        Ok(Self {
            sockets,
            bucket: Bucket::full(now),
        })
    }

    /// Sends what the bucket has room for; the rest counts as failed.
    pub(super) fn send(
        &mut self,
        now: Tick,
        tun: &Tun,
        errors: &[ErrorMessage],
        report: &mut SendReport,
    ) {
        for error in errors {
            let sent = self.bucket.take(now) && self.send_one(tun, error).is_ok();
            let counter = match (error.to, sent) {
                (IpAddr::V4(_), true) => &mut report.icmp4_sent,
                (IpAddr::V4(_), false) => &mut report.icmp4_failed,
                (IpAddr::V6(_), true) => &mut report.icmp6_sent,
                (IpAddr::V6(_), false) => &mut report.icmp6_failed,
            };
            *counter += 1;
        }
    }

    fn send_one(&self, tun: &Tun, error: &ErrorMessage) -> io::Result<()> {
        match &self.sockets {
            Some(sockets) => sockets.send(error),
            None => forward(tun, error),
        }
    }
}

impl Sockets {
    fn open() -> io::Result<Self> {
        Ok(Self {
            v4: open(Domain::IPV4, Protocol::ICMPV4)?,
            v6: open(Domain::IPV6, Protocol::ICMPV6)?,
        })
    }

    fn send(&self, error: &ErrorMessage) -> io::Result<()> {
        let socket = if error.to.is_ipv6() {
            &self.v6
        } else {
            &self.v4
        };
        let to = SocketAddr::new(error.to, 0);
        socket.send_to(&error.message, &to.into()).map(drop)
    }
}

/// Has the kernel forward an error.
fn forward(tun: &Tun, error: &ErrorMessage) -> io::Result<()> {
    let packet = error
        .packet(source(error.to)?)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    tun.write_pieces(&[IoSlice::new(&[0; HEADROOM]), IoSlice::new(&packet)])
}

/// The address that this host would send from.
fn source(to: IpAddr) -> io::Result<IpAddr> {
    let any = if to.is_ipv6() {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    };
    // One for each, for a socket keeps its address when it is connected again.
    let socket = UdpSocket::bind((any, 0))?;
    // Nothing is sent; the port only must not be 0.
    socket.connect((to, 9))?;
    Ok(socket.local_addr()?.ip())
}

fn open(domain: Domain, protocol: Protocol) -> io::Result<Socket> {
    // The kernel computes the checksum of every message on a raw ICMPv6 socket.
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    // Otherwise a copy of every ICMP packet of the host would be queued here.
    sys::icmp_filter_all(socket.as_fd(), domain == Domain::IPV6)?;
    Ok(socket)
}

/// A token bucket. Tokens are counted in thousandths, so that a millisecond adds
/// [`PER_SECOND`] of them.
struct Bucket {
    thousandths: u64,
    filled: Tick,
}

impl Bucket {
    const fn full(now: Tick) -> Self {
        Self {
            thousandths: AT_ONCE * 1000,
            filled: now,
        }
    }

    fn take(&mut self, now: Tick) -> bool {
        let new = now.since(self.filled).saturating_mul(PER_SECOND);
        self.thousandths = self.thousandths.saturating_add(new).min(AT_ONCE * 1000);
        self.filled = self.filled.max(now);
        match self.thousandths.checked_sub(1000) {
            Some(rest) => {
                self.thousandths = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //= rfc4443#section-2.4
    //= type=test
    #[test]
    fn errors_are_limited_to_a_burst_and_a_rate() {
        let mut bucket = Bucket::full(Tick(5));
        let taken = |bucket: &mut Bucket, now| (0..200).filter(|_| bucket.take(Tick(now))).count();
        assert_eq!(taken(&mut bucket, 5), 50);
        assert_eq!(taken(&mut bucket, 5), 0);
        assert_eq!(taken(&mut bucket, 15), 10);
        assert_eq!(
            taken(&mut bucket, 14),
            0,
            "the clock of a burst may be older"
        );
        assert_eq!(taken(&mut bucket, 100_000), 50);
    }
}

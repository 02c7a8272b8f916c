// SPDX-License-Identifier: GPL-2.0-or-later
//! The socket of a node: it hears the group and whoever answers, and speaks to all or to one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{netdevice, sockopt};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Type};

use crate::model::cluster::Reach;
use crate::replica::peer::{Destination, Transmit};

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("there is no interface '{0}'; see 'ip link'")]
    NoInterface(String),
    #[error("no interface has the address {0}, or port {1} of it is taken: {2}")]
    Bind(IpAddr, u16, #[source] io::Error),
    #[error("cannot join the group {0} on '{1}': {2}")]
    Join(IpAddr, String, #[source] io::Error),
    #[error("cannot {0}: {1}")]
    Other(&'static str, #[source] io::Error),
}

#[derive(Debug)]
pub(super) struct Wire {
    socket: UdpSocket,
    /// What it means to speak to all.
    all: Vec<SocketAddr>,
    /// The interface that it is bound to, and its number.
    device: Option<(String, u32)>,
}

impl Wire {
    pub(super) fn open(reach: &Reach) -> Result<Self, WireError> {
        let local = match reach {
            Reach::Peers { bind, .. } => *bind,
            // Not the group: answers go to an address of the node's own.
            Reach::Group { group, port, .. } => match group {
                IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, *port).into(),
                IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, *port).into(),
            },
        };
        let domain = Domain::for_address(local);
        let socket = socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP));
        let socket = socket.map_err(|e| WireError::Other("open a socket", e))?;
        let set = |what| move |error| WireError::Other(what, error);
        if local.is_ipv6() {
            socket.set_only_v6(true).map_err(set("use IPv6 alone"))?;
        }
        let mut wire = (Vec::new(), None);
        match reach {
            Reach::Peers { peers, .. } => wire.0.clone_from(peers),
            Reach::Group {
                group,
                port,
                device,
            } => {
                let number = netdevice::name_to_index(&socket, device);
                let number = number.map_err(|_| WireError::NoInterface(device.clone()))?;
                // Nothing from elsewhere comes in, and what goes out needs no route.
                let bound = socket.bind_device(Some(device.as_bytes()));
                bound.map_err(set("bind the socket to its interface"))?;
                let join = |e| WireError::Join(*group, device.clone(), e);
                let all = match group {
                    IpAddr::V4(group) => {
                        let index = InterfaceIndexOrAddress::Index(number);
                        socket.join_multicast_v4_n(group, &index).map_err(join)?;
                        let quiet = socket.set_multicast_loop_v4(false);
                        quiet.map_err(set("switch the loopback off"))?;
                        SocketAddr::new((*group).into(), *port)
                    }
                    IpAddr::V6(group) => {
                        socket.join_multicast_v6(group, number).map_err(join)?;
                        let quiet = socket.set_multicast_loop_v6(false);
                        quiet.map_err(set("switch the loopback off"))?;
                        SocketAddrV6::new(*group, *port, 0, number).into()
                    }
                };
                wire = (vec![all], Some((device.clone(), number)));
            }
        }
        let bound = socket.bind(&local.into());
        bound.map_err(|e| WireError::Bind(local.ip(), local.port(), e))?;
        // More than the limit of the host, where that is allowed: whole tables come at once.
        if sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
            let enlarged = socket.set_recv_buffer_size(BUFFER);
            enlarged.map_err(set("enlarge the buffer"))?;
        }
        let blocking = socket.set_nonblocking(true);
        blocking.map_err(set("have the socket wait for nobody"))?;
        Ok(Self {
            socket: socket.into(),
            all: wire.0,
            device: wire.1,
        })
    }

    /// Whether its interface is the one that it was bound to.
    pub(super) fn is_whole(&self) -> bool {
        self.device.as_ref().is_none_or(|(name, number)| {
            netdevice::name_to_index(&self.socket, name) == Ok(*number)
        })
    }

    /// Waits for a datagram, but not longer than `patience`.
    pub(super) fn wait(&self, patience: Duration) {
        self.poll(PollFlags::IN, patience);
    }

    /// Takes a datagram that is there already.
    pub(super) fn take(&self, into: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
        match self.socket.recv_from(into) {
            Ok(found) => Ok(Some(found)),
            Err(e)
                if [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&e.kind()) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends; false for what did not get away. That is repaired like any loss.
    pub(super) fn send(&self, transmit: &Transmit) -> bool {
        match transmit.to {
            Destination::Peer(addr) => self.send_to(&transmit.bytes, addr),
            Destination::Group => {
                let mut all = true;
                // To all of them, also when the first is not there.
                for to in &self.all {
                    all &= self.send_to(&transmit.bytes, *to);
                }
                all
            }
        }
    }

    fn send_to(&self, bytes: &[u8], to: SocketAddr) -> bool {
        match self.socket.send_to(bytes, to) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.poll(PollFlags::OUT, ROOM);
                self.socket.send_to(bytes, to).is_ok()
            }
            // Also what an earlier datagram met: a port where nobody listens yet.
            Err(_) => self.socket.send_to(bytes, to).is_ok(),
        }
    }

    fn poll(&self, flags: PollFlags, patience: Duration) {
        let mut fds = [PollFd::from_borrowed_fd(self.socket.as_fd(), flags)];
        // Whether there is anything shows when it is taken.
        let _ = poll(&mut fds, patience.try_into().ok().as_ref());
    }
}

/// Bytes of datagrams that wait to be read.
const BUFFER: usize = 8 << 20;

/// How long to wait for room to send.
const ROOM: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_without_multicast_hear_each_other() {
        let here = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let port = || {
            UdpSocket::bind(here(0))
                .unwrap()
                .local_addr()
                .unwrap()
                .port()
        };
        let (one, two) = (port(), port());
        let open = |bind, peer| {
            let (bind, peers) = (here(bind), vec![here(peer)]);
            Wire::open(&Reach::Peers { bind, peers }).unwrap()
        };
        let (first, second) = (open(one, two), open(two, one));
        let bytes = b"to all".to_vec();
        let to = Destination::Group;
        assert!(first.send(&Transmit { to, bytes }));
        second.wait(Duration::from_secs(5));
        let mut buffer = [0; 16];
        assert_eq!(second.take(&mut buffer).unwrap(), Some((6, here(one))));
        assert_eq!(second.take(&mut buffer).unwrap(), None);
        let taken = Wire::open(&Reach::Peers {
            bind: here(one),
            peers: vec![here(two)],
        });
        assert!(taken.unwrap_err().to_string().contains("127.0.0.1"));
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let reach = Reach::Group {
            group: "ff02::1:64".parse().unwrap(),
            port: 6465,
            device: "nowhere0".to_owned(),
        };
        let error = Wire::open(&reach).unwrap_err();
        assert!(error.to_string().contains("'nowhere0'"), "{error}");
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! The socket of a multicast group: it hears what other members say, and speaks to them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use rustix::net::{RecvFlags, Shutdown, netdevice, recvfrom, shutdown, sockopt};
use socket2::{Domain, Protocol, Type};

use crate::model::sync::{Device, Network};

/// Why a group cannot be joined.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("there is no interface '{0}'; see 'ip link'")]
    NoInterface(String),
    #[error("the group {0} ends at its link; say which one with --net.dev.in and --net.dev.out")]
    NoLink(IpAddr),
    #[error("the interface '{0}' is another one now, or gone")]
    Replaced(String),
    #[error("no interface has the address '{0}'; see 'ip address'")]
    NoAddress(Ipv4Addr),
    #[error("'{0:?}' does not name an interface for a group of this family")]
    Family(Device),
    #[error("cannot join the group {0}: {1}; is there a network that it can be reached by?")]
    Join(IpAddr, #[source] io::Error),
    #[error("cannot {0}: {1}")]
    Other(&'static str, #[source] io::Error),
}

/// A member of a multicast group. Does not hear itself.
#[derive(Debug)]
pub struct Socket {
    socket: UdpSocket,
    group: SocketAddr,
    /// The interfaces that it was told to use, and their numbers.
    devices: Vec<(String, u32)>,
    inode: u64,
}

/// What came of a look for a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// So many bytes, from there.
    Datagram(usize, SocketAddr),
    Nothing,
}

impl Socket {
    /// Joins a group.
    ///
    /// # Errors
    /// [`SocketError`].
    //= jool#session-proxy
    pub fn join(network: &Network) -> Result<Self, SocketError> {
        let domain = match network.group {
            IpAddr::V4(_) => Domain::IPV4,
            IpAddr::V6(_) => Domain::IPV6,
        };
        let socket = socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))
            .map_err(|e| SocketError::Other("open a socket", e))?;
        let set = |what| move |error| SocketError::Other(what, error);
        socket
            .set_reuse_address(true)
            .map_err(set("share the port"))?;
        let mut devices = Vec::new();
        let group = match network.group {
            IpAddr::V4(group) => {
                let own = |device: &Option<Device>| match device {
                    None => Ok(Ipv4Addr::UNSPECIFIED),
                    Some(Device::Address(addr)) => Ok(*addr),
                    Some(other @ Device::Name(_)) => Err(SocketError::Family(other.clone())),
                };
                let (dev_in, dev_out) = (own(&network.dev_in)?, own(&network.dev_out)?);
                let absent = |addr: Ipv4Addr| {
                    move |error: io::Error| match error.raw_os_error() {
                        Some(libc::ENODEV | libc::EADDRNOTAVAIL) if !addr.is_unspecified() => {
                            SocketError::NoAddress(addr)
                        }
                        _ => SocketError::Join(group.into(), error),
                    }
                };
                bind(&socket, SocketAddr::new(network.group, network.port))?;
                let joined = socket.join_multicast_v4(&group, &dev_in);
                joined.map_err(absent(dev_in))?;
                socket
                    .set_multicast_if_v4(&dev_out)
                    .map_err(absent(dev_out))?;
                let ttl = network.ttl.into();
                socket
                    .set_multicast_ttl_v4(ttl)
                    .map_err(set("set the TTL"))?;
                let quiet = socket.set_multicast_loop_v4(false);
                quiet.map_err(set("switch the loopback off"))?;
                SocketAddr::new(network.group, network.port)
            }
            IpAddr::V6(group) => {
                let mut number = |device: &Option<Device>| match device {
                    None => Ok(0),
                    Some(Device::Name(name)) => {
                        let number = netdevice::name_to_index(&socket, name);
                        let number = number.map_err(|_| SocketError::NoInterface(name.clone()))?;
                        devices.push((name.clone(), number));
                        Ok(number)
                    }
                    Some(other @ Device::Address(_)) => Err(SocketError::Family(other.clone())),
                };
                let (dev_in, dev_out) = (number(&network.dev_in)?, number(&network.dev_out)?);
                // RFC 4291 section 2.7: scopes of an interface and of a link.
                let near = group.octets()[1] & 0xf <= 2;
                if near && (dev_in == 0 || dev_out == 0) {
                    return Err(SocketError::NoLink(network.group));
                }
                let to = |device| SocketAddrV6::new(group, network.port, 0, device);
                socket.set_only_v6(true).map_err(set("use IPv6 alone"))?;
                bind(&socket, to(dev_in).into())?;
                let joined = socket.join_multicast_v6(&group, dev_in);
                joined.map_err(|error| SocketError::Join(group.into(), error))?;
                let out = socket.set_multicast_if_v6(dev_out);
                out.map_err(set("choose the interface to send by"))?;
                let ttl = network.ttl.into();
                let ttl = socket.set_multicast_hops_v6(ttl);
                ttl.map_err(set("set the hop limit"))?;
                let quiet = socket.set_multicast_loop_v6(false);
                quiet.map_err(set("switch the loopback off"))?;
                to(dev_out).into()
            }
        };
        // More than the limit of the host, where that is allowed: peers tell of all they have at
        // once.
        if sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
            socket
                .set_recv_buffer_size(BUFFER)
                .map_err(set("enlarge the buffer"))?;
        }
        socket
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| socket.set_write_timeout(Some(PATIENCE)))
            .map_err(set("limit waiting"))?;
        let status = rustix::fs::fstat(&socket);
        let status = status.map_err(|e| SocketError::Other("look at the socket", e.into()))?;
        Ok(Self {
            socket: socket.into(),
            group,
            devices,
            inode: status.st_ino,
        })
    }

    /// Waits for a datagram, but not for long.
    ///
    /// # Errors
    /// The socket is of no use.
    pub fn wait(&self, into: &mut [u8]) -> io::Result<Heard> {
        heard(receive(&self.socket, into, RecvFlags::empty()))
    }

    /// Takes a datagram that is there already.
    ///
    /// # Errors
    /// The socket is of no use.
    pub fn take(&self, into: &mut [u8]) -> io::Result<Heard> {
        heard(receive(&self.socket, into, RecvFlags::DONTWAIT))
    }

    /// Speaks to the group.
    ///
    /// # Errors
    /// The datagram did not get away; others may.
    pub fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.socket.send_to(datagram, self.group).map(drop)
    }

    /// Makes [`Socket::wait`] return, now and from now on.
    pub fn close(&self) {
        // Linux complains that the socket is not connected, and does it.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    /// Whether its interfaces are those that it joined by: the memberships of one that is made
    /// anew under the same name are gone.
    ///
    /// # Errors
    /// [`SocketError::Replaced`].
    pub fn check(&self) -> Result<(), SocketError> {
        let same = |(name, number): &&(String, u32)| {
            netdevice::name_to_index(&self.socket, name) == Ok(*number)
        };
        match self.devices.iter().find(|device| !same(device)) {
            Some((name, _)) => Err(SocketError::Replaced(name.clone())),
            None => Ok(()),
        }
    }

    /// How many datagrams came while there was no room for them.
    pub fn drops(&self) -> u64 {
        let table = match self.group {
            SocketAddr::V4(_) => "/proc/thread-self/net/udp",
            SocketAddr::V6(_) => "/proc/thread-self/net/udp6",
        };
        let table = std::fs::read_to_string(table).unwrap_or_default();
        drops(&table, self.inode).unwrap_or(0)
    }
}

fn bind(socket: &socket2::Socket, to: SocketAddr) -> Result<(), SocketError> {
    let bound = socket.bind(&to.into());
    bound.map_err(|error| SocketError::Other("listen", error))
}

/// Receives a datagram; none, from nobody, where the socket was shut down. The standard library
/// takes what is in memory by chance for the sender then, and may panic about its length.
///
/// # Errors
/// As `recvfrom`.
pub(super) fn receive(
    socket: &UdpSocket,
    into: &mut [u8],
    flags: RecvFlags,
) -> io::Result<Option<(usize, SocketAddr)>> {
    let (_, got, from) = recvfrom(socket, into, flags)?;
    let from = from.and_then(|from| SocketAddr::try_from(from).ok());
    Ok(from.map(|from| (got, from)))
}

fn heard(result: io::Result<Option<(usize, SocketAddr)>>) -> io::Result<Heard> {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    match result {
        Ok(Some((bytes, from))) => Ok(Heard::Datagram(bytes, from)),
        Ok(None) => Ok(Heard::Nothing),
        Err(e) if [Interrupted, TimedOut, WouldBlock].contains(&e.kind()) => Ok(Heard::Nothing),
        Err(error) => Err(error),
    }
}

/// The last column of a socket's row in the kernel's table.
fn drops(table: &str, inode: u64) -> Option<u64> {
    table.lines().find_map(|line| {
        let mut columns = line.split_whitespace();
        let row: u64 = columns.nth(9)?.parse().ok()?;
        (row == inode).then(|| columns.last()?.parse().ok())?
    })
}

/// Bytes of datagrams that wait to be read: tens of thousands of sessions.
const BUFFER: usize = 8 << 20;

/// How long a call waits. Whoever reads looks around in between.
const PATIENCE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::sync::Format;

    fn network(group: &str, device: Option<Device>) -> Network {
        Network {
            group: group.parse().unwrap(),
            port: 6464,
            dev_in: device.clone(),
            dev_out: device,
            ttl: 1,
            format: Format::C,
            stats: None,
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = |group, device| {
            let network = network(group, Some(device));
            Socket::join(&network).unwrap_err().to_string()
        };
        let absent = error("ff08::1", Device::Name("nowhere0".to_owned()));
        assert!(absent.contains("'nowhere0'"), "{absent}");
        let absent = error("233.252.0.64", Device::Address([192, 0, 2, 99].into()));
        assert!(absent.contains("'192.0.2.99'"), "{absent}");
        let lost = Socket::join(&network("ff02::1", None)).unwrap_err();
        assert!(lost.to_string().contains("--net.dev.in"), "{lost}");
        let foreign = error("ff08::1", Device::Address([127, 0, 0, 1].into()));
        assert!(foreign.contains("127.0.0.1"), "{foreign}");
    }

    #[test]
    fn whoever_waits_is_woken() {
        let socket = Socket::join(&network("233.252.0.64", None));
        // A host without any route has no interface for it.
        let Ok(socket) = socket else { return };
        socket.socket.set_read_timeout(None).unwrap();
        std::thread::scope(|scope| {
            // It would wait for ever; what it returns then means nothing.
            scope.spawn(|| drop(socket.wait(&mut [0; 9])));
            std::thread::sleep(Duration::from_millis(10));
            socket.close();
        });
    }

    #[test]
    fn a_socket_that_is_shut_down_has_nothing_from_nobody() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let own = socket.local_addr().unwrap();
        socket.send_to(b"x", own).unwrap();
        let receive = |flags| receive(&socket, &mut [0; 9], flags);
        assert_eq!(receive(RecvFlags::empty()).unwrap(), Some((1, own)));
        let _ = shutdown(&socket, Shutdown::Both);
        assert_eq!(receive(RecvFlags::empty()).unwrap(), None);
        let nothing = receive(RecvFlags::DONTWAIT).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn datagrams_without_room_are_counted_by_the_kernel() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt \
                     uid  timeout inode ref pointer drops\n \
                     57: 00000000:1940 00000000:0000 07 00000000:00000000 00:00000000 00000000 \
                     0        0 31245 2 0000000000000000 17\n";
        assert_eq!(drops(table, 31245), Some(17));
        assert_eq!(drops(table, 1), None);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let inode = rustix::fs::fstat(&socket).unwrap().st_ino;
        let table = std::fs::read_to_string("/proc/thread-self/net/udp").unwrap();
        assert_eq!(drops(&table, inode), Some(0), "{table}");
    }
}

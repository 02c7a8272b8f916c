// SPDX-License-Identifier: GPL-2.0-or-later
//! The addresses of this host, and which of them it would send from.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, connect_unspec, recv, socket_with,
};
use socket2::{Domain, Socket, Type};

use super::netlink::{InterfaceAddress, Netlink};
use super::{Error, lock, monotonic};
use crate::base::Tick;
use crate::base::host::Host;
use crate::base::prefix::Prefix4;
use crate::model::PortRange;

/// How long the kernel's choice of a source is used, in milliseconds.
const LIFETIME: u64 = 1000;

/// More destinations than this are not remembered.
const REMEMBERED: usize = 1024;

/// What this host is called, as of the last [`Addresses::refresh`].
#[derive(Debug)]
pub struct Addresses {
    /// Asked by every worker with every burst.
    local: ShardedLock<Local>,
    sources: Mutex<Sources>,
}

/// All ascending.
#[derive(Debug, Default, PartialEq, Eq)]
struct Local {
    v4: Vec<Ipv4Addr>,
    broadcasts: Vec<Ipv4Addr>,
    networks: Vec<Prefix4>,
    v6: Vec<Ipv6Addr>,
}

/// Asks the kernel for sources and remembers what it said.
#[derive(Debug)]
struct Sources {
    v4: Socket,
    v6: Socket,
    known: HashMap<IpAddr, (Option<IpAddr>, Tick)>,
}

impl Addresses {
    /// The addresses of the network namespace of this thread. Sources will be asked for there,
    /// too, by whatever thread.
    ///
    /// # Errors
    /// When sockets cannot be opened or the kernel cannot be asked.
    pub fn open() -> Result<Self, Error> {
        let open = |domain, name: &str| {
            Socket::new(domain, Type::DGRAM, None)
                .map_err(Error::system(&format!("open an {name} socket")))
        };
        let v6 = open(Domain::IPV6, "IPv6")?;
        v6.set_only_v6(true)
            .map_err(Error::system("set up an IPv6 socket"))?;
        let this = Self {
            local: ShardedLock::default(),
            sources: Mutex::new(Sources {
                v4: open(Domain::IPV4, "IPv4")?,
                v6,
                known: HashMap::new(),
            }),
        };
        this.refresh()?;
        Ok(this)
    }

    /// Asks the kernel again, in the network namespace of this thread; says whether anything
    /// changed.
    ///
    /// # Errors
    /// When the kernel cannot be asked; what was known stays.
    pub fn refresh(&self) -> Result<bool, Error> {
        let found = Netlink::open()
            .and_then(|mut netlink| netlink.addresses())
            .map_err(Error::system("list the addresses of this host"))?;
        let found = Local::new(&found);
        lock(&self.sources).known.clear();
        let mut local = self.local.write().unwrap_or_else(PoisonError::into_inner);
        let changed = *local != found;
        *local = found;
        Ok(changed)
    }

    /// IPv4 addresses of interfaces, ascending.
    pub fn addresses4(&self) -> Vec<Ipv4Addr> {
        self.local().v4.clone()
    }

    /// Directed broadcast addresses of interfaces, ascending.
    pub fn broadcasts4(&self) -> Vec<Ipv4Addr> {
        self.local().broadcasts.clone()
    }

    /// IPv4 networks that interfaces are in, ascending.
    pub fn networks4(&self) -> Vec<Prefix4> {
        self.local().networks.clone()
    }

    /// IPv6 addresses of interfaces, ascending.
    pub fn local6(&self) -> Vec<Ipv6Addr> {
        self.local().v6.clone()
    }

    /// Whether this is the address of one of its interfaces.
    pub fn is_local6(&self, addr: Ipv6Addr) -> bool {
        self.local().v6.binary_search(&addr).is_ok()
    }

    /// The addresses as they are now, for a burst of packets. Whoever holds one asks nothing else
    /// of these addresses meanwhile, and locks no instance.
    pub fn view(&self) -> View<'_> {
        View {
            local: self.local(),
            sources: &self.sources,
        }
    }

    fn local(&self) -> ShardedLockReadGuard<'_, Local> {
        self.local.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Addresses::view`].
#[derive(Debug)]
pub struct View<'a> {
    local: ShardedLockReadGuard<'a, Local>,
    sources: &'a Mutex<Sources>,
}

impl Host for View<'_> {
    fn has_address4(&self, addr: Ipv4Addr) -> bool {
        self.local.v4.binary_search(&addr).is_ok()
    }

    fn has_broadcast4(&self, addr: Ipv4Addr) -> bool {
        self.local.broadcasts.binary_search(&addr).is_ok()
    }

    fn source4(&self, towards: Ipv4Addr) -> Option<Ipv4Addr> {
        match lock(self.sources).get(towards.into(), monotonic())? {
            IpAddr::V4(addr) => Some(addr),
            IpAddr::V6(_) => None,
        }
    }

    fn source6(&self, towards: Ipv6Addr) -> Option<Ipv6Addr> {
        match lock(self.sources).get(towards.into(), monotonic())? {
            IpAddr::V4(_) => None,
            IpAddr::V6(addr) => Some(addr),
        }
    }
}

impl Host for Addresses {
    fn has_address4(&self, addr: Ipv4Addr) -> bool {
        self.view().has_address4(addr)
    }

    fn has_broadcast4(&self, addr: Ipv4Addr) -> bool {
        self.view().has_broadcast4(addr)
    }

    fn source4(&self, towards: Ipv4Addr) -> Option<Ipv4Addr> {
        self.view().source4(towards)
    }

    fn source6(&self, towards: Ipv6Addr) -> Option<Ipv6Addr> {
        self.view().source6(towards)
    }
}

impl Local {
    fn new(found: &[InterfaceAddress]) -> Self {
        let mut this = Self::default();
        for address in found {
            match (address.local, address.network) {
                (IpAddr::V4(local), IpAddr::V4(network)) => {
                    this.v4.push(local);
                    let len = address.prefix_len.min(32);
                    let network = u32::from(network);
                    let hosts = (u64::from(u32::MAX) >> len) as u32;
                    // A network of everything is none.
                    if len > 0 {
                        let first = Ipv4Addr::from(network & !hosts);
                        this.networks.extend(Prefix4::new(first, len));
                    }
                    // RFC 3021: with 31 bits, both addresses are those of hosts.
                    if len < 31 {
                        this.broadcasts.push((network | hosts).into());
                    }
                }
                (IpAddr::V6(local), _) => this.v6.push(local),
                (IpAddr::V4(_), IpAddr::V6(_)) => {}
            }
        }
        for list in [&mut this.v4, &mut this.broadcasts] {
            list.sort_unstable();
            list.dedup();
        }
        this.networks.sort_unstable();
        this.networks.dedup();
        this.v6.sort_unstable();
        this.v6.dedup();
        this
    }
}

impl Sources {
    fn get(&mut self, towards: IpAddr, now: Tick) -> Option<IpAddr> {
        if let Some((source, asked)) = self.known.get(&towards)
            && now.since(*asked) < LIFETIME
        {
            return *source;
        }
        // What is old goes first; if that is not enough, all do.
        if self.known.len() >= REMEMBERED {
            self.known
                .retain(|_, (_, asked)| now.since(*asked) < LIFETIME);
            if self.known.len() >= REMEMBERED {
                self.known.clear();
            }
        }
        let source = self.ask(towards).ok().filter(|addr| !addr.is_unspecified());
        self.known.insert(towards, (source, now));
        source
    }

    /// Connecting a UDP socket sends nothing; the kernel only looks the route up.
    fn ask(&self, towards: IpAddr) -> io::Result<IpAddr> {
        const DISCARD: u16 = 9;
        let socket = if towards.is_ipv6() {
            &self.v6
        } else {
            &self.v4
        };
        socket.connect(&SocketAddr::new(towards, DISCARD).into())?;
        let source = socket.local_addr();
        // Otherwise the source would be kept for the next destination.
        connect_unspec(socket)?;
        let source = source?.as_socket();
        source
            .map(|source| source.ip())
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// Hears when addresses, devices and policy routing rules come and go in the network namespace it
/// was opened in. Open it before [`Addresses`], so that nothing gets lost in between.
///
/// Routes go with their device, even when it is only down for a moment; and whoever sets up
/// policy routing may begin with `ip rule flush`.
#[derive(Debug)]
pub struct NetworkWatch(OwnedFd);

impl NetworkWatch {
    /// Begins to listen.
    ///
    /// # Errors
    /// When no netlink socket can be had.
    pub fn open() -> Result<Self, Error> {
        let groups = [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_IPV4_IFADDR,
            libc::RTNLGRP_IPV6_IFADDR,
            libc::RTNLGRP_IPV4_RULE,
            libc::RTNLGRP_IPV6_RULE,
        ];
        let groups = groups.iter().fold(0, |all, group| all | 1 << (group - 1));
        let open = || -> io::Result<OwnedFd> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            // The protocol 0 is that of routes, links and addresses.
            let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
            bind(&socket, &SocketAddrNetlink::new(0, groups))?;
            Ok(socket)
        };
        open()
            .map(Self)
            .map_err(Error::system("listen to changes of the network"))
    }

    /// Waits for changes, a second at most; says whether there were any. Which ones is not looked
    /// at: [`Addresses::refresh`] tells.
    pub fn wait(&self) -> bool {
        const SECOND: Timespec = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        let mut ready = [PollFd::new(&self.0, PollFlags::IN)];
        if !poll(&mut ready, Some(&SECOND)).is_ok_and(|count| count > 0) {
            return false;
        }
        let mut buffer = [0; 8192];
        // An overrun ends it, too; it means no less than an announcement.
        while recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT).is_ok() {}
        true
    }
}

/// The ports that the kernel gives to programs that do not ask for one; `None` where it cannot be
/// asked.
pub fn ephemeral_ports() -> Option<PortRange> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut words = text.split_whitespace().map(str::parse);
    let (Some(Ok(min)), Some(Ok(max))) = (words.next(), words.next()) else {
        return None;
    };
    Some(PortRange { min, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(local: &str, network: &str, prefix_len: u8) -> InterfaceAddress {
        InterfaceAddress {
            local: local.parse().unwrap(),
            network: network.parse().unwrap(),
            prefix_len,
        }
    }

    #[test]
    fn networks_of_more_than_two_have_a_broadcast_address() {
        let local = Local::new(&[
            address("192.0.2.33", "192.0.2.33", 27),
            address("192.0.2.1", "192.0.2.1", 32),
            address("192.0.2.2", "192.0.2.2", 31),
            address("10.0.0.1", "10.9.0.0", 16),
            address("0.0.0.1", "0.0.0.1", 0),
            address("192.0.2.1", "192.0.2.1", 30),
            address("2001:db8::1", "2001:db8::1", 64),
        ]);
        let shown = |list: &[Ipv4Addr]| {
            let list = list.iter().map(ToString::to_string);
            list.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            shown(&local.v4),
            "0.0.0.1 10.0.0.1 192.0.2.1 192.0.2.2 192.0.2.33"
        );
        assert_eq!(
            shown(&local.broadcasts),
            "10.9.255.255 192.0.2.3 192.0.2.63 255.255.255.255"
        );
        let networks: Vec<_> = local.networks.iter().map(ToString::to_string).collect();
        assert_eq!(
            networks,
            [
                "10.9.0.0/16",
                "192.0.2.0/30",
                "192.0.2.1/32",
                "192.0.2.2/31",
                "192.0.2.32/27"
            ]
        );
        assert_eq!(local.v6, ["2001:db8::1".parse::<Ipv6Addr>().unwrap()]);
    }

    #[test]
    fn sources_are_those_of_the_kernel_and_kept_for_a_second() {
        let addresses = Addresses::open().unwrap();
        assert!(addresses.is_local4(Ipv4Addr::LOCALHOST));
        assert!(!addresses.is_local4(Ipv4Addr::new(127, 0, 0, 2)));
        let host = Ipv4Addr::new(127, 0, 0, 3);
        assert_eq!(addresses.source4(host), Some(Ipv4Addr::LOCALHOST));
        assert_eq!(addresses.source4(Ipv4Addr::BROADCAST), None);
        assert_eq!(addresses.source4(host), Some(Ipv4Addr::LOCALHOST));

        let mut sources = lock(&addresses.sources);
        let (localhost, wrong) = (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::BROADCAST.into());
        assert_eq!(sources.get(host.into(), Tick(1)), Some(localhost));
        sources.known.insert(host.into(), (Some(wrong), Tick(5000)));
        assert_eq!(sources.get(host.into(), Tick(5999)), Some(wrong));
        assert_eq!(sources.get(host.into(), Tick(6000)), Some(localhost));
        for i in 0..3000 {
            sources.get(Ipv4Addr::from(0x7f01_0000 + i).into(), Tick(6000));
            assert!(sources.known.len() <= REMEMBERED);
        }
    }
}

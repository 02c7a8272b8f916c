// SPDX-License-Identifier: GPL-2.0-or-later
//! The TUN device: where packets are reinjected and where the kernel routes to us.
//!
//! The device is persistent. While a killed daemon is down, it stays, and with it the routes:
//! what should have been translated is dropped there instead of leaving by the default route.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use super::netlink::Netlink;
use super::{Error, Options, patiently, sys};
use crate::wire::checksum::{Sum, nonzero};
use crate::wire::offload::{Offload, Told, told};
use crate::wire::output::HEADROOM;

const NODE: &str = "/dev/net/tun";

/// The IPv4 dummy address, for translators to use where some address is needed (RFC 7600).
const DUMMY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// One queue of the device.
pub(super) struct Tun(File);

impl Tun {
    /// Opens `options.workers` queues, makes the device persistent and brings it up; waits a
    /// little when a predecessor is just letting go of it. Also says whether there was no such
    /// device before.
    pub(super) fn open(options: &Options) -> Result<(Vec<Self>, bool), Error> {
        patiently(
            || Self::try_open(options),
            |error| matches!(error, Error::Busy(_)),
        )
    }

    /// Goes on with the queues that a predecessor left.
    pub(super) fn inherit(options: &Options, tuns: Vec<OwnedFd>) -> Result<Vec<Self>, Error> {
        let queues: Vec<_> = tuns.into_iter().map(|fd| Self(fd.into())).collect();
        let mut netlink = Netlink::open().map_err(Error::system("open a netlink socket"))?;
        configure(&mut netlink, options, &queues)?;
        Ok(queues)
    }

    /// Another descriptor of the queue.
    pub(super) fn keep(&self) -> io::Result<OwnedFd> {
        self.0.try_clone().map(Into::into)
    }

    fn try_open(options: &Options) -> Result<(Vec<Self>, bool), Error> {
        let name = &options.tun;
        let short = sys::device_name(name).ok_or_else(|| Error::Name(name.clone()))?;
        let mut netlink = Netlink::open().map_err(Error::system("open a netlink socket"))?;
        let before = netlink.link(name).map_err(Error::device(name, "look up"))?;
        if let Some(link) = &before {
            match link.tun_queues {
                None => return Err(Error::NotTun(name.clone())),
                Some(0) => {}
                Some(_) => return Err(Error::Busy(name.clone())),
            }
        }
        let mut queues = Vec::new();
        for _ in 0..options.workers {
            queues.push(Self::attach(name, short, before.is_some())?);
        }
        if let Err(error) = configure(&mut netlink, options, &queues) {
            // A device that was not there before is not left behind half made.
            if before.is_none()
                && let Some(queue) = queues.first()
            {
                let _ = queue.persist(false);
            }
            return Err(error);
        }
        Ok((queues, before.is_none()))
    }

    fn attach(name: &str, short: sys::Name, existed: bool) -> Result<Self, Error> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(NODE)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ENOENT) => Error::NoTunNode,
                Some(libc::ENODEV | libc::ENXIO) => Error::NoTunDriver,
                _ => Error::System("open /dev/net/tun".to_owned(), error),
            })?;
        let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
        sys::tun_attach(file.as_fd(), short, flags).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::EINVAL) if existed => Error::NotTun(name.to_owned()),
                Some(libc::EBUSY) => Error::Busy(name.to_owned()),
                Some(libc::EPERM) => Error::Permission("create a TUN device"),
                _ => Error::Device("create", name.to_owned(), error),
            }
        })?;
        sys::tun_header(file.as_fd(), HEADROOM)
            .map_err(Error::device(name, "set the header length of"))?;
        Ok(Self(file))
    }

    /// Another handle on the same queue.
    pub(super) fn duplicate(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    pub(super) fn persist(&self, persist: bool) -> io::Result<()> {
        sys::tun_persist(self.0.as_fd(), persist)
    }

    /// Writes a packet with [`HEADROOM`] bytes of virtio header in front.
    pub(super) fn write(&self, frame: &[u8]) -> io::Result<()> {
        // The device takes a packet whole or not at all.
        (&self.0).write(frame).map(drop)
    }

    /// Writes a packet that lies in pieces, the first of which is the virtio header.
    pub(super) fn write_pieces(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        (&self.0).write_vectored(pieces).map(drop)
    }

    /// Reads a packet with its virtio header; says how long both are together.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Takes the virtio header off a packet read, and says what is left to do on it; `None` when the
/// header contradicts the packet.
///
/// Whatever is not TCP is completed here. The kernel was not seen to ask for it; it is here so that
/// one that does, or somebody who changes the device from outside, does not break checksums.
pub(super) fn strip(frame: &mut [u8]) -> Option<(&[u8], Offload)> {
    let (header, packet) = frame.split_first_chunk_mut()?;
    if packet.is_empty() {
        return None;
    }
    match told(header, packet) {
        Told::Offload(offload) => Some((packet, offload)),
        Told::Nonsense => None,
        Told::Checksum(start, field) => {
            // The field holds the sum of the pseudo header, so it is summed with the rest.
            let sum = nonzero(Sum::bytes(packet.get(start..)?).checksum());
            packet
                .get_mut(field..field.checked_add(2)?)?
                .copy_from_slice(&sum.to_be_bytes());
            Some((packet, Offload::NONE))
        }
    }
}

/// Something to all on the link, such as the kernel's own reports of the groups that a router
/// joins on any device. It was not routed here; multicast addresses are never routed to us.
pub(super) fn is_multicast(packet: &[u8]) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) => packet.get(16).is_some_and(|high| high >> 4 == 0xe),
        Some(6) => packet.get(24) == Some(&0xff),
        _ => false,
    }
}

fn configure(netlink: &mut Netlink, options: &Options, queues: &[Tun]) -> Result<(), Error> {
    let name = &options.tun;
    if let Some(queue) = queues.first() {
        queue
            .persist(true)
            .map_err(Error::device(name, "make persistent"))?;
    }
    let link = netlink
        .link(name)
        .map_err(Error::device(name, "look up"))?
        .ok_or_else(|| Error::Device("look up", name.clone(), io::ErrorKind::NotFound.into()))?;

    // Without offloads the kernel computes checksums and cuts super-packets before it hands them
    // over. A device found, or inherited, may have been left otherwise.
    let offload = if options.super_packets {
        libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN
    } else {
        0
    };
    for queue in queues {
        sys::tun_offload(queue.as_fd(), offload)
            .map_err(Error::device(name, "set the offloads of"))?;
    }

    if read_number("net/ipv6/conf/all/disable_ipv6") == Some(1) {
        return Err(Error::Ipv6Disabled);
    }
    let set = |key: String, value| write_number(&key, value);
    // New devices may start with IPv6 disabled (conf/default).
    set(format!("net/ipv6/conf/{name}/disable_ipv6"), 0)?;
    // No link-local address and so no router solicitations towards us.
    set(format!("net/ipv6/conf/{name}/addr_gen_mode"), 1)?;
    // Translated packets may have the host's own address (pool4) as their source.
    set(format!("net/ipv4/conf/{name}/accept_local"), 1)?;
    // The higher of "all" and the device's own value counts. Strict checks fail for sources that
    // are not routed to the device; loose ones accept any source that has a route, provided
    // the device has an address at all.
    let strict = read_number("net/ipv4/conf/all/rp_filter").is_some_and(|all| all != 0);
    set(
        format!("net/ipv4/conf/{name}/rp_filter"),
        if strict { 2 } else { 0 },
    )?;

    netlink
        .up(link.index, u32::from(options.mtu))
        .map_err(Error::device(name, "bring up"))?;
    // Always: a system's own settings may switch loose checks on for every device that appears.
    netlink
        .add_host_address(link.index, DUMMY)
        .map_err(Error::device(name, "add the address 192.0.0.8 to"))?;
    for key in [
        "net/ipv4/ip_forward".to_owned(),
        "net/ipv6/conf/all/forwarding".to_owned(),
        format!("net/ipv4/conf/{name}/forwarding"),
    ] {
        if read_number(&key) == Some(0) {
            let setting = key.replace('/', ".");
            tracing::warn!("translated packets are not forwarded: {setting} is 0; set it to 1");
        }
    }
    Ok(())
}

fn read_number(key: &str) -> Option<i64> {
    fs::read_to_string(format!("/proc/sys/{key}"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Writes a kernel setting, unless it has the value already (where `/proc/sys` is read-only, an
/// administrator may have set it).
fn write_number(key: &str, value: i64) -> Result<(), Error> {
    if read_number(key) == Some(value) {
        return Ok(());
    }
    fs::write(format!("/proc/sys/{key}"), value.to_string())
        .map_err(|error| Error::Setting(key.replace('/', "."), value, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_stripped_and_the_checksum_completed() {
        let mut frame = vec![0; HEADROOM];
        frame.extend([0x60, 1, 2, 3]);
        let none = Offload::NONE;
        assert_eq!(strip(&mut frame), Some((&[0x60, 1, 2, 3][..], none)));

        // Checksum starts at byte 2 of the packet, field 2 bytes on; 0x1111 is the pseudo header.
        let mut frame = vec![1, 0, 0, 0, 0, 0];
        frame.extend(2_u16.to_ne_bytes());
        frame.extend(2_u16.to_ne_bytes());
        frame.extend([0x60, 0, 0x12, 0x34, 0x11, 0x11, 0x56]);
        let sum = !(0x1234 + 0x1111 + 0x5600_u16);
        let [high, low] = sum.to_be_bytes();
        assert_eq!(
            strip(&mut frame),
            Some((&[0x60, 0, 0x12, 0x34, high, low, 0x56][..], none))
        );
    }

    #[test]
    fn contradictory_headers_are_refused() {
        for len in 0..=HEADROOM {
            assert_eq!(strip(&mut vec![0; len]), None, "no packet in {len} bytes");
        }
        let mut super_packet = [0; 20];
        super_packet[1] = 1;
        assert_eq!(strip(&mut super_packet), None);
        for (start, field) in [(20, 0), (0, 9), (u16::MAX, u16::MAX)] {
            let mut frame = [0; 20];
            frame[0] = 1;
            frame[6..8].copy_from_slice(&u16::to_ne_bytes(start));
            frame[8..10].copy_from_slice(&u16::to_ne_bytes(field));
            assert_eq!(strip(&mut frame), None, "{start} {field}");
        }
    }
}

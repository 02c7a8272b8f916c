// SPDX-License-Identifier: GPL-2.0-or-later
//! A blocking rtnetlink conversation: one request, its answers.
//!
//! Setting up a device and a few routes needs no event loop, and a daemon that has one must not
//! start a second inside it; so only the message types of the netlink crates are used.

// The enums matched here list what any kernel may say; nearly all of it is of no interest.
#![allow(clippy::wildcard_enum_match_arm)]

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use rtnetlink::packet_core::{
    DefaultNla, ErrorMessage, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla,
};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{InfoData, InfoTun, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::packet_route::rule::RuleMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rtnetlink::{AddressMessageBuilder, LinkUnspec};

/// What the kernel says about a device.
pub(super) struct Link {
    pub(super) index: u32,
    /// Queues that somebody has open, if it is a TUN device.
    pub(super) tun_queues: Option<u32>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InterfaceAddress {
    pub(super) local: IpAddr,
    /// An address of the network that is reached directly; on links between two, that of the peer.
    pub(super) network: IpAddr,
    /// Bits of `network` that name the network.
    pub(super) prefix_len: u8,
}

pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// A connection to the network namespace of this thread.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Looks a device up by name; `None` if there is none.
    pub(super) fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let message = LinkUnspec::new_with_name(name).build();
        let answers = match self.request(Message::GetLink(message), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(None),
            other => other?,
        };
        Ok(answers.iter().find_map(link))
    }

    /// Sets the MTU and brings the device up.
    pub(super) fn up(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu).up().build();
        self.request(Message::SetLink(message), 0).map(drop)
    }

    /// Adds an address that is never chosen as a source; fine if it is there already.
    pub(super) fn add_host_address(&mut self, index: u32, addr: Ipv4Addr) -> io::Result<()> {
        let mut message: AddressMessage = AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(addr, 32)
            .build();
        message.header.scope = AddressScope::Host;
        match self.request(Message::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The addresses of all interfaces.
    pub(super) fn addresses(&mut self) -> io::Result<Vec<InterfaceAddress>> {
        let mut addresses = Vec::new();
        // Other families have addresses, too, which cannot be read here.
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = AddressMessage::default();
            message.header.family = family;
            let answers = self.request(Message::GetAddress(message), NLM_F_DUMP)?;
            addresses.extend(answers.iter().filter_map(interface_address));
        }
        Ok(addresses)
    }

    /// Every route of the family of `like`.
    pub(super) fn routes(&mut self, like: RouteMessage) -> io::Result<Vec<RouteMessage>> {
        let answers = self.request(Message::GetRoute(like), NLM_F_DUMP)?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                Message::NewRoute(route) => Some(route),
                _ => None,
            })
            .collect())
    }

    pub(super) fn add_route(&mut self, route: RouteMessage) -> io::Result<()> {
        self.request(Message::NewRoute(route), NLM_F_CREATE | NLM_F_EXCL)
            .map(drop)
    }

    pub(super) fn delete_route(&mut self, route: RouteMessage) -> io::Result<()> {
        self.request(Message::DelRoute(route), 0).map(drop)
    }

    /// Every policy routing rule of a family.
    pub(super) fn rules(&mut self, family: AddressFamily) -> io::Result<Vec<RuleMessage>> {
        let mut like = RuleMessage::default();
        like.header.family = family;
        let answers = self.request(Message::GetRule(like), NLM_F_DUMP)?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                Message::NewRule(rule) => Some(rule),
                _ => None,
            })
            .collect())
    }

    pub(super) fn add_rule(&mut self, rule: RuleMessage) -> io::Result<()> {
        self.request(Message::NewRule(rule), NLM_F_CREATE | NLM_F_EXCL)
            .map(drop)
    }

    pub(super) fn delete_rule(&mut self, rule: RuleMessage) -> io::Result<()> {
        self.request(Message::DelRule(rule), 0).map(drop)
    }

    /// Sends a request and gathers answers up to the acknowledgement or the end of the dump.
    fn request(&mut self, message: Message, flags: u16) -> io::Result<Vec<Message>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut answers = Vec::new();
        loop {
            let (bytes, _) = self.socket.recv_from_full()?;
            if take(&bytes, self.sequence, &mut answers)? {
                return Ok(answers);
            }
        }
    }
}

/// Gathers the answers to a request from one datagram; true when that were all.
fn take(bytes: &[u8], sequence: u32, answers: &mut Vec<Message>) -> io::Result<bool> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let answer = NetlinkMessage::<Message>::deserialize(rest).map_err(invalid)?;
        let length = (answer.header.length as usize).next_multiple_of(4).max(16);
        rest = rest.get(length..).unwrap_or_default();
        if answer.header.sequence_number != sequence {
            continue;
        }
        match answer.payload {
            // The crate's own conversion cannot negate every number.
            NetlinkPayload::Error(ErrorMessage {
                code: Some(code), ..
            }) => {
                return Err(io::Error::from_raw_os_error(code.get().wrapping_neg()));
            }
            NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::InnerMessage(answer) => answers.push(answer),
            _ => {}
        }
    }
    Ok(false)
}

fn link(answer: &Message) -> Option<Link> {
    match answer {
        Message::NewLink(link) => Some(Link {
            index: link.header.index,
            tun_queues: tun_queues(link),
        }),
        _ => None,
    }
}

/// IPv6 has no "local" attribute unless there is a peer.
fn interface_address(answer: &Message) -> Option<InterfaceAddress> {
    let Message::NewAddress(message) = answer else {
        return None;
    };
    let (mut local, mut network) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(addr) => local = Some(*addr),
            AddressAttribute::Address(addr) => network = Some(*addr),
            _ => {}
        }
    }
    Some(InterfaceAddress {
        local: local.or(network)?,
        network: network.or(local)?,
        prefix_len: message.header.prefix_len,
    })
}

/// The attribute `IFLA_TUN_NUM_QUEUES` (`linux/if_link.h`), which the crate leaves unparsed.
fn tun_queues(link: &LinkMessage) -> Option<u32> {
    const IFLA_TUN_NUM_QUEUES: u16 = 8;
    let number = |info: &InfoTun| match info {
        InfoTun::Other(nla) => number(nla, IFLA_TUN_NUM_QUEUES),
        _ => None,
    };
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
                LinkInfo::Data(InfoData::Tun(tun)) => tun.iter().find_map(number),
                _ => None,
            }),
            _ => None,
        })
}

fn number(nla: &DefaultNla, kind: u16) -> Option<u32> {
    if nla.kind() != kind {
        return None;
    }
    let mut value = vec![0; nla.value_len()];
    nla.emit_value(&mut value);
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// What is made of a datagram from the kernel, for fuzz targets.
#[cfg(any(fuzzing, test))]
pub(super) fn understand(bytes: &[u8]) {
    let mut answers = Vec::new();
    let _ = take(bytes, 0, &mut answers);
    for answer in &answers {
        let _ = (link(answer), interface_address(answer));
        if let Message::NewRoute(route) = answer {
            let _ = super::routes::ours(route);
        }
    }
}

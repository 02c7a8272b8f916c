// SPDX-License-Identifier: GPL-2.0-or-later
//! The routes to the TUN device.
//!
//! What arrives from other hosts is taken by the nftables rules before it is routed. The routes
//! are for what the kernel itself sends: programs on the gateway, and ICMP errors about packets
//! that were reinjected.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
};

use super::Error;
use super::netlink::Netlink;
use crate::base::prefix::{Prefix4, Prefix6};

/// The "protocol" our routes are marked with, so that they are told apart from those of
/// administrators and routing daemons. Not assigned to anybody in `rt_protos`.
pub const ROUTE_PROTOCOL: u8 = 164;

/// Higher (worse) than the kernel's own routes and than what administrators and routing daemons
/// use by default: a route of somebody else for the same prefix wins.
const METRIC: u32 = 2048;

/// The worst there is: any other default route wins.
const LAST_METRIC: u32 = u32::MAX;

type Destination = (IpAddr, u8);

/// Makes the routes that are ours be exactly these, all to `tun`: adds what is missing, removes
/// the rest, also those to a device that a predecessor used.
///
/// `default4` asks for an IPv4 default route of last resort: a kernel without a route to the
/// source of a packet sends no ICMP error about it, and a stateless translator's IPv4 sources can
/// be anywhere.
///
/// A pool4 address that is also the host's own does no harm: the kernel looks into its table of
/// local addresses first.
///
/// # Errors
/// [`Error::Device`] and [`Error::Route`], naming device or destination. What was changed until
/// then stays.
pub fn set_routes(
    tun: &str,
    pool6: &[Prefix6],
    pool4: &[Prefix4],
    default4: bool,
) -> Result<(), Error> {
    let mut netlink = Netlink::open().map_err(Error::system("open a netlink socket"))?;
    let device = netlink
        .link(tun)
        .map_err(Error::device(tun, "look up"))?
        .ok_or_else(|| Error::Device("look up", tun.to_owned(), io::ErrorKind::NotFound.into()))?
        .index;
    let mut wanted: BTreeSet<Destination> = BTreeSet::new();
    wanted.extend(pool6.iter().map(|p| (p.network().into(), p.prefix_len())));
    wanted.extend(pool4.iter().map(|p| (p.network().into(), p.prefix_len())));
    if default4 {
        wanted.insert((Ipv4Addr::UNSPECIFIED.into(), 0));
    }

    for like in [
        RouteMessageBuilder::<Ipv4Addr>::new().build(),
        RouteMessageBuilder::<Ipv6Addr>::new().build(),
    ] {
        let routes = netlink
            .routes(like)
            .map_err(Error::device(tun, "list the routes to"))?;
        for route in routes {
            let Some(found) = ours(&route) else {
                continue;
            };
            let here = route.attributes.contains(&RouteAttribute::Oif(device));
            if !here || !wanted.remove(&found) {
                netlink
                    .delete_route(route)
                    .map_err(|error| Error::Route("remove", found.0, found.1, error))?;
            }
        }
    }
    for (addr, len) in wanted {
        netlink
            .add_route(route(device, addr, len))
            .map_err(|error| Error::Route("add", addr, len, error))?;
    }
    Ok(())
}

/// The destination of a route that [`set_routes`] made.
fn ours(route: &RouteMessage) -> Option<Destination> {
    if route.header.protocol != RouteProtocol::from(ROUTE_PROTOCOL)
        || route.header.table != RouteHeader::RT_TABLE_MAIN
    {
        return None;
    }
    let unspecified = if route.header.address_family == AddressFamily::Inet {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    let addr = route.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Destination(RouteAddress::Inet(addr)) = attribute {
            Some(IpAddr::V4(*addr))
        } else if let RouteAttribute::Destination(RouteAddress::Inet6(addr)) = attribute {
            Some(IpAddr::V6(*addr))
        } else {
            None
        }
    });
    // A default route has no destination attribute.
    Some((
        addr.unwrap_or(unspecified),
        route.header.destination_prefix_length,
    ))
}

fn route(device: u32, addr: IpAddr, len: u8) -> RouteMessage {
    let protocol = RouteProtocol::from(ROUTE_PROTOCOL);
    match addr {
        IpAddr::V4(addr) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(addr, len)
            .output_interface(device)
            .scope(RouteScope::Link)
            .protocol(protocol)
            .priority(if len == 0 { LAST_METRIC } else { METRIC })
            .build(),
        IpAddr::V6(addr) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(addr, len)
            .output_interface(device)
            .protocol(protocol)
            .priority(METRIC)
            .build(),
    }
}

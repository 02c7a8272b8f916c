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
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::Error;
use super::netlink::Netlink;
use crate::base::prefix::{Prefix4, Prefix6};

/// The "protocol" our routes are marked with, so that they are told apart from those of
/// administrators and routing daemons. Not assigned to anybody in `rt_protos`.
pub const ROUTE_PROTOCOL: u8 = 164;

/// Higher (worse) than the kernel's own routes and than what administrators and routing daemons
/// use by default: a route of somebody else for the same prefix wins.
const METRIC: u32 = 2048;

/// The table with the routes of last resort.
const LAST_TABLE: u8 = ROUTE_PROTOCOL;

/// Behind the tables "main" (32766) and "default" (32767).
const LAST_RULE: u32 = 32_800;

/// Table, network, length.
type Destination = (u8, IpAddr, u8);

/// Makes the routes that are ours be exactly these, all to `tun`: adds what is missing, removes
/// the rest, also those to a device that a predecessor used.
///
/// `last_resort` asks for default routes that nobody but the host itself sees, and only where it
/// has no other route: a kernel without a route to the source of a packet sends no ICMP error
/// about it, and the sources that a stateless translator makes can be anywhere.
///
/// A pool4 address that is also the host's own does no harm: the kernel looks into its table of
/// local addresses first.
///
/// # Errors
/// [`Error::Device`], [`Error::Route`] and [`Error::System`], naming what could not be changed.
/// What was changed until then stays.
pub fn set_routes(
    tun: &str,
    pool6: &[Prefix6],
    pool4: &[Prefix4],
    last_resort: bool,
) -> Result<(), Error> {
    let mut netlink = Netlink::open().map_err(Error::system("open a netlink socket"))?;
    let device = netlink
        .link(tun)
        .map_err(Error::device(tun, "look up"))?
        .ok_or_else(|| Error::Device("look up", tun.to_owned(), io::ErrorKind::NotFound.into()))?
        .index;
    let main = RouteHeader::RT_TABLE_MAIN;
    let mut wanted: BTreeSet<Destination> = BTreeSet::new();
    wanted.extend(
        pool6
            .iter()
            .map(|p| (main, p.network().into(), p.prefix_len())),
    );
    wanted.extend(
        pool4
            .iter()
            .map(|p| (main, p.network().into(), p.prefix_len())),
    );
    if last_resort {
        wanted.insert((LAST_TABLE, Ipv4Addr::UNSPECIFIED.into(), 0));
        wanted.insert((LAST_TABLE, Ipv6Addr::UNSPECIFIED.into(), 0));
    } else {
        set_last_rules(&mut netlink, false)?;
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
                    .map_err(|error| Error::Route("remove", found.1, found.2, error))?;
            }
        }
    }
    for (table, addr, len) in wanted {
        netlink
            .add_route(route(device, table, addr, len))
            .map_err(|error| Error::Route("add", addr, len, error))?;
    }
    if last_resort {
        set_last_rules(&mut netlink, true)?;
    }
    Ok(())
}

/// Removes what [`set_routes`] made and what would not go with the device.
///
/// # Errors
/// [`Error::System`].
pub fn remove_rules() -> Result<(), Error> {
    let mut netlink = Netlink::open().map_err(Error::system("open a netlink socket"))?;
    set_last_rules(&mut netlink, false)
}

/// Has what the host itself sends look into [`LAST_TABLE`] when all else fails, or not.
fn set_last_rules(netlink: &mut Netlink, wanted: bool) -> Result<(), Error> {
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let rules = netlink
            .rules(family)
            .map_err(Error::system("list the policy routing rules"))?;
        let mut there = false;
        for rule in rules {
            if rule.header.table != LAST_TABLE
                || !rule
                    .attributes
                    .contains(&RuleAttribute::Priority(LAST_RULE))
            {
                continue;
            }
            if wanted && !there {
                there = true;
                continue;
            }
            netlink
                .delete_rule(rule)
                .map_err(Error::system("remove a policy routing rule"))?;
        }
        if wanted && !there {
            netlink
                .add_rule(last_rule(family))
                .map_err(Error::system("add a policy routing rule"))?;
        }
    }
    Ok(())
}

fn last_rule(family: AddressFamily) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = family;
    rule.header.table = LAST_TABLE;
    rule.header.action = RuleAction::ToTable;
    rule.attributes = vec![
        // "From the loopback device" is how the kernel says "from this host".
        RuleAttribute::Iifname("lo".to_owned()),
        RuleAttribute::Priority(LAST_RULE),
        RuleAttribute::Protocol(RouteProtocol::from(ROUTE_PROTOCOL)),
    ];
    rule
}

/// The destination of a route that [`set_routes`] made.
pub(super) fn ours(route: &RouteMessage) -> Option<Destination> {
    if route.header.protocol != RouteProtocol::from(ROUTE_PROTOCOL)
        || ![RouteHeader::RT_TABLE_MAIN, LAST_TABLE].contains(&route.header.table)
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
        route.header.table,
        addr.unwrap_or(unspecified),
        route.header.destination_prefix_length,
    ))
}

fn route(device: u32, table: u8, addr: IpAddr, len: u8) -> RouteMessage {
    let protocol = RouteProtocol::from(ROUTE_PROTOCOL);
    match addr {
        IpAddr::V4(addr) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(addr, len)
            .output_interface(device)
            .scope(RouteScope::Link)
            .protocol(protocol)
            .priority(METRIC)
            .table_id(table.into())
            .build(),
        IpAddr::V6(addr) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(addr, len)
            .output_interface(device)
            .protocol(protocol)
            .priority(METRIC)
            .table_id(table.into())
            .build(),
    }
}

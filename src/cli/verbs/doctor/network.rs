// SPDX-License-Identifier: GPL-2.0-or-later
//! Routes, addresses, ports, sizes.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use super::Finding;
use super::system::{System, TUN, program, sysctl, text};
use crate::base::prefix::Prefix4;
use crate::cli::{JOOL, JOOL_MAPT, JOOL_SIIT};
use crate::model::{Flavour, PortRange};

/// The smallest MTU of an IPv6 link, in bytes (RFC 8200 section 5).
const IPV6_MTU: u64 = 1280;

pub(super) fn reverse_path(system: &System) -> Vec<Finding> {
    if system.of(Flavour::Siit).next().is_none() {
        return Vec::new();
    }
    // The kernel takes the stricter of the two.
    let value = ["all", TUN]
        .iter()
        .filter_map(|device| {
            sysctl(&format!("net/ipv4/conf/{device}/rp_filter"))?
                .parse()
                .ok()
        })
        .max();
    match (value, default_route4()) {
        (Some(0), _) => vec![Finding::fine("sources are not checked (rp_filter is 0)")],
        (Some(1 | 2), Ok(true)) => vec![Finding::fine("a default route makes sources plausible")],
        (Some(value), Ok(false)) => vec![Finding::wrong(
            format!(
                "rp_filter is {value} and there is no IPv4 default route: translated packets \
                 are dropped where there is no route to their source"
            ),
            format!(
                "sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{TUN}.rp_filter=0  # or ip \
                 route add default via ROUTER"
            ),
        )],
        (None, _) => vec![Finding::unknown("rp_filter cannot be read", "")],
        (_, Err(why)) => vec![Finding::unknown(why, "apt install iproute2")],
        (Some(_), Ok(true)) => Vec::new(),
    }
}

/// Whether what the kernel itself sends to pool6 and pool4 comes to us: without that, its ICMP
/// errors about translated packets are lost.
pub(super) fn pool6_route(system: &System) -> Vec<Finding> {
    let mut findings = Vec::new();
    for instance in system.of(Flavour::Nat64) {
        let Some(pool6) = instance.settings.pool6 else {
            findings.push(Finding::wrong(
                format!("instance '{}' has no pool6", instance.name),
                format!("jool -i {} global update pool6 64:ff9b::/96", instance.name),
            ));
            continue;
        };
        // TEST-NET-1: any address would do.
        let address = IpAddr::V6(pool6.embed(Ipv4Addr::new(192, 0, 2, 1)));
        findings.extend(leads_here(address, &pool6.prefix().to_string()));
    }
    for (prefix, _) in system.pool4() {
        if !system.owns(prefix.network()) {
            findings.extend(leads_here(prefix.network().into(), &prefix.to_string()));
        }
    }
    if findings.is_empty() && system.of(Flavour::Nat64).next().is_some() {
        findings.push(Finding::fine(format!("pool6 and pool4 lead to {TUN}")));
    }
    findings.dedup();
    findings
}

fn leads_here(address: IpAddr, prefix: &str) -> Option<Finding> {
    let family = if address.is_ipv6() { "-6" } else { "-4" };
    let lost = "the kernel's ICMP errors about translated packets (Packet Too Big) are lost";
    let address = address.to_string();
    match program("ip", &["-json", family, "route", "get", &address]) {
        Ok(answer) => {
            let device = answer[0]["dev"].as_str().unwrap_or("nowhere");
            (device != TUN).then(|| {
                Finding::wrong(
                    format!("{prefix} is routed to {device}, not to {TUN}: {lost}"),
                    format!(
                        "ip {family} route show match {address}  # remove what leads elsewhere"
                    ),
                )
            })
        }
        Err(why) if why.contains("failed") => Some(Finding::wrong(
            format!("there is no route for {prefix}: {lost}"),
            "systemctl restart tylod  # which makes it",
        )),
        Err(why) => Some(Finding::unknown(why, "apt install iproute2")),
    }
}

pub(super) fn ipv4_route(system: &System) -> Vec<Finding> {
    if system.instances.is_empty() {
        return Vec::new();
    }
    match default_route4() {
        Ok(true) => vec![Finding::fine("there is an IPv4 default route")],
        Ok(false) => vec![Finding::doubt(
            "there is no IPv4 default route: only what is routed by itself can be reached",
            "ip route add default via ROUTER",
        )],
        Err(why) => vec![Finding::unknown(why, "apt install iproute2")],
    }
}

fn default_route4() -> Result<bool, String> {
    let routes = program("ip", &["-json", "-4", "route", "show", "default"])?;
    Ok(routes.as_array().is_some_and(|rows| !rows.is_empty()))
}

/// Whether the neighbours of the gateway find it when they look for pool4.
pub(super) fn pool4_address(system: &System) -> Vec<Finding> {
    let mut findings = Vec::new();
    let pool = system.pool4();
    let mut prefixes: Vec<Prefix4> = pool.iter().map(|(prefix, _)| *prefix).collect();
    prefixes.dedup();
    for prefix in prefixes {
        let address = prefix.network();
        if system.owns(address) {
            continue;
        }
        let on_link = system.outer_links().find(|link| {
            link.addresses.iter().any(|(own, len)| {
                let IpAddr::V4(own) = own else { return false };
                Prefix4::new(truncate(*own, *len), *len).is_ok_and(|net| net.contains(address))
            })
        });
        let Some(link) = on_link else { continue };
        let name = &link.name;
        let proxies = ["all", name]
            .iter()
            .any(|d| sysctl(&format!("net/ipv4/conf/{d}/proxy_arp")).is_some_and(|v| v != "0"));
        if !proxies {
            findings.push(Finding::wrong(
                format!(
                    "pool4's {prefix} lies in the network of {name}, where hosts ask for it by \
                     ARP, and nobody answers"
                ),
                format!("ip address add {address}/32 dev {name}  # and so on for all of {prefix}; or sysctl -w net.ipv4.conf.{name}.proxy_arp=1"),
            ));
        }
    }
    if findings.is_empty() && !pool.is_empty() {
        let what = "pool4's addresses are this host's own, or not of a network it is in (so that \
                    others must route them here)";
        findings.push(Finding::fine(what));
    }
    findings
}

fn truncate(address: Ipv4Addr, len: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(len.min(32)));
    Ipv4Addr::from(u32::from(address) & mask.unwrap_or(0))
}

/// Whether programs of this host may use the same ports of its own addresses.
pub(super) fn pool4_ports(system: &System) -> Vec<Finding> {
    let mut findings = Vec::new();
    let own: Vec<(Prefix4, PortRange)> = system
        .pool4()
        .into_iter()
        .filter(|(prefix, _)| system.owns(prefix.network()))
        .collect();
    if own.is_empty() {
        return findings;
    }
    if let Some((low, high)) = sysctl("net/ipv4/ip_local_port_range")
        .as_deref()
        .and_then(range)
    {
        let reserved = sysctl("net/ipv4/ip_local_reserved_ports").unwrap_or_default();
        let is_reserved = |port: u16| {
            reserved.split(',').any(|word| {
                let (from, to) = word.split_once('-').unwrap_or((word, word));
                let bounds = from.parse().ok().zip(to.parse().ok());
                bounds.is_some_and(|(from, to): (u16, u16)| (from..=to).contains(&port))
            })
        };
        let clash = own.iter().find_map(|(prefix, ports)| {
            let mut both = ports.min.max(low)..=ports.max.min(high);
            both.find(|port| !is_reserved(*port))
                .map(|port| (prefix, ports, port))
        });
        if let Some((prefix, ports, port)) = clash {
            findings.push(Finding::wrong(
                format!(
                    "pool4 has ports {}-{} of this host's own address {prefix}, and the kernel \
                     gives its programs ports {low}-{high}: both would use {port}",
                    ports.min, ports.max
                ),
                format!(
                    "sysctl -w net.ipv4.ip_local_reserved_ports={}-{}",
                    ports.min, ports.max
                ),
            ));
        }
    }
    for (protocol, port) in bound() {
        let taken = own
            .iter()
            .any(|(_, ports)| (ports.min..=ports.max).contains(&port));
        if taken {
            findings.push(Finding::wrong(
                format!("a program has {protocol} port {port}, which is pool4's, too"),
                format!("ss -lnp 'sport = :{port}'  # give one of them another port"),
            ));
        }
    }
    if findings.is_empty() {
        let what = "programs of this host use no ports of pool4";
        findings.push(Finding::fine(what));
    }
    findings
}

fn range(text: &str) -> Option<(u16, u16)> {
    let mut words = text.split_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// Ports that programs wait at, on any IPv4 address.
fn bound() -> Vec<(&'static str, u16)> {
    let mut found = Vec::new();
    for (protocol, file) in [
        ("TCP", "tcp"),
        ("TCP", "tcp6"),
        ("UDP", "udp"),
        ("UDP", "udp6"),
    ] {
        let table = fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        let table = table.unwrap_or_default();
        let ports = table
            .lines()
            .skip(1)
            .filter_map(|line| waiting(line, protocol));
        found.extend(ports.map(|port| (protocol, port)));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The port of a socket that waits for anybody, from a line of the kernel's table.
fn waiting(line: &str, protocol: &str) -> Option<u16> {
    const LISTEN: &str = "0A";
    let mut words = line.split_whitespace().skip(1);
    let (local, remote, state) = (words.next()?, words.next()?, words.next()?);
    let anybody = if protocol == "TCP" {
        state == LISTEN
    } else {
        remote.ends_with(":0000")
    };
    let port = local.rsplit_once(':')?.1;
    anybody.then(|| u16::from_str_radix(port, 16).ok())?
}

pub(super) fn mtu(system: &System) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut smallest: Option<(u64, &str)> = None;
    for link in system.outer_links() {
        let six = link.addresses.iter().any(|(address, _)| address.is_ipv6());
        if link.mtu < IPV6_MTU {
            findings.push(Finding::doubt(
                format!(
                    "{} has an MTU of {}: IPv6 needs {IPV6_MTU}, and translated packets of IPv6 \
                     hosts that send no less do not fit",
                    link.name, link.mtu
                ),
                format!("ip link set {} mtu 1500", link.name),
            ));
        } else if six && smallest.is_none_or(|(mtu, _)| link.mtu < mtu) {
            smallest = Some((link.mtu, &link.name));
        }
    }
    if let Some((mtu, device)) = smallest {
        for instance in &system.instances {
            let lowest = u64::from(instance.settings.lowest_ipv6_mtu);
            if lowest > mtu {
                let (name, program) = (&instance.name, program_of(instance.flavour));
                findings.push(Finding::wrong(
                    format!(
                        "lowest-ipv6-mtu of '{name}' is {lowest}, and {device} carries {mtu}: \
                         large IPv4 packets that may be fragmented are lost"
                    ),
                    format!("{program} -i {name} global update lowest-ipv6-mtu {mtu}"),
                ));
            }
        }
    }
    let tun = system.links.iter().flatten().find(|link| link.name == TUN);
    let largest = system.outer_links().map(|link| link.mtu).max();
    if let (Some(tun), Some(largest)) = (tun, largest)
        && tun.mtu < largest
    {
        findings.push(Finding::wrong(
            format!(
                "{TUN} has an MTU of {}, other devices of {largest}",
                tun.mtu
            ),
            "systemctl restart tylod  # which sets it",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::fine("the MTUs fit"));
    }
    findings
}

/// The command that a flavour's instances are changed with.
fn program_of(flavour: Flavour) -> &'static str {
    let all = [JOOL, JOOL_SIIT, JOOL_MAPT];
    let found = all.iter().find(|who| who.flavour == flavour);
    found.map_or(JOOL.program, |who| who.program)
}

pub(super) fn offloads(system: &System) -> Vec<Finding> {
    let mut findings = Vec::new();
    for link in system.outer_links() {
        match text("ethtool", &["-k", &link.name]) {
            Ok(features) => findings.extend(offload(&link.name, &features)),
            Err(why) => {
                findings.push(Finding::unknown(why, "apt install ethtool"));
                break;
            }
        }
    }
    if findings.is_empty() {
        findings.push(Finding::fine("the devices do the offloads that help"));
    }
    findings
}

/// What the features of a device, as `ethtool -k` prints them, mean to a translator.
fn offload(device: &str, features: &str) -> Option<Finding> {
    let feature = |name: &str| {
        features.lines().find_map(|line| {
            let (found, value) = line.trim().split_once(": ")?;
            (found == name).then(|| value.starts_with("on"))
        })
    };
    if feature("large-receive-offload") == Some(true) {
        return Some(Finding::wrong(
            format!("{device} joins packets in a way that cannot be undone (LRO)"),
            format!("ethtool -K {device} lro off"),
        ));
    }
    (feature("generic-receive-offload") == Some(false)).then(|| {
        Finding::doubt(
            format!("{device} does not join TCP segments (GRO): every packet costs on its own"),
            format!("ethtool -K {device} gro on"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::verbs::doctor::Verdict;

    #[test]
    fn offloads_that_harm_and_that_are_missing() {
        let verdict = |text: &str| offload("eth0", text).map(|finding| finding.verdict);
        let fine = "Features for eth0:\ngeneric-receive-offload: on\n\
                    large-receive-offload: off [fixed]\n";
        assert_eq!(verdict(fine), None);
        let lro = fine.replace("off [fixed]", "on");
        assert_eq!(verdict(&lro), Some(Verdict::Wrong));
        let no_gro = fine.replace(
            "generic-receive-offload: on",
            "generic-receive-offload: off",
        );
        assert_eq!(verdict(&no_gro), Some(Verdict::Doubt));
        assert_eq!(verdict(""), None);
    }

    #[test]
    fn sockets_that_wait() {
        let line = "   0: 00000000:EE49 00000000:0000 0A 00000000:00000000 00:00000000 00000000";
        assert_eq!(waiting(line, "TCP"), Some(0xee49));
        assert_eq!(waiting(&line.replace(" 0A ", " 01 "), "TCP"), None);
        assert_eq!(waiting(line, "UDP"), Some(0xee49));
        assert_eq!(waiting("", "UDP"), None);
        assert_eq!(range("32768\t60999"), Some((32768, 60999)));
        assert_eq!(range("x"), None);
        assert_eq!(
            truncate([192, 0, 2, 77].into(), 24),
            Ipv4Addr::new(192, 0, 2, 0)
        );
        assert_eq!(truncate([192, 0, 2, 77].into(), 0), Ipv4Addr::UNSPECIFIED);
    }
}

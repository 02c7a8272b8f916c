// SPDX-License-Identifier: GPL-2.0-or-later
//! Which instances the rules hand a packet to, and in which order: what `ruleset` writes for the
//! kernel, said of one packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::local::{Here, Local, World};
use crate::base::prefix::Prefix6;
use crate::base::{Protocol, Transport4};
use crate::map::mapt::Customer;
use crate::model::mapt::MaptType;
use crate::model::{Flavour, Framework};

/// What a rule looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    /// `None` is anything else.
    pub(super) protocol: Option<Protocol>,
    /// Of its destination; `None` where only the first fragment has it.
    pub(super) port: Option<u16>,
}

/// Whether the rules of an instance match a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// Why, and what it is configured by.
    Yes(Place, String, &'static str),
    No(String, &'static str),
}

/// Where a rule is: those in front come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Chain `stateless`, by the EAM table.
    Eam,
    /// Chain `stateless`, by pool6.
    Pool6,
    /// Chain `prerouting`, where packets come that the stateless instances left alone.
    Nat64,
    Mapt,
    /// A rule of the administrator, wherever that is.
    Elsewhere,
}

impl Place {
    /// Of two rules in one chain, only the first gets a packet.
    pub(super) const fn chain(self) -> u8 {
        match self {
            Self::Eam | Self::Pool6 => 0,
            Self::Nat64 | Self::Mapt => 1,
            Self::Elsewhere => 2,
        }
    }
}

impl World {
    /// Whether the rules hand a packet to an instance.
    pub(super) fn judge(&self, local: &Local, head: &Head) -> Match {
        if local.framework == Framework::Iptables {
            return Match::Yes(
                Place::Elsewhere,
                "only a rule of yours sends packets there, and such rules are not looked at here"
                    .to_owned(),
                "framework iptables",
            );
        }
        match (local.flavour, head.dst) {
            (Flavour::Nat64, IpAddr::V6(dst)) => {
                let pool6 = local.instance.settings().pool6.map(|pool6| pool6.prefix());
                within(Place::Nat64, pool6, dst, "pool6")
            }
            (Flavour::Nat64, IpAddr::V4(dst)) => nat64(local, &self.here, head, dst),
            (Flavour::Siit, IpAddr::V6(dst)) => self.siit6(local, dst),
            (Flavour::Siit, IpAddr::V4(dst)) => self.siit4(local, dst),
            (Flavour::Mapt, IpAddr::V6(dst)) => {
                let settings = local.instance.settings();
                let (prefix, key) = match settings.mapt_role() {
                    MaptType::Br => (settings.pool6.map(|dmr| dmr.prefix()), "pool6"),
                    MaptType::Ce => (settings.end_user_ipv6_prefix, "end-user-ipv6-prefix"),
                };
                within(Place::Mapt, prefix, dst, key)
            }
            (Flavour::Mapt, IpAddr::V4(dst)) => self.mapt4(local, head.src, dst),
        }
    }

    fn siit6(&self, local: &Local, dst: Ipv6Addr) -> Match {
        let row = local.instance.siit().and_then(|siit| siit.eamt.to4(dst));
        if let Some((_, row)) = row {
            let text = format!("its destination is in the EAM row {} - {}", row.v6, row.v4);
            return Match::Yes(Place::Eam, text, "eamt");
        }
        if self.here.is_local6(dst) {
            return Match::No(
                "its destination is this host".to_owned(),
                "address of the host",
            );
        }
        let pool6 = local.instance.settings().pool6.map(|pool6| pool6.prefix());
        within(Place::Pool6, pool6, dst, "pool6")
    }

    fn siit4(&self, local: &Local, dst: Ipv4Addr) -> Match {
        if self.here.is_local4(dst) {
            let text = "its destination is this host's, or never leaves its link".to_owned();
            return Match::No(text, "address of the host");
        }
        let Some(siit) = local.instance.siit() else {
            return Match::No("it is no SIIT instance".to_owned(), "flavour");
        };
        if let Some((_, row)) = siit.eamt.to6(dst) {
            let text = format!("its destination is in the EAM row {} - {}", row.v6, row.v4);
            return Match::Yes(Place::Eam, text, "eamt");
        }
        if local.instance.settings().pool6.is_none() {
            let text = "its destination is not in the EAM table, and there is no pool6".to_owned();
            return Match::No(text, "eamt, pool6");
        }
        if siit.denylist4.contains(dst) {
            return Match::No("its destination is in denylist4".to_owned(), "denylist4");
        }
        if let Some(other) = self.locals.iter().find(|other| owns4(other, dst)) {
            let text = format!(
                "its destination is an address of {} '{}'",
                other.flavour.name(),
                other.name
            );
            return Match::No(text, "pool4, fmrt");
        }
        let text = "with a pool6, all of IPv4 that is not denied is for it".to_owned();
        Match::Yes(Place::Pool6, text, "pool6")
    }

    fn mapt4(&self, local: &Local, src: IpAddr, dst: Ipv4Addr) -> Match {
        let settings = local.instance.settings();
        if settings.mapt_role() == MaptType::Br {
            let rule = local.instance.mapt().and_then(|mapt| mapt.fmrt.find4(dst));
            return match rule {
                Some(rule) => {
                    let text = format!("its destination is in {} of a mapping rule", rule.v4());
                    Match::Yes(Place::Mapt, text, "fmrt")
                }
                None => Match::No("no mapping rule has its destination".to_owned(), "fmrt"),
            };
        }
        let networks = self.here.networks4();
        let near = self.here.is_local4(dst) || networks.iter().any(|net| net.contains(dst));
        if near {
            let text = "its destination is this host's, or in a network of its".to_owned();
            return Match::No(text, "address of the host");
        }
        if settings.mapt_napt {
            let text = "all that goes beyond its own networks is for it".to_owned();
            return Match::Yes(Place::Mapt, text, "mapt-napt");
        }
        let customer = settings
            .bmr
            .zip(settings.end_user_ipv6_prefix)
            .and_then(|(rule, prefix)| Customer::new(rule, prefix).ok());
        match (customer, src) {
            (Some(own), IpAddr::V4(src)) if own.owns(src) => {
                let text = "it comes from the customer's IPv4 address".to_owned();
                Match::Yes(Place::Mapt, text, "bmr, end-user-ipv6-prefix")
            }
            (Some(own), _) => {
                let text = format!(
                    "its source is not the customer's {}/{}",
                    own.first4(),
                    own.v4_len()
                );
                Match::No(text, "bmr, end-user-ipv6-prefix")
            }
            (None, _) => Match::No(
                "the settings make no customer edge".to_owned(),
                "bmr, end-user-ipv6-prefix",
            ),
        }
    }
}

fn nat64(local: &Local, here: &Here, head: &Head, dst: Ipv4Addr) -> Match {
    let Some(nat64) = local.instance.nat64() else {
        return Match::No("it is no NAT64 instance".to_owned(), "flavour");
    };
    let pool = if nat64.pool4().is_empty() {
        "this host's own addresses and ports from 61001 on, for pool4 is empty"
    } else {
        "pool4"
    };
    let Some(protocol) = head.protocol else {
        let text = "it is neither TCP, UDP nor ICMP, which is all that has a pool4".to_owned();
        return Match::No(text, "pool4");
    };
    let known = nat64.covers_address(here, dst);
    let (ours, what) = match (protocol, head.port) {
        (Protocol::Icmp, _) | (_, None) => (known, dst.to_string()),
        (Protocol::Tcp | Protocol::Udp, Some(port)) => {
            let v4 = Transport4::new(dst, port);
            (nat64.covers(here, protocol, v4), format!("{protocol} {v4}"))
        }
    };
    if ours {
        return Match::Yes(Place::Nat64, format!("{what} is in {pool}"), "pool4");
    }
    let behind = if known { ", though its address is" } else { "" };
    let unknown = match (nat64.pool4().is_empty(), here.is_known()) {
        (true, false) => "; which these are, is not known here",
        _ => "",
    };
    Match::No(format!("{what} is not in {pool}{behind}{unknown}"), "pool4")
}

fn within(place: Place, prefix: Option<Prefix6>, dst: Ipv6Addr, key: &'static str) -> Match {
    match prefix {
        Some(prefix) if prefix.contains(dst) => {
            Match::Yes(place, format!("its destination is in {prefix}"), key)
        }
        Some(prefix) => Match::No(format!("its destination is not in {prefix}"), key),
        None => Match::No(format!("it has no {key}"), key),
    }
}

/// Whether another instance answers for an IPv4 address.
fn owns4(local: &Local, addr: Ipv4Addr) -> bool {
    let pool4 = local.instance.nat64().map(|nat64| nat64.pool4());
    let fmrt = local.instance.mapt().map(|mapt| &mapt.fmrt);
    let relay = local.instance.settings().mapt_role() == MaptType::Br;
    pool4.is_some_and(|pool4| pool4.has_address(addr))
        || relay && fmrt.is_some_and(|fmrt| fmrt.find4(addr).is_some())
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! What the tables of an instance say about a packet, before it and after it. They are asked, not
//! imitated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::story::Step;
use super::view::{Load, View, as_client};
use crate::base::host::Host;
use crate::base::{Protocol, Tick, Transport4, Transport6};
use crate::cli::verbs::mapt::ranges;
use crate::engine::Instance;
use crate::map::mapt::{self, Customer, PortSet};
use crate::map::{Role, Untranslatable};
use crate::model::mapt::{MapRule, MaptType};
use crate::model::settings::{Settings, format_duration};
use crate::model::{AddressRule, Flavour};
use crate::nat64::pool4::HOST_PORTS;
use crate::nat64::tcp::Lifetime;
use crate::nat64::{Change, News, SessionState};

/// What a packet is to the tables of sessions.
#[derive(Clone, Copy, Debug)]
struct Flow {
    protocol: Protocol,
    client: Option<Transport6>,
    v4: Option<Transport4>,
    remote: Transport4,
}

impl Flow {
    /// `None` where the packet has no ports, or its addresses none of the other family.
    fn of(instance: &Instance, view: &View) -> Option<Self> {
        let nat64 = instance.sessions()?;
        let napt = instance.flavour() == Flavour::Mapt;
        let pool6 = instance.settings().pool6?;
        let (protocol, [(src, from), (dst, to)]) = match (&view.load, view.flow()) {
            (Load::Error(_, quote), _) => {
                let (protocol, [from, to]) = quote.flow?;
                // It goes to the source of what it quotes.
                (protocol, [(quote.dst, to), (quote.src, from)])
            }
            (_, Some((protocol, [from, to]))) => (protocol, [(view.src, from), (view.dst, to)]),
            (_, None) => return None,
        };
        let (outward, remote) = match (src, dst) {
            (IpAddr::V6(_), IpAddr::V6(dst)) if !napt => (true, pool6.extract(dst)?),
            (IpAddr::V4(_), IpAddr::V4(dst)) if napt => (true, dst),
            (IpAddr::V4(src), IpAddr::V4(_)) => (false, src),
            (IpAddr::V6(src), IpAddr::V6(_)) => (false, pool6.extract(src)?),
            _ => return None,
        };
        if outward {
            let client = Transport6::new(as_client(src), from);
            let v4 = nat64.mapped_v4(protocol, client);
            let port = match protocol {
                Protocol::Icmp => v4.map_or(0, |v4| v4.port),
                Protocol::Tcp | Protocol::Udp => to,
            };
            return Some(Self {
                protocol,
                client: Some(client),
                v4,
                remote: Transport4::new(remote, port),
            });
        }
        let dst = match dst {
            IpAddr::V4(dst) => dst,
            IpAddr::V6(dst) => own(instance.settings())?.own4(dst)?,
        };
        let v4 = Transport4::new(dst, to);
        Some(Self {
            protocol,
            client: nat64.mapped_v6(protocol, v4),
            v4: Some(v4),
            remote: Transport4::new(remote, from),
        })
    }
}

/// A packet's session, as it was before it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Before {
    session: Option<SessionState>,
}

/// What the tables say before the packet.
pub(super) fn before(
    instance: &Instance,
    host: &dyn Host,
    view: &View,
    now: Tick,
) -> (Before, Vec<Step>) {
    let mut steps = Vec::new();
    match instance.flavour() {
        Flavour::Nat64 => embedded(instance, view, &mut steps),
        Flavour::Siit => stateless(instance, host, view, &mut steps),
        Flavour::Mapt => rules(instance, view, &mut steps),
    }
    let mut before = Before::default();
    let Some((flow, nat64)) = Flow::of(instance, view).zip(instance.sessions()) else {
        return (before, steps);
    };
    let protocol = flow.protocol;
    let clause = clause(protocol);
    let client = |client: Transport6| shown(client, instance.flavour());
    let text = match (flow.client, flow.v4) {
        (Some(v6), Some(v4)) => {
            let known = nat64.table(protocol).find_v4(v4);
            let is_static = known.is_some_and(|id| nat64.table(protocol).bib(id).is_static);
            let kind = if is_static { "static" } else { "dynamic" };
            format!("{protocol} {} is {v4} ({kind})", client(v6))
        }
        (Some(v6), None) => format!("{protocol} {} has none", client(v6)),
        (None, Some(v4)) => format!("nobody has {protocol} {v4}"),
        (None, None) => return (before, steps),
    };
    steps.push(Step::new("mapping", text, clause));
    let Some(v4) = flow.v4.filter(|_| flow.client.is_some()) else {
        return (before, steps);
    };
    before.session = nat64
        .session(protocol, v4, flow.remote)
        .map(|(_, session)| session);
    let text = match &before.session {
        Some(session) => format!(
            "with {}: {}",
            peer(protocol, flow.remote),
            state(session, now)
        ),
        None if instance.flavour() == Flavour::Mapt => format!(
            "with {}: none here; the daemon does not display those of a customer edge",
            peer(protocol, flow.remote)
        ),
        None => format!("with {}: none", peer(protocol, flow.remote)),
    };
    steps.push(Step::new("session", text, clause));
    (before, steps)
}

/// What the packet did to them.
pub(super) fn after(
    instance: &mut Instance,
    view: &View,
    before: &Before,
    mark: u32,
    now: Tick,
) -> Vec<Step> {
    let mut changes = Vec::new();
    instance.drain_changes(&mut changes);
    let flavour = instance.flavour();
    let mut steps = Vec::new();
    let mut begun = false;
    for change in &changes {
        match change {
            Change::Mapping(mapping) | Change::MappingFixed(mapping) => {
                let text = format!(
                    "{} {} becomes {}{}",
                    mapping.protocol,
                    shown(mapping.v6, flavour),
                    mapping.v4,
                    choice(instance, mapping.protocol, mapping.v4, mark)
                );
                let pool = match flavour {
                    Flavour::Nat64 | Flavour::Siit => "pool4",
                    Flavour::Mapt => "RFC 7599 section 8.1, bmr",
                };
                let place = place(mapping.protocol);
                let why = format!("{pool}, f-args, {place}, RFC 6056 section 3.3.3");
                steps.push(Step::new("new mapping", text, why));
            }
            Change::MappingGone { protocol, v6, v4 } => {
                let text = format!("{protocol} {} is {v4} no more", shown(*v6, flavour));
                steps.push(Step::new("mapping ends", text, "pool4"));
            }
            Change::Session {
                session,
                v6,
                news: News::Began,
            } => {
                begun = true;
                let (client, peer) = (shown(*v6, flavour), peer(session.protocol, session.remote));
                let text = format!("{client} with {peer}: {}", state(session, now));
                let why = [clause(session.protocol), key(session.lifetime)].join(", ");
                steps.push(Step::new("new session", text, why));
            }
            Change::Session { .. } | Change::SessionGone { .. } => {}
        }
    }
    if let Some((old, new)) = before
        .session
        .zip(session(instance, view))
        .filter(|_| !begun)
    {
        let ends = format_duration(new.deadline.since(now));
        let text = if old.protocol == Protocol::Tcp && old.state != new.state {
            format!(
                "{} becomes {}, ends in {ends}",
                old.state.name(),
                new.state.name()
            )
        } else if old.deadline == new.deadline {
            format!("as before; ends in {ends}")
        } else {
            format!("lives on; ends in {ends}")
        };
        let why = [clause(new.protocol), key(new.lifetime)].join(", ");
        steps.push(Step::new("session", text, why));
    }
    steps
}

fn session(instance: &Instance, view: &View) -> Option<SessionState> {
    let flow = Flow::of(instance, view)?;
    let found = instance
        .sessions()?
        .session(flow.protocol, flow.v4?, flow.remote);
    found.map(|(_, session)| session)
}

/// From what a transport address was chosen, which the gateway's secret decides.
fn choice(instance: &Instance, protocol: Protocol, v4: Transport4, mark: u32) -> String {
    let Some(nat64) = instance.nat64() else {
        return " here; the gateway chooses any free port of the customer by a secret hash"
            .to_owned();
    };
    if nat64.pool4().is_empty() {
        let (min, max) = (HOST_PORTS.min, HOST_PORTS.max);
        return format!(
            " here; without pool4, the gateway chooses any free one of its own, {min}-{max}, by a secret hash"
        );
    }
    let entries = nat64.pool4().entries();
    let ours = entries
        .iter()
        .filter(|e| e.protocol == protocol && e.mark == mark);
    let entry = ours.clone().find(|entry| {
        entry.prefix.contains(v4.addr) && (entry.ports.min..=entry.ports.max).contains(&v4.port)
    });
    match entry {
        Some(entry) => format!(
            " here; the gateway chooses any free one of {} {}-{} (mark {mark}{}) by a secret hash",
            entry.prefix.to_string().trim_end_matches("/32"),
            entry.ports.min,
            entry.ports.max,
            match ours.count() {
                0 | 1 => String::new(),
                more => format!(", and {} more", more - 1),
            }
        ),
        None => " here; the gateway chooses by a secret hash".to_owned(),
    }
}

fn state(session: &SessionState, now: Tick) -> String {
    let ends = format_duration(session.deadline.since(now));
    match session.protocol {
        Protocol::Tcp => format!("{}, ends in {ends}", session.state.name()),
        Protocol::Udp | Protocol::Icmp => format!("there, ends in {ends}"),
    }
}

const fn clause(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Udp => "RFC 6146 section 3.5.1",
        Protocol::Tcp => "RFC 6146 section 3.5.2.2",
        Protocol::Icmp => "RFC 6146 section 3.5.3",
    }
}

/// How transport addresses are chosen.
const fn place(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Udp => "RFC 6146 section 3.5.1.1",
        Protocol::Tcp => "RFC 6146 section 3.5.2.3",
        Protocol::Icmp => "RFC 6146 section 3.5.3",
    }
}

/// What the length of a lifetime is set by.
const fn key(lifetime: Lifetime) -> &'static str {
    match lifetime {
        Lifetime::TcpEstablished => "tcp-est-timeout",
        Lifetime::TcpTransitory => "tcp-trans-timeout",
        Lifetime::TcpIncomingSyn => "RFC 6146 section 4",
        Lifetime::Udp => "udp-timeout",
        Lifetime::Icmp => "icmp-timeout",
    }
}

/// The other end of a session; those of pings have no port there.
fn peer(protocol: Protocol, remote: Transport4) -> String {
    match protocol {
        Protocol::Icmp => remote.addr.to_string(),
        Protocol::Tcp | Protocol::Udp => remote.to_string(),
    }
}

/// A client; a private one as it is known to itself.
fn shown(client: Transport6, flavour: Flavour) -> String {
    match client.addr.to_ipv4_mapped() {
        Some(addr) if flavour == Flavour::Mapt => Transport4::new(addr, client.port).to_string(),
        _ => client.to_string(),
    }
}

/// NAT64: the IPv4 address in the destination.
fn embedded(instance: &Instance, view: &View, steps: &mut Vec<Step>) {
    let pool6 = instance.settings().pool6;
    if let (IpAddr::V6(dst), Some(pool6)) = (view.dst, pool6)
        && let Some(inside) = pool6.extract(dst)
    {
        let text = format!("{dst} is {inside} in pool6 {pool6}");
        steps.push(Step::new(
            "destination",
            text,
            "RFC 6052 section 2.2, pool6",
        ));
    }
}

/// SIIT: both ends of what the packet is, or is about.
fn stateless(instance: &Instance, host: &dyn Host, view: &View, steps: &mut Vec<Step>) {
    let mut end = |step, addr| steps.push(siit_end(instance, host, step, addr));
    end("destination", view.dst);
    if let Load::Error(_, quote) = &view.load {
        end("quoted from", quote.src);
        end("quoted to", quote.dst);
    } else {
        end("source", view.src);
    }
}

fn siit_end(instance: &Instance, host: &dyn Host, step: &'static str, addr: IpAddr) -> Step {
    let settings = instance.settings();
    let Some(siit) = instance.siit() else {
        return Step::new(step, addr.to_string(), "");
    };
    let found: Result<(IpAddr, AddressRule), Untranslatable> = match addr {
        IpAddr::V6(addr) => siit
            .to4(settings, host, addr, Role::End)
            .map(|(found, rule)| (found.into(), rule)),
        IpAddr::V4(addr) => siit
            .to6(settings, host, addr, Role::End, true)
            .map(|(found, rule)| (found.into(), rule)),
    };
    match found {
        Ok((found, AddressRule::Eam(row))) => {
            let text = format!("{addr} is {found} by the EAM row {} - {}", row.v6, row.v4);
            Step::new(step, text, "RFC 7757 section 3, eamt")
        }
        Ok((found, AddressRule::Pool6(pool6))) => {
            let text = format!("{addr} is {found} by pool6 {pool6}");
            Step::new(step, text, "RFC 6052 section 2.2, pool6")
        }
        Err(error) => {
            let text = format!("{addr} has no translation: {error}");
            Step::new(step, text, "RFC 7915 section 6, eamt, pool6, denylist4")
        }
    }
}

/// MAP-T: who the ends are.
fn rules(instance: &Instance, view: &View, steps: &mut Vec<Step>) {
    let settings = instance.settings();
    let [from, to] = match (&view.load, view.flow()) {
        (_, Some((_, ports))) => ports,
        // Of an error, the quoted packet's, the other way round.
        (Load::Error(_, quote), None) => match quote.flow {
            Some((_, [from, to])) => [to, from],
            None => return,
        },
        (_, None) => return,
    };
    let own = own(settings);
    if let Some(own) = &own {
        let text = format!(
            "the customer edge of {}, {}/{}, ports {}",
            own.prefix(),
            own.first4(),
            own.v4_len(),
            ranges(&own.ports())
        );
        let why = "RFC 7597 section 5.2, end-user-ipv6-prefix, bmr";
        steps.push(Step::new("role", text, why));
    } else {
        steps.push(Step::new("role", "a border relay".to_owned(), "map-t-type"));
    }
    for (step, addr, port) in [("source", view.src, from), ("destination", view.dst, to)] {
        let (text, why) = match addr {
            IpAddr::V4(addr) => mapt_four(instance, own.as_ref(), addr, port),
            IpAddr::V6(addr) => mapt_six(instance, own.as_ref(), addr, port),
        };
        steps.push(Step::new(step, text, why));
    }
}

fn own(settings: &Settings) -> Option<Customer> {
    if settings.mapt_role() == MaptType::Br {
        return None;
    }
    Customer::new(settings.bmr?, settings.end_user_ipv6_prefix?).ok()
}

fn mapt_four(
    instance: &Instance,
    own: Option<&Customer>,
    addr: Ipv4Addr,
    port: u16,
) -> (String, &'static str) {
    let settings = instance.settings();
    if let Some(own) = own.filter(|own| own.owns(addr)) {
        let verdict = has(&own.ports(), port);
        let text = format!("{addr}#{port} is the customer's own address; {verdict}");
        return (text, "RFC 7597 section 5.1, bmr");
    }
    if settings.mapt_napt && addr.is_private() {
        return (
            format!("{addr} is private"),
            "RFC 7599 section 8.1, mapt-napt",
        );
    }
    let rule = instance.mapt().and_then(|mapt| mapt.fmrt.find4(addr));
    match (rule, settings.pool6) {
        (Some(rule), _) => (by_rule(rule, addr, port), "RFC 7597 section 5.2, fmrt"),
        (None, Some(dmr)) => (
            format!(
                "{addr} is in no mapping rule: {} by the DMR {dmr}",
                dmr.embed(addr)
            ),
            "RFC 7599 section 5.1, pool6",
        ),
        (None, None) => (
            format!("{addr} is in no mapping rule, and there is no DMR"),
            "RFC 7599 section 5.1, pool6",
        ),
    }
}

fn mapt_six(
    instance: &Instance,
    own: Option<&Customer>,
    addr: Ipv6Addr,
    port: u16,
) -> (String, &'static str) {
    if let Some(own) = own.filter(|own| own.prefix().contains(addr)) {
        return match own.own4(addr) {
            Some(v4) => {
                let verdict = has(&own.ports(), port);
                let text = format!("{addr} is the customer's own {v4}; {verdict}");
                (text, "RFC 7597 section 5.1, bmr")
            }
            None => {
                let map = own.address(own.first4());
                let text = format!("{addr} is the customer's, but not its MAP address {map}");
                (text, "RFC 7597 section 6, RFC 7599 section 8.2")
            }
        };
    }
    let rule = instance.mapt().and_then(|mapt| mapt.fmrt.find6(addr));
    let dmr = instance.settings().pool6;
    match (rule, dmr.and_then(|dmr| Some((dmr, dmr.extract(addr)?)))) {
        (Some(rule), _) => {
            let v4 = mapt::address4(rule, addr);
            let (psid, agrees) = (mapt::psid_in(rule, addr), mapt::agrees(rule, addr, port));
            let text = if agrees {
                format!(
                    "{addr} is {v4} by the rule '{rule}', and port {port} belongs to its PSID {psid}"
                )
            } else {
                format!(
                    "{addr} would be {v4} with PSID {psid} by the rule '{rule}'; port {port} belongs to {}",
                    mapt::address_of(rule, v4, port)
                )
            };
            (text, "RFC 7597 section 5.2, RFC 7599 section 8.3, fmrt")
        }
        (None, Some((dmr, v4))) => (
            format!("{addr} is {v4} by the DMR {dmr}"),
            "RFC 7599 section 5.1, pool6",
        ),
        (None, None) => (
            format!("{addr} is neither in a mapping rule nor in the DMR"),
            "RFC 7599 section 5.1, fmrt, pool6",
        ),
    }
}

fn by_rule(rule: MapRule, addr: Ipv4Addr, port: u16) -> String {
    let psid = mapt::psid(rule, port);
    if PortSet::of(rule, psid).contains(port) {
        let v6 = mapt::address(rule, addr, psid);
        format!("{addr}#{port} is {v6} by the rule '{rule}': PSID {psid}")
    } else {
        format!("{addr}#{port} is nobody's by the rule '{rule}': its PSID offset excludes the port")
    }
}

fn has(ports: &PortSet, port: u16) -> String {
    if ports.contains(port) {
        format!("port {port} is one of its ports")
    } else {
        format!(
            "port {port} is NOT one of its ports, which are {}",
            ranges(ports)
        )
    }
}

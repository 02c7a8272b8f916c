// SPDX-License-Identifier: GPL-2.0-or-later
//! Copies of instances: as the daemon has them, or as a file says. What packets do to them, they do
//! to nothing else.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::base::host::Host;
use crate::base::prefix::{Prefix4, SCOPED4};
use crate::base::{Protocol, Tick, Transport4};
use crate::cli::client::{Client, ClientError};
use crate::cli::file;
use crate::cli::grammar::GrammarError;
use crate::cli::run::{RunError, foreign};
use crate::cli::verbs::{fetch, names, request, usage};
use crate::dataplane::Addresses;
use crate::engine::Instance;
use crate::model::control::{Command, Config, Reply};
use crate::model::settings::{SettingError, Settings};
use crate::model::{DEFAULT_INSTANCE, Flavour, Framework, SessionRow, TcpState};
use crate::nat64::pool4::Pool4;
use crate::nat64::tcp::Lifetime;
use crate::nat64::{Mapping, SessionState};

/// A copy of an instance.
pub(super) struct Local {
    pub(super) flavour: Flavour,
    pub(super) name: String,
    pub(super) framework: Framework,
    pub(super) instance: Instance,
}

/// All that there is in a network namespace, or in a file.
pub(super) struct World {
    /// Of one flavour, in the order of their rules.
    pub(super) locals: Vec<Local>,
    pub(super) here: Here,
}

/// The host; `None` where it is not the gateway.
pub(super) struct Here(Option<Addresses>);

/// Which instances are looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    pub(super) name: Option<String>,
    pub(super) flavour: Option<Flavour>,
}

impl World {
    /// What the daemon of this network namespace has, for packets of one protocol, or of all. Whole
    /// tables are copied, since pool4 may be exhausted by anybody's mappings, and limits reached by
    /// anybody's sessions.
    pub(super) fn of_daemon(choice: &Choice, protocol: Option<Protocol>) -> Result<Self, RunError> {
        let mut client = Client::connect()?;
        let mut locals = Vec::new();
        for flavour in Flavour::ALL {
            for name in names(&mut client, flavour)? {
                let config = match fetch(&mut client, flavour, &name) {
                    // It went meanwhile.
                    Err(ClientError::Refused(_)) => continue,
                    other => other?,
                };
                let mut instance = build(flavour, &config).map_err(|error| complaint(&error))?;
                let chosen = choice.takes(flavour, &name);
                if chosen && instance.sessions().is_some() {
                    copy_state(&mut client, flavour, &name, protocol, &mut instance)?;
                }
                locals.push(Local {
                    flavour,
                    name,
                    framework: config.framework,
                    instance,
                });
            }
        }
        let host = Addresses::open().map_err(|error| complaint(&error.to_string()))?;
        let world = Self {
            locals,
            here: Here(Some(host)),
        };
        world.must_have(choice)?;
        Ok(world)
    }

    /// What a file for `file handle` says. Nobody has sessions there.
    pub(super) fn of_file(path: &Path, choice: &Choice) -> Result<Self, RunError> {
        let open = |flavour| file::configuration(path, flavour, true).map_err(GrammarError::from);
        let fit: Vec<Flavour> = match choice.flavour {
            Some(flavour) => vec![flavour],
            None => Flavour::ALL
                .into_iter()
                .filter(|flavour| {
                    open(*flavour).is_ok_and(|(_, config)| of_config(*flavour, &config).is_ok())
                })
                .collect(),
        };
        let flavour = match *fit {
            [flavour] => flavour,
            // Says why it is not one of the commonest kind.
            [] => Flavour::Nat64,
            [..] => {
                let fit: Vec<&str> = fit.into_iter().map(Flavour::name).collect();
                let message = format!("the file may be about {}; add --flavour", fit.join(" or "));
                return Err(usage("explain", message));
            }
        };
        let (name, config) = open(flavour)?;
        let instance = of_config(flavour, &config).map_err(|error| complaint(&error))?;
        let name = name.or_else(|| choice.name.clone());
        let local = Local {
            flavour,
            name: name.unwrap_or_else(|| DEFAULT_INSTANCE.to_owned()),
            framework: config.framework,
            instance,
        };
        let world = Self {
            locals: vec![local],
            here: Here(None),
        };
        world.must_have(choice)?;
        Ok(world)
    }

    fn must_have(&self, choice: &Choice) -> Result<(), RunError> {
        let all = self.locals.iter();
        let any = all.clone().any(|l| choice.takes(l.flavour, &l.name));
        if any || !choice.is_given() {
            return Ok(());
        }
        let known: Vec<_> = all
            .map(|l| format!("{} '{}'", l.flavour.name(), l.name))
            .collect();
        let known = if known.is_empty() {
            "there is none at all".to_owned()
        } else {
            format!("there is {}", known.join(", "))
        };
        let message = format!("there is no such instance; {known}");
        Err(usage("explain", message))
    }
}

impl Here {
    /// Whether its addresses are known.
    pub(super) const fn is_known(&self) -> bool {
        self.0.is_some()
    }

    /// Whether an IPv4 address is one of this host's, or goes no further than its links.
    pub(super) fn is_local4(&self, addr: Ipv4Addr) -> bool {
        SCOPED4.iter().any(|scoped| scoped.contains(addr)) || Host::is_local4(self, addr)
    }

    pub(super) fn is_local6(&self, addr: Ipv6Addr) -> bool {
        self.0.as_ref().is_some_and(|host| host.is_local6(addr))
    }

    /// IPv4 networks that the host is in.
    pub(super) fn networks4(&self) -> Vec<Prefix4> {
        self.0
            .as_ref()
            .map(Addresses::networks4)
            .unwrap_or_default()
    }
}

impl Host for Here {
    fn has_address4(&self, addr: Ipv4Addr) -> bool {
        self.0.as_ref().is_some_and(|host| host.has_address4(addr))
    }

    fn has_broadcast4(&self, addr: Ipv4Addr) -> bool {
        self.0
            .as_ref()
            .is_some_and(|host| host.has_broadcast4(addr))
    }

    fn source4(&self, towards: Ipv4Addr) -> Option<Ipv4Addr> {
        self.0.as_ref()?.source4(towards)
    }

    fn source6(&self, towards: Ipv6Addr) -> Option<Ipv6Addr> {
        self.0.as_ref()?.source6(towards)
    }
}

impl Choice {
    pub(super) fn takes(&self, flavour: Flavour, name: &str) -> bool {
        self.flavour.is_none_or(|chosen| chosen == flavour)
            && self.name.as_ref().is_none_or(|chosen| chosen == name)
    }

    pub(super) const fn is_given(&self) -> bool {
        self.name.is_some() || self.flavour.is_some()
    }
}

/// An instance as a file has it, which the daemon would take.
fn of_config(flavour: Flavour, config: &Config) -> Result<Instance, String> {
    let instance = build(flavour, config)?;
    let settings = instance.settings();
    match flavour {
        Flavour::Nat64 if settings.pool6.is_none() => Err(SettingError::Pool6Mandatory.to_string()),
        Flavour::Mapt => settings
            .check_mapt()
            .map_err(|error| error.to_string())
            .map(|()| instance),
        Flavour::Nat64 | Flavour::Siit => Ok(instance),
    }
}

/// An instance as a configuration has it.
pub(super) fn build(flavour: Flavour, config: &Config) -> Result<Instance, String> {
    let mut settings = Settings::default();
    for (key, value) in &config.settings {
        let set = settings.set(flavour, key, value.clone(), true);
        set.map_err(|error| format!("{key}: {error}"))?;
    }
    let mut instance = Instance::new(flavour, settings, KEY);
    if let Some(nat64) = instance.nat64_mut() {
        let mut pool4 = Pool4::default();
        config.pool4.iter().for_each(|entry| pool4.add(entry));
        nat64.set_pool4(pool4, &[]);
        for entry in &config.bib {
            // Also one whose place in pool4 is gone: it is in force.
            nat64.import_mapping(Mapping {
                protocol: entry.protocol,
                v6: entry.v6,
                v4: entry.v4,
                is_static: true,
            });
        }
    }
    if let Some(siit) = instance.siit_mut() {
        for row in &config.eamt {
            siit.eamt
                .insert(*row, true)
                .map_err(|error| error.to_string())?;
        }
        for prefix in &config.denylist4 {
            let added = siit.denylist4.add(*prefix, true);
            added.map_err(|error| error.to_string())?;
        }
    }
    if let Some(mapt) = instance.mapt_mut() {
        // A rule within another one is refused behind it, but not in front of it.
        for rule in config.fmrt.iter().rev() {
            mapt.fmrt.insert(*rule).map_err(|error| error.to_string())?;
        }
    }
    // Nobody is told what came to be here.
    instance.drain_changes(&mut Vec::new());
    Ok(instance)
}

/// Adds the mappings and sessions that the daemon's instance has.
fn copy_state(
    client: &mut Client,
    flavour: Flavour,
    name: &str,
    only: Option<Protocol>,
    instance: &mut Instance,
) -> Result<(), ClientError> {
    let settings = instance.settings().clone();
    // Limits count sessions of all protocols together.
    let limited = settings.maximum_sessions != 0 || settings.maximum_sessions_per_prefix != 0;
    let wanted = |protocol: &Protocol| limited || only.is_none_or(|only| only == *protocol);
    for protocol in Protocol::ALL.into_iter().filter(wanted) {
        let command = Command::BibDisplay { protocol };
        client.call(&request(flavour, name, command), |reply| {
            let Reply::Bib(rows) = reply else {
                return Err(foreign());
            };
            let Some(nat64) = instance.sessions_mut() else {
                return Ok(());
            };
            for row in rows {
                // One that changed hands between two pages would contradict itself: the first stays.
                nat64.import_mapping(Mapping {
                    protocol,
                    v6: row.v6,
                    v4: row.v4,
                    is_static: row.is_static,
                });
            }
            Ok(())
        })?;
        // The daemon does not display those of a customer edge.
        if flavour != Flavour::Nat64 {
            continue;
        }
        let command = Command::SessionDisplay { protocol };
        client.call(&request(flavour, name, command), |reply| {
            let Reply::Sessions(rows) = reply else {
                return Err(foreign());
            };
            let Some(nat64) = instance.nat64_mut() else {
                return Ok(());
            };
            for row in rows {
                nat64.import_session(START, &settings, state(&settings, &row));
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// A session as it is displayed. On which lifetime a closing connection is, is not displayed, and
/// follows from what is left of it.
fn state(settings: &Settings, row: &SessionRow) -> SessionState {
    let lifetime = match (row.protocol, row.state) {
        (Protocol::Udp, _) => Lifetime::Udp,
        (Protocol::Icmp, _) => Lifetime::Icmp,
        (Protocol::Tcp, Some(TcpState::V4Init))
            if settings.address_dependent_filtering && row.expires_in <= INCOMING_SYN =>
        {
            Lifetime::TcpIncomingSyn
        }
        (Protocol::Tcp, Some(TcpState::Established)) => Lifetime::TcpEstablished,
        (Protocol::Tcp, Some(TcpState::V4FinRcv | TcpState::V6FinRcv))
            if row.expires_in > settings.tcp_trans_timeout =>
        {
            Lifetime::TcpEstablished
        }
        (Protocol::Tcp, _) => Lifetime::TcpTransitory,
    };
    SessionState {
        protocol: row.protocol,
        v4: row.src4,
        remote: match row.protocol {
            Protocol::Icmp => Transport4::new(row.dst4.addr, 0),
            Protocol::Tcp | Protocol::Udp => row.dst4,
        },
        state: row.state.unwrap_or(TcpState::V6Init),
        lifetime,
        deadline: START.after(row.expires_in),
        segment: 0,
    }
}

fn complaint(text: &str) -> RunError {
    RunError::NotReady(text.to_owned())
}

/// When it begins.
pub(super) const START: Tick = Tick(0);

/// RFC 6146 section 4, TCP_INCOMING_SYN, in milliseconds.
const INCOMING_SYN: u64 = 6_000;

/// The gateway's own is secret. With this one, the same question has the same answer.
const KEY: [u8; 16] = *b"tylo explain key";

// SPDX-License-Identifier: GPL-2.0-or-later
//! What the checks look at.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;

use crate::base::prefix::Prefix4;
use crate::cli::client::{Client, ClientError};
use crate::cli::health;
use crate::cli::run::foreign;
use crate::cli::verbs::{fetch, names, request};
use crate::model::control::{Command as Ask, Config, Health, Reply};
use crate::model::settings::Settings;
use crate::model::{Flavour, PortRange};

pub(super) struct System {
    /// As root: others are not told everything.
    pub(super) root: bool,
    pub(super) state_dir: PathBuf,
    pub(super) health: Result<Health, ClientError>,
    pub(super) instances: Vec<Instance>,
    pub(super) links: Result<Vec<Link>, String>,
}

/// An instance as it is configured.
pub(super) struct Instance {
    pub(super) flavour: Flavour,
    pub(super) name: String,
    pub(super) settings: Settings,
    pub(super) config: Config,
}

/// A network device.
pub(super) struct Link {
    pub(super) name: String,
    pub(super) mtu: u64,
    pub(super) up: bool,
    pub(super) multicast: bool,
    pub(super) loopback: bool,
    pub(super) addresses: Vec<(IpAddr, u8)>,
}

impl System {
    /// Looks at what several checks need.
    pub(super) fn look(state_dir: PathBuf) -> Self {
        let health = health::ask();
        // What cannot be asked is what the check of the daemon says.
        let instances = health.is_ok().then(|| instances().ok()).flatten();
        Self {
            root: rustix::process::geteuid().is_root(),
            state_dir,
            health,
            instances: instances.unwrap_or_default(),
            links: links(),
        }
    }

    /// The devices that packets of others come and go by.
    pub(super) fn outer_links(&self) -> impl Iterator<Item = &Link> {
        let links = self.links.iter().flatten();
        links.filter(|link| link.up && !link.loopback && link.name != TUN)
    }

    /// Whether an IPv4 address is one of this host's.
    pub(super) fn owns(&self, address: Ipv4Addr) -> bool {
        let mut addresses = self
            .links
            .iter()
            .flatten()
            .filter(|link| link.name != TUN)
            .flat_map(|link| &link.addresses);
        addresses.any(|(own, _)| *own == IpAddr::V4(address))
    }

    pub(super) fn of(&self, flavour: Flavour) -> impl Iterator<Item = &Instance> {
        self.instances
            .iter()
            .filter(move |instance| instance.flavour == flavour)
    }

    /// What an instance of NAT64 may use of its pool4 entries: prefix, ports.
    pub(super) fn pool4(&self) -> Vec<(Prefix4, PortRange)> {
        let rows = self
            .of(Flavour::Nat64)
            .flat_map(|instance| &instance.config.pool4);
        let mut pool: Vec<_> = rows.map(|row| (row.prefix, row.ports)).collect();
        pool.sort_unstable_by_key(|(prefix, ports)| {
            (prefix.network(), prefix.prefix_len(), ports.min, ports.max)
        });
        pool.dedup();
        pool
    }
}

fn instances() -> Result<Vec<Instance>, ClientError> {
    let mut client = Client::connect()?;
    let mut found = Vec::new();
    for flavour in Flavour::ALL {
        for name in names(&mut client, flavour)? {
            let config = fetch(&mut client, flavour, &name)?;
            let mut settings = None;
            client.call(&request(flavour, &name, Ask::GlobalDisplay), |reply| {
                let Reply::Settings(all) = reply else {
                    return Err(foreign());
                };
                settings = Some(*all);
                Ok(())
            })?;
            found.push(Instance {
                flavour,
                name,
                settings: settings.ok_or_else(foreign)?,
                config,
            });
        }
    }
    Ok(found)
}

fn links() -> Result<Vec<Link>, String> {
    let answer = program("ip", &["-json", "address", "show"])?;
    let rows = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(rows.iter().filter_map(link).collect())
}

fn link(row: &Json) -> Option<Link> {
    let flag = |name: &str| {
        let flags = row["flags"].as_array();
        flags.is_some_and(|flags| flags.iter().any(|flag| flag == name))
    };
    let addresses = row["addr_info"].as_array().map(Vec::as_slice);
    let address = |row: &Json| {
        let address = row["local"].as_str()?.parse().ok()?;
        Some((address, u8::try_from(row["prefixlen"].as_u64()?).ok()?))
    };
    Some(Link {
        name: row["ifname"].as_str()?.to_owned(),
        mtu: row["mtu"].as_u64()?,
        up: flag("UP"),
        multicast: flag("MULTICAST"),
        loopback: flag("LOOPBACK"),
        addresses: addresses
            .unwrap_or_default()
            .iter()
            .filter_map(address)
            .collect(),
    })
}

/// What a program prints in JSON; the error says why there is nothing.
pub(super) fn program(name: &str, args: &[&str]) -> Result<Json, String> {
    let text = text(name, args)?;
    if text.trim().is_empty() {
        return Ok(Json::Array(Vec::new()));
    }
    serde_json::from_str(&text).map_err(|error| format!("{name} printed no JSON ({error})"))
}

/// What a program prints; the error says why there is nothing.
pub(super) fn text(name: &str, args: &[&str]) -> Result<String, String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(name)
        .args(args)
        .env("LC_ALL", "C")
        // Where users have no system programs.
        .env("PATH", format!("{path}:/usr/sbin:/sbin:/usr/bin:/bin"))
        .output()
        .map_err(|error| format!("{name} cannot be run ({error})"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or_default();
    Err(format!("{name} {} failed: {said}", args.join(" ")))
}

/// A value under `/proc/sys`.
pub(super) fn sysctl(name: &str) -> Option<String> {
    let path = Path::new("/proc/sys").join(name);
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}

/// The device that translated packets come back by. `--tun` may give it another name; then its
/// absence is what is seen.
pub(in crate::cli::verbs) const TUN: &str = "tylo0";

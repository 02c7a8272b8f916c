// SPDX-License-Identifier: GPL-2.0-or-later
//! What `session proxy` and `joold` are told: with whom to exchange sessions, and how.
//!
//! Form only. Whether an interface or an address is there shows when it is used.

use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, Command as Clap, value_parser};

use super::grammar::GrammarError;
use super::run::{RunError, finish};
use super::values::ValueError;
use super::{file, say};
use crate::model::DEFAULT_INSTANCE;
use crate::model::settings::parse_number;

/// How sessions are exchanged.
//= jool#session-proxy
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProxyConfig {
    pub(crate) instance: String,
    /// A multicast address.
    pub(crate) group: IpAddr,
    /// Never 0.
    pub(crate) port: u16,
    /// Where to listen; `None` leaves it to the kernel.
    pub(crate) dev_in: Option<Device>,
    pub(crate) dev_out: Option<Device>,
    pub(crate) ttl: u8,
    /// Where a server of statistics listens.
    pub(crate) stats: Option<SocketAddr>,
}

/// An interface, as each family names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// For a group of IPv4: one of its addresses.
    Address(Ipv4Addr),
    /// For a group of IPv6: its name.
    Name(String),
}

impl ProxyConfig {
    /// All defaults.
    pub(crate) fn new(group: IpAddr) -> Self {
        Self {
            instance: DEFAULT_INSTANCE.to_owned(),
            group,
            port: PORT,
            dev_in: None,
            dev_out: None,
            ttl: 1,
            stats: None,
        }
    }

    /// Reads an interface as the family of the group wants it.
    ///
    /// # Errors
    /// [`ValueError::NotLocal4`], [`ValueError::NotInterface`].
    pub(crate) fn device(&self, text: &str) -> Result<Device, ValueError> {
        match self.group {
            IpAddr::V4(_) => match text.parse() {
                Ok(addr) => Ok(Device::Address(addr)),
                Err(_) => Err(ValueError::NotLocal4(text.to_owned())),
            },
            IpAddr::V6(_) => {
                let odd = |b: u8| !b.is_ascii_graphic() || b == b'/' || b == b':';
                if text.is_empty() || text.len() >= libc::IFNAMSIZ || text.bytes().any(odd) {
                    return Err(ValueError::NotInterface(text.to_owned()));
                }
                Ok(Device::Name(text.to_owned()))
            }
        }
    }

    /// The server of statistics, which exists once something is said about it.
    pub(crate) fn stats_server(&mut self) -> &mut SocketAddr {
        let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, STATS_PORT));
        self.stats.get_or_insert(all)
    }
}

impl fmt::Display for ProxyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = |device: &Option<Device>| match device {
            Some(Device::Address(addr)) => addr.to_string(),
            Some(Device::Name(name)) => name.clone(),
            None => "(null)".to_owned(),
        };
        writeln!(f, "Config:")?;
        writeln!(f, "  mod.instance: {}", self.instance)?;
        writeln!(f, "  net.mcast.addr: {}", self.group)?;
        writeln!(f, "  net.mcast.port: {}", self.port)?;
        writeln!(f, "  net.dev.in: {}", device(&self.dev_in))?;
        writeln!(f, "  net.dev.out: {}", device(&self.dev_out))?;
        writeln!(f, "  net.ttl: {}", self.ttl)?;
        match self.stats {
            Some(stats) => writeln!(
                f,
                "  stats.addr: {}\n  stats.port: {}",
                stats.ip(),
                stats.port()
            ),
            None => writeln!(f, "  stats.addr: (null)\n  stats.port: (null)"),
        }
    }
}

/// Reads a multicast address.
pub(crate) fn group(text: &str) -> Result<IpAddr, ValueError> {
    let addr: Option<IpAddr> = text.parse().ok();
    addr.filter(IpAddr::is_multicast)
        .ok_or_else(|| ValueError::NotMulticast(text.to_owned()))
}

/// Reads the number or the name of a port; `protocol` is `tcp` or `udp`.
pub(crate) fn port(text: &str, protocol: &str) -> Result<u16, ValueError> {
    if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        let number = parse_number(text, u16::MAX.into())?;
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        return port.ok_or_else(|| ValueError::NotAService(text.to_owned()));
    }
    let services = std::fs::read_to_string("/etc/services").unwrap_or_default();
    service(&services, text, protocol).ok_or_else(|| ValueError::NotAService(text.to_owned()))
}

/// Looks a name up in a text in the form of `/etc/services`.
fn service(services: &str, name: &str, protocol: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let (first, port) = (words.next()?, words.next()?);
        let (number, of) = port.split_once('/')?;
        let named = first == name || words.any(|alias| alias == name);
        (named && of == protocol).then(|| number.parse().ok())?
    })
}

pub(crate) fn ttl(text: &str) -> Result<u8, ValueError> {
    let number = parse_number(text, u8::MAX.into())?;
    // In range: that is what `parse_number` was asked for.
    Ok(u8::try_from(number).unwrap_or(u8::MAX))
}

/// Exchanges sessions.
pub(super) fn start(config: &ProxyConfig, out: &mut dyn Write) -> Result<(), RunError> {
    write!(out, "{config}")?;
    Err(RunError::NoSynchronisation)
}

/// What `joold` takes.
pub(crate) fn joold_command() -> Clap {
    let path = |id: &'static str, name: &'static str, about: &'static str| {
        let arg = Arg::new(id).value_name(name).help(about);
        arg.value_parser(value_parser!(PathBuf))
    };
    Clap::new("joold")
        .about("Exchanges sessions with other gateways; the old form of 'jool session proxy'")
        .version(env!("CARGO_PKG_VERSION"))
        .arg(path("net", "NETSOCKET", "With whom, a JSON file").default_value(NETSOCKET))
        .arg(path("mod", "MODSOCKET", "For which instance, a JSON file"))
        .arg(
            Arg::new("port")
                .value_name("PORT")
                .help("Port of a server of statistics"),
        )
}

/// The command `joold`. `args` begins with the name of the program.
pub fn joold(args: impl Iterator<Item = OsString>) -> ExitCode {
    let found = match joold_command().try_get_matches_from(args) {
        Ok(found) => found,
        Err(error) => {
            // Nothing sensible can be done when even this cannot be printed.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    say(
        "Warning",
        &"joold is going to be forgotten; see 'jool session proxy --help'",
    );
    finish(|out| {
        let of = |id: &str| found.get_one::<PathBuf>(id).map(PathBuf::as_path);
        let config = from_files(
            of("net").unwrap_or_else(|| Path::new(NETSOCKET)),
            of("mod"),
            found.get_one::<String>("port").map(String::as_str),
        )?;
        start(&config, out)
    })
}

//= jool#joold
fn from_files(
    net: &Path,
    module: Option<&Path>,
    stats: Option<&str>,
) -> Result<ProxyConfig, GrammarError> {
    let mut config = file::netsocket(net)?;
    if let Some(module) = module {
        config.instance = file::modsocket(module)?;
    }
    if let Some(text) = stats {
        let port = port(text, "tcp").map_err(|error| GrammarError::Value {
            what: "PORT".to_owned(),
            error,
        })?;
        config.stats_server().set_port(port);
    }
    Ok(config)
}

const NETSOCKET: &str = "netsocket.json";
const PORT: u16 = 6400;
const STATS_PORT: u16 = 6401;

#[cfg(test)]
mod tests;

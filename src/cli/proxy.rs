// SPDX-License-Identifier: GPL-2.0-or-later
//! `session proxy` and `joold`: with whom to exchange sessions, and how.
//!
//! Only form is checked here. Whether an interface or an address is there the daemon finds out,
//! which does the work for as long as this command runs.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::thread;
use std::time::Duration;

use clap::{Arg, Command as Clap, value_parser};
use tokio::signal::unix::{SignalKind, signal};

use super::client::{Client, ClientError};
use super::grammar::GrammarError;
use super::run::{RunError, finish, foreign};
use super::values::ValueError;
use super::{file, say};
use crate::model::control::{Command, Reply, Request, VERSION};
use crate::model::settings::parse_number;
use crate::model::sync::{Device, Format, Network};
use crate::model::{DEFAULT_INSTANCE, Flavour};

/// How the sessions of an instance are exchanged.
//= jool#session-proxy
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProxyConfig {
    pub(crate) instance: String,
    pub(crate) network: Network,
}

impl ProxyConfig {
    /// All defaults.
    pub(crate) fn new(group: IpAddr) -> Self {
        Self {
            instance: DEFAULT_INSTANCE.to_owned(),
            network: Network {
                group,
                port: PORT,
                dev_in: None,
                dev_out: None,
                ttl: 1,
                format: Format::default(),
                stats: None,
            },
        }
    }

    /// Reads an interface as the family of the group wants it.
    ///
    /// # Errors
    /// [`ValueError::NotLocal4`], [`ValueError::NotInterface`].
    pub(crate) fn device(&self, text: &str) -> Result<Device, ValueError> {
        match self.network.group {
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
        self.network.stats.get_or_insert(all)
    }
}

impl fmt::Display for ProxyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = |device: &Option<Device>| match device {
            Some(Device::Address(addr)) => addr.to_string(),
            Some(Device::Name(name)) => name.clone(),
            None => "(null)".to_owned(),
        };
        let network = &self.network;
        writeln!(f, "Config:")?;
        writeln!(f, "  mod.instance: {}", self.instance)?;
        writeln!(f, "  net.mcast.addr: {}", network.group)?;
        writeln!(f, "  net.mcast.port: {}", network.port)?;
        writeln!(f, "  net.dev.in: {}", device(&network.dev_in))?;
        writeln!(f, "  net.dev.out: {}", device(&network.dev_out))?;
        writeln!(f, "  net.ttl: {}", network.ttl)?;
        match network.stats {
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

pub(crate) fn format(text: &str) -> Result<Format, ValueError> {
    let found = Format::ALL.into_iter().find(|f| f.name() == text);
    found.ok_or_else(|| ValueError::NotAFormat(text.to_owned()))
}

/// Has sessions exchanged until it is told to end, also when the daemon is started anew meanwhile.
///
/// # Errors
/// It never began.
//= jool#session-proxy
pub(super) fn start(config: &ProxyConfig, out: &mut dyn Write) -> Result<(), RunError> {
    write!(out, "{config}")?;
    out.flush()?;
    end_on_signals()?;
    let name = &config.instance;
    let request = Request {
        version: VERSION,
        flavour: Flavour::Nat64,
        instance: name.clone(),
        command: Command::SessionProxy {
            network: config.network.clone(),
        },
    };
    let mut begun = false;
    let mut complaint = None;
    loop {
        let mut fresh = true;
        let mut each = |reply: Reply| {
            let Reply::Events(_) = reply else {
                return Err(foreign());
            };
            if std::mem::take(&mut fresh) {
                complaint = None;
                begun = true;
                say(
                    "Note",
                    &format!("exchanging the sessions of instance '{name}'; Ctrl-C ends it"),
                );
            }
            Ok(())
        };
        let result = Client::connect().and_then(|mut client| client.call(&request, &mut each));
        let error = result.err().unwrap_or(ClientError::Cut);
        if !begun {
            return Err(error.into());
        }
        // Once for each of the things that go wrong until the daemon is there again.
        let text = error.to_string();
        if complaint.as_ref() != Some(&text) {
            say("Warning", &format!("{text}; trying again until it works"));
            complaint = Some(text);
        }
        thread::sleep(TRY_AGAIN);
    }
}

/// Makes the polite signals an end like any other: the daemon notices that nobody listens.
fn end_on_signals() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        let on = |kind| signal(kind);
        (on(SignalKind::interrupt())?, on(SignalKind::terminate())?)
    };
    thread::Builder::new().spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        process::exit(0);
    })?;
    Ok(())
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

const TRY_AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;

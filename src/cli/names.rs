// SPDX-License-Identifier: GPL-2.0-or-later
//! Names of hosts and services, for people who read tables.
//!
//! Asks the system's resolver, keeps a bounded number of answers, and gives up when the resolver
//! does not answer. A name is used only where it consists of harmless characters: it comes from
//! strangers' name servers and ends on terminals and in CSV files.

use std::collections::HashMap;
use std::ffi::c_char;
use std::net::IpAddr;

use crate::base::Protocol;

/// What a resolver can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    Host(IpAddr),
    /// A TCP service, also for UDP: that is whose names Jool prints.
    Service(u16),
}

/// The resolver did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoAnswer;

/// Looks names up, or prints numbers.
pub(crate) struct Names {
    ask: Option<fn(Question) -> Result<String, NoAnswer>>,
    hosts: HashMap<IpAddr, String>,
    services: HashMap<u16, String>,
    failures: u32,
}

impl Names {
    /// Prints numbers only.
    pub(crate) fn numeric() -> Self {
        Self::new(None)
    }

    /// Asks the system's resolver.
    pub(crate) fn system() -> Self {
        Self::new(Some(getnameinfo))
    }

    /// Asks `ask`.
    #[cfg(test)]
    pub(crate) fn answered_by(ask: fn(Question) -> Result<String, NoAnswer>) -> Self {
        Self::new(Some(ask))
    }

    fn new(ask: Option<fn(Question) -> Result<String, NoAnswer>>) -> Self {
        Self {
            ask,
            hosts: HashMap::new(),
            services: HashMap::new(),
            failures: 0,
        }
    }

    /// The name of a host and of a port, or their numbers.
    ///
    /// The identifiers of ICMP have no names.
    pub(crate) fn of(&mut self, addr: IpAddr, port: u16, protocol: Protocol) -> (String, String) {
        let service = match protocol {
            Protocol::Tcp | Protocol::Udp => self.service(port),
            Protocol::Icmp => port.to_string(),
        };
        (self.host(addr), service)
    }

    /// True once names were wanted and the resolver failed so often that it is not asked any more.
    pub(crate) const fn gave_up(&self) -> bool {
        self.failures >= PATIENCE
    }

    fn host(&mut self, addr: IpAddr) -> String {
        if let Some(name) = self.hosts.get(&addr) {
            return name.clone();
        }
        let name = self.resolve(Question::Host(addr), addr.to_string());
        if self.hosts.len() >= CACHE {
            self.hosts.clear();
        }
        self.hosts.insert(addr, name.clone());
        name
    }

    fn service(&mut self, port: u16) -> String {
        if let Some(name) = self.services.get(&port) {
            return name.clone();
        }
        let name = self.resolve(Question::Service(port), port.to_string());
        if self.services.len() >= CACHE {
            self.services.clear();
        }
        self.services.insert(port, name.clone());
        name
    }

    fn resolve(&mut self, question: Question, number: String) -> String {
        let Some(ask) = self.ask.filter(|_| !self.gave_up()) else {
            return number;
        };
        match ask(question) {
            Ok(name) => {
                self.failures = 0;
                if harmless(&name) { name } else { number }
            }
            Err(NoAnswer) => {
                self.failures += 1;
                number
            }
        }
    }
}

fn harmless(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'%'))
}

fn getnameinfo(question: Question) -> Result<String, NoAnswer> {
    let mut buffer = [0u8; NAME_MAX];
    let code = match question {
        Question::Host(addr) => host_info(addr, &mut buffer),
        Question::Service(port) => service_info(port, &mut buffer),
    };
    if code != 0 {
        return Err(NoAnswer);
    }
    let bytes: Vec<u8> = buffer.iter().copied().take_while(|b| *b != 0).collect();
    String::from_utf8(bytes).map_err(|_| NoAnswer)
}

fn host_info(addr: IpAddr, buffer: &mut [u8; NAME_MAX]) -> i32 {
    match addr {
        IpAddr::V4(addr) => call(&sockaddr4(u32::from(addr), 0), Some(buffer), None),
        IpAddr::V6(addr) => call(
            &libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: 0,
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: addr.octets(),
                },
                sin6_scope_id: 0,
            },
            Some(buffer),
            None,
        ),
    }
}

fn service_info(port: u16, buffer: &mut [u8; NAME_MAX]) -> i32 {
    call(&sockaddr4(0, port), None, Some(buffer))
}

fn sockaddr4(addr: u32, port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: addr.to_be(),
        },
        sin_zero: [0; 8],
    }
}

/// A socket address structure of the C library, complete in itself.
trait SockAddr {}

impl SockAddr for libc::sockaddr_in {}
impl SockAddr for libc::sockaddr_in6 {}

#[allow(unsafe_code)]
fn call<A: SockAddr>(
    addr: &A,
    host: Option<&mut [u8; NAME_MAX]>,
    service: Option<&mut [u8; NAME_MAX]>,
) -> i32 {
    let parts = |b: Option<&mut [u8; NAME_MAX]>| match b {
        Some(b) => (b.as_mut_ptr().cast::<c_char>(), NAME_MAX as libc::socklen_t),
        None => (std::ptr::null_mut(), 0),
    };
    let ((host, host_len), (service, service_len)) = (parts(host), parts(service));
    // Safety: `addr` is a whole socket address of the length given, alive during the call; each
    // buffer is null with length 0, or valid for writes of the length given.
    unsafe {
        libc::getnameinfo(
            std::ptr::from_ref(addr).cast(),
            size_of::<A>() as libc::socklen_t,
            host,
            host_len,
            service,
            service_len,
            0,
        )
    }
}

/// The longest host name with its end, and more than any service name.
const NAME_MAX: usize = 1025;
/// How many names of each kind are kept.
const CACHE: usize = 4096;
/// How many failures in a row mean that the resolver does not work.
const PATIENCE: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const ADDR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn the_system_names_services() {
        assert_eq!(getnameinfo(Question::Service(80)), Ok("http".to_owned()));
        let unknown = getnameinfo(Question::Service(40_001));
        assert_eq!(unknown, Ok("40001".to_owned()));
    }

    #[test]
    fn the_system_names_hosts() {
        assert_eq!(
            getnameinfo(Question::Host(ADDR)),
            Ok("localhost".to_owned())
        );
        assert!(getnameinfo(Question::Host("::1".parse().unwrap())).is_ok());
    }

    #[test]
    fn numbers_stay_numbers() {
        let pair = Names::numeric().of(ADDR, 80, Protocol::Tcp);
        assert_eq!(pair, ("127.0.0.1".to_owned(), "80".to_owned()));
        let pair = Names::system().of(ADDR, 80, Protocol::Icmp);
        assert_eq!(pair, ("localhost".to_owned(), "80".to_owned()));
    }

    #[test]
    fn a_silent_resolver_is_left_alone() {
        let mut names = Names::answered_by(|_| Err(NoAnswer));
        for port in 0..3 {
            assert_eq!(names.service(port), port.to_string());
        }
        assert!(names.gave_up());
        assert_eq!(names.host(ADDR), "127.0.0.1");
    }

    #[test]
    fn odd_names_are_not_printed() {
        let mut names = Names::answered_by(|_| Ok("\u{1b}[2Jevil,\"".to_owned()));
        assert_eq!(names.host(ADDR), "127.0.0.1");
    }

    #[test]
    fn memory_is_bounded() {
        let mut names = Names::answered_by(|_| Ok("x".to_owned()));
        for n in 0..10_000u32 {
            names.host(std::net::Ipv4Addr::from(n).into());
        }
        assert!(names.hosts.len() <= CACHE);
    }
}

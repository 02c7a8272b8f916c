// SPDX-License-Identifier: GPL-2.0-or-later
//! Floor 5: the nftables rules that put packets into our queues.
//!
//! All of it is one table named `tylo` (family `inet`; with the iptables target, which does not
//! fit there, one of family `ip` and one of `ip6`), replaced in one atomic batch. Nothing else is
//! touched, and nothing here knows a packet or a queue socket.
//!
//! ```text
//! chain stateless    type filter hook prerouting priority -420   (defragmentation is at -400)
//!   from the TUN device      accept
//!   IPv6 to EAMs             queue
//!   IPv6 to this host        accept
//!   IPv6 to pool6            queue
//!   IPv4 to this host        accept
//!   IPv4 to EAMs             queue
//!   IPv4 not denied          queue, if there is a pool6
//! chain prerouting   type filter hook prerouting priority -250   ("raw" at -300 may set marks,
//!   from the TUN device      notrack, accept                      connection tracking is at -200)
//!   IPv6 to pool6            queue
//!   IPv4 to pool4            queue
//!   IPv6 to a MAP-T prefix   queue       (a border relay: the DMR; a customer edge: its own)
//!   IPv4 of a MAP-T domain   queue       (a border relay: to it; a customer edge: from it)
//! (each rule that queues is two: TCP has queues of its own)
//! chain output       type filter hook output priority -300
//!   to the TUN device        notrack
//!   from programs            accept
//!   ICMP errors              queue, or accept while nobody reads it
//! chain defragment   no hook, never entered
//!   tproxy                   switches defragmentation on
//! ```
//! The chain `stateless` exists where there is a SIIT instance, and the last two rules of `output`
//! also where there is a MAP-T instance; `defragment` exists where there is a NAT64 or MAP-T
//! instance. Instances of the framework
//! "iptables" have no diverting rules here but all the rest.
//!
//! Queued packets need no "notrack": what is translated is dropped before connection tracking
//! could see it, and what is not ours (the host's own services on a pool4 address, say) must be
//! tracked as if we were not there.
//!
//! # Errors of the kernel
//! A stateless translator has no addresses of its own, so the kernel's ICMP errors about packets
//! that were reinjected (no route, Time Exceeded, Packet Too Big) go to hosts that do not speak
//! their family. They are taken on their way out. What programs send is told apart by the user
//! behind its socket: the kernel's sockets have none. Most errors are about something else, the
//! host's own programs or traffic that it forwards, and their senders need them whether there is
//! a daemon or not; so these rules, unlike all others, let packets pass while nobody reads the
//! queue.
//!
//! # Defragmentation
//! A stateless translator must not put fragments together: others of them may take another way.
//! A NAT64 needs whole packets, and so does MAP-T, where ports tell customers apart. The kernel puts fragments together only where something asks
//! for it, per network namespace and family: connection tracking does, and so does `tproxy`. A
//! `ct` expression would do too but switches connection tracking on for everything in the
//! namespace; a `tproxy` expression has no other effect than that (kernel 4.19 and newer), and
//! counts from the moment it is in a chain, whether the chain is entered or not. `notrack` and
//! `socket` do not ask. Only where the kernel has no `tproxy` (CONFIG_NFT_TPROXY), `ct` is used.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd as _, OwnedFd};

use nftnl::ProtoFamily;
use nftnl::expr::InterfaceName;

use self::commit::Changes;
use crate::base::Protocol;
use crate::base::prefix::{Prefix4, Prefix6};
use crate::model::PortRange;

mod build;
mod commit;
mod expr;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod mapt;
mod ranges;
mod stateless;
mod watch;

pub use watch::{Watch, present};

/// How packets are queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With the `queue` expression.
    Native,
    /// With the iptables target NFQUEUE.
    Compat,
}

impl Mode {
    pub const ALL: [Self; 2] = [Self::Native, Self::Compat];
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Compat => "compat",
        })
    }
}

/// The rules to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// Name of the TUN device; what comes from there is never queued.
    pub tun: String,
    /// One per instance. Where two overlap, the first wins.
    pub diverts: Vec<Divert>,
    /// One per stateless instance. Where two overlap, the first wins, but what is in an EAM of one
    /// is not taken on account of another's pool6.
    pub stateless: Vec<Stateless>,
    /// One per MAP-T instance. Where two overlap, or one and a [`Divert`], the first wins.
    pub mapt: Vec<Mapt>,
    /// Never diverted to a stateless instance: addresses of this host, and networks that are not
    /// to be left.
    pub local4: Vec<Prefix4>,
    /// Addresses of this host: diverted to a stateless instance only if they are in an EAM of its.
    pub local6: Vec<Ipv6Addr>,
    /// Queues for the ICMP errors that the kernel itself is about to send: the first number and
    /// how many.
    pub kernel_errors: Option<(u16, u16)>,
    /// Have the kernel put fragments together: there is a NAT64 or MAP-T instance, if only one
    /// that others divert packets to.
    pub defragment: bool,
    /// Let connection tracking see translated packets.
    pub track: bool,
}

impl Ruleset {
    /// The name of the TUN device, to be compared with.
    fn device(&self) -> Result<InterfaceName, Error> {
        CString::new(self.tun.as_str())
            .ok()
            .filter(|name| (1..=15).contains(&name.as_bytes().len()))
            .map(InterfaceName::Exact)
            .ok_or_else(|| Error::Device(self.tun.clone()))
    }

    /// Every number must be that of a queue: the expressions have no room for another.
    fn check_queues(&self) -> Result<(), Error> {
        let stateful = self.diverts.iter().map(|d| (d.label.as_str(), d.queues));
        let stateless = self.stateless.iter().map(|s| (s.label.as_str(), s.queues));
        let mapt = self.mapt.iter().map(|m| (m.label.as_str(), m.queues));
        let ranges = |(label, queues): (_, Queues)| {
            let all = std::iter::once(queues.all).chain(queues.tcp);
            all.map(move |range| (label, range))
        };
        let instances = stateful.chain(stateless).chain(mapt).flat_map(ranges);
        let errors = self.kernel_errors.map(|queues| (KERNEL_ERRORS, queues));
        for (label, (first, count)) in instances.chain(errors) {
            if count == 0 || first.checked_add(count - 1).is_none() {
                return Err(Error::Queues(label.to_owned(), count, first));
            }
        }
        Ok(())
    }
}

/// Comment of the rules for them.
const KERNEL_ERRORS: &str = "errors of the kernel";

/// The queues of an instance, each time the first number and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    pub all: (u16, u16),
    /// For TCP, which takes super-packets whole. Of other protocols that would lose the borders
    /// between datagrams.
    pub tcp: Option<(u16, u16)>,
}

/// What belongs to one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divert {
    /// Name of the instance, for the comments of its rules.
    pub label: String,
    pub queues: Queues,
    pub pool6: Prefix6,
    pub pool4: Vec<Pool4Match>,
}

/// What belongs to one stateless instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stateless {
    /// Name of the instance, for the comments of its rules.
    pub label: String,
    pub queues: Queues,
    pub pool6: Option<Prefix6>,
    /// IPv6 prefixes of the EAMs.
    pub eam6: Vec<Prefix6>,
    /// IPv4 prefixes of the EAMs.
    pub eam4: Vec<Prefix4>,
    /// Not diverted on account of pool6.
    pub deny4: Vec<Prefix4>,
}

/// What belongs to one MAP-T instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapt {
    /// Name of the instance, for the comments of its rules.
    pub label: String,
    pub queues: Queues,
    /// IPv6 packets to these are diverted.
    pub to6: Vec<Prefix6>,
    pub four: Four,
}

/// Which IPv4 packets a MAP-T instance gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Four {
    Nothing,
    /// Those to the domain: a border relay.
    To(Vec<Prefix4>),
    /// Those of the customer, but for those to addresses that are near: a customer edge behind
    /// which others translate ports.
    From {
        source: Prefix4,
        near: Vec<Prefix4>,
    },
    /// All but those to addresses that are near: a customer edge that translates ports itself.
    Far {
        near: Vec<Prefix4>,
    },
}

/// Packets to these IPv4 transport addresses.
///
/// The ports do not count for ICMP, and every ICMP packet to any address of pool4 matches: an
/// error names the ports of the packet it is about, deep inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool4Match {
    pub protocol: Protocol,
    pub prefix: Prefix4,
    pub ports: PortRange,
}

/// Why the rules could not be put in force.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no right to change nftables rules; needs root or CAP_NET_ADMIN")]
    Permission,
    #[error("cannot talk to the kernel about nftables rules: {0}")]
    Socket(#[source] io::Error),
    #[error("nftables: cannot {0}: {1}")]
    Refused(String, #[source] io::Error),
    #[error(
        "the kernel can queue packets neither with the nftables expression 'queue' ({0}) nor with the iptables target NFQUEUE ({1}); load nft_queue or xt_NFQUEUE and nft_compat, or build a kernel with CONFIG_NFT_QUEUE or CONFIG_NFT_COMPAT and CONFIG_NETFILTER_XT_TARGET_NFQUEUE"
    )]
    NoQueue(Box<Self>, Box<Self>),
    #[error("'{0}' is not a device name (1 to 15 bytes)")]
    Device(String),
    #[error("'{0}': {1} queues from {2} on are none or go beyond 65535")]
    Queues(String, u16, u16),
}

impl Error {
    /// The kernel does not know something that the batch has.
    fn is_unsupported(&self) -> bool {
        matches!(self, Self::Refused(_, error) if matches!(
            error.raw_os_error(),
            Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT)
        ))
    }
}

/// What switches defragmentation on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defragmenter {
    Tproxy,
    Conntrack,
}

/// Finds out how this kernel queues packets, by having it check a table that is deleted in the
/// same batch. Nothing is left behind.
///
/// # Errors
/// [`Error::Permission`]; [`Error::NoQueue`] when it cannot.
pub fn probe() -> Result<Mode, Error> {
    let socket = commit::socket()?;
    let socket = socket.as_fd();
    let native = match build::probe(Mode::Native).commit(socket) {
        Ok(()) => return Ok(Mode::Native),
        Err(error) => error,
    };
    if !native.is_unsupported() {
        return Err(native);
    }
    match build::probe(Mode::Compat).commit(socket) {
        Ok(()) => Ok(Mode::Compat),
        Err(compat) if compat.is_unsupported() => {
            Err(Error::NoQueue(Box::new(native), Box::new(compat)))
        }
        Err(other) => Err(other),
    }
}

/// Puts rules in force and takes them away.
///
/// As long as it lives, and where the kernel can do that (from 6.9 on), it owns the tables: others
/// can neither change them nor flush them together with theirs. When it is gone, as with a killed
/// process, the tables stay and belong to nobody.
#[derive(Debug)]
pub struct Keeper(OwnedFd);

impl Keeper {
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<Self, Error> {
        commit::socket().map(Self)
    }

    /// Another hold on the same socket, for a successor.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn keep(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Replaces whatever rules we had by these, at once.
    ///
    /// `before` are those that are known to be in force. Their chains stay where they are, so that
    /// no packet sees a state in between, and those in queues wait on. Without, tables are
    /// made anew: a packet on its way through the hook may find the old chain without rules and
    /// pass the place of the new one too early.
    ///
    /// # Errors
    /// [`Error::Refused`] names the object the kernel did not take; the former rules stay then.
    pub fn install(
        &self,
        mode: Mode,
        before: Option<&Ruleset>,
        rules: &Ruleset,
    ) -> Result<(), Error> {
        match before.map(|before| self.refill(mode, before, rules)) {
            Some(Ok(())) => return Ok(()),
            Some(Err(error)) => {
                tracing::warn!(%error, "the tables have to be made anew; single packets may miss the rules meanwhile");
            }
            None => {}
        }
        match self.install_with(mode, rules, Defragmenter::Tproxy) {
            Err(error) if error.is_unsupported() => {
                self.install_with(mode, rules, Defragmenter::Conntrack)?;
                tracing::warn!(
                    "the kernel has no nftables expression 'tproxy' (CONFIG_NFT_TPROXY); connection tracking is switched on instead, to have fragments put together"
                );
                Ok(())
            }
            other => other,
        }
    }

    /// Gives the chains other rules. What a kernel cannot do or somebody has changed is told by
    /// whoever makes the tables anew.
    fn refill(&self, mode: Mode, before: &Ruleset, rules: &Ruleset) -> Result<(), Error> {
        let mut result = Ok(());
        for (with, owned) in [
            (Defragmenter::Tproxy, true),
            (Defragmenter::Tproxy, false),
            (Defragmenter::Conntrack, true),
            (Defragmenter::Conntrack, false),
        ] {
            let mut changes = Changes::new();
            changes.refill = true;
            for family in families(mode) {
                build::table(&mut changes, mode, *family, rules, with, owned)?;
                build::prune(&mut changes, *family, before, rules);
            }
            result = changes.commit(self.0.as_fd());
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Removes our rules; fine if there are none.
    ///
    /// # Errors
    /// [`Error::Permission`] and the like; the rules stay then.
    pub fn remove(&self) -> Result<(), Error> {
        let clear = |owned| {
            let mut changes = Changes::new();
            build::clear(&mut changes, owned);
            changes.commit(self.0.as_fd())
        };
        match clear(true) {
            Err(error) if error.is_unsupported() => clear(false),
            other => other,
        }
    }

    fn install_with(&self, mode: Mode, rules: &Ruleset, with: Defragmenter) -> Result<(), Error> {
        // What is there may be ours or nobody's, then it becomes ours; or from a kernel or program
        // that knew no owners. Or the kernel knows none.
        let mut result = Ok(());
        for (found_owned, owned) in [(true, true), (false, true), (false, false)] {
            let mut changes = Changes::new();
            build::clear(&mut changes, found_owned);
            for family in families(mode) {
                build::table(&mut changes, mode, *family, rules, with, owned)?;
            }
            result = changes.commit(self.0.as_fd());
            if !matches!(&result, Err(error) if error.is_unsupported()) {
                break;
            }
        }
        result
    }
}

impl From<OwnedFd> for Keeper {
    /// Goes on for a predecessor, with what belonged to it.
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl From<Keeper> for OwnedFd {
    fn from(keeper: Keeper) -> Self {
        keeper.0
    }
}

/// A number that stands for exactly these rules, as this program would install them: whoever finds
/// them in force need not replace them, which costs the packets that wait in queues.
///
/// # Errors
/// There is no memory.
pub fn fingerprint(mode: Mode, rules: &Ruleset) -> Result<u64, Error> {
    let mut changes = Changes::new();
    for family in families(mode) {
        let with = Defragmenter::Tproxy;
        build::table(&mut changes, mode, *family, rules, with, true)?;
    }
    Ok(changes.fingerprint())
}

/// [`Keeper::install`] without keeping the tables.
///
/// # Errors
/// As there.
pub fn install(mode: Mode, rules: &Ruleset) -> Result<(), Error> {
    Keeper::open()?.install(mode, None, rules)
}

/// [`Keeper::remove`] for tables that nobody keeps.
///
/// # Errors
/// As there.
pub fn remove() -> Result<(), Error> {
    Keeper::open()?.remove()
}

const fn families(mode: Mode) -> &'static [ProtoFamily] {
    match mode {
        Mode::Native => &[ProtoFamily::Inet],
        Mode::Compat => &[ProtoFamily::Ipv4, ProtoFamily::Ipv6],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(unsafe_code)]
    fn without_tproxy_connection_tracking_defragments() {
        if !rustix::process::geteuid().is_root() {
            // Not with a macro: the test harness would swallow it.
            let _ = io::Write::write_all(&mut io::stderr(), b"SKIPPED: needs root\n");
            return;
        }
        let rules = Ruleset {
            tun: "tylo0".to_owned(),
            diverts: vec![Divert {
                label: "default".to_owned(),
                queues: Queues {
                    all: (6400, 1),
                    tcp: Some((9000, 1)),
                },
                pool6: "64:ff9b::/96".parse().unwrap(),
                pool4: Vec::new(),
            }],
            stateless: Vec::new(),
            mapt: Vec::new(),
            local4: Vec::new(),
            local6: Vec::new(),
            kernel_errors: None,
            defragment: true,
            track: false,
        };
        let inside = move || {
            // Safety: only the network namespace of this thread changes.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
                .unwrap();
            let keeper = Keeper::open().unwrap();
            keeper
                .install_with(probe().unwrap(), &rules, Defragmenter::Conntrack)
                .unwrap();
            let list = std::process::Command::new("nft")
                .args(["list", "ruleset"])
                .output()
                .unwrap();
            let list = String::from_utf8_lossy(&list.stdout).into_owned();
            assert!(list.contains("ct state"), "{list}");
            assert!(!list.contains("tproxy"), "{list}");
        };
        std::thread::spawn(inside).join().unwrap();
    }
}

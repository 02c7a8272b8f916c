// SPDX-License-Identifier: GPL-2.0-or-later
//! What the daemon gives up, so that somebody who gets hold of it has little.
//!
//! Capabilities first, before there are threads, for each thread has its own. Then, when
//! everything is open, all system calls that nothing here makes: those fail with ENOSYS, as they do
//! with a kernel that is too old for them. The C library knows what to do then, and a gateway that
//! comes upon one that is missing in the list goes on translating; to be killed would serve an
//! attacker who only wants it to stop.
//!
//! All of this stays across [an upgrade](super::handover): whoever follows starts with these
//! capabilities and this list, and says beforehand whether it can.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;

use anyhow::{Context, bail};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_ambient_set,
    capability_is_in_bounding_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};

use crate::model::control::Sandbox;

/// Rules, queues, routes, the TUN device and its settings; the sockets that ICMP errors leave by.
const USED: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW);

/// Fails early and in plain words where the kernel would say "operation not permitted" later.
///
/// # Errors
/// A capability is missing that nothing works without.
pub(super) fn check_capabilities() -> anyhow::Result<()> {
    let have = capabilities(None)
        .context("cannot tell which capabilities there are")?
        .effective;
    if !have.contains(CapabilitySet::NET_ADMIN) {
        bail!(
            "CAP_NET_ADMIN is needed for rules, queues and the TUN device; run as root (try sudo)"
        );
    }
    if !have.contains(CapabilitySet::NET_RAW) {
        tracing::info!(
            "without CAP_NET_RAW, ICMP errors of the gateway leave by the TUN device; firewalls see \
             them forwarded"
        );
    }
    Ok(())
}

/// Gives up all other capabilities, for this program and those that follow, and the way that
/// programs get more. To be called while there is one thread.
///
/// # Errors
/// The kernel refuses.
pub(super) fn drop_capabilities() -> io::Result<()> {
    // What is not given up below is then of no use to whatever is executed.
    set_no_new_privs(true)?;
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(one) {
            Ok(true) if !USED.contains(one) => match remove_capability_from_bounding_set(one) {
                // Without CAP_SETPCAP.
                Ok(()) | Err(rustix::io::Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            },
            Ok(_) => {}
            // The kernel has no more.
            Err(_) => break,
        }
    }
    let have = capabilities(None)?;
    // The successor of a program that does not run as root has what it inherits.
    let kept = have.permitted & USED;
    let wanted = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: kept,
    };
    // Service managers that gave no more may have forbidden the call.
    if have != wanted {
        set_capabilities(None, wanted)?;
    }
    for one in kept.iter() {
        if !capability_is_in_ambient_set(one)? {
            configure_capability_in_ambient_set(one, true)?;
        }
    }
    Ok(())
}

/// Gives up the system calls that are not on the list, for all threads. What a predecessor gave up
/// already stays so.
pub(super) fn enter(wanted: bool, inherited: bool) -> Sandbox {
    let mut sandbox = Sandbox {
        capabilities: wanted,
        system_calls: inherited,
    };
    if wanted && !inherited {
        match filter().and_then(|filter| Ok(seccompiler::apply_filter_all_threads(&filter)?)) {
            Ok(()) => sandbox.system_calls = true,
            Err(error) => {
                tracing::warn!("system calls that are not needed stay possible: {error}");
            }
        }
    }
    sandbox
}

fn filter() -> anyhow::Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in Call::all() {
        let rules = rules.entry(call.number).or_default();
        for value in call.values {
            rules.push(call.rule(value)?);
        }
    }
    let refused = SeccompAction::Errno(libc::ENOSYS as u32);
    let machine = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, machine)?;
    Ok(filter.try_into()?)
}

/// What this program needs, for a predecessor that asks: system calls by number, those whose
/// argument matters with its values.
pub(super) fn needs() -> String {
    let mut text = String::new();
    for call in Call::all() {
        let _ = write!(
            text,
            "{}{}",
            if text.is_empty() { "" } else { "," },
            call.number
        );
        for value in call.values {
            let _ = write!(text, "={value}");
        }
    }
    text
}

/// Whether a program with such [`needs`] can run with the list of this one.
pub(super) fn suffices(theirs: &str) -> bool {
    fn parts(text: &str) -> BTreeSet<(&str, &str)> {
        let calls = text.split(',');
        let pairs = calls.flat_map(|call| {
            let mut words = call.split('=');
            let number = words.next().unwrap_or_default();
            let values: Vec<_> = words.collect();
            // Any value is more than some.
            let any = values.is_empty().then_some("");
            values
                .into_iter()
                .chain(any)
                .map(move |value| (number, value))
        });
        pairs.collect()
    }
    let ours = needs();
    parts(theirs).is_subset(&parts(&ours))
}

/// A system call that is allowed.
struct Call {
    number: i64,
    /// Which argument must have one of the values; there may be none.
    argument: u8,
    values: &'static [u64],
}

impl Call {
    fn all() -> impl Iterator<Item = Self> {
        let plain = ANY.iter().chain(ANY_OF_MACHINE).map(|number| Self {
            number: *number,
            argument: 0,
            values: &[],
        });
        let some = SOME.iter().map(|(number, argument, values)| Self {
            number: *number,
            argument: *argument,
            values,
        });
        plain.chain(some)
    }

    fn rule(&self, value: &u64) -> Result<SeccompRule, BackendError> {
        // No thread or process may be made with namespaces of its own.
        let (size, operator) = if self.number == libc::SYS_clone {
            (SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(NAMESPACES))
        } else {
            (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq)
        };
        let condition = SeccompCondition::new(self.argument, size, operator, *value)?;
        SeccompRule::new(vec![condition])
    }
}

/// `CLONE_NEW*`.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// Number, argument and its values. `clone3` is not among the calls, since its arguments cannot be
/// looked at: the C library makes do with `clone`.
const SOME: &[(i64, u8, &[u64])] = &[
    (libc::SYS_clone, 0, &[0]),
    (
        libc::SYS_socket,
        0,
        &[
            libc::AF_UNIX as u64,
            libc::AF_INET as u64,
            libc::AF_INET6 as u64,
            libc::AF_NETLINK as u64,
        ],
    ),
    (libc::SYS_socketpair, 0, &[libc::AF_UNIX as u64]),
    (
        libc::SYS_ioctl,
        1,
        &[
            libc::TUNSETIFF,
            libc::TUNGETIFF,
            libc::TUNSETPERSIST,
            libc::TUNSETOFFLOAD,
            libc::TUNSETVNETHDRSZ,
            libc::SIOCGIFMTU,
            libc::SIOCGIFINDEX,
            libc::SIOCGIFNAME,
            libc::FIONBIO,
            libc::FIOCLEX,
            libc::TCGETS,
        ],
    ),
    (
        libc::SYS_prctl,
        0,
        &[
            libc::PR_SET_NAME as u64,
            libc::PR_SET_NO_NEW_PRIVS as u64,
            libc::PR_CAPBSET_READ as u64,
            libc::PR_CAPBSET_DROP as u64,
            libc::PR_CAP_AMBIENT as u64,
            libc::PR_SET_VMA as u64,
        ],
    ),
];

/// What is allowed whatever the arguments.
const ANY: &[i64] = &[
    // Files: the database, settings in /proc, the program itself.
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_memfd_create,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat2,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_write,
    libc::SYS_writev,
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_msync,
    libc::SYS_munmap,
    // Threads, signals and time.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_get_robust_list,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_membarrier,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_tgkill,
    libc::SYS_uname,
    // The successor, and asking it whether it can take over.
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_execve,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getuid,
    libc::SYS_kill,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_prlimit64,
    libc::SYS_wait4,
    libc::SYS_waitid,
    // Sockets, and waiting for them.
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
];

/// Calls that newer machines have in another form only.
#[cfg(target_arch = "x86_64")]
const ANY_OF_MACHINE: &[i64] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_chmod,
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_getrlimit,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_rmdir,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
    libc::SYS_vfork,
];

/// `renameat`, for which the crate has no name here.
#[cfg(target_arch = "aarch64")]
const ANY_OF_MACHINE: &[i64] = &[38];

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ANY_OF_MACHINE: &[i64] = &[];

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel takes programs of up to 4096 instructions.
    #[test]
    fn there_is_a_filter_for_this_machine() {
        let len = filter().unwrap().len();
        assert!((100..4096).contains(&len), "{len}");
        let numbers: BTreeSet<_> = Call::all().map(|call| call.number).collect();
        assert_eq!(numbers.len(), Call::all().count(), "one is there twice");
    }

    /// In a thread of its own, which alone has the filter.
    #[test]
    fn what_is_not_on_the_list_fails_like_an_unknown_call() {
        use rustix::io::Errno;
        use rustix::net::{AddressFamily, SocketType, socket};

        let filter = filter().unwrap();
        let trial = move || {
            seccompiler::apply_filter(&filter).unwrap();
            let chroot = rustix::process::chroot("/");
            let packet = socket(AddressFamily::PACKET, SocketType::RAW, None);
            let datagram = socket(AddressFamily::INET6, SocketType::DGRAM, None);
            assert_eq!(chroot, Err(Errno::NOSYS));
            assert_eq!(packet.map(drop), Err(Errno::NOSYS));
            assert_eq!(datagram.map(drop), Ok(()));
            // Threads and programs can still be started.
            assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
            std::process::Command::new("true").status().unwrap()
        };
        assert!(std::thread::spawn(trial).join().unwrap().success());
    }

    #[test]
    fn who_needs_more_is_refused() {
        let ours = needs();
        assert!(suffices(&ours));
        let fewer = ours.split_once(',').unwrap().1;
        assert!(suffices(fewer));
        let (ptrace, ioctl) = (libc::SYS_ptrace, libc::SYS_ioctl);
        assert!(!suffices(&format!("{ours},{ptrace}")));
        let (some, request) = (libc::TUNGETIFF, libc::TIOCSTI);
        assert!(suffices(&format!("{ioctl}={some}")));
        assert!(!suffices(&format!("{ioctl}={some}={request}")));
        assert!(!suffices(&format!("{ioctl}")), "with any argument");
        assert!(!suffices("nonsense"));
    }
}

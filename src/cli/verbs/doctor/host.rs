// SPDX-License-Identifier: GPL-2.0-or-later
//! Rights, kernel, clock.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;

use super::Finding;
use super::system::{System, sysctl};
use crate::model::Framework;

pub(super) fn privileges(system: &System) -> Vec<Finding> {
    if system.root {
        return vec![Finding::fine("runs as root")];
    }
    let what = "not everything can be seen without being root";
    vec![Finding::doubt(what, "sudo tylo doctor")]
}

pub(super) fn kernel_queues(_: &System) -> Vec<Finding> {
    // Unlike /proc/net, that of the thread in whatever namespace it is.
    if fs::exists("/proc/thread-self/net/netfilter/nfnetlink_queue").unwrap_or(false) {
        return vec![Finding::fine("the kernel has netfilter queues")];
    }
    let what = "the kernel has no netfilter queues: nothing can be handed to tylod";
    vec![Finding::wrong(what, "modprobe nfnetlink_queue")]
}

pub(super) fn tun(_: &System) -> Vec<Finding> {
    let device = fs::metadata("/dev/net/tun");
    match device {
        Ok(found) if found.file_type().is_char_device() => {
            vec![Finding::fine("/dev/net/tun is there")]
        }
        Ok(_) | Err(_) => vec![Finding::wrong(
            "/dev/net/tun is no device: translated packets cannot come back",
            "modprobe tun && mkdir -p /dev/net && mknod /dev/net/tun c 10 200",
        )],
    }
}

pub(super) fn forwarding(system: &System) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut look = |name: String, family: &str| {
        let words = name.replace('/', ".");
        match sysctl(&name).as_deref() {
            Some("0") => findings.push(Finding::wrong(
                format!("{words} is 0: {family} packets are not forwarded"),
                format!("sysctl -w {words}=1"),
            )),
            Some(_) => {}
            None => findings.push(Finding::unknown(format!("{words} cannot be read"), "")),
        }
    };
    look("net/ipv4/ip_forward".to_owned(), "IPv4");
    look("net/ipv6/conf/all/forwarding".to_owned(), "IPv6");
    for link in system.outer_links() {
        let six = link.addresses.iter().any(|(address, _)| address.is_ipv6());
        if six {
            let name = format!("net/ipv6/conf/{}/forwarding", link.name);
            look(name, "arriving IPv6");
        }
    }
    if findings.is_empty() {
        findings.push(Finding::fine("both families are forwarded"));
    }
    findings
}

pub(super) fn clock(_: &System) -> Vec<Finding> {
    if synchronized() {
        return vec![Finding::fine("the kernel says that the clock is right")];
    }
    vec![Finding::doubt(
        "nothing keeps the clock right: what 'tylo who' and logs say of times is doubtful, and \
         lifetimes are wrong after a restart if it jumps",
        "apt install chrony  # or timedatectl set-ntp true",
    )]
}

/// Whether something keeps the kernel's clock right.
#[expect(unsafe_code)]
fn synchronized() -> bool {
    // SAFETY: zeroes are a valid `timex`, which asks for nothing to be changed.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes into a structure that lives as long as the call.
    let answer = unsafe { libc::adjtimex(&raw mut state) };
    answer >= 0 && answer != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0
}

pub(super) fn other_translators(system: &System) -> Vec<Finding> {
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
    let loaded: Vec<_> = modules
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| ["jool", "jool_siit", "jool_mapt"].contains(name))
        .collect();
    // Rules of an administrator's own may divide the packets.
    let ours = system
        .instances
        .iter()
        .any(|instance| instance.config.framework == Framework::Netfilter);
    if loaded.is_empty() || !ours {
        return vec![Finding::fine("no module of Jool is loaded")];
    }
    let names = loaded.join(" ");
    vec![Finding::doubt(
        format!("the module {names} is loaded and may translate the same packets"),
        format!("modprobe -r {names}"),
    )]
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! Network namespaces for tests: made here, removed when dropped.

#![allow(dead_code)]

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Netns(String);

/// False, with a word about it, when the tests cannot work.
pub(crate) fn privileged(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        // Not with a macro: the test harness would swallow it.
        let line = format!("SKIPPED {test}: needs root, to make network namespaces\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    root
}

impl Netns {
    pub(crate) fn new() -> Self {
        let number = NEXT.fetch_add(1, Relaxed);
        let name = format!("tylo-test-{}-{number}", std::process::id());
        sh(&format!("ip netns add {name}"));
        let this = Self(name);
        this.sh("ip link set lo up");
        this
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// Runs a shell script inside; panics if it fails, returns what it prints.
    pub(crate) fn sh(&self, script: &str) -> String {
        sh(&format!(
            "ip netns exec {} sh -ec '{}'",
            self.0,
            script.replace('\'', "'\\''")
        ))
    }

    /// Runs `work` in a thread that lives inside. Sockets and threads made there stay there.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                enter(&self.0);
                work()
            });
            inside.join().unwrap()
        })
    }

    /// Joins this namespace to another by a pair of devices with an IPv4 and an IPv6 network:
    /// `10.NET.0.1` and `fd00:NET::1` here, `.2` and `::2`, with default routes, there.
    pub(crate) fn join(&self, other: &Self, net: u8) {
        let (ours, theirs) = (self.name(), other.name());
        sh(&format!(
            "ip link add veth{net} netns {ours} type veth peer name veth0 netns {theirs}"
        ));
        self.sh(&format!(
            "ip address add 10.{net}.0.1/24 dev veth{net}
             ip address add fd00:{net}::1/64 dev veth{net} nodad
             ip link set veth{net} up"
        ));
        other.sh(&format!(
            "ip address add 10.{net}.0.2/24 dev veth0
             ip address add fd00:{net}::2/64 dev veth0 nodad
             ip link set veth0 up
             ip route add default via 10.{net}.0.1
             ip route add default via fd00:{net}::1"
        ));
        // Until the carrier is noticed, packets are dropped.
        let up = |place: &Self, device: &str| {
            let state = place.sh(&format!("ip link show {device}"));
            state.contains("state UP")
        };
        wait("the carrier", || {
            up(self, &format!("veth{net}")) && up(other, "veth0")
        });
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Moves this thread into a namespace for good.
pub(crate) fn enter(name: &str) {
    let file = File::open(format!("/run/netns/{name}")).unwrap();
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// Waits until `condition` holds; panics with `what` when it does not within ten seconds.
pub(crate) fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "timeout: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(
        output.status.success(),
        "{script}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

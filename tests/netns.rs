// SPDX-License-Identifier: GPL-2.0-or-later
//! The end-to-end tests: every script of `tests/netns` as one test.
//!
//! A script makes network namespaces of its own, starts the daemon in one of them and sends real
//! traffic. It needs root and the packages that `tools/deps test` installs; `sudo tools/test`
//! cares for both. Without root the tests fail: a test that was not carried out has not passed.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process_group};

/// What there is for scripts that run at the same time.
const SEATS: usize = 6;

/// Most scripts wait most of their time.
const ORDINARY: usize = 2;

/// In a virtual machine, whose processors are emulated.
const IN_GUEST: usize = 3;

/// Those that take all seats: they measure time, or keep the processors busy.
const ALONE: &[&str] = &[
    "31-kill-often.sh",
    "33-upgrade.sh",
    "34-service-restart.sh",
    "34-upgrade-trouble.sh",
    "51-super-packets.sh",
    "74-bad-network.sh",
    "74-strangers.sh",
    "75-follow.sh",
    "97-soak.sh",
    "98-bench.sh",
];

/// Who takes seats, in the order of their coming: nobody waits for ever who wants all of them.
struct Room {
    free: usize,
    /// How many came, and how many of them were given seats.
    came: usize,
    seated: usize,
}

static ROOM: (Mutex<Room>, Condvar) = (
    Mutex::new(Room {
        free: SEATS,
        came: 0,
        seated: 0,
    }),
    Condvar::new(),
);

/// Some of the seats, until it is dropped.
struct Seat(usize);

impl Seat {
    fn take(script: &str) -> Self {
        let wanted = if ALONE.contains(&script) {
            SEATS
        } else if script.contains("-native") || script.contains("-mixed") {
            IN_GUEST
        } else {
            ORDINARY
        };
        let mut room = ROOM.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = room.came;
        room.came += 1;
        let mut room = ROOM
            .1
            .wait_while(room, |room| room.seated != turn || room.free < wanted)
            .unwrap_or_else(PoisonError::into_inner);
        room.seated += 1;
        room.free -= wanted;
        drop(room);
        ROOM.1.notify_all();
        Self(wanted)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        ROOM.0.lock().unwrap_or_else(PoisonError::into_inner).free += self.0;
        ROOM.1.notify_all();
    }
}

/// What a script may take. It is to end what hangs, not to find what is slow: on a busy machine all
/// take several times as long as else, and the first time some fetch and build what they need.
const LIMIT: Duration = Duration::from_secs(900);

/// Test name, script.
macro_rules! scripts {
    ($($name:ident: $script:literal;)*) => {
        $(#[test]
        fn $name() {
            run($script);
        })*

        const SCRIPTS: &[&str] = &[$($script),*];
    };
}

scripts! {
    n10_ping_http: "10-ping-http.sh";
    n12_workers: "12-workers.sh";
    n15_strict_sources: "15-strict-sources.sh";
    n20_static_bib: "20-static-bib.sh";
    n22_own_addresses: "22-own-addresses.sh";
    n25_fragments: "25-fragments.sh";
    n25_simultaneous_open: "25-simultaneous-open.sh";
    n30_kill_restart: "30-kill-restart.sh";
    n31_kill_often: "31-kill-often.sh";
    n32_bad_storage: "32-bad-storage.sh";
    n33_upgrade: "33-upgrade.sh";
    n34_service_restart: "34-service-restart.sh";
    n34_upgrade_trouble: "34-upgrade-trouble.sh";
    n35_failed_start: "35-failed-start.sh";
    n36_privileges: "36-privileges.sh";
    n37_watchdog: "37-watchdog.sh";
    n40_left_to_kernel: "40-left-to-kernel.sh";
    n41_who: "41-who.sh";
    n45_firewall_reload: "45-firewall-reload.sh";
    n46_rule_changes: "46-rule-changes.sh";
    n47_documents: "47-documents.sh";
    n48_doctor: "48-doctor.sh";
    n49_explain: "49-explain.sh";
    n49_top: "49-top.sh";
    n50_traceroute_icmp: "50-traceroute-icmp.sh";
    n51_super_packets: "51-super-packets.sh";
    n52_datagrams: "52-datagrams.sh";
    n55_siit: "55-siit.sh";
    n56_siit_mtu: "56-siit-mtu.sh";
    n57_464xlat: "57-464xlat.sh";
    n58_siit_beside_nat64: "58-siit-beside-nat64.sh";
    n60_gateway_programs: "60-gateway-programs.sh";
    n65_campus: "65-campus.sh";
    n66_rule_script: "66-rule-script.sh";
    n67_joold: "67-joold.sh";
    n68_joold_old: "68-joold-old.sh";
    n69_sync: "69-sync.sh";
    n70_conntrack: "70-conntrack.sh";
    n71_tutorial_sync: "71-tutorial-sync.sh";
    n72_frr: "72-frr.sh";
    n72_keepalived: "72-keepalived.sh";
    n73_shares: "73-shares.sh";
    n74_asymmetric: "74-asymmetric.sh";
    n74_bad_network: "74-bad-network.sh";
    n74_routed: "74-routed.sh";
    n74_strangers: "74-strangers.sh";
    n75_follow: "75-follow.sh";
    n76_logging: "76-logging.sh";
    n77_mapt: "77-mapt.sh";
    n78_mapt_napt: "78-mapt-napt.sh";
    n79_tutorial_mapt: "79-tutorial-mapt.sh";
    n80_bad_input: "80-bad-input.sh";
    n81_metrics: "81-metrics.sh";
    n85_restart_config: "85-restart-config.sh";
    n87_stateless_config: "87-stateless-config.sh";
    n88_package: "88-package.sh";
    n89_container: "89-container.sh";
    n89_systemd: "89-systemd.sh";
    // In a virtual machine with an emulated processor.
    n90_native_in_guest: "90-native.sh";
    n92_siit_native_in_guest: "92-siit-native.sh";
    n93_rules_native_in_guest: "93-rules-native.sh";
    n94_joold_mixed_in_guest: "94-joold-mixed.sh";
    n95_reboot_in_guest: "95-reboot-native.sh";
    n96_mapt_native_in_guest: "96-mapt-native.sh";
    n97_soak: "97-soak.sh";
    n98_bench: "98-bench.sh";
}

#[test]
fn every_script_is_run() {
    let mut found: Vec<String> = fs::read_dir(directory())
        .expect("tests/netns is readable")
        .map(|entry| entry.expect("tests/netns is readable").file_name())
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    found.sort();

    assert_eq!(found, SCRIPTS);
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/netns")
}

fn run(script: &str) {
    assert!(
        geteuid().is_root(),
        "the end-to-end tests need root: run `sudo tools/test`"
    );
    let _seat = Seat::take(script);
    let log = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{script}.log"));
    let output = File::create(&log).expect("the log can be made");
    let errors = output.try_clone().expect("the log can be shared");

    let program = std::env::var_os("TYLO_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_tylo").into());
    let started = Instant::now();
    // With --pdeathsig the script cleans up even if this program is killed.
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "TERM", "bash"])
        .arg(directory().join(script))
        .env("TYLO_BIN", program)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .expect("setpriv and bash are installed");
    let status = wait(&mut child);

    let seconds = started.elapsed().as_secs();
    let result = match status {
        Some(status) if status.success() => return say(&format!("{script}: {seconds} s\n")),
        Some(status) => format!("{script}: {status} after {seconds} s\n"),
        None => format!("{script}: stopped after {seconds} s\n"),
    };
    let text = fs::read_to_string(&log).unwrap_or_default();
    say(&failed_checks(&result, &text));
    panic!("{result}{text}");
}

/// Shown at once, unlike what is printed, which appears at the end and after failures only.
fn say(text: &str) {
    // Who closed standard error does not want to know.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// What was checked in vain, with the output that belongs to it.
fn failed_checks(result: &str, log: &str) -> String {
    let mut shown = String::from(result);
    for line in log.lines() {
        if line.starts_with("FAIL ") || line.starts_with("      | ") {
            shown.extend([line, "\n"]);
        }
    }
    shown
}

/// Waits for the script; past the limit, ends it and returns `None`.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    if let Some(status) = poll(child, LIMIT) {
        return Some(status);
    }
    let group = Pid::from_child(child);
    // The script removes its namespaces when it is asked to end.
    let _ = kill_process_group(group, Signal::TERM);
    if poll(child, Duration::from_secs(20)).is_none() {
        let _ = kill_process_group(group, Signal::KILL);
        let _ = child.wait();
    }
    None
}

fn poll(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("the script is our child") {
            return Some(status);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

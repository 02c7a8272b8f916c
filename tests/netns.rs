// SPDX-License-Identifier: GPL-2.0-or-later
//! The end-to-end tests: every script of `tests/netns` as one test.
//!
//! A script makes network namespaces of its own, starts the daemon in one of them and sends real
//! traffic. It needs root and the packages that `tools/deps test` installs; `sudo tools/test`
//! cares for both. Without root the tests fail: a test that was not carried out has not passed.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process_group};

/// Scripts that run at the same time: most of their time they wait.
const SEATS: usize = 2;

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

/// Free seats.
static FREE: (Mutex<usize>, Condvar) = (Mutex::new(SEATS), Condvar::new());

/// Some of the seats, until it is dropped.
struct Seat(usize);

impl Seat {
    fn take(script: &str) -> Self {
        let wanted = if ALONE.contains(&script) { SEATS } else { 1 };
        let free = FREE.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = FREE
            .1
            .wait_while(free, |free| *free < wanted)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= wanted;
        Self(wanted)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        *FREE.0.lock().unwrap_or_else(PoisonError::into_inner) += self.0;
        FREE.1.notify_all();
    }
}

/// Test name, script, seconds it may take.
macro_rules! scripts {
    ($($name:ident: $script:literal, $seconds:literal;)*) => {
        $(#[test]
        fn $name() {
            run($script, Duration::from_secs($seconds));
        })*

        const SCRIPTS: &[&str] = &[$($script),*];
    };
}

scripts! {
    n10_ping_http: "10-ping-http.sh", 240;
    n12_workers: "12-workers.sh", 120;
    n15_strict_sources: "15-strict-sources.sh", 120;
    n20_static_bib: "20-static-bib.sh", 120;
    n22_own_addresses: "22-own-addresses.sh", 120;
    n25_fragments: "25-fragments.sh", 120;
    n25_simultaneous_open: "25-simultaneous-open.sh", 120;
    n30_kill_restart: "30-kill-restart.sh", 180;
    n31_kill_often: "31-kill-often.sh", 300;
    n32_bad_storage: "32-bad-storage.sh", 300;
    n33_upgrade: "33-upgrade.sh", 200;
    n34_service_restart: "34-service-restart.sh", 120;
    n34_upgrade_trouble: "34-upgrade-trouble.sh", 200;
    n35_failed_start: "35-failed-start.sh", 120;
    n36_privileges: "36-privileges.sh", 120;
    n37_watchdog: "37-watchdog.sh", 180;
    n40_left_to_kernel: "40-left-to-kernel.sh", 120;
    n41_who: "41-who.sh", 120;
    n45_firewall_reload: "45-firewall-reload.sh", 120;
    n46_rule_changes: "46-rule-changes.sh", 120;
    n47_documents: "47-documents.sh", 240;
    n48_doctor: "48-doctor.sh", 240;
    n49_explain: "49-explain.sh", 120;
    n49_top: "49-top.sh", 240;
    n50_traceroute_icmp: "50-traceroute-icmp.sh", 240;
    n51_super_packets: "51-super-packets.sh", 240;
    n52_datagrams: "52-datagrams.sh", 120;
    n55_siit: "55-siit.sh", 240;
    n56_siit_mtu: "56-siit-mtu.sh", 300;
    n57_464xlat: "57-464xlat.sh", 300;
    n58_siit_beside_nat64: "58-siit-beside-nat64.sh", 240;
    n60_gateway_programs: "60-gateway-programs.sh", 120;
    n65_campus: "65-campus.sh", 180;
    n66_rule_script: "66-rule-script.sh", 300;
    n67_joold: "67-joold.sh", 240;
    n68_joold_old: "68-joold-old.sh", 240;
    n69_sync: "69-sync.sh", 300;
    n70_conntrack: "70-conntrack.sh", 180;
    n71_tutorial_sync: "71-tutorial-sync.sh", 300;
    n72_frr: "72-frr.sh", 240;
    n72_keepalived: "72-keepalived.sh", 240;
    n73_shares: "73-shares.sh", 240;
    n74_asymmetric: "74-asymmetric.sh", 240;
    n74_bad_network: "74-bad-network.sh", 400;
    n74_routed: "74-routed.sh", 240;
    n74_strangers: "74-strangers.sh", 400;
    n75_follow: "75-follow.sh", 240;
    n76_logging: "76-logging.sh", 180;
    n77_mapt: "77-mapt.sh", 240;
    n78_mapt_napt: "78-mapt-napt.sh", 240;
    n79_tutorial_mapt: "79-tutorial-mapt.sh", 180;
    n80_bad_input: "80-bad-input.sh", 240;
    n81_metrics: "81-metrics.sh", 300;
    n85_restart_config: "85-restart-config.sh", 120;
    n87_stateless_config: "87-stateless-config.sh", 180;
    // The first time, a plain Debian is fetched.
    n88_package: "88-package.sh", 400;
    n89_container: "89-container.sh", 120;
    n89_systemd: "89-systemd.sh", 400;
    // In a virtual machine with an emulated processor.
    n90_native_in_guest: "90-native.sh", 400;
    n92_siit_native_in_guest: "92-siit-native.sh", 400;
    n93_rules_native_in_guest: "93-rules-native.sh", 400;
    // The first time, modules are built.
    n94_joold_mixed_in_guest: "94-joold-mixed.sh", 900;
    n95_reboot_in_guest: "95-reboot-native.sh", 400;
    n96_mapt_native_in_guest: "96-mapt-native.sh", 400;
    n97_soak: "97-soak.sh", 240;
    n98_bench: "98-bench.sh", 240;
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

fn run(script: &str, limit: Duration) {
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
    let status = wait(&mut child, limit);

    let seconds = started.elapsed().as_secs();
    let text = || fs::read_to_string(&log).unwrap_or_default();
    match status {
        Some(status) if status.success() => {}
        Some(status) => panic!("{script}: {status} after {seconds} s\n{}", text()),
        None => panic!("{script}: stopped after {seconds} s\n{}", text()),
    }
}

/// Waits for the script; past the limit, ends it and returns `None`.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    if let Some(status) = poll(child, limit) {
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

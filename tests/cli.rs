// SPDX-License-Identifier: GPL-2.0-or-later
//! The commands `jool` and `jool_siit` and the daemon together, against what Jool 4.1.9 printed.
//!
//! Each test makes a network namespace, starts the real daemon in it and replays recorded
//! commands in their recorded order. A recording's first line is the command, the rest is its
//! standard output; `NAME.rc` holds the exit status where it is not 0. Recordings that need
//! traffic are compared where rows are printed, in `src/cli/render/tests.rs`.
//!
//! Needs root, `ip` and `setpriv`; says so and does nothing otherwise.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use lab::{Lab, fixtures, program, text};
use steps::Compare::{self, Counters, Exact, Instances, Rows, Settings, Statics, Version};
use steps::Step::{self, Do, Nobody, Rec, Start, Stop};
use steps::{DIFFERENT, ERRORS, NAT64, SIIT, SIIT_ERRORS, WARNED};

#[path = "cli/lab.rs"]
mod lab;
#[path = "cli/mapt.rs"]
mod mapt;
#[path = "cli/old.rs"]
mod old;
#[path = "cli/steps.rs"]
mod steps;
#[path = "cli/verbs.rs"]
mod verbs;

//= jool#pool4
//= type=test
#[test]
fn what_works_in_jool() {
    replay("nat64", NAT64);
}

#[test]
fn what_fails_in_jool() {
    replay("nat64-errors", ERRORS);
}

#[test]
fn what_works_in_jool_siit() {
    replay("siit", SIIT);
}

#[test]
fn what_fails_in_jool_siit() {
    replay("siit-errors", SIIT_ERRORS);
}

#[test]
fn every_difference_is_about_a_step() {
    let all = [NAT64, ERRORS, SIIT, SIIT_ERRORS];
    let steps: BTreeSet<_> = all.into_iter().flatten().filter_map(Step::name).collect();
    for (name, _, _) in DIFFERENT {
        assert!(steps.contains(name), "{name}");
    }
    for name in WARNED {
        assert!(steps.contains(name), "{name}");
    }
}

//= jool#instance-status
//= type=test
#[test]
fn instances_have_a_status() {
    let Some(mut lab) = Lab::new("status") else {
        return;
    };
    let dead = lab.jool("jool instance status", false);
    assert_eq!(dead.status.code(), Some(253));
    assert_eq!(text(&dead.stdout), "Dead\n");
    assert!(text(&dead.stderr).contains("tylod"), "{dead:?}");
    lab.start();
    let dead = lab.jool("jool -i x instance status", false);
    assert_eq!(dead.status.code(), Some(0));
    assert_eq!(text(&dead.stdout), "Dead\n(Instance 'x' does not exist.)\n");
    lab.must("jool instance add x --iptables --pool6 64:ff9b::/96");
    assert_eq!(lab.must("jool -i x instance status"), "Running\n");
}

//= jool#file-handle
//= type=test
#[test]
fn a_file_is_taken_whole_or_not_at_all() {
    let Some(mut lab) = Lab::new("file") else {
        return;
    };
    lab.start();
    let file = lab.folder.join("new.json");
    fs::write(
        &file,
        r#"{ "framework": "netfilter", "global": { "tos": 9 },
             "EAMT": [ { "ipv6 prefix": "2001:db8:4::/120", "ipv4 prefix": "198.51.100.0/24" } ],
             "denylist4": [ "192.168.0.0/16" ], "blacklist4": [ "10.0.0.0/8" ] }"#,
    )
    .unwrap();
    lab.must("jool_siit -i new file handle new.json");
    let shown = || {
        let rows = lab.must("jool_siit -i new eamt display --csv --no-headers");
        let denied = lab.must("jool_siit -i new denylist4 display --csv --no-headers");
        let settings = lab.must("jool_siit -i new global display");
        (rows + &denied, settings.contains("  tos: 9\n"))
    };
    let whole = "2001:db8:4::/120,198.51.100.0/24\n192.168.0.0/16\n10.0.0.0/8\n";
    assert_eq!(shown(), (whole.to_owned(), true));
    // The second of two mappings overlaps the first.
    fs::write(
        &file,
        r#"{ "framework": "netfilter", "eamt": [
             { "ipv6 prefix": "2001:db8:5::/120", "ipv4 prefix": "203.0.113.0/24" },
             { "ipv6 prefix": "2001:db8:6::/124", "ipv4 prefix": "203.0.113.0/28" } ] }"#,
    )
    .unwrap();
    let refused = lab.jool("jool_siit -i new file handle new.json", false);
    assert_eq!(refused.status.code(), Some(17), "{refused:?}");
    assert_eq!(shown(), (whole.to_owned(), true));
    lab.must("jool_siit -i new file handle --force new.json");
    let (rows, old_tos) = shown();
    assert_eq!((rows.lines().count(), old_tos), (2, false), "{rows}");

    fs::write(&file, r#"{ "instance": "n", "framework": "iptables" }"#).unwrap();
    let refused = lab.jool("jool file handle new.json", false);
    assert_eq!(refused.status.code(), Some(22), "{refused:?}");
    let advice = "'pool6' in 'global'";
    assert!(text(&refused.stderr).contains(advice), "{refused:?}");
    fs::write(
        &file,
        r#"{ "instance": "n", "framework": "iptables", "global": { "pool6": "64:ff9b::/96" },
             "pool4": [ { "protocol": "TCP", "prefix": "192.0.2.7" } ],
             "bib": [ { "protocol": "TCP", "ipv6 address": "2001:db8::1#80",
                        "ipv4 address": "192.0.2.7#61080" } ] }"#,
    )
    .unwrap();
    lab.must("jool file handle new.json");
    let pool4 = lab.must("jool --file new.json pool4 display --csv --no-headers");
    assert_eq!(pool4, "0,TCP,192.0.2.7,61001,65535,1024,0\n");
    let bib = lab.must("jool --file new.json bib display --csv --no-headers --numeric");
    assert_eq!(bib, "TCP,2001:db8::1,80,192.0.2.7,61080,1\n");
}

#[test]
fn every_name_works_as_the_first_word_too() {
    for name in ["jool", "jool_siit", "tylod", "health"] {
        let out = program("tylo").args([name, "--version"]).output().unwrap();
        assert!(out.status.success(), "{name}: {out:?}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let out = program("jool")
        .arg("--help")
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(out.status.success());
    assert_eq!(text(&out.stderr), "");
}

#[test]
fn a_full_disk_is_an_error() {
    let full = fs::File::create("/dev/full").unwrap();
    let out = program("jool")
        .arg("--version")
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(28), "ENOSPC");
    assert!(text(&out.stderr).starts_with("Error: "), "{out:?}");
}

#[test]
fn a_static_mapping_survives_a_kill_at_once() {
    let Some(mut lab) = Lab::new("kill") else {
        return;
    };
    lab.start();
    lab.must("jool instance add --pool6 64:ff9b::/96");
    lab.must("jool pool4 add --tcp 192.0.2.1 1-1000");
    lab.must("jool bib add --tcp 2001:db8::1#1 192.0.2.1#5");
    let mut daemon = lab.daemon.take().unwrap();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    lab.start();
    let shown = lab.must("jool bib display --tcp --numeric");
    assert!(shown.contains("2001:db8::1#1"), "{shown}");
}

#[test]
fn a_hangup_is_a_clean_stop_and_a_full_log_is_survived() {
    let Some(mut lab) = Lab::new("hangup") else {
        return;
    };
    // What is written there fails.
    symlink("/dev/full", lab.folder.join("log")).unwrap();
    lab.start();
    lab.must("jool instance add --pool6 64:ff9b::/96");
    let mut daemon = lab.daemon.take().unwrap();
    let pid = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    let links = lab.inside().args(["ip", "link"]).output().unwrap();
    assert!(!text(&links.stdout).contains("tylo0"), "{links:?}");
}

#[test]
fn idle_users_do_not_keep_root_waiting() {
    let Some(mut lab) = Lab::new("idle") else {
        return;
    };
    lab.start();
    let script = "import socket\nall = []\n\
                  for _ in range(100):\n\
                  \x20 s = socket.socket(socket.AF_UNIX)\n  s.connect('\\0tylo')\n  all.append(s)\n\
                  print(all[-1].recv(999).decode(), flush=True)\nimport sys\nsys.stdin.read()";
    let mut command = lab.inside();
    command.args(["setpriv", "--reuid", "65534", "--clear-groups"]);
    command.args(["/usr/bin/python3", "-c", script]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut idle = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(idle.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.contains("try again later"), "{line}");
    let begun = Instant::now();
    lab.must("jool instance display");
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop(idle.stdin.take());
    idle.wait().unwrap();
}

/// Carries the steps out and reports every difference at the end.
fn replay(folder: &str, steps: &[Step]) {
    let Some(mut lab) = Lab::new(folder) else {
        return;
    };
    lab.lend(folder);
    lab.start();
    let mut complaints = String::new();
    for step in steps {
        let (name, compare, nobody) = match step {
            Rec(name, compare) => (*name, *compare, false),
            Nobody(name, compare) => (*name, *compare, true),
            Do(line) => {
                lab.must(line);
                continue;
            }
            Stop => {
                lab.stop();
                continue;
            }
            Start => {
                lab.start();
                continue;
            }
        };
        let recording = Recording::read(folder, name);
        let out = lab.jool(&recording.command, nobody);
        for complaint in recording.differences(name, compare, &out) {
            writeln!(complaints, "{name} ({}): {complaint}", recording.command).unwrap();
        }
    }
    assert!(complaints.is_empty(), "{folder}:\n{complaints}");
}

impl Step {
    fn name(&self) -> Option<&'static str> {
        match self {
            Rec(name, _) | Nobody(name, _) => Some(name),
            Do(_) | Stop | Start => None,
        }
    }
}

struct Recording {
    command: String,
    stdout: String,
    code: i32,
}

impl Recording {
    fn read(folder: &str, name: &str) -> Self {
        let path = fixtures().join(folder).join(name);
        let whole = fs::read_to_string(path.with_extension("txt")).expect(name);
        let (command, stdout) = whole.split_once('\n').expect(name);
        let code = fs::read_to_string(path.with_extension("rc"));
        Self {
            command: command.to_owned(),
            stdout: stdout.to_owned(),
            code: code.map_or(0, |code| code.trim().parse().expect(name)),
        }
    }

    fn differences(&self, name: &str, compare: Compare, out: &Output) -> Vec<String> {
        let (stdout, stderr) = (text(&out.stdout), text(&out.stderr));
        let mut found = Vec::new();
        let wanted = DIFFERENT
            .iter()
            .find(|(different, _, _)| *different == name)
            .map_or(self.code, |(_, code, _)| *code);
        if out.status.code() != Some(wanted) {
            found.push(format!("{}, not {wanted}; {stderr}", out.status));
        }
        let complains = wanted != 0 || WARNED.contains(&name);
        if stderr.is_empty() == complains {
            found.push(format!("standard error is {stderr:?}"));
        }
        let recorded = if wanted == 0 { &self.stdout } else { "" };
        let (ours, theirs) = (compare.mask(stdout), compare.mask(recorded));
        if ours != theirs {
            found.push(format!("printed\n{ours}\nand not\n{theirs}"));
        }
        found
    }
}

impl Compare {
    /// Takes out what may differ.
    fn mask(self, text: &str) -> String {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        match self {
            Exact => return text.to_owned(),
            Rows => lines.sort(),
            Instances => {
                lines
                    .iter_mut()
                    .for_each(|line| *line = without_number(line));
                // See `add-empty-name` in the table of differences.
                lines.retain(|line| !line.starts_with("| N |                 |"));
                let from = lines.iter().position(|l| l.contains('N')).unwrap_or(0);
                lines[from..].sort();
            }
            Settings => {
                lines.retain(|line| !line.contains("ss-max-sessions-per-packet"));
                for line in &mut lines {
                    *line = line
                        .replace("ss-flush-asap: true", "ss-flush-asap: false")
                        .replace("ss-flush-asap,TRUE", "ss-flush-asap,FALSE");
                }
            }
            Statics => lines.retain(|l| !l.starts_with("[Dynamic") && !l.ends_with(",0")),
            Counters => {
                lines.retain(|line| !line.starts_with("JSTAT_JOOLD_"));
                for line in &mut lines {
                    let digits = line.trim_end_matches(|c: char| c.is_ascii_digit());
                    *line = digits.to_owned();
                }
            }
            Version => {
                let four = lines.len() == 1 && lines[0].split('.').count() == 4;
                return format!("four numbers: {four}");
            }
        }
        lines.join("\n")
    }
}

/// A row of instances with `N` for the number of the namespace; other lines as they are.
fn without_number(line: &str) -> String {
    let hex = |field: &str| !field.is_empty() && field.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some(("", row)) = line.split_once("| ")
        && let Some((number, rest)) = row.split_once(" | ")
    {
        // The width counts.
        if number.len() == 18 && hex(number.trim_start()) {
            return format!("| N | {rest}");
        }
    } else if let Some((number, rest)) = line.split_once(',')
        && hex(number)
    {
        return format!("N,{rest}");
    }
    line.to_owned()
}

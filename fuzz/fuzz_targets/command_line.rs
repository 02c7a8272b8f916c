// SPDX-License-Identifier: GPL-2.0-or-later
//! Words of a command line, one to a line. Files (`-f`) are left out: what is in them is not in
//! the input.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use libfuzzer_sys::fuzz_target;
use tylo::cli::fuzzing::command_line;

fuzz_target!(init: tylo_fuzz::plant(SEEDS), |data: &[u8]| {
    let words: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    // Jool 3's short form is `-p`.
    let short = |word: &[u8]| word.starts_with(b"-") && !word.starts_with(b"--") && word.contains(&b'p');
    let names_a_file =
        |word: &&[u8]| word.starts_with(b"--f") || (word.starts_with(b"-") && word.contains(&b'f')) || short(word);
    if !words.iter().any(names_a_file) {
        command_line(words.into_iter().map(|word| OsString::from_vec(word.to_vec())));
    }
});

const SEEDS: &[&str] = &[
    "instance\nadd\nblue\n--netfilter\n--pool6\n64:ff9b::/96",
    "-i\nblue\ninstance\nremove",
    "--pool4\n--add\n--tcp\n--udp\n192.0.2.1\n61001-65535",
    "-i\nblue\n-sin",
    "--ss-enabled\ntrue\n--tos=16",
    "session\nproxy\nff08::1\n--net.ttl\n5\n-i\neth0",
    "autocomplete\n2\nglobal\nupdate\nt",
    "instance\ndisplay\n--csv\n--no-headers",
    "global\nupdate\nmtu-plateaus\n1500,1280",
    "global\nupdate\nudp-timeout\n0:05:00.500",
    "global\ndisplay\n--csv",
    "pool4\nadd\n--tcp\n192.0.2.0/28\n61001-65535\n--mark\n7\n--max-iterations\ninfinity",
    "pool4\nremove\n--udp\n192.0.2.1\n1-2\n--quick",
    "pool4\nflush",
    "bib\nadd\n192.0.2.1#80\n2001:db8::1#80\n--tcp",
    "bib\ndisplay\n--icmp\n--numeric",
    "session\ndisplay\n--udp\n--csv",
    "stats\ndisplay\n--all\n--explain",
    "--help",
    "pool4\nadd\n--help",
    "--version",
];

// SPDX-License-Identifier: GPL-2.0-or-later
//! One program with several names: the name it is called by, or else the first word, says which.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let called = args.next().unwrap_or_default();
    let name = Path::new(&called)
        .file_name()
        .unwrap_or_default()
        .to_owned();
    if let Some(code) = personality(&name, &called, &mut args) {
        return code;
    }
    // Not 0: a health check that meant `jool` and lost the name must not find that all is well.
    let Some(word) = args.next() else {
        return usage(64);
    };
    if word == "--help" || word == "-h" {
        return usage(0);
    }
    personality(&word, &word, &mut args).unwrap_or_else(|| unknown(&word))
}

fn personality(
    name: &OsStr,
    called: &OsStr,
    args: &mut dyn Iterator<Item = OsString>,
) -> Option<ExitCode> {
    let mut args = std::iter::once(called.to_owned()).chain(args);
    match name.to_str()? {
        "tylod" => Some(tylo::daemon::main(args)),
        "jool" => Some(tylo::cli::jool(args)),
        "jool_siit" => Some(tylo::cli::jool_siit(args)),
        "jool_mapt" => Some(tylo::cli::jool_mapt(args)),
        "joold" => Some(tylo::cli::joold(args)),
        word => tylo::cli::verb(word, &mut args, tylo::daemon::command),
    }
}

fn unknown(word: &OsStr) -> ExitCode {
    // Nothing sensible can be done when even this cannot be printed.
    let _ = writeln!(
        std::io::stderr(),
        "Error: '{}' is not a word of tylo; choose one of these:",
        word.to_string_lossy().escape_debug()
    );
    usage(64)
}

fn usage(code: u8) -> ExitCode {
    const PERSONALITIES: [(&str, &str); 5] = [
        ("tylod [OPTION...]", "The daemon"),
        ("jool ...", "Controls its NAT64 instances"),
        ("jool_siit ...", "Controls its SIIT instances"),
        ("jool_mapt ...", "Controls its MAP-T instances"),
        ("joold [FILE...]", "Exchanges sessions with other gateways"),
    ];
    let calls: Vec<(String, &str)> = PERSONALITIES
        .iter()
        .map(|(call, about)| ((*call).to_owned(), *about))
        .chain(tylo::cli::verbs())
        .collect();
    let width = calls.iter().map(|(call, _)| call.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (index, (call, about)) in calls.iter().enumerate() {
        let head = if index == 0 { "Usage:" } else { "" };
        text.push_str(&format!("{head:<6} tylo {call:<width$}  {about}\n"));
    }
    text.push_str(
        "Also works under the names tylod, jool, jool_siit, jool_mapt and joold. Each has --help.\n",
    );
    let _ = if code == 0 {
        std::io::stdout().write_all(text.as_bytes())
    } else {
        std::io::stderr().write_all(text.as_bytes())
    };
    ExitCode::from(code)
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! One program with several names: the name it is called by, or else the first word, says which.

use std::ffi::{OsStr, OsString};
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
    let Some(word) = args.next() else {
        return usage(0);
    };
    if word == "--help" || word == "-h" {
        return usage(0);
    }
    personality(&word, &word, &mut args).unwrap_or_else(|| usage(64))
}

fn personality(
    name: &OsStr,
    called: &OsStr,
    args: &mut dyn Iterator<Item = OsString>,
) -> Option<ExitCode> {
    let args = std::iter::once(called.to_owned()).chain(args);
    match name.to_str()? {
        "tylod" => Some(tylo::daemon::main(args)),
        "jool" => Some(tylo::cli::jool(args)),
        "jool_siit" => Some(tylo::cli::jool_siit(args)),
        "health" => Some(tylo::cli::health(args)),
        "export" => Some(tylo::cli::export(args)),
        "diff" => Some(tylo::cli::diff(args)),
        "all" => Some(tylo::cli::all(args)),
        _ => None,
    }
}

fn usage(code: u8) -> ExitCode {
    let text = "\
Usage: tylo tylod [OPTION...]     the daemon
       tylo jool ...              controls its NAT64 instances
       tylo jool_siit ...         controls its SIIT instances
       tylo health [--json]       is all well? for monitoring
       tylo export                prints an instance as a file for 'file handle'
       tylo diff FILE             says what 'file handle' would change
       tylo all MODE OPERATION    asks every instance
Also works under the names tylod, jool and jool_siit. Each has --help.
";
    use std::io::Write;
    let _ = if code == 0 {
        std::io::stdout().write_all(text.as_bytes())
    } else {
        std::io::stderr().write_all(text.as_bytes())
    };
    ExitCode::from(code)
}

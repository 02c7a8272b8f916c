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

fn usage(code: u8) -> ExitCode {
    let text = format!(
        "\
Usage: tylo tylod [OPTION...]     the daemon
       tylo jool ...              controls its NAT64 instances
       tylo jool_siit ...         controls its SIIT instances
       tylo jool_mapt ...         controls its MAP-T instances
       tylo joold [FILE...]       exchanges sessions with other gateways
{}\
Also works under the names tylod, jool, jool_siit, jool_mapt and joold. Each has --help.
",
        tylo::cli::verbs()
    );
    use std::io::Write;
    let _ = if code == 0 {
        std::io::stdout().write_all(text.as_bytes())
    } else {
        std::io::stderr().write_all(text.as_bytes())
    };
    ExitCode::from(code)
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! Floor 6: the commands.
//!
//! A command line becomes a request (`grammar`, `keywords`, `values`, `help`; those of Jool 3 go
//! through `legacy` first), the [client] takes it to the daemon, and `render` or `json` prints the
//! answer. Commands hold no state and decide nothing
//! about translation. Exit statuses and tables are Jool's; texts are our own.
//!
//! Where Jool takes nonsense without a word (unknown options before the mode, letters behind a
//! number, surplus values, an empty name) these commands say so and fail.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use grammar::Personality;

use crate::model::Flavour;

pub mod client;
mod complete;
mod db;
mod examples;
mod file;
mod follow;
mod grammar;
mod health;
mod help;
mod json;
mod keywords;
mod legacy;
mod names;
mod options;
mod proxy;
mod render;
mod run;
mod values;
mod verbs;

const JOOL: Personality = Personality {
    program: "jool",
    flavour: Flavour::Nat64,
};

const JOOL_SIIT: Personality = Personality {
    program: "jool_siit",
    flavour: Flavour::Siit,
};

const JOOL_MAPT: Personality = Personality {
    program: "jool_mapt",
    flavour: Flavour::Mapt,
};

/// The command `jool`: NAT64 instances. `args` begins with the name of the program.
pub fn jool(args: impl Iterator<Item = OsString>) -> ExitCode {
    run::run(JOOL, args)
}

/// The command `jool_siit`: SIIT instances. `args` begins with the name of the program.
pub fn jool_siit(args: impl Iterator<Item = OsString>) -> ExitCode {
    run::run(JOOL_SIIT, args)
}

/// The command `jool_mapt`: MAP-T instances. `args` begins with the name of the program.
pub fn jool_mapt(args: impl Iterator<Item = OsString>) -> ExitCode {
    run::run(JOOL_MAPT, args)
}

pub use proxy::joold;
pub use verbs::{verb, verbs};

fn say(kind: &str, text: &impl Display) {
    // There is nowhere left to complain about a closed standard error.
    let _ = writeln!(io::stderr(), "{kind}: {text}");
}

/// The parsers, for fuzz targets and tests; no other build has this.
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing {
    use std::ffi::OsString;

    use super::JOOL;
    use super::run::read;

    pub use super::file::fuzzing::files;

    /// Reads the words behind the name of the program; an error is put into words, too.
    pub fn command_line(words: impl Iterator<Item = OsString>) {
        if let Err(error) = read(JOOL, words) {
            assert!(!error.to_string().is_empty() && error.code() != 0);
        }
    }
}

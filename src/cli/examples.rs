// SPDX-License-Identifier: GPL-2.0-or-later
//! A line or two for each operation, as one would type them behind the name of the command.

use super::grammar::Personality;
use super::keywords::{Action, Mode};

/// What `--help` and the manual pages show for an operation.
pub(super) const fn of(action: Action) -> &'static [&'static str] {
    match action {
        Action::InstanceDisplay => &["instance display"],
        Action::InstanceAdd => &[
            "instance add --netfilter --pool6 64:ff9b::/96",
            "instance add second --iptables --pool6 2001:db8:64::/96",
        ],
        Action::InstanceRemove => &["instance remove second"],
        Action::InstanceFlush => &["instance flush"],
        Action::InstanceStatus => &["-i second instance status"],
        Action::StatsDisplay => &["stats display --all --explain"],
        Action::GlobalDisplay => &["global display"],
        Action::GlobalUpdate => &["global update manually-enabled false"],
        Action::Pool4Display => &["pool4 display --udp", "pool4 display --csv"],
        Action::Pool4Add => &[
            "pool4 add --tcp 192.0.2.1 61001-65535",
            "pool4 add --icmp 192.0.2.1 0-65535",
        ],
        Action::Pool4Remove => &["pool4 remove --tcp 192.0.2.1 61001-65535"],
        Action::Pool4Flush => &["pool4 flush --quick"],
        Action::BibDisplay => &["bib display --tcp --numeric"],
        Action::BibAdd => &["bib add --tcp 2001:db8::8#80 192.0.2.1#61080"],
        Action::BibRemove => &["bib remove --tcp 192.0.2.1#61080"],
        Action::SessionDisplay => &[
            "session display --icmp --numeric",
            "session display --tcp --numeric --csv",
        ],
        Action::SessionFollow => &["session follow --events"],
        Action::SessionProxy => &[
            "session proxy --net.mcast.port=6464 --net.dev.in=eth2 --net.dev.out=eth2 \
             ff08::db8:64:64",
        ],
        Action::SessionAdvertise => &["session advertise"],
        Action::AddressQuery => &["address query --verbose 192.0.2.1"],
        Action::EamtDisplay => &["eamt display"],
        Action::EamtAdd => &["eamt add 2001:db8:4::/120 198.51.100.0/24"],
        Action::EamtRemove => &["eamt remove 2001:db8:4::/120"],
        Action::EamtFlush => &["eamt flush"],
        Action::Denylist4Display => &["denylist4 display"],
        Action::Denylist4Add => &["denylist4 add 198.51.100.0/24"],
        Action::Denylist4Remove => &["denylist4 remove 198.51.100.0/24"],
        Action::Denylist4Flush => &["denylist4 flush"],
        Action::MaptAdd => &["instance add BR --netfilter --dmr 64:ff9b::/96"],
        Action::FmrtDisplay => &["fmrt display --csv"],
        Action::FmrtAdd => &["fmrt add 2001:db8:ce::/51 192.0.2.0/24 13 0"],
        Action::FmrtRemove => &["fmrt remove 2001:db8:ce::/51 192.0.2.0/24 13 0"],
        Action::FmrtFlush => &["fmrt flush"],
        Action::FileHandle => &["file handle gateway.json"],
        Action::FileCheck => &["file check gateway.json"],
    }
}

/// The lines of an operation, each with the name of the command.
pub(super) fn lines(program: &str, action: Action) -> Vec<String> {
    let lines = of(action).iter();
    lines.map(|line| format!("{program} {line}")).collect()
}

/// What `--help` says at the top: how one begins.
pub(super) fn first(who: Personality) -> Option<String> {
    let adding = |mode: &'static Mode| {
        let made = |a: &Action| matches!(a, Action::InstanceAdd | Action::MaptAdd);
        mode.operations.iter().map(|o| o.action).find(made)
    };
    let action = Mode::of(who.flavour).find_map(adding)?;
    lines(who.program, action).into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::grammar::{Invocation, parse};
    use crate::cli::{JOOL, JOOL_MAPT, JOOL_SIIT};

    #[test]
    fn examples_are_understood() {
        for who in [JOOL, JOOL_SIIT, JOOL_MAPT] {
            for mode in Mode::of(who.flavour) {
                for operation in mode.operations {
                    let lines = of(operation.action);
                    assert!(!lines.is_empty());
                    for line in lines {
                        // Files are not there.
                        if !line.starts_with("file ") {
                            let parsed = parse(who, line.split(' ').map(Into::into));
                            let calls =
                                matches!(parsed, Ok(Invocation::Call(_) | Invocation::Proxy(_)));
                            assert!(calls, "{} {line}: {:?}", who.program, parsed.err());
                        }
                        assert!(line.contains(operation.name), "{line}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_step_makes_an_instance() {
        for (who, option) in [
            (JOOL, "--pool6"),
            (JOOL_SIIT, "--pool6"),
            (JOOL_MAPT, "--dmr"),
        ] {
            assert!(first(who).unwrap().contains(option));
        }
    }
}

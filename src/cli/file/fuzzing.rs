// SPDX-License-Identifier: GPL-2.0-or-later
//! The parsers, for fuzz targets and tests; no other build has this.

use std::path::Path;

use super::{FileError, config, joold, only_name, understand};
use crate::model::Flavour;
use crate::model::control::Command;

/// What is made of a file, whatever it is meant to be. With `force`, what is dubious is taken, too.
///
/// # Panics
/// It is refused without a word, or understood as what cannot be sent to the daemon.
pub fn files(flavour: Flavour, force: bool, bytes: &[u8]) {
    let path = Path::new("file.json");
    good_words(understand(path, bytes, only_name));
    good_words(understand(path, bytes, joold::netsocket));
    good_words(understand(path, bytes, joold::modsocket));
    let found = good_words(understand(path, bytes, |root| {
        config::read(root, flavour, force)
    }));
    if let Some((_, config)) = found {
        let command = Command::Replace {
            config: Box::new(config),
            force,
        };
        let line = serde_json::to_vec(&command).expect("a command can be written");
        let again: Command = serde_json::from_slice(&line).expect("what was written can be read");
        assert_eq!(again, command);
    }
}

fn good_words<T>(result: Result<T, FileError>) -> Option<T> {
    let error = match result {
        Ok(found) => return Some(found),
        Err(error) => error,
    };
    assert!(!error.to_string().is_empty() && error.code() != 0);
    None
}

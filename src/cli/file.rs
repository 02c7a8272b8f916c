// SPDX-License-Identifier: GPL-2.0-or-later
//! The file that `-f` names: only the name of an instance is read from it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::values::EXIT_INVALID;

/// The largest file that is read, in bytes.
const SIZE_MAX: u64 = 64 << 20;

/// Why the file does not name an instance.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("the file '{}' cannot be read: {error}", .path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("the file '{}' is larger than {SIZE_MAX} bytes; is it the right one?", .0.display())]
    Large(PathBuf),
    #[error("the file '{}' is not JSON: {error}", .path.display())]
    NotJson {
        path: PathBuf,
        error: serde_json::Error,
    },
    #[error("the file '{}' does not hold a JSON object", .0.display())]
    NotAnObject(PathBuf),
    #[error("the file '{}' names no instance; add the key 'instance'", .0.display())]
    NoInstance(PathBuf),
    #[error("the file '{}' has several keys 'instance'; keep one of them", .0.display())]
    Several(PathBuf),
    #[error("the key 'instance' of the file '{}' is {value}, not a text", .path.display())]
    NotAText { path: PathBuf, value: Value },
}

impl FileError {
    /// The exit status of the command.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Unreadable { error, .. } => error
                .raw_os_error()
                .and_then(|n| u8::try_from(n).ok())
                .unwrap_or(EXIT_INVALID),
            Self::Large(_)
            | Self::NotJson { .. }
            | Self::NotAnObject(_)
            | Self::NoInstance(_)
            | Self::Several(_)
            | Self::NotAText { .. } => EXIT_INVALID,
        }
    }
}

/// Reads the instance's name; upper and lower case of the key do not matter.
pub(crate) fn instance(path: &Path) -> Result<String, FileError> {
    let text = read(path).map_err(|error| FileError::Unreadable {
        path: path.to_owned(),
        error,
    })?;
    if text.len() as u64 > SIZE_MAX {
        return Err(FileError::Large(path.to_owned()));
    }
    let root = serde_json::from_slice(&text).map_err(|error| FileError::NotJson {
        path: path.to_owned(),
        error,
    })?;
    let Value::Object(root) = root else {
        return Err(FileError::NotAnObject(path.to_owned()));
    };
    let mut found = root
        .into_iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case("instance"));
    match (found.next(), found.next()) {
        (None, _) => Err(FileError::NoInstance(path.to_owned())),
        (Some(_), Some(_)) => Err(FileError::Several(path.to_owned())),
        (Some((_, Value::String(name))), None) => Ok(name),
        (Some((_, value)), None) => Err(FileError::NotAText {
            path: path.to_owned(),
            value,
        }),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?
        .take(SIZE_MAX + 1)
        .read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Result<String, FileError> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let file = format!("tylo-cli-file-{}-{n}.json", std::process::id());
        let path = std::env::temp_dir().join(file);
        std::fs::write(&path, text).unwrap();
        let result = instance(&path);
        std::fs::remove_file(path).unwrap();
        result
    }

    #[test]
    fn the_name_is_found_whatever_else_there_is() {
        let text = r#"{"framework": 7, "INSTANCE": "x", "global": {"instance": "y"}}"#;
        assert_eq!(name(text).unwrap(), "x");
    }

    #[test]
    fn files_without_a_name_are_refused() {
        assert!(matches!(name("{}"), Err(FileError::NoInstance(_))));
        assert!(matches!(name("[]"), Err(FileError::NotAnObject(_))));
        assert!(matches!(name("{"), Err(FileError::NotJson { .. })));
        assert!(matches!(
            name(r#"{"instance": 3}"#),
            Err(FileError::NotAText { .. })
        ));
        assert!(matches!(
            name(r#"{"instance": "a", "Instance": "b"}"#),
            Err(FileError::Several(_))
        ));
    }

    #[test]
    fn a_missing_file_has_the_systems_error_number() {
        assert_eq!(instance(Path::new("/nonexistent")).unwrap_err().code(), 2);
    }
}

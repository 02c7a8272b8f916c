// SPDX-License-Identifier: GPL-2.0-or-later
//! Configuration files: the name of an instance for `-f`, all of it for `file handle`, and the files
//! of `joold`.
//!
//! `json` knows where in a file a value stands, `config` what the values mean. Files are taken
//! as a whole or not at all, and nothing in them is ignored but comments. Where Jool does not
//! look at what follows the root object, this is an error.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use json::{Fault, Node, Problem, Span};

use super::proxy::ProxyConfig;
use super::values::{self, EXIT_INVALID, EXIT_MEANING};
use crate::model::Flavour;
use crate::model::control::Config;
use crate::model::dhcp::DhcpError;

mod config;
mod dhcp;
#[cfg(any(fuzzing, test))]
pub(super) mod fuzzing;
mod joold;
mod json;

/// The largest file that is read, in bytes.
const SIZE_MAX: u64 = 64 << 20;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("the file '{}' cannot be read: {error}", .path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("the file '{}' is larger than {SIZE_MAX} bytes; is it the right one?", .0.display())]
    Large(PathBuf),
    #[error("the file '{}' is not UTF-8 from line {line} on; save it as such", .path.display())]
    NotText { path: PathBuf, line: usize },
    #[error("the file '{}' is not JSON: {error}", .path.display())]
    NotJson {
        path: PathBuf,
        error: serde_json::Error,
    },
    #[error("the file '{}' names no instance; add the key 'instance', or -i NAME", .0.display())]
    NoInstance(PathBuf),
    #[error("--from-dhcp: {0}")]
    Dhcp(DhcpError),
    #[error("the file '{}', line {}: {}{problem}", .path.display(), .span.line, .span.label())]
    Problem {
        path: PathBuf,
        span: Span,
        problem: Problem,
    },
}

impl FileError {
    /// The exit status of the command.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Unreadable { error, .. } => error
                .raw_os_error()
                .and_then(|n| u8::try_from(n).ok())
                .unwrap_or(EXIT_INVALID),
            Self::Problem { problem, .. } => problem.code(),
            Self::Dhcp(_) => EXIT_MEANING,
            Self::Large(_) | Self::NotText { .. } | Self::NotJson { .. } | Self::NoInstance(_) => {
                EXIT_INVALID
            }
        }
    }
}

/// Reads the instance's name and nothing else; upper and lower case of the key do not matter.
pub(crate) fn instance(path: &Path) -> Result<String, FileError> {
    let found = with(path, only_name)?;
    found.ok_or_else(|| FileError::NoInstance(path.to_owned()))
}

fn only_name(root: Node<'_>) -> Result<Option<String>, Fault<'_>> {
    let mut names = root.entries()?.into_iter();
    let mut names = names
        .by_ref()
        .filter(|(key, _)| json::same(key, "instance"));
    match (names.next(), names.next()) {
        (_, Some((_, second))) => Err(second.fault(Problem::Twice)),
        (Some((_, name)), None) => name_of(name).map(Some),
        (None, None) => Ok(None),
    }
}

/// Reads the whole configuration of an instance, and its name if the file has one.
pub(crate) fn configuration(
    path: &Path,
    flavour: Flavour,
    force: bool,
) -> Result<(Option<String>, Config), FileError> {
    with(path, |root| config::read(root, flavour, force))
}

pub(crate) use self::dhcp::from_dhcp;

/// Reads a `netsocket.json` of `joold`.
pub(crate) fn netsocket(path: &Path) -> Result<ProxyConfig, FileError> {
    with(path, joold::netsocket)
}

/// Reads a `modsocket.json` of `joold`: the name of the instance.
pub(crate) fn modsocket(path: &Path) -> Result<String, FileError> {
    with(path, joold::modsocket)
}

fn name_of(node: Node<'_>) -> Result<String, Fault<'_>> {
    let name = node.text()?;
    node.judge(values::instance_name(&name))
}

/// Hands the root of the file to `read`, and says where its complaint belongs.
fn with<T>(
    path: &Path,
    read: impl for<'a> FnOnce(Node<'a>) -> Result<T, Fault<'a>>,
) -> Result<T, FileError> {
    let bytes = load(path).map_err(|error| FileError::Unreadable {
        path: path.to_owned(),
        error,
    })?;
    understand(path, &bytes, read)
}

/// The same for what is in the file.
fn understand<T>(
    path: &Path,
    bytes: &[u8],
    read: impl for<'a> FnOnce(Node<'a>) -> Result<T, Fault<'a>>,
) -> Result<T, FileError> {
    let path = || path.to_owned();
    if bytes.len() as u64 > SIZE_MAX {
        return Err(FileError::Large(path()));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| FileError::NotText {
        path: path(),
        line: json::line(bytes, error.valid_up_to()),
    })?;
    // RFC 8259 section 8.1: a byte order mark may be passed over.
    let root =
        Node::root(text.trim_start_matches('\u{feff}')).map_err(|error| FileError::NotJson {
            path: path(),
            error,
        })?;
    read(root).map_err(|fault| FileError::Problem {
        path: path(),
        span: fault.span(text, root),
        problem: fault.problem,
    })
}

fn load(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?
        .take(SIZE_MAX + 1)
        .read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests;

// SPDX-License-Identifier: GPL-2.0-or-later
//! A customer edge as a DHCPv6 server describes it.

use std::path::Path;

use super::{FileError, SIZE_MAX, load};
use crate::base::prefix::Prefix6;
use crate::model::Framework;
use crate::model::control::Config;
use crate::model::dhcp::{self, CustomerEdge, DhcpError};
use crate::model::settings::Value;

/// Reads DHCPv6 options from a file of this name, or else from the text itself, which then are
/// hexadecimal digits. A prefix that is given stands in for one of the options.
///
/// # Errors
/// The file cannot be read, or the options do not make a customer edge.
pub(crate) fn from_dhcp(
    text: &str,
    framework: Framework,
    dmr: Option<Prefix6>,
    end_user: Option<Prefix6>,
) -> Result<Config, FileError> {
    let options = match Path::new(text) {
        path if path.exists() => contents(path)?,
        _ => dhcp::bytes(text)?,
    };
    let CustomerEdge {
        dmr,
        end_user,
        bmr,
        fmrt,
    } = dhcp::parse(&options)?.customer_edge(dmr, end_user)?;
    let settings = [
        ("pool6", Value::Prefix6(Some(dmr))),
        ("end-user-ipv6-prefix", Value::Prefix6(Some(end_user))),
        ("bmr", Value::MapRule(Some(bmr))),
    ];
    Ok(Config {
        framework,
        settings: settings.map(|(key, value)| (key.to_owned(), value)).into(),
        eamt: Vec::new(),
        denylist4: Vec::new(),
        fmrt,
        pool4: Vec::new(),
        bib: Vec::new(),
    })
}

/// The bytes in a file, as they are or in hexadecimal. Options do not begin with a digit: no code
/// is that large.
fn contents(path: &Path) -> Result<Vec<u8>, FileError> {
    let bytes = load(path).map_err(|error| FileError::Unreadable {
        path: path.to_owned(),
        error,
    })?;
    if bytes.len() as u64 > SIZE_MAX {
        return Err(FileError::Large(path.to_owned()));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) if !text.starts_with('\0') => Ok(dhcp::bytes(text)?),
        Ok(_) | Err(_) => Ok(bytes),
    }
}

impl From<DhcpError> for FileError {
    fn from(error: DhcpError) -> Self {
        Self::Dhcp(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &str = "
        005f 0030
          0059 0017  01 0d 18 c0000200 33 20010db800ce00
                     005d 0004 00 05 d800
          005b 000d  60 0064ff9b0000000000000000
          0011 0000";

    fn read(text: &str, end_user: Option<&str>) -> Result<Config, FileError> {
        let end_user = end_user.map(|text| text.parse().unwrap());
        from_dhcp(text, Framework::Netfilter, None, end_user)
    }

    #[test]
    fn a_file_may_hold_bytes_or_digits() {
        let prefix = Some("2001:db8:ce:11b::/64");
        let expected = read(OPTIONS, prefix).unwrap();
        let shown = expected.fmrt[0].to_string();
        assert_eq!(shown, "2001:db8:ce::/51 192.0.2.0/24 13 0");
        let path = std::env::temp_dir().join(format!("tylo-dhcp-{}", std::process::id()));
        for bytes in [OPTIONS.as_bytes(), &dhcp::bytes(OPTIONS).unwrap()] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(read(path.to_str().unwrap(), prefix).unwrap(), expected);
        }
        std::fs::remove_file(&path).unwrap();
        let error = read(OPTIONS, None).unwrap_err();
        assert_eq!(error.code(), 22, "{error}");
        assert!(
            error.to_string().contains("--end-user-ipv6-prefix"),
            "{error}"
        );
        let error = read("no-such-file", prefix).unwrap_err();
        assert!(error.to_string().contains("'n' is not"), "{error}");
    }
}

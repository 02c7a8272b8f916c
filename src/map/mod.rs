// SPDX-License-Identifier: GPL-2.0-or-later
//! Floor 2: which address of one family stands for which of the other, without any state
//! (RFC 7915 section 6: RFC 7757's table first, then RFC 6052's prefix).
//!
//! Knows addresses, never a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::base::host::Host;
use crate::base::prefix::SCOPED4;
use crate::model::settings::Settings;
use crate::model::{AddressRule, Translation};

pub mod denylist4;
pub mod eamt;
mod index;
pub mod mapt;

pub use self::denylist4::Denylist4;
pub use self::eamt::{EamError, Eamt};
pub use self::mapt::{FmrError, Fmrt, Mapt};

/// The tables of one SIIT instance.
#[derive(Clone, Debug, Default)]
pub struct Siit {
    pub eamt: Eamt,
    pub denylist4: Denylist4,
}

/// What an address is to its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An end of a flow.
    End,
    /// The source of an ICMP error: any router's, so that some checks are left out.
    ErrorSource,
}

/// Why an address has no translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untranslatable {
    #[error("it never leaves its host (RFC 7915 section 5.1)")]
    Loopback6,
    #[error(
        "it is neither in the EAM table nor inside pool6; see 'eamt display' and 'global display'"
    )]
    Unknown6(Ipv6Addr),
    #[error("its IPv4 form, {0}, is in denylist4; see 'denylist4 display'")]
    Denied4(Ipv4Addr),
    #[error("as IPv4 address, {0} never leaves its link or belongs to an interface of this host")]
    Local4(Ipv4Addr),
    #[error(
        "it is not in the EAM table, and denylist4 keeps it from pool6; see 'eamt display' and 'denylist4 display'"
    )]
    OnlyDenied4(Ipv4Addr),
    #[error(
        "it is not in the EAM table, and there is no pool6; add it with 'eamt add' or set pool6 with 'global update'"
    )]
    Unknown4(Ipv4Addr),
}

impl Siit {
    /// The IPv4 form of an IPv6 address.
    ///
    /// # Errors
    /// For an error's source, [`Untranslatable::Loopback6`] and [`Untranslatable::Unknown6`] only.
    //= rfc7915#section-6
    pub fn to4(
        &self,
        settings: &Settings,
        host: &dyn Host,
        addr: Ipv6Addr,
        role: Role,
    ) -> Result<(Ipv4Addr, AddressRule), Untranslatable> {
        //= rfc7915#section-5.1
        if addr.is_loopback() {
            return Err(Untranslatable::Loopback6);
        }
        let (v4, rule) = if let Some((v4, row)) = self.eamt.to4(addr) {
            (v4, AddressRule::Eam(row))
        } else {
            let embedded = settings.pool6.and_then(|p| Some((p.extract(addr)?, p)));
            let Some((v4, pool6)) = embedded else {
                return Err(Untranslatable::Unknown6(addr));
            };
            if role == Role::End && self.denylist4.contains(v4) {
                return Err(Untranslatable::Denied4(v4));
            }
            (v4, AddressRule::Pool6(pool6))
        };
        if role == Role::End && is_local(host, v4) {
            return Err(Untranslatable::Local4(v4));
        }
        Ok((v4, rule))
    }

    /// The IPv6 form of an IPv4 address; without `use_eamt`, only pool6 can have one.
    ///
    /// # Errors
    /// For an error's source, [`Untranslatable::OnlyDenied4`] and [`Untranslatable::Unknown4`]
    /// only.
    //= rfc7915#section-6
    pub fn to6(
        &self,
        settings: &Settings,
        host: &dyn Host,
        addr: Ipv4Addr,
        role: Role,
        use_eamt: bool,
    ) -> Result<(Ipv6Addr, AddressRule), Untranslatable> {
        if role == Role::End && is_local(host, addr) {
            return Err(Untranslatable::Local4(addr));
        }
        if use_eamt && let Some((v6, row)) = self.eamt.to6(addr) {
            return Ok((v6, AddressRule::Eam(row)));
        }
        if self.denylist4.contains(addr) {
            return Err(Untranslatable::OnlyDenied4(addr));
        }
        let pool6 = settings.pool6.ok_or(Untranslatable::Unknown4(addr))?;
        Ok((pool6.embed(addr), AddressRule::Pool6(pool6)))
    }

    /// How an end of a flow is translated.
    ///
    /// # Errors
    /// Every [`Untranslatable`].
    pub fn query(
        &self,
        settings: &Settings,
        host: &dyn Host,
        addr: IpAddr,
    ) -> Result<Translation, Untranslatable> {
        let (result, rule) = match addr {
            IpAddr::V6(addr) => {
                let (v4, rule) = self.to4(settings, host, addr, Role::End)?;
                (v4.into(), rule)
            }
            IpAddr::V4(addr) => {
                let (v6, rule) = self.to6(settings, host, addr, Role::End, true)?;
                (v6.into(), rule)
            }
        };
        Ok(Translation {
            query: addr,
            result,
            rule,
        })
    }
}

/// Whether an address means nothing behind its link, or is the business of the host itself.
fn is_local(host: &dyn Host, addr: Ipv4Addr) -> bool {
    SCOPED4.iter().any(|prefix| prefix.contains(addr)) || host.is_local4(addr)
}

#[cfg(test)]
mod tests;

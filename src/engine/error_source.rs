// SPDX-License-Identifier: GPL-2.0-or-later
//! Sources for ICMP errors from routers whose addresses have no translation (RFC 6791).

use core::sync::atomic::{AtomicU64, Ordering};
use std::hash::Hasher;
use std::net::{Ipv4Addr, Ipv6Addr};

use siphasher::sip::SipHasher13;

use crate::base::counters::Counter;
use crate::base::host::Host;
use crate::model::settings::Settings;
use crate::wire::Refusal;

/// Numbers that cannot be guessed without the key.
pub(super) struct Random {
    key: [u8; 16],
    drawn: AtomicU64,
}

impl Random {
    pub(super) const fn new(key: [u8; 16]) -> Self {
        Self {
            key,
            drawn: AtomicU64::new(0),
        }
    }

    /// A source for an error to `dst` that came with `hop_limit`: of the prefix set aside for it,
    /// or the host's own.
    //= rfc6791#section-5
    pub(super) fn source4(
        &self,
        settings: &Settings,
        host: &dyn Host,
        hop_limit: u8,
        dst: Ipv4Addr,
    ) -> Result<Ipv4Addr, Refusal> {
        let Some(pool) = settings.rfc6791v4_prefix else {
            let own = host.source4(dst);
            return own.ok_or(Refusal::drop(Counter::SixFour6791Enoent));
        };
        let suffix = if settings.randomize_rfc6791_addresses {
            self.next() as u32
        } else {
            hop_limit.into()
        };
        let hosts = u32::from(pool.network()) ^ u32::from(pool.last());
        Ok((u32::from(pool.network()) | suffix & hosts).into())
    }

    /// The same the other way.
    pub(super) fn source6(
        &self,
        settings: &Settings,
        host: &dyn Host,
        dst: Ipv6Addr,
    ) -> Result<Ipv6Addr, Refusal> {
        let Some(pool) = settings.rfc6791v6_prefix else {
            let own = host.source6(dst);
            return own.ok_or(Refusal::drop(Counter::FourSix6791Enoent));
        };
        let random = u128::from(self.next()) << 64 | u128::from(self.next());
        let hosts = u128::from(pool.network()) ^ u128::from(pool.last());
        Ok((u128::from(pool.network()) | random & hosts).into())
    }

    fn next(&self) -> u64 {
        let drawn = self.drawn.fetch_add(1, Ordering::Relaxed);
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u64(drawn);
        hasher.finish()
    }
}

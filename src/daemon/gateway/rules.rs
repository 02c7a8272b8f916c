// SPDX-License-Identifier: GPL-2.0-or-later
//! What the kernel is told about the instances: rules and routes.

use super::{Gateway, system};
use crate::base::prefix::Prefix4;
use crate::dataplane;
use crate::model::Framework;
use crate::model::control::Failure;
use crate::ruleset::{self, Divert, Pool4Match, Ruleset};

impl Gateway {
    /// Puts rules and routes for all instances into force.
    pub(in crate::daemon) fn install(&self) -> Result<(), Failure> {
        let mut diverts = Vec::new();
        let (mut pool6_routes, mut pool4_routes) = (Vec::new(), Vec::new());
        for slot in self.traffic.slots().iter() {
            let instance = slot.lock();
            let (Some(pool6), Some(nat64)) = (instance.settings().pool6, instance.nat64()) else {
                continue;
            };
            pool6_routes.push(pool6.prefix());
            let mut pool4 = Vec::new();
            for (protocol, block) in nat64.pool4().blocks() {
                for prefix in prefixes(block.first.into(), block.last.into()) {
                    pool4_routes.push(prefix);
                    pool4.extend(block.ports.iter().map(|ports| Pool4Match {
                        protocol,
                        prefix,
                        ports: *ports,
                    }));
                }
            }
            if slot.framework == Framework::Netfilter {
                diverts.push(Divert {
                    label: slot.name.clone(),
                    queues: self.dataplane.queues(slot.number).map_err(system)?,
                    pool6: pool6.prefix(),
                    pool4,
                });
            }
        }
        pool6_routes.sort_unstable();
        pool6_routes.dedup();
        pool4_routes.sort_unstable();
        pool4_routes.dedup();
        dataplane::set_routes(&self.tun, &pool6_routes, &pool4_routes, false).map_err(system)?;
        let rules = Ruleset {
            tun: self.tun.clone(),
            diverts,
            stateless: Vec::new(),
            local4: Vec::new(),
            local6: Vec::new(),
            kernel_errors: None,
            track: self.track,
        };
        self.rules.install(self.mode, &rules).map_err(system)
    }

    /// Puts the rules back if somebody took them away: reloading a firewall often begins with
    /// `flush ruleset`.
    pub(in crate::daemon) fn guard_rules(&self) {
        // Our own changes are over when the lock is free.
        let _next = self.exclusive();
        match ruleset::present(self.mode) {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!("somebody removed the rules; putting them back");
                self.reinstall();
            }
            Err(error) => tracing::error!(%error, "cannot tell whether the rules are in force"),
        }
    }

    /// Takes the rules away.
    pub(in crate::daemon) fn uninstall(&self) -> Result<(), ruleset::Error> {
        self.rules.remove()
    }

    pub(super) fn reinstall(&self) {
        if let Err(error) = self.install() {
            tracing::error!(error = error.message, "the rules could not be put back");
        }
    }
}

/// The fewest prefixes that cover a run of addresses exactly.
fn prefixes(mut first: u32, last: u32) -> Vec<Prefix4> {
    let mut all = Vec::new();
    loop {
        let mut bits = first.trailing_zeros().min(32);
        // The largest aligned block that starts here and does not reach beyond the end.
        while bits > 0 && u64::from(first) + (1u64 << bits) - 1 > u64::from(last) {
            bits -= 1;
        }
        let Ok(prefix) = Prefix4::new(first.into(), 32 - bits as u8) else {
            return all;
        };
        all.push(prefix);
        let end = u64::from(first) + (1u64 << bits);
        if end > u64::from(last) {
            return all;
        }
        first = end as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_addresses_become_prefixes() {
        let shown = |first: [u8; 4], last: [u8; 4]| {
            prefixes(u32::from_be_bytes(first), u32::from_be_bytes(last))
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(shown([192, 0, 2, 1], [192, 0, 2, 1]), "192.0.2.1/32");
        assert_eq!(shown([192, 0, 2, 0], [192, 0, 2, 255]), "192.0.2.0/24");
        assert_eq!(
            shown([192, 0, 2, 1], [192, 0, 2, 6]),
            "192.0.2.1/32 192.0.2.2/31 192.0.2.4/31 192.0.2.6/32"
        );
        assert_eq!(shown([0, 0, 0, 0], [255, 255, 255, 255]), "0.0.0.0/0");
        assert_eq!(
            shown([255, 255, 255, 254], [255, 255, 255, 255]),
            "255.255.255.254/31"
        );
    }
}

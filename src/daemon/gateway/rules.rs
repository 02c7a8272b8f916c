// SPDX-License-Identifier: GPL-2.0-or-later
//! What the kernel is told about the instances: rules and routes.

use std::sync::{MutexGuard, PoisonError};

use super::mapt::customer4;
use super::{Gateway, system};
use crate::base::Protocol;
use crate::base::prefix::{Prefix4, Prefix6, SCOPED4};
use crate::daemon::traffic::Slot;
use crate::dataplane::{self, Addresses};
use crate::model::Framework;
use crate::model::control::Failure;
use crate::model::mapt::MaptType;
use crate::nat64::pool4::HOST_PORTS;
use crate::ruleset::{self, Divert, Four, Mapt, Pool4Match, Queues, Ruleset, Stateless};

impl Gateway {
    /// Puts rules and routes for all instances into force. Rules that are in force already stay as
    /// they are: to replace large sets takes its time.
    pub(in crate::daemon) fn install(&self) -> Result<(), Failure> {
        let host = &self.traffic.host;
        let mut rules = Ruleset {
            tun: self.tun.clone(),
            diverts: Vec::new(),
            stateless: Vec::new(),
            mapt: Vec::new(),
            local4: local4(host),
            local6: host.local6(),
            kernel_errors: None,
            defragment: false,
            track: self.track,
        };
        let mut routes = Routes::default();
        for slot in self.traffic.slots().iter() {
            self.reflect(slot, &mut rules, &mut routes)?;
        }
        routes.pool6.sort_unstable();
        routes.pool6.dedup();
        routes.pool4.sort_unstable();
        routes.pool4.dedup();
        for stateless in &mut rules.stateless {
            stateless.deny4.extend(&routes.pool4);
        }
        // Only they need to know, and addresses come and go.
        if rules.stateless.is_empty() {
            rules.local4.clear();
            rules.local6.clear();
        }
        dataplane::set_routes(&self.tun, &routes.pool6, &routes.pool4, routes.last_resort)
            .map_err(system)?;
        let mut installed = self.installed();
        if installed.is_none() && self.left_by_predecessor(&rules) {
            *installed = Some(rules);
            return Ok(());
        }
        if installed.as_ref() != Some(&rules) {
            // Whether it was in force before a failure is not known for sure.
            let before = installed.take();
            self.rules
                .install(self.mode, before.as_ref(), &rules)
                .map_err(system)?;
            *installed = Some(rules);
        }
        Ok(())
    }

    /// Whether rules are those that the predecessor of this program had in force. To replace rules
    /// makes the kernel drop what waits in the queues.
    fn left_by_predecessor(&self, rules: &Ruleset) -> bool {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.take().is_some_and(|found| {
            ruleset::fingerprint(self.mode, rules).is_ok_and(|ours| ours == found)
                && ruleset::present(self.mode).unwrap_or(false)
        })
    }

    /// A number for the rules in force.
    pub(in crate::daemon) fn ruleset(&self) -> Option<u64> {
        let installed = self.installed();
        ruleset::fingerprint(self.mode, installed.as_ref()?).ok()
    }

    /// The rules in force, as far as known.
    fn installed(&self) -> MutexGuard<'_, Option<Ruleset>> {
        self.installed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what one instance needs.
    fn reflect(
        &self,
        slot: &Slot,
        rules: &mut Ruleset,
        routes: &mut Routes,
    ) -> Result<(), Failure> {
        let queues = Queues {
            all: self.dataplane.queues(slot.number).map_err(system)?,
            tcp: self.dataplane.tcp_queues(slot.number).map_err(system)?,
        };
        let instance = slot.read();
        let pool6 = instance.settings().pool6.map(|pool6| pool6.prefix());
        let netfilter = slot.framework == Framework::Netfilter;
        if let (Some(nat64), Some(pool6)) = (instance.nat64(), pool6) {
            routes.pool6.push(pool6);
            rules.defragment = true;
            let mut pool4 = Vec::new();
            for (protocol, block) in nat64.pool4().blocks() {
                for prefix in prefixes(block.first.into(), block.last.into()) {
                    routes.pool4.push(prefix);
                    pool4.extend(block.ports.iter().map(|ports| Pool4Match {
                        protocol,
                        prefix,
                        ports: *ports,
                    }));
                }
            }
            if nat64.pool4().is_empty() {
                // Its own addresses stand for clients.
                pool4.extend(own(&self.traffic.host).flat_map(|prefix| {
                    Protocol::ALL.map(|protocol| Pool4Match {
                        protocol,
                        prefix,
                        ports: HOST_PORTS,
                    })
                }));
            }
            if netfilter {
                rules.diverts.push(Divert {
                    label: slot.name.clone(),
                    queues,
                    pool6,
                    pool4,
                });
            }
        }
        if let Some(siit) = instance.siit() {
            // Its pool6 is elsewhere, or behind an interface; the kernel complains about what it
            // made only where there is a route.
            routes.last_resort = true;
            rules.kernel_errors.get_or_insert(queues.all);
            if netfilter {
                let rows = siit.eamt.rows();
                rules.stateless.push(Stateless {
                    label: slot.name.clone(),
                    queues,
                    pool6,
                    eam6: rows.iter().map(|row| row.v6).collect(),
                    eam4: rows.iter().map(|row| row.v4).collect(),
                    deny4: siit.denylist4.rows().to_vec(),
                });
            }
        }
        if let Some(mapt) = instance.mapt() {
            rules.defragment = true;
            // As above, and a customer's packets may be too big for the link to the customer.
            routes.last_resort = true;
            rules.kernel_errors.get_or_insert(queues.all);
            let settings = instance.settings();
            let domain = mapt.fmrt.rows().into_iter().map(|rule| rule.v4());
            let (to6, four) = match settings.mapt_role() {
                MaptType::Br => {
                    let domain: Vec<Prefix4> = domain.collect();
                    // What the host itself sends to either side.
                    routes.pool4.extend(&domain);
                    (pool6, Four::To(domain))
                }
                MaptType::Ce => {
                    let near = near4(&self.traffic.host);
                    let four = match customer4(settings) {
                        _ if settings.mapt_napt => Four::Far { near },
                        Some(source) => Four::From { source, near },
                        None => Four::Nothing,
                    };
                    (settings.end_user_ipv6_prefix, four)
                }
            };
            routes.pool6.extend(to6);
            if netfilter {
                rules.mapt.push(Mapt {
                    label: slot.name.clone(),
                    queues,
                    to6: to6.into_iter().collect(),
                    four,
                });
            }
        }
        Ok(())
    }

    /// Looks whether the host got or lost addresses, which are not translated, and puts routes
    /// back that went with a device.
    pub(in crate::daemon) fn guard_network(&self) {
        let _next = self.exclusive();
        match self.traffic.host.refresh() {
            Ok(false) => {}
            Ok(true) => tracing::debug!("the addresses of this host changed"),
            Err(error) => tracing::error!(%error, "cannot tell the addresses of this host"),
        }
        self.reinstall();
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
                *self.installed() = None;
                self.reinstall();
            }
            Err(error) => tracing::error!(%error, "cannot tell whether the rules are in force"),
        }
    }

    /// Takes the rules away; the routes go with the device.
    pub(in crate::daemon) fn uninstall(&self) -> anyhow::Result<()> {
        let removed = self.rules.remove();
        dataplane::remove_rules()?;
        Ok(removed?)
    }

    pub(super) fn reinstall(&self) {
        if let Err(error) = self.install() {
            tracing::error!(error = error.message, "the rules could not be put back");
        }
    }
}

/// What is routed to the TUN device.
#[derive(Default)]
struct Routes {
    pool6: Vec<Prefix6>,
    pool4: Vec<Prefix4>,
    last_resort: bool,
}

/// What is never translated, because it is this host's or never leaves its link.
fn local4(host: &Addresses) -> Vec<Prefix4> {
    let (own, broadcasts) = (host.addresses4(), host.broadcasts4());
    let own = own.into_iter().chain(broadcasts);
    let own = own.filter_map(|addr| Prefix4::new(addr, 32).ok());
    SCOPED4.into_iter().chain(own).collect()
}

/// What a customer edge does not send to its domain, unless a rule of the administrator says so.
fn near4(host: &Addresses) -> Vec<Prefix4> {
    let mut near = local4(host);
    near.extend(host.networks4());
    near
}

/// The addresses that the host can be reached by from elsewhere.
fn own(host: &Addresses) -> impl Iterator<Item = Prefix4> + use<> {
    let far = |prefix: &Prefix4| SCOPED4.iter().all(|scoped| !scoped.intersects(prefix));
    let own = host.addresses4().into_iter();
    own.filter_map(|addr| Prefix4::new(addr, 32).ok())
        .filter(far)
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

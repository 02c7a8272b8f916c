// SPDX-License-Identifier: GPL-2.0-or-later
//! Changes of configuration: validate, store, put into force, replace the rules; a failure at any
//! step takes the earlier ones back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::traffic::{Slot, Traffic};
use crate::base::Protocol;
use crate::base::prefix::{Pool6, Prefix4, Prefix6};
use crate::dataplane::{self, Dataplane};
use crate::engine::Instance;
use crate::model::control::Failure;
use crate::model::settings::{Settings, Value};
use crate::model::{Flavour, Framework, INSTANCE_NAME_MAX, Pool4Entry, PortRange};
use crate::nat64::Nat64;
use crate::nat64::manage::BibError;
use crate::nat64::pool4::Pool4;
use crate::ruleset::{self, Divert, Keeper, Mode, Pool4Match, Ruleset};
use crate::store::journal::Config;
use crate::store::{self, InstanceId, Pool4Range, Pool4Set, Saved};

/// The gateway of one network namespace.
pub(super) struct Gateway {
    pub(super) traffic: Arc<Traffic>,
    pub(super) dataplane: Dataplane,
    pub(super) mode: Mode,
    pub(super) namespace: u32,
    rules: Keeper,
    tun: String,
    track: bool,
    /// Held while the configuration changes; the next instance's number.
    next: Mutex<i64>,
}

impl Gateway {
    pub(super) fn new(
        traffic: Arc<Traffic>,
        dataplane: Dataplane,
        mode: Mode,
        rules: Keeper,
        tun: String,
        track: bool,
    ) -> Result<Self, dataplane::Error> {
        let next = traffic.slots().iter().map(|slot| slot.id.0).max();
        Ok(Self {
            traffic,
            dataplane,
            mode,
            namespace: dataplane::namespace_id()?,
            rules,
            tun,
            track,
            next: Mutex::new(next.unwrap_or(0).saturating_add(1)),
        })
    }

    pub(super) fn find(&self, flavour: Flavour, name: &str) -> Result<Arc<Slot>, Failure> {
        self.traffic.find(flavour, name).ok_or_else(|| {
            failure(
                libc::ESRCH,
                format!("there is no instance '{name}' in this network namespace; see 'instance display'"),
            )
        })
    }

    pub(super) fn add(
        &self,
        flavour: Flavour,
        name: &str,
        framework: Framework,
        pool6: Option<Prefix6>,
    ) -> Result<(), Failure> {
        let mut next = self.exclusive();
        check_name(name)?;
        let Some(pool6) = pool6 else {
            return Err(failure(
                libc::EINVAL,
                "a NAT64 instance needs pool6; give --pool6 64:ff9b::/96 or a prefix of yours",
            ));
        };
        let pool6 = Pool6::new(pool6).map_err(invalid)?;
        let number = {
            let slots = self.traffic.slots();
            for other in slots.iter().filter(|s| s.flavour == flavour) {
                if other.name == name {
                    return Err(failure(
                        libc::EEXIST,
                        format!(
                            "there is an instance '{name}' already; remove it first or choose another name"
                        ),
                    ));
                }
                if framework == Framework::Netfilter && other.framework == framework {
                    return Err(failure(
                        libc::EEXIST,
                        format!(
                            "'{}' is a netfilter instance already and there can be one only; use --iptables",
                            other.name
                        ),
                    ));
                }
            }
            // A slot number is free when no instance has it.
            (0..)
                .find(|n| slots.iter().all(|s| s.number != *n))
                .unwrap_or(slots.len())
        };
        let settings = Settings {
            pool6: Some(pool6),
            ..Settings::default()
        };
        let id = InstanceId(*next);
        *next += 1;
        self.dataplane.open_slot(number).map_err(system)?;
        let added = self.traffic.store.configure(Config::Add {
            id,
            flavour,
            name: name.to_owned(),
            framework,
            slot: number,
            settings: Box::new(settings.clone()),
        });
        if let Err(error) = added {
            self.close(number);
            return Err(storage(error));
        }
        let instance = Instance::new(flavour, settings, random_key());
        self.traffic.insert(Arc::new(Slot::new(
            id,
            name.to_owned(),
            flavour,
            framework,
            number,
            instance,
        )));
        if let Err(error) = self.install() {
            self.traffic.remove(id);
            self.close(number);
            let undone = self.traffic.store.configure(Config::Remove(id));
            self.reinstall();
            return Err(undone.err().map_or(error, storage));
        }
        tracing::info!(instance = name, %pool6, framework = framework.name(), "instance added");
        Ok(())
    }

    pub(super) fn remove(&self, flavour: Flavour, name: &str) -> Result<(), Failure> {
        let _next = self.exclusive();
        let slot = self.find(flavour, name)?;
        let store = &self.traffic.store;
        store.configure(Config::Remove(slot.id)).map_err(storage)?;
        self.traffic.remove(slot.id);
        // Rules first: what they divert must have a queue.
        let result = self.install();
        self.close(slot.number);
        tracing::info!(instance = name, "instance removed");
        result
    }

    pub(super) fn flush(&self, flavour: Flavour) -> Result<(), Failure> {
        let names: Vec<String> = {
            let slots = self.traffic.slots();
            let ours = slots.iter().filter(|s| s.flavour == flavour);
            ours.map(|s| s.name.clone()).collect()
        };
        names.iter().try_for_each(|name| self.remove(flavour, name))
    }

    pub(super) fn set(
        &self,
        slot: &Slot,
        key: &str,
        value: Value,
        force: bool,
    ) -> Result<(), Failure> {
        let _next = self.exclusive();
        self.still_there(slot)?;
        let mut settings = slot.lock().settings().clone();
        settings
            .set(slot.flavour, key, value, force)
            .map_err(invalid)?;
        let config = Config::Settings(slot.id, Box::new(settings.clone()));
        self.traffic.store.configure(config).map_err(storage)?;
        slot.lock().set_settings(settings);
        Ok(())
    }

    /// Two instances that share a transport address would give it to two clients, so that takes
    /// `force`.
    pub(super) fn pool4_add(
        &self,
        slot: &Slot,
        entry: &Pool4Entry,
        force: bool,
    ) -> Result<(), Failure> {
        self.set_pool4(slot, &[], |pool4| {
            let slots = self.traffic.slots();
            let other = slots
                .iter()
                .filter(|s| s.id != slot.id)
                .find(|s| s.lock().nat64().is_some_and(|n| n.pool4().overlaps(entry)));
            if let Some(other) = other.filter(|_| !force) {
                let PortRange { min, max } = entry.ports;
                return Err(failure(
                    libc::EEXIST,
                    format!(
                        "{} {} {min}-{max} overlaps with the pool4 of instance '{}'; choose other addresses or ports, or add --force",
                        entry.protocol, entry.prefix, other.name
                    ),
                ));
            }
            pool4.add(entry);
            Ok(())
        })
    }

    pub(super) fn pool4_remove(
        &self,
        slot: &Slot,
        entry: &Pool4Entry,
        quick: bool,
    ) -> Result<(), Failure> {
        let purge = [entry.protocol];
        let purge = if quick { &[][..] } else { &purge };
        self.set_pool4(slot, purge, |pool4| {
            pool4.remove(entry);
            Ok(())
        })
    }

    pub(super) fn pool4_flush(&self, slot: &Slot, quick: bool) -> Result<(), Failure> {
        let purge = if quick { &[][..] } else { &Protocol::ALL };
        self.set_pool4(slot, purge, |pool4| {
            *pool4 = Pool4::default();
            Ok(())
        })
    }

    fn set_pool4(
        &self,
        slot: &Slot,
        purge: &[Protocol],
        change: impl FnOnce(&mut Pool4) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let _next = self.exclusive();
        self.still_there(slot)?;
        let before = stateful(&mut slot.lock())?.pool4().clone();
        let mut after = before.clone();
        change(&mut after)?;
        let store = &self.traffic.store;
        store
            .configure(stored_pool4(slot.id, &after))
            .map_err(storage)?;
        stateful(&mut slot.lock())?.set_pool4(after, &[]);
        if let Err(error) = self.install() {
            let undone = store.configure(stored_pool4(slot.id, &before));
            stateful(&mut slot.lock())?.set_pool4(before, &[]);
            self.reinstall();
            return Err(undone.err().map_or(error, storage));
        }
        // Only now is there no way back.
        let mut instance = slot.lock();
        let nat64 = stateful(&mut instance)?;
        nat64.set_pool4(nat64.pool4().clone(), purge);
        self.traffic.publish(slot, &mut instance);
        Ok(())
    }

    /// Changes the BIB of an instance by hand.
    pub(super) fn edit_bib(
        &self,
        slot: &Slot,
        edit: impl FnOnce(&mut Nat64) -> Result<(), BibError>,
    ) -> Result<(), Failure> {
        let mut instance = slot.lock();
        edit(stateful(&mut instance)?).map_err(|error| {
            let code = match error {
                BibError::OutsidePool4(..) => libc::EINVAL,
                BibError::Collision { .. } => libc::EEXIST,
                BibError::Absent => libc::ESRCH,
                BibError::Full => libc::ENOMEM,
            };
            failure(code, error.to_string())
        })?;
        self.traffic.publish(slot, &mut instance);
        drop(instance);
        self.traffic.store.flush(slot.id).map_err(|error| {
            failure(
                libc::EIO,
                format!("{error}; the change is in force but does not outlive the daemon until it is written"),
            )
        })
    }

    /// Puts rules and routes for all instances into force.
    pub(super) fn install(&self) -> Result<(), Failure> {
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
    pub(super) fn guard_rules(&self) {
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

    /// Another command may have removed an instance since it was looked up.
    fn still_there(&self, slot: &Slot) -> Result<(), Failure> {
        let found = self.find(slot.flavour, &slot.name)?;
        if found.id == slot.id {
            return Ok(());
        }
        Err(failure(
            libc::ESRCH,
            format!(
                "instance '{}' was just replaced by another; try again",
                slot.name
            ),
        ))
    }

    /// Takes the rules away.
    pub(super) fn uninstall(&self) -> Result<(), ruleset::Error> {
        self.rules.remove()
    }

    fn reinstall(&self) {
        if let Err(error) = self.install() {
            tracing::error!(error = error.message, "the rules could not be put back");
        }
    }

    fn close(&self, number: usize) {
        if let Err(error) = self.dataplane.close_slot(number) {
            tracing::error!(%error, "a queue could not be closed");
        }
    }

    fn exclusive(&self) -> MutexGuard<'_, i64> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tables of a NAT64 instance.
pub(super) fn stateful(instance: &mut Instance) -> Result<&mut Nat64, Failure> {
    instance.nat64_mut().ok_or_else(|| {
        failure(
            libc::EOPNOTSUPP,
            "this instance has no stateful tables; only NAT64 instances do",
        )
    })
}

/// An instance as it was before the daemon ended.
pub(super) fn restore(saved: Saved, now: crate::base::Tick) -> Slot {
    let mut pool4 = Pool4::default();
    for range in &saved.pool4 {
        pool4.restore(
            range.protocol,
            range.mark,
            range.first,
            range.last,
            range.ports,
        );
    }
    for set in &saved.pool4_sets {
        pool4.set_iterations(set.protocol, set.mark, set.iterations);
    }
    let settings = saved.settings;
    let mut instance = Instance::new(saved.flavour, settings.clone(), random_key());
    let mut refused = saved.unusable;
    let mut restored = 0usize;
    if let Some(nat64) = instance.nat64_mut() {
        nat64.set_pool4(pool4, &[]);
        for mapping in saved.mappings {
            refused += usize::from(!nat64.import_mapping(mapping));
        }
        let total = saved.sessions.len();
        for session in saved.sessions {
            restored += usize::from(nat64.import_session(now, &settings, session));
        }
        refused += total - restored;
        nat64.drop_idle_mappings();
    }
    if refused > 0 {
        tracing::warn!(
            instance = saved.name,
            rows = refused,
            "stored rows that make no sense were left out"
        );
    }
    tracing::info!(
        instance = saved.name,
        sessions = restored,
        "instance restored"
    );
    Slot::new(
        saved.id,
        saved.name,
        saved.flavour,
        saved.framework,
        saved.slot,
        instance,
    )
}

fn stored_pool4(id: InstanceId, pool4: &Pool4) -> Config {
    let (mut sets, mut ranges) = (Vec::new(), Vec::new());
    for (protocol, mark, iterations, blocks) in pool4.sets() {
        sets.push(Pool4Set {
            protocol,
            mark,
            iterations,
        });
        for block in blocks {
            ranges.extend(block.ports.iter().map(|ports: &PortRange| Pool4Range {
                protocol,
                mark,
                first: block.first,
                last: block.last,
                ports: *ports,
            }));
        }
    }
    Config::Pool4(id, sets, ranges)
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

fn check_name(name: &str) -> Result<(), Failure> {
    let fine = !name.is_empty()
        && name.len() <= INSTANCE_NAME_MAX
        && name.bytes().all(|b| (b' '..0x7f).contains(&b));
    if fine {
        return Ok(());
    }
    Err(failure(
        libc::EINVAL,
        format!(
            "'{}' is not an instance name; use 1 to {INSTANCE_NAME_MAX} printable ASCII characters",
            name.escape_debug()
        ),
    ))
}

fn random_key() -> [u8; 16] {
    let mut key = [0; 16];
    // Fails only where there is no random source at all; addresses then are less random, but
    // that the daemon does its work matters more.
    let _ = rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty());
    key
}

pub(super) fn failure(code: i32, message: impl Into<String>) -> Failure {
    Failure {
        code: u8::try_from(code).unwrap_or(u8::MAX),
        message: message.into(),
    }
}

fn invalid(error: impl std::fmt::Display) -> Failure {
    failure(libc::EINVAL, error.to_string())
}

fn system(error: impl std::fmt::Display) -> Failure {
    failure(libc::EIO, error.to_string())
}

fn storage(error: store::Error) -> Failure {
    failure(libc::EIO, format!("{error}; nothing was changed"))
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

    #[test]
    fn names_are_checked() {
        for name in ["default", "CE 11b", "fifteen-bytes-x"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", "sixteen-bytes-xx", "tab\t", "käse", "nul\0"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}

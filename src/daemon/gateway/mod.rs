// SPDX-License-Identifier: GPL-2.0-or-later
//! Changes of configuration: validate, store, put into force, replace the rules; a failure at any
//! step takes the earlier ones back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::traffic::{Slot, Traffic};
use crate::base::prefix::{Pool6, Prefix6};
use crate::dataplane::{self, Dataplane};
use crate::engine::Instance;
use crate::model::control::Failure;
use crate::model::settings::{Settings, Value};
use crate::model::{Flavour, Framework, INSTANCE_NAME_MAX};
use crate::nat64::Nat64;
use crate::ruleset::{Keeper, Mode};
use crate::store::journal::Config;
use crate::store::{self, InstanceId};

mod nat64;
mod restore;
mod rules;

pub(super) use self::restore::restore;

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
    fn names_are_checked() {
        for name in ["default", "CE 11b", "fifteen-bytes-x"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", "sixteen-bytes-xx", "tab\t", "käse", "nul\0"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}

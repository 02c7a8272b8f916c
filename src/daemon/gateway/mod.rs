// SPDX-License-Identifier: GPL-2.0-or-later
//! Changes of configuration: validate, store, put into force, replace the rules; a failure at any
//! step takes the earlier ones back.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cluster::Cluster;
use super::traffic::{Slot, Traffic};
use super::{clock, handover};
use crate::base::prefix::{Pool6, Prefix6};
use crate::dataplane::{self, Dataplane};
use crate::engine::Instance;
use crate::map::Siit;
use crate::model::control::{Failure, Sandbox, Takeover};
use crate::model::settings::{Settings, Value};
use crate::model::{Flavour, Framework, INSTANCE_NAME_MAX};
use crate::nat64::Nat64;
use crate::ruleset::{Keeper, Mode, Ruleset};
use crate::store::journal::Config;
use crate::store::{self, InstanceId};

mod mapt;
mod nat64;
mod replace;
mod restore;
mod rules;
mod siit;

pub(super) use self::mapt::mapping;
pub(super) use self::replace::export;
pub(super) use self::restore::restore;

/// The gateway of one network namespace.
pub(super) struct Gateway {
    pub(super) traffic: Arc<Traffic>,
    pub(super) dataplane: Dataplane,
    pub(super) mode: Mode,
    pub(super) namespace: u32,
    pub(super) rules: Keeper,
    tun: String,
    track: bool,
    installed: Mutex<Option<Ruleset>>,
    /// What rules a predecessor left.
    pub(super) found: Mutex<Option<u64>>,
    pub(super) takeover: Takeover,
    pub(super) sandbox: Sandbox,
    /// When this program began, in milliseconds since 1970.
    pub(super) began: u64,
    pub(super) cluster: Cluster,
    /// Tells the main loop to give way to a successor.
    succession: tokio::sync::mpsc::Sender<PathBuf>,
    /// Held while the configuration changes; the next instance's number.
    next: Mutex<i64>,
}

/// What rules are made with.
pub(super) struct Ruling {
    pub(super) mode: Mode,
    pub(super) keeper: Keeper,
    pub(super) tun: String,
    pub(super) track: bool,
}

impl Gateway {
    pub(super) fn new(
        traffic: Arc<Traffic>,
        dataplane: Dataplane,
        ruling: Ruling,
        succession: tokio::sync::mpsc::Sender<PathBuf>,
    ) -> Result<Self, dataplane::Error> {
        traffic.set_waker(dataplane.waker()?);
        let next = traffic.slots().iter().map(|slot| slot.id.0).max();
        Ok(Self {
            cluster: Cluster::new(Arc::clone(&traffic), None),
            traffic,
            dataplane,
            mode: ruling.mode,
            namespace: dataplane::namespace_id()?,
            rules: ruling.keeper,
            tun: ruling.tun,
            track: ruling.track,
            installed: Mutex::default(),
            found: Mutex::default(),
            takeover: Takeover::default(),
            sandbox: Sandbox::default(),
            began: clock().wall,
            succession,
            next: Mutex::new(next.unwrap_or(0).saturating_add(1)),
        })
    }

    /// Gives way to what lies where this program was started from, once that is known to start.
    pub(super) fn upgrade(&self) -> Result<(), Failure> {
        if self.traffic.store.is_ephemeral() {
            return Err(failure(
                libc::EINVAL,
                "the daemon runs with --ephemeral: an upgrade would lose instances and sessions; restart it",
            ));
        }
        if !self.dataplane.can_hand_over() {
            return Err(failure(
                libc::EINVAL,
                "nothing changed: the daemon cannot hand over its queues, since the kernel shows their list to group root only; restart it instead, in that group if upgrades are to lose no packet",
            ));
        }
        let slots = self.traffic.slots().clone();
        for slot in slots {
            self.traffic.store.flush(slot.id).map_err(|error| {
                let name = &slot.name;
                failure(
                    libc::EIO,
                    format!(
                        "nothing changed: the sessions of instance '{name}' would be lost: {error}"
                    ),
                )
            })?;
        }
        let program = handover::successor(self.sandbox.system_calls)
            .map_err(|error| failure(libc::ENOEXEC, format!("nothing changed: {error:#}")))?;
        self.succession.try_send(program).map_err(|_| {
            failure(
                libc::EALREADY,
                "an upgrade is under way already; wait for it",
            )
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
        let pool6 = pool6.map(Pool6::new).transpose().map_err(invalid)?;
        if flavour == Flavour::Nat64 && pool6.is_none() {
            return Err(failure(
                libc::EINVAL,
                "a NAT64 instance needs pool6; give --pool6 64:ff9b::/96 or a prefix of yours",
            ));
        }
        let settings = Settings {
            pool6,
            ..Settings::default()
        };
        let instance = Instance::new(flavour, settings, random_key());
        self.create(&mut next, name, framework, instance, |_| Vec::new())
    }

    /// Brings a new instance into service; `tables` says what it has besides settings.
    fn create(
        &self,
        next: &mut i64,
        name: &str,
        framework: Framework,
        instance: Instance,
        tables: impl FnOnce(InstanceId) -> Vec<Config>,
    ) -> Result<(), Failure> {
        let flavour = instance.flavour();
        let number = self.vacancy(flavour, name, framework)?;
        let pool6 = instance.settings().pool6.map(|pool6| pool6.to_string());
        let id = InstanceId(*next);
        *next += 1;
        self.dataplane.open_slot(number).map_err(system)?;
        let mut changes = vec![Config::Add {
            id,
            flavour,
            name: name.to_owned(),
            framework,
            slot: number,
            settings: Box::new(instance.settings().clone()),
        }];
        changes.extend(tables(id));
        if let Err(error) = self.traffic.store.configure(Config::All(changes)) {
            self.close(number);
            return Err(storage(error));
        }
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
            return Err(self.undo(error, Config::Remove(id)));
        }
        tracing::info!(
            flavour = flavour.name(),
            instance = name,
            pool6,
            framework = framework.name(),
            "instance added"
        );
        Ok(())
    }

    /// A free slot for an instance that may be added.
    fn vacancy(
        &self,
        flavour: Flavour,
        name: &str,
        framework: Framework,
    ) -> Result<usize, Failure> {
        check_name(name)?;
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
        let free = (0..).find(|n| slots.iter().all(|s| s.number != *n));
        Ok(free.unwrap_or(slots.len()))
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
        self.traffic.retire(&slot);
        tracing::info!(
            flavour = flavour.name(),
            instance = name,
            "instance removed"
        );
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
        let before = slot.read().settings().clone();
        let mut after = before.clone();
        after
            .set(slot.flavour, key, value, force)
            .map_err(invalid)?;
        if slot.flavour == Flavour::Mapt {
            after.check_mapt().map_err(invalid)?;
        }
        let moved = addresses(&after) != addresses(&before);
        let stored = |settings: &Settings| Config::Settings(slot.id, Box::new(settings.clone()));
        let store = &self.traffic.store;
        store.configure(stored(&after)).map_err(storage)?;
        slot.lock().set_settings(after);
        if moved && let Err(error) = self.install() {
            let config = stored(&before);
            slot.lock().set_settings(before);
            return Err(self.undo(error, config));
        }
        Ok(())
    }

    /// Stores a change that is in force and has the rules follow it. When either fails, `back`
    /// undoes it.
    ///
    /// In force before it is stored: only the table itself can tell whether a row may be added.
    fn settle(
        &self,
        slot: &Slot,
        change: Config,
        before: Config,
        back: impl FnOnce(&mut Instance),
    ) -> Result<(), Failure> {
        if let Err(error) = self.traffic.store.configure(change) {
            back(&mut slot.lock());
            return Err(storage(error));
        }
        let Err(error) = self.install() else {
            return Ok(());
        };
        back(&mut slot.lock());
        Err(self.undo(error, before))
    }

    /// Stores what was there before and puts its rules back. Returns what to tell the operator.
    fn undo(&self, error: Failure, before: Config) -> Failure {
        let undone = self.traffic.store.configure(before);
        self.reinstall();
        match undone {
            Ok(()) => error,
            Err(store) => failure(
                libc::EIO,
                format!(
                    "{}; the change was taken back, but will return with the next start: {store}",
                    error.message
                ),
            ),
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

    fn close(&self, number: usize) {
        if let Err(error) = self.dataplane.close_slot(number) {
            tracing::error!(%error, "a queue could not be closed");
        }
    }

    fn exclusive(&self) -> MutexGuard<'_, i64> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The settings that rules and routes depend on.
fn addresses(settings: &Settings) -> impl PartialEq {
    let customer = (settings.end_user_ipv6_prefix, settings.bmr);
    (
        settings.pool6,
        settings.mapt_role(),
        customer,
        settings.mapt_napt,
    )
}

/// The tables of a NAT64 instance.
pub(super) fn stateful(instance: &mut Instance) -> Result<&mut Nat64, Failure> {
    let foreign = || {
        failure(
            libc::EOPNOTSUPP,
            "only NAT64 instances have pool4, BIB and sessions",
        )
    };
    instance.nat64_mut().ok_or_else(foreign)
}

/// The tables of whatever keeps sessions.
fn remembering(instance: &mut Instance) -> Result<&mut Nat64, Failure> {
    let flavour = instance.flavour();
    let sessions = instance.sessions_mut();
    sessions.ok_or_else(|| no_sessions(flavour))
}

/// Why there are no sessions to be seen.
pub(super) fn no_sessions(flavour: Flavour) -> Failure {
    let why = match flavour {
        Flavour::Mapt => "this instance keeps no sessions; see 'tylo mapt napt'",
        Flavour::Nat64 | Flavour::Siit => "only NAT64 instances have pool4, BIB and sessions",
    };
    failure(libc::EOPNOTSUPP, why)
}

/// The tables of an SIIT instance.
pub(super) fn stateless(instance: &mut Instance) -> Result<&mut Siit, Failure> {
    let foreign = || {
        failure(
            libc::EOPNOTSUPP,
            "only SIIT instances have eamt and denylist4",
        )
    };
    instance.siit_mut().ok_or_else(foreign)
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

pub(super) fn random_key() -> [u8; 16] {
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

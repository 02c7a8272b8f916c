// SPDX-License-Identifier: GPL-2.0-or-later
//! A whole configuration at once: an instance becomes what a file says, or stays as it was.

use super::nat64::{bib_failure, stored_pool4};
use super::siit::eam_failure;
use super::{Gateway, failure, invalid, random_key, stateful, stateless, storage};
use crate::engine::Instance;
use crate::map::Siit;
use crate::model::control::{self, Failure};
use crate::model::settings::{SettingError, Settings};
use crate::model::{Flavour, Framework};
use crate::nat64::pool4::Pool4;
use crate::store::InstanceId;
use crate::store::journal::Config;

/// What is replaced; mappings and sessions of NAT64 live on.
struct Contents {
    settings: Settings,
    tables: Tables,
}

enum Tables {
    Nat64(Box<Pool4>),
    Siit(Box<Siit>),
}

impl Gateway {
    /// Makes an instance be what `config` says, and adds it if there is none. What `config` leaves
    /// out gets its default.
    pub(in crate::daemon) fn replace(
        &self,
        flavour: Flavour,
        name: &str,
        config: &control::Config,
        force: bool,
    ) -> Result<(), Failure> {
        let mut next = self.exclusive();
        let slot = self.traffic.find(flavour, name);
        if let Some(slot) = &slot {
            check_framework(name, slot.framework, config.framework)?;
        }
        let current = slot.as_ref().map(|slot| slot.lock().settings().clone());
        let settings = settings(flavour, current.as_ref(), config, force)?;
        let mut candidate = Instance::new(flavour, settings, random_key());
        self.fill(
            &mut candidate,
            slot.as_ref().map(|slot| slot.id),
            config,
            force,
        )?;
        let Some(slot) = slot else {
            let mut bib = Vec::new();
            candidate.drain_changes(&mut bib);
            let contents = contents(&candidate);
            return self.create(&mut next, name, config.framework, candidate, |id| {
                let mut stored = contents.stored(id);
                stored.push(Config::Bib(id, bib));
                stored
            });
        };
        let new = contents(&candidate);
        let store = &self.traffic.store;
        store
            .configure(Config::All(new.stored(slot.id)))
            .map_err(storage)?;
        let old = new.exchange(&mut slot.lock())?;
        if let Err(error) = self.install() {
            let before = Config::All(old.stored(slot.id));
            old.exchange(&mut slot.lock())?;
            return Err(self.undo(error, before));
        }
        tracing::info!(
            flavour = flavour.name(),
            instance = name,
            "instance replaced"
        );
        Ok(())
    }

    /// Gives a new instance the tables of `config`, checking all of it.
    fn fill(
        &self,
        candidate: &mut Instance,
        of: Option<InstanceId>,
        config: &control::Config,
        force: bool,
    ) -> Result<(), Failure> {
        match candidate.flavour() {
            Flavour::Nat64 => {
                foreign(config.eamt.is_empty(), "eamt", "SIIT")?;
                foreign(config.denylist4.is_empty(), "denylist4", "SIIT")?;
                let mut pool4 = Pool4::default();
                for entry in &config.pool4 {
                    self.check_entry(of, entry, force)?;
                    pool4.add(entry);
                }
                let nat64 = stateful(candidate)?;
                nat64.set_pool4(pool4, &[]);
                for entry in &config.bib {
                    nat64
                        .bib_add(entry.protocol, entry.v6, entry.v4)
                        .map_err(bib_failure)?;
                }
            }
            Flavour::Siit => {
                foreign(config.pool4.is_empty(), "pool4", "NAT64")?;
                foreign(config.bib.is_empty(), "bib", "NAT64")?;
                let siit = stateless(candidate)?;
                for row in &config.eamt {
                    siit.eamt.insert(*row, force).map_err(eam_failure)?;
                }
                for prefix in &config.denylist4 {
                    siit.denylist4.add(*prefix, force).map_err(invalid)?;
                }
            }
        }
        Ok(())
    }
}

impl Contents {
    /// As it goes to the database.
    fn stored(&self, id: InstanceId) -> Vec<Config> {
        let mut all = vec![Config::Settings(id, Box::new(self.settings.clone()))];
        match &self.tables {
            Tables::Nat64(pool4) => all.push(stored_pool4(id, pool4)),
            Tables::Siit(siit) => {
                all.push(Config::Eamt(id, siit.eamt.rows()));
                all.push(Config::Denylist4(id, siit.denylist4.rows().to_vec()));
            }
        }
        all
    }

    /// Puts it into force and returns what was in force.
    fn exchange(self, instance: &mut Instance) -> Result<Self, Failure> {
        let tables = match self.tables {
            Tables::Nat64(pool4) => {
                let nat64 = stateful(instance)?;
                let old = nat64.pool4().clone();
                nat64.set_pool4(*pool4, &[]);
                Tables::Nat64(Box::new(old))
            }
            Tables::Siit(mut siit) => {
                std::mem::swap(stateless(instance)?, &mut *siit);
                Tables::Siit(siit)
            }
        };
        let settings = instance.settings().clone();
        instance.set_settings(self.settings);
        Ok(Self { settings, tables })
    }
}

/// What an instance has of what can be replaced.
fn contents(instance: &Instance) -> Contents {
    let tables = match instance.nat64() {
        Some(nat64) => Tables::Nat64(Box::new(nat64.pool4().clone())),
        None => Tables::Siit(Box::new(instance.siit().cloned().unwrap_or_default())),
    };
    Contents {
        settings: instance.settings().clone(),
        tables,
    }
}

/// Defaults, and what `config` says otherwise, in its order.
fn settings(
    flavour: Flavour,
    current: Option<&Settings>,
    config: &control::Config,
    force: bool,
) -> Result<Settings, Failure> {
    let mut settings = Settings::default();
    if flavour == Flavour::Nat64 {
        if config.settings.iter().all(|(key, _)| key != "pool6") {
            return Err(invalid(SettingError::Pool6Mandatory));
        }
        // It can be confirmed, but not changed.
        settings.pool6 = current.and_then(|current| current.pool6);
    }
    for (key, value) in &config.settings {
        settings
            .set(flavour, key, value.clone(), force)
            .map_err(|error| {
                let text = error.to_string();
                // Many name it already.
                if text.contains(key.as_str()) {
                    invalid(text)
                } else {
                    invalid(format!("{key}: {text}"))
                }
            })?;
    }
    Ok(settings)
}

fn check_framework(name: &str, old: Framework, new: Framework) -> Result<(), Failure> {
    if old == new {
        return Ok(());
    }
    let (old, new) = (old.name(), new.name());
    Err(failure(
        libc::EINVAL,
        format!("instance '{name}' is {old} and cannot become {new}; remove it and add it anew"),
    ))
}

/// Refuses a table that the flavour does not have.
fn foreign(empty: bool, table: &str, whose: &str) -> Result<(), Failure> {
    if empty {
        return Ok(());
    }
    Err(invalid(format!(
        "'{table}' is for {whose} instances only; leave it out"
    )))
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! A whole configuration at once: an instance becomes what a file says, or stays as it was.

use std::sync::Arc;

use super::mapt::{fmr_failure, mapping};
use super::nat64::{bib_failure, stored_pool4};
use super::siit::eam_failure;
use super::{Gateway, failure, invalid, random_key, stateful, stateless, storage};
use crate::base::Protocol;
use crate::daemon::traffic::Slot;
use crate::engine::Instance;
use crate::map::{Mapt, Siit};
use crate::model::control::{self, Failure};
use crate::model::settings::{Setting, SettingError, Settings, Value};
use crate::model::{BibEntry, Flavour, Framework};
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
    Mapt(Box<Mapt>),
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
        let (slot, candidate) = self.candidate(flavour, name, config, force)?;
        let Some(slot) = slot else {
            return self.add_filled(&mut next, name, config.framework, candidate);
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

    /// Adds an instance that is what `config` says.
    pub(in crate::daemon) fn add_whole(
        &self,
        flavour: Flavour,
        name: &str,
        config: &control::Config,
    ) -> Result<(), Failure> {
        let mut next = self.exclusive();
        self.vacancy(flavour, name, config.framework)?;
        let (_, candidate) = self.candidate(flavour, name, config, false)?;
        self.add_filled(&mut next, name, config.framework, candidate)
    }

    fn add_filled(
        &self,
        next: &mut i64,
        name: &str,
        framework: Framework,
        mut candidate: Instance,
    ) -> Result<(), Failure> {
        let mut bib = Vec::new();
        candidate.drain_changes(&mut bib);
        let contents = contents(&candidate);
        self.create(next, name, framework, candidate, |id| {
            let mut stored = contents.stored(id);
            stored.push(Config::Bib(id, bib));
            stored
        })
    }

    /// Whether [`Gateway::replace`] would do it.
    pub(in crate::daemon) fn check(
        &self,
        flavour: Flavour,
        name: &str,
        config: &control::Config,
        force: bool,
    ) -> Result<(), Failure> {
        let _next = self.exclusive();
        match self.candidate(flavour, name, config, force)? {
            (Some(_), _) => Ok(()),
            (None, _) => self.vacancy(flavour, name, config.framework).map(drop),
        }
    }

    /// The instance as it is, and what it would be.
    fn candidate(
        &self,
        flavour: Flavour,
        name: &str,
        config: &control::Config,
        force: bool,
    ) -> Result<(Option<Arc<Slot>>, Instance), Failure> {
        let slot = self.traffic.find(flavour, name);
        if let Some(slot) = &slot {
            check_framework(name, slot.framework, config.framework)?;
        }
        let current = slot.as_ref().map(|slot| slot.read().settings().clone());
        let settings = settings(flavour, current.as_ref(), config, force)?;
        let mut candidate = Instance::new(flavour, settings, random_key());
        let id = slot.as_ref().map(|slot| slot.id);
        self.fill(&mut candidate, id, config, force)?;
        Ok((slot, candidate))
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
                foreign(config.fmrt.is_empty(), "fmrt", "MAP-T")?;
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
            Flavour::Mapt => {
                foreign(config.pool4.is_empty(), "pool4", "NAT64")?;
                foreign(config.bib.is_empty(), "bib", "NAT64")?;
                foreign(config.eamt.is_empty(), "eamt", "SIIT")?;
                foreign(config.denylist4.is_empty(), "denylist4", "SIIT")?;
                candidate.settings().check_mapt().map_err(invalid)?;
                let mapt = mapping(candidate)?;
                for rule in &config.fmrt {
                    mapt.fmrt.insert(*rule).map_err(fmr_failure)?;
                }
            }
            Flavour::Siit => {
                foreign(config.pool4.is_empty(), "pool4", "NAT64")?;
                foreign(config.bib.is_empty(), "bib", "NAT64")?;
                foreign(config.fmrt.is_empty(), "fmrt", "MAP-T")?;
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
            Tables::Mapt(mapt) => all.push(Config::Fmrt(id, mapt.fmrt.rows())),
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
            Tables::Mapt(mut mapt) => {
                // Sessions of the port translation are no part of the table and live on.
                std::mem::swap(mapping(instance)?, &mut *mapt);
                Tables::Mapt(mapt)
            }
        };
        let settings = instance.settings().clone();
        instance.set_settings(self.settings);
        Ok(Self { settings, tables })
    }
}

/// What an instance is, as a file would have it. Of the mappings only static ones are there.
pub(in crate::daemon) fn export(slot: &Slot) -> control::Config {
    let (contents, mut bib) = {
        let instance = slot.read();
        (contents(&instance), static_bib(&instance))
    };
    // Outside the lock: workers need not wait for it.
    bib.sort_unstable_by_key(|entry| (entry.protocol, entry.v4));
    // Jool takes the file, too, as long as nothing is set that Jool does not have.
    let defaults = Settings::default();
    let settings = Setting::known(slot.flavour)
        .map(|s| (s, s.value(&contents.settings)))
        .filter(|(s, value)| !s.extension || *value != s.value(&defaults))
        .filter(|(_, value)| *value != Value::MaptType(None))
        .map(|(s, value)| (s.key.to_owned(), value));
    let mut config = control::Config {
        framework: slot.framework,
        settings: settings.collect(),
        eamt: Vec::new(),
        denylist4: Vec::new(),
        fmrt: Vec::new(),
        pool4: Vec::new(),
        bib,
    };
    match &contents.tables {
        Tables::Nat64(pool4) => config.pool4 = pool4.entries(),
        Tables::Siit(siit) => {
            config.eamt = siit.eamt.rows();
            config.denylist4 = siit.denylist4.rows().to_vec();
        }
        Tables::Mapt(mapt) => config.fmrt = mapt.fmrt.rows(),
    }
    config
}

fn static_bib(instance: &Instance) -> Vec<BibEntry> {
    let tables = instance.nat64().into_iter().flat_map(|nat64| {
        let tables = Protocol::ALL.into_iter();
        tables.map(|protocol| (protocol, nat64.table(protocol)))
    });
    let entries = tables.flat_map(|(protocol, table)| {
        let bibs = table.bibs().filter(|bib| bib.is_static);
        bibs.map(move |bib| BibEntry {
            protocol,
            v6: bib.v6,
            v4: bib.v4,
        })
    });
    entries.collect()
}

/// What an instance has of what can be replaced.
fn contents(instance: &Instance) -> Contents {
    let tables = match (instance.nat64(), instance.mapt()) {
        (Some(nat64), _) => Tables::Nat64(Box::new(nat64.pool4().clone())),
        (None, Some(mapt)) => Tables::Mapt(Box::new(mapt.clone())),
        (None, None) => Tables::Siit(Box::new(instance.siit().cloned().unwrap_or_default())),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Pool4Entry, PortRange};

    fn config(settings: &[(&str, Value)]) -> control::Config {
        let settings = settings
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()));
        control::Config {
            framework: Framework::Netfilter,
            settings: settings.collect(),
            eamt: Vec::new(),
            denylist4: Vec::new(),
            fmrt: Vec::new(),
            pool4: Vec::new(),
            bib: Vec::new(),
        }
    }

    fn pool6(text: &str) -> Value {
        Value::Prefix6(Some(text.parse().unwrap()))
    }

    #[test]
    fn what_is_left_out_gets_its_default() {
        let current = Settings {
            tos: 9,
            pool6: Some("64:ff9b::/96".to_owned().try_into().unwrap()),
            ..Settings::default()
        };
        let siit = |config| settings(Flavour::Siit, Some(&current), &config, false);
        assert_eq!(siit(config(&[])), Ok(Settings::default()));
        let given = config(&[("override-tos", Value::Bool(true))]);
        let expected = Settings {
            override_tos: true,
            ..Settings::default()
        };
        assert_eq!(siit(given), Ok(expected));
    }

    #[test]
    fn errors_name_the_setting_and_its_value() {
        let message = |key: &str, value| {
            let config = config(&[("tos", Value::Number(1)), (key, value)]);
            let error = settings(Flavour::Siit, None, &config, false).unwrap_err();
            assert_eq!(i32::from(error.code), libc::EINVAL);
            error.message
        };
        assert_eq!(
            message("tos", Value::Number(256)),
            "tos: '256' is out of range (0-255)"
        );
        assert_eq!(
            message("udp-timeout", Value::Duration(1)),
            "'udp-timeout' is not a setting"
        );
        assert!(
            message("pool6", pool6("2001:db8:0:0:ff00::/96")).starts_with("pool6: bits 64 to 71")
        );
    }

    #[test]
    fn the_pool6_of_nat64_can_be_confirmed_only() {
        let current = Settings {
            pool6: Some("64:ff9b::/96".to_owned().try_into().unwrap()),
            ..Settings::default()
        };
        let check = |current: Option<&Settings>, given: &[(&str, Value)]| {
            settings(Flavour::Nat64, current, &config(given), false)
                .map_err(|error| error.message.contains("pool6"))
        };
        let same = ("pool6", pool6("64:ff9b::/96"));
        assert_eq!(
            check(Some(&current), std::slice::from_ref(&same)),
            Ok(current.clone())
        );
        assert_eq!(check(None, &[same]), Ok(current.clone()));
        for given in [
            &[][..],
            &[("tos", Value::Number(1))],
            &[("pool6", pool6("64:ff9b:1::/96"))],
            &[("pool6", Value::Prefix6(None))],
        ] {
            assert_eq!(check(Some(&current), given), Err(true), "{given:?}");
        }
    }

    #[test]
    fn sessions_and_counters_live_on_and_the_old_contents_can_come_back() {
        let mut instance = Instance::new(Flavour::Nat64, Settings::default(), [1; 16]);
        let before = contents(&instance).stored(InstanceId(1));
        let entry = Pool4Entry {
            mark: 0,
            protocol: Protocol::Udp,
            prefix: "192.0.2.1".parse().unwrap(),
            ports: PortRange { min: 1, max: 9 },
            max_iterations: None,
        };
        let mut pool4 = Pool4::default();
        pool4.add(&entry);
        let new = Contents {
            settings: Settings {
                tos: 9,
                ..Settings::default()
            },
            tables: Tables::Nat64(Box::new(pool4)),
        };
        let old = new.exchange(&mut instance).unwrap();
        assert_eq!(instance.settings().tos, 9);
        let (v6, v4) = (
            "2001:db8::1#7".parse().unwrap(),
            "192.0.2.1#7".parse().unwrap(),
        );
        let nat64 = stateful(&mut instance).unwrap();
        nat64.bib_add(Protocol::Udp, v6, v4).unwrap();
        old.exchange(&mut instance).unwrap();
        let nat64 = stateful(&mut instance).unwrap();
        assert_eq!(nat64.mapped_v6(Protocol::Udp, v4), Some(v6));
        let after = contents(&instance).stored(InstanceId(1));
        assert_eq!(format!("{before:?}"), format!("{after:?}"));
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! Forwarding mapping rules of MAP-T instances.

use super::{Gateway, failure};
use crate::base::prefix::Prefix4;
use crate::daemon::traffic::Slot;
use crate::engine::Instance;
use crate::map::mapt::Customer;
use crate::map::{FmrError, Fmrt, Mapt};
use crate::model::control::Failure;
use crate::model::mapt::MapRule;
use crate::model::settings::Settings;
use crate::store::journal::Config;

impl Gateway {
    pub(in crate::daemon) fn fmrt_add(&self, slot: &Slot, rule: MapRule) -> Result<(), Failure> {
        self.set_fmrt(slot, |fmrt| fmrt.insert(rule))
    }

    pub(in crate::daemon) fn fmrt_remove(&self, slot: &Slot, rule: MapRule) -> Result<(), Failure> {
        self.set_fmrt(slot, |fmrt| fmrt.remove(rule))
    }

    pub(in crate::daemon) fn fmrt_flush(&self, slot: &Slot) -> Result<(), Failure> {
        self.set_fmrt(slot, |fmrt| {
            fmrt.clear();
            Ok(())
        })
    }

    fn set_fmrt(
        &self,
        slot: &Slot,
        change: impl FnOnce(&mut Fmrt) -> Result<(), FmrError>,
    ) -> Result<(), Failure> {
        let _next = self.exclusive();
        self.still_there(slot)?;
        let (old, rows) = {
            let mut instance = slot.lock();
            let fmrt = &mut mapping(&mut instance)?.fmrt;
            let old = fmrt.clone();
            change(fmrt).map_err(fmr_failure)?;
            (old, fmrt.rows())
        };
        let change = Config::Fmrt(slot.id, rows);
        let before = Config::Fmrt(slot.id, old.rows());
        self.settle(slot, change, before, |instance| {
            if let Some(mapt) = instance.mapt_mut() {
                mapt.fmrt = old;
            }
        })
    }
}

/// The tables of a MAP-T instance.
pub(in crate::daemon) fn mapping(instance: &mut Instance) -> Result<&mut Mapt, Failure> {
    let foreign = || failure(libc::EOPNOTSUPP, "only MAP-T instances have fmrt");
    instance.mapt_mut().ok_or_else(foreign)
}

pub(super) fn fmr_failure(error: FmrError) -> Failure {
    let code = match error {
        FmrError::Duplicate(_) | FmrError::Overlap { .. } => libc::EEXIST,
        FmrError::Absent(_) => libc::ESRCH,
    };
    failure(code, error.to_string())
}

/// The addresses of a customer, by the basic mapping rule and the end-user prefix.
pub(super) fn customer4(settings: &Settings) -> Option<Prefix4> {
    let customer = Customer::new(settings.bmr?, settings.end_user_ipv6_prefix?).ok()?;
    Prefix4::new(customer.first4(), customer.v4_len()).ok()
}

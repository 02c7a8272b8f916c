// SPDX-License-Identifier: GPL-2.0-or-later
//! EAM table and denylist of SIIT instances.

use std::net::IpAddr;

use super::{Gateway, failure, invalid, stateless};
use crate::base::prefix::{Prefix4, Prefix6};
use crate::daemon::traffic::Slot;
use crate::map::{Denylist4, EamError, Siit};
use crate::model::control::Failure;
use crate::model::{EamRow, Translation};
use crate::store::journal::Config;

impl Gateway {
    pub(in crate::daemon) fn eamt_add(
        &self,
        slot: &Slot,
        row: EamRow,
        force: bool,
    ) -> Result<(), Failure> {
        let _next = self.exclusive();
        self.still_there(slot)?;
        let added = stateless(&mut slot.lock())?.eamt.insert(row, force);
        added.map_err(eam_failure)?;
        let (change, before) = (
            Config::EamAdd(slot.id, row),
            Config::EamRemove(slot.id, row),
        );
        self.settle_siit(slot, change, before, |siit| {
            // It was added a moment ago.
            let _ = siit.eamt.remove(Some(row.v6), Some(row.v4));
        })
    }

    pub(in crate::daemon) fn eamt_remove(
        &self,
        slot: &Slot,
        v6: Option<Prefix6>,
        v4: Option<Prefix4>,
    ) -> Result<(), Failure> {
        let _next = self.exclusive();
        self.still_there(slot)?;
        let removed = stateless(&mut slot.lock())?.eamt.remove(v6, v4);
        let row = removed.map_err(eam_failure)?;
        let (change, before) = (
            Config::EamRemove(slot.id, row),
            Config::EamAdd(slot.id, row),
        );
        self.settle_siit(slot, change, before, |siit| {
            // Its place is free.
            let _ = siit.eamt.insert(row, true);
        })
    }

    pub(in crate::daemon) fn eamt_flush(&self, slot: &Slot) -> Result<(), Failure> {
        let _next = self.exclusive();
        self.still_there(slot)?;
        let old = std::mem::take(&mut stateless(&mut slot.lock())?.eamt);
        let change = Config::Eamt(slot.id, Vec::new());
        let before = Config::Eamt(slot.id, old.rows());
        self.settle_siit(slot, change, before, |siit| siit.eamt = old)
    }

    pub(in crate::daemon) fn denylist4_add(
        &self,
        slot: &Slot,
        prefix: Prefix4,
        force: bool,
    ) -> Result<(), Failure> {
        self.set_denylist4(slot, |list| list.add(prefix, force).map_err(invalid))
    }

    pub(in crate::daemon) fn denylist4_remove(
        &self,
        slot: &Slot,
        prefix: Prefix4,
    ) -> Result<(), Failure> {
        self.set_denylist4(slot, |list| {
            if list.remove(prefix) {
                return Ok(());
            }
            Err(failure(
                libc::ESRCH,
                format!("{prefix} is not in denylist4; see 'denylist4 display'"),
            ))
        })
    }

    pub(in crate::daemon) fn denylist4_flush(&self, slot: &Slot) -> Result<(), Failure> {
        self.set_denylist4(slot, |list| {
            list.clear();
            Ok(())
        })
    }

    /// How an address would be translated.
    pub(in crate::daemon) fn query(
        &self,
        slot: &Slot,
        addr: IpAddr,
    ) -> Result<Translation, Failure> {
        let mut instance = slot.lock();
        let settings = instance.settings().clone();
        stateless(&mut instance)?
            .query(&settings, &self.traffic.host, addr)
            .map_err(|error| invalid(format!("{addr} cannot be translated: {error}")))
    }

    fn set_denylist4(
        &self,
        slot: &Slot,
        change: impl FnOnce(&mut Denylist4) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let _next = self.exclusive();
        self.still_there(slot)?;
        let (old, rows) = {
            let mut instance = slot.lock();
            let list = &mut stateless(&mut instance)?.denylist4;
            let old = list.clone();
            change(list)?;
            (old, list.rows().to_vec())
        };
        let change = Config::Denylist4(slot.id, rows);
        let before = Config::Denylist4(slot.id, old.rows().to_vec());
        self.settle_siit(slot, change, before, |siit| siit.denylist4 = old)
    }

    /// [`Gateway::settle`] for the tables.
    fn settle_siit(
        &self,
        slot: &Slot,
        change: Config,
        before: Config,
        back: impl FnOnce(&mut Siit),
    ) -> Result<(), Failure> {
        self.settle(slot, change, before, |instance| {
            if let Some(siit) = instance.siit_mut() {
                back(siit);
            }
        })
    }
}

pub(super) fn eam_failure(error: EamError) -> Failure {
    let code = match error {
        EamError::Duplicate(_)
        | EamError::V4Taken(_)
        | EamError::V6Taken(_)
        | EamError::Overlap { .. } => libc::EEXIST,
        EamError::SuffixTooLong(_) => libc::EINVAL,
        EamError::Absent => libc::ESRCH,
    };
    failure(code, error.to_string())
}

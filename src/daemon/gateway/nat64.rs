// SPDX-License-Identifier: GPL-2.0-or-later
//! pool4 and BIB of NAT64 instances.

use super::{Gateway, failure, remembering, stateful, storage};
use crate::base::Protocol;
use crate::daemon::traffic::{Origin, Slot};
use crate::dataplane;
use crate::model::control::Failure;
use crate::model::{MaxIterations, Pool4Entry, PortRange};
use crate::nat64::Nat64;
use crate::nat64::manage::BibError;
use crate::nat64::pool4::Pool4;
use crate::store::journal::Config;
use crate::store::{InstanceId, Pool4Range, Pool4Set};

impl Gateway {
    pub(in crate::daemon) fn pool4_add(
        &self,
        slot: &Slot,
        entry: &Pool4Entry,
        force: bool,
    ) -> Result<(), Failure> {
        self.set_pool4(slot, &[], |pool4| {
            self.check_entry(Some(slot.id), entry, force)?;
            pool4.add(entry);
            Ok(())
        })
    }

    /// Two instances that share a transport address would give it to two clients, and a port that
    /// the kernel gives to a program of the host may belong to a client; so those take `force`.
    pub(super) fn check_entry(
        &self,
        of: Option<InstanceId>,
        entry: &Pool4Entry,
        force: bool,
    ) -> Result<(), Failure> {
        let PortRange { min, max } = entry.ports;
        let (protocol, prefix) = (entry.protocol, entry.prefix);
        if entry.max_iterations == Some(MaxIterations::Fixed(0)) {
            return Err(failure(
                libc::EINVAL,
                format!(
                    "{protocol} {prefix}: 0 is not a number of iterations; use 1 or more, auto or infinity"
                ),
            ));
        }
        let slots = self.traffic.slots();
        let other = slots
            .iter()
            .filter(|s| Some(s.id) != of)
            .find(|s| s.read().nat64().is_some_and(|n| n.pool4().overlaps(entry)));
        if let Some(other) = other.filter(|_| !force) {
            return Err(failure(
                libc::EEXIST,
                format!(
                    "{protocol} {prefix} {min}-{max} overlaps with the pool4 of instance '{}'; choose other addresses or ports, or add --force",
                    other.name
                ),
            ));
        }
        if force || protocol == Protocol::Icmp {
            return Ok(());
        }
        let own = self.traffic.host.addresses4();
        match (
            own.iter().find(|a| prefix.contains(**a)),
            dataplane::ephemeral_ports(),
        ) {
            (
                Some(addr),
                Some(PortRange {
                    min: low,
                    max: high,
                }),
            ) if min.min(max) <= high && low <= max.max(min) => Err(failure(
                libc::EINVAL,
                format!(
                    "ports {min}-{max} intersect {low}-{high}, which programs of this host use for {addr} themselves; choose other ports, change net.ipv4.ip_local_port_range, or add --force"
                ),
            )),
            _ => Ok(()),
        }
    }

    pub(in crate::daemon) fn pool4_remove(
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

    pub(in crate::daemon) fn pool4_flush(&self, slot: &Slot, quick: bool) -> Result<(), Failure> {
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
            let config = stored_pool4(slot.id, &before);
            stateful(&mut slot.lock())?.set_pool4(before, &[]);
            return Err(self.undo(error, config));
        }
        // Only now is there no way back.
        let mut instance = slot.lock();
        let nat64 = stateful(&mut instance)?;
        nat64.set_pool4(nat64.pool4().clone(), purge);
        self.traffic.publish(slot, &mut instance, Origin::Here);
        Ok(())
    }

    /// Changes the BIB of an instance by hand.
    pub(in crate::daemon) fn edit_bib(
        &self,
        slot: &Slot,
        edit: impl FnOnce(&mut Nat64) -> Result<(), BibError>,
    ) -> Result<(), Failure> {
        let mut instance = slot.lock();
        edit(remembering(&mut instance)?).map_err(bib_failure)?;
        self.traffic.publish(slot, &mut instance, Origin::Here);
        drop(instance);
        self.traffic.store.flush(slot.id).map_err(|error| {
            failure(
                libc::EIO,
                format!("{error}; the change is in force but does not outlive the daemon until it is written"),
            )
        })
    }
}

pub(super) fn bib_failure(error: BibError) -> Failure {
    let code = match error {
        BibError::OutsidePool4(..) => libc::EINVAL,
        BibError::Collision { .. } => libc::EEXIST,
        BibError::Absent => libc::ESRCH,
        BibError::Full => libc::ENOMEM,
    };
    failure(code, error.to_string())
}

pub(super) fn stored_pool4(id: InstanceId, pool4: &Pool4) -> Config {
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

// SPDX-License-Identifier: GPL-2.0-or-later
//! The tables that the node works on.

use std::sync::Arc;

use crossbeam_utils::sync::ShardedLockWriteGuard;

use crate::daemon::traffic::{Origin, Slot, Traffic};
use crate::engine::Instance;
use crate::nat64::question::Question;
use crate::replica::peer::{Handle, Place, Share, Tables};
use crate::store::InstanceId;

/// An instance that takes part.
pub(super) struct Seat {
    pub(super) handle: Handle,
    pub(super) slot: Arc<Slot>,
    pub(super) digest: u64,
    /// Whether the instance was told that there are others to ask.
    pub(super) asks: bool,
    /// What the instance was told to be its share of pool4.
    pub(super) share: Share,
}

/// Tells an instance which ports new clients may get.
pub(super) fn restrict(slot: &Slot, share: Share) {
    let ports = (!share.is_whole()).then(|| share.ranges().collect());
    if let Some(nat64) = slot.lock().nat64_mut() {
        nat64.set_share(ports);
    }
}

/// The tables of all instances that take part, locked in their order.
pub(super) struct Held<'a>(Vec<(Handle, &'a Slot, ShardedLockWriteGuard<'a, Instance>)>);

impl<'a> Held<'a> {
    pub(super) fn lock(traffic: &Traffic, seats: &'a [Seat]) -> Self {
        let lock = |seat: &'a Seat| (seat.handle, &*seat.slot, seat.slot.lock());
        let mut held = Self(seats.iter().map(lock).collect());
        // What was not passed on before is not what the node is about to do.
        held.publish(traffic, |_| Origin::Here);
        held
    }

    pub(super) fn publish(&mut self, traffic: &Traffic, origin: impl Fn(Handle) -> Origin) {
        for (handle, slot, instance) in &mut self.0 {
            traffic.publish(slot, instance, origin(*handle));
        }
    }

    pub(super) fn handles(&self) -> impl Iterator<Item = Handle> {
        self.0.iter().map(|(handle, ..)| *handle)
    }

    pub(super) fn handle(&self, id: InstanceId) -> Option<Handle> {
        let mut held = self.0.iter();
        held.find(|(_, slot, _)| slot.id == id)
            .map(|(handle, ..)| *handle)
    }
}

impl Held<'_> {
    /// Takes what the others are to be asked.
    pub(super) fn questions(&mut self) -> Vec<(Handle, Question)> {
        let all = self.0.iter_mut().flat_map(|(handle, _, instance)| {
            let questions = instance.take_questions();
            questions.into_iter().map(|question| (*handle, question))
        });
        all.collect()
    }

    /// Whether there are packets that need not wait any more.
    pub(super) fn reconsider(&mut self) -> bool {
        let all = self.0.iter_mut();
        all.fold(false, |any, (.., instance)| instance.reconsider() | any)
    }
}

impl Tables for Held<'_> {
    fn table(&mut self, instance: Handle) -> Option<Place<'_>> {
        let mut held = self.0.iter_mut();
        let (_, _, found) = held.find(|(handle, ..)| *handle == instance)?;
        let (nat64, settings) = found.replica()?;
        Some((nat64, settings))
    }
}

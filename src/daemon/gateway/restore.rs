// SPDX-License-Identifier: GPL-2.0-or-later
//! Instances from the database.

use super::random_key;
use crate::base::Tick;
use crate::daemon::traffic::Slot;
use crate::engine::Instance;
use crate::nat64::pool4::Pool4;
use crate::store::Saved;

/// An instance as it was before the daemon ended.
pub(in crate::daemon) fn restore(saved: Saved, now: Tick) -> Slot {
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
    if let Some(siit) = instance.siit_mut() {
        for row in saved.eamt {
            refused += usize::from(siit.eamt.insert(row, true).is_err());
        }
        for prefix in saved.denylist4 {
            refused += usize::from(siit.denylist4.add(prefix, true).is_err());
        }
    }
    if refused > 0 {
        tracing::warn!(
            instance = saved.name,
            rows = refused,
            "stored rows that make no sense were left out"
        );
    }
    tracing::info!(
        flavour = saved.flavour.name(),
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

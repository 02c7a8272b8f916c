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
    }
    if let Some(nat64) = instance.sessions_mut() {
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
    if let Some(mapt) = instance.mapt_mut() {
        for rule in saved.fmrt {
            refused += usize::from(mapt.fmrt.insert(rule).is_err());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::settings::Settings;
    use crate::model::{EamRow, Flavour, Framework};
    use crate::store::InstanceId;

    #[test]
    fn rows_that_contradict_each_other_are_left_out() {
        let eam = |v6: &str, v4: &str| EamRow {
            v6: v6.parse().unwrap(),
            v4: v4.parse().unwrap(),
        };
        let scoped = vec!["127.0.0.0/8".parse().unwrap(); 2];
        let (good, within) = (
            eam("2001:db8::/120", "192.0.2.0/24"),
            eam("2001:db8::1", "192.0.2.9"),
        );
        let slot = restore(
            Saved {
                id: InstanceId(7),
                flavour: Flavour::Siit,
                name: "default".to_owned(),
                framework: Framework::Netfilter,
                slot: 0,
                settings: Settings::default(),
                pool4: Vec::new(),
                pool4_sets: Vec::new(),
                mappings: Vec::new(),
                sessions: Vec::new(),
                eamt: vec![
                    good,
                    within,
                    eam("2001:db8::/120", "198.51.100.0/24"),
                    eam("2001:db8:1::/121", "198.51.100.0/24"),
                ],
                denylist4: scoped.clone(),
                fmrt: Vec::new(),
                unusable: 0,
            },
            Tick(1),
        );
        let instance = slot.lock();
        let siit = instance.siit().unwrap();
        assert_eq!(siit.eamt.rows(), [good, within]);
        assert_eq!(siit.denylist4.rows(), scoped);
    }
}

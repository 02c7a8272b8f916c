// SPDX-License-Identifier: GPL-2.0-or-later
//! Instances from the database.

use super::random_key;
use crate::base::{Protocol, Tick};
use crate::daemon::traffic::Slot;
use crate::engine::Instance;
use crate::model::Flavour;
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
    if !saved.mappings.is_empty() {
        instance.prepare_sessions();
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
        // Settings are stored before what follows from them: this may have been lost in between.
        if saved.flavour == Flavour::Mapt && !nat64.pool4().is_empty() {
            nat64.set_pool4(nat64.pool4().clone(), &Protocol::ALL);
        }
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
    use crate::base::{Transport4, Transport6};
    use crate::model::settings::Settings;
    use crate::model::{EamRow, Framework};
    use crate::nat64::{Change, Mapping};
    use crate::store::InstanceId;

    fn saved(flavour: Flavour, settings: Settings) -> Saved {
        Saved {
            id: InstanceId(7),
            flavour,
            name: "default".to_owned(),
            framework: Framework::Netfilter,
            slot: 0,
            settings,
            pool4: Vec::new(),
            pool4_sets: Vec::new(),
            mappings: Vec::new(),
            sessions: Vec::new(),
            eamt: Vec::new(),
            denylist4: Vec::new(),
            fmrt: Vec::new(),
            unusable: 0,
        }
    }

    /// A customer with the ports 55296 to 57343 of 192.0.2.8, and two ports that lead to hosts.
    fn customer(napt: bool) -> Saved {
        let settings = Settings {
            end_user_ipv6_prefix: Some("2001:db8:ce:11b::/64".parse().unwrap()),
            bmr: Some("2001:db8:ce::/51 192.0.2.0/24 13 0".parse().unwrap()),
            mapt_napt: napt,
            ..Settings::default()
        };
        let mapping = |v6: &str, v4: &str| Mapping {
            protocol: Protocol::Tcp,
            v6: v6.parse().unwrap(),
            v4: v4.parse().unwrap(),
            is_static: true,
        };
        Saved {
            mappings: vec![
                mapping("::ffff:192.168.0.4#80", "192.0.2.8#55300"),
                mapping("::ffff:192.168.0.5#80", "192.0.2.8#40960"),
            ],
            ..saved(Flavour::Mapt, settings)
        }
    }

    const OWN: &str = "192.0.2.8#55300";
    const FOREIGN: &str = "192.0.2.8#40960";

    fn leads_to(instance: &Instance, v4: &str) -> Option<Transport6> {
        let v4: Transport4 = v4.parse().unwrap();
        instance.sessions()?.mapped_v6(Protocol::Tcp, v4)
    }

    /// As when the daemon was killed between a change of the settings and what follows from it.
    #[test]
    fn mappings_outside_the_ports_of_the_customer_do_not_come_back() {
        let slot = restore(customer(true), Tick(1));
        let mut instance = slot.lock();
        assert!(leads_to(&instance, OWN).is_some());
        assert_eq!(leads_to(&instance, FOREIGN), None);
        let mut changes = Vec::new();
        instance.drain_changes(&mut changes);
        assert!(
            matches!(changes[..], [Change::MappingGone { v4, .. }] if v4.port == 40960),
            "{changes:?}"
        );
    }

    #[test]
    fn mappings_of_a_customer_edge_wait_until_it_translates_ports_again() {
        let slot = restore(customer(false), Tick(1));
        let mut instance = slot.lock();
        assert!(leads_to(&instance, OWN).is_some());
        let mut settings = instance.settings().clone();
        settings.mapt_napt = true;
        instance.set_settings(settings);
        assert!(leads_to(&instance, OWN).is_some());
        assert_eq!(leads_to(&instance, FOREIGN), None);
        let plain = Saved {
            mappings: Vec::new(),
            ..customer(false)
        };
        assert!(restore(plain, Tick(1)).lock().sessions().is_none());
    }

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
                eamt: vec![
                    good,
                    within,
                    eam("2001:db8::/120", "198.51.100.0/24"),
                    eam("2001:db8:1::/121", "198.51.100.0/24"),
                ],
                denylist4: scoped.clone(),
                ..saved(Flavour::Siit, Settings::default())
            },
            Tick(1),
        );
        let instance = slot.lock();
        let siit = instance.siit().unwrap();
        assert_eq!(siit.eamt.rows(), [good, within]);
        assert_eq!(siit.denylist4.rows(), scoped);
    }
}

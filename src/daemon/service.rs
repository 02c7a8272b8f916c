// SPDX-License-Identifier: GPL-2.0-or-later
//! Requests of the control protocol, carried out on the gateway.

use super::gateway::{Gateway, failure, mapping, stateful, stateless};
use super::portions::{KEEP, Mappings, Sessions, walk};
use super::summary;
use crate::base::counters::Counter;
use crate::control::Service;
use crate::dataplane;
use crate::metrics::Source;
use crate::model::control::{Command, Failure, Health, InstanceHealth, Queued, Reply, Request};
use crate::model::{Flavour, InstanceRow, Pool4Entry};
use crate::ruleset;

impl Service for Gateway {
    fn call(&self, request: Request, reply: &mut dyn FnMut(Reply) -> bool) -> Result<(), Failure> {
        let Request {
            flavour,
            instance: name,
            command,
            ..
        } = request;
        let slot = || self.find(flavour, &name);
        match command {
            Command::InstanceDisplay => {
                let slots = self.traffic.slots();
                let ours = slots.iter().filter(|s| s.flavour == flavour);
                let rows = ours.map(|slot| InstanceRow {
                    namespace: self.namespace,
                    name: slot.name.clone(),
                    framework: slot.framework,
                });
                reply(Reply::Instances(rows.collect()));
                Ok(())
            }
            Command::InstanceAdd { framework, pool6 } => self.add(flavour, &name, framework, pool6),
            Command::InstanceRemove => self.remove(flavour, &name),
            Command::InstanceFlush => self.flush(flavour),
            Command::InstanceStatus => {
                let running = self.traffic.find(flavour, &name).is_some();
                reply(Reply::Status { running });
                Ok(())
            }
            Command::GlobalDisplay => {
                let settings = slot()?.read().settings().clone();
                reply(Reply::Settings(Box::new(settings)));
                Ok(())
            }
            Command::GlobalUpdate { key, value, force } => self.set(&*slot()?, &key, value, force),
            Command::Pool4Display { protocol } => {
                let pool4 = stateful(&mut slot()?.lock())?.pool4().clone();
                pages(pool4.rows(protocol), Reply::Pool4, reply);
                Ok(())
            }
            Command::Pool4Add { entry, force } => self.pool4_add(&*slot()?, &entry, force),
            Command::Pool4Remove {
                mark,
                protocol,
                prefix,
                ports,
                quick,
            } => {
                let entry = Pool4Entry {
                    mark,
                    protocol,
                    prefix,
                    ports,
                    max_iterations: None,
                };
                self.pool4_remove(&*slot()?, &entry, quick)
            }
            Command::Pool4Flush { quick } => self.pool4_flush(&*slot()?, quick),
            Command::BibDisplay { protocol } => {
                let slot = slot()?;
                let each = |rows| reply(Reply::Bib(rows));
                walk(&Mappings(&slot, protocol), KEEP, each)
            }
            Command::BibAdd { protocol, v6, v4 } => {
                self.edit_bib(&*slot()?, |nat64| nat64.bib_add(protocol, v6, v4))
            }
            Command::BibRemove { protocol, v6, v4 } => {
                self.edit_bib(&*slot()?, |nat64| nat64.bib_remove(protocol, v6, v4))
            }
            Command::SessionDisplay { protocol } => {
                let slot = slot()?;
                stateful(&mut slot.lock())?;
                let Some(pool6) = slot.read().settings().pool6 else {
                    return Ok(());
                };
                let each = |rows| reply(Reply::Sessions(rows));
                walk(&Sessions(&slot, protocol, pool6), KEEP, each)
            }
            Command::SessionFollow { ends } => self.follow(&*slot()?, ends, reply),
            Command::SessionProxy { network } => self.exchange(&*slot()?, network, reply),
            Command::SessionAdvertise => self.advertise(&*slot()?),
            Command::StatsDisplay => {
                let (mut counters, shares) = {
                    let slot = slot()?;
                    let instance = slot.read();
                    (instance.counters(), instance.settings().ss_enabled)
                };
                let shares = shares && flavour == Flavour::Nat64;
                let cluster = self.cluster.health().filter(|_| shares);
                if let Some(cluster) = &cluster {
                    cluster.count(&mut counters);
                }
                // As with Jool, which counts this only where it has MAP-T, and has no clusters.
                let others = |name: &str| {
                    flavour != Flavour::Mapt && name.starts_with(OF_MAPT)
                        || cluster.is_none() && name.starts_with(OF_CLUSTERS)
                };
                let rows = counters.iter().filter(|(c, _)| !others(c.name()));
                let rows = rows.map(|(c, n)| (c.name().to_owned(), n));
                reply(Reply::Stats(rows.collect()));
                Ok(())
            }
            Command::SessionSummary { prefix, protocol } => {
                let summary = summary::of(&*slot()?, prefix, protocol)?;
                reply(Reply::Summary(summary));
                Ok(())
            }
            Command::Metrics => {
                let text = self.text();
                let mut rest = text.as_str();
                while !rest.is_empty() {
                    let (lines, more) = lines(rest, LINES);
                    if !reply(Reply::Metrics(lines.to_owned())) {
                        break;
                    }
                    rest = more;
                }
                Ok(())
            }
            Command::SyncSet { config } => self.cluster.set(*config),
            Command::SyncOff => self.cluster.off(),
            Command::EamtDisplay => {
                let rows = stateless(&mut slot()?.lock())?.eamt.rows();
                pages(rows.into_iter(), Reply::Eamt, reply);
                Ok(())
            }
            Command::EamtAdd { row, force } => self.eamt_add(&*slot()?, row, force),
            Command::EamtRemove { v6, v4 } => self.eamt_remove(&*slot()?, v6, v4),
            Command::EamtFlush => self.eamt_flush(&*slot()?),
            Command::Denylist4Display => {
                let rows = stateless(&mut slot()?.lock())?.denylist4.rows().to_vec();
                pages(rows.into_iter(), Reply::Denylist4, reply);
                Ok(())
            }
            Command::Denylist4Add { prefix, force } => self.denylist4_add(&*slot()?, prefix, force),
            Command::Denylist4Remove { prefix } => self.denylist4_remove(&*slot()?, prefix),
            Command::Denylist4Flush => self.denylist4_flush(&*slot()?),
            Command::FmrtDisplay => {
                let rows = mapping(&mut slot()?.lock())?.fmrt.rows();
                pages(rows.into_iter(), Reply::Fmrt, reply);
                Ok(())
            }
            Command::FmrtAdd { rule } => self.fmrt_add(&*slot()?, rule),
            Command::FmrtRemove { rule } => self.fmrt_remove(&*slot()?, rule),
            Command::FmrtFlush => self.fmrt_flush(&*slot()?),
            Command::Strays => {
                let rows = slot()?.read().strays();
                reply(Reply::Strays(rows));
                Ok(())
            }
            Command::AddressQuery { address } => {
                reply(Reply::Translation(self.query(&*slot()?, address)?));
                Ok(())
            }
            Command::Create { config } => self.add_whole(flavour, &name, &config),
            Command::Replace { config, force } => self.replace(flavour, &name, &config, force),
            Command::Export => {
                for page in super::gateway::export(&*slot()?).pages(PAGE) {
                    if !reply(Reply::Config(Box::new(page))) {
                        break;
                    }
                }
                Ok(())
            }
            Command::Check { config, force } => self.check(flavour, &name, &config, force),
            Command::Upgrade => self.upgrade(),
            Command::Health => {
                reply(Reply::Health(Box::new(self.health()?)));
                Ok(())
            }
            Command::Who { protocol, v4, at } => {
                let found = self.traffic.store.holders(protocol, v4, at);
                let found = found.map_err(|error| failure(libc::EIO, error.to_string()))?;
                reply(Reply::Holders(found.ok_or_else(|| {
                    failure(
                        libc::EOPNOTSUPP,
                        "nothing is stored (--ephemeral), so nobody knows; see 'bib display' for now",
                    )
                })?));
                Ok(())
            }
        }
    }
}

impl Gateway {
    fn health(&self) -> Result<Health, Failure> {
        let slots = self.traffic.slots();
        let mut instances = Vec::new();
        let unknown = |error: dataplane::Error| failure(libc::EIO, error.to_string());
        // What the kernel does not tell is no reason to say nothing.
        let counters = self.dataplane.counters().unwrap_or_default();
        for slot in slots.iter() {
            let queues = self.dataplane.queues(slot.number);
            let tcp_queues = self.dataplane.tcp_queues(slot.number);
            let mut queued = Queued::default();
            for queue in counters.iter().filter(|queue| queue.slot == slot.number) {
                queued.super_packets += queue.super_packets;
                queued.cut += queue.cut;
                queued.queue_full += u64::from(queue.kernel_dropped);
                queued.socket_full += u64::from(queue.user_dropped);
                queued.overruns += queue.overruns;
                queued.malformed += queue.malformed;
            }
            let (sessions, enabled) = {
                let instance = slot.read();
                let sessions = instance.counters().get(Counter::Sessions);
                (sessions, instance.settings().ss_enabled)
            };
            instances.push(InstanceHealth {
                flavour: slot.flavour,
                name: slot.name.clone(),
                framework: slot.framework,
                queues: queues.map_err(unknown)?,
                tcp_queues: tcp_queues.map_err(unknown)?,
                queued,
                sessions,
                sync: slot.sync.health(enabled),
            });
        }
        Ok(Health {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            began: self.began,
            ready: self.dataplane.failed().is_none()
                && ruleset::present(self.mode).unwrap_or(false),
            queue_expression: self.mode.to_string(),
            instances,
            ephemeral: self.traffic.store.is_ephemeral(),
            takeover: self.takeover.clone(),
            sandbox: self.sandbox,
            cluster: self.cluster.health().map(Box::new),
            journal_backlog: self.traffic.store.backlog(),
            journal_lost: self.traffic.store.lost(),
        })
    }
}

/// Sends rows in lines of bounded size, until they end or nobody listens.
fn pages<T>(
    mut rows: impl Iterator<Item = T>,
    wrap: fn(Vec<T>) -> Reply,
    reply: &mut dyn FnMut(Reply) -> bool,
) {
    loop {
        let page: Vec<T> = rows.by_ref().take(PAGE).collect();
        if page.is_empty() || !reply(wrap(page)) {
            return;
        }
    }
}

/// Cuts a text behind the last line that ends within `size` bytes, or else behind the first one.
fn lines(text: &str, size: usize) -> (&str, &str) {
    let head = text.as_bytes().get(..size).unwrap_or(text.as_bytes());
    let end = head.iter().rposition(|byte| *byte == b'\n');
    let end = end
        .or_else(|| text.find('\n'))
        .map_or(text.len(), |n| n + 1);
    text.split_at(end)
}

/// Counters that only MAP-T instances have begin like this.
const OF_MAPT: &str = "JSTAT_MAPT_";

/// Counters that only instances have that are shared with other gateways.
const OF_CLUSTERS: &str = "JSTAT_SYNC_";

/// Rows a line.
const PAGE: usize = 500;

/// Bytes of metrics a line.
const LINES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_the_ends_of_lines() {
        assert_eq!(lines("ab\nc\nde\n", 6), ("ab\nc\n", "de\n"));
        assert_eq!(lines("ab\nc\n", 5), ("ab\nc\n", ""));
        assert_eq!(lines("ab\nc\n", 1), ("ab\n", "c\n"));
        assert_eq!(lines("abc", 1), ("abc", ""));
    }
}

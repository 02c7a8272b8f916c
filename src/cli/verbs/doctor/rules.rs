// SPDX-License-Identifier: GPL-2.0-or-later
//! Whether packets come to the daemon.

use serde_json::Value as Json;

use super::Finding;
use super::system::{System, program};
use crate::model::Framework;

/// The name of the daemon's tables.
const TABLE: &str = "tylo";

pub(super) fn present(system: &System) -> Vec<Finding> {
    let diverting = system
        .instances
        .iter()
        .any(|instance| instance.config.framework == Framework::Netfilter);
    let chains = match chains() {
        Ok(chains) => chains,
        Err(unknown) => return vec![unknown],
    };
    state(system.health.is_ok(), diverting, &chains)
        .into_iter()
        .collect()
}

/// What it means that the rules are there or not.
fn state(answers: bool, diverting: bool, ruleset: &[Json]) -> Option<Finding> {
    let mut chains = ruleset.iter().filter_map(|row| row.get("chain"));
    let there = chains.any(|chain| chain["table"] == TABLE && chain["hook"] == "prerouting");
    match (there, answers) {
        (true, true) => Some(Finding::fine("the table 'tylo' is there")),
        (true, false) => Some(Finding::wrong(
            "the table 'tylo' is there, but no tylod: what should be translated is dropped",
            "systemctl start tylod",
        )),
        (false, _) if diverting => Some(Finding::wrong(
            "the table 'tylo' is gone: packets are not translated",
            "systemctl restart tylod",
        )),
        (false, _) => None,
    }
}

/// What comes before our rules and could keep packets from them.
pub(super) fn first(system: &System) -> Vec<Finding> {
    if system.instances.is_empty() {
        return Vec::new();
    }
    let others = match chains() {
        Ok(chains) => before(&chains),
        Err(unknown) => return vec![unknown],
    };
    let mut findings = Vec::new();
    for other in others {
        let Other {
            family,
            table,
            name,
            drops_the_rest,
        } = &other;
        let drops = match list(&["chain", family, table, name]) {
            Ok(rules) => *drops_the_rest || drops(&rules),
            Err(unknown) => {
                findings.push(unknown);
                continue;
            }
        };
        if drops {
            findings.push(Finding::doubt(
                format!(
                    "chain '{name}' of table '{family} {table}' comes before the rules of tylod \
                     and can keep packets from them"
                ),
                format!(
                    "nft list chain {family} {table} {name}  # give it a later priority (0), or \
                     let it pass what tylod needs"
                ),
            ));
        }
    }
    if findings.is_empty() {
        let what = "nothing drops packets before the rules of tylod";
        findings.push(Finding::fine(what));
    }
    findings
}

/// All chains. Not all of the ruleset at once: nft 1.0.6 breaks off at flags of tables that it does
/// not know.
fn chains() -> Result<Vec<Json>, Finding> {
    list(&["chains"])
}

fn list(what: &[&str]) -> Result<Vec<Json>, Finding> {
    let words: Vec<&str> = ["-json", "list"].iter().chain(what).copied().collect();
    let answer = program("nft", &words)
        .map_err(|why| Finding::unknown(why, "apt install nftables  # and run this as root"))?;
    Ok(answer["nftables"].as_array().cloned().unwrap_or_default())
}

/// A chain of somebody else's.
#[derive(Debug, PartialEq, Eq)]
struct Other {
    family: String,
    table: String,
    name: String,
    drops_the_rest: bool,
}

/// The chains that packets go through before ours.
fn before(ruleset: &[Json]) -> Vec<Other> {
    let chains = || {
        ruleset
            .iter()
            .filter_map(|row| row.get("chain"))
            .filter(|chain| chain["hook"] == "prerouting")
    };
    let word = |row: &Json, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let last_of_ours = chains()
        .filter(|chain| chain["table"] == TABLE)
        .filter_map(|chain| chain["prio"].as_i64())
        .max();
    let Some(ours) = last_of_ours else {
        return Vec::new();
    };
    chains()
        .filter(|chain| chain["table"] != TABLE)
        .filter(|chain| chain["prio"].as_i64().is_some_and(|prio| prio <= ours))
        .map(|chain| Other {
            family: word(chain, "family"),
            table: word(chain, "table"),
            name: word(chain, "name"),
            drops_the_rest: chain["policy"] == "drop",
        })
        .collect()
}

/// Whether one of the rules can take a packet away.
fn drops(rules: &[Json]) -> bool {
    let rules = rules.iter().filter_map(|row| row.get("rule"));
    let mut expressions = rules.filter_map(|rule| rule["expr"].as_array()).flatten();
    expressions.any(takes)
}

/// Whether an expression of a rule can take a packet away.
fn takes(expression: &Json) -> bool {
    ["drop", "reject", "queue", "jump", "goto", "vmap"]
        .iter()
        .any(|word| expression.get(word).is_some())
        // What xtables does is not told.
        || expression["xt"]["name"] == "DROP"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::verbs::doctor::Verdict;
    use serde_json::json;

    fn chain(table: &str, name: &str, prio: i64, policy: &str) -> Json {
        json!({"chain": {"family": "inet", "table": table, "name": name, "hook": "prerouting",
                         "prio": prio, "policy": policy}})
    }

    #[test]
    fn only_what_is_in_front_is_looked_at() {
        let mut chains = vec![
            chain("tylo", "nat64", -250, "accept"),
            chain("fw", "late", -150, "drop"),
        ];
        assert_eq!(before(&chains), []);
        chains.push(chain("fw", "early", -300, "drop"));
        let early = Other {
            family: "inet".to_owned(),
            table: "fw".to_owned(),
            name: "early".to_owned(),
            drops_the_rest: true,
        };
        assert_eq!(before(&chains), [early]);
        assert_eq!(before(&[]), []);
        assert_eq!(before(&[json!({"chain": 4}), json!(null)]), []);
    }

    #[test]
    fn rules_that_can_drop() {
        let rule = |expression| [json!({"rule": {"expr": [expression]}})];
        assert!(!drops(&rule(json!({"notrack": null}))));
        assert!(drops(&rule(json!({"drop": null}))));
        assert!(drops(&rule(json!({"jump": {"target": "x"}}))));
        assert!(!drops(&[json!({"rule": 1}), json!(null)]));
    }

    #[test]
    fn rules_belong_to_a_daemon() {
        let ours = [chain("tylo", "prerouting", -250, "accept")];
        let verdict = |answers, diverting, rules: &[Json]| {
            state(answers, diverting, rules).map(|finding| finding.verdict)
        };
        assert_eq!(verdict(true, true, &ours), Some(Verdict::Fine));
        assert_eq!(verdict(false, false, &ours), Some(Verdict::Wrong));
        assert_eq!(verdict(true, true, &[]), Some(Verdict::Wrong));
        // Rules of an administrator's own, or no daemon and no rules.
        assert_eq!(verdict(true, false, &[]), None);
        assert_eq!(verdict(false, false, &[]), None);
    }
}

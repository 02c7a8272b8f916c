// SPDX-License-Identifier: GPL-2.0-or-later
//! What becomes of a packet, step by step. The engine itself decides, on a copy of the instance.

use std::net::IpAddr;

use serde_json::{Value as Json, json};

use super::advice::{advice, program};
use super::divert::{Match, Place};
use super::local::{Choice, Local, World};
use super::packet::Packet;
use super::tables;
use super::view::{IcmpType, View, differences};
use crate::base::counters::Counter;
use crate::base::{Protocol, Tick};
use crate::engine::{Meta, Outcome};
use crate::model::{DEFAULT_INSTANCE, Flavour};
use crate::nat64::Refused;
use crate::wire::offload::Offload;
use crate::wire::output::Output;

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// What it is about, in a word or two.
    pub(super) step: &'static str,
    pub(super) text: String,
    /// Clauses and configuration keys, with commas between them; may be empty.
    pub(super) why: String,
    /// A command that changes it; may be empty.
    pub(super) remedy: String,
}

impl Step {
    pub(super) fn new(step: &'static str, text: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            step,
            text: text.into(),
            why: why.into(),
            remedy: String::new(),
        }
    }

    fn mended(mut self, remedy: String) -> Self {
        self.remedy = remedy;
        self
    }
}

/// What becomes of a packet in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Translated,
    /// Its sender may be told.
    Dropped(Counter),
    /// The kernel goes on with it; the reason is there if an instance has seen it.
    Kernel(Option<Counter>),
    /// Kept until another gateway answers.
    Held,
    /// Its fragments are put together first.
    Fragment,
    Unreadable(Counter),
}

impl End {
    const fn word(self) -> &'static str {
        match self {
            Self::Translated => "translated",
            Self::Dropped(_) => "dropped",
            Self::Kernel(_) => "left to the kernel",
            Self::Held => "held",
            Self::Fragment => "put together first",
            Self::Unreadable(_) => "unreadable",
        }
    }

    const fn reason(self) -> Option<Counter> {
        match self {
            Self::Dropped(reason) | Self::Unreadable(reason) => Some(reason),
            Self::Kernel(reason) => reason,
            Self::Translated | Self::Held | Self::Fragment => None,
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, Debug)]
pub(super) struct Story {
    /// In a line.
    pub(super) packet: String,
    pub(super) end: End,
    /// Whose end it is.
    pub(super) instance: Option<(Flavour, String)>,
    pub(super) steps: Vec<Step>,
    /// What is sent for it, in lines.
    pub(super) sent: Vec<String>,
    /// The same as bytes.
    #[cfg(test)]
    pub(super) bytes: Vec<Vec<u8>>,
}

impl Story {
    pub(super) fn json(&self, number: Option<u64>) -> Json {
        let steps: Vec<Json> = self
            .steps
            .iter()
            .map(|step| {
                let why: Vec<&str> = step.why.split(", ").filter(|w| !w.is_empty()).collect();
                json!({"step": step.step, "text": step.text, "why": why, "remedy": step.remedy})
            })
            .collect();
        let instance = self.instance.as_ref();
        json!({
            "version": 1,
            "number": number,
            "packet": self.packet,
            "outcome": self.end.word(),
            "reason": self.end.reason().map(Counter::name),
            "flavour": instance.map(|(flavour, _)| flavour.name()),
            "instance": instance.map(|(_, name)| name),
            "sent": self.sent,
            "steps": steps,
        })
    }

    /// The packet and its end, in a line.
    pub(super) fn summary(&self) -> String {
        let reason = self
            .end
            .reason()
            .map(|reason| format!(" {}", reason.name()));
        let sent: Vec<String> = self.sent.iter().map(|sent| format!(" => {sent}")).collect();
        let (word, reason) = (self.end.word(), reason.unwrap_or_default());
        format!("{}: {word}{reason}{}", self.packet, sent.concat())
    }
}

/// Runs a packet through the copies, as the rules would have it.
pub(super) fn explain(world: &mut World, choice: &Choice, packet: &Packet, now: Tick) -> Story {
    let mut story = Story {
        packet: String::new(),
        end: End::Kernel(None),
        instance: None,
        steps: Vec::new(),
        sent: Vec::new(),
        #[cfg(test)]
        bytes: Vec::new(),
    };
    let view = match View::read(&packet.bytes) {
        Ok(view) => view,
        Err(reason) => {
            story.packet = format!("{} bytes", packet.bytes.len());
            story.end = End::Unreadable(reason);
            let text = format!("no packet that can be read: {}", reason.explanation());
            story.steps.push(Step::new("packet", text, ""));
            return story;
        }
    };
    story.packet = view.to_string();
    let mark = match packet.mark {
        0 => String::new(),
        mark => format!(", mark {mark}"),
    };
    story
        .steps
        .push(Step::new("packet", format!("{view}{mark}"), ""));
    let head = view.head();
    let several = world.locals.len() > 1;
    let mut takers: Vec<(Place, usize, String, &str)> = Vec::new();
    for (at, local) in world.locals.iter().enumerate() {
        if !choice.takes(local.flavour, &local.name) {
            continue;
        }
        match world.judge(local, &head) {
            // Whether there is such a rule is not known: it is asked for by name.
            Match::Yes(Place::Elsewhere, text, why) if several && !choice.is_given() => {
                let text = format!("perhaps to {}, see -i: {text}", title(local));
                story.steps.push(Step::new("rule", text, why));
            }
            Match::Yes(place, text, why) => takers.push((place, at, text, why)),
            Match::No(text, why) => {
                let text = format!("not to {}: {text}", title(local));
                story.steps.push(Step::new("rule", text, why));
            }
        }
    }
    takers.sort_by_key(|(place, at, ..)| (*place, *at));
    let mut last = None;
    for (place, at, text, why) in takers {
        let Some(local) = world.locals.get_mut(at) else {
            continue;
        };
        if last == Some(place.chain()) && place != Place::Elsewhere {
            let text = format!("{} would get it, but an earlier rule does", title(local));
            story.steps.push(Step::new("rule", text, why));
            continue;
        }
        last = Some(place.chain());
        let told = format!("to {}: {text}", title(local));
        story.steps.push(Step::new("rule", told, why));
        story.instance = Some((local.flavour, local.name.clone()));
        let host = &world.here;
        if view.fragment.is_some() && local.flavour != Flavour::Siit {
            let text = "the kernel puts its fragments together first; the instance gets the whole";
            let why = match local.flavour {
                Flavour::Mapt => "RFC 7599 section 10.2",
                Flavour::Nat64 | Flavour::Siit => "RFC 6146 section 3.4",
            };
            story.steps.push(Step::new("fragment", text, why));
            story.end = End::Fragment;
            return story;
        }
        let (before, steps) = tables::before(&local.instance, host, &view, now);
        story.steps.extend(steps);
        let own = local.instance.nat64();
        if own.is_some_and(|nat64| nat64.pool4().is_empty()) && !host.is_known() {
            let text = "empty: the gateway takes its own addresses, which a file does not tell";
            story.steps.push(Step::new("pool4", text, "pool4"));
        }
        let meta = Meta {
            mark: packet.mark,
            ingress_mtu: u32::MAX,
            reassembled: false,
            from_host: false,
            may_wait: false,
            offload: Offload::NONE,
            host,
        };
        let refused = refused(local);
        let mut out = Output::new();
        let outcome = local.instance.handle(now, &meta, &packet.bytes, &mut out);
        let changes = tables::after(&mut local.instance, &view, &before, packet.mark, now);
        story.steps.extend(changes);
        story.tell(outcome, local, &view, packet, refused, &out);
        if !matches!(story.end, End::Kernel(_)) {
            return story;
        }
    }
    if story.steps.iter().all(|step| step.step != "rule") {
        let text = "there is no instance: the kernel forwards it, or takes it for its own";
        story.steps.push(Step::new("rule", text, ""));
    } else if story.instance.is_none() {
        let text = "no rule takes it: the kernel forwards it, or takes it for its own";
        story.steps.push(Step::new("kernel", text, ""));
    }
    story
}

impl Story {
    /// Adds what came of it.
    fn tell(
        &mut self,
        outcome: Outcome,
        local: &Local,
        view: &View,
        packet: &Packet,
        refused: Refused,
        out: &Output,
    ) {
        let reason = match outcome {
            Outcome::Translated => {
                self.end = End::Translated;
                None
            }
            Outcome::NotOurs(reason) => {
                self.end = End::Kernel(Some(reason));
                Some(reason)
            }
            Outcome::Dropped(reason) => {
                self.end = End::Dropped(reason);
                Some(reason)
            }
            Outcome::Held => {
                self.end = End::Held;
                let text = "another gateway of the cluster is asked first";
                self.steps.push(Step::new("held", text, "ss-enabled"));
                None
            }
        };
        if let Some(reason) = reason {
            let mark = packet.mark;
            self.steps
                .push(because(self.end, reason, local, view, mark, refused));
            if local.instance.settings().ss_enabled && is_asked_about(reason) {
                let text = "other gateways may know the flow: the daemon asks them, this does not";
                self.steps.push(Step::new("cluster", text, "ss-enabled"));
            }
        }
        let sent: Vec<View> = out
            .packets()
            .filter_map(|sent| View::read(sent).ok())
            .collect();
        if outcome == Outcome::Translated
            && let Some(first) = sent.first()
        {
            if first.src.is_ipv6() == view.src.is_ipv6() {
                let text = "its destination is another of ours: translated twice, to and fro";
                let why = match local.flavour {
                    Flavour::Nat64 => "RFC 6146 section 3.8",
                    Flavour::Siit => "RFC 7757 section 4.2.2, eam-hairpin-mode",
                    Flavour::Mapt => "RFC 7599 section 8, fmrt",
                };
                self.steps.push(Step::new("hairpin", text, why));
            }
            let details = differences(view, &sent);
            let details = details.into_iter();
            self.steps
                .extend(details.map(|(step, text, why)| Step::new(step, text, why)));
        }
        for sent in &sent {
            self.steps.push(Step::new("sent", sent.to_string(), ""));
            self.sent.push(sent.to_string());
        }
        for error in out.errors() {
            let kind = error.message.first().copied().unwrap_or_default();
            let code = error.message.get(1).copied().unwrap_or_default();
            let name = IcmpType {
                kind,
                code,
                mtu: None,
            };
            let text = format!("ICMP {} to {}", name.show(error.to), error.to);
            self.steps.push(Step::new(
                "answer",
                text.clone(),
                "RFC 4443 section 2.4, RFC 1812 section 4.3.2",
            ));
            self.sent.push(text);
        }
        #[cfg(test)]
        self.bytes.extend(out.packets().map(<[u8]>::to_vec));
    }
}

/// Why a packet was not translated, and what changes that.
fn because(
    end: End,
    reason: Counter,
    local: &Local,
    view: &View,
    mark: u32,
    before: Refused,
) -> Step {
    let step = match end {
        End::Kernel(_) => "kernel",
        End::Translated | End::Dropped(_) | End::Held | End::Fragment | End::Unreadable(_) => {
            "dropped"
        }
    };
    let now = refused(local);
    let exact = if now.sessions != before.sessions {
        Some("maximum-sessions")
    } else if now.prefix != before.prefix {
        Some("maximum-sessions-per-prefix")
    } else {
        None
    };
    let text = match (reason, exact) {
        (Counter::Unknown, _) if now.pool4 != before.pool4 => {
            "no free IPv4 transport address was found in pool4.".to_owned()
        }
        (Counter::Enomem, Some(limit)) => format!("the limit {limit} is reached."),
        (reason, _) => reason.explanation().to_owned(),
    };
    let text = format!("{}: {text}", reason.name());
    let Some(found) = advice(reason, local.flavour) else {
        return Step::new(step, text, "");
    };
    let protocol = match view.head().protocol {
        Some(Protocol::Tcp) => "tcp",
        Some(Protocol::Udp) => "udp",
        Some(Protocol::Icmp) | None => "icmp",
    };
    let (mut known, mut port) = (Vec::new(), "PORT".to_owned());
    if let Some((_, [_, to])) = view.flow() {
        port = to.to_string();
    }
    if let IpAddr::V4(dst) = view.dst {
        known.push(("ADDRESS#PORT", format!("{dst}#{port}")));
        known.push(("ADDRESS PORT", format!("{dst} {port}")));
    }
    known.push(("PORT HOST", format!("{port} HOST")));
    known.push(("PROTO", protocol.to_owned()));
    known.push(("LIMIT", exact.unwrap_or("maximum-sessions").to_owned()));
    known.push(("SOURCE", view.src.to_string()));
    if mark == 0 {
        known.push((" --mark MARK", String::new()));
    }
    known.push(("MARK", mark.to_string()));
    // Names come last: they may be any words.
    if local.name == DEFAULT_INSTANCE {
        known.push((" -i NAME", String::new()));
    }
    known.push(("JOOL", program(local.flavour).to_owned()));
    known.push(("NAME", local.name.clone()));
    let remedy = known
        .iter()
        .fold(found.remedy.to_owned(), |remedy, (word, value)| {
            remedy.replace(word, value)
        });
    let why = exact.unwrap_or(found.why);
    Step::new(step, text, why).mended(remedy)
}

/// Whether a gateway of a cluster asks the others before it refuses a packet for this.
const fn is_asked_about(reason: Counter) -> bool {
    matches!(
        reason,
        Counter::Syn4Expected
            | Counter::Syn6Expected
            | Counter::Bib4NotFound
            | Counter::SessionNotFound
            | Counter::Adf
    )
}

/// What an instance has refused for want of room so far.
fn refused(local: &Local) -> Refused {
    local
        .instance
        .sessions()
        .map(|nat64| nat64.refused())
        .unwrap_or_default()
}

fn title(local: &Local) -> String {
    format!("{} '{}'", local.flavour.name(), local.name)
}

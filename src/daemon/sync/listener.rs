// SPDX-License-Identifier: GPL-2.0-or-later
//! Hears what peers say and merges it into the tables.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::Talk;
use crate::base::counters::Counter;
use crate::base::prefix::Pool6;
use crate::daemon::portions::politely;
use crate::daemon::traffic::{Origin, Slot, Traffic};
use crate::dataplane::monotonic;
use crate::model::sync::Traffic as Counts;
use crate::nat64::merge::{ForeignSession, Merged, Order, Refusal};
use crate::replica::Socket;
use crate::replica::joold::recent::Recent;
use crate::replica::joold::wire::{self, NotJoold};
use crate::replica::socket::Heard;

pub(super) struct Listener<'a> {
    traffic: &'a Traffic,
    slot: &'a Slot,
    talk: &'a Talk,
    pool6: Pool6,
    recent: Recent,
    /// What was heard and is not merged yet.
    sessions: Vec<ForeignSession>,
    datagrams: u64,
    complaint: Complaint,
}

/// What an operator should look after. Said once a minute: peers send a lot.
#[derive(Default)]
struct Complaint {
    at: Option<Instant>,
    why: Option<String>,
    datagrams: u64,
    sessions: u64,
}

impl<'a> Listener<'a> {
    pub(super) fn new(traffic: &'a Traffic, slot: &'a Slot, talk: &'a Talk, pool6: Pool6) -> Self {
        Self {
            traffic,
            slot,
            talk,
            pool6,
            recent: Recent::new(),
            sessions: Vec::new(),
            datagrams: 0,
            complaint: Complaint::default(),
        }
    }

    /// Listens until the exchange ends.
    pub(super) fn listen(mut self, socket: &Socket) {
        let mut buffer = vec![0; DATAGRAM];
        let mut looked = Instant::now();
        loop {
            let mut heard = socket.wait(&mut buffer);
            // What a socket that is closed has to say means nothing.
            if self.talk.ended.load(Ordering::Relaxed) {
                return;
            }
            while let Ok(Heard::Datagram(length, from)) = heard {
                let datagram = buffer.get(..length).unwrap_or_default();
                self.take(from, datagram);
                if self.sessions.len() >= ENOUGH {
                    break;
                }
                heard = socket.take(&mut buffer);
            }
            if let Err(error) = heard {
                self.complain(1, 0, &error.to_string());
                thread::sleep(RECOVER);
            }
            self.merge();
            if looked.elapsed() >= LOOK_AROUND {
                looked = Instant::now();
                let drops = socket.drops();
                self.talk.counts().lost_in = drops;
            }
            self.complaint.say(&self.slot.name);
        }
    }

    /// Reads a datagram.
    pub(super) fn take(&mut self, from: std::net::SocketAddr, datagram: &[u8]) {
        self.datagrams += 1;
        let mut counts = Counts {
            datagrams_in: 1,
            bytes_in: datagram.len() as u64,
            ..Counts::default()
        };
        if self.recent.repeats(monotonic(), from, datagram) {
            counts.duplicates = 1;
        } else {
            let before = self.sessions.len();
            match wire::decode(self.pool6, datagram, &mut self.sessions) {
                Ok(found) => {
                    let (bad, strange) = (found.malformed.into(), found.strangers.into());
                    counts.sessions_in = (self.sessions.len() - before) as u64 + bad + strange;
                    counts.malformed = bad;
                    counts.refused = strange;
                    if bad > 0 {
                        self.complain(0, bad, &format!("{from} sends what is no session"));
                    }
                    if strange > 0 {
                        self.complain(0, strange, &format!("{from} has another pool6"));
                    }
                }
                Err(error @ (NotJoold::Unknown | NotJoold::ByteOrder)) => {
                    counts.malformed = 1;
                    self.complain(1, 0, &format!("{from}: {error}"));
                }
            }
        }
        self.talk.counts().add(&counts);
    }

    /// Merges what was heard.
    pub(super) fn merge(&mut self) {
        if self.datagrams == 0 {
            return;
        }
        let sessions = std::mem::take(&mut self.sessions);
        let mut counts = Counts::default();
        let mut last = None;
        for chunk in sessions.chunks(PORTION) {
            politely(|| last = self.merge_some(chunk, &mut counts).or(last));
        }
        {
            let mut instance = self.slot.lock();
            let counters = instance.counters_mut();
            counters.add(Counter::JooldPktRcvd, self.datagrams);
            counters.add(Counter::JooldSssRcvd, sessions.len() as u64);
        }
        self.datagrams = 0;
        self.talk.counts().add(&counts);
        if let Some(why) = last {
            self.complain(0, counts.collisions + counts.refused, &why.text());
        }
        self.sessions = sessions;
        self.sessions.clear();
    }

    /// Merges a few sessions while packets wait. Returns what went wrong last.
    fn merge_some(&self, sessions: &[ForeignSession], counts: &mut Counts) -> Option<Wrong> {
        let now = monotonic();
        let mut last = None;
        let mut instance = self.slot.lock();
        if !instance.settings().ss_enabled {
            counts.refused += sessions.len() as u64;
            return Some(Wrong::Off);
        }
        for session in sessions {
            let count = match instance.merge(now, session, Order::Unknown) {
                Some(Merged::New | Merged::Updated) => &mut counts.merged,
                Some(Merged::Unchanged) => &mut counts.unchanged,
                Some(Merged::Displaced | Merged::Collision) => {
                    last = Some(Wrong::Collision);
                    &mut counts.collisions
                }
                Some(Merged::Refused(refusal)) => {
                    if refusal != Refusal::Over {
                        last = Some(Wrong::Refused(refusal));
                    }
                    &mut counts.refused
                }
                None => &mut counts.refused,
            };
            *count += 1;
        }
        self.traffic.publish(self.slot, &mut instance, Origin::Here);
        last
    }

    fn complain(&mut self, datagrams: u64, sessions: u64, why: &str) {
        self.complaint.datagrams += datagrams;
        self.complaint.sessions += sessions;
        self.complaint.why = Some(why.to_owned());
    }
}

/// Why a session of a peer is not here.
#[derive(Clone, Copy)]
enum Wrong {
    Off,
    Collision,
    Refused(Refusal),
}

impl Wrong {
    fn text(self) -> String {
        match self {
            Self::Off => "ss-enabled is false here".to_owned(),
            Self::Collision => "its client has another transport address here".to_owned(),
            Self::Refused(refusal) => refusal.to_string(),
        }
    }
}

impl Complaint {
    fn say(&mut self, instance: &str) {
        let due = self.at.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY);
        let Some(why) = self.why.take_if(|_| due) else {
            return;
        };
        let (datagrams, sessions) = (self.datagrams, self.sessions);
        tracing::warn!(
            instance,
            datagrams,
            sessions,
            why,
            "what peers say does not fit; do they have the same pool6, pool4 and static mappings?"
        );
        *self = Self {
            at: Some(Instant::now()),
            ..Self::default()
        };
    }
}

/// Bytes of the largest datagram.
const DATAGRAM: usize = 1 << 16;

/// Sessions that are merged before more datagrams are read.
const ENOUGH: usize = 1_024;

/// Sessions that are merged while packets wait.
const PORTION: usize = 128;

/// How often it is asked what the kernel had no room for.
const LOOK_AROUND: Duration = Duration::from_secs(1);

const RECOVER: Duration = Duration::from_millis(200);

const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

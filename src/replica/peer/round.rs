// SPDX-License-Identifier: GPL-2.0-or-later
//! A comparison with another node's copy, from the side that wants to learn.
//!
//! Top, groups, buckets: only what differs is asked for, and only so much at a time as can be on
//! its way without harm. The one who asks sets the pace, and asks again for what does not come.
//! A whole transfer is the same thing with everything different; one that was interrupted goes on
//! with whoever is asked next, because what has arrived does not differ any more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::message::{Message, Tag, Top};
use super::record::SessionKey;
use super::seal::NodeId;
use super::shadow::{BUCKETS, GROUPS, Shadow};
use super::stamp::Knowledge;
use crate::base::Tick;

pub(super) struct Round {
    pub(super) peer: NodeId,
    tag: Tag,
    pub(super) began: Tick,
    progress: Tick,
    top: Result<Top, Asked>,
    /// Groups whose buckets are to be compared, and buckets to be fetched.
    groups: VecDeque<u8>,
    buckets: VecDeque<u16>,
    asked_groups: BTreeMap<u8, Asked>,
    asked_buckets: BTreeMap<u16, Fetch>,
    /// How many datagrams may be on their way, and how many a bucket was lately.
    window: usize,
    each: usize,
    /// What the window grows to: less once something was lost.
    most: usize,
    /// How long to wait for an answer, in milliseconds: twice as long as the last one took.
    wait: u64,
    pub(super) fetched: u64,
    /// Records that were news although they should have been known.
    pub(super) mended: u64,
}

/// A question, and when it was asked.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    ask: u32,
    at: Option<Tick>,
}

/// A bucket on its way.
#[derive(Default)]
struct Fetch {
    asked: Asked,
    parts: u16,
    got: BTreeSet<u16>,
    keys: Vec<SessionKey>,
}

/// Numbers the questions of a node. What belongs to an earlier question is not mixed with what
/// belongs to a later one: the table may have changed in between.
#[derive(Debug, Default)]
pub(super) struct Asks(u32);

impl Asks {
    /// Each life begins elsewhere: what is late may answer a question of the life before.
    pub(super) const fn of_life(epoch: u64) -> Self {
        Self((epoch >> 32) as u32)
    }

    pub(super) const fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(1);
        self.0
    }
}

impl Round {
    pub(super) fn new(now: Tick, tag: Tag, peer: NodeId) -> Self {
        Self {
            peer,
            tag,
            began: now,
            progress: now,
            top: Err(Asked::default()),
            groups: VecDeque::new(),
            buckets: VecDeque::new(),
            asked_groups: BTreeMap::new(),
            asked_buckets: BTreeMap::new(),
            window: WINDOW,
            each: BUCKET,
            most: WINDOW_MOST,
            wait: WAIT,
            fetched: 0,
            mended: 0,
        }
    }

    /// Whether nothing has come for so long that another node should be asked.
    pub(super) fn is_stuck(&self, now: Tick) -> bool {
        now.since(self.progress) >= STUCK
    }

    /// What the other one knew when the round began, once everything was compared.
    pub(super) fn outcome(&self) -> Option<&Top> {
        let open = self.groups.is_empty()
            && self.buckets.is_empty()
            && self.asked_groups.is_empty()
            && self.asked_buckets.is_empty();
        self.top.as_ref().ok().filter(|_| open)
    }

    pub(super) fn knowledge(&self) -> Option<&Knowledge> {
        self.top.as_ref().ok().map(|top| &top.knowledge)
    }

    /// The questions to ask now.
    pub(super) fn questions(&mut self, now: Tick, asks: &mut Asks) -> Vec<Message<'static>> {
        let (tag, wait) = (self.tag, self.wait);
        if let Err(asked) = &mut self.top {
            if !asked.is_due(now, wait) {
                return Vec::new();
            }
            if asked.at.is_some() {
                self.wait = longer(wait);
            }
            *asked = Asked::now(now, asks);
            let ask = asked.ask;
            return vec![Message::AskTop { tag, ask }];
        }
        let mut questions = Vec::new();
        let ask = asks.next();
        let asked = Asked { ask, at: Some(now) };
        let mut groups = Vec::new();
        for (group, before) in &mut self.asked_groups {
            if before.is_due(now, wait) {
                *before = asked;
                groups.push(*group);
            }
        }
        let mut again = !groups.is_empty();
        while self.wants_group()
            && let Some(group) = self.groups.pop_front()
        {
            self.asked_groups.insert(group, asked);
            groups.push(group);
        }
        if !groups.is_empty() {
            questions.push(Message::AskGroups { tag, ask, groups });
        }
        let mut buckets = Vec::new();
        for (bucket, fetch) in &mut self.asked_buckets {
            if fetch.asked.is_due(now, wait) {
                *fetch = Fetch::new(asked);
                buckets.push(*bucket);
            }
        }
        if !buckets.is_empty() {
            self.most = (self.most / 2).max(WINDOW);
            self.window = WINDOW;
            again = true;
        }
        if again {
            self.wait = longer(wait);
        }
        while self.wants_bucket()
            && let Some(bucket) = self.buckets.pop_front()
        {
            self.asked_buckets.insert(bucket, Fetch::new(asked));
            buckets.push(bucket);
        }
        if !buckets.is_empty() {
            questions.push(Message::AskBuckets { tag, ask, buckets });
        }
        questions
    }

    fn wants_group(&self) -> bool {
        let room = self.buckets.len() < BUCKETS / GROUPS;
        room && !self.groups.is_empty() && self.asked_groups.len() < GROUPS_AT_ONCE
    }

    fn wants_bucket(&self) -> bool {
        let at_once = (self.window / self.each).clamp(1, BUCKETS_AT_ONCE);
        !self.buckets.is_empty() && self.asked_buckets.len() < at_once
    }

    /// When there is something to ask, or to ask again, or nothing more.
    pub(super) fn deadline(&self) -> Option<Tick> {
        if self.wants_group() || self.wants_bucket() || self.outcome().is_some() {
            return Some(Tick(0));
        }
        let top = self.top.as_ref().err();
        let groups = self.asked_groups.values();
        let buckets = self.asked_buckets.values().map(|fetch| &fetch.asked);
        let asked = top.into_iter().chain(groups).chain(buckets);
        asked.map(|asked| asked.due(self.wait)).min()
    }

    pub(super) fn on_top(&mut self, now: Tick, top: Top, ours: &Shadow) {
        let asked = match &self.top {
            Err(asked) if asked.ask == top.ask => asked,
            _ => return,
        };
        if top.groups.len() != GROUPS {
            return;
        }
        self.wait = asked.took(now);
        let pairs = ours.groups().into_iter().zip(&top.groups).zip(0..);
        let differ = pairs.filter(|((ours, theirs), _)| ours != *theirs);
        self.groups = differ.map(|(_, group)| group).collect();
        self.top = Ok(top);
        self.progress = now;
    }

    pub(super) fn on_group(&mut self, now: Tick, group: u8, digests: &[u64], ours: &Shadow) {
        const EACH: usize = BUCKETS / GROUPS;
        if digests.len() != EACH || self.asked_groups.remove(&group).is_none() {
            return;
        }
        let ours = ours.group(group.into());
        let first = u16::from(group) * EACH as u16;
        let pairs = ours.iter().zip(digests).zip(first..);
        let differ = pairs.filter(|((ours, theirs), _)| ours != theirs);
        self.buckets.extend(differ.map(|(_, bucket)| bucket));
        self.progress = now;
    }

    /// Notes a part of a bucket and what is in it. Once the bucket is complete, everything that
    /// the other one has in it, in order.
    pub(super) fn on_piece(
        &mut self,
        now: Tick,
        (ask, bucket): (u32, u16),
        (part, parts): (u16, u16),
        keys: impl Iterator<Item = SessionKey>,
    ) -> Option<Vec<SessionKey>> {
        let fetch = self.asked_buckets.get_mut(&bucket)?;
        let first = fetch.got.is_empty();
        let ours = fetch.asked.ask == ask && part < parts && (first || fetch.parts == parts);
        if !ours || !fetch.got.insert(part) {
            return None;
        }
        if first {
            self.wait = fetch.asked.took(now);
        }
        fetch.parts = parts;
        fetch.keys.extend(keys);
        // What comes slowly still comes.
        fetch.asked.at = Some(now);
        self.progress = now;
        if fetch.got.len() < usize::from(parts) {
            return None;
        }
        self.fetched += 1;
        self.each = parts.into();
        self.window = (self.window + self.each).min(self.most);
        let mut keys = self.asked_buckets.remove(&bucket)?.keys;
        keys.sort_unstable();
        Some(keys)
    }
}

impl Asked {
    fn now(now: Tick, asks: &mut Asks) -> Self {
        Self {
            ask: asks.next(),
            at: Some(now),
        }
    }

    fn due(&self, wait: u64) -> Tick {
        self.at.map_or(Tick(0), |at| at.after(wait))
    }

    fn is_due(&self, now: Tick, wait: u64) -> bool {
        self.due(wait) <= now
    }

    /// How long to wait for answers, now that the one to this question has come.
    fn took(&self, now: Tick) -> u64 {
        let took = self.at.map_or(0, |at| now.since(at));
        took.saturating_mul(2).clamp(WAIT, WAIT_MOST)
    }
}

/// How long to wait for answers when none came in time: it may be the way that is long.
fn longer(wait: u64) -> u64 {
    (wait * 2).min(WAIT_MOST)
}

impl Fetch {
    fn new(asked: Asked) -> Self {
        Self {
            asked,
            ..Self::default()
        }
    }
}

/// How long to wait for an answer, in milliseconds: at first, which is also the least, and at most.
/// A round trip may take as long as that.
const WAIT: u64 = 250;
const WAIT_MOST: u64 = 1_000;
/// After how long another node is asked.
const STUCK: u64 = 2_000;
/// Questions on their way.
const GROUPS_AT_ONCE: usize = 4;
/// As many as are answered at once.
const BUCKETS_AT_ONCE: usize = 64;
/// Datagrams on their way at first, which stay below what a socket holds by default, and at most.
const WINDOW: usize = 64;
const WINDOW_MOST: usize = 256;
/// Datagrams of a bucket, as long as none has come: with a million sessions.
const BUCKET: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Protocol, Transport4};
    use crate::replica::peer::shadow::{Version, bucket_of};
    use crate::replica::peer::stamp::Stamp;

    fn filled(ports: std::ops::Range<u16>) -> Shadow {
        let mut shadow = Shadow::new([1; 16]);
        for port in ports {
            let key = SessionKey {
                protocol: Protocol::Udp,
                v4: Transport4::new([192, 0, 2, 1].into(), port),
                remote: Transport4::new([198, 51, 100, 1].into(), 53),
            };
            let version = Version {
                stamp: Stamp::new(port.into(), 1),
                installed: true,
            };
            shadow.set(key, version, 1);
        }
        shadow
    }

    /// Answers a question about digests; false if it is none.
    fn compare(
        round: &mut Round,
        now: Tick,
        (ours, theirs): (&Shadow, &Shadow),
        question: &Message<'_>,
    ) -> bool {
        if let Message::AskTop { tag, ask } = question {
            let top = Top {
                tag: *tag,
                ask: *ask,
                groups: theirs.groups().to_vec(),
                ..Top::default()
            };
            round.on_top(now, top, ours);
        } else if let Message::AskGroups { groups, .. } = question {
            for group in groups {
                round.on_group(now, *group, &theirs.group((*group).into()), ours);
            }
        } else {
            return false;
        }
        true
    }

    fn answer(
        round: &mut Round,
        ours: &Shadow,
        theirs: &Shadow,
        question: &Message<'_>,
    ) -> Vec<u16> {
        if compare(round, Tick(1), (ours, theirs), question) {
            return Vec::new();
        }
        let Message::AskBuckets { ask, buckets, .. } = question else {
            panic!("{question:?} is no question");
        };
        let ask = *ask;
        for bucket in buckets {
            let keys = || theirs.bucket(*bucket).map(|(key, _)| key);
            assert!(
                round
                    .on_piece(Tick(1), (ask, *bucket), (1, 2), keys())
                    .is_none()
            );
            assert!(
                round
                    .on_piece(Tick(1), (ask, *bucket), (1, 2), keys())
                    .is_none()
            );
            let stale = (ask.wrapping_sub(1), *bucket);
            assert!(round.on_piece(Tick(1), stale, (0, 2), keys()).is_none());
            let all = round.on_piece(Tick(1), (ask, *bucket), (0, 2), keys());
            let theirs: BTreeSet<_> = keys().collect();
            let twice = theirs.into_iter().flat_map(|key| [key, key]);
            assert!(all.unwrap().into_iter().eq(twice));
        }
        buckets.clone()
    }

    #[test]
    fn only_what_differs_is_fetched() {
        let (ours, theirs) = (filled(0..5_000), filled(0..5_010));
        let mut round = Round::new(Tick(0), 9, 2);
        let mut asks = Asks::default();
        let mut fetched = BTreeSet::new();
        while round.outcome().is_none() {
            for question in round.questions(Tick(1), &mut asks) {
                fetched.extend(answer(&mut round, &ours, &theirs, &question));
            }
        }
        let ours: BTreeSet<_> = (0..BUCKETS as u16)
            .filter(|b| theirs.bucket(*b).any(|(key, _)| ours.get(&key).is_none()))
            .collect();
        assert_eq!(fetched, ours);
        assert!(
            theirs
                .bucket(ours.first().copied().unwrap())
                .all(|(key, _)| { bucket_of(&key) == usize::from(*ours.first().unwrap()) })
        );
    }

    #[test]
    fn a_question_is_asked_again_and_the_rest_waits() {
        let (ours, theirs) = (filled(0..0), filled(0..5_000));
        let mut round = Round::new(Tick(0), 9, 2);
        let mut asks = Asks::default();
        assert_eq!(round.questions(Tick(0), &mut asks).len(), 1);
        assert_eq!(round.questions(Tick(WAIT - 1), &mut asks), []);
        assert_eq!(round.deadline(), Some(Tick(WAIT)));
        let top = round.questions(Tick(WAIT), &mut asks).remove(0);
        answer(&mut round, &ours, &theirs, &top);
        let first = round.questions(Tick(WAIT), &mut asks);
        assert!(
            matches!(&first[..], [Message::AskGroups { groups, .. }] if groups.len() == GROUPS_AT_ONCE)
        );
        assert_eq!(round.questions(Tick(WAIT + 1), &mut asks), []);
        let again = round.questions(Tick(WAIT * 2), &mut asks);
        assert!(
            matches!(&again[..], [Message::AskGroups { groups, .. }] if groups.len() == GROUPS_AT_ONCE)
        );
        assert!(round.is_stuck(Tick(STUCK + 1)));
    }

    /// A comparison over a way on which a question and its answer take so many milliseconds; how
    /// long it takes.
    fn over(trip: u64) -> Option<u64> {
        let (ours, theirs) = (filled(0..0), filled(0..5_000));
        let mut round = Round::new(Tick(0), 9, 2);
        let (mut asks, mut on_the_way) = (Asks::default(), VecDeque::new());
        for now in 0..60_000 {
            while on_the_way.front().is_some_and(|(at, _)| *at <= now) {
                let (_, question) = on_the_way.pop_front()?;
                if let Message::AskBuckets { ask, buckets, .. } = &question {
                    for bucket in buckets {
                        let keys = theirs.bucket(*bucket).map(|(key, _)| key);
                        round.on_piece(Tick(now), (*ask, *bucket), (0, 1), keys);
                    }
                } else {
                    assert!(compare(&mut round, Tick(now), (&ours, &theirs), &question));
                }
            }
            if round.is_stuck(Tick(now)) {
                return None;
            }
            if round.outcome().is_some() {
                return Some(now);
            }
            let questions = round.questions(Tick(now), &mut asks);
            on_the_way.extend(questions.into_iter().map(|q| (now + trip, q)));
        }
        None
    }

    #[test]
    fn the_way_may_be_long() {
        for trip in [0, 1, WAIT - 1, WAIT, WAIT + 50, 400, 600, 900] {
            assert!(over(trip).is_some(), "{trip} ms");
        }
        // With nobody there, another node is asked.
        assert_eq!(over(STUCK), None);
    }

    /// Asks for buckets and has them answered in so many parts; how many were asked for at once.
    fn fetch(round: &mut Round, asks: &mut Asks, now: Tick, parts: u16) -> usize {
        let mut most = 0;
        for question in round.questions(now, asks) {
            if let Message::AskBuckets { ask, buckets, .. } = question {
                most = most.max(buckets.len());
                for (bucket, part) in buckets
                    .iter()
                    .flat_map(|b| (0..parts).map(move |p| (*b, p)))
                {
                    round.on_piece(now, (ask, bucket), (part, parts), std::iter::empty());
                }
            }
        }
        most
    }

    #[test]
    fn more_is_asked_for_while_nothing_is_lost() {
        let mut asks = Asks::default();
        let begin = || {
            let mut round = Round::new(Tick(0), 9, 2);
            round.top = Ok(Top::default());
            round.buckets = (0..BUCKETS as u16).collect();
            round
        };
        let mut round = begin();
        let mut grown: Vec<_> = (0..9)
            .map(|_| fetch(&mut round, &mut asks, Tick(1), 8))
            .collect();
        assert_eq!(grown.remove(0), WINDOW / 8);
        assert_eq!(grown.pop(), Some(WINDOW_MOST / 8));
        // Something is lost: the same is asked for again, and then there is less at once.
        let lost = round.questions(Tick(1), &mut asks);
        assert!(
            matches!(&lost[..], [Message::AskBuckets { buckets, .. }] if buckets.len() == WINDOW_MOST / 8)
        );
        assert_eq!(
            fetch(&mut round, &mut asks, Tick(1 + WAIT), 8),
            WINDOW_MOST / 8
        );
        let mut grown: Vec<_> = (0..9)
            .map(|_| fetch(&mut round, &mut asks, Tick(2 + WAIT), 8))
            .collect();
        assert_eq!(grown.pop(), Some(WINDOW_MOST / 16));
        // Buckets that are large are fetched one by one, and small ones not without limit.
        let mut round = begin();
        fetch(&mut round, &mut asks, Tick(1), WINDOW_MOST as u16 * 2);
        assert_eq!(fetch(&mut round, &mut asks, Tick(1), 1), 1);
        let small: Vec<_> = (0..9)
            .map(|_| fetch(&mut round, &mut asks, Tick(1), 1))
            .collect();
        assert!(small.iter().all(|n| *n <= BUCKETS_AT_ONCE), "{small:?}");
    }
}

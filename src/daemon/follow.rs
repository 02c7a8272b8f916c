// SPDX-License-Identifier: GPL-2.0-or-later
//! Those who follow the sessions of an instance.
//!
//! A follower has an [`Outlet`] of its own. Packets never wait for one, and where there is none a
//! look at a number says so.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::gateway::{Gateway, failure, stateful};
use super::news::News;
use super::outlet::{Inlet, Next, Outlet, outlet};
use super::traffic::Slot;
use crate::model::control::{Failure, Reply};

/// The followers of one instance.
#[derive(Default)]
pub(super) struct Followers {
    count: AtomicUsize,
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    followers: Vec<Follower>,
    next: u64,
    closed: bool,
}

struct Follower {
    id: u64,
    /// Whether it wants to know of the ends of sessions.
    ends: bool,
    outlet: Outlet<Arc<News>>,
}

/// A follower's own end; dropping it ends the following.
pub(super) struct Subscription<'a> {
    followers: &'a Followers,
    id: u64,
    inlet: Inlet<Arc<News>>,
}

impl Followers {
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Tells all followers; never waits for one.
    pub(super) fn tell(&self, news: &Arc<News>) {
        for follower in &self.list().followers {
            let lines = news.count(follower.ends);
            follower.outlet.offer(Arc::clone(news), lines);
        }
    }

    /// One more follower, unless there is nothing to follow any more.
    pub(super) fn subscribe(&self, ends: bool) -> Option<Subscription<'_>> {
        let mut list = self.list();
        if list.closed {
            return None;
        }
        let (id, (outlet, inlet)) = (list.next, outlet());
        list.next += 1;
        list.followers.push(Follower { id, ends, outlet });
        self.count.store(list.followers.len(), Ordering::Relaxed);
        Some(Subscription {
            followers: self,
            id,
            inlet,
        })
    }

    /// Ends all following, for good.
    pub(super) fn close(&self) {
        let mut list = self.list();
        list.closed = true;
        list.followers.clear();
        self.count.store(0, Ordering::Relaxed);
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Subscription<'_> {
    fn drop(&mut self) {
        let mut list = self.followers.list();
        list.followers.retain(|follower| follower.id != self.id);
        let count = list.followers.len();
        self.followers.count.store(count, Ordering::Relaxed);
    }
}

impl Gateway {
    /// Hands out what happens to the sessions of an instance until nobody listens, or there is
    /// nothing left to follow.
    pub(super) fn follow(
        &self,
        slot: &Slot,
        ends: bool,
        reply: &mut dyn FnMut(Reply) -> bool,
    ) -> Result<(), Failure> {
        stateful(&mut slot.lock())?;
        let others: usize = {
            let slots = self.traffic.slots();
            slots.iter().map(|slot| slot.followers.count()).sum()
        };
        if others >= FOLLOWERS {
            return Err(failure(
                libc::EBUSY,
                format!("{others} commands follow sessions already; end one of them first"),
            ));
        }
        if let Some(mut subscription) = slot.followers.subscribe(ends)
            && !relay(&mut subscription.inlet, ends, reply)
        {
            return Ok(());
        }
        Err(self.over(slot))
    }
}

/// Passes news on; false when nobody listens, true when no more will come.
fn relay(inlet: &mut Inlet<Arc<News>>, ends: bool, reply: &mut dyn FnMut(Reply) -> bool) -> bool {
    // An empty line says that the following has begun, and later that it goes on: only by writing
    // do we learn that the other end has hung up, and it does not wait for silence for ever.
    let mut heard = reply(Reply::Events(Vec::new()));
    while heard {
        heard = match inlet.next(SILENCE) {
            Next::News(news) => {
                let mut events = news.events(ends);
                loop {
                    let page: Vec<_> = events.by_ref().take(PAGE).collect();
                    if page.is_empty() {
                        break true;
                    }
                    if !reply(Reply::Events(page)) {
                        break false;
                    }
                }
            }
            Next::Lost(lines) => reply(Reply::Lost(lines)),
            Next::Silence => reply(Reply::Events(Vec::new())),
            Next::Closed => return true,
        };
    }
    false
}

/// Followers at a time: each keeps one of the seats of the control socket, and others need some,
/// too.
const FOLLOWERS: usize = 16;

/// Events a line.
const PAGE: usize = 500;

const SILENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Protocol;
    use crate::daemon::news::tests::everything;

    #[test]
    fn each_follower_hears_what_it_asked_for_until_the_end() {
        let followers = Followers::default();
        let news = Arc::new(everything(Protocol::Tcp));
        followers.tell(&news);
        let mut all: Vec<_> = [false, true]
            .map(|ends| (ends, followers.subscribe(ends).unwrap(), Vec::new()))
            .into();
        assert_eq!(followers.count(), 2);
        followers.tell(&news);
        followers.close();
        assert_eq!(followers.count(), 0);
        assert!(followers.subscribe(true).is_none());
        for (ends, subscription, heard) in &mut all {
            let mut listen = |reply| {
                heard.push(reply);
                true
            };
            assert!(relay(&mut subscription.inlet, *ends, &mut listen));
            let events: Vec<_> = news.events(*ends).collect();
            assert_eq!(*heard, [Reply::Events(Vec::new()), Reply::Events(events)]);
        }
    }

    #[test]
    fn who_hangs_up_is_forgotten() {
        let followers = Followers::default();
        let mut gone = followers.subscribe(true).unwrap();
        let stays = followers.subscribe(true).unwrap();
        followers.tell(&Arc::new(everything(Protocol::Udp)));
        let mut left = 2;
        let mut listen = |_| {
            left -= 1;
            left > 0
        };
        assert!(!relay(&mut gone.inlet, true, &mut listen));
        assert_eq!(left, 0);
        drop(gone);
        assert_eq!(followers.count(), 1);
        drop(stays);
        assert_eq!(followers.count(), 0);
    }

    #[test]
    fn long_news_are_cut_into_lines_of_bounded_length() {
        let followers = Followers::default();
        let mut subscription = followers.subscribe(true).unwrap();
        let mut news = everything(Protocol::Udp);
        let event = news.changes.remove(2);
        news.changes = vec![event; 2 * PAGE + 1];
        followers.tell(&Arc::new(news));
        followers.close();
        let mut lengths = Vec::new();
        relay(&mut subscription.inlet, true, &mut |reply| {
            let Reply::Events(events) = reply else {
                panic!("{reply:?}");
            };
            lengths.push(events.len());
            true
        });
        assert_eq!(lengths, [0, PAGE, PAGE, 1]);
    }
}

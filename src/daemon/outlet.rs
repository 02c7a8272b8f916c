// SPDX-License-Identifier: GPL-2.0-or-later
//! A way out for news that never holds up whoever brings them.
//!
//! Packets do not wait for readers. What a reader is too slow for is not kept but counted, and
//! the reader is told how much it missed where it missed it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

/// The end of those who bring news. To drop it closes the way.
pub(super) struct Outlet<T> {
    sender: SyncSender<Item<T>>,
    shared: Arc<Shared>,
}

/// The reader's end.
pub(super) struct Inlet<T> {
    receiver: Receiver<Item<T>>,
    shared: Arc<Shared>,
    /// What comes behind [`Next::Lost`].
    pending: Option<T>,
}

/// What a reader finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<T> {
    News(T),
    /// So many lines were missed here.
    Lost(u64),
    /// Nothing happened for a while.
    Silence,
    /// Nothing will come any more.
    Closed,
}

struct Item<T> {
    news: T,
    lines: usize,
    /// Lines that were missed before it.
    lost: u64,
}

#[derive(Default)]
struct Shared {
    /// Lines that wait.
    waiting: AtomicUsize,
    lost: AtomicU64,
}

/// Makes both ends.
pub(super) fn outlet<T>() -> (Outlet<T>, Inlet<T>) {
    let (sender, receiver) = mpsc::sync_channel(ITEMS);
    let shared = Arc::<Shared>::default();
    let outlet = Outlet {
        sender,
        shared: Arc::clone(&shared),
    };
    let inlet = Inlet {
        receiver,
        shared,
        pending: None,
    };
    (outlet, inlet)
}

impl<T> Outlet<T> {
    /// Hands over news of so many lines, or counts them as lost. Never waits.
    ///
    /// However many lines they are, they are taken when there is room for one: nothing that ends
    /// a million sessions at once would ever find room for all.
    pub(super) fn offer(&self, news: T, lines: usize) {
        if lines == 0 {
            return;
        }
        let Shared { waiting, lost } = &*self.shared;
        if waiting.load(Ordering::Relaxed) >= LINES {
            lost.fetch_add(lines as u64, Ordering::Relaxed);
            return;
        }
        let before = lost.swap(0, Ordering::Relaxed);
        waiting.fetch_add(lines, Ordering::Relaxed);
        let item = Item {
            news,
            lines,
            lost: before,
        };
        if self.sender.try_send(item).is_err() {
            waiting.fetch_sub(lines, Ordering::Relaxed);
            lost.fetch_add(before + lines as u64, Ordering::Relaxed);
        }
    }
}

impl<T> Inlet<T> {
    /// Waits for what comes next, but not longer than `patience`.
    pub(super) fn next(&mut self, patience: Duration) -> Next<T> {
        if let Some(news) = self.pending.take() {
            return Next::News(news);
        }
        let (lost, end) = match self.receiver.recv_timeout(patience) {
            Ok(item) => {
                self.shared.waiting.fetch_sub(item.lines, Ordering::Relaxed);
                if item.lost == 0 {
                    return Next::News(item.news);
                }
                self.pending = Some(item.news);
                return Next::Lost(item.lost);
            }
            Err(RecvTimeoutError::Timeout) => (self.take_lost(), Next::Silence),
            Err(RecvTimeoutError::Disconnected) => (self.take_lost(), Next::Closed),
        };
        if lost == 0 { end } else { Next::Lost(lost) }
    }

    fn take_lost(&self) -> u64 {
        self.shared.lost.swap(0, Ordering::Relaxed)
    }
}

/// How many lines may wait for a reader.
const LINES: usize = 65_536;

/// In how many pieces.
const ITEMS: usize = 8_192;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn news_come_in_order_until_the_way_is_closed() {
        let (outlet, mut inlet) = outlet();
        outlet.offer("one", 1);
        outlet.offer("nothing", 0);
        outlet.offer("two", 2);
        assert_eq!(inlet.next(NOW), Next::News("one"));
        assert_eq!(inlet.next(NOW), Next::News("two"));
        assert_eq!(inlet.next(NOW), Next::Silence);
        outlet.offer("three", 1);
        drop(outlet);
        assert_eq!(inlet.next(NOW), Next::News("three"));
        assert_eq!(inlet.next(NOW), Next::Closed);
    }

    #[test]
    fn a_reader_that_is_too_slow_hears_what_it_missed_where_it_missed_it() {
        let (outlet, mut inlet) = outlet();
        outlet.offer(1, LINES - 1);
        // One place is left, which is enough for any number of lines.
        outlet.offer(2, LINES);
        outlet.offer(3, 5);
        outlet.offer(4, 6);
        assert_eq!(inlet.next(NOW), Next::News(1));
        assert_eq!(inlet.next(NOW), Next::News(2));
        outlet.offer(5, 1);
        assert_eq!(inlet.next(NOW), Next::Lost(11));
        assert_eq!(inlet.next(NOW), Next::News(5));
        assert_eq!(inlet.next(NOW), Next::Silence);
    }

    #[test]
    fn what_was_lost_last_is_told_without_anything_behind_it() {
        let (outlet, mut inlet) = outlet();
        for n in 0..ITEMS + 2 {
            outlet.offer(n, 1);
        }
        for n in 0..ITEMS {
            assert_eq!(inlet.next(NOW), Next::News(n));
        }
        assert_eq!(inlet.next(NOW), Next::Lost(2));
        assert_eq!(inlet.next(NOW), Next::Silence);
        for n in 0..=ITEMS {
            outlet.offer(n, 1);
        }
        drop(outlet);
        for n in 0..ITEMS {
            assert_eq!(inlet.next(NOW), Next::News(n));
        }
        assert_eq!(inlet.next(NOW), Next::Lost(1));
        assert_eq!(inlet.next(NOW), Next::Closed);
    }
}

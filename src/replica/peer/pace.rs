// SPDX-License-Identifier: GPL-2.0-or-later
//! A token bucket: so many bytes a second, and a little more at once.

use crate::base::Tick;

#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes a second.
    rate: u64,
    /// In thousandths of bytes, so that no millisecond is lost. Negative after the last datagram
    /// that was allowed.
    tokens: i64,
    most: i64,
    at: Tick,
}

impl Pace {
    pub(super) const fn new(now: Tick, rate: u64) -> Self {
        // What a socket's buffer takes in any case.
        let least = 64 * 1_024 * 1_000;
        let burst = rate.saturating_mul(BURST) as i64;
        let most = if burst > least { burst } else { least };
        Self {
            rate,
            tokens: most,
            most,
            at: now,
        }
    }

    /// Whether something may be sent now.
    pub(super) fn allows(&mut self, now: Tick) -> bool {
        let more = self.rate.saturating_mul(now.since(self.at));
        self.tokens = self.tokens.saturating_add_unsigned(more).min(self.most);
        self.at = self.at.max(now);
        self.tokens > 0
    }

    /// When to ask again.
    pub(super) const fn next(&self) -> Tick {
        self.at.after(1)
    }

    /// Something was sent.
    pub(super) const fn spend(&mut self, bytes: usize) {
        self.tokens = self.tokens.saturating_sub_unsigned(bytes as u64 * 1_000);
    }
}

/// Milliseconds of the rate that may go out at once: what fits into buffers on the way.
const BURST: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_goes_out_than_the_rate() {
        let mut pace = Pace::new(Tick(0), 1_000_000);
        let mut sent = 0;
        for now in 0..1_000 {
            while pace.allows(Tick(now)) {
                pace.spend(1_400);
                sent += 1_400;
            }
        }
        assert!((1_000_000..1_100_000).contains(&sent), "{sent}");
    }
}

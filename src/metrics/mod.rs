// SPDX-License-Identifier: GPL-2.0-or-later
//! Floor 5: the daemon's numbers for Prometheus.
//!
//! Knows which metrics there are, how they are written, and how they are asked for by HTTP; where
//! the numbers come from is [`Source`]'s affair.

mod endpoint;
mod names;
mod page;
mod reason;

pub use self::endpoint::{Address, BindError, Endpoint, NotAnAddress, Source};
pub use self::names::{Kind, Metric};
pub use self::page::{Buckets, Page};
pub use self::reason::reason;

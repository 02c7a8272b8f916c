// SPDX-License-Identifier: GPL-2.0-or-later
//! What happened, in numbers. Others print them.

pub use crate::model::cluster::Stats;

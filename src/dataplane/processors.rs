// SPDX-License-Identifier: GPL-2.0-or-later
//! Which processors workers run on.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// If `pin`, keeps this thread, the `index`-th worker, on one of the processors that it may use. More
/// workers than processors share them.
pub(super) fn stay(pin: bool, index: usize) {
    if pin && let Err(error) = keep_on(index) {
        // It works as well elsewhere.
        tracing::warn!(%error, "worker {index} cannot be kept on one processor");
    }
}

fn keep_on(index: usize) -> io::Result<()> {
    let usable = sched_getaffinity(None)?;
    let usable = (0..CpuSet::MAX_CPU).filter(|processor| usable.is_set(*processor));
    let mut only = CpuSet::new();
    let usable: Vec<_> = usable.collect();
    if let Some(processor) = usable.iter().cycle().nth(index) {
        only.set(*processor);
    }
    Ok(sched_setaffinity(None, &only)?)
}

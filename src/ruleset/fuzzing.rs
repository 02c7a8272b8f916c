// SPDX-License-Identifier: GPL-2.0-or-later
//! The parsers, for fuzz targets and tests; no other build has this.

/// What the kernel says to a batch of changes, and when it is asked for a table.
pub fn answers(datagram: &[u8]) {
    super::commit::understand(datagram);
    let _ = super::watch::describes_table(datagram);
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! How the memory of large tables grows.

/// Has large blocks of memory come from the kernel singly, always.
///
/// The allocator of the C library begins to cut ever larger blocks out of one heap as soon as one
/// was freed, and a table in a heap is copied when it grows: with half a million sessions, packets
/// wait 13 ms for that. Blocks of their own are extended in place.
#[expect(unsafe_code)]
pub(super) fn keep_large_blocks_apart() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes two numbers. It fails by leaving everything as it was, which is only slower.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// In bytes: where the allocator itself begins.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 128 << 10;

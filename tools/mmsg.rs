// SPDX-License-Identifier: GPL-2.0-or-later
//! The system calls of `traffic.rs` that neither std nor rustix wraps, each in a safe function.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::{mem, ptr};

/// Datagrams that cross into the kernel with one system call.
pub(super) const BURST: usize = 64;

/// One datagram of a burst, and where it came from or goes to.
#[derive(Clone)]
pub(super) struct Datagram {
    pub(super) bytes: Vec<u8>,
    pub(super) len: usize,
    peer: libc::sockaddr_storage,
    /// 0: to whom the socket is connected.
    peer_len: libc::socklen_t,
}

impl Datagram {
    #[allow(unsafe_code)]
    pub(super) fn new(len: usize) -> Self {
        Self {
            bytes: vec![0; len],
            len,
            // Safety: all zeroes is valid for this C structure.
            peer: unsafe { mem::zeroed() },
            peer_len: 0,
        }
    }
}

/// Sends up to [`BURST`] datagrams with one system call; says how many went.
#[allow(unsafe_code)]
pub(super) fn send_many(socket: BorrowedFd<'_>, datagrams: &[Datagram]) -> io::Result<usize> {
    // Safety: all zeroes is valid for these C structures.
    let mut vectors: [libc::iovec; BURST] = unsafe { mem::zeroed() };
    // Safety: as above.
    let mut headers: [libc::mmsghdr; BURST] = unsafe { mem::zeroed() };
    let slots = vectors.iter_mut().zip(&mut headers).zip(datagrams);
    for ((vector, header), datagram) in slots {
        vector.iov_base = datagram.bytes.as_ptr().cast_mut().cast();
        vector.iov_len = datagram.len.min(datagram.bytes.len());
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
        if datagram.peer_len > 0 {
            header.msg_hdr.msg_name = (&raw const datagram.peer).cast_mut().cast();
            header.msg_hdr.msg_namelen = datagram.peer_len;
        }
    }
    let number = datagrams.len().min(BURST) as libc::c_uint;
    // Safety: that many headers were filled in, with pointers to vectors, bytes and addresses that
    // outlive the call and that sending only reads.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), number, 0) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Waits for a datagram and takes all that are there, at most [`BURST`], with one system call.
#[allow(unsafe_code)]
pub(super) fn receive_many(
    socket: BorrowedFd<'_>,
    datagrams: &mut [Datagram],
) -> io::Result<usize> {
    // Safety: all zeroes is valid for these C structures.
    let mut vectors: [libc::iovec; BURST] = unsafe { mem::zeroed() };
    // Safety: as above.
    let mut headers: [libc::mmsghdr; BURST] = unsafe { mem::zeroed() };
    let slots = vectors.iter_mut().zip(&mut headers);
    for ((vector, header), datagram) in slots.zip(&mut *datagrams) {
        vector.iov_base = datagram.bytes.as_mut_ptr().cast();
        vector.iov_len = datagram.bytes.len();
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_name = (&raw mut datagram.peer).cast();
        header.msg_hdr.msg_namelen = size_of_val(&datagram.peer) as libc::socklen_t;
    }
    let number = datagrams.len().min(BURST) as libc::c_uint;
    // Safety: that many headers were filled in, with pointers to vectors, bytes and addresses that
    // outlive the call; bytes and addresses are borrowed mutably, and their lengths are right.
    let got = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            number,
            libc::MSG_WAITFORONE as _,
            ptr::null_mut(),
        )
    };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    for (datagram, header) in datagrams.iter_mut().zip(&headers).take(got) {
        datagram.len = header.msg_len as usize;
        // Never more than was filled in, whatever the kernel would have liked to say.
        let most = size_of_val(&datagram.peer) as libc::socklen_t;
        datagram.peer_len = header.msg_hdr.msg_namelen.min(most);
    }
    Ok(got)
}

/// How many datagrams found no room in a socket.
#[allow(unsafe_code)]
pub(super) fn dropped(socket: BorrowedFd<'_>) -> io::Result<u32> {
    /// Of the numbers that the kernel fills in (`SK_MEMINFO_DROPS`).
    const DROPS: usize = 8;
    let mut numbers = [0_u32; DROPS + 1];
    let mut len = size_of_val(&numbers) as libc::socklen_t;
    // Safety: pointer and length describe an array that lives through the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(numbers[DROPS])
}

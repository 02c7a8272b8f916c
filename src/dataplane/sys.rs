// SPDX-License-Identifier: GPL-2.0-or-later
//! The system calls that neither std nor rustix wraps, each in a safe function.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use crate::base::Tick;

/// A network interface name, zero-terminated and padded.
pub(super) type Name = [u8; libc::IFNAMSIZ];

/// `struct ifreq` as far as it is used here.
#[repr(C)]
#[derive(Clone, Copy)]
struct Request {
    name: Name,
    value: Value,
}

/// The flags of `TUNSETIFF` (a short) and the MTU of `SIOCGIFMTU` (an int) share the room.
#[repr(C)]
#[derive(Clone, Copy)]
union Value {
    flags: libc::c_short,
    number: libc::c_int,
    /// The kernel copies the whole structure, whatever it uses of it.
    room: [u8; 24],
}

/// Attaches an open `/dev/net/tun` to the device `name`, which is made if there is none.
#[allow(unsafe_code)]
pub(super) fn tun_attach(fd: BorrowedFd<'_>, name: Name, flags: i32) -> io::Result<()> {
    let mut request = Request {
        name,
        value: Value { room: [0; 24] },
    };
    // The flags are defined as int but all fit the short that carries them.
    request.value.flags = flags as libc::c_short;
    // Safety: the pointer is to a whole, initialised ifreq that lives through the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) })
}

/// The device that a queue belongs to; an error for what is no such queue.
#[allow(unsafe_code)]
pub(super) fn tun_name(fd: BorrowedFd<'_>) -> io::Result<Name> {
    let mut request = Request {
        name: [0; libc::IFNAMSIZ],
        value: Value { room: [0; 24] },
    };
    // Safety: the pointer is to a whole, initialised ifreq that lives through the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF as _, &raw mut request) })?;
    Ok(request.name)
}

/// Whether the device of this queue stays when its last queue is closed.
#[allow(unsafe_code)]
pub(super) fn tun_persist(fd: BorrowedFd<'_>, persist: bool) -> io::Result<()> {
    // Safety: takes a plain number.
    check(unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            libc::TUNSETPERSIST as _,
            libc::c_ulong::from(persist),
        )
    })
}

/// Says which offloads (`TUN_F_*`) the reader of this queue is ready for.
#[allow(unsafe_code)]
pub(super) fn tun_offload(fd: BorrowedFd<'_>, offload: u32) -> io::Result<()> {
    // Safety: takes a plain number.
    check(unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            libc::TUNSETOFFLOAD as _,
            libc::c_ulong::from(offload),
        )
    })
}

/// Sets the length of the virtio header in front of every packet, in bytes.
#[allow(unsafe_code)]
pub(super) fn tun_header(fd: BorrowedFd<'_>, len: usize) -> io::Result<()> {
    let len = libc::c_int::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    // Safety: the pointer is to an int that lives through the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &raw const len) })
}

/// The MTU of the device `name`, in bytes; any socket will do.
#[allow(unsafe_code)]
pub(super) fn mtu(socket: BorrowedFd<'_>, name: Name) -> io::Result<u32> {
    let mut request = Request {
        name,
        value: Value { room: [0; 24] },
    };
    // Safety: the pointer is to a whole, initialised ifreq that lives through the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU as _, &raw mut request) })?;
    // Safety: every bit pattern is a valid int, and the room was initialised.
    let mtu = unsafe { request.value.number };
    u32::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// `name` in the form the kernel wants; `None` when it is empty, too long or has a zero byte.
pub(super) fn device_name(name: &str) -> Option<Name> {
    let mut out = [0; libc::IFNAMSIZ];
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.contains(&0) || bytes.contains(&b'/') {
        return None;
    }
    // The last byte stays zero.
    out[..libc::IFNAMSIZ - 1]
        .get_mut(..bytes.len())?
        .copy_from_slice(bytes);
    Some(out)
}

/// A raw socket that sends ICMP (or ICMPv6) and receives nothing.
#[allow(unsafe_code)]
pub(super) fn icmp_filter_all(socket: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    const ICMP_FILTER: libc::c_int = 1;
    const ICMP6_FILTER: libc::c_int = 1;
    // A set bit blocks the type, in both families.
    let all = [u32::MAX; 8];
    let (level, option, len) = if v6 {
        (libc::IPPROTO_ICMPV6, ICMP6_FILTER, size_of_val(&all))
    } else {
        (libc::SOL_RAW, ICMP_FILTER, size_of::<u32>())
    };
    // Safety: pointer and length describe (the start of) an array that lives through the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            all.as_ptr().cast(),
            len as libc::socklen_t,
        )
    })
}

/// A number for the network namespace of a socket; `None` before Linux 5.14.
#[allow(unsafe_code)]
pub(super) fn namespace_cookie(socket: BorrowedFd<'_>) -> Option<u64> {
    let mut cookie = 0_u64;
    let mut len = size_of_val(&cookie) as libc::socklen_t;
    // Safety: pointer and length describe a u64 that lives through the call.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    })
    .ok()?;
    Some(cookie)
}

/// Shows `visit` every descriptor that is open in this process, until it returns something.
#[allow(unsafe_code)]
pub(super) fn find_descriptor<T>(
    mut visit: impl FnMut(BorrowedFd<'_>) -> Option<T>,
) -> io::Result<Option<T>> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|n| n.parse::<RawFd>().ok()) else {
            continue;
        };
        // Safety: it may be closed or reused by another thread while it is looked at; then
        // system calls fail with EBADF or are about another file, nothing worse. Visitors must
        // make sure what it is before they change anything.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        if let Some(found) = visit(fd) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Receives up to `lens.len()` datagrams without waiting, the n-th into the n-th `stride` bytes
/// of `buffer`; says how many there were and puts their lengths into `lens`.
///
/// A datagram that did not fit has length 0.
#[allow(unsafe_code)]
pub(super) fn receive_many<const N: usize>(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    stride: usize,
    lens: &mut [usize; N],
) -> io::Result<usize> {
    let mut slots = buffer.chunks_exact_mut(stride);
    // Safety: all zeroes is valid for these C structures.
    let mut vectors: [libc::iovec; N] = unsafe { mem::zeroed() };
    // Safety: as above.
    let mut headers: [libc::mmsghdr; N] = unsafe { mem::zeroed() };
    let mut room = 0;
    for (vector, header) in vectors.iter_mut().zip(&mut headers) {
        let Some(slot) = slots.next() else { break };
        vector.iov_base = slot.as_mut_ptr().cast();
        vector.iov_len = slot.len();
        header.msg_hdr.msg_iov = ptr::from_mut(vector);
        header.msg_hdr.msg_iovlen = 1;
        room += 1;
    }
    // Safety: the first `room` headers point to vectors that point to disjoint parts of `buffer`,
    // which is borrowed mutably through the call.
    let got = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            room,
            libc::MSG_DONTWAIT as _,
            ptr::null_mut(),
        )
    };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    for (len, header) in lens.iter_mut().zip(&headers).take(got) {
        let whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
        *len = if whole { header.msg_len as usize } else { 0 };
    }
    Ok(got)
}

/// Milliseconds since the system started, time spent suspended included.
#[allow(unsafe_code)]
pub(super) fn boottime() -> Tick {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // Safety: the pointer is to a timespec that lives through the call. CLOCK_BOOTTIME exists
    // since Linux 2.6.39, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let millis = u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000;
    Tick(seconds * 1000 + millis)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

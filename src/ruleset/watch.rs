// SPDX-License-Identifier: GPL-2.0-or-later
//! Notices when somebody else takes our rules away, as `nft flush ruleset` does.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

use super::{Error, Mode};

/// Hears of every change of nftables in this network namespace.
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl Watch {
    /// Begins to listen.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<Self, Error> {
        netlink(1 << (libc::NFNLGRP_NFTABLES - 1)).map(Self)
    }

    /// Waits for changes, a second at most; says whether there were any. What they were is not
    /// looked at: whether our rules are [`present`] is what counts.
    pub fn wait(&self) -> bool {
        const SECOND: Timespec = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        let mut ready = [PollFd::new(&self.0, PollFlags::IN)];
        if !poll(&mut ready, Some(&SECOND)).is_ok_and(|count| count > 0) {
            return false;
        }
        let mut buffer = [0; 8192];
        // An overrun ends it, too; it means no less than an announcement.
        while recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT).is_ok() {}
        true
    }
}

/// Whether our tables exist.
///
/// # Errors
/// [`Error::Socket`] when the kernel cannot be asked.
pub fn present(mode: Mode) -> Result<bool, Error> {
    let families: &[libc::c_int] = match mode {
        Mode::Native => &[libc::NFPROTO_INET],
        Mode::Compat => &[libc::NFPROTO_IPV4, libc::NFPROTO_IPV6],
    };
    let socket = netlink(0)?;
    for family in families {
        if !has_table(&socket, *family as u8)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn has_table(socket: &OwnedFd, family: u8) -> Result<bool, Error> {
    let trouble = |error: rustix::io::Errno| Error::Socket(error.into());
    // struct nlmsghdr, struct nfgenmsg, then the attribute NFTA_TABLE_NAME.
    let name = b"tylo\0\0\0\0";
    let attribute = 4 + 5u16;
    let length = 16 + 4 + 4 + name.len() as u32;
    let kind = (libc::NFNL_SUBSYS_NFTABLES << 8 | libc::NFT_MSG_GETTABLE) as u16;
    let mut request = Vec::with_capacity(length as usize);
    request.extend(length.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    request.extend([0; 8]);
    request.extend([family, 0, 0, 0]);
    request.extend(attribute.to_ne_bytes());
    request.extend(NFTA_TABLE_NAME.to_ne_bytes());
    request.extend(name);
    send(socket, &request, SendFlags::empty()).map_err(trouble)?;
    let mut reply = [0; 4096];
    // The kernel answers within the call to `send`.
    let (_, length) = recv(socket, &mut reply[..], RecvFlags::DONTWAIT).map_err(trouble)?;
    describes_table(reply.get(..length).unwrap_or_default())
}

/// Whether an answer is about a table, or says that there is none.
pub(super) fn describes_table(reply: &[u8]) -> Result<bool, Error> {
    let Some((head, _)) = reply.split_first_chunk::<20>() else {
        return Ok(false);
    };
    if i32::from(u16::from_ne_bytes([head[4], head[5]])) != libc::NLMSG_ERROR {
        return Ok(true);
    }
    let code = i32::from_ne_bytes([head[16], head[17], head[18], head[19]]);
    if code == -libc::ENOENT {
        return Ok(false);
    }
    let error = io::Error::from_raw_os_error(code.wrapping_neg());
    Err(Error::Socket(error))
}

/// From linux/netfilter/nf_tables.h.
const NFTA_TABLE_NAME: u16 = 1;

fn netlink(groups: u32) -> Result<OwnedFd, Error> {
    let open = || -> rustix::io::Result<OwnedFd> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(NETFILTER),
        )?;
        bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(socket)
    };
    open().map_err(|error| Error::Socket(error.into()))
}

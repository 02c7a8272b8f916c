// SPDX-License-Identifier: GPL-2.0-or-later
//! Floor 5: the daemon's end of the control protocol.
//!
//! Listens on a socket in the abstract namespace, which belongs to a network namespace: binding
//! it is also what makes a daemon the only one there. Reads requests, asks the [`Service`], writes
//! replies; knows nothing of what they mean, except who may ask.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net as unix;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};

use crate::model::control::{Command, Failure, REQUEST_MAX, Reply, Request, SOCKET, VERSION};

/// Whoever carries requests out.
pub trait Service: Send + Sync + 'static {
    /// Carries out a request; may block. Rows go to `reply`, which returns false once nobody
    /// listens any more; [`Reply::Done`] and [`Reply::Error`] are sent by the caller.
    ///
    /// # Errors
    /// What the asker is told.
    fn call(&self, request: Request, reply: &mut dyn FnMut(Reply) -> bool) -> Result<(), Failure>;
}

/// Binds the socket of this network namespace.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] when a daemon runs here already.
pub fn bind() -> io::Result<unix::UnixListener> {
    let name = unix::SocketAddr::from_abstract_name(SOCKET)?;
    let listener = unix::UnixListener::bind_addr(&name)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The process that has the socket of this network namespace, when [`bind`] says that it is in
/// use.
pub fn holder() -> Option<i32> {
    let name = unix::SocketAddr::from_abstract_name(SOCKET).ok()?;
    let stream = unix::UnixStream::connect_addr(&name).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    Some(peer.pid.as_raw_nonzero().get())
}

/// Serves until the future is dropped.
///
/// # Errors
/// The listener cannot be used at all.
pub async fn serve(listener: unix::UnixListener, service: Arc<dyn Service>) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let admins = group_id(ADMIN_GROUP);
    let admin_seats = Arc::new(Semaphore::new(CONNECTIONS));
    let guest_seats = Arc::new(Semaphore::new(GUESTS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a control connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let admin = is_admin(&stream, admins);
        let seats = Arc::clone(if admin { &admin_seats } else { &guest_seats });
        let service = Arc::clone(&service);
        tokio::spawn(async move {
            let result = if admin {
                let _seat = seats.acquire_owned().await;
                converse(stream, service, true).await
            } else if let Ok(_seat) = seats.try_acquire_owned() {
                let talk = converse(stream, service, false);
                tokio::time::timeout(GUEST_TIME, talk)
                    .await
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            } else {
                turn_away(stream).await
            };
            if let Err(error) = result {
                tracing::debug!(%error, "a control connection broke");
            }
        });
    }
}

/// Whether root or a member of the group is at the other end.
fn is_admin(stream: &UnixStream, admins: Option<u32>) -> bool {
    stream.peer_cred().is_ok_and(|peer| {
        peer.uid() == 0
            || admins
                .is_some_and(|gid| peer.gid() == gid || peer_groups(stream.as_fd()).contains(&gid))
    })
}

async fn turn_away(mut stream: UnixStream) -> io::Result<()> {
    let message = format!("{GUESTS} users without rights are served already; try again later");
    let failure = Failure {
        code: EAGAIN,
        message,
    };
    stream.write_all(&encode(&Reply::Error(failure))).await
}

async fn converse(stream: UnixStream, service: Arc<dyn Service>, admin: bool) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut read).take(REQUEST_MAX as u64);
        let length = limited.read_until(b'\n', &mut line).await?;
        if length == 0 {
            return Ok(());
        }
        let request = match understand(&line, admin) {
            Ok(request) => request,
            Err(failure) => {
                write.write_all(&encode(&Reply::Error(failure))).await?;
                if line.last() != Some(&b'\n') {
                    // The rest of an endless line is not worth reading.
                    return Ok(());
                }
                continue;
            }
        };
        let (sender, mut replies) = mpsc::channel(REPLIES);
        let service = Arc::clone(&service);
        let work = tokio::task::spawn_blocking(move || {
            let mut reply = |r: Reply| sender.blocking_send(r).is_ok();
            let last = match service.call(request, &mut reply) {
                Ok(()) => Reply::Done,
                Err(failure) => Reply::Error(failure),
            };
            reply(last);
        });
        while let Some(reply) = replies.recv().await {
            write.write_all(&encode(&reply)).await?;
        }
        work.await?;
    }
}

fn understand(line: &[u8], admin: bool) -> Result<Request, Failure> {
    let failure = |code, message: String| Failure { code, message };
    let request: Request = serde_json::from_slice(line).map_err(|error| {
        failure(EPROTO, format!("the daemon does not understand this request ({error}); are command and daemon of the same version?"))
    })?;
    if request.version != VERSION {
        let message = format!(
            "the command speaks protocol version {} but the daemon {VERSION}; install the same version of both",
            request.version
        );
        return Err(failure(EPROTO, message));
    }
    let public = matches!(
        request.command,
        Command::StatsDisplay | Command::Health | Command::InstanceStatus
    );
    if !public && !admin {
        return Err(failure(
            EPERM,
            format!("this needs root or membership in the group '{ADMIN_GROUP}'; try sudo"),
        ));
    }
    Ok(request)
}

fn encode(reply: &Reply) -> Vec<u8> {
    let mut line = serde_json::to_vec(reply).unwrap_or_else(|error| {
        format!(r#"{{"error":{{"code":{EPROTO},"message":"reply lost: {error}"}}}}"#).into_bytes()
    });
    line.push(b'\n');
    line
}

/// The number of a group in `/etc/group`.
fn group_id(name: &str) -> Option<u32> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// The supplementary groups of whoever connected.
#[allow(unsafe_code)]
fn peer_groups(socket: BorrowedFd<'_>) -> Vec<u32> {
    let mut groups = vec![0u32; 1024];
    let mut size = (groups.len() * size_of::<u32>()) as libc::socklen_t;
    // Safety: the kernel writes at most `size` bytes into `groups`, which is that large, and
    // stores how many it wrote in `size`; the descriptor is open for the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            groups.as_mut_ptr().cast(),
            &raw mut size,
        )
    };
    let count = if result == 0 {
        size as usize / size_of::<u32>()
    } else {
        0
    };
    groups.truncate(count);
    groups
}

/// Members may do what root may.
const ADMIN_GROUP: &str = "tylo";

/// How many commands of administrators are served at a time; more wait.
const CONNECTIONS: usize = 64;

/// How many others are served at a time, so that they cannot keep administrators waiting; more
/// are turned away.
const GUESTS: usize = 16;

/// How long one of them may stay.
const GUEST_TIME: Duration = Duration::from_secs(10);

/// How many replies may wait for a slow reader.
const REPLIES: usize = 4;

const EAGAIN: u8 = libc::EAGAIN as u8;
const EPERM: u8 = libc::EPERM as u8;
const EPROTO: u8 = libc::EPROTO as u8;

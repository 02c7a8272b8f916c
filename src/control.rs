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
use tokio::task::JoinSet;

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

/// Goes on with the socket of a predecessor.
///
/// # Errors
/// It is not the one that commands look for.
pub fn inherit(listener: unix::UnixListener) -> io::Result<unix::UnixListener> {
    if listener.local_addr()?.as_abstract_name() != Some(SOCKET.as_bytes()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
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

/// Serves until the future is dropped, and hangs up on everybody then.
///
/// # Errors
/// The listener cannot be used at all.
pub async fn serve(listener: unix::UnixListener, service: Arc<dyn Service>) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let admins = group_id(ADMIN_GROUP);
    let admin_seats = Arc::new(Semaphore::new(CONNECTIONS));
    let guest_seats = Arc::new(Semaphore::new(GUESTS));
    let mut talks = JoinSet::new();
    loop {
        while talks.try_join_next().is_some() {}
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
        talks.spawn(async move {
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
    let limit = if admin {
        REQUEST_MAX
    } else {
        GUEST_REQUEST_MAX
    };
    loop {
        let mut line = Vec::new();
        // One more, for the end of the line.
        let mut limited = (&mut read).take(limit as u64 + 1);
        let length = limited.read_until(b'\n', &mut line).await?;
        if length == 0 {
            return Ok(());
        }
        if length > limit && line.last() != Some(&b'\n') {
            let message = format!(
                "the request is longer than {limit} bytes; split it, or ask for less at a time"
            );
            let code = EMSGSIZE;
            let failure = Reply::Error(Failure { code, message });
            // The rest of an endless line is not worth reading.
            return write.write_all(&encode(&failure)).await;
        }
        let (sender, mut replies) = mpsc::channel(REPLIES);
        let service = Arc::clone(&service);
        // Understanding a large request takes its time too, and others wait for this thread.
        let work = tokio::task::spawn_blocking(move || {
            let mut reply = |r: Reply| sender.blocking_send(r).is_ok();
            let request = understand(&line, admin);
            drop(line);
            let last = match request.and_then(|request| service.call(request, &mut reply)) {
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
    // Whoever was installed anew can have the daemon follow.
    let timeless = matches!(request.command, Command::Upgrade | Command::Health);
    if request.version != VERSION && !timeless {
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

/// The longest request of one of them, in bytes; what they may ask for is short.
const GUEST_REQUEST_MAX: usize = 64 << 10;

/// How many replies may wait for a slow reader.
const REPLIES: usize = 4;

const EAGAIN: u8 = libc::EAGAIN as u8;
const EMSGSIZE: u8 = libc::EMSGSIZE as u8;
const EPERM: u8 = libc::EPERM as u8;
const EPROTO: u8 = libc::EPROTO as u8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prefix::Prefix4;
    use crate::model::control::Config;
    use crate::model::{Flavour, Framework};

    /// Carries out everything at once.
    struct Willing;

    impl Service for Willing {
        fn call(&self, _: Request, _: &mut dyn FnMut(Reply) -> bool) -> Result<(), Failure> {
            Ok(())
        }
    }

    /// What is answered to whoever sends `bytes` and then ends.
    fn answers(admin: bool, bytes: &[u8]) -> Vec<Reply> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        let text = runtime.block_on(async {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            let talk = tokio::spawn(converse(theirs, Arc::new(Willing), admin));
            let mut text = Vec::new();
            let (mut read, mut write) = ours.split();
            let send = async {
                // Fails when the other end has heard enough.
                let _ = write.write_all(bytes).await;
                let _ = write.shutdown().await;
            };
            let (_, read) = tokio::join!(send, read.read_to_end(&mut text));
            // Ends with an error where the other end did not read everything.
            let _ = read;
            talk.await.unwrap().unwrap();
            text
        });
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        lines
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    fn request(command: Command) -> Vec<u8> {
        let mut line = serde_json::to_vec(&Request {
            version: VERSION,
            flavour: Flavour::Siit,
            instance: "default".to_owned(),
            command,
        })
        .unwrap();
        line.push(b'\n');
        line
    }

    fn replace(rows: u32) -> Command {
        Command::Replace {
            config: Box::new(Config {
                framework: Framework::Netfilter,
                settings: Vec::new(),
                eamt: Vec::new(),
                denylist4: (0..rows)
                    .map(|n| Prefix4::new(n.into(), 32).unwrap())
                    .collect(),
                fmrt: Vec::new(),
                pool4: Vec::new(),
                bib: Vec::new(),
            }),
            force: false,
        }
    }

    fn code(replies: &[Reply]) -> u8 {
        match replies {
            [Reply::Error(failure)] => failure.code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn administrators_may_send_much_at_once() {
        let mut two = request(replace(500_000));
        assert!(two.len() > 4 << 20);
        two.extend(request(Command::Health));
        assert_eq!(answers(true, &two), [Reply::Done, Reply::Done]);
        let endless = vec![b' '; REQUEST_MAX + 2];
        assert_eq!(code(&answers(true, &endless)), EMSGSIZE);
    }

    #[test]
    fn others_may_not() {
        assert_eq!(answers(false, &request(Command::Health)), [Reply::Done]);
        assert_eq!(code(&answers(false, &request(replace(1)))), EPERM);
        assert_eq!(code(&answers(false, &request(replace(9_000)))), EMSGSIZE);
        let mut longest = request(Command::Health);
        longest.splice(0..0, vec![b' '; GUEST_REQUEST_MAX + 1 - longest.len()]);
        assert_eq!(answers(false, &longest), [Reply::Done]);
        longest.insert(0, b' ');
        assert_eq!(code(&answers(false, &longest)), EMSGSIZE);
    }

    /// The command that was just installed has the daemon of the former version replaced.
    #[test]
    fn another_version_may_ask_for_an_upgrade() {
        let ask = |command| {
            let text = String::from_utf8(request(command)).unwrap();
            let other = text.replace(
                &format!("\"version\":{VERSION}"),
                &format!("\"version\":{}", VERSION + 1),
            );
            assert_ne!(text, other);
            answers(true, other.as_bytes())
        };
        assert_eq!(ask(Command::Upgrade), [Reply::Done]);
        assert_eq!(ask(Command::Health), [Reply::Done]);
        assert_eq!(code(&ask(Command::StatsDisplay)), EPROTO);
    }

    #[test]
    fn nonsense_is_answered_and_the_next_request_heard() {
        let mut lines = b"nonsense\n".to_vec();
        lines.extend(request(Command::Health));
        let replies = answers(false, &lines);
        assert_eq!(replies.len(), 2);
        assert_eq!(code(&replies[..1]), EPROTO);
        assert_eq!(replies[1], Reply::Done);
    }
}

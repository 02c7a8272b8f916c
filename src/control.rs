// SPDX-License-Identifier: GPL-2.0-or-later
//! Floor 5: the daemon's end of the control protocol.
//!
//! Listens on a socket in the abstract namespace, which belongs to a network namespace: binding
//! it is also what makes a daemon the only one there. Reads requests, asks the [`Service`], writes
//! replies; knows nothing of what they mean, except who may ask.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net as unix;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

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
    let mut hall = Hall::new();
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
        let guest = hall.admit(&stream);
        let service = Arc::clone(&service);
        talks.spawn(async move {
            let result = match guest {
                Guest::Admin(seats, large) => {
                    let _seat = seats.acquire_owned().await;
                    converse(stream, service, &Rights::Admin(large)).await
                }
                Guest::Other(_seats, pace) => {
                    let rights = Rights::Other(pace);
                    let talk = converse(stream, service, &rights);
                    tokio::time::timeout(GUEST_TIME, talk)
                        .await
                        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                }
                Guest::TooMany => turn_away(stream).await,
            };
            if let Err(error) = result {
                tracing::debug!(%error, "a control connection broke");
            }
        });
    }
}

/// Who may come in, and how many at a time.
struct Hall {
    admins: Option<u32>,
    root_seats: Arc<Semaphore>,
    admin_seats: Arc<Semaphore>,
    guest_seats: Arc<Semaphore>,
    large: Arc<Semaphore>,
    /// Those without rights who were here a moment ago, by user number.
    users: HashMap<u32, User>,
}

struct User {
    seats: Arc<Semaphore>,
    pace: Arc<Pace>,
}

/// What somebody who connected gets.
enum Guest {
    /// A seat to wait for, and leave to send large requests.
    Admin(Arc<Semaphore>, Arc<Semaphore>),
    /// Two seats: one of all that others have, one of those of this user.
    Other([OwnedSemaphorePermit; 2], Arc<Pace>),
    TooMany,
}

/// What somebody may ask for.
enum Rights {
    /// Anything; large requests as far as there is leave.
    Admin(Arc<Semaphore>),
    /// What harms nobody, at a pace.
    Other(Arc<Pace>),
}

impl Hall {
    fn new() -> Self {
        Self {
            admins: group_id(ADMIN_GROUP),
            root_seats: Arc::new(Semaphore::new(CONNECTIONS)),
            admin_seats: Arc::new(Semaphore::new(CONNECTIONS)),
            guest_seats: Arc::new(Semaphore::new(GUESTS)),
            large: Arc::new(Semaphore::new(LARGE)),
            users: HashMap::new(),
        }
    }

    fn admit(&mut self, stream: &UnixStream) -> Guest {
        // Whoever cannot be asked has no rights, and is one user with all of that kind.
        let peer = stream.peer_cred().map(|peer| (peer.uid(), peer.gid()));
        let (user, group) = peer.unwrap_or((u32::MAX, u32::MAX));
        let is_admin = |gid| group == gid || peer_groups(stream.as_fd()).contains(&gid);
        if user == 0 {
            Guest::Admin(Arc::clone(&self.root_seats), Arc::clone(&self.large))
        } else if self.admins.is_some_and(is_admin) {
            Guest::Admin(Arc::clone(&self.admin_seats), Arc::clone(&self.large))
        } else {
            self.admit_other(user)
        }
    }

    fn admit_other(&mut self, user: u32) -> Guest {
        let Ok(seat) = Arc::clone(&self.guest_seats).try_acquire_owned() else {
            return Guest::TooMany;
        };
        let now = Instant::now();
        self.users.retain(|_, user| !user.is_forgotten(now));
        if self.users.len() >= USERS && !self.users.contains_key(&user) {
            return Guest::TooMany;
        }
        let user = self.users.entry(user).or_insert_with(|| User {
            seats: Arc::new(Semaphore::new(SEATS_OF_USER)),
            pace: Arc::new(Pace(Mutex::new(now))),
        });
        match Arc::clone(&user.seats).try_acquire_owned() {
            Ok(own) => Guest::Other([seat, own], Arc::clone(&user.pace)),
            Err(_) => Guest::TooMany,
        }
    }
}

impl User {
    /// Whether one who comes for the first time would be treated alike.
    fn is_forgotten(&self, now: Instant) -> bool {
        self.seats.available_permits() == SEATS_OF_USER && self.pace.lock().le(&now)
    }
}

/// When the requests of a user up to now would have been over, had they come at [`REQUEST_EVERY`].
struct Pace(Mutex<Instant>);

impl Pace {
    /// How long the next request has to wait.
    fn wait(&self, now: Instant) -> Duration {
        let mut over = self.lock();
        *over = now.max(*over) + REQUEST_EVERY;
        over.saturating_duration_since(now + REQUEST_EVERY * AT_ONCE)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn turn_away(mut stream: UnixStream) -> io::Result<()> {
    let message = format!(
        "no more than {SEATS_OF_USER} commands of a user without rights are served at a time, and {GUESTS} of all such users; try again later"
    );
    let failure = Failure {
        code: EAGAIN,
        message,
    };
    stream.write_all(&encode(&Reply::Error(failure))).await
}

async fn converse(
    stream: UnixStream,
    service: Arc<dyn Service>,
    rights: &Rights,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let admin = matches!(rights, Rights::Admin(_));
    loop {
        let mut line = Vec::new();
        let mut whole = read_line(&mut read, &mut line, SMALL).await?;
        if line.is_empty() {
            return Ok(());
        }
        let mut limit = SMALL;
        // Held until the request is carried out, for so long its memory is in use.
        let mut _leave = None;
        match rights {
            Rights::Other(pace) => tokio::time::sleep(pace.wait(Instant::now())).await,
            Rights::Admin(large) if !whole => {
                _leave = Arc::clone(large).acquire_owned().await.ok();
                limit = REQUEST_MAX;
                let rest = read_line(&mut read, &mut line, limit);
                let rest = tokio::time::timeout(LARGE_TIME, rest).await;
                whole = rest.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            }
            Rights::Admin(_) => {}
        }
        if !whole {
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

/// Reads on until `line` is at its end, or is longer than `limit` bytes without it: false then.
async fn read_line(
    read: &mut BufReader<OwnedReadHalf>,
    line: &mut Vec<u8>,
    limit: usize,
) -> io::Result<bool> {
    // One more, for the end of the line.
    let room = (limit + 1).saturating_sub(line.len());
    read.take(room as u64).read_until(b'\n', line).await?;
    Ok(line.len() <= limit || line.last() == Some(&b'\n'))
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

/// How many commands of root are served at a time, and how many of the group; more wait.
const CONNECTIONS: usize = 64;

/// How many others are served at a time, so that they cannot keep administrators waiting; more
/// are turned away.
const GUESTS: usize = 16;

/// How many of these may be of one user, so that none keeps the others from their statistics.
const SEATS_OF_USER: usize = 4;

/// How many users are told apart; a user may have numbers in reserve (subuid).
const USERS: usize = 256;

/// How long one of them may stay.
const GUEST_TIME: Duration = Duration::from_secs(10);

/// In the long run, a user without rights is answered this often; requests that come sooner wait.
const REQUEST_EVERY: Duration = Duration::from_millis(50);

/// How many requests such a user may send at once, all the same.
const AT_ONCE: u32 = 40;

/// The longest request that takes no leave, in bytes; others have no longer one.
const SMALL: usize = 64 << 10;

/// How many larger requests there may be at a time, each of up to [`REQUEST_MAX`] bytes; more wait.
const LARGE: usize = 2;

/// How long a larger request may take to arrive.
const LARGE_TIME: Duration = Duration::from_secs(60);

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
            .enable_all()
            .build()
            .unwrap();
        let text = runtime.block_on(async {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            let rights = if admin {
                Rights::Admin(Arc::new(Semaphore::new(LARGE)))
            } else {
                Rights::Other(Arc::new(Pace(Mutex::new(Instant::now()))))
            };
            let talk =
                tokio::spawn(async move { converse(theirs, Arc::new(Willing), &rights).await });
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
        longest.splice(0..0, vec![b' '; SMALL + 1 - longest.len()]);
        assert_eq!(answers(false, &longest), [Reply::Done]);
        longest.insert(0, b' ');
        assert_eq!(code(&answers(false, &longest)), EMSGSIZE);
    }

    #[test]
    fn others_keep_to_a_pace() {
        let begin = Instant::now();
        let pace = Pace(Mutex::new(begin));
        for _ in 0..AT_ONCE {
            assert_eq!(pace.wait(begin), Duration::ZERO);
        }
        assert_eq!(pace.wait(begin), REQUEST_EVERY);
        assert_eq!(pace.wait(begin), REQUEST_EVERY * 2);
        let later = begin + REQUEST_EVERY * 7;
        for _ in 0..5 {
            assert_eq!(pace.wait(later), Duration::ZERO);
        }
        assert_eq!(pace.wait(later), REQUEST_EVERY);
    }

    #[test]
    fn a_user_leaves_seats_to_others_and_is_forgotten() {
        let mut hall = Hall::new();
        let mut sit = |user| match hall.admit_other(user) {
            Guest::Other(seats, pace) => Some((seats, pace)),
            Guest::Admin(..) | Guest::TooMany => None,
        };
        let greedy: Vec<_> = (0..GUESTS).map_while(|_| sit(1000)).collect();
        assert_eq!(greedy.len(), SEATS_OF_USER);
        let more: Vec<_> = (2000..).map_while(&mut sit).collect();
        assert_eq!(more.len(), GUESTS - SEATS_OF_USER);
        drop(greedy);
        let (seats, pace) = sit(1000).unwrap();
        assert!(pace.wait(Instant::now() + REQUEST_EVERY).is_zero());
        drop((seats, pace, more));
        // This one has asked for something; the others have not.
        assert!(sit(3000).is_some());
        let known: Vec<_> = hall.users.into_keys().collect();
        assert!(known.contains(&1000) && !known.contains(&2000), "{known:?}");
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

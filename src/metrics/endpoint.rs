// SPDX-License-Identifier: GPL-2.0-or-later
//! `GET /metrics`, over TCP or a Unix socket.
//!
//! Whoever can reach the address may ask; nobody can change anything. What they send is bounded in
//! size and time, and so is how many are served at once: the others wait in the kernel.

use std::convert::Infallible;
use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::{self, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net as unix;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;

/// Whoever has the numbers.
pub trait Source: Send + Sync + 'static {
    /// All metrics as a text; may block, but not for long.
    fn text(&self) -> String;
}

/// Where an endpoint listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    /// A Unix socket, by its absolute path.
    Unix(PathBuf),
}

/// Why a text is no [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAddress {
    #[error("use IPV4:PORT, [IPV6]:PORT or the absolute path of a Unix socket")]
    Form,
    #[error("port 0 is none")]
    Port,
    #[error("the path of a Unix socket has {PATH_MAX} bytes at most")]
    Path,
}

/// Why an endpoint cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot serve metrics at {0}: it is in use; choose another address with --metrics")]
    InUse(Address),
    #[error(
        "cannot serve metrics at {0}: there is a file that is no socket; choose another path with --metrics"
    )]
    NoSocket(Address),
    #[error(
        "cannot serve metrics at {0}: {1}; is it an address of this host, or a directory that exists?"
    )]
    System(Address, #[source] io::Error),
}

/// An address that metrics can be asked for at.
#[derive(Debug)]
pub struct Endpoint(Listener);

#[derive(Debug)]
enum Listener {
    Tcp(net::TcpListener),
    Unix(unix::UnixListener, SocketFile),
}

/// Removed with its listener, unless it is somebody else's by then.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        if text.starts_with('/') {
            if text.len() > PATH_MAX {
                return Err(NotAnAddress::Path);
            }
            return Ok(Self::Unix(text.into()));
        }
        let address: SocketAddr = text.parse().map_err(|_| NotAnAddress::Form)?;
        if address.port() == 0 {
            return Err(NotAnAddress::Port);
        }
        Ok(Self::Tcp(address))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Endpoint {
    /// Listens. A socket that a killed program left behind is replaced. Everybody on the host whom
    /// the directory lets may connect to a Unix socket.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn bind(address: &Address) -> Result<Self, BindError> {
        let fail = |error: io::Error| {
            if error.kind() == io::ErrorKind::AddrInUse {
                BindError::InUse(address.clone())
            } else {
                BindError::System(address.clone(), error)
            }
        };
        let listener = match address {
            Address::Tcp(at) => {
                // Binds with SO_REUSEADDR: connections of a predecessor are no hindrance.
                let listener = net::TcpListener::bind(at).map_err(fail)?;
                listener.set_nonblocking(true).map_err(fail)?;
                Listener::Tcp(listener)
            }
            Address::Unix(path) => {
                if is_left_behind(path).map_err(fail)? {
                    fs::remove_file(path).map_err(fail)?;
                }
                let listener = unix::UnixListener::bind(path).map_err(|error| {
                    let is_socket = kind_of(path).is_ok_and(|kind| kind.is_socket());
                    if error.kind() == io::ErrorKind::AddrInUse && !is_socket {
                        return BindError::NoSocket(address.clone());
                    }
                    fail(error)
                })?;
                let file = SocketFile::new(path).map_err(fail)?;
                listener.set_nonblocking(true).map_err(fail)?;
                fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(fail)?;
                Listener::Unix(listener, file)
            }
        };
        Ok(Self(listener))
    }

    /// Answers until the future is dropped, and hangs up on everybody then.
    ///
    /// # Errors
    /// The listener cannot be used at all.
    pub async fn serve(self, source: Arc<dyn Source>) -> io::Result<()> {
        let seats = Arc::new(Semaphore::new(CONNECTIONS));
        let desk = Arc::new(Desk {
            source,
            turn: Mutex::new(()),
        });
        let (listener, _file) = match self.0 {
            Listener::Tcp(listener) => (Ear::Tcp(TcpListener::from_std(listener)?), None),
            Listener::Unix(listener, file) => {
                (Ear::Unix(UnixListener::from_std(listener)?), Some(file))
            }
        };
        let mut talks = JoinSet::new();
        loop {
            while talks.try_join_next().is_some() {}
            let seat = Arc::clone(&seats).acquire_owned().await;
            let desk = Arc::clone(&desk);
            match listener.accept().await {
                Ok(stream) => {
                    talks.spawn(async move {
                        converse(stream, desk).await;
                        drop(seat);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for metrics");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }
}

/// A listener of either kind, in service.
enum Ear {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What it hears.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Ear {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

/// Where questions are answered, one at a time.
struct Desk {
    source: Arc<dyn Source>,
    turn: Mutex<()>,
}

async fn converse(stream: Box<dyn Stream>, desk: Arc<Desk>) {
    let service = service_fn(|request| answer(request, Arc::clone(&desk)));
    let talk = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        // Otherwise those who ask once in a while would keep others waiting.
        .keep_alive(false)
        // Whoever has nothing more to say still wants an answer.
        .half_close(true)
        .max_buf_size(HEADER_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIME, talk).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection for metrics broke"),
    }
}

async fn answer(
    request: Request<Incoming>,
    desk: Arc<Desk>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != "/metrics" {
        let text = "there is only /metrics here\n".to_owned();
        return Ok(reply(StatusCode::NOT_FOUND, PLAIN, text));
    }
    if request.method() != Method::GET {
        let text = "only GET is allowed\n".to_owned();
        let mut reply = reply(StatusCode::METHOD_NOT_ALLOWED, PLAIN, text);
        let headers = reply.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static("GET"));
        return Ok(reply);
    }
    let source = Arc::clone(&desk.source);
    let turn = desk.turn.lock().await;
    let text = tokio::task::spawn_blocking(move || source.text()).await;
    drop(turn);
    Ok(match text {
        Ok(text) => reply(StatusCode::OK, METRICS, text),
        Err(error) => {
            tracing::error!(%error, "metrics could not be gathered");
            let text = "metrics could not be gathered; see the log\n".to_owned();
            reply(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, text)
        }
    })
}

fn reply(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut reply = Response::new(Full::new(Bytes::from(text)));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}

/// Whether there is a socket that nobody listens at.
fn is_left_behind(path: &Path) -> io::Result<bool> {
    match kind_of(path) {
        Ok(kind) if kind.is_socket() => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    let stream = unix::UnixStream::connect(path);
    Ok(stream.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

/// Of a link, not of what it points to.
fn kind_of(path: &Path) -> io::Result<fs::FileType> {
    Ok(fs::symlink_metadata(path)?.file_type())
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            id: Self::id(path)?,
        })
    }

    fn id(path: &Path) -> io::Result<(u64, u64)> {
        let metadata = fs::symlink_metadata(path)?;
        Ok((metadata.dev(), metadata.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if Self::id(&self.path).is_ok_and(|id| id == self.id) {
            // Whoever comes next replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// What fits into `sockaddr_un`.
const PATH_MAX: usize = 107;

/// Connections served at once, of each endpoint.
const CONNECTIONS: usize = 16;

/// Bytes of a request.
const HEADER_MAX: usize = 16 << 10;

/// For the whole request to arrive.
const HEADER_TIME: Duration = Duration::from_secs(5);

/// For the answer as well.
const CONNECTION_TIME: Duration = Duration::from_secs(30);

const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;

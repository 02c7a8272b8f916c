// SPDX-License-Identifier: GPL-2.0-or-later
//! Talks to the daemon of the network namespace that the command runs in.
//!
//! Knows the [control protocol](crate::model::control), not what is asked or how answers look. It
//! keeps one line of an answer at a time and never waits longer than [`PATIENCE`] for the next.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::model::control::{Failure, REQUEST_MAX, Reply, Request, SOCKET};

/// How long the daemon may be silent.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The longest line of an answer, in bytes.
const LINE_MAX: u64 = 16 << 20;

/// Why there is no complete answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no tylod runs in this network namespace; start it with 'systemctl start tylod' or \
         'tylod', or put 'ip netns exec NAME' before this command to reach another namespace (and \
         run 'ip netns exec NAME tylod' there)"
    )]
    NoDaemon,
    #[error("this user may not talk to tylod ({0}); become root")]
    Forbidden(#[source] io::Error),
    #[error("the request has {0} bytes, and tylod reads {REQUEST_MAX} at most; make it shorter")]
    Large(usize),
    #[error("tylod has not answered for {} seconds; look at its log", PATIENCE.as_secs())]
    Timeout,
    #[error("tylod closed the connection in the middle of an answer; look at its log")]
    Cut,
    #[error("the conversation with tylod failed: {0}")]
    Broken(#[source] io::Error),
    #[error(
        "tylod's answer makes no sense to this command; they are of different versions: update \
         both and restart tylod ({0})"
    )]
    Unintelligible(String),
    #[error(transparent)]
    Refused(#[from] Failure),
}

impl ClientError {
    /// The exit status of the command.
    pub fn code(&self) -> u8 {
        match self {
            Self::NoDaemon => 253,
            Self::Forbidden(error) | Self::Broken(error) => error
                .raw_os_error()
                .and_then(|n| u8::try_from(n).ok())
                .filter(|n| *n != 0)
                .unwrap_or(5),
            Self::Timeout => 110,
            Self::Cut => 104,
            Self::Unintelligible(_) => 234,
            // EMSGSIZE.
            Self::Large(_) => 90,
            Self::Refused(failure) => failure.code.max(1),
        }
    }
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Finds the daemon of this network namespace.
    ///
    /// # Errors
    /// [`ClientError::NoDaemon`], and when the connection is refused for other reasons.
    pub fn connect() -> Result<Self, ClientError> {
        let open = || -> io::Result<UnixStream> {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            // Bounds `connect`, too, which waits where too many others do.
            socket.set_write_timeout(Some(PATIENCE))?;
            // The leading zero makes the name an abstract one.
            socket.connect(&SockAddr::unix(format!("\0{SOCKET}"))?)?;
            Ok(socket.into())
        };
        match open() {
            Ok(stream) => Ok(Self::over(stream)),
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Err(ClientError::NoDaemon),
            Err(e) => Err(broken(e)),
        }
    }

    /// Uses a connection that exists, and its timeouts.
    pub fn over(stream: UnixStream) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// Another handle on the connection, to hang up with.
    ///
    /// # Errors
    /// There can be no more open files.
    pub fn handle(&self) -> io::Result<UnixStream> {
        self.stream.get_ref().try_clone()
    }

    /// Sends `request` and hands each line of the answer but the last to `each`.
    ///
    /// After an error, other than [`ClientError::Refused`], the connection is of no more use.
    ///
    /// # Errors
    /// The daemon refused the request, the conversation failed, or `each` did.
    pub fn call<E: From<ClientError>>(
        &mut self,
        request: &Request,
        mut each: impl FnMut(Reply) -> Result<(), E>,
    ) -> Result<(), E> {
        self.send(request)?;
        loop {
            match self.receive()? {
                Reply::Done => return Ok(()),
                Reply::Error(failure) => return Err(ClientError::Refused(failure).into()),
                reply @ (Reply::Instances(_)
                | Reply::Status { .. }
                | Reply::Settings(_)
                | Reply::Pool4(_)
                | Reply::Bib(_)
                | Reply::Sessions(_)
                | Reply::Events(_)
                | Reply::Lost(_)
                | Reply::Eamt(_)
                | Reply::Denylist4(_)
                | Reply::Fmrt(_)
                | Reply::Strays(_)
                | Reply::Translation(_)
                | Reply::Stats(_)
                | Reply::Summary(_)
                | Reply::Metrics(_)
                | Reply::Health(_)
                | Reply::Holders(_)
                | Reply::Config(_)) => each(reply)?,
            }
        }
    }

    fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(request).map_err(|e| broken(e.into()))?;
        line.push(b'\n');
        if line.len() > REQUEST_MAX {
            return Err(ClientError::Large(line.len()));
        }
        match self.stream.get_mut().write_all(&line) {
            // Whoever hangs up without reading may have said why.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(e) => Err(broken(e)),
            Ok(()) => Ok(()),
        }
    }

    fn receive(&mut self) -> Result<Reply, ClientError> {
        let mut line = Vec::new();
        (&mut self.stream)
            .take(LINE_MAX)
            .read_until(b'\n', &mut line)
            .map_err(broken)?;
        if line.last() != Some(&b'\n') {
            return Err(if line.len() as u64 >= LINE_MAX {
                ClientError::Unintelligible("a line does not end".to_owned())
            } else {
                ClientError::Cut
            });
        }
        serde_json::from_slice(&line).map_err(|e| ClientError::Unintelligible(e.to_string()))
    }
}

fn broken(error: io::Error) -> ClientError {
    use io::ErrorKind::{ConnectionReset, PermissionDenied, TimedOut, WouldBlock};
    let kind = error.kind();
    if kind == WouldBlock || kind == TimedOut {
        ClientError::Timeout
    } else if kind == PermissionDenied {
        ClientError::Forbidden(error)
    } else if kind == ConnectionReset {
        ClientError::Cut
    } else {
        ClientError::Broken(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Flavour;
    use crate::model::control::{Command, VERSION};
    use crate::model::settings::Value;

    fn request() -> Request {
        Request {
            version: VERSION,
            flavour: Flavour::Nat64,
            instance: "default".to_owned(),
            command: Command::InstanceStatus,
        }
    }

    /// What a client makes of `answer`, after which the other side hangs up.
    fn hear(answer: &str) -> (Vec<Reply>, Result<(), ClientError>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(answer.as_bytes()).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let mut replies = Vec::new();
        let result = Client::over(ours).call(&request(), |reply| {
            replies.push(reply);
            Ok::<_, ClientError>(())
        });
        let mut sent = String::new();
        BufReader::new(theirs).read_line(&mut sent).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&sent).unwrap(), request());
        (replies, result)
    }

    #[test]
    fn lines_arrive_until_the_answer_ends() {
        let (replies, result) =
            hear("{\"status\":{\"running\":true}}\n{\"status\":{\"running\":false}}\n\"done\"\n");
        assert!(result.is_ok());
        assert_eq!(
            replies,
            [
                Reply::Status { running: true },
                Reply::Status { running: false }
            ]
        );
    }

    #[test]
    fn a_refusal_keeps_its_code_and_text() {
        let (_, result) = hear("{\"error\":{\"code\":17,\"message\":\"it exists\"}}\n");
        let error = result.unwrap_err();
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            (17, "it exists")
        );
        let (_, result) = hear("{\"error\":{\"code\":0,\"message\":\"\"}}\n");
        assert_ne!(result.unwrap_err().code(), 0);
    }

    #[test]
    fn half_an_answer_is_an_error() {
        let (replies, result) = hear("{\"status\":{\"running\":true}}\n\"don");
        assert_eq!(replies.len(), 1);
        assert!(matches!(result, Err(ClientError::Cut)));
        assert!(matches!(hear("").1, Err(ClientError::Cut)));
    }

    #[test]
    fn answers_of_another_version_are_told_apart() {
        let (_, result) = hear("{\"status\":{\"mood\":3}}\n");
        let error = result.unwrap_err();
        assert!(error.to_string().contains("different versions"), "{error}");
        assert_eq!(error.code(), 234);
    }

    #[test]
    fn what_the_daemon_would_not_read_is_not_sent() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let key = "x".repeat(REQUEST_MAX);
        let request = Request {
            command: Command::GlobalUpdate {
                key,
                value: Value::Bool(true),
                force: false,
            },
            ..request()
        };
        let result = Client::over(ours).call(&request, |_| Ok::<_, ClientError>(()));
        assert!(matches!(result, Err(ClientError::Large(n)) if n > REQUEST_MAX));
    }

    #[test]
    fn silence_ends() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let result = Client::over(ours).call(&request(), |_| Ok::<_, ClientError>(()));
        assert!(matches!(result, Err(ClientError::Timeout)));
    }

    #[test]
    fn lines_without_end_are_cut_off() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let writer = std::thread::spawn(move || {
            let block = vec![b' '; 1 << 20];
            while theirs.write_all(&block).is_ok() {}
        });
        let result = Client::over(ours).call(&request(), |_| Ok::<_, ClientError>(()));
        assert!(matches!(result, Err(ClientError::Unintelligible(_))));
        writer.join().unwrap();
    }
}

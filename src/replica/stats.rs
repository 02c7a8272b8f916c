// SPDX-License-Identifier: GPL-2.0-or-later
//! A server of statistics: whatever it is sent, it answers with six lines.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::{RecvFlags, Shutdown, shutdown};
use socket2::{Domain, Protocol, Socket, Type};

use super::socket::receive;
use crate::model::sync::Traffic;

/// Why there can be no server.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve statistics at {0}: {1}; is the port free, and the address one of this host?")]
pub struct ServerError(SocketAddr, #[source] io::Error);

/// A socket that questions come to.
#[derive(Debug)]
pub struct Server(UdpSocket);

impl Server {
    /// # Errors
    /// [`ServerError`].
    pub fn bind(at: SocketAddr) -> Result<Self, ServerError> {
        let open = || -> io::Result<UdpSocket> {
            let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
            if at.is_ipv6() {
                // All of IPv4 is in `::`.
                socket.set_only_v6(false)?;
            }
            socket.bind(&at.into())?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket.into())
        };
        open().map(Self).map_err(|error| ServerError(at, error))
    }

    /// Makes [`Server::serve`] look whether it shall stop.
    pub fn wake(&self) {
        // Linux complains that the socket is not connected, and does it.
        let _ = shutdown(&self.0, Shutdown::Both);
    }

    /// Answers until it is told to stop.
    pub fn serve(&self, stop: &AtomicBool, traffic: impl Fn() -> Traffic) {
        let mut question = [0];
        loop {
            // What is longer is cut off; an error concerns an answer that nobody took.
            let asked = receive(&self.0, &mut question, RecvFlags::empty());
            if stop.load(Ordering::Relaxed) {
                return;
            }
            if let Ok(Some((_, from))) = asked {
                let _ = self.0.send_to(answer(&traffic()).as_bytes(), from);
            }
        }
    }
}

/// What Jool's `joold` answers. Its numbers have 32 bits and a sign.
//= jool#session-stats
fn answer(traffic: &Traffic) -> String {
    let number = |count: u64| count as u32 as i32;
    let [packets_out, bytes_out] = [traffic.datagrams_out, traffic.bytes_out].map(number);
    let [packets_in, bytes_in] = [traffic.datagrams_in, traffic.bytes_in].map(number);
    // There, what the kernel hands over and what is sent are counted apart; here they are one.
    format!(
        "KERNEL_SENT_PKTS,{packets_out}\nKERNEL_SENT_BYTES,{bytes_out}\n\
         NET_RCVD_PKTS,{packets_in}\nNET_RCVD_BYTES,{bytes_in}\n\
         NET_SENT_PKTS,{packets_out}\nNET_SENT_BYTES,{bytes_out}\n"
    )
}

/// How soon it is noticed that it shall stop.
const PATIENCE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    //= jool#session-stats
    //= type=test
    #[test]
    fn any_question_is_answered_with_six_lines() {
        let server = Server::bind("[::]:0".parse().unwrap()).unwrap();
        let port = server.0.local_addr().unwrap().port();
        let stop = AtomicBool::new(false);
        let traffic = || Traffic {
            datagrams_in: 4,
            bytes_in: 208,
            datagrams_out: 1 << 31,
            bytes_out: u64::from(u32::MAX) + 3,
            ..Traffic::default()
        };
        std::thread::scope(|scope| {
            scope.spawn(|| server.serve(&stop, traffic));
            for question in [&b""[..], b"\n", &[9; 500]] {
                let client = UdpSocket::bind("127.0.0.1:0").unwrap();
                client.send_to(question, ("127.0.0.1", port)).unwrap();
                let mut answer = [0; 512];
                let length = client.recv(&mut answer).unwrap();
                assert_eq!(
                    std::str::from_utf8(&answer[..length]).unwrap(),
                    "KERNEL_SENT_PKTS,-2147483648\nKERNEL_SENT_BYTES,2\nNET_RCVD_PKTS,4\n\
                     NET_RCVD_BYTES,208\nNET_SENT_PKTS,-2147483648\nNET_SENT_BYTES,2\n"
                );
            }
            stop.store(true, Ordering::Relaxed);
            server.wake();
        });
        let taken = server.0.local_addr().unwrap();
        let error = Server::bind(taken).unwrap_err().to_string();
        assert!(error.contains(&taken.to_string()), "{error}");
    }
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! Traffic for measurements: the sending and the receiving ends that `tools/bench` puts on both
//! sides of a gateway.
//!
//! `cargo run --release --example traffic -- --help`. Every command that measures prints one JSON
//! object on one line; it fails when it measured nothing.
#![allow(clippy::print_stdout)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::{Args, Parser};
use serde_json::json;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

mod mmsg;

use mmsg::{BURST, Datagram, dropped, receive_many, send_many};

/// Datagrams of one flow that come one after the other.
const TRAIN: usize = 16;
/// Bytes of the largest datagram.
const LARGEST: usize = 1472;
/// UDP needs room to survive a moment without a processor, bytes.
const BUFFER: usize = 16 << 20;
/// How long a single answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Sends and receives traffic, and measures it
#[derive(Parser)]
#[command(name = "traffic")]
enum Command {
    /// Sends UDP datagrams to a sink, as fast as it can or at a rate
    UdpSend(UdpSend),

    /// Counts the datagrams that arrive, until there are no more
    UdpSink(UdpSink),

    /// Sends one datagram from each of many transport addresses
    UdpOpen(UdpOpen),

    /// Sends back every datagram that arrives, until it is killed
    UdpEcho { port: u16 },

    /// Asks a udp-echo at a rate and says how long the answers took, in microseconds
    Latency(Latency),

    /// Accepts TCP connections and resets them, until it is killed
    Accept { port: u16 },

    /// Opens TCP connections to an accept, one after the other in each of several threads
    Connect(Connect),
}

#[derive(Args)]
struct UdpSend {
    #[command(flatten)]
    to: To,
    #[command(flatten)]
    sources: Sources,
    #[command(flatten)]
    extent: Extent,
    /// How many flows, which take the sources in turn
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    flows: u16,
    /// How many datagrams of a flow follow each other, sent with one system call
    #[arg(long, default_value_t = TRAIN as u16, value_parser = clap::value_parser!(u16).range(1..=TRAIN as i64))]
    train: u16,
    /// Datagrams a second; as fast as it can without
    #[arg(long)]
    rate: Option<NonZeroU64>,
}

#[derive(Args)]
struct UdpSink {
    port: u16,
    /// Ends after this many seconds of silence
    #[arg(long, default_value = "0.5", value_parser = seconds)]
    idle: Duration,
    /// Seconds to wait for the first datagram
    #[arg(long, default_value = "10", value_parser = seconds)]
    patience: Duration,
}

#[derive(Args)]
struct UdpOpen {
    #[command(flatten)]
    to: To,
    #[command(flatten)]
    sources: Sources,
    /// How many transport addresses: 25,000 ports of each source
    number: u32,
    /// Datagrams a second
    #[arg(long, default_value = "100000")]
    rate: NonZeroU64,
}

#[derive(Args)]
struct Latency {
    #[command(flatten)]
    to: To,
    #[command(flatten)]
    extent: Extent,
    /// Questions a second
    #[arg(long, default_value = "1000")]
    rate: NonZeroU64,
}

#[derive(Args)]
struct Connect {
    #[command(flatten)]
    to: To,
    #[command(flatten)]
    sources: Sources,
    /// How long
    #[arg(long, default_value = "3", value_parser = seconds)]
    seconds: Duration,
    /// How many threads, which take the sources in turn
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    parallel: u16,
}

#[derive(Args)]
struct To {
    address: IpAddr,
    port: u16,
}

#[derive(Args)]
struct Extent {
    /// How long
    #[arg(long, default_value = "3", value_parser = seconds)]
    seconds: Duration,
    /// Octets of data in each datagram
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(8..=LARGEST as i64))]
    size: u16,
}

impl Extent {
    fn datagrams(&self, number: usize) -> Vec<Datagram> {
        vec![Datagram::new(self.size.into()); number]
    }
}

#[derive(Args)]
struct Sources {
    /// The first address to send from; without, the kernel chooses
    #[arg(long)]
    from: Option<IpAddr>,
    /// How many addresses there are, one after the other
    #[arg(long, default_value_t = 1, requires = "from", value_parser = clap::value_parser!(u16).range(1..))]
    addresses: u16,
}

fn main() -> anyhow::Result<()> {
    // Waiting for a moment shall not take 50 µs more than that.
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
    match Command::parse() {
        Command::UdpSend(args) => args.run(),
        Command::UdpSink(args) => args.run(),
        Command::UdpOpen(args) => args.run(),
        Command::UdpEcho { port } => udp_echo(port),
        Command::Latency(args) => args.run(),
        Command::Accept { port } => accept(port),
        Command::Connect(args) => args.run(),
    }
}

impl To {
    fn address(&self) -> SocketAddr {
        (self.address, self.port).into()
    }

    /// Whatever of its family the kernel chooses to send from.
    fn any(&self) -> SocketAddr {
        let ip = match self.address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(ip, 0)
    }
}

fn seconds(text: &str) -> anyhow::Result<Duration> {
    Ok(Duration::try_from_secs_f64(text.parse()?)?)
}

impl Sources {
    /// The address of a flow or a thread, without a port.
    fn get(&self, index: usize, to: &To) -> SocketAddr {
        let index = index as u32 % u32::from(self.addresses);
        let ip = match self.from {
            Some(IpAddr::V4(first)) => Ipv4Addr::from_bits(first.to_bits() + index).into(),
            Some(IpAddr::V6(first)) => {
                Ipv6Addr::from_bits(first.to_bits() + u128::from(index)).into()
            }
            None => return to.any(),
        };
        SocketAddr::new(ip, 0)
    }
}

impl UdpSend {
    fn run(self) -> anyhow::Result<()> {
        let sockets = (0..usize::from(self.flows))
            .map(|flow| {
                let source = self.sources.get(flow, &self.to);
                connected(source, self.to.address())
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let train = self.train.into();
        let datagrams = self.extent.datagrams(train);
        let mut pace = self.rate.map(Pace::new);
        let (start, mut sent, mut failed) = (Instant::now(), 0, 0_u64);
        for socket in sockets.iter().cycle() {
            if start.elapsed() >= self.extent.seconds {
                break;
            }
            let due = pace.as_mut().map_or(train, |pace| pace.wait(train));
            match send_many(socket.as_fd(), &datagrams[..due]) {
                Ok(number) => sent += number as u64,
                Err(error) if passing(&error) => failed += 1,
                Err(error) => return Err(error).context("cannot send"),
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        ensure!(sent > 0, "nothing could be sent");
        println!(
            "{}",
            json!({"sent": sent, "failed_calls": failed, "seconds": seconds,
                   "per_second": sent as f64 / seconds})
        );
        Ok(())
    }
}

impl UdpSink {
    fn run(self) -> anyhow::Result<()> {
        let socket = listening(self.port)?;
        let mut datagrams = vec![Datagram::new(LARGEST); BURST];
        socket.set_read_timeout(Some(self.patience))?;
        let (mut number, mut bytes) = (0, 0);
        let mut times = None;
        loop {
            let got = match receive_many(socket.as_fd(), &mut datagrams) {
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("cannot receive"),
            };
            number += got as u64;
            bytes += datagrams[..got].iter().map(|d| d.len as u64).sum::<u64>();
            let now = Instant::now();
            if let Some((_, last)) = &mut times {
                *last = now;
            } else {
                socket.set_read_timeout(Some(self.idle))?;
                times = Some((now, now));
            }
        }
        let Some((first, last)) = times else {
            bail!("no datagram came within {:?}", self.patience);
        };
        let seconds = (last - first).as_secs_f64();
        // What this program was too slow for did cross the gateway.
        let dropped = u64::from(dropped(socket.as_fd())?);
        println!(
            "{}",
            json!({"arrived": number + dropped, "dropped_here": dropped, "bytes": bytes,
                   "seconds": seconds, "per_second": (number + dropped) as f64 / seconds})
        );
        Ok(())
    }
}

impl UdpOpen {
    fn run(self) -> anyhow::Result<()> {
        const PORTS: u32 = 25_000;
        let room = u32::from(self.sources.addresses) * PORTS;
        ensure!(
            self.number <= room && self.sources.from.is_some(),
            "{} transport addresses need --from and --addresses {}",
            self.number,
            self.number.div_ceil(PORTS)
        );
        let mut pace = Pace::new(self.rate);
        let mut due = 0;
        for i in 0..self.number {
            if due == 0 {
                due = pace.wait(BURST);
            }
            due -= 1;
            let mut source = self.sources.get((i / PORTS) as usize, &self.to);
            source.set_port((1024 + i % PORTS) as u16);
            let socket = UdpSocket::bind(source).with_context(|| format!("cannot use {source}"))?;
            socket
                .send_to(&[0], self.to.address())
                .context("cannot send")?;
        }
        println!("{}", json!({"opened": self.number}));
        Ok(())
    }
}

fn udp_echo(port: u16) -> anyhow::Result<()> {
    let socket = listening(port)?;
    let mut datagrams = vec![Datagram::new(LARGEST); BURST];
    loop {
        let got = receive_many(socket.as_fd(), &mut datagrams)?;
        match send_many(socket.as_fd(), &datagrams[..got]) {
            Ok(_) => {}
            Err(error) if passing(&error) => {}
            Err(error) => return Err(error).context("cannot answer"),
        }
    }
}

impl Latency {
    fn run(self) -> anyhow::Result<()> {
        let socket = connected(self.to.any(), self.to.address())?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let start = Instant::now();
        let asking = AtomicBool::new(true);
        let (sent, mut times) = thread::scope(|scope| {
            let answers = scope.spawn(|| answers(&socket, start, &asking));
            let sent = self.ask(&socket, start);
            // Late answers count, too.
            thread::sleep(Duration::from_millis(300));
            asking.store(false, Ordering::Relaxed);
            let times = answers.join().map_err(|_| io::Error::other("a panic"));
            anyhow::Ok((sent?, times??))
        })?;
        times.sort_unstable();
        let (Some(longest), false) = (times.last(), sent == 0) else {
            bail!("{sent} questions, no answer");
        };
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        let of = |part: f64| micros(times[((times.len() - 1) as f64 * part) as usize]);
        println!(
            "{}",
            json!({"sent": sent, "answered": times.len(), "p50": of(0.5), "p90": of(0.9),
                   "p99": of(0.99), "max": micros(*longest)})
        );
        Ok(())
    }

    fn ask(&self, socket: &UdpSocket, start: Instant) -> anyhow::Result<u64> {
        let mut datagrams = self.extent.datagrams(BURST);
        let mut pace = Pace::new(self.rate);
        let mut sent = 0;
        while start.elapsed() < self.extent.seconds {
            let due = pace.wait(BURST);
            let now = (start.elapsed().as_nanos() as u64).to_be_bytes();
            for datagram in &mut datagrams[..due] {
                datagram.bytes[..8].copy_from_slice(&now);
            }
            match send_many(socket.as_fd(), &datagrams[..due]) {
                Ok(number) => sent += number as u64,
                Err(error) if passing(&error) => {}
                Err(error) => return Err(error).context("cannot ask"),
            }
        }
        Ok(sent)
    }
}

/// How long the answers took that came while `asking`, nanoseconds.
fn answers(socket: &UdpSocket, start: Instant, asking: &AtomicBool) -> io::Result<Vec<u64>> {
    let mut datagrams = vec![Datagram::new(LARGEST); BURST];
    let mut times = Vec::new();
    while asking.load(Ordering::Relaxed) {
        let got = match receive_many(socket.as_fd(), &mut datagrams) {
            Ok(got) => got,
            Err(error) if passing(&error) => continue,
            Err(error) => return Err(error),
        };
        let now = start.elapsed().as_nanos() as u64;
        let stamps = datagrams[..got].iter().filter(|d| d.len >= 8);
        times.extend(stamps.filter_map(|datagram| {
            let stamp = u64::from_be_bytes(*datagram.bytes.first_chunk()?);
            now.checked_sub(stamp)
        }));
    }
    Ok(times)
}

fn accept(port: u16) -> anyhow::Result<()> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    bind_any(&socket, port)?;
    socket.listen(4096)?;
    for connection in TcpListener::from(socket).incoming() {
        // A connection that the other end gave up meanwhile is not our trouble.
        let Ok(connection) = connection else { continue };
        // No TIME_WAIT anywhere, lest ports run out.
        Socket::from(connection).set_linger(Some(Duration::ZERO))?;
    }
    Ok(())
}

impl Connect {
    fn run(self) -> anyhow::Result<()> {
        let start = Instant::now();
        let end = start + self.seconds;
        let (done, failed) = thread::scope(|scope| {
            let threads: Vec<_> = (0..usize::from(self.parallel))
                .map(|i| {
                    scope.spawn({
                        let this = &self;
                        move || this.thread(i, end)
                    })
                })
                .collect();
            threads
                .into_iter()
                .filter_map(|thread| thread.join().ok())
                .fold((0, 0), |sum, (done, failed)| (sum.0 + done, sum.1 + failed))
        });
        let seconds = start.elapsed().as_secs_f64();
        ensure!(done > 0, "no connection, {failed} attempts");
        println!(
            "{}",
            json!({"connections": done, "failed": failed, "seconds": seconds,
                   "per_second": done as f64 / seconds})
        );
        Ok(())
    }

    fn thread(&self, index: usize, end: Instant) -> (u64, u64) {
        let (mut done, mut failed) = (0, 0);
        while Instant::now() < end {
            match self.connection(index) {
                Ok(()) => done += 1,
                Err(_) => failed += 1,
            }
        }
        (done, failed)
    }

    /// Succeeds when the other end had it and reset it.
    fn connection(&self, index: usize) -> io::Result<()> {
        let to = self.to.address();
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&self.sources.get(index, &self.to).into())?;
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        match socket.connect_timeout(&to.into(), PATIENCE) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => return Err(error),
            _ => {}
        }
        match io::Read::read(&mut &socket, &mut [0]) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
            _ => Ok(()),
        }
    }
}

/// Spreads things evenly over time; what was late is made good.
struct Pace {
    start: Instant,
    rate: f64,
    done: f64,
}

impl Pace {
    fn new(rate: NonZeroU64) -> Self {
        Self {
            start: Instant::now(),
            rate: rate.get() as f64,
            done: 0.0,
        }
    }

    /// Waits until at least one is due; says how many are, at most `most`.
    fn wait(&mut self, most: usize) -> usize {
        loop {
            let due = self.start.elapsed().as_secs_f64() * self.rate - self.done;
            if due >= 1.0 {
                let due = (due as usize).min(most);
                self.done += due as f64;
                return due;
            }
            // Not for each of them when they are many.
            let wait = ((1.0 - due) / self.rate).max(50e-6);
            thread::sleep(Duration::from_secs_f64(wait));
        }
    }
}

/// Neither end of a socket is to blame, and the next attempt may succeed.
fn passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused | io::ErrorKind::Interrupted
    ) || error.raw_os_error() == Some(libc::ENOBUFS)
}

fn connected(source: SocketAddr, to: SocketAddr) -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind(source).with_context(|| format!("cannot use {source}"))?;
    socket
        .connect(to)
        .with_context(|| format!("no way to {to}"))?;
    Ok(socket)
}

/// Takes datagrams of both families.
fn listening(port: u16) -> anyhow::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(false)?;
    // Past what the system allows everybody, where it lets us.
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
        socket.set_recv_buffer_size(BUFFER)?;
    }
    bind_any(&socket, port)?;
    Ok(socket.into())
}

fn bind_any(socket: &Socket, port: u16) -> anyhow::Result<()> {
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    socket
        .bind(&SockAddr::from(address))
        .with_context(|| format!("cannot use port {port}"))
}

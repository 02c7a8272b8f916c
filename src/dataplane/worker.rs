// SPDX-License-Identifier: GPL-2.0-or-later
//! The loop of one worker thread.
//!
//! ```text
//!            ┌─ eventfd ── commands: open, close, stop
//! epoll ─────┼─ TUN queue ─┐
//!            └─ NFQUEUEs ──┴─ burst ─ Handler::burst ─ TUN ─ ICMP ─ verdicts ─ Handler::sent
//! ```
//! What comes out is written before the verdicts are given: a worker that dies between the two
//! leaves a packet too many, not one too few.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::icmp;
use super::message::Queued;
use super::mtu::Mtus;
use super::pulse::Pulse;
use super::queue::{Queue, STRIDE};
use super::reinject::Reinjector;
use super::tun::{self, Tun};
use super::{BURST, Error, Handler, Received, SendReport, Source, Verdict, monotonic};
use crate::base::Tick;
use crate::wire::offload::Offload;
use crate::wire::output::Output;

/// Between two calls of [`Handler::tick`], in milliseconds; also the longest sleep.
const TICK: u64 = 250;

/// What epoll says woke us; higher values are numbers of queues.
const WAKE: u64 = 0;
const TUN: u64 = 1;
const FIRST_QUEUE: u64 = 2;

/// An order to a worker.
pub(super) enum Command {
    Open(Queue),
    /// Answered when the queue is closed, or was not open.
    Close(usize, Sender<()>),
    Stop,
}

pub(super) struct Worker {
    handler: Arc<dyn Handler>,
    /// This one calls [`Handler::tick`].
    leads: bool,
    tun: Tun,
    reinjector: Reinjector,
    icmp: icmp::Sender,
    wake: OwnedFd,
    commands: Receiver<Command>,
    epoll: OwnedFd,
    queues: Vec<Queue>,
    mtus: Mtus,
    buffer: Vec<u8>,
    out: Output,
    next_tick: Tick,
    pub(super) pulse: Arc<Pulse>,
}

/// The loop goes on, or was told to stop.
#[derive(PartialEq, Eq)]
enum Flow {
    Go,
    Stop,
}

impl Worker {
    pub(super) fn new(
        handler: Arc<dyn Handler>,
        leads: bool,
        tun: Tun,
        wake: OwnedFd,
        commands: Receiver<Command>,
    ) -> Result<Self, Error> {
        let now = monotonic();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|error| Error::System("create an epoll instance".to_owned(), error.into()))?;
        for (fd, data) in [(wake.as_fd(), WAKE), (tun.as_fd(), TUN)] {
            let data = epoll::EventData::new_u64(data);
            epoll::add(&epoll, fd, data, epoll::EventFlags::IN)
                .map_err(|error| Error::System("watch a descriptor".to_owned(), error.into()))?;
        }
        Ok(Self {
            handler,
            leads,
            tun,
            reinjector: Reinjector::default(),
            icmp: icmp::Sender::open(now)?,
            wake,
            commands,
            epoll,
            queues: Vec::new(),
            mtus: Mtus::open()?,
            // Pages that no packet ever touched cost nothing.
            buffer: vec![0; BURST * STRIDE],
            out: Output::new(),
            next_tick: now,
            pulse: Arc::new(Pulse::new(now)),
        })
    }

    /// Works until told to stop.
    pub(super) fn run(mut self) -> Result<(), Error> {
        let mut events = Vec::with_capacity(16);
        loop {
            let now = monotonic();
            self.pulse.beat(now);
            if self.leads && now >= self.next_tick {
                self.tick(now)?;
            }
            let rest = if self.leads {
                self.next_tick.since(now).min(TICK)
            } else {
                TICK
            };
            // Usually none.
            let look = self.queues.iter().filter_map(Queue::impatience).min();
            let sleep = look.map_or(rest, |look| look.min(rest));
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: sleep as i64 * 1_000_000,
            };
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&timeout),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    return Err(Error::System("wait for packets".to_owned(), error.into()));
                }
            }
            for event in &events {
                match event.data.u64() {
                    WAKE => {
                        if self.obey()? == Flow::Stop {
                            return Ok(());
                        }
                        self.next_tick = now;
                    }
                    TUN => self.read_tun()?,
                    number => {
                        let number = u16::try_from(number - FIRST_QUEUE).unwrap_or(u16::MAX);
                        self.read_queue(number)?;
                    }
                }
            }
            if look.is_some() {
                let silent = |queue: &&Queue| queue.socket().is_none();
                let silent = self.queues.iter().filter(silent);
                for number in silent.map(|queue| queue.number).collect::<Vec<_>>() {
                    self.read_queue(number)?;
                }
            }
        }
    }

    /// Carries out what was ordered.
    fn obey(&mut self) -> Result<Flow, Error> {
        let mut count = [0; 8];
        // Only resets the counter; nothing depends on its value.
        let _ = rustix::io::read(&self.wake, &mut count);
        loop {
            match self.commands.try_recv() {
                Ok(Command::Open(queue)) => {
                    let data = epoll::EventData::new_u64(u64::from(queue.number) + FIRST_QUEUE);
                    if let Some(socket) = queue.socket() {
                        epoll::add(&self.epoll, socket, data, epoll::EventFlags::IN).map_err(
                            |error| Error::System("watch a queue".to_owned(), error.into()),
                        )?;
                    }
                    self.queues.push(queue);
                }
                Ok(Command::Close(slot, done)) => {
                    // Closing the last descriptor of the socket also ends its epoll entry; the
                    // kernel drops what waits in the queue.
                    self.queues.retain(|queue| queue.slot != slot);
                    // Nobody waits any more if the answer cannot be sent.
                    let _ = done.send(());
                }
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return Ok(Flow::Stop),
                Err(TryRecvError::Empty) => return Ok(Flow::Go),
            }
        }
    }

    fn tick(&mut self, now: Tick) -> Result<(), Error> {
        self.next_tick = now.after(TICK);
        self.out.clear();
        self.handler.tick(now, &mut self.out);
        if self.out.is_empty() && self.out.errors().is_empty() {
            return Ok(());
        }
        let exit = Exit {
            tun: &self.tun,
            reinjector: &mut self.reinjector,
            icmp: &mut self.icmp,
        };
        let report = exit.send(now, &self.out, &[])?;
        self.handler.sent(Source::Tick, &report);
        Ok(())
    }

    fn read_queue(&mut self, number: u16) -> Result<(), Error> {
        // It may have been closed by a command in the same round of events.
        let Some(index) = self.queues.iter().position(|queue| queue.number == number) else {
            return Ok(());
        };
        let queue = &mut self.queues[index];
        let mut lens = [0; BURST];
        let count = queue
            .receive(&mut self.buffer, &mut lens)
            .map_err(Error::system("receive from a netfilter queue"))?;
        let now = monotonic();

        let mut packets = [EMPTY; BURST];
        let mut ids = [0; BURST];
        let mut verdicts = [Verdict::Taken; BURST];
        let (mut used, mut last, mut all) = (0, None, true);
        for (datagram, len) in self.buffer.chunks_exact(STRIDE).zip(lens).take(count) {
            let Some(queued) = datagram.get(..len).and_then(|bytes| queue.read(bytes)) else {
                continue;
            };
            last = Some(queued.id);
            if queued.payload.is_empty() {
                all = false;
                continue;
            }
            // As long as `packets`, and there are at most as many datagrams.
            packets[used] = received(&queued, &mut self.mtus, now);
            ids[used] = queued.id;
            used += 1;
        }
        let Some(last) = last else {
            return queue.give().map_err(Error::system("give verdicts"));
        };

        let source = Source::Slot(queue.slot);
        let verdicts = &mut verdicts[..used];
        self.out.clear();
        if used > 0 {
            self.handler
                .burst(now, source, &packets[..used], verdicts, &mut self.out);
        }
        let exit = Exit {
            tun: &self.tun,
            reinjector: &mut self.reinjector,
            icmp: &mut self.icmp,
        };
        let report = exit.send(now, &self.out, &packets[..used])?;
        let decided = ids.into_iter().zip(verdicts.iter().copied());
        self.queues[index]
            .settle(decided, last, all)
            .map_err(Error::system("give verdicts"))?;
        self.handler.sent(source, &report);
        Ok(())
    }

    fn read_tun(&mut self) -> Result<(), Error> {
        let mut lens = [0; BURST];
        let mut count = 0;
        for (slot, len) in self.buffer.chunks_exact_mut(STRIDE).zip(&mut lens) {
            match self.tun.read(slot) {
                Ok(read) => *len = read,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => break,
                    Some(libc::EINTR) => continue,
                    _ => return Err(Error::system("read from the TUN device")(error)),
                },
            }
            count += 1;
        }
        let now = monotonic();
        let mut packets = [EMPTY; BURST];
        let mut used = 0;
        for (slot, len) in self.buffer.chunks_exact_mut(STRIDE).zip(lens).take(count) {
            let Some((bytes, offload)) = slot.get_mut(..len).and_then(tun::strip) else {
                continue;
            };
            if tun::is_multicast(bytes) {
                continue;
            }
            packets[used] = Received {
                bytes,
                offload,
                ..EMPTY
            };
            used += 1;
        }
        if used == 0 {
            return Ok(());
        }
        // Whatever the verdicts are: a packet read here is gone from the kernel.
        let mut verdicts = [Verdict::Taken; BURST];
        self.out.clear();
        self.handler.burst(
            now,
            Source::Tun,
            &packets[..used],
            &mut verdicts[..used],
            &mut self.out,
        );
        let exit = Exit {
            tun: &self.tun,
            reinjector: &mut self.reinjector,
            icmp: &mut self.icmp,
        };
        let report = exit.send(now, &self.out, &packets[..used])?;
        self.handler.sent(Source::Tun, &report);
        Ok(())
    }
}

/// The way out.
struct Exit<'a> {
    tun: &'a Tun,
    reinjector: &'a mut Reinjector,
    icmp: &'a mut icmp::Sender,
}

impl Exit<'_> {
    /// Hands the output of a burst to the kernel.
    fn send(self, now: Tick, out: &Output, burst: &[Received<'_>]) -> Result<SendReport, Error> {
        let mut report = SendReport::default();
        self.reinjector
            .write(self.tun, out, burst, &mut report)
            .map_err(Error::system("write to the TUN device"))?;
        self.icmp.send(now, self.tun, out.errors(), &mut report);
        Ok(report)
    }
}

/// `NF_INET_LOCAL_OUT`: the hook for what this host sends.
const LOCAL_OUT: u8 = libc::NF_INET_LOCAL_OUT as u8;

const EMPTY: Received<'_> = Received {
    bytes: &[],
    mark: 0,
    ingress_mtu: u32::MAX,
    reassembled: false,
    from_host: false,
    offload: Offload::NONE,
};

fn received<'a>(queued: &Queued<'a>, mtus: &mut Mtus, now: Tick) -> Received<'a> {
    let mtu = mtus.get(queued.device, now);
    // Nothing longer than its MTU comes in by a device: the kernel put it together, but for
    // super-packets, which say so.
    let reassembled = queued.info & libc::NFQA_SKB_GSO as u32 == 0
        && u32::try_from(queued.payload.len()).is_ok_and(|len| len > mtu);
    Received {
        bytes: queued.payload,
        mark: queued.mark,
        ingress_mtu: mtu,
        reassembled,
        from_host: queued.hook == LOCAL_OUT,
        offload: queued.offload(),
    }
}

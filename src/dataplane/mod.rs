// SPDX-License-Identifier: GPL-2.0-or-later
//! Floor 5: packets in from kernel queues and the TUN device, packets out through the TUN device.
//!
//! One thread per worker. A worker owns one queue of the TUN device and, for every instance, two
//! NFQUEUE sockets: one for TCP, which comes in super-packets, and one for everything else. It takes a burst, hands it to the [`Handler`] in one call, writes what comes
//! out, and gives the verdicts. Nothing here knows what translation is.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use self::pulse::Pulse;
use self::queue::{Faults, Kind, Queue};
use self::tun::Tun;
use self::worker::{Command, Worker};
use crate::base::Tick;

mod addresses;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod handler;
mod icmp;
mod inherit;
mod message;
mod mtu;
mod netlink;
mod plain;
mod processors;
mod pulse;
mod queue;
mod reinject;
mod routes;
mod sys;
mod tun;
mod wake;
mod worker;

pub use self::addresses::{Addresses, NetworkWatch, ephemeral_ports};
pub use self::handler::{Handler, Received, SendReport, Source, Verdict};
pub use self::inherit::Inherited;
pub use self::routes::{ROUTE_PROTOCOL, remove_rules, set_routes};
pub use self::wake::Waker;

/// How a [`Dataplane`] is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Name of the TUN device, at most 15 bytes.
    pub tun: String,
    /// MTU of the TUN device, in bytes, 1500 or more.
    ///
    /// The default is the highest there is, so that the device is never why the kernel cuts a
    /// packet up or sends a Packet Too Big: which size fits is decided by the device that the
    /// translated packet leaves by.
    pub mtu: u16,
    /// Worker threads, 1 to 256.
    pub workers: u16,
    /// Each worker stays on one processor: the first on the first that this process may use.
    pub pin: bool,
    /// The first queue number.
    pub queue_base: u16,
    /// How many packets may wait in one queue, 1 or more.
    pub queue_length: u32,
    /// TCP comes and goes in super-packets, through queues of its own.
    pub super_packets: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tun: "tylo0".to_owned(),
            mtu: u16::MAX,
            workers: 1,
            pin: false,
            queue_base: 6400,
            queue_length: 4096,
            super_packets: true,
        }
    }
}

impl Options {
    fn queues(&self, slot: usize) -> Result<(u16, u16), Error> {
        let end = if self.super_packets {
            self.half()
        } else {
            1 << 16
        };
        self.range(slot, self.queue_base.into(), end)
    }

    /// In the upper half of the numbers from the base on: so the others are where they would be
    /// without these, which rules of the administrator's may rely on.
    fn tcp_queues(&self, slot: usize) -> Result<Option<(u16, u16)>, Error> {
        if !self.super_packets {
            return Ok(None);
        }
        self.range(slot, self.half(), 1 << 16).map(Some)
    }

    fn half(&self) -> usize {
        (usize::from(self.queue_base) + (1 << 16)) / 2
    }

    /// The queues of a slot among those from `base` to before `end`.
    fn range(&self, slot: usize, base: usize, end: usize) -> Result<(u16, u16), Error> {
        let count = self.workers;
        slot.checked_mul(count.into())
            .and_then(|offset| offset.checked_add(base))
            .filter(|first| first + usize::from(count) <= end)
            .and_then(|first| u16::try_from(first).ok())
            .map(|first| (first, count))
            .ok_or(Error::NoQueueNumber(slot, count))
    }

    /// All queues of a slot: for each worker one, and then for each another one for TCP.
    fn numbers(&self, slot: usize) -> Result<impl Iterator<Item = (u16, Kind)> + use<>, Error> {
        let (first, count) = self.queues(slot)?;
        let tcp = self.tcp_queues(slot)?;
        let plain = (0..count).map(move |offset| (first + offset, Kind::Plain));
        let tcp = tcp.into_iter().flat_map(move |(tcp, count)| {
            (0..count).map(move |offset| (tcp + offset, Kind::Tcp(first + offset)))
        });
        Ok(plain.chain(tcp))
    }
}

/// Why the data plane could not do what it was told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("'{0}' is not a device name (1 to 15 bytes, no slash)")]
    Name(String),
    #[error("{0} workers asked for; use 1 to 256")]
    Workers(u16),
    #[error("an MTU of {0} asked for; use 1500 to 65535")]
    Mtu(u16),
    #[error("a queue length of 0 would drop everything; use 1 or more")]
    QueueLength,
    #[error("no right to {0}; run as root or with CAP_NET_ADMIN")]
    Permission(&'static str),
    #[error(
        "/dev/net/tun does not exist; create it: modprobe tun; mkdir -p /dev/net; mknod /dev/net/tun c 10 200"
    )]
    NoTunNode,
    #[error("the kernel has no TUN driver; load it (modprobe tun) or build one with CONFIG_TUN")]
    NoTunDriver,
    #[error(
        "device '{0}' exists, but is not a TUN device with several queues and virtio headers; remove it (ip link delete {0}) or choose another name"
    )]
    NotTun(String),
    #[error("device '{0}' is in use by another process; stop that one or choose another name")]
    Busy(String),
    #[error("IPv6 is disabled in this network namespace; set net.ipv6.conf.all.disable_ipv6 to 0")]
    Ipv6Disabled,
    #[error("cannot {0} device '{1}': {2}")]
    Device(&'static str, String, #[source] io::Error),
    #[error("cannot set {0} to {1}: {2}")]
    Setting(String, i64, #[source] io::Error),
    #[error("cannot {0} the route to {1}/{2}: {3}")]
    Route(&'static str, IpAddr, u8, #[source] io::Error),
    #[error(
        "the kernel has no netfilter queues; load nfnetlink_queue or build one with CONFIG_NETFILTER_NETLINK_QUEUE"
    )]
    NoQueueSupport,
    #[error(
        "slot {0} with {1} workers needs a queue number beyond 65535; choose a lower queue base"
    )]
    NoQueueNumber(usize, u16),
    #[error("queue {0} is in use by another process; stop that one or choose another queue base")]
    QueueBusy(u16),
    #[error("cannot {0} queue {1}: {2}")]
    Queue(&'static str, u16, #[source] io::Error),
    #[error(
        "the socket of queue {0} was not found in /proc; both /proc/self/fd and /proc/thread-self/net must be readable"
    )]
    Adopt(u16),
    #[error("slot {0} is open already")]
    SlotOpen(usize),
    #[error("slot {0} is not open")]
    SlotClosed(usize),
    #[error("cannot {0}: {1}")]
    System(String, #[source] io::Error),
    #[error("worker {0} does not run any more")]
    Stopped(usize),
}

impl Error {
    /// For `map_err`: could not `what`.
    fn system(what: &str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::System(what.to_owned(), error)
    }

    /// For `map_err`: could not `what` the device.
    fn device(name: &str, what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Device(what, name.to_owned(), error)
    }
}

/// The state of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueCounters {
    pub slot: usize,
    /// Queue number.
    pub queue: u16,
    /// Packets in the queue now: waiting to be read, or for their verdict.
    pub waiting: u32,
    /// Packets dropped by the kernel because the queue was full.
    pub kernel_dropped: u32,
    /// Packets dropped by the kernel because our socket was full.
    pub user_dropped: u32,
    /// How often the kernel said that our socket had been full.
    pub overruns: u64,
    /// Packets dropped because the kernel's message could not be read, or because they were too
    /// long to be queued whole (65,532 bytes and more).
    pub malformed: u64,
    /// Super-packets that came by this queue.
    pub super_packets: u64,
    /// Packets given back to be cut by the kernel and come by another queue: super-packets too long
    /// to be queued whole, or not of plain TCP.
    pub cut: u64,
}

/// The running workers with their devices and queues.
///
/// Nothing here may be called from within a [`Handler`]: the worker would wait for itself.
pub struct Dataplane {
    options: Options,
    /// A handle on every queue of the device, for the end.
    tuns: Vec<Tun>,
    workers: Vec<Hand>,
    slots: Mutex<Vec<Slot>>,
    inherited: Mutex<Inherited>,
    failure: Arc<Mutex<Option<String>>>,
}

/// Our end of a worker.
struct Hand {
    commands: Sender<Command>,
    wake: OwnedFd,
    pulse: Arc<Pulse>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// An open slot: what its queues, one per worker, count.
struct Slot {
    slot: usize,
    faults: Vec<Arc<Faults>>,
    /// The sockets of the queues, for a successor.
    sockets: Vec<Option<OwnedFd>>,
}

impl Dataplane {
    /// Makes the TUN device, or takes over the one that a predecessor left, and starts the
    /// workers. No slot is open yet; those that are opened before [`Dataplane::settle`] go on with
    /// inherited queues.
    ///
    /// # Errors
    /// Whatever is wrong with the options, the rights of the process, or the kernel; nothing is
    /// left behind then.
    pub fn start(
        options: Options,
        handler: Arc<dyn Handler>,
        mut inherited: Inherited,
    ) -> Result<Self, Error> {
        if !(1..=256).contains(&options.workers) {
            return Err(Error::Workers(options.workers));
        }
        if options.mtu < 1500 {
            return Err(Error::Mtu(options.mtu));
        }
        if options.queue_length == 0 {
            return Err(Error::QueueLength);
        }
        let (tuns, created) = match inherited.take_tuns(&options.tun, options.workers.into()) {
            Some(tuns) => (Tun::inherit(&options, tuns)?, false),
            None => Tun::open(&options)?,
        };
        let kept = tuns.iter().map(Tun::duplicate).collect::<io::Result<_>>();
        let mut this = Self {
            tuns: kept.map_err(Error::device(&options.tun, "keep"))?,
            options,
            workers: Vec::new(),
            slots: Mutex::default(),
            inherited: Mutex::new(inherited),
            failure: Arc::default(),
        };
        if let Err(error) = this.employ(tuns, &handler) {
            // Dropping it ends the workers there are.
            if created {
                let _ = this.persist(false);
            }
            return Err(error);
        }
        Ok(this)
    }

    /// Starts a worker for each queue of the device.
    fn employ(&mut self, tuns: Vec<Tun>, handler: &Arc<dyn Handler>) -> Result<(), Error> {
        let pin = self.options.pin;
        for (index, tun) in tuns.into_iter().enumerate() {
            let (commands, receiver) = mpsc::channel();
            let theirs = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|e| Error::System("make an event".to_owned(), e.into()))?;
            let wake = theirs
                .try_clone()
                .map_err(Error::system("duplicate an event"))?;
            let worker = Worker::new(Arc::clone(handler), index == 0, tun, theirs, receiver)?;
            let (pulse, failure) = (Arc::clone(&worker.pulse), Arc::clone(&self.failure));
            let thread = thread::Builder::new()
                .name(format!("tylo-worker-{index}"))
                .spawn(move || run(index, pin, worker, &failure))
                .map_err(Error::system("start a thread"))?;
            self.workers.push(Hand {
                commands,
                wake,
                pulse,
                thread: Mutex::new(Some(thread)),
            });
        }
        Ok(())
    }

    /// The queues of a slot: the first number and how many.
    ///
    /// # Errors
    /// [`Error::NoQueueNumber`] beyond 65535.
    pub fn queues(&self, slot: usize) -> Result<(u16, u16), Error> {
        self.options.queues(slot)
    }

    /// The queues of a slot for TCP, if there are any: the first number and how many.
    ///
    /// # Errors
    /// As for [`Dataplane::queues`].
    pub fn tcp_queues(&self, slot: usize) -> Result<Option<(u16, u16)>, Error> {
        self.options.tcp_queues(slot)
    }

    /// Opens the queues of a slot. From then on what the kernel puts there is handled.
    ///
    /// # Errors
    /// Mostly [`Error::QueueBusy`] and [`Error::NoQueueNumber`]; the slot stays closed.
    pub fn open_slot(&self, slot: usize) -> Result<(), Error> {
        let mut slots = lock(&self.slots);
        if slots.iter().any(|open| open.slot == slot) {
            return Err(Error::SlotOpen(slot));
        }
        let queues = self
            .options
            .numbers(slot)?
            .map(|(number, kind)| self.open_queue(slot, number, kind))
            .collect::<Result<Vec<_>, _>>()?;
        let faults = queues.iter().map(|queue| Arc::clone(&queue.faults));
        let sockets = queues.iter().map(Queue::keep).collect::<io::Result<_>>();
        slots.push(Slot {
            slot,
            faults: faults.collect(),
            sockets: sockets.map_err(Error::system("duplicate a socket"))?,
        });
        for (queue, index) in queues.into_iter().zip((0..self.workers.len()).cycle()) {
            self.order(index, Command::Open(queue))?;
        }
        Ok(())
    }

    fn open_queue(&self, slot: usize, number: u16, kind: Kind) -> Result<Queue, Error> {
        let length = self.options.queue_length;
        match lock(&self.inherited).take_queue(number) {
            Some(socket) => Ok(Queue::inherit(slot, number, kind, socket, length)),
            None => Queue::open(slot, number, kind, length),
        }
    }

    /// Closes what was inherited and is not needed.
    pub fn settle(&self) {
        drop(std::mem::take(&mut *lock(&self.inherited)));
    }

    /// Whether [`Dataplane::hand_over`] is possible: the descriptors of all queues are known.
    #[must_use]
    pub fn can_hand_over(&self) -> bool {
        let slots = lock(&self.slots);
        slots
            .iter()
            .all(|slot| slot.sockets.iter().all(Option::is_some))
    }

    /// Ends the workers and leaves everything else as it is: packets wait in the queues for whoever
    /// goes on with these descriptors.
    ///
    /// # Errors
    /// A descriptor cannot be duplicated, or [is not known](Self::can_hand_over).
    pub fn hand_over(&self) -> io::Result<Inherited> {
        let mut queues = Vec::new();
        for Slot { slot, sockets, .. } in &*lock(&self.slots) {
            let numbers = self.options.numbers(*slot).map_err(io::Error::other)?;
            for ((number, _), socket) in numbers.zip(sockets) {
                let socket = socket.as_ref().ok_or(io::ErrorKind::Unsupported)?;
                let socket = socket.try_clone()?;
                queue::widen(&socket, number);
                queues.push((number, socket));
            }
        }
        self.join();
        let tuns = self.tuns.iter().map(Tun::keep).collect::<io::Result<_>>()?;
        Ok(Inherited { tuns, queues })
    }

    fn persist(&self, persist: bool) -> io::Result<()> {
        self.tuns.first().map_or(Ok(()), |tun| tun.persist(persist))
    }

    /// Closes the queues of a slot; what waits in them is dropped. Returns when they are closed,
    /// so that the numbers can be used again.
    ///
    /// # Errors
    /// [`Error::SlotClosed`], and [`Error::Stopped`] when a worker died.
    pub fn close_slot(&self, slot: usize) -> Result<(), Error> {
        let mut slots = lock(&self.slots);
        let Some(position) = slots.iter().position(|open| open.slot == slot) else {
            return Err(Error::SlotClosed(slot));
        };
        slots.remove(position);
        let (done, answers) = mpsc::channel();
        for index in 0..self.workers.len() {
            self.order(index, Command::Close(slot, done.clone()))?;
        }
        drop(done);
        for index in 0..self.workers.len() {
            // Ends early, too, when the last worker that could answer is gone.
            answers
                .recv_timeout(CLOSE_TIMEOUT)
                .map_err(|_| Error::Stopped(index))?;
        }
        Ok(())
    }

    /// The state of every open queue, by slot and number.
    ///
    /// # Errors
    /// When the kernel's list cannot be read.
    pub fn counters(&self) -> Result<Vec<QueueCounters>, Error> {
        let listed = queue::list()?;
        let mut out = Vec::new();
        for Slot { slot, faults, .. } in &*lock(&self.slots) {
            for ((number, _), faults) in self.options.numbers(*slot)?.zip(faults) {
                // A queue that a dead worker closed is not listed.
                let Some(line) = listed.iter().find(|line| line.number == number) else {
                    continue;
                };
                out.push(QueueCounters {
                    slot: *slot,
                    queue: number,
                    waiting: line.waiting,
                    kernel_dropped: line.kernel_dropped,
                    user_dropped: line.user_dropped,
                    overruns: faults.overruns.load(Relaxed),
                    malformed: faults.malformed.load(Relaxed),
                    super_packets: faults.super_packets.load(Relaxed),
                    cut: faults.cut.load(Relaxed),
                });
            }
        }
        out.sort_by_key(|counters| (counters.slot, counters.queue));
        Ok(out)
    }

    /// What killed a worker, if one died: the data plane is to be started anew then.
    pub fn failed(&self) -> Option<String> {
        lock(&self.failure).clone()
    }

    /// Ends the workers and closes all queues; removes the TUN device, and with it the routes,
    /// unless `keep_tun`.
    ///
    /// # Errors
    /// When the device cannot be removed.
    pub fn stop(self, keep_tun: bool) -> Result<(), Error> {
        self.join();
        if !keep_tun {
            self.persist(false)
                .map_err(Error::device(&self.options.tun, "remove"))?;
        }
        Ok(())
    }

    fn order(&self, index: usize, command: Command) -> Result<(), Error> {
        let hand = self.workers.get(index).ok_or(Error::Stopped(index))?;
        hand.commands
            .send(command)
            .map_err(|_| Error::Stopped(index))?;
        hand.wake()
    }

    fn join(&self) {
        for hand in &self.workers {
            // Fails for a worker that has ended, which is what is wanted.
            let _ = hand.commands.send(Command::Stop);
            let _ = hand.wake();
        }
        for hand in &self.workers {
            if let Some(thread) = lock(&hand.thread).take() {
                // A panic of the worker was reported when it happened.
                let _ = thread.join();
            }
        }
    }
}

/// Like [`Dataplane::stop`] keeping the device, for when something else went wrong.
impl Drop for Dataplane {
    fn drop(&mut self) {
        self.join();
    }
}

impl Hand {
    fn wake(&self) -> Result<(), Error> {
        wake::wake(&self.wake).map_err(Error::system("wake a worker"))
    }
}

/// The current time of the clock that [`Handler`]s are told: milliseconds since the system
/// started. Time spent suspended counts, as peers go on meanwhile and sessions age.
pub fn monotonic() -> Tick {
    sys::boottime()
}

/// A number for the network namespace of this thread: the low 32 bits of its inode.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn namespace_id() -> Result<u32, Error> {
    use std::os::unix::fs::MetadataExt as _;

    std::fs::metadata("/proc/thread-self/ns/net")
        .map(|metadata| metadata.ino() as u32)
        .map_err(Error::system("look at /proc/thread-self/ns/net"))
}

/// A worker thread; a failure or panic of the worker is logged and kept.
fn run(index: usize, pin: bool, worker: Worker, failure: &Mutex<Option<String>>) {
    processors::stay(pin, index);
    let work = std::panic::AssertUnwindSafe(|| worker.run());
    let text = match std::panic::catch_unwind(work) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("worker {index} gave up: {error}"),
        Err(_) => format!("worker {index} panicked"),
    };
    tracing::error!("{text}");
    lock(failure).get_or_insert(text);
}

/// Nothing that is behind these locks can be left half changed.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tries again for a second while `busy`: a killed predecessor, or a child process that is just
/// being started and has not closed what it inherited, may hold on for a moment.
fn patiently<T>(
    mut attempt: impl FnMut() -> Result<T, Error>,
    busy: impl Fn(&Error) -> bool,
) -> Result<T, Error> {
    for _ in 0..50 {
        match attempt() {
            Err(error) if busy(&error) => thread::sleep(Duration::from_millis(20)),
            other => return other,
        }
    }
    attempt()
}

/// The most packets that are handled at once.
pub const BURST: usize = 64;

/// More than any burst takes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

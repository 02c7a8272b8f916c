// SPDX-License-Identifier: GPL-2.0-or-later
//! How fast and how large the tables of a NAT64 instance are, without packets and kernel.
//!
//! `cargo bench --bench nat64`. Items are flows. First comes the memory that a million UDP
//! sessions take, each with a mapping of its own.
#![allow(unsafe_code, clippy::unwrap_used, clippy::print_stdout)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};

use divan::Bencher;
use divan::counter::ItemsCount;
use tylo::base::host::Nameless;
use tylo::base::prefix::Prefix4;
use tylo::base::{Protocol, Tick, Transport4, Transport6};
use tylo::model::settings::Settings;
use tylo::model::{MaxIterations, Pool4Entry, PortRange};
use tylo::nat64::pool4::Pool4;
use tylo::nat64::{Change, Nat64, Outbound};
use tylo::wire::TcpFlags;

const MILLION: u32 = 1_000_000;

/// Flows an iteration, and how often a worker passes on what changed.
const BURST: u32 = 64;

/// Goes up, as clocks do.
const NOW: Tick = Tick(1_000);

fn main() {
    // As the daemon does: blocks of their own grow without a copy. Safety: takes two numbers.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
    }
    memory();
    growth();
    divan::main();
}

/// Prints what the allocator lent for a million sessions.
fn memory() {
    let before = LENT.load(Ordering::Relaxed);
    let nat64 = filled(20, MILLION);
    let after = LENT.load(Ordering::Relaxed);
    assert_eq!(nat64.table(Protocol::Udp).session_count(), MILLION as usize);
    let each = (after - before) / MILLION as usize;
    println!("{each} bytes a UDP session with its own mapping, of a million");
    drop(nat64);
}

/// Prints how long a burst of new sessions takes at most while the tables grow to two millions:
/// packets wait that long.
fn growth() {
    let mut gateway = Gateway::new(pool(20, None));
    let mut longest = (0, 0);
    for first in (0..2 * MILLION).step_by(BURST as usize) {
        let begin = cpu_time();
        for number in first..first + BURST {
            gateway.speak(number);
        }
        longest = longest.max((cpu_time() - begin, first));
        gateway.drain();
    }
    let (time, first) = longest;
    println!(
        "{} us for the slowest burst of {BURST} new sessions up to two millions, behind {first}",
        time / 1000
    );
}

/// Nanoseconds that this thread was running; others on the machine do not count.
fn cpu_time() -> i64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // Safety: the kernel writes to what is lent for the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// New sessions of new clients, into an empty table and on top of a million.
#[divan::bench(args = [0, MILLION], sample_count = 1000, sample_size = 1)]
fn new_sessions(bencher: Bencher<'_, '_>, before: u32) {
    let mut gateway = Gateway::new(filled(20, before));
    let mut next = before;
    bencher.counter(ItemsCount::new(BURST)).bench_local(|| {
        for _ in 0..BURST {
            gateway.speak(next);
            next += 1;
        }
        gateway.drain();
    });
}

/// Packets of a million sessions, in no order.
#[divan::bench(sample_count = 1000, sample_size = 16)]
fn packets_of_a_million_sessions(bencher: Bencher<'_, '_>) {
    let mut gateway = Gateway::new(filled(20, MILLION));
    let mut random = 1u32;
    bencher.counter(ItemsCount::new(BURST)).bench_local(|| {
        for _ in 0..BURST {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            gateway.speak((random >> 8) % MILLION);
        }
        gateway.drain();
    });
}

/// A mapping more (and its end) where 99 of 100 transport addresses are taken, scattered as the
/// port selection scatters them.
#[divan::bench(sample_count = 5000, sample_size = 1)]
fn allocation_at_99_percent(bencher: Bencher<'_, '_>) {
    let size = set_size(28);
    let nat64 = filled(28, size / 100 * 99);
    let mut gateway = Gateway::new(nat64);
    let mut next = size;
    bencher.bench_local(|| {
        if gateway.speak(next) {
            gateway.forget(next);
        }
        next += 1;
    });
}

/// The same where what is free is in one place, and all are tried.
#[divan::bench(sample_count = 5000, sample_size = 1)]
fn allocation_at_99_percent_in_one_piece(bencher: Bencher<'_, '_>) {
    let size = set_size(28);
    let settings = Settings {
        f_args: 0,
        ..Settings::default()
    };
    let mut gateway = Gateway::new(pool(28, Some(MaxIterations::Infinity)));
    gateway.settings = settings;
    for client in 0..size / 100 * 99 {
        gateway.speak(client);
    }
    gateway.drain();
    gateway.settings = Settings::default();
    let mut next = size;
    bencher.bench_local(|| {
        assert!(gateway.speak(next));
        gateway.forget(next);
        next += 1;
    });
}

/// A flow that is refused because everything is taken.
#[divan::bench(args = [None, Some(MaxIterations::Infinity)], sample_count = 5000, sample_size = 1)]
fn refusal_at_100_percent(bencher: Bencher<'_, '_>, iterations: Option<MaxIterations>) {
    let size = set_size(28);
    let mut gateway = Gateway::new(pool(28, Some(MaxIterations::Infinity)));
    for client in 0..size {
        gateway.speak(client);
    }
    gateway.drain();
    gateway.nat64.set_pool4(set(28, iterations), &[]);
    let mut next = size;
    bencher.bench_local(|| {
        assert!(!gateway.speak(next));
        next += 1;
    });
}

struct Gateway {
    nat64: Nat64,
    settings: Settings,
    changes: Vec<Change>,
}

impl Gateway {
    fn new(nat64: Nat64) -> Self {
        Self {
            nat64,
            settings: Settings::default(),
            changes: Vec::new(),
        }
    }

    /// A packet of the `number`-th client; false if it is refused.
    fn speak(&mut self, number: u32) -> bool {
        let flow = Outbound {
            protocol: Protocol::Udp,
            client: client(number),
            remote: Transport4::new(Ipv4Addr::from(0xcb00_7100 + number % 200), 53),
            mark: 0,
            flags: TcpFlags {
                syn: false,
                fin: false,
                rst: false,
            },
        };
        let sent = self.nat64.outbound(NOW, &self.settings, &Nameless, flow);
        black_box(sent).is_ok()
    }

    fn forget(&mut self, number: u32) {
        let client = client(number);
        let removed = self.nat64.bib_remove(Protocol::Udp, Some(client), None);
        removed.unwrap();
        self.drain();
    }

    fn drain(&mut self) {
        self.nat64.drain_changes(&mut self.changes);
    }
}

fn client(number: u32) -> Transport6 {
    let host = u128::from(number / 50);
    let prefix = 0x2001_0db8_u128 << 96;
    Transport6::new(
        Ipv6Addr::from(prefix | host << 48 | host),
        4000 + (number % 50) as u16,
    )
}

/// As many transport addresses as a prefix of this length has.
fn set_size(len: u8) -> u32 {
    65_535 << (32 - len)
}

fn set(len: u8, max_iterations: Option<MaxIterations>) -> Pool4 {
    let mut pool4 = Pool4::default();
    pool4.add(&Pool4Entry {
        mark: 0,
        protocol: Protocol::Udp,
        prefix: Prefix4::new(Ipv4Addr::new(198, 18, 0, 0), len).unwrap(),
        ports: PortRange::ALL,
        max_iterations,
    });
    pool4
}

fn pool(len: u8, max_iterations: Option<MaxIterations>) -> Nat64 {
    let mut nat64 = Nat64::new([7; 16]);
    nat64.set_pool4(set(len, max_iterations), &[]);
    nat64
}

/// An instance with as many sessions, each of another client.
fn filled(len: u8, sessions: u32) -> Nat64 {
    let mut gateway = Gateway::new(pool(len, None));
    for number in 0..sessions {
        gateway.speak(number);
        if number % BURST == 0 {
            gateway.drain();
        }
    }
    gateway.drain();
    gateway.nat64
}

/// Counts the bytes that are lent at the moment.
struct Counting;

static LENT: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// Safety: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LENT.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LENT.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LENT.fetch_add(size, Ordering::Relaxed);
        LENT.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

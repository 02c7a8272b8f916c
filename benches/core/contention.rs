// SPDX-License-Identifier: GPL-2.0-or-later
//! What it costs that workers share an instance: threads hand over bursts of flows of their own.
//!
//! A worker does its system calls without the lock. These threads do nothing else but ask for it,
//! so this is the worst case. Where processors are short, the processor time of a packet still
//! shows what waiting for each other costs, and how often a thread had to sleep how much there is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_utils::sync::ShardedLock;
use tylo::base::Tick;
use tylo::engine::{Instance, Outcome};
use tylo::wire::output::Output;

use super::engine::{answers, clients, nat64};
use super::{BURST, META};

const THREADS: [usize; 5] = [1, 2, 4, 8, 16];
/// UDP flows of each thread, all of them established.
const FLOWS: usize = 1024;

/// All flows began then, too: none of them is worth a report.
const NOW: Tick = Tick(1000);

/// An instance in the hands of several workers; nothing else here knows how they share it.
enum Shared {
    /// One worker at a time, for a whole burst.
    InTurns(Mutex<Instance>),
    /// As the daemon has it.
    AtOnce(ShardedLock<Instance>),
}

impl Shared {
    /// What a worker does with a burst.
    fn burst(&self, lane: usize, packets: &[Vec<u8>], out: &mut Output) {
        match self {
            Self::InTurns(instance) => {
                let mut instance = instance.lock().unwrap();
                for packet in packets {
                    let outcome = instance.handle(NOW, &META, packet, out);
                    assert_eq!(outcome, Outcome::Translated);
                }
                instance.drain_changes(&mut Vec::new());
            }
            Self::AtOnce(instance) => {
                let instance = instance.read().unwrap();
                let mut turn = instance.turn(NOW, lane, packets.len());
                for packet in packets {
                    let outcome = turn.handle(&META, packet, out);
                    assert_eq!(outcome, Some(Outcome::Translated));
                }
            }
        }
    }
}

/// Prints a line for each number of threads and each way of sharing, each measured for this time.
pub(super) fn run(time: Duration) {
    println!(
        "{:>7}  {:<13} {:>24} {:>21} {:>23}",
        "threads",
        "handled",
        "million packets/s, all",
        "CPU time/packet, ns",
        "sleeps in 1000 bursts"
    );
    for threads in THREADS {
        let packets = clients(threads * FLOWS);
        let instance = || {
            let mut instance = nat64();
            answers(&mut instance, &packets);
            instance
        };
        for (way, shared) in [
            ("one at a time", Shared::InTurns(Mutex::new(instance()))),
            ("at once", Shared::AtOnce(ShardedLock::new(instance()))),
        ] {
            let (number, wall, used) = measure(&shared, &packets, time);
            println!(
                "{threads:>7}  {way:<13} {:>24.2} {:>21.1} {:>23.1}",
                number as f64 / wall.as_secs_f64() / 1e6,
                used.cpu.as_nanos() as f64 / number as f64,
                used.sleeps as f64 / (number / BURST) as f64 * 1000.0
            );
        }
    }
}

/// How many packets went through, in what time and with what.
fn measure(shared: &Shared, packets: &[Vec<u8>], time: Duration) -> (usize, Duration, Used) {
    let flows = packets.chunks(FLOWS);
    let begin = Barrier::new(flows.len() + 1);
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let threads: Vec<_> = flows
            .enumerate()
            .map(|(lane, flows)| {
                let (begin, enough) = (&begin, &enough);
                scope.spawn(move || {
                    let mut out = Output::new();
                    let mut number = 0;
                    begin.wait();
                    for burst in flows.chunks(BURST).cycle() {
                        if enough.load(Ordering::Relaxed) {
                            break;
                        }
                        shared.burst(lane, burst, &mut out);
                        out.clear();
                        number += burst.len();
                    }
                    number
                })
            })
            .collect();
        let before = Used::so_far();
        begin.wait();
        let start = Instant::now();
        thread::sleep(time);
        enough.store(true, Ordering::Relaxed);
        let number = threads.into_iter().map(|t| t.join().unwrap()).sum();
        let after = Used::so_far();
        let used = Used {
            cpu: after.cpu - before.cpu,
            sleeps: after.sleeps - before.sleeps,
        };
        (number, start.elapsed(), used)
    })
}

/// What all threads together used.
struct Used {
    cpu: Duration,
    /// How often one gave its processor away because it had to wait.
    sleeps: i64,
}

impl Used {
    #[allow(unsafe_code)]
    fn so_far() -> Self {
        // Safety: all zeroes is valid for this C structure.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // Safety: the pointer is to a structure that lives through the call.
        assert_eq!(
            unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) },
            0
        );
        let time = |time: libc::timeval| {
            Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
        };
        Self {
            cpu: time(usage.ru_utime) + time(usage.ru_stime),
            sleeps: usage.ru_nvcsw,
        }
    }
}

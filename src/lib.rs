// SPDX-License-Identifier: GPL-2.0-or-later
//! tylo translates between IPv6 and IPv4 in userspace: stateful NAT64 (RFC 6146), stateless SIIT
//! (RFC 7915) and MAP-T (RFC 7599) with Jool's commands, without a kernel module.
//!
//! # The way of a packet
//!
//! ```text
//!  client ──IPv6──► prerouting rule ─► NFQUEUE ─► worker ─► engine ─► TUN tylo0 ─► kernel forwards ──IPv4──► server
//!                                                   │
//!                              not ours: ACCEPT, the kernel goes on as if nothing had happened
//! ```
//!
//! Rules divert what is addressed to pool6 or pool4 to netfilter queues. NFQUEUE cannot change
//! the family of a packet, so the original is dropped and the translation comes back through a
//! TUN device, from where the kernel forwards it like any other packet: it takes the one hop, and
//! it complains about packets that are too big for a link. What the kernel itself sends to
//! translated addresses (those complaints, and programs on the gateway) is routed to the TUN
//! device and translated as well. Without the daemon, diverted packets are dropped: nothing leaks
//! untranslated, and TCP waits.
//!
//! TCP comes in super-packets of up to 64 KiB, by queues of its own, and goes to the TUN device the
//! same way: one header is translated for dozens of segments, and the kernel or a network card cuts
//! them where they leave. How long they may be is the one thing that a queue does not tell. It is
//! learnt from the SYNs of both ends and from routers' complaints, and kept with the session. A
//! datagram would lose its borders like that, so all else comes singly; datagrams of one flow that
//! came together go back together, since then we know their size.
//!
//! For stateless translation the rules sit before defragmentation, and what they divert is told by
//! EAM table and pool6 alone: with a pool6 that is all of IPv4, except for the host's own addresses
//! and those denied. Translated addresses may be real hosts on either side, so nothing but the
//! kernel's complaints comes back, by a rule for what the host sends and, where the kernel would
//! have no route, by one of last resort that only the host itself sees.
//!
//! MAP-T needs whole packets, since ports tell customers apart; so its rules sit beside those of
//! NAT64. A border relay gets what is addressed to its domain or to the default mapping rule's
//! prefix, a customer edge what is addressed to its prefix or sent from its IPv4 address. One that
//! translates ports itself gets all that goes beyond its own networks.
//!
//! # The floors
//!
//! Imports go down only; `tests/layers.rs` sees to it. Below the purity line there is no system,
//! no clock, no thread and no `unsafe`: time is an argument and packets are slices, so that
//! everything that decides can be tested without a kernel.
//!
//! | floor | room | what it knows |
//! |---|---|---|
//! | 6 | [`daemon`] | `tylod`: the rooms wired together, changes of configuration |
//! | 6 | [`cli`] | `jool`, `jool_siit`, `jool_mapt`, `joold`, `tylo`: words to requests, answers to tables |
//! | 5 | [`dataplane`] | workers, kernel queues, the TUN device, routes to it |
//! | 5 | [`ruleset`] | nftables rules, native or through xtables' NFQUEUE target |
//! | 5 | [`store`] | SQLite: what survives the daemon |
//! | 5 | [`replica`] | sessions shared with other gateways |
//! | 5 | [`control`] | the socket that commands talk to |
//! | 5 | [`metrics`] | which numbers there are for Prometheus, and how they are asked for |
//! | | | ── purity line ── |
//! | 4 | [`engine`] | one instance: packet in, what becomes of it out |
//! | 3 | [`xlat`] | a packet and a plan become translated packets (RFC 7915) |
//! | 2 | [`map`] | addresses become addresses, without state (RFC 7757, RFC 6052, RFC 7597) |
//! | 2 | [`nat64`] | tuples and flags become mappings and sessions (RFC 6146) |
//! | 1 | [`wire`] | bytes: parse once, checksums, writers |
//! | 0 | [`base`], [`model`] | words, prefixes, counters; settings, rows, the control protocol |
//!
//! Rooms of floor 5 never import each other; [`daemon`] introduces them. [`map`] and [`nat64`] do
//! not know each other. Deciding is apart from doing: floors 2 and 4 make an [`xlat::Plan`],
//! [`xlat`] carries it out.
//!
//! # What is shared between threads
//!
//! Every worker is a thread with a queue of the TUN device and two netfilter queues for each
//! instance, one of them for TCP. The kernel spreads flows over the queues, the two directions of
//! one not always to the same worker.
//!
//! Many threads may look at an instance at once, and one alone may change it. Who looks marks a
//! place of its own for that ([`ShardedLock`](crossbeam_utils::sync::ShardedLock)), so that busy
//! workers do not take lines of the processor's cache from each other. To look is enough for
//! packets of sessions that go on as they are, and for all that is translated without sessions
//! ([`engine::Turn`]): they put off the end of their session by one atomic number within it, at
//! most once a millisecond, and every thread counts in a lane of its own. The session keeps its
//! place in the order of deadlines; when its turn comes, or when the end has moved by the 5 seconds
//! that are worth a report, it is moved to where it belongs.
//!
//! What is left of a burst of up to 64 packets (whatever begins or ends something, changes a state
//! or is to be reported) comes after that, with the instance held alone, once; a packet whose flow
//! has one waiting waits, too. Nothing is held around a system call. Displays only look, and so
//! hold up nothing but changes.
//!
//! Changes of the tables go to the journal, in order,
//! through a bounded channel; one thread writes them to SQLite. Commands are served by a tokio
//! runtime of its own; nothing on the path of a packet is asynchronous or waits for a disk.
//!
//! # Start and stop
//!
//! Start: control socket (which makes the daemon the only one in its network namespace),
//! database, instances with their sessions, TUN device and queues, rules last. A stop goes the
//! other way round. A change of configuration is validated, stored, put into force and then
//! reflected in the rules; if a step fails, the earlier ones are taken back.

pub mod base;
pub mod cli;
pub mod control;
pub mod daemon;
pub mod dataplane;
pub mod engine;
pub mod map;
pub mod metrics;
pub mod model;
pub mod nat64;
pub mod replica;
pub mod ruleset;
pub mod store;
pub mod wire;
pub mod xlat;

// The fuzz targets as tests. They call these crates by their names.
#[cfg(test)]
extern crate self as libfuzzer_sys;
#[cfg(test)]
extern crate self as tylo;
#[cfg(test)]
#[path = "../fuzz/src/tests.rs"]
mod fuzz_targets;

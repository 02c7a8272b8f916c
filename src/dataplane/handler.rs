// SPDX-License-Identifier: GPL-2.0-or-later
//! What workers and whoever decides about their packets say to each other.

use crate::base::Tick;
use crate::wire::offload::Offload;
use crate::wire::output::Output;

/// Whoever decides what becomes of packets.
pub trait Handler: Send + Sync + 'static {
    /// Handles a burst: what is to be reinjected or sent goes to `out`; `verdicts`, as long as
    /// `packets` and filled with [`Verdict::Taken`], gets [`Verdict::Accept`] where the kernel
    /// shall go on with the packet.
    fn burst(
        &self,
        now: Tick,
        source: Source,
        packets: &[Received<'_>],
        verdicts: &mut [Verdict],
        out: &mut Output,
    );

    /// Called about four times a second by one worker, traffic or not, and when a
    /// [`Waker`](super::Waker) asks for it: expire what is due.
    fn tick(&self, now: Tick, out: &mut Output);

    /// Told after the packets and errors of a burst were handed to the kernel.
    fn sent(&self, source: Source, report: &SendReport);
}

/// Where a burst came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The queue of the instance in this slot.
    Slot(usize),
    /// The TUN device: what the kernel routed there.
    Tun,
    /// A [`Handler::tick`].
    Tick,
}

/// A packet from the kernel, starting with its IP header.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    pub bytes: &'a [u8],
    /// The packet mark.
    pub mark: u32,
    /// MTU of the device it came in by, in bytes; `u32::MAX` where unknown.
    pub ingress_mtu: u32,
    /// The kernel put it together from fragments.
    pub reassembled: bool,
    /// This host itself is about to send it: queued on its way out, not on its way in.
    pub from_host: bool,
    /// What is left to do on it.
    pub offload: Offload,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Translated or dropped: the original is done with.
    Taken,
    /// The kernel goes on with it, unchanged. Means "drop" for packets from the TUN device.
    Accept,
}

/// What the kernel made of the output of a burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendReport {
    /// Packets the TUN device did not take.
    pub failed_packets: u64,
    pub icmp6_sent: u64,
    pub icmp6_failed: u64,
    pub icmp4_sent: u64,
    pub icmp4_failed: u64,
}

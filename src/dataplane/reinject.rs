// SPDX-License-Identifier: GPL-2.0-or-later
//! Hands a burst to the TUN device in as few system calls as possible.
//!
//! Super-packets, and what else is left to the kernel, have their virtio header already. TCP
//! segments that come singly and follow each other go as one super-packet, too, and so do UDP
//! datagrams of one flow. That saves more than the calls: the kernel routes and forwards it once.

use std::io::{self, IoSlice};

use super::tun::Tun;
use super::{BURST, Received, SendReport};
use crate::wire::output::{Output, Rest};
use crate::wire::segments::{Run, Segment, is_udp};

/// How many flows of a burst are joined at the same time. Each packet is compared with that many,
/// and a burst of more flows has little to join.
const FLOWS: usize = 8;

/// Writes packets; remembers what the device does not take.
#[derive(Debug, Default)]
pub(super) struct Reinjector {
    /// The kernel refused a super-packet of TCP.
    tcp_singly: bool,
    /// The kernel refused one of UDP, as all do before Linux 6.2.
    udp_singly: bool,
}

/// A run and where its packets are in the output.
struct Open<'a> {
    run: Run<'a>,
    indexes: [u32; BURST],
}

impl<'a> Open<'a> {
    fn new(index: usize, first: Segment<'a>) -> Self {
        let mut indexes = [0; BURST];
        indexes[0] = index as u32;
        Self {
            run: Run::new(first),
            indexes,
        }
    }

    /// Adds a packet; false if it does not continue the run.
    fn push(&mut self, index: usize, segment: &Segment<'_>) -> bool {
        let Some(place) = self.indexes.get_mut(self.run.count()) else {
            return false;
        };
        *place = index as u32;
        self.run.push(segment)
    }

    fn indexes(&self) -> impl Iterator<Item = usize> {
        let indexes = self.indexes.iter().take(self.run.count());
        indexes.map(|index| *index as usize)
    }
}

impl Reinjector {
    /// Writes all packets, those of a flow in their order; `burst` is what they were made of.
    ///
    /// # Errors
    /// Only when the device is gone; packets it did not take are counted in `report`.
    pub(super) fn write(
        &mut self,
        tun: &Tun,
        out: &Output,
        burst: &[Received<'_>],
        report: &mut SendReport,
    ) -> io::Result<()> {
        let mut runs: [Option<Open<'_>>; FLOWS] = [const { None }; FLOWS];
        let mut oldest = 0;
        let join = out.len() > 1;
        for (index, packet) in out.packets().enumerate() {
            // What is left to the kernel anyway travels as it is.
            let may_join = join && out.is_done(index) && self.takes(is_udp(packet));
            let Some(segment) = may_join.then(|| Segment::read(packet)).flatten() else {
                // It may be of any flow.
                for run in runs.iter_mut().filter_map(Option::take) {
                    self.write_run(tun, out, &run, report)?;
                }
                write_one(tun, out, index, burst, report)?;
                continue;
            };
            let of_flow = |run: &Option<Open<'_>>| {
                run.as_ref()
                    .is_some_and(|open| open.run.first().is_of_flow(&segment))
            };
            let place = runs.iter().position(of_flow).unwrap_or_else(|| {
                oldest = (oldest + 1) % FLOWS;
                oldest
            });
            let run = &mut runs[place];
            if let Some(open) = run
                && open.push(index, &segment)
            {
                continue;
            }
            if let Some(open) = run.replace(Open::new(index, segment)) {
                self.write_run(tun, out, &open, report)?;
            }
        }
        for run in runs.iter().flatten() {
            self.write_run(tun, out, run, report)?;
        }
        Ok(())
    }

    /// Whether the device takes super-packets of UDP, or else of TCP, as far as is known.
    const fn takes(&self, is_udp: bool) -> bool {
        if is_udp {
            !self.udp_singly
        } else {
            !self.tcp_singly
        }
    }

    fn write_run(
        &mut self,
        tun: &Tun,
        out: &Output,
        open: &Open<'_>,
        report: &mut SendReport,
    ) -> io::Result<()> {
        let count = open.run.count();
        if count > 1 && self.takes(open.run.first().is_udp()) {
            let head = open.run.head();
            let header = head.virtio().to_bytes();
            let mut pieces = [IoSlice::new(&[]); BURST + 2];
            pieces[0] = IoSlice::new(&header);
            pieces[1] = IoSlice::new(head.bytes());
            for (piece, index) in pieces[2..].iter_mut().zip(open.indexes()) {
                let data = out.get(index).and_then(|p| p.get(head.bytes().len()..));
                *piece = IoSlice::new(data.unwrap_or_default());
            }
            match tun.write_pieces(&pieces[..count + 2]) {
                Ok(()) => return Ok(()),
                Err(error) if is_gone(&error) => return Err(error),
                // It is down, or there is no room for so much: both pass.
                Err(error) if error.raw_os_error() != Some(libc::EINVAL) => {}
                Err(error) if head.is_udp => {
                    self.udp_singly = true;
                    tracing::info!(%error, "the TUN device takes no super-packets of UDP; going on without");
                }
                Err(error) => {
                    self.tcp_singly = true;
                    tracing::warn!(%error, "the TUN device takes no super-packets; going on without");
                }
            }
        }
        for index in open.indexes() {
            write_one(tun, out, index, &[], report)?;
        }
        Ok(())
    }
}

fn write_one(
    tun: &Tun,
    out: &Output,
    index: usize,
    burst: &[Received<'_>],
    report: &mut SendReport,
) -> io::Result<()> {
    let frame = out.frame(index).unwrap_or_default();
    let written = match out.rest(index) {
        None => tun.write(frame),
        Some(Rest { place, from }) => {
            let rest = burst.get(place).and_then(|packet| packet.bytes.get(from..));
            tun.write_pieces(&[IoSlice::new(frame), IoSlice::new(rest.unwrap_or_default())])
        }
    };
    match written {
        Ok(()) => Ok(()),
        Err(error) if is_gone(&error) => Err(error),
        Err(_) => {
            report.failed_packets += 1;
            Ok(())
        }
    }
}

/// The device was deleted; it will not come back to this descriptor.
fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBADFD)
}

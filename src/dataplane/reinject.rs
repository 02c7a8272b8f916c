// SPDX-License-Identifier: GPL-2.0-or-later
//! Hands a burst to the TUN device in as few system calls as possible.
//!
//! Super-packets, and what else is left to the kernel, have their virtio header already. TCP
//! segments that come singly and follow each other go as one super-packet, too. That saves more than the calls: the kernel routes and forwards it once.

use std::io::{self, IoSlice};

use super::tun::Tun;
use super::{BURST, Received, SendReport};
use crate::wire::output::{Output, Rest};
use crate::wire::segments::{Run, Segment};

/// Writes packets; remembers whether the device takes super-packets.
#[derive(Debug, Default)]
pub(super) struct Reinjector {
    /// The kernel refused one.
    singly: bool,
}

impl Reinjector {
    /// Writes all packets in their order; `burst` is what they were made of.
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
        let mut run: Option<(usize, Run<'_>)> = None;
        let join = !self.singly && out.len() > 1;
        for (index, packet) in out.packets().enumerate() {
            // What is left to the kernel anyway travels as it is.
            let segment = (join && out.is_done(index)).then(|| Segment::read(packet));
            let segment = segment.flatten();
            if let (Some((_, run)), Some(segment)) = (&mut run, &segment)
                && run.count() < BURST
                && run.push(segment)
            {
                continue;
            }
            if let Some((first, run)) = run.take() {
                self.write_run(tun, out, first, &run, report)?;
            }
            match segment {
                Some(segment) => run = Some((index, Run::new(segment))),
                None => write_one(tun, out, index, burst, report)?,
            }
        }
        match run {
            Some((first, run)) => self.write_run(tun, out, first, &run, report),
            None => Ok(()),
        }
    }

    fn write_run(
        &mut self,
        tun: &Tun,
        out: &Output,
        first: usize,
        run: &Run<'_>,
        report: &mut SendReport,
    ) -> io::Result<()> {
        let indexes = first..first + run.count();
        if run.count() > 1 && !self.singly {
            let head = run.head();
            let header = head.virtio().to_bytes();
            let mut pieces = [IoSlice::new(&[]); BURST + 2];
            pieces[0] = IoSlice::new(&header);
            pieces[1] = IoSlice::new(head.bytes());
            for (piece, index) in pieces[2..].iter_mut().zip(indexes.clone()) {
                let data = out.get(index).and_then(|p| p.get(head.bytes().len()..));
                *piece = IoSlice::new(data.unwrap_or_default());
            }
            match tun.write_pieces(&pieces[..run.count() + 2]) {
                Ok(()) => return Ok(()),
                Err(error) if is_gone(&error) => return Err(error),
                Err(error) => {
                    self.singly = true;
                    tracing::warn!(%error, "the TUN device takes no super-packets; going on without");
                }
            }
        }
        for index in indexes {
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

// SPDX-License-Identifier: GPL-2.0-or-later
//! Hands a burst to the TUN device in as few system calls as possible.
//!
//! TCP segments that follow each other go as one super-packet with its segment size in the virtio
//! header. That saves more than the calls: the kernel routes and forwards it once.

use std::io::{self, IoSlice};

use super::tun::Tun;
use super::{BURST, SendReport};
use crate::wire::output::{HEADROOM, Output};
use crate::wire::segments::{Head, Run, Segment};

/// Writes packets; remembers whether the device takes super-packets.
#[derive(Debug, Default)]
pub(super) struct Reinjector {
    /// The kernel refused one.
    singly: bool,
}

impl Reinjector {
    /// Writes all packets in their order.
    ///
    /// # Errors
    /// Only when the device is gone; packets it did not take are counted in `report`.
    pub(super) fn write(
        &mut self,
        tun: &Tun,
        out: &Output,
        report: &mut SendReport,
    ) -> io::Result<()> {
        let mut run: Option<(usize, Run<'_>)> = None;
        let join = !self.singly && out.len() > 1;
        for (index, packet) in out.packets().enumerate() {
            let segment = join.then(|| Segment::read(packet)).flatten();
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
                None => write_one(tun, out, index, report)?,
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
            let header = virtio_header(&head);
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
            write_one(tun, out, index, report)?;
        }
        Ok(())
    }
}

fn write_one(tun: &Tun, out: &Output, index: usize, report: &mut SendReport) -> io::Result<()> {
    match tun.write(out.frame(index).unwrap_or_default()) {
        Ok(()) => Ok(()),
        Err(error) if is_gone(&error) => Err(error),
        Err(_) => {
            report.failed_packets += 1;
            Ok(())
        }
    }
}

/// `struct virtio_net_hdr`: the checksum is to be completed, the data to be cut.
fn virtio_header(head: &Head) -> [u8; HEADROOM] {
    const NEEDS_CSUM: u8 = 1;
    const GSO_TCPV4: u8 = 1;
    const GSO_TCPV6: u8 = 4;
    /// Where the checksum is in a TCP header.
    const CHECKSUM: u16 = 16;
    let [l0, l1] = (head.bytes().len() as u16).to_ne_bytes();
    let [s0, s1] = head.segment_size.to_ne_bytes();
    let [c0, c1] = (head.ip_len as u16).to_ne_bytes();
    let [o0, o1] = CHECKSUM.to_ne_bytes();
    let kind = if head.is_v6 { GSO_TCPV6 } else { GSO_TCPV4 };
    [NEEDS_CSUM, kind, l0, l1, s0, s1, c0, c1, o0, o1]
}

/// The device was deleted; it will not come back to this descriptor.
fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBADFD)
}

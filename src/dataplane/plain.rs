// SPDX-License-Identifier: GPL-2.0-or-later
//! A queue that is read by the calls of the nfq crate alone: one system call for every packet and
//! every verdict, and nothing that says when packets have come.
//!
//! This is what remains when the descriptor of a queue cannot be found, because the kernel does not
//! show its list of queues: it shows it to user root and group root only. Packets that came while
//! the queue was set up, and that the crate threw away, keep their places in it, since the crate
//! has no verdict on packets that it has not returned.

use std::io;

use nfq::{Message, Verdict};

use super::BURST;
use super::message::{Queued, compose};
use super::queue::STRIDE;

pub(super) struct Plain {
    queue: nfq::Queue,
    /// Received, without verdict.
    waiting: Vec<Message>,
    /// There may be more.
    full: bool,
    /// What went wrong behind packets that were received first.
    fault: Option<io::Error>,
}

impl Plain {
    pub(super) fn new(mut queue: nfq::Queue) -> Self {
        queue.set_nonblocking(true);
        Self {
            queue,
            waiting: Vec::with_capacity(BURST),
            full: false,
            fault: None,
        }
    }

    /// Milliseconds until packets should be looked for.
    pub(super) const fn impatience(&self) -> u64 {
        if self.full || self.fault.is_some() {
            0
        } else {
            LOOK
        }
    }

    /// Receives what is there into pieces of [`STRIDE`] bytes, as the kernel would have put it.
    pub(super) fn receive(
        &mut self,
        room: &mut [u8],
        lens: &mut [usize; BURST],
    ) -> io::Result<usize> {
        let mut count = 0;
        self.full = false;
        if let Some(error) = self.fault.take() {
            return Err(error);
        }
        for (piece, len) in room.chunks_exact_mut(STRIDE).zip(lens) {
            let mut message = match self.queue.recv() {
                Ok(message) => message,
                Err(error) if count > 0 => {
                    self.fault = Some(error).filter(|e| e.kind() != io::ErrorKind::WouldBlock);
                    return Ok(count);
                }
                Err(error) => return Err(error),
            };
            message.set_verdict(Verdict::Drop);
            let whole = message.get_original_len() == message.get_payload().len();
            *len = compose(
                &Queued {
                    id: message.get_packet_id(),
                    hook: message.get_hook(),
                    mark: message.get_nfmark(),
                    device: message.get_indev(),
                    payload: if whole { message.get_payload() } else { &[] },
                    info: info(&message),
                },
                piece,
            );
            self.waiting.push(message);
            count += 1;
        }
        self.full = true;
        Ok(count)
    }

    /// The kernel goes on with packet `id`.
    pub(super) fn accept(&mut self, id: u32) {
        let message = self.waiting.iter_mut().find(|m| m.get_packet_id() == id);
        if let Some(message) = message {
            message.set_verdict(Verdict::Accept);
        }
    }

    /// Gives all verdicts; what was not accepted is dropped.
    pub(super) fn give(&mut self) -> io::Result<()> {
        self.waiting
            .drain(..)
            .try_for_each(|message| self.queue.verdict(message))
    }
}

fn info(message: &Message) -> u32 {
    let (mut info, flags) = (0, (libc::NFQA_SKB_GSO, libc::NFQA_SKB_CSUMNOTREADY));
    if message.is_seg_offloaded() {
        info |= flags.0 as u32;
    }
    if !message.is_checksum_ready() {
        info |= flags.1 as u32;
    }
    info
}

/// How often packets are looked for, in milliseconds.
const LOOK: u64 = 1;

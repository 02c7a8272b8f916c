// SPDX-License-Identifier: GPL-2.0-or-later
//! The MTU of the devices packets come in by, asked for at most once a second.

use socket2::{Domain, Socket, Type};

use super::{Error, sys};
use crate::base::Tick;

/// How long an answer is used, in milliseconds.
const LIFETIME: u64 = 1000;

/// More devices than this are not remembered; the oldest answers go first.
const REMEMBERED: usize = 1024;

pub(super) struct Mtus {
    socket: Socket,
    known: Vec<Known>,
}

#[derive(Clone, Copy)]
struct Known {
    device: u32,
    mtu: u32,
    asked: Tick,
}

impl Mtus {
    pub(super) fn open() -> Result<Self, Error> {
        // Any socket will do; it only says which namespace is meant.
        let socket =
            Socket::new(Domain::UNIX, Type::DGRAM, None).map_err(Error::system("open a socket"))?;
        Ok(Self {
            socket,
            known: Vec::new(),
        })
    }

    /// The MTU of the device with this index, in bytes; `u32::MAX` if it cannot be found out.
    pub(super) fn get(&mut self, device: u32, now: Tick) -> u32 {
        if device == 0 {
            return u32::MAX;
        }
        // A gateway has a handful of devices, and most of a burst comes by the same one.
        if let Some(known) = self.known.iter_mut().find(|known| known.device == device) {
            if now.since(known.asked) >= LIFETIME {
                known.mtu = ask(&self.socket, device);
                known.asked = now;
            }
            return known.mtu;
        }
        let mtu = ask(&self.socket, device);
        if self.known.len() >= REMEMBERED {
            self.known.drain(..REMEMBERED / 2);
        }
        self.known.push(Known {
            device,
            mtu,
            asked: now,
        });
        mtu
    }
}

fn ask(socket: &Socket, device: u32) -> u32 {
    use std::os::fd::AsFd as _;

    rustix::net::netdevice::index_to_name(socket, device)
        .ok()
        .and_then(|name| sys::device_name(&name))
        .and_then(|name| sys::mtu(socket.as_fd(), name).ok())
        .unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mtu_of_the_loopback_device_is_known_and_others_are_not() {
        let mut mtus = Mtus::open().unwrap();
        let text = std::fs::read_to_string("/sys/class/net/lo/mtu").unwrap();
        assert_eq!(mtus.get(1, Tick(0)).to_string(), text.trim());
        assert_eq!(mtus.get(0, Tick(0)), u32::MAX);
        assert_eq!(mtus.get(0x7fff_ffff, Tick(0)), u32::MAX);
    }

    #[test]
    fn an_answer_is_used_for_a_second() {
        let mut mtus = Mtus::open().unwrap();
        let truth = mtus.get(1, Tick(0));
        mtus.known[0].mtu = 1;
        assert_eq!(mtus.get(1, Tick(999)), 1);
        assert_eq!(mtus.get(1, Tick(1000)), truth);
    }
}

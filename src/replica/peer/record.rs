// SPDX-License-Identifier: GPL-2.0-or-later
//! What is said about one session, as a value and as bytes.
//!
//! ```text
//! flags 16 bits │ transport address of pool4 │ remote one │ stamp, unless that of the frame │
//!   alive: client, remaining lifetime, birth of the mapping │ deleted: birth of the mapping
//! ```
//!
//! What a session has in common with the one before it is left out: the pool4 address and the
//! upper half of the client's address. Numbers take as many bytes as they need.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::codec::{Reader, Write};
use super::stamp::Stamp;
use crate::base::{Protocol, Transport4, Transport6};
use crate::model::TcpState;
use crate::nat64::tcp::Lifetime;

/// What names a session: its protocol, and both ends as IPv4 sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    pub protocol: Protocol,
    /// The transport address of pool4.
    pub v4: Transport4,
    /// For ICMP its port is 0.
    pub remote: Transport4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: SessionKey,
    pub(super) stamp: Stamp,
    pub(super) body: Body,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Alive(Alive),
    /// Alive, but the sender could not take it into its table and does not know more.
    Mentioned,
    /// Gone by decision, with all that was written before `stamp` about a mapping that is not
    /// younger than `birth`.
    Deleted {
        birth: u64,
    },
    /// This very version ended of itself.
    Expired,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alive {
    pub(super) client: Transport6,
    pub(super) state: TcpState,
    pub(super) lifetime: Lifetime,
    /// Milliseconds until it ends.
    pub(super) remaining: u32,
    /// When its mapping came to be: of mappings that contradict each other the youngest wins.
    pub(super) birth: u64,
    /// The most data in a TCP segment, in bytes, 0 if unknown; said as one of [`SEGMENTS`].
    pub(super) segment: u16,
}

/// Packs records into as many bytes as there is room for.
pub(super) struct Packer {
    bytes: Vec<u8>,
    room: usize,
    base: Stamp,
    before: Before,
}

/// What the next record may have in common with the one before it.
#[derive(Clone, Copy, Default)]
struct Before {
    pool4: Option<Ipv4Addr>,
    prefix: Option<u64>,
}

impl Packer {
    /// `base` is the stamp that needs no mention.
    pub(super) const fn new(room: usize, base: Stamp) -> Self {
        Self {
            bytes: Vec::new(),
            room,
            base,
            before: Before {
                pool4: None,
                prefix: None,
            },
        }
    }

    /// Adds a record; false if there is no room for it.
    pub(super) fn push(&mut self, record: &Record) -> bool {
        let (len, before) = (self.bytes.len(), self.before);
        self.write(record);
        let fits = self.bytes.len() <= self.room;
        if !fits {
            self.bytes.truncate(len);
            self.before = before;
        }
        fits
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes; the next record begins anew.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.before = Before::default();
        std::mem::take(&mut self.bytes)
    }

    fn write(&mut self, record: &Record) {
        let Record { key, stamp, body } = record;
        let mut flags = key.protocol.index() as u16;
        flags |= match body {
            Body::Alive(_) => ALIVE,
            Body::Mentioned => MENTIONED,
            Body::Deleted { .. } => DELETED,
            Body::Expired => EXPIRED,
        } << KIND;
        if *stamp != self.base {
            flags |= OWN_STAMP;
        }
        if self.before.pool4.replace(key.v4.addr) == Some(key.v4.addr) {
            flags |= SAME_POOL4;
        }
        if let Body::Alive(alive) = body {
            flags |= (state_number(alive.state) << STATE) | ((alive.lifetime as u16) << LIFETIME);
            flags |= segment_number(alive.segment) << SEGMENT;
            let prefix = upper(alive.client.addr);
            if self.before.prefix.replace(prefix) == Some(prefix) {
                flags |= SAME_PREFIX;
            }
        }
        let bytes = &mut self.bytes;
        bytes.put_u16(flags);
        if flags & SAME_POOL4 == 0 {
            bytes.put_u32(key.v4.addr.into());
        }
        bytes.put_u16(key.v4.port);
        match key.protocol {
            Protocol::Tcp | Protocol::Udp => bytes.put_transport4(key.remote),
            Protocol::Icmp => bytes.put_u32(key.remote.addr.into()),
        }
        if flags & OWN_STAMP != 0 {
            bytes.put_u64(stamp.bits());
        }
        match body {
            Body::Alive(alive) => {
                let addr = alive.client.addr.octets();
                let from = if flags & SAME_PREFIX != 0 { 8 } else { 0 };
                bytes.extend_from_slice(&addr[from..]);
                bytes.put_u16(alive.client.port);
                bytes.put_number(alive.remaining.into());
                bytes.put_number(age(stamp.time(), alive.birth));
            }
            Body::Deleted { birth } => bytes.put_number(age(stamp.time(), *birth)),
            Body::Mentioned | Body::Expired => {}
        }
    }
}

/// Reads what a [`Packer`] wrote; `None` for anything else.
pub(super) fn unpack(bytes: &[u8], base: Stamp) -> Option<Vec<Record>> {
    let mut before = Before::default();
    Reader::new(bytes).list(|reader| read(reader, base, &mut before))
}

fn read(reader: &mut Reader<'_>, base: Stamp, before: &mut Before) -> Option<Record> {
    let flags = reader.u16()?;
    let protocol = *Protocol::ALL.get(usize::from(flags & 3))?;
    let pool4 = if flags & SAME_POOL4 != 0 {
        before.pool4?
    } else {
        reader.addr4()?
    };
    before.pool4 = Some(pool4);
    let v4 = Transport4::new(pool4, reader.u16()?);
    let remote = match protocol {
        Protocol::Tcp | Protocol::Udp => reader.transport4()?,
        Protocol::Icmp => Transport4::new(reader.addr4()?, 0),
    };
    let stamp = if flags & OWN_STAMP != 0 {
        Stamp::from_bits(reader.u64()?)
    } else {
        base
    };
    let body = match (flags >> KIND) & 3 {
        ALIVE => {
            let prefix = if flags & SAME_PREFIX != 0 {
                before.prefix?
            } else {
                reader.u64()?
            };
            before.prefix = Some(prefix);
            let addr = u128::from(prefix) << 64 | u128::from(reader.u64()?);
            let client = Transport6::new(Ipv6Addr::from(addr), reader.u16()?);
            let remaining = u32::try_from(reader.number()?).ok()?;
            Body::Alive(Alive {
                client,
                state: *TcpState::ALL.get(usize::from((flags >> STATE) & 7))?,
                lifetime: lifetime(protocol, (flags >> LIFETIME) & 7)?,
                remaining,
                birth: birth(stamp.time(), reader.number()?),
                segment: SEGMENTS[usize::from(flags >> SEGMENT)],
            })
        }
        DELETED => Body::Deleted {
            birth: birth(stamp.time(), reader.number()?),
        },
        MENTIONED => Body::Mentioned,
        _ => Body::Expired,
    };
    Some(Record {
        key: SessionKey {
            protocol,
            v4,
            remote,
        },
        stamp,
        body,
    })
}

/// How much earlier than `time` a mapping was born; rarely it was later. Zigzag.
fn age(time: u64, birth: u64) -> u64 {
    let age = time.wrapping_sub(birth) as i64;
    (age << 1 ^ age >> 63) as u64
}

fn birth(time: u64, age: u64) -> u64 {
    let age = (age >> 1) as i64 ^ -((age & 1) as i64);
    time.wrapping_sub(age as u64)
}

fn upper(addr: Ipv6Addr) -> u64 {
    (u128::from(addr) >> 64) as u64
}

/// The position of a state in [`TcpState::ALL`].
fn state_number(state: TcpState) -> u16 {
    let position = TcpState::ALL.iter().position(|other| *other == state);
    position.map_or(0, |position| position as u16)
}

/// The position of the highest of [`SEGMENTS`] that is not above a size.
fn segment_number(segment: u16) -> u16 {
    let above = SEGMENTS.iter().position(|size| *size > segment);
    (above.unwrap_or(SEGMENTS.len()) as u16).saturating_sub(1)
}

/// The sizes of segments there are words for: three bits of the flags, which versions without super-packets
/// neither set nor look at. Whoever gets a shorter one than it might have only has more headers.
const SEGMENTS: [u16; 8] = [0, 48, 536, 1220, 1340, 1400, 1440, 8940];

/// The lifetime of a number, if sessions of the protocol can be on it.
fn lifetime(protocol: Protocol, number: u16) -> Option<Lifetime> {
    let of: &[Lifetime] = match protocol {
        Protocol::Tcp => &[
            Lifetime::TcpEstablished,
            Lifetime::TcpTransitory,
            Lifetime::TcpIncomingSyn,
        ],
        Protocol::Udp => &[Lifetime::Udp],
        Protocol::Icmp => &[Lifetime::Icmp],
    };
    of.iter()
        .copied()
        .find(|lifetime| *lifetime as u16 == number)
}

const KIND: u16 = 2;
const ALIVE: u16 = 0;
const MENTIONED: u16 = 1;
const DELETED: u16 = 2;
const EXPIRED: u16 = 3;
const LIFETIME: u16 = 4;
const STATE: u16 = 7;
const OWN_STAMP: u16 = 1 << 10;
const SAME_PREFIX: u16 = 1 << 11;
const SAME_POOL4: u16 = 1 << 12;
const SEGMENT: u16 = 13;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_record() -> impl Strategy<Value = Record> {
        let key = (0..3usize, 0..4u32, any::<u16>(), any::<u32>(), any::<u16>());
        let alive = (
            any::<(u64, u64, u16)>(),
            0..7usize,
            0..3usize,
            any::<u32>(),
            0..=super::super::stamp::TIME_MAX,
        );
        (key, any::<u64>(), 0..4u8, alive).prop_map(|(key, stamp, kind, alive)| {
            let protocol = Protocol::ALL[key.0];
            let port = if protocol == Protocol::Icmp { 0 } else { key.4 };
            let ((upper, lower, port6), state, life, remaining, birth) = alive;
            let client = Ipv6Addr::from(u128::from(upper % 3) << 64 | u128::from(lower));
            let lifetimes = (0..5).filter_map(|n| lifetime(protocol, n));
            let lifetimes: Vec<_> = lifetimes.collect();
            Record {
                key: SessionKey {
                    protocol,
                    v4: Transport4::new(key.1.into(), key.2),
                    remote: Transport4::new(key.3.into(), port),
                },
                stamp: Stamp::from_bits(stamp),
                body: match kind {
                    0 => Body::Alive(Alive {
                        client: Transport6::new(client, port6),
                        state: TcpState::ALL[state],
                        lifetime: lifetimes[life % lifetimes.len()],
                        remaining,
                        birth,
                        segment: SEGMENTS[remaining as usize % SEGMENTS.len()],
                    }),
                    1 => Body::Mentioned,
                    2 => Body::Deleted { birth },
                    _ => Body::Expired,
                },
            }
        })
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(
            records in prop::collection::vec(any_record(), 0..50),
            base in 0..3usize,
            room in 100..2000usize,
        ) {
            let base = records.get(base).map_or(Stamp::ZERO, |record| record.stamp);
            let mut packer = Packer::new(room, base);
            let mut back = Vec::new();
            for record in &records {
                if !packer.push(record) {
                    let bytes = packer.take();
                    prop_assert!(bytes.len() <= room);
                    back.extend(unpack(&bytes, base).unwrap());
                    prop_assert!(packer.push(record));
                }
            }
            back.extend(unpack(&packer.take(), base).unwrap());
            prop_assert_eq!(back, records);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(records) = unpack(&bytes, Stamp::ZERO) {
                let mut packer = Packer::new(usize::MAX, Stamp::ZERO);
                prop_assert!(records.iter().all(|record| packer.push(record)));
                prop_assert_eq!(unpack(&packer.take(), Stamp::ZERO).unwrap(), records);
            }
        }
    }

    #[test]
    fn segments_are_never_said_to_be_longer() {
        for (size, said) in [
            (0, 0),
            (48, 48),
            (535, 48),
            (1219, 536),
            (1428, 1400),
            (1460, 1440),
            (u16::MAX, 8940),
        ] {
            assert_eq!(SEGMENTS[usize::from(segment_number(size))], said, "{size}");
        }
    }

    /// Clients in /64s of their own, one pool4 address, a stamp that the frame has.
    #[test]
    fn sizes_are_what_the_document_says() {
        let stamp = Stamp::new(1 << 40, 7);
        let record = |i: u16, body| Record {
            key: SessionKey {
                protocol: Protocol::Tcp,
                v4: Transport4::new(Ipv4Addr::new(192, 0, 2, 1), i),
                remote: Transport4::new(Ipv4Addr::new(198, 51, 100, 7), 443),
            },
            stamp,
            body,
        };
        let alive = |i: u16, prefix: u128, remaining, age| {
            Body::Alive(Alive {
                client: Transport6::new(Ipv6Addr::from(prefix << 64 | u128::from(i)), 5000),
                state: TcpState::Established,
                lifetime: Lifetime::TcpEstablished,
                remaining,
                birth: stamp.time() - age,
                segment: 1440,
            })
        };
        let size = |base, make: &dyn Fn(u16) -> Body| {
            let mut packer = Packer::new(usize::MAX, base);
            assert!((0..100).all(|i| packer.push(&record(i, make(i)))));
            packer.take().len().div_ceil(100)
        };
        let hours = 7_200_000;
        let sizes = [
            size(stamp, &|i| alive(i, i.into(), hours, 0)),
            size(stamp, &|i| alive(i, 1, hours, 0)),
            size(Stamp::ZERO, &|i| alive(i, i.into(), hours, 1 << 20)),
            size(stamp, &|_| Body::Deleted { birth: 1 << 39 }),
        ];
        // New, new with clients in one /64, in a whole transfer, deleted.
        assert_eq!(sizes, [34, 26, 45, 17]);
    }
}

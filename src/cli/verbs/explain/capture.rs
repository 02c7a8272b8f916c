// SPDX-License-Identifier: GPL-2.0-or-later
//! Packets out of a capture, pcap or pcapng, as a file or as it comes.

use std::io::Read;

use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

/// A record of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Milliseconds since 1970; `None` where it has none.
    pub(super) at: Option<u64>,
    /// The packet from its IP header on, or why there is none.
    pub(super) packet: Result<Vec<u8>, Nothing>,
}

/// Why a record has no packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Nothing {
    #[error("only {0} of its {1} bytes were captured; capture with 'tcpdump -s 0'")]
    Cut(usize, usize),
    #[error("no IP packet (EtherType 0x{0:04x})")]
    NotIp(u16),
    #[error("no IP packet")]
    NoPacket,
    #[error("its link type {0} is not understood; capture on an Ethernet, TUN or 'any' interface")]
    Link(i32),
    #[error("it goes out")]
    Outgoing,
    #[error("it came by an interface that the capture does not describe")]
    Interface,
}

/// Why a capture ends early.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CaptureError {
    #[error("this is no capture: neither pcap nor pcapng")]
    Foreign,
    #[error("the capture ends in the middle of a record")]
    Short,
    #[error("a record is longer than {MOST} bytes, or damaged")]
    Long,
    #[error("the capture cannot be read")]
    Unreadable,
    #[error("a record makes no sense")]
    Damaged,
}

/// Reads a capture.
pub(super) struct Capture {
    reader: Box<dyn PcapReaderIterator + Send>,
    /// Of pcapng, one for each interface: link type, units of time in a second, seconds more.
    links: Vec<(Linktype, u64, i64)>,
    /// Parts of a second that time stamps of pcap count.
    nanoseconds: bool,
    /// The interface whose packets are the translator's own.
    own: Option<u32>,
}

impl Capture {
    /// `own` is the number of the interface that packets are not looked at that come in by.
    ///
    /// # Errors
    /// It does not begin like one.
    pub(super) fn open(
        from: impl Read + Send + 'static,
        own: Option<u32>,
    ) -> Result<Self, CaptureError> {
        let reader = create_reader(MOST, from).map_err(|error| match error {
            PcapError::ReadError => CaptureError::Unreadable,
            PcapError::Eof
            | PcapError::BufferTooSmall
            | PcapError::UnexpectedEof
            | PcapError::Incomplete(_)
            | PcapError::HeaderNotRecognized
            | PcapError::NomError(..)
            | PcapError::OwnedNomError(..) => CaptureError::Foreign,
        })?;
        Ok(Self {
            reader,
            links: Vec::new(),
            nanoseconds: false,
            own,
        })
    }

    /// The next record; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Record>, CaptureError> {
        loop {
            let (step, used) = match self.reader.next() {
                Ok((used, block)) => {
                    let links = &mut self.links;
                    (read(block, links, &mut self.nanoseconds, self.own), used)
                }
                Err(PcapError::Eof) => return Ok(None),
                Err(PcapError::Incomplete(_)) => {
                    let before = self.reader.data().len();
                    if self.reader.refill().is_err() {
                        return Err(CaptureError::Unreadable);
                    }
                    if self.reader.data().len() == before && self.reader.reader_exhausted() {
                        return if before == 0 {
                            Ok(None)
                        } else {
                            Err(CaptureError::Short)
                        };
                    }
                    if self.reader.data().len() == before {
                        return Err(CaptureError::Long);
                    }
                    continue;
                }
                Err(PcapError::UnexpectedEof) => return Err(CaptureError::Short),
                Err(PcapError::BufferTooSmall) => return Err(CaptureError::Long),
                Err(PcapError::ReadError) => return Err(CaptureError::Unreadable),
                Err(_) => return Err(CaptureError::Damaged),
            };
            self.reader.consume(used);
            if let Some(record) = step {
                return Ok(Some(record));
            }
        }
    }
}

fn read(
    block: PcapBlockOwned<'_>,
    links: &mut Vec<(Linktype, u64, i64)>,
    nanoseconds: &mut bool,
    own: Option<u32>,
) -> Option<Record> {
    let record = |at, link, data: &[u8], caught: u32, whole: u32| {
        let data = data.get(..caught as usize).unwrap_or(data);
        let packet = unpack(link, data, own);
        let packet = packet.and_then(|packet| trim(packet, data.len(), whole as usize));
        Record { at, packet }
    };
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            *nanoseconds = header.is_nanosecond_precision();
            links.clear();
            links.push((header.network, 1, 0));
            None
        }
        PcapBlockOwned::Legacy(block) => {
            let (link, ..) = *links.first()?;
            let parts = if *nanoseconds { 1_000_000 } else { 1_000 };
            let at = u64::from(block.ts_sec) * 1_000 + u64::from(block.ts_usec / parts);
            Some(record(
                Some(at),
                link,
                block.data,
                block.caplen,
                block.origlen,
            ))
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            links.clear();
            None
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(block)) => {
            let units = block.ts_resolution().unwrap_or(1_000_000).max(1);
            links.push((block.linktype, units, block.ts_offset()));
            None
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(block)) => {
            let Some((link, units, more)) = links.get(block.if_id as usize).copied() else {
                let packet = Err(Nothing::Interface);
                return Some(Record { at: None, packet });
            };
            let ticks = u128::from(block.ts_high) << 32 | u128::from(block.ts_low);
            let at = u64::try_from(ticks * 1_000 / u128::from(units)).ok();
            let more = u64::try_from(more).unwrap_or(0).saturating_mul(1_000);
            let at = at.map(|at| at.saturating_add(more));
            Some(record(at, link, block.data, block.caplen, block.origlen))
        }
        PcapBlockOwned::NG(Block::SimplePacket(block)) => {
            let Some((link, ..)) = links.first().copied() else {
                let packet = Err(Nothing::Interface);
                return Some(Record { at: None, packet });
            };
            let caught = u32::try_from(block.data.len()).unwrap_or(u32::MAX);
            let caught = caught.min(block.origlen);
            Some(record(None, link, block.data, caught, block.origlen))
        }
        PcapBlockOwned::NG(_) => None,
    }
}

/// Takes the link's header off.
fn unpack(link: Linktype, data: &[u8], own: Option<u32>) -> Result<&[u8], Nothing> {
    let word = |at: usize| {
        let bytes = data.get(at..).and_then(<[u8]>::first_chunk::<2>);
        bytes.map(|bytes| u16::from_be_bytes(*bytes))
    };
    let (kind, from) = match link {
        Linktype::ETHERNET => {
            let mut at = 12;
            // VLAN tags.
            while let Some(0x8100 | 0x88a8 | 0x9100) = word(at) {
                at += 4;
            }
            (word(at), at + 2)
        }
        LINUX_SLL => {
            if word(0) == Some(OUTGOING) {
                return Err(Nothing::Outgoing);
            }
            (word(14), 16)
        }
        LINUX_SLL2 => {
            let interface = data.get(4..).and_then(<[u8]>::first_chunk::<4>);
            let interface = interface.map(|bytes| u32::from_be_bytes(*bytes));
            if data.get(10).copied().map(u16::from) == Some(OUTGOING)
                || own.is_some() && interface == own
            {
                return Err(Nothing::Outgoing);
            }
            (word(0), 20)
        }
        Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 | Linktype(12 | 14) => (Some(IPV4), 0),
        Linktype(number) => return Err(Nothing::Link(number)),
    };
    match kind {
        Some(IPV4 | IPV6) => data.get(from..).ok_or(Nothing::NoPacket),
        Some(kind) => Err(Nothing::NotIp(kind)),
        None => Err(Nothing::NoPacket),
    }
}

/// Takes off what links put behind short packets. `caught` of `whole` bytes of the frame are there.
fn trim(packet: &[u8], caught: usize, whole: usize) -> Result<Vec<u8>, Nothing> {
    let word = |at: usize| {
        let bytes = packet.get(at..).and_then(<[u8]>::first_chunk::<2>);
        bytes.map(|bytes| usize::from(u16::from_be_bytes(*bytes)))
    };
    let len = match packet.first().map(|first| first >> 4) {
        Some(6) => word(4).map(|len| 40 + len),
        Some(4) => word(2),
        Some(_) | None => return Err(Nothing::NoPacket),
    };
    let len = len.ok_or_else(|| Nothing::Cut(caught, whole.max(caught)))?;
    if packet.len() < len && caught < whole {
        return Err(Nothing::Cut(caught, whole));
    }
    Ok(packet.get(..len).unwrap_or(packet).to_vec())
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// The two kinds of Linux's cooked captures, of all interfaces at once.
const LINUX_SLL: Linktype = Linktype(113);
const LINUX_SLL2: Linktype = Linktype(276);

/// Their type of packets that the host sends.
const OUTGOING: u16 = 4;

/// The longest record, in bytes.
const MOST: usize = 1 << 20;

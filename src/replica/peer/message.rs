// SPDX-License-Identifier: GPL-2.0-or-later
//! What is inside an envelope: one message each.

use super::codec::{Reader, Write};
use super::seal::NodeId;
use super::stamp::{Knowledge, Stamp, WRITERS, Writer};
use crate::base::Protocol;
use crate::model::{Flavour, INSTANCE_NAME_MAX};
use crate::nat64::question::Question;

/// Names an instance in messages: the hash of flavour and name.
pub(super) type Tag = u32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    Beat(Beat),
    /// Changes, in the order in which they were written; part of a stream without end.
    Batch {
        tag: Tag,
        stamp: Stamp,
        sequence: u64,
        /// Milliseconds from the oldest change to the first time it was sent, and from then on.
        waited: u64,
        age: u64,
        records: &'a [u8],
    },
    /// Please send these of your batches again: first and last of each range.
    Again {
        tag: Tag,
        ranges: Vec<(u64, u64)>,
    },
    /// Batches before this one are not to be had any more.
    TooOld {
        tag: Tag,
        first: u64,
    },
    AskTop {
        tag: Tag,
        ask: u32,
    },
    Top(Top),
    AskGroups {
        tag: Tag,
        ask: u32,
        groups: Vec<u8>,
    },
    Group {
        tag: Tag,
        ask: u32,
        group: u8,
        digests: Vec<u64>,
    },
    AskBuckets {
        tag: Tag,
        ask: u32,
        buckets: Vec<u16>,
    },
    /// A part of what a bucket holds.
    Piece {
        tag: Tag,
        ask: u32,
        bucket: u16,
        part: u16,
        parts: u16,
        records: &'a [u8],
    },
    /// Who has this mapping?
    Query {
        tag: Tag,
        id: u32,
        question: Question,
    },
    Answer {
        tag: Tag,
        id: u32,
        found: bool,
        records: &'a [u8],
    },
    /// The sender leaves of its own will.
    Bye,
}

/// The sender is alive, and this is how it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Beat {
    /// Whether an answer is wanted at once.
    pub(super) urgent: bool,
    pub(super) time: u64,
    /// The members that shares are computed from, as a hash.
    pub(super) view: u64,
    /// Who was heard lately, and in which epoch: proof that this is not a recording.
    pub(super) heard: Vec<(NodeId, u64)>,
    pub(super) instances: Vec<About>,
}

/// How an instance is at the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct About {
    pub(super) flavour: Flavour,
    pub(super) name: String,
    pub(super) ready: bool,
    /// Of what must be equal everywhere: pool6, pool4, global settings.
    pub(super) config: u64,
    /// Of all sessions.
    pub(super) root: u64,
    pub(super) writer: Writer,
    /// The last batch sent.
    pub(super) sequence: u64,
}

/// How a copy is, when a comparison begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Top {
    pub(super) tag: Tag,
    pub(super) ask: u32,
    pub(super) knowledge: Knowledge,
    /// How far the streams of others were received without a gap.
    pub(super) streams: Vec<(NodeId, u64, u64)>,
    pub(super) groups: Vec<u64>,
}

impl Message<'_> {
    pub(super) fn write(&self) -> Vec<u8> {
        let mut to = Vec::with_capacity(64);
        match self {
            Self::Beat(beat) => beat.write(&mut to),
            Self::Batch {
                tag,
                stamp,
                sequence,
                waited,
                age,
                records,
            } => {
                to.put_u8(BATCH);
                to.put_u32(*tag);
                to.put_u64(stamp.bits());
                to.put_number(*sequence);
                to.put_number(*waited);
                to.put_number(*age);
                to.extend_from_slice(records);
            }
            Self::Again { tag, ranges } => {
                to.put_u8(AGAIN);
                to.put_u32(*tag);
                for (first, last) in ranges {
                    to.put_number(*first);
                    to.put_number(*last);
                }
            }
            Self::TooOld { tag, first } => {
                to.put_u8(TOO_OLD);
                to.put_u32(*tag);
                to.put_u64(*first);
            }
            Self::AskTop { tag, ask } => head(&mut to, ASK_TOP, *tag, *ask),
            Self::Top(top) => top.write(&mut to),
            Self::AskGroups { tag, ask, groups } => {
                head(&mut to, ASK_GROUPS, *tag, *ask);
                to.extend_from_slice(groups);
            }
            Self::Group {
                tag,
                ask,
                group,
                digests,
            } => {
                head(&mut to, GROUP, *tag, *ask);
                to.put_u8(*group);
                digests.iter().for_each(|digest| to.put_u64(*digest));
            }
            Self::AskBuckets { tag, ask, buckets } => {
                head(&mut to, ASK_BUCKETS, *tag, *ask);
                buckets.iter().for_each(|bucket| to.put_u16(*bucket));
            }
            Self::Piece {
                tag,
                ask,
                bucket,
                part,
                parts,
                records,
            } => {
                head(&mut to, PIECE, *tag, *ask);
                to.put_u16(*bucket);
                to.put_u16(*part);
                to.put_u16(*parts);
                to.extend_from_slice(records);
            }
            Self::Query { tag, id, question } => match *question {
                Question::Client {
                    protocol,
                    v4,
                    remote,
                } => {
                    head(&mut to, QUERY, *tag, *id);
                    to.put_u8(protocol.index() as u8);
                    to.put_transport4(v4);
                    to.put_transport4(remote);
                }
                Question::Address { protocol, v6 } => {
                    head(&mut to, QUERY_CLIENT, *tag, *id);
                    to.put_u8(protocol.index() as u8);
                    to.put_transport6(v6);
                }
            },
            Self::Answer {
                tag,
                id,
                found,
                records,
            } => {
                head(&mut to, ANSWER, *tag, *id);
                to.put_u8((*found).into());
                to.extend_from_slice(records);
            }
            Self::Bye => to.put_u8(BYE),
        }
        to
    }
}

impl<'a> Message<'a> {
    /// Reads a message; `None` if it is none.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let from = &mut Reader::new(bytes);
        let message = match from.u8()? {
            BEAT => Self::Beat(Beat::read(from)?),
            BATCH => Self::Batch {
                tag: from.u32()?,
                stamp: Stamp::from_bits(from.u64()?),
                sequence: from.number()?,
                waited: from.number()?,
                age: from.number()?,
                records: from.rest(),
            },
            AGAIN => Self::Again {
                tag: from.u32()?,
                ranges: from.list(|from| Some((from.number()?, from.number()?)))?,
            },
            TOO_OLD => Self::TooOld {
                tag: from.u32()?,
                first: from.u64()?,
            },
            ASK_TOP => Self::AskTop {
                tag: from.u32()?,
                ask: from.u32()?,
            },
            TOP => Self::Top(Top::read(from)?),
            ASK_GROUPS => Self::AskGroups {
                tag: from.u32()?,
                ask: from.u32()?,
                groups: from.list(Reader::u8)?,
            },
            GROUP => Self::Group {
                tag: from.u32()?,
                ask: from.u32()?,
                group: from.u8()?,
                digests: from.list(Reader::u64)?,
            },
            ASK_BUCKETS => Self::AskBuckets {
                tag: from.u32()?,
                ask: from.u32()?,
                buckets: from.list(Reader::u16)?,
            },
            PIECE => Self::Piece {
                tag: from.u32()?,
                ask: from.u32()?,
                bucket: from.u16()?,
                part: from.u16()?,
                parts: from.u16()?,
                records: from.rest(),
            },
            QUERY => Self::Query {
                tag: from.u32()?,
                id: from.u32()?,
                question: Question::Client {
                    protocol: *Protocol::ALL.get(usize::from(from.u8()?))?,
                    v4: from.transport4()?,
                    remote: from.transport4()?,
                },
            },
            QUERY_CLIENT => Self::Query {
                tag: from.u32()?,
                id: from.u32()?,
                question: Question::Address {
                    protocol: *Protocol::ALL.get(usize::from(from.u8()?))?,
                    v6: from.transport6()?,
                },
            },
            ANSWER => Self::Answer {
                tag: from.u32()?,
                id: from.u32()?,
                found: from.u8()? != 0,
                records: from.rest(),
            },
            BYE => Self::Bye,
            _ => return None,
        };
        from.is_empty().then_some(message)
    }
}

impl Beat {
    fn write(&self, to: &mut Vec<u8>) {
        to.put_u8(BEAT);
        to.put_u8(self.urgent.into());
        to.put_u64(self.time);
        to.put_u64(self.view);
        to.put_u8(self.heard.len() as u8);
        for (node, epoch) in &self.heard {
            to.put_u16(*node);
            to.put_u64(*epoch);
        }
        for about in &self.instances {
            about.write(to);
        }
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            urgent: from.u8()? != 0,
            time: from.u64()?,
            view: from.u64()?,
            heard: {
                let count = from.u8()?;
                let mut read = || Some((from.u16()?, from.u64()?));
                (0..count).map(|_| read()).collect::<Option<_>>()?
            },
            instances: from.list(About::read)?,
        })
    }
}

impl About {
    pub(super) const SIZE: usize = 29 + INSTANCE_NAME_MAX;

    fn write(&self, to: &mut Vec<u8>) {
        let flavour = Flavour::ALL.iter().position(|f| *f == self.flavour);
        let name = &self.name.as_bytes()[..self.name.len().min(INSTANCE_NAME_MAX)];
        to.put_u8(flavour.unwrap_or(0) as u8 | u8::from(self.ready) << 7);
        to.put_u8(name.len() as u8);
        to.extend_from_slice(name);
        to.put_u64(self.config);
        to.put_u64(self.root);
        to.put_u16(self.writer);
        to.put_u64(self.sequence);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let first = from.u8()?;
        let flavour = *Flavour::ALL.get(usize::from(first & 0x7f))?;
        let len = usize::from(from.u8()?);
        let name = from.bytes(len).filter(|_| len <= INSTANCE_NAME_MAX)?;
        Some(Self {
            flavour,
            name: String::from_utf8(name.to_vec()).ok()?,
            ready: first & 0x80 != 0,
            config: from.u64()?,
            root: from.u64()?,
            writer: from.u16()?,
            sequence: from.u64()?,
        })
    }
}

impl Top {
    fn write(&self, to: &mut Vec<u8>) {
        head(to, TOP, self.tag, self.ask);
        to.put_u8(self.knowledge.len() as u8);
        self.knowledge.iter().for_each(|s| to.put_u64(s.bits()));
        to.put_u8(self.streams.len() as u8);
        for (node, epoch, sequence) in &self.streams {
            to.put_u16(*node);
            to.put_u64(*epoch);
            to.put_number(*sequence);
        }
        self.groups.iter().for_each(|digest| to.put_u64(*digest));
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let (tag, ask) = (from.u32()?, from.u32()?);
        let mut knowledge = Knowledge::default();
        for _ in 0..usize::from(from.u8()?).min(WRITERS) {
            knowledge.advance(Stamp::from_bits(from.u64()?));
        }
        let count = from.u8()?;
        let mut stream = || Some((from.u16()?, from.u64()?, from.number()?));
        Some(Self {
            tag,
            ask,
            knowledge,
            streams: (0..count).map(|_| stream()).collect::<Option<_>>()?,
            groups: from.list(Reader::u64)?,
        })
    }
}

fn head(to: &mut Vec<u8>, kind: u8, tag: Tag, number: u32) {
    to.put_u8(kind);
    to.put_u32(tag);
    to.put_u32(number);
}

/// The name of an instance in messages: FNV-1a, which needs to be the same everywhere.
pub(super) fn tag(flavour: Flavour, name: &str) -> Tag {
    let bytes = flavour.name().bytes().chain([0]).chain(name.bytes());
    bytes.fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// What stands before the records of a [`Message::Batch`], a [`Message::Piece`] or a
/// [`Message::Answer`], at most.
pub(super) const RECORDS_AT: usize = 48;

const BEAT: u8 = 1;
const BATCH: u8 = 2;
const AGAIN: u8 = 3;
const TOO_OLD: u8 = 4;
const ASK_TOP: u8 = 5;
const TOP: u8 = 6;
const ASK_GROUPS: u8 = 7;
const GROUP: u8 = 8;
const ASK_BUCKETS: u8 = 9;
const PIECE: u8 = 10;
const QUERY: u8 = 11;
const ANSWER: u8 = 12;
const BYE: u8 = 13;
const QUERY_CLIENT: u8 = 14;

#[cfg(test)]
mod tests;

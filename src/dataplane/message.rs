// SPDX-License-Identifier: GPL-2.0-or-later
//! The messages of `nfnetlink_queue`: packets in, verdicts out.
//!
//! Bytes from the kernel are trusted to be well meant, not to be well formed: every length is
//! checked, and a message that contradicts itself is counted and skipped.

use crate::wire::offload::{Offload, Segments, tcp_offset};

/// A packet that waits for its verdict.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Queued<'a> {
    /// Ascending within a queue, wraps at 2^32.
    pub(super) id: u32,
    /// `NF_INET_*`: where in the kernel it was queued.
    pub(super) hook: u8,
    pub(super) mark: u32,
    /// Index of the device it came in by; 0 if unknown.
    pub(super) device: u32,
    /// From the IP header on; empty if there is none or it was cut short.
    pub(super) payload: &'a [u8],
    /// Bits `NFQA_SKB_*`: checksum not ready, super-packet.
    pub(super) info: u32,
}

impl Queued<'_> {
    /// Whether nothing is left to do on it, or it is a TCP packet that we can do it on: it is there
    /// as a whole, and its TCP header follows the IP header.
    pub(super) fn is_plain_tcp(&self) -> bool {
        self.info & LEFT == 0 && !self.payload.is_empty() || tcp_offset(self.payload).is_some()
    }

    /// What is left to do on it.
    pub(super) const fn offload(&self) -> Offload {
        Offload {
            partial: self.info & LEFT != 0,
            segments: if self.info & libc::NFQA_SKB_GSO as u32 != 0 {
                Segments::Some
            } else {
                Segments::One
            },
            place: None,
        }
    }
}

/// The bits of [`Queued::info`] that mean that something is left to do.
const LEFT: u32 = (libc::NFQA_SKB_GSO | libc::NFQA_SKB_CSUMNOTREADY) as u32;

/// What a datagram from the queue socket is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Datagram<'a> {
    Packet(Queued<'a>),
    /// An answer to a verdict; only errors are answered, and they need no action: the packet was
    /// dropped when its device or the queue went away.
    Answer,
    Malformed,
}

const PACKET: u16 = message_type(libc::NFQNL_MSG_PACKET);
const VERDICT: u16 = message_type(libc::NFQNL_MSG_VERDICT);
const CONFIG: u16 = message_type(libc::NFQNL_MSG_CONFIG);
const VERDICT_BATCH: u16 = message_type(libc::NFQNL_MSG_VERDICT_BATCH);

/// Length of the netlink header and the netfilter header behind it, in bytes.
const HEADERS: usize = 20;

/// Length of a verdict message, in bytes.
const VERDICT_LEN: usize = 32;

const fn message_type(kind: libc::c_int) -> u16 {
    (libc::NFNL_SUBSYS_QUEUE as u16) << 8 | kind as u16
}

/// Reads one datagram. The kernel never puts two packets into one.
pub(super) fn parse(datagram: &[u8]) -> Datagram<'_> {
    parse_checked(datagram).unwrap_or(Datagram::Malformed)
}

fn parse_checked(datagram: &[u8]) -> Option<Datagram<'_>> {
    let length = u32::from_ne_bytes(array(datagram, 0)?) as usize;
    match u16::from_ne_bytes(array(datagram, 4)?) {
        PACKET => {}
        kind if i32::from(kind) == libc::NLMSG_ERROR || i32::from(kind) == libc::NLMSG_DONE => {
            return Some(Datagram::Answer);
        }
        _ => return None,
    }
    let mut rest = datagram.get(HEADERS..length)?;
    let mut header = None;
    let (mut mark, mut device, mut info) = (0, 0, 0);
    let mut payload: &[u8] = &[];
    let mut truncated = false;
    while let Some((kind, value, next)) = attribute(rest)? {
        rest = next;
        match i32::from(kind) {
            // struct nfqnl_msg_packet_hdr: id, hardware protocol, hook.
            libc::NFQA_PACKET_HDR => {
                let [hook] = array(value, 6)?;
                header = Some((u32::from_be_bytes(array(value, 0)?), hook));
            }
            libc::NFQA_MARK => mark = u32::from_be_bytes(array(value, 0)?),
            libc::NFQA_IFINDEX_INDEV => device = u32::from_be_bytes(array(value, 0)?),
            libc::NFQA_PAYLOAD => payload = value,
            // Only there when the packet is longer than what was copied.
            libc::NFQA_CAP_LEN => truncated = true,
            libc::NFQA_SKB_INFO => info = u32::from_be_bytes(array(value, 0)?),
            _ => {}
        }
    }
    let (id, hook) = header?;
    Some(Datagram::Packet(Queued {
        id,
        hook,
        mark,
        device,
        payload: if truncated { &[] } else { payload },
        info,
    }))
}

/// Writes a packet as the kernel does; how long that is, 0 if there is no room or the packet is
/// longer than an attribute.
pub(super) fn compose(packet: &Queued<'_>, out: &mut [u8]) -> usize {
    let room = out.len();
    if packet.payload.len() > usize::from(u16::MAX - 4) {
        return 0;
    }
    let mut rest = out;
    let header = [packet.id.to_be_bytes(), [0, 0, packet.hook, 0]].concat();
    let attributes = [
        (libc::NFQA_PACKET_HDR, &header[..7]),
        (libc::NFQA_MARK, &packet.mark.to_be_bytes()),
        (libc::NFQA_IFINDEX_INDEV, &packet.device.to_be_bytes()),
        (libc::NFQA_SKB_INFO, &packet.info.to_be_bytes()),
        (libc::NFQA_PAYLOAD, packet.payload),
    ];
    let length = attributes.iter().fold(HEADERS, |sum, (_, value)| {
        (sum + 4 + value.len()).next_multiple_of(4)
    });
    if length > room {
        return 0;
    }
    let mut put = |bytes: &[u8]| {
        if let Some((place, behind)) = std::mem::take(&mut rest).split_at_mut_checked(bytes.len()) {
            place.copy_from_slice(bytes);
            rest = behind;
        }
    };
    put(&(length as u32).to_ne_bytes());
    put(&PACKET.to_ne_bytes());
    put(&[0; HEADERS - 6]);
    for (kind, value) in attributes {
        put(&(4 + value.len() as u16).to_ne_bytes());
        put(&(kind as u16).to_ne_bytes());
        put(value);
        put(&[0; 3][..value.len().next_multiple_of(4) - value.len()]);
    }
    length
}

/// Takes the first attribute off: type, value, what is behind it. `Some(None)` at the end,
/// `None` when it is malformed.
#[allow(clippy::type_complexity)]
fn attribute(bytes: &[u8]) -> Option<Option<(u16, &[u8], &[u8])>> {
    const HEADER: usize = 4;
    // Flags "nested" and "network byte order".
    const TYPE_MASK: u16 = 0x3fff;
    if bytes.is_empty() {
        return Some(None);
    }
    let length = usize::from(u16::from_ne_bytes(array(bytes, 0)?));
    let kind = u16::from_ne_bytes(array(bytes, 2)?) & TYPE_MASK;
    let value = bytes.get(HEADER..length)?;
    // The padding behind the last attribute may be missing.
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some(Some((kind, value, rest)))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Verdicts for a burst, gathered into one datagram.
#[derive(Default)]
pub(super) struct Verdicts(Vec<u8>);

impl Verdicts {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The kernel goes on with packet `id`.
    pub(super) fn accept(&mut self, queue: u16, id: u32) {
        self.push(VERDICT, queue, libc::NF_ACCEPT, id);
    }

    /// Packet `id` goes to queue `other`.
    pub(super) fn pass_on(&mut self, queue: u16, id: u32, other: u16) {
        self.push(VERDICT, queue, i32::from(other) << 16 | libc::NF_QUEUE, id);
    }

    /// Every packet up to `last` that still waits is dropped.
    pub(super) fn drop_up_to(&mut self, queue: u16, last: u32) {
        self.push(VERDICT_BATCH, queue, libc::NF_DROP, last);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn push(&mut self, kind: u16, queue: u16, verdict: libc::c_int, id: u32) {
        let out = &mut self.0;
        begin(out, VERDICT_LEN as u32, kind, queue);
        // Attribute: struct nfqnl_msg_verdict_hdr.
        out.extend(12_u16.to_ne_bytes());
        out.extend((libc::NFQA_VERDICT_HDR as u16).to_ne_bytes());
        out.extend((verdict as u32).to_be_bytes());
        out.extend(id.to_be_bytes());
    }
}

/// The message that sets how many packets may wait in a queue.
pub(super) fn set_length(queue: u16, length: u32) -> Vec<u8> {
    const LEN: u32 = HEADERS as u32 + 8;
    let mut out = Vec::with_capacity(LEN as usize);
    begin(&mut out, LEN, CONFIG, queue);
    out.extend(8_u16.to_ne_bytes());
    out.extend((libc::NFQA_CFG_QUEUE_MAXLEN as u16).to_ne_bytes());
    out.extend(length.to_be_bytes());
    out
}

fn begin(out: &mut Vec<u8>, length: u32, kind: u16, queue: u16) {
    // struct nlmsghdr; no acknowledgement is asked for.
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    out.extend([0; 8]);
    // struct nfgenmsg: family, version, queue.
    out.extend([libc::AF_UNSPEC as u8, libc::NFNETLINK_V0 as u8]);
    out.extend(queue.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(attributes: &[(i32, &[u8])]) -> Vec<u8> {
        let mut out = vec![0; HEADERS];
        out[4..6].copy_from_slice(&PACKET.to_ne_bytes());
        for (kind, value) in attributes {
            out.extend((4 + value.len() as u16).to_ne_bytes());
            out.extend((*kind as u16).to_ne_bytes());
            out.extend(*value);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        let length = out.len() as u32;
        out[..4].copy_from_slice(&length.to_ne_bytes());
        out
    }

    proptest! {
        #[test]
        fn what_is_composed_is_read(
            (id, hook, mark, device, info) in any::<(u32, u8, u32, u32, u32)>(),
            payload in proptest::collection::vec(any::<u8>(), 0..99),
            room in 0_usize..300,
        ) {
            let packet = Queued { id, hook, mark, device, payload: &payload, info };
            let mut out = vec![9; room];
            let len = compose(&packet, &mut out);
            if room >= 60 + 104 {
                prop_assert_eq!(parse(&out[..len]), Datagram::Packet(packet));
            } else if len == 0 {
                prop_assert!(room < 68 + payload.len());
            }
        }
    }

    #[test]
    fn the_longest_packet_is_composed_and_a_longer_one_is_not() {
        let payload = vec![7; 65_532];
        let of = |payload| Queued {
            id: 1,
            hook: 0,
            mark: 0,
            device: 0,
            payload,
            info: 0,
        };
        let mut out = vec![0; crate::dataplane::queue::STRIDE];
        let len = compose(&of(&payload[1..]), &mut out);
        assert_eq!(parse(&out[..len]), Datagram::Packet(of(&payload[1..])));
        assert_eq!(compose(&of(&payload), &mut out), 0);
    }

    #[test]
    fn a_packet_is_read() {
        let bytes = packet(&[
            (libc::NFQA_PACKET_HDR, &[0, 0, 1, 2, 0x86, 0xdd, 3]),
            (libc::NFQA_MARK, &[0, 0, 0, 9]),
            (libc::NFQA_IFINDEX_INDEV, &[0, 0, 0, 3]),
            (libc::NFQA_SKB_INFO, &[0, 0, 0, 1]),
            (libc::NFQA_PAYLOAD, &[0x60, 1, 2]),
        ]);
        let expected = Queued {
            id: 0x102,
            hook: 3,
            mark: 9,
            device: 3,
            payload: &[0x60, 1, 2],
            info: 1,
        };
        assert_eq!(parse(&bytes), Datagram::Packet(expected));
    }

    #[test]
    fn a_packet_cut_short_has_no_payload() {
        let bytes = packet(&[
            (libc::NFQA_PACKET_HDR, &[0, 0, 0, 7, 8, 0, 0]),
            (libc::NFQA_PAYLOAD, &[0x45, 0]),
            (libc::NFQA_CAP_LEN, &[0, 0, 0xff, 0xff]),
        ]);
        let Datagram::Packet(queued) = parse(&bytes) else {
            panic!("not a packet");
        };
        assert_eq!((queued.id, queued.payload), (7, &[][..]));
    }

    #[test]
    fn what_is_not_a_packet_is_told_apart() {
        let mut error = packet(&[]);
        error[4..6].copy_from_slice(&(libc::NLMSG_ERROR as u16).to_ne_bytes());
        assert_eq!(parse(&error), Datagram::Answer);
        assert_eq!(parse(&packet(&[])), Datagram::Malformed, "no id");
        assert_eq!(parse(&[]), Datagram::Malformed);
    }

    #[test]
    fn a_length_has_the_layout_of_the_kernel() {
        let message = set_length(6401, 65_536);
        assert_eq!(message.len(), 28);
        assert_eq!(message[..4], 28_u32.to_ne_bytes());
        assert_eq!(message[4..6], CONFIG.to_ne_bytes());
        assert_eq!(message[16..], [0, 0, 0x19, 0x01, 8, 0, 3, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn verdicts_have_the_layout_of_the_kernel() {
        let mut verdicts = Verdicts::default();
        verdicts.accept(6400, 5);
        verdicts.drop_up_to(6400, 6);
        assert_eq!(verdicts.bytes().len(), 2 * VERDICT_LEN);
        let (one, batch) = verdicts.bytes().split_at(VERDICT_LEN);
        assert_eq!(one[4..6], (3_u16 << 8 | 1).to_ne_bytes());
        assert_eq!(one[18..20], 6400_u16.to_be_bytes());
        assert_eq!(one[24..], [0, 0, 0, 1, 0, 0, 0, 5]);
        assert_eq!(batch[4..6], (3_u16 << 8 | 3).to_ne_bytes());
        assert_eq!(batch[24..], [0, 0, 0, 0, 0, 0, 0, 6]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            head in any::<[u8; 4]>(),
            tail in proptest::collection::vec(any::<u8>(), 0..64),
            cut in 0_usize..80,
        ) {
            let mut bytes = packet(&[(libc::NFQA_PACKET_HDR, &[0; 7])]);
            bytes.extend(head);
            bytes.extend(tail);
            let length = bytes.len() as u32;
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            bytes.truncate(cut);
            parse(&bytes);
        }
    }
}

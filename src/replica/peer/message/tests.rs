// SPDX-License-Identifier: GPL-2.0-or-later

use proptest::prelude::*;

use super::*;
use crate::base::{Transport4, Transport6};

fn transport() -> impl Strategy<Value = Transport4> {
    any::<(u32, u16)>().prop_map(|(addr, port)| Transport4::new(addr.into(), port))
}

fn question() -> impl Strategy<Value = Question> {
    let protocol = || (0..3usize).prop_map(|p| Protocol::ALL[p]);
    let client = (protocol(), transport(), transport());
    let address = (protocol(), any::<(u128, u16)>());
    prop_oneof![
        client.prop_map(|(protocol, v4, remote)| Question::Client {
            protocol,
            v4,
            remote
        }),
        address.prop_map(|(protocol, (addr, port))| {
            let v6 = Transport6::new(addr.into(), port);
            Question::Address { protocol, v6 }
        }),
    ]
}

fn about() -> impl Strategy<Value = About> {
    (any::<(bool, bool, u64, u64, u16, u64)>(), "[a-z]{1,15}").prop_map(|(rest, name)| About {
        flavour: Flavour::ALL[usize::from(rest.0)],
        name,
        ready: rest.1,
        config: rest.2,
        root: rest.3,
        writer: rest.4,
        sequence: rest.5,
    })
}

fn beat() -> impl Strategy<Value = Beat> {
    let lists = (
        prop::collection::vec(any::<(u16, u64)>(), 0..9),
        prop::collection::vec(about(), 0..5),
    );
    (any::<(bool, u64, u64)>(), lists).prop_map(|((urgent, time, view), (heard, instances))| Beat {
        urgent,
        time,
        view,
        heard,
        instances,
    })
}

fn top() -> impl Strategy<Value = Top> {
    (
        any::<(u32, u32)>(),
        prop::collection::vec(any::<u64>(), 0..9),
        prop::collection::vec(any::<(u16, u64, u64)>(), 0..9),
        prop::collection::vec(any::<u64>(), 64),
    )
        .prop_map(|((tag, ask), known, streams, groups)| {
            let mut knowledge = Knowledge::default();
            for stamp in known {
                knowledge.advance(Stamp::from_bits(stamp));
            }
            Top {
                tag,
                ask,
                knowledge,
                streams,
                groups,
            }
        })
}

fn numbers<T: Arbitrary>() -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(any::<T>(), 0..20)
}

/// Every message that has no bytes of records in it.
fn message() -> impl Strategy<Value = Message<'static>> {
    let ids = || any::<(u32, u32)>();
    prop_oneof![
        beat().prop_map(Message::Beat),
        top().prop_map(Message::Top),
        (any::<u32>(), numbers()).prop_map(|(tag, ranges)| Message::Again { tag, ranges }),
        any::<(u32, u64)>().prop_map(|(tag, first)| Message::TooOld { tag, first }),
        ids().prop_map(|(tag, ask)| Message::AskTop { tag, ask }),
        (ids(), numbers()).prop_map(|((tag, ask), groups)| Message::AskGroups { tag, ask, groups }),
        (ids(), any::<u8>(), numbers()).prop_map(|((tag, ask), group, digests)| {
            Message::Group {
                tag,
                ask,
                group,
                digests,
            }
        }),
        (ids(), numbers()).prop_map(|((tag, ask), buckets)| Message::AskBuckets {
            tag,
            ask,
            buckets
        }),
        (ids(), question()).prop_map(|((tag, id), question)| Message::Query { tag, id, question }),
        Just(Message::Bye),
    ]
}

proptest! {
    #[test]
    fn messages_come_back(message in message()) {
        let bytes = message.write();
        prop_assert_eq!(Message::read(&bytes), Some(message));
    }

    #[test]
    fn messages_with_records_come_back(
        ids in any::<(u32, u32, u64, u64, u64, u64)>(),
        parts in any::<(u16, u16, u16, bool)>(),
        records in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let (tag, ask, stamp, sequence, waited, age) = ids;
        let (bucket, part, count, found) = parts;
        for message in [
            Message::Batch { tag, stamp: Stamp::from_bits(stamp), sequence, waited, age, records: &records },
            Message::Piece { tag, ask, bucket, part, parts: count, records: &records },
            Message::Answer { tag, id: ask, found, records: &records },
        ] {
            let bytes = message.write();
            prop_assert!(bytes.len() <= RECORDS_AT + records.len());
            prop_assert_eq!(Message::read(&bytes), Some(message));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Message::read(&bytes);
    }
}

/// The largest that a comparison begins with still fits into the smallest datagram.
#[test]
fn a_full_top_fits() {
    let mut knowledge = Knowledge::default();
    for writer in 0..100 {
        knowledge.advance(Stamp::new(u64::MAX, writer));
    }
    let top = Top {
        knowledge,
        streams: vec![(1, u64::MAX, u64::MAX); crate::replica::peer::instance::STREAMS],
        groups: vec![u64::MAX; crate::replica::peer::shadow::GROUPS],
        ..Top::default()
    };
    let len = Message::Top(top).write().len();
    assert!(len + crate::replica::peer::seal::OVERHEAD <= crate::replica::peer::PAYLOAD_MIN);
}

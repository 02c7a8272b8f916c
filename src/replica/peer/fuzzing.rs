// SPDX-License-Identifier: GPL-2.0-or-later
//! For fuzz targets and tests: what a node makes of messages from somebody who has the key.

use std::net::SocketAddr;

use super::message::{About, Beat, Message};
use super::seal::{OVERHEAD, Seal};
use super::{Config, Destination, Handle, Key, Node, Place, Table, Tables};
use crate::base::Tick;
use crate::model::Flavour;
use crate::model::settings::Settings;
use crate::nat64::Nat64;
use crate::nat64::question::Question;

struct Here(Nat64, Settings);

impl Tables for Here {
    fn table(&mut self, _: Handle) -> Option<Place<'_>> {
        Some((&mut self.0, &self.1))
    }
}

/// Hands messages to a node, each after two bytes of length, from a peer that it believes.
///
/// # Panics
/// It sends what is larger than it may be, or does not keep its copy in step with its table.
pub fn messages(data: &[u8]) {
    let key = Key {
        id: 1,
        secret: [1; 32],
    };
    let now = Tick(1_000);
    let mut node = Node::new(now, Config::new(1, vec![key.clone()], 11, [1; 16], 0));
    let mut tables = Here(Nat64::new([1; 16]), Settings::default());
    let Ok(handle) = node.add_instance(now, Flavour::Nat64, "default", 1) else {
        return;
    };
    let mut seal = Seal::new(&[key], 2, 22);
    let about = About {
        flavour: Flavour::Nat64,
        name: "default".to_owned(),
        ready: true,
        config: 1,
        root: 1,
        writer: 5,
        sequence: 0,
    };
    let beat = Beat {
        heard: vec![(1, 11)],
        instances: vec![about],
        ..Beat::default()
    };
    let mut rest = data;
    let mut next = Some(Message::Beat(beat).write());
    let mut now = now;
    while let Some(message) = next.take() {
        if let Some(mut datagram) = seal.seal(&message) {
            let from = SocketAddr::from(([192, 0, 2, 2], 1));
            if let Some(letter) = node.open(now, from, &mut datagram) {
                node.on_letter(now, &letter, &mut tables);
            }
        }
        now = now.after(7);
        node.on_tick(now, &mut tables);
        while let Some(sent) = node.poll_transmit() {
            assert!(sent.bytes.len() <= 1_400 && sent.bytes.len() >= OVERHEAD);
            assert!(sent.to == Destination::Group || node.peers().count() == 1);
        }
        if let Some((length, tail)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length)).min(tail.len());
            let (message, tail) = tail.split_at(length);
            rest = tail;
            next = Some(message.to_vec());
        }
    }
    while node.poll_event().is_some() {}
    let mut keys = Vec::new();
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        cursor = tables.0.scan(at, &mut keys);
    }
    assert!(
        keys.len() <= node.sessions(handle),
        "sessions without a version"
    );
}

/// Messages to start from, as [`messages`] takes them.
pub fn seeds() -> Vec<Vec<u8>> {
    let tag = super::message::tag(Flavour::Nat64, "default");
    let top = super::message::Top {
        tag,
        ask: 1,
        groups: vec![1; 64],
        ..super::message::Top::default()
    };
    let record = super::record::Record {
        key: super::SessionKey {
            protocol: crate::base::Protocol::Udp,
            v4: crate::base::Transport4::new([192, 0, 2, 1].into(), 9),
            remote: crate::base::Transport4::new([198, 51, 100, 1].into(), 53),
        },
        stamp: super::stamp::Stamp::new(77, 5),
        body: super::record::Body::Alive(super::record::Alive {
            client: crate::base::Transport6::new(std::net::Ipv6Addr::LOCALHOST, 1),
            state: crate::model::TcpState::V6Init,
            lifetime: crate::nat64::tcp::Lifetime::Udp,
            remaining: 5_000,
            segment: 1440,
            birth: 70,
        }),
    };
    let mut packer = super::record::Packer::new(1_000, record.stamp);
    packer.push(&record);
    let records = packer.take();
    let batch = Message::Batch {
        tag,
        stamp: record.stamp,
        sequence: 1,
        waited: 3,
        age: 0,
        records: &records,
    };
    let query = Message::Query {
        tag,
        id: 9,
        question: Question::client(record.key.protocol, record.key.v4, record.key.remote),
    };
    let groups = Message::AskGroups {
        tag,
        ask: 3,
        groups: vec![0, 63],
    };
    let buckets = Message::AskBuckets {
        tag,
        ask: 4,
        buckets: vec![0, 4_095],
    };
    let again = Message::Again {
        tag,
        ranges: vec![(1, 9)],
    };
    let ask = Message::AskTop { tag, ask: 2 };
    let all = [batch, query, groups, buckets, again, ask, Message::Top(top)];
    let framed = all.iter().map(|message| {
        let bytes = message.write();
        let mut framed = (bytes.len() as u16).to_be_bytes().to_vec();
        framed.extend(bytes);
        framed
    });
    let mut seeds: Vec<Vec<u8>> = framed.collect();
    seeds.push(seeds.concat());
    seeds
}

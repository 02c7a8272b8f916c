// SPDX-License-Identifier: GPL-2.0-or-later
use std::io::Cursor;

use super::{asked, packet, world};
use crate::cli::verbs::explain::capture::{Capture, CaptureError, Record};
use crate::cli::verbs::explain::records;

/// A pcap file of these frames, in network byte order or the other one.
pub(super) fn pcap(link: u32, big: bool, frames: &[(&[u8], usize)]) -> Vec<u8> {
    let word = |n: u32| {
        if big {
            n.to_be_bytes()
        } else {
            n.to_le_bytes()
        }
    };
    let half = |n: u16| {
        if big {
            n.to_be_bytes()
        } else {
            n.to_le_bytes()
        }
    };
    let mut file = Vec::new();
    file.extend(word(0xa1b2_c3d4));
    file.extend([half(2), half(4)].concat());
    file.extend([0, 0, 262_144, link].map(word).concat());
    for (at, (frame, whole)) in frames.iter().enumerate() {
        let (caught, whole) = (frame.len() as u32, *whole as u32);
        file.extend(
            [1_000 + at as u32, 500_000, caught, whole]
                .map(word)
                .concat(),
        );
        file.extend(*frame);
    }
    file
}

/// The same as pcapng, of one interface.
pub(super) fn pcapng(link: u16, frames: &[(&[u8], usize)]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let len = (12 + body.len().next_multiple_of(4)) as u32;
        let mut block = [kind.to_le_bytes(), len.to_le_bytes()].concat();
        block.extend(body);
        block.resize(len as usize - 4, 0);
        block.extend(len.to_le_bytes());
        block
    };
    let mut file = block(
        0x0a0d_0d0a,
        &[&[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0][..], &[0xff; 8]].concat(),
    );
    let interface = [link.to_le_bytes(), [0; 2], [0; 2], [4, 0]].concat();
    file.extend(block(1, &interface));
    for (at, (frame, whole)) in frames.iter().enumerate() {
        let micros = (1_000 + at as u64) * 1_000_000 + 500_000;
        let words = [
            0,
            (micros >> 32) as u32,
            micros as u32,
            frame.len() as u32,
            *whole as u32,
        ];
        let mut body = words.map(u32::to_le_bytes).concat();
        body.extend(*frame);
        file.extend(block(6, &body));
    }
    file
}

pub(super) fn ethernet(kind: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = [&[2; 12][..], &kind.to_be_bytes(), packet].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

fn all(file: Vec<u8>) -> (Vec<Record>, Option<CaptureError>) {
    let mut capture = Capture::open(Cursor::new(file), Some(7)).unwrap();
    let mut found = Vec::new();
    loop {
        match capture.next() {
            Ok(Some(record)) => found.push(record),
            Ok(None) => return (found, None),
            Err(error) => return (found, Some(error)),
        }
    }
}

#[test]
fn captures_of_every_kind_have_the_same_packets() {
    let four = packet("udp 192.0.2.8#53 203.0.113.1#61053");
    let six = packet("udp 2001:db8::8#53 64:ff9b::1#53 --size 3");
    let tagged = |packet: &[u8]| [&[0, 5, 0x08, 0x00][..], packet].concat();
    let cooked = |kind: u16, packet: &[u8]| {
        [
            &[0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &kind.to_be_bytes(),
            packet,
        ]
        .concat()
    };
    let cooked2 = |interface: u32, kind: u16, packet: &[u8]| {
        let head = [
            &kind.to_be_bytes()[..],
            &[0, 0],
            &interface.to_be_bytes(),
            &[0; 12],
        ];
        [&head.concat()[..], packet].concat()
    };
    for (link, frames) in [
        (1, [ethernet(0x0800, &four), ethernet(0x86dd, &six)]),
        (
            1,
            [ethernet(0x8100, &tagged(&four)), ethernet(0x86dd, &six)],
        ),
        (101, [four.clone(), six.clone()]),
        (113, [cooked(0x0800, &four), cooked(0x86dd, &six)]),
        (276, [cooked2(1, 0x0800, &four), cooked2(1, 0x86dd, &six)]),
    ] {
        let frames: Vec<(&[u8], usize)> = frames.iter().map(|f| (&f[..], f.len())).collect();
        let wanted = [(1_000_500, &four), (1_001_500, &six)];
        let wanted = wanted.map(|(at, packet)| Record {
            at: Some(at),
            packet: Ok(packet.clone()),
        });
        for file in [
            pcap(link, false, &frames),
            pcap(link, true, &frames),
            pcapng(link as u16, &frames),
        ] {
            assert_eq!(all(file), (wanted.to_vec(), None), "link type {link}");
        }
    }
}

#[test]
fn odd_records_are_named_and_the_rest_is_read() {
    let four = packet("udp 192.0.2.8#53 203.0.113.1#61053 --size 100");
    let arp = ethernet(0x0806, &[0; 28]);
    let whole = ethernet(0x0800, &four);
    let complaints = |file| {
        let (found, error) = all(file);
        let texts = found.into_iter().map(|record| match record.packet {
            Ok(_) => "a packet".to_owned(),
            Err(why) => why.to_string(),
        });
        (texts.collect::<Vec<_>>(), error)
    };
    let frames = [
        (&whole[..60], 142),
        (&arp[..], 60),
        (&whole[..5], 5),
        (&whole[..], 142),
    ];
    let (texts, error) = complaints(pcap(1, false, &frames));
    let wanted = [
        "only 60 of its 142 bytes were captured; capture with 'tcpdump -s 0'",
        "no IP packet (EtherType 0x0806)",
        "no IP packet",
        "a packet",
    ];
    assert_eq!((texts, error), (wanted.map(str::to_owned).to_vec(), None));
    let (texts, _) = complaints(pcap(105, false, &frames[3..]));
    assert!(texts[0].starts_with("its link type 105"), "{texts:?}");
    // What the host sends, and what the translator's own device brings.
    let mut outgoing = vec![0; 20];
    (outgoing[0], outgoing[10]) = (8, 4);
    let mut own = vec![0; 20];
    (own[0], own[7]) = (8, 7);
    let frames = [outgoing, own].map(|head| [&head[..], &four].concat());
    let frames: Vec<(&[u8], usize)> = frames.iter().map(|f| (&f[..], f.len())).collect();
    let (texts, _) = complaints(pcap(276, false, &frames));
    assert_eq!(texts, ["it goes out", "it goes out"]);
    let mut file = pcap(1, false, &[(&whole, 142), (&whole, 142)]);
    file.truncate(file.len() - 9);
    let (texts, error) = complaints(file);
    assert_eq!((texts.len(), error), (1, Some(CaptureError::Short)));
    for file in [b"".to_vec(), b"no capture at all, but long enough".to_vec()] {
        let opened = Capture::open(Cursor::new(file), None);
        assert_eq!(opened.err(), Some(CaptureError::Foreign));
    }
}

/// What is printed about a capture, and what is wrong with it.
fn told(options: &str, file: Vec<u8>) -> (String, Option<CaptureError>) {
    let asked = asked(&format!("--pcap x{options}"));
    let capture = Capture::open(Cursor::new(file), None).unwrap();
    let mut out = Vec::new();
    let result = records(&asked, capture, &mut world("nat64"), &mut out).unwrap();
    (String::from_utf8(out).unwrap(), result.err())
}

#[test]
fn later_packets_find_what_earlier_ones_made() {
    let syn = packet("tcp 2001:db8::8#5000 64:ff9b::192.0.2.8#80");
    let answer = packet("tcp 192.0.2.8#80 203.0.113.1#64057 --flags SA");
    let frames = [(&syn[..], syn.len()), (&answer, answer.len())];
    let (text, error) = told("", pcap(101, false, &frames));
    let wanted = "1. IPv6 TCP 2001:db8::8#5000 > 64:ff9b::c000:208#80, SYN, hop limit 64, 60 bytes: translated \
                  => IPv4 TCP 203.0.113.1#64057 > 192.0.2.8#80, SYN, TTL 64, 40 bytes\n\
                  2. IPv4 TCP 192.0.2.8#80 > 203.0.113.1#64057, SYN ACK, TTL 64, 40 bytes: translated \
                  => IPv6 TCP 64:ff9b::c000:208#80 > 2001:db8::8#5000, SYN ACK, hop limit 64, 60 bytes\n";
    assert_eq!((text.as_str(), error), (wanted, None));
    let (text, _) = told(" -v", pcap(101, false, &frames));
    assert!(text.contains("V6_INIT becomes ESTABLISHED"), "{text}");
    let (text, _) = told(" --limit 1", pcap(101, false, &frames));
    assert!(
        text.ends_with("... and more; --limit 1 ends it here\n"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 2);
    // One packet is told as a whole.
    let (text, _) = told("", pcap(101, false, &frames[..1]));
    assert!(
        text.starts_with("packet  ") && text.contains("\nsent  "),
        "{text}"
    );
    let (text, _) = told("", pcap(101, false, &[]));
    assert_eq!(text, "the capture has no packets\n");
    let (text, _) = told(" --json", pcap(101, false, &frames));
    let rows: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((rows.len(), &rows[1]["number"]), (2, &2.into()));
    assert_eq!(rows[1]["outcome"], "translated");
}

#[test]
fn sessions_end_as_time_goes_by_in_a_capture() {
    let ask = packet("udp 2001:db8::8#5000 64:ff9b::192.0.2.8#53");
    let answer = packet("udp 192.0.2.8#53 203.0.113.1#64019");
    let mut file = pcap(101, false, &[(&ask, ask.len()), (&answer, answer.len())]);
    let (before, _) = told("", file.clone());
    assert!(!before.contains("JSTAT"), "{before}");
    // The second one comes 301 seconds later, and udp-timeout is 300.
    let at = 24 + 16 + ask.len();
    file[at..at + 4].copy_from_slice(&1_301_u32.to_le_bytes());
    let (text, _) = told("", file);
    assert!(text.contains("JSTAT_BIB4_NOT_FOUND"), "{text}");
}

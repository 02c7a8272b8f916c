// SPDX-License-Identifier: GPL-2.0-or-later
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

fn pool6() -> Pool6 {
    "64:ff9b::/96".to_owned().try_into().unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(|c| !c.is_whitespace()).collect();
    let pairs = digits.chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(&String::from_iter(pair), 16).unwrap())
        .collect()
}

fn read(datagram: &[u8]) -> (Result<Datagram, NotJoold>, Vec<ForeignSession>) {
    let mut sessions = Vec::new();
    let result = decode(pool6(), datagram, &mut sessions);
    (result, sessions)
}

fn write(format: Format, sessions: &[ForeignSession]) -> Vec<u8> {
    let mut datagram = Vec::new();
    for session in sessions {
        encode(format, pool6(), session, &mut datagram);
    }
    datagram
}

fn whole(format: Format) -> Datagram {
    Datagram {
        format,
        malformed: 0,
        strangers: 0,
    }
}

/// The steps that were recorded.
fn recordings() -> Vec<(PathBuf, Vec<Vec<u8>>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/joold");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "hex") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text.lines().map(bytes).collect()));
        }
    }
    found.sort();
    found
}

//= jool#joold-wire
//= type=test
#[test]
fn what_jool_sent_is_read_and_would_be_sent_alike() {
    let recordings = recordings();
    assert_eq!(recordings.len(), 15);
    let (mut datagrams, mut sessions) = (0, 0);
    for (path, recorded) in recordings {
        for datagram in recorded {
            let (result, found) = read(&datagram);
            assert_eq!(result, Ok(whole(Format::A)), "{path:?}");
            assert_eq!(write(Format::A, &found), datagram, "{path:?}");
            datagrams += 1;
            sessions += found.len();
        }
    }
    assert_eq!((datagrams, sessions), (59, 164));
}

//= jool#joold-wire
//= type=test
#[test]
fn what_was_read_is_what_the_other_node_displayed() {
    let mut compared = 0;
    for (path, recorded) in recordings() {
        let Ok(csv) = std::fs::read_to_string(path.with_extension("csv")) else {
            continue;
        };
        let mut told = BTreeMap::new();
        for datagram in recorded {
            for session in read(&datagram).1 {
                let ForeignSession {
                    protocol,
                    v6,
                    v4,
                    remote,
                    ..
                } = session;
                let (far6, far4) = match protocol {
                    Protocol::Tcp | Protocol::Udp => (remote.port, remote.port),
                    Protocol::Icmp => (v6.port, v4.port),
                };
                let dst6 = pool6().embed(remote.addr);
                let key = format!(
                    "{protocol},{},{},{dst6},{far6},{},{},{},{far4},",
                    v6.addr, v6.port, v4.addr, v4.port, remote.addr
                );
                told.insert(key, session);
            }
        }
        for (key, session) in told {
            let row = csv.lines().find(|row| row.starts_with(&key));
            let Some(row) = row else {
                panic!("{path:?}: {key} is not there");
            };
            if session.protocol == Protocol::Tcp {
                assert!(row.ends_with(session.state.name()), "{path:?}: {row}");
            }
            compared += 1;
        }
    }
    assert_eq!(compared, 77);
}

/// The connection and the ping that are known in several forms.
fn known() -> [ForeignSession; 2] {
    let tcp = ForeignSession {
        protocol: Protocol::Tcp,
        v6: "2001:db8::8#37878".parse().unwrap(),
        v4: "192.0.2.1#62805".parse().unwrap(),
        remote: "192.0.2.8#1234".parse().unwrap(),
        state: TcpState::Established,
        lifetime: Lifetime::TcpEstablished,
        left: 7_198_232,
        segment: 0,
    };
    let icmp = ForeignSession {
        protocol: Protocol::Icmp,
        v6: "2001:db8::8#211".parse().unwrap(),
        v4: "192.0.2.1#15308".parse().unwrap(),
        remote: "192.0.2.8#0".parse().unwrap(),
        lifetime: Lifetime::Icmp,
        left: 60_000,
        ..tcp
    };
    [tcp, icmp]
}

const A: &str = "8c000180 20000180 14000100 20010db8000000000000000000000008 06000200 f6930000 \
                 20000280 14000100 0064ff9b0000000000000000c0000208 06000200 d2040000 \
                 14000380 08000100 c0000201 06000200 55f50000 \
                 14000480 08000100 c0000208 06000200 d2040000 \
                 05000500 00000000 05000600 00000000 05000700 00000000 08000800 18d66d00";
const B: &str = "34000100 20010db8000000000000000000000008 0064ff9b0000000000000000c0000208 \
                 c0000201 006dd618 93f6 04d2 f555 0000";
const C: &str = "28000100 20010db8000000000000000000000008 c0000201 c0000208 006dd618 \
                 93f6 f555 04d2 0000";
const C_ICMP: &str = "28000100 20010db8000000000000000000000008 c0000201 c0000208 0000ea60 \
                      00d3 3bcc 3bcc 0040";

//= jool#joold-wire
//= type=test
#[test]
fn each_form_is_told_by_its_first_entry() {
    let [tcp, icmp] = known();
    for (format, text, session) in [
        (Format::A, A, tcp),
        (Format::B, B, tcp),
        (Format::C, C, tcp),
        (Format::C, C_ICMP, icmp),
    ] {
        let datagram = bytes(text);
        assert_eq!(datagram.len(), size(format));
        assert_eq!(
            read(&datagram),
            (Ok(whole(format)), vec![session]),
            "{text}"
        );
        assert_eq!(write(format, &[session]), datagram, "{text}");
    }
    // As kernels before 5.2 write it.
    let mut old = bytes(A);
    for at in [3, 7, 39, 71, 91] {
        assert_eq!(old[at], 0x80);
        old[at] = 0;
    }
    assert_eq!(read(&old), (Ok(whole(Format::A)), vec![tcp]));
}

#[test]
fn a_sender_of_the_other_byte_order_is_known_by_it() {
    let mut datagram = bytes(C);
    datagram.swap(0, 1);
    datagram.swap(2, 3);
    assert_eq!(read(&datagram), (Err(NotJoold::ByteOrder), Vec::new()));
}

#[test]
fn what_is_no_session_is_counted_and_the_rest_is_read() {
    let [tcp, _] = known();
    for empty in [&[][..], &[1], &[0; 40], &[0xff; 2048]] {
        assert_eq!(read(empty), (Err(NotJoold::Unknown), Vec::new()));
    }
    let count = |datagram: &[u8]| {
        let (result, sessions) = read(datagram);
        assert!(sessions.iter().all(|session| *session == tcp));
        let Datagram {
            malformed,
            strangers,
            ..
        } = result.unwrap();
        (sessions.len(), malformed, strangers)
    };
    let flags = |low: u8| [&bytes(C)[..39], &[low]].concat();
    // Protocol 3, state 7, timer 3.
    for low in [0x60, 0x1c, 0x03] {
        assert_eq!(count(&[flags(low), bytes(C)].concat()), (1, 1, 0));
    }
    // Cut off, in the header or behind it.
    for length in 41..80 {
        assert_eq!(count(&bytes(C).repeat(2)[..length]), (1, 1, 0), "{length}");
    }
    // Entries of another form, and one that is longer than it must be.
    assert_eq!(
        count(&bytes(&[C, "08000100 00000000", C].concat())),
        (2, 1, 0)
    );
    let longer = [&[44, 0], &bytes(C)[2..], &[9; 4]].concat();
    assert_eq!(count(&[bytes(C), longer].concat()), (2, 0, 0));
    // Another pool6.
    let elsewhere = bytes(&B.replace("0064ff9b", "0064ff9c"));
    assert_eq!(count(&[elsewhere, bytes(B)].concat()), (1, 0, 1));
    let elsewhere = bytes(&A.replace("0064ff9b", "0064ff9c"));
    assert_eq!(count(&[elsewhere, bytes(A)].concat()), (1, 0, 1));
    // Format A: a child that is not known, a child that is missing.
    assert_eq!(count(&bytes(&A.replace("05000500", "05000900"))), (0, 1, 0));
    assert_eq!(
        count(&bytes(&A.replace("8c000180", "84000180"))[..132]),
        (0, 1, 0)
    );
}

fn session_like() -> impl Strategy<Value = ForeignSession> {
    (
        prop::sample::select(Protocol::ALL.to_vec()),
        any::<(u128, u16, u32, u16, u32, u16)>(),
        prop::sample::select(STATES.to_vec()),
        prop::sample::select(TIMERS.to_vec()),
        any::<u32>(),
    )
        .prop_map(|(protocol, addresses, state, timer, left)| {
            let (v6, port6, v4, port4, remote, port) = addresses;
            let (state, lifetime, port) = match protocol {
                Protocol::Tcp => (state, timer, port),
                Protocol::Udp => (STATES[0], Lifetime::Udp, port),
                Protocol::Icmp => (STATES[0], Lifetime::Icmp, 0),
            };
            ForeignSession {
                protocol,
                v6: Transport6::new(v6.into(), port6),
                v4: Transport4::new(v4.into(), port4),
                remote: Transport4::new(remote.into(), port),
                state,
                lifetime,
                left: left.into(),
                segment: 0,
            }
        })
}

proptest! {
    //= jool#joold-wire
    //= type=test
    #[test]
    fn what_is_written_is_read(
        sessions in prop::collection::vec(session_like(), 1..40),
        format in prop::sample::select(Format::ALL.to_vec()),
        pool6 in prop::sample::select(vec!["64:ff9b::/96", "2001:db8::/32", "2001:db8:1::/48"]),
    ) {
        let pool6: Pool6 = pool6.to_owned().try_into().unwrap();
        let mut datagram = Vec::new();
        for session in &sessions {
            encode(format, pool6, session, &mut datagram);
        }
        prop_assert_eq!(datagram.len(), sessions.len() * size(format));
        let mut found = Vec::new();
        prop_assert_eq!(decode(pool6, &datagram, &mut found), Ok(whole(format)));
        prop_assert_eq!(found, sessions);
    }

    #[test]
    fn noise_does_no_harm(
        start in prop::sample::select(vec![A, B, C, ""]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut datagram = [bytes(start), rest].concat();
        for (at, value) in flips {
            if !datagram.is_empty() {
                let at = at.index(datagram.len());
                datagram[at] = value;
            }
        }
        let (result, sessions) = read(&datagram);
        prop_assert!(result.is_ok() || sessions.is_empty());
        prop_assert!(sessions.len() <= datagram.len() / 40);
    }
}

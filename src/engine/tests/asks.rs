// SPDX-License-Identifier: GPL-2.0-or-later
//! Packets of flows that another gateway may know.

use super::nat::{flows, mapped};
use super::*;
use crate::engine::asks::Tally;
use crate::nat64::question::Question;

const WAITS: Meta<'_> = Meta {
    may_wait: true,
    ..META
};

impl Rig {
    /// A gateway that has others to ask.
    fn asking() -> Self {
        let mut rig = Self::new();
        rig.instance.set_asking(true);
        rig
    }

    /// A packet off a queue.
    fn arrive(&mut self, packet: &[u8]) -> Outcome {
        self.out.clear();
        let (now, out) = (self.now, &mut self.out);
        self.instance.handle(now, &WAITS, packet, out)
    }

    fn question(&mut self) -> Question {
        let questions = self.instance.take_questions();
        assert_eq!(questions.len(), 1, "{questions:?}");
        questions[0]
    }

    /// Hears of all sessions of another gateway.
    fn learn(&mut self, other: &Self) {
        for change in other.instance.nat64().unwrap().snapshot() {
            if let Change::Session { session, v6, .. } = change {
                let foreign = ForeignSession {
                    protocol: session.protocol,
                    v6,
                    v4: session.v4,
                    remote: session.remote,
                    state: session.state,
                    lifetime: session.lifetime,
                    left: 60_000,
                    segment: session.segment,
                };
                let order = Order::Newer { linger: 0 };
                self.instance.merge(self.now, &foreign, order);
            }
        }
    }

    /// Nobody knows what was asked last.
    fn deny(&mut self) {
        let question = self.question();
        self.instance.answered(self.now, &question, true);
    }

    fn resume(&mut self) -> bool {
        self.out.clear();
        self.instance.resume(self.now, &Nameless, &mut self.out)
    }

    fn wait(&self) -> usize {
        self.instance.waiting().packets
    }
}

/// What the instance counted, without what it counts now.
fn counted(rig: &Rig) -> Counters {
    rig.instance.counters()
}

fn stranger(to: u16, from: [u8; 4]) -> Vec<u8> {
    udp([53, to], b"?").over4(from.into(), POOL4)
}

#[test]
fn without_others_nothing_waits() {
    for (_, answer) in flows() {
        let answer = answer(61_005).over4(B4, POOL4);
        let (mut alone, mut rig) = (Rig::new(), Rig::new());
        assert_eq!(rig.arrive(&answer), alone.handle(&answer));
        assert_eq!(rig.instance.waiting(), Tally::default());
        // Nor does what nobody may keep.
        let (mut alone, mut rig) = (Rig::new(), Rig::asking());
        assert_eq!(rig.handle(&answer), alone.handle(&answer));
        assert_eq!(rig.instance.waiting(), Tally::default());
    }
}

#[test]
fn an_answer_waits_for_its_session() {
    for (packet, answer) in flows() {
        let (mut there, mut here) = (Rig::new(), Rig::asking());
        let sent = there.translate(&packet.over6(A6, B6));
        let answer = answer(mapped(&sent)).over4(B4, POOL4);
        assert_eq!(here.arrive(&answer), Outcome::Held);
        assert!(here.out.is_empty() && here.out.errors().is_empty());
        // Another one of the same flow does not ask again.
        assert_eq!(here.arrive(&answer), Outcome::Held);
        let Question::Client { v4, remote, .. } = here.question() else {
            panic!("of IPv4");
        };
        assert_eq!(
            (v4, remote.addr),
            (Transport4::new(POOL4, mapped(&sent)), B4)
        );
        assert!(!here.instance.reconsider() && !here.resume());
        here.learn(&there);
        assert!(here.instance.reconsider() && here.resume());
        assert_eq!(here.out.len(), 2);
        let got = here.out.get(0).unwrap().to_vec();
        assert_intact(&got);
        // It is what the other one would have made of it.
        assert_eq!(got, there.translate(&answer));
        assert_eq!(here.instance.waiting(), Tally::default());
        assert!(!here.resume());
        let counters = [Counter::Received4, Counter::Success].map(|c| here.count(c));
        assert_eq!(counters, [2, 2]);
    }
}

/// RFC 5508: errors belong to the flow that they are about.
#[test]
fn an_error_waits_for_the_session_that_it_is_about() {
    for (packet, _) in flows() {
        let (mut there, mut here) = (Rig::new(), Rig::asking());
        let sent = there.translate(&packet.over6(A6, B6));
        let error = icmp(3, 3, [0; 4], &sent).over4(ROUTER4, POOL4);
        assert_eq!(here.arrive(&error), Outcome::Held);
        here.learn(&there);
        assert!(here.instance.reconsider() && here.resume());
        assert_eq!(here.out.get(0), Some(&*there.translate(&error)));
    }
}

/// A segment in the middle of a connection opens nothing, so that it would be dropped.
#[test]
fn a_client_goes_on_with_the_address_that_it_has_elsewhere() {
    let (mut there, mut here) = (Rig::new(), Rig::asking());
    let sent = there.translate(&tcp([4000, 80], SYN, b"").over6(A6, B6));
    let middle = tcp([4000, 80], ACK, b"data").over6(A6, B6);
    assert_eq!(here.arrive(&middle), Outcome::Held);
    let (protocol, v6) = (Protocol::Tcp, Transport6::new(A6, 4000));
    assert_eq!(here.question(), Question::Address { protocol, v6 });
    here.learn(&there);
    assert!(here.instance.reconsider() && here.resume());
    assert_eq!(port(here.out.get(0).unwrap(), 20), mapped(&sent));
    // If nobody knows, the table stays as it is.
    let mut here = Rig::asking();
    assert_eq!(here.arrive(&middle), Outcome::Held);
    here.deny();
    assert!(here.resume() && here.out.is_empty());
    assert_eq!(here.count(Counter::Syn6Expected), 1);
    assert_eq!(here.count(Counter::BibEntries), 0);
    // A new flow need not ask anybody.
    here.translate(&tcp([4000, 80], SYN, b"").over6(A6, B6));
    assert_eq!(here.instance.take_questions(), []);
}

/// A client talks to another one that is known elsewhere.
#[test]
fn a_hairpinned_packet_waits_too() {
    let (mut there, mut here) = (Rig::new(), Rig::asking());
    let through: Ipv6Addr = "64:ff9b::192.0.2.1".parse().unwrap();
    let sent = there.translate(&udp([5000, 53], b"?").over6(C6, B6));
    let asked = udp([4000, mapped(&sent)], b"!").over6(A6, through);
    assert_eq!(here.arrive(&asked), Outcome::Held);
    here.learn(&there);
    assert!(here.instance.reconsider() && here.resume());
    let got = here.out.get(0).unwrap();
    assert_intact(got);
    assert_eq!((addr6(got, 24), port(got, 42)), (C6, 5000));
    // What nobody knows is dropped, as it would have been at once.
    let nobody = udp([4000, 61_501], b"?").over6(A6, through);
    assert_eq!(here.arrive(&nobody), Outcome::Held);
    here.instance.take_questions();
    here.now = here.now.after(10_000);
    assert!(here.resume() && here.out.is_empty());
}

#[test]
fn what_nobody_knows_gets_what_it_would_have_got() {
    let knock = || tcp([80, 61_005], SYN, b"").over4(B4, POOL4);
    let others = flows().map(|(_, answer)| answer(61_005).over4(B4, POOL4));
    for packet in others.into_iter().chain([knock()]) {
        let (mut alone, mut rig) = (Rig::new(), Rig::asking());
        let outcome = alone.handle(&packet);
        assert_eq!(rig.arrive(&packet), Outcome::Held);
        rig.deny();
        assert!(rig.resume());
        assert_eq!(counted(&rig), counted(&alone));
        // What the kernel shall go on with goes back to it as it came.
        let back = matches!(outcome, Outcome::NotOurs(_)).then_some(&*packet);
        assert_eq!(rig.out.get(0), back);
        // For a second, the same is not asked again.
        let again = rig.arrive(&packet);
        assert_eq!(again, alone.handle(&packet));
        assert_eq!(rig.instance.take_questions(), []);
        rig.now = rig.now.after(1_000);
        let later = rig.arrive(&packet);
        assert_eq!(later, Outcome::Held);
        assert_eq!(rig.instance.take_questions().len(), 1);
        // Silence is no answer.
        rig.now = rig.now.after(200);
        assert!(rig.resume());
        assert_eq!(rig.arrive(&packet), Outcome::Held);
    }
}

/// A SYN that the tables would keep for a client that is to come is theirs only when nobody knows.
#[test]
fn a_knock_is_kept_when_nobody_has_the_address() {
    let mut rig = Rig::asking();
    let knock = tcp([80, 61_005], SYN, b"").over4(B4, POOL4);
    assert_eq!(rig.arrive(&knock), Outcome::Held);
    assert_eq!(rig.instance.next_deadline(), None);
    rig.deny();
    assert!(rig.resume() && rig.out.is_empty());
    assert_eq!(rig.count(Counter::Type1pkt), 1);
    assert!(rig.instance.next_deadline().is_some());
}

#[test]
fn a_filter_does_not_shut_out_who_was_called_elsewhere() {
    let filter = |rig: Rig| rig.with(|s| s.address_dependent_filtering = true);
    let (mut there, mut here) = (Rig::new(), filter(Rig::asking()));
    let sent =
        there.translate(&udp([4000, 53], b"?").over6(A6, "64:ff9b::203.0.113.77".parse().unwrap()));
    here.learn(&there);
    there.translate(&udp([4000, 53], b"?").over6(A6, B6));
    // The mapping is known, but not that the client has sent something to this server.
    let answer = udp([53, mapped(&sent)], b"!").over4(B4, POOL4);
    assert_eq!(here.arrive(&answer), Outcome::Held);
    assert!(!here.instance.reconsider());
    here.learn(&there);
    assert!(here.instance.reconsider() && here.resume());
    assert_eq!(addr6(here.out.get(0).unwrap(), 24), A6);
}

/// The answer to a client's SYN has the flag, too.
#[test]
fn an_answer_is_no_knock() {
    for change in [
        |s: &mut Settings| s.address_dependent_filtering = true,
        |s: &mut Settings| s.drop_externally_initiated_tcp = true,
    ] {
        let (mut there, mut here) = (Rig::new(), Rig::asking().with(change));
        let elsewhere = "64:ff9b::203.0.113.77".parse().unwrap();
        let sent = there.translate(&tcp([4000, 80], SYN, b"").over6(A6, elsewhere));
        here.learn(&there);
        there.translate(&tcp([4000, 80], SYN, b"").over6(A6, B6));
        let answer = tcp([80, mapped(&sent)], SYN | ACK, b"").over4(B4, POOL4);
        assert_eq!(here.arrive(&answer), Outcome::Held);
        assert!(!here.instance.reconsider());
        here.learn(&there);
        assert!(here.instance.reconsider() && here.resume());
        assert_eq!(addr6(here.out.get(0).unwrap(), 24), A6);
    }
}

#[test]
fn what_is_of_our_own_share_is_not_asked_about() {
    let mut rig = Rig::asking();
    let share = PortRange {
        min: 61_001,
        max: 61_499,
    };
    let nat64 = rig.instance.nat64_mut().unwrap();
    nat64.set_share(Some([share].into()));
    let outcome = rig.arrive(&stranger(61_100, [203, 0, 113, 1]));
    assert_eq!(outcome, Outcome::NotOurs(Counter::Bib4NotFound));
    assert_eq!(
        rig.arrive(&stranger(61_600, [203, 0, 113, 1])),
        Outcome::Held
    );
}

#[test]
fn who_stays_alone_lets_all_go() {
    let mut rig = Rig::asking();
    let packet = stranger(61_100, [203, 0, 113, 1]);
    assert_eq!(rig.arrive(&packet), Outcome::Held);
    rig.instance.set_asking(false);
    assert_eq!(rig.instance.take_questions(), []);
    assert!(rig.resume());
    assert_eq!(rig.out.get(0), Some(&*packet));
    assert_eq!(rig.wait(), 0);
}

#[test]
fn nobody_who_asks_has_packets_wait_for_ever() {
    let mut rig = Rig::asking();
    rig.arrive(&stranger(61_100, [203, 0, 113, 1]));
    rig.now = rig.now.after(199);
    assert!(!rig.resume());
    rig.now = rig.now.after(1);
    assert!(rig.resume());
    assert_eq!(rig.instance.waiting().late, 1);
    // An answer that comes later is an answer to nothing.
    rig.deny();
    assert_eq!(
        rig.arrive(&stranger(61_100, [203, 0, 113, 1])),
        Outcome::Held
    );
}

/// Every packet is of another source, to another port; nobody ever answers.
#[test]
fn a_flood_of_strangers_has_limits() {
    let mut rig = Rig::asking();
    let (mut asked, mut held) = (0, 0);
    for i in 0..40_000_u32 {
        let [_, a, b, c] = i.to_be_bytes();
        let packet = stranger(61_001 + (i % 990) as u16, [20 + a, b, c, 1]);
        held += usize::from(rig.arrive(&packet) == Outcome::Held);
        assert!(rig.wait() <= 256);
        if i % 10 == 9 {
            rig.now = rig.now.after(1);
            rig.resume();
        }
        asked += rig.instance.take_questions().len();
    }
    // In 4 s, with 100 ms of waiting each: 256 packets at a time at most.
    assert!((1_000..=250 + 4_000).contains(&asked), "{asked}");
    assert_eq!(held, asked);
    let refused = rig.instance.waiting().refused;
    assert_eq!(refused as usize, 40_000 - held);
}

#[test]
fn who_asks_in_vain_too_often_is_not_heard_and_others_are() {
    let mut rig = Rig::asking();
    let scanner = [203, 0, 113, 1];
    let mut asked = 0;
    for port in 61_001..61_900 {
        asked += usize::from(rig.arrive(&stranger(port, scanner)) == Outcome::Held);
        for question in rig.instance.take_questions() {
            rig.instance.answered(rig.now, &question, true);
        }
        rig.resume();
        rig.now = rig.now.after(1);
    }
    assert_eq!(asked, 64);
    assert_eq!(
        rig.arrive(&stranger(61_950, [203, 0, 113, 2])),
        Outcome::Held
    );
    rig.now = rig.now.after(1_000);
    assert_eq!(rig.arrive(&stranger(61_951, scanner)), Outcome::Held);
}

#[test]
fn bytes_and_packets_of_a_flow_have_limits() {
    let mut rig = Rig::asking();
    let large = |port| udp([53, port], &[0; 60_000]).over4(B4, POOL4);
    let held = (61_001..61_020).filter(|port| rig.arrive(&large(*port)) == Outcome::Held);
    assert_eq!(held.count(), 8, "of 512 KiB");
    let mut rig = Rig::asking();
    let same = (0..20).filter(|_| rig.arrive(&stranger(61_001, [1, 2, 3, 4])) == Outcome::Held);
    assert_eq!(same.count(), 8);
    assert_eq!(rig.instance.take_questions().len(), 1);
    assert_eq!(rig.instance.waiting().refused, 12);
}

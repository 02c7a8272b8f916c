// SPDX-License-Identifier: GPL-2.0-or-later
//! How long the segments are that super-packets are cut into.

use super::*;
use crate::model::EamRow;
use crate::wire::samples::{A4, with_flags4};

const PSH: u8 = 0x08;

/// Options of a SYN, one of them the maximum segment size.
fn options(size: Option<u16>) -> Vec<u8> {
    let of = |size: u16| [&[1, 1, 1, 1, 2, 4][..], &size.to_be_bytes()].concat();
    size.map(of).unwrap_or_default()
}

struct Flow {
    instance: Instance,
    out: Output,
    /// What IPv4 sees of the client.
    client: (Ipv4Addr, u16),
}

impl Flow {
    fn of_nat64() -> Self {
        Self {
            instance: Rig::new().instance,
            out: Output::new(),
            client: (POOL4, 0),
        }
    }

    fn of_siit() -> Self {
        let settings = Settings {
            pool6: Some("64:ff9b::/96".to_owned().try_into().unwrap()),
            ..Settings::default()
        };
        let mut instance = Instance::new(Flavour::Siit, settings, [3; 16]);
        let siit = instance.siit_mut().unwrap();
        let row = EamRow {
            v6: format!("{A6}/128").parse().unwrap(),
            v4: format!("{A4}/32").parse().unwrap(),
        };
        siit.eamt.insert(row, false).unwrap();
        Self {
            instance,
            out: Output::new(),
            client: (A4, 4000),
        }
    }

    fn handle(&mut self, packet: &[u8], segments: Segments) -> &[u8] {
        let meta = Meta {
            offload: Offload {
                partial: segments != Segments::One,
                segments,
                place: None,
            },
            ..META
        };
        self.out.clear();
        let outcome = self
            .instance
            .handle(Tick(1_000), &meta, packet, &mut self.out);
        assert_eq!(outcome, Outcome::Translated);
        self.out.frame(0).unwrap()
    }

    fn syn(&mut self, size: Option<u16>) {
        let options = options(size);
        let mut packet = tcp([4000, 80], SYN, &options).over6(A6, B6);
        packet[52] += (options.len() * 4) as u8;
        let frame = self.handle(&packet, Segments::One);
        self.client.1 = port(frame, 10 + 20);
    }

    fn syn_ack(&mut self, size: Option<u16>) {
        let (addr, own) = self.client;
        let options = options(size);
        let mut packet = tcp([80, own], SYN | ACK, &options).over4(B4, addr);
        packet[32] += (options.len() * 4) as u8;
        self.handle(&packet, Segments::One);
    }

    /// What super-packets are cut into, to IPv4 and to IPv6.
    fn sizes(&mut self) -> [u16; 2] {
        self.sizes_of(Segments::Some)
    }

    fn sizes_of(&mut self, segments: Segments) -> [u16; 2] {
        let data = [7; 30_000];
        let (addr, own) = self.client;
        let up = tcp([4000, 80], ACK | PSH, &data).over6(A6, B6);
        // Must not be fragmented.
        let down = with_flags4(tcp([80, own], ACK | PSH, &data).over4(B4, addr), 0x4000);
        [up, down].map(|packet| {
            let frame = self.handle(&packet, segments);
            assert_eq!(
                frame.len(),
                10 + 60 + 30_000 - if packet[0] == 0x45 { 0 } else { 20 }
            );
            assert_eq!(
                (frame[0], frame[1]),
                (1, if packet[0] == 0x45 { 4 } else { 1 })
            );
            u16::from_ne_bytes([frame[4], frame[5]])
        })
    }

    /// A router of the IPv6 side complains about a segment to the client.
    fn too_big6(&mut self, mtu: u32) {
        let about = tcp([80, 4000], ACK, &[7; 100]).over6(B6, A6);
        let packet = icmp(2, 0, mtu.to_be_bytes(), &about).over6(A6, B6);
        self.handle(&packet, Segments::One);
    }

    /// A router of the IPv4 side complains about a segment to the server.
    fn too_big4(&mut self, mtu: u16) {
        let (addr, own) = self.client;
        let about = tcp([own, 80], ACK, &[7; 100]).over4(addr, B4);
        let [high, low] = mtu.to_be_bytes();
        let packet = icmp(3, 4, [0, 0, high, low], &about).over4(B4, addr);
        self.handle(&packet, Segments::One);
    }
}

#[test]
fn both_ends_and_routers_say_how_long_segments_may_be() {
    for make in [Flow::of_nat64, Flow::of_siit] {
        let mut flow = make();
        flow.syn(Some(1440));
        assert_eq!(flow.sizes(), [1440; 2]);
        flow.syn_ack(Some(1460));
        assert_eq!(flow.sizes(), [1440; 2], "the least counts");
        assert_eq!(
            flow.sizes_of(Segments::Of(777)),
            [777; 2],
            "told by the kernel"
        );
        flow.too_big6(1460);
        assert_eq!(flow.sizes(), [1400; 2]);
        flow.too_big4(1420);
        assert_eq!(flow.sizes(), [1380; 2]);
        flow.too_big4(1440);
        assert_eq!(flow.sizes(), [1380; 2], "it does not rise");
        // Routers that say nothing, or what is forged to have us send crumbs.
        flow.too_big4(0);
        assert_eq!(flow.sizes(), [1220; 2]);
        flow.too_big6(68);
        assert_eq!(flow.sizes(), [1220; 2]);

        let mut flow = make();
        flow.syn(Some(8940));
        flow.syn_ack(Some(1360));
        assert_eq!(flow.sizes(), [1360; 2]);
        let mut flow = make();
        flow.syn(None);
        assert_eq!(flow.sizes(), [1220; 2]);
        flow.syn_ack(None);
        assert_eq!(flow.sizes(), [536; 2]);
    }
}

#[test]
fn without_a_syn_segments_are_short_enough_for_everything() {
    let mut flow = Flow::of_siit();
    assert_eq!(flow.sizes(), [1220; 2]);
    flow.too_big6(1300);
    assert_eq!(flow.sizes(), [1240; 2], "known to pass");
    // A session of an earlier life that knew nothing of this.
    let mut flow = Flow::of_nat64();
    flow.syn(Some(1440));
    let nat64 = flow.instance.nat64().unwrap();
    let snapshot = nat64.snapshot();
    let mut restored = Flow::of_nat64();
    let settings = restored.instance.settings().clone();
    let tables = restored.instance.nat64_mut().unwrap();
    for change in snapshot {
        if let Change::Session { mut session, .. } = change {
            assert_eq!(session.segment, 1440);
            session.segment = 0;
            assert!(tables.import_session(Tick(1_000), &settings, session));
        } else if let Change::Mapping(mapping) = change {
            assert!(tables.import_mapping(mapping));
        }
    }
    restored.client = flow.client;
    assert_eq!(restored.sizes(), [1220; 2]);
}

#[test]
fn what_is_learnt_goes_to_the_journal() {
    let mut flow = Flow::of_nat64();
    let mut changes = Vec::new();
    let mut last = |flow: &mut Flow| {
        flow.instance.drain_changes(&mut changes);
        let sizes = changes.iter().filter_map(|change| {
            if let Change::Session { session, .. } = change {
                return Some(session.segment);
            }
            None
        });
        sizes.collect::<Vec<_>>()
    };
    flow.syn(Some(1440));
    assert_eq!(last(&mut flow), [1440], "in one row with the session");
    flow.syn_ack(Some(1400));
    assert_eq!(last(&mut flow), [1400]);
    flow.sizes();
    assert!(last(&mut flow).is_empty());
    flow.too_big6(1400);
    assert_eq!(last(&mut flow), [1340]);
    flow.too_big6(1400);
    assert!(last(&mut flow).is_empty());
}

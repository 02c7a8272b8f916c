// SPDX-License-Identifier: GPL-2.0-or-later
//! Without pool4, clients are hidden behind the host's own addresses.

use super::*;

/// A host with one address for 203.0.113.0/25 and one for everything else.
struct TwoLinks {
    near: Ipv4Addr,
    far: Option<Ipv4Addr>,
}

impl Host for TwoLinks {
    fn has_address4(&self, addr: Ipv4Addr) -> bool {
        addr.is_loopback() || addr == self.near || Some(addr) == self.far
    }

    fn has_broadcast4(&self, addr: Ipv4Addr) -> bool {
        addr == Ipv4Addr::new(192, 0, 2, 255)
    }

    fn source4(&self, towards: Ipv4Addr) -> Option<Ipv4Addr> {
        if towards.octets()[3] < 128 {
            Some(self.near)
        } else {
            self.far
        }
    }

    fn source6(&self, _: std::net::Ipv6Addr) -> Option<std::net::Ipv6Addr> {
        None
    }
}

const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const HOST: TwoLinks = TwoLinks {
    near: NEAR,
    far: Some(FAR),
};

fn empty() -> Nat64 {
    Nat64::new([1; 16])
}

//= jool#pool4
//= type=test
#[test]
fn the_route_chooses_the_address() {
    let (mut nat64, settings) = (empty(), Settings::default());
    for protocol in Protocol::ALL {
        for (who, towards, expected) in [(1, 1, NEAR), (2, 200, FAR)] {
            let flow = out(protocol, client(who, 5), server(towards, 80), SYN);
            let v4 = nat64.outbound(Tick(0), &settings, &HOST, flow).unwrap();
            assert_eq!(v4.addr, expected);
            assert!(v4.port >= 61_001);
            assert!(nat64.covers(&HOST, protocol, v4));
            // A mapping is for all destinations, whatever way leads there.
            let elsewhere = out(protocol, client(who, 5), server(201 - towards, 80), SYN);
            let same = nat64.outbound(Tick(0), &settings, &HOST, elsewhere);
            assert_eq!(same, Ok(v4));
        }
    }
    let nowhere = TwoLinks {
        near: NEAR,
        far: None,
    };
    let flow = out(Protocol::Udp, client(9, 5), server(200, 80), ACK);
    let result = nat64.outbound(Tick(0), &settings, &nowhere, flow);
    assert_eq!(reason(result), Counter::MaskDomainNotFound);
}

//= jool#pool4
//= type=test
#[test]
fn only_upper_ports_of_the_hosts_addresses_are_ours() {
    let nat64 = empty();
    let tcp = Protocol::Tcp;
    for (addr, port, expected) in [
        (NEAR, 61_001, true),
        (FAR, 65_535, true),
        (NEAR, 61_000, false),
        (NEAR, 22, false),
        (Ipv4Addr::LOCALHOST, 61_001, false),
        (Ipv4Addr::new(192, 0, 2, 9), 61_001, false),
        (Ipv4Addr::new(192, 0, 2, 255), 61_001, false),
    ] {
        let v4 = Transport4::new(addr, port);
        assert_eq!(nat64.covers(&HOST, tcp, v4), expected, "{v4}");
    }
    assert!(nat64.covers_address(&HOST, FAR));
    assert!(!nat64.covers_address(&Nameless, FAR));
}

//= jool#pool4
//= type=test
#[test]
fn one_entry_of_any_protocol_ends_it() {
    let (mut nat64, settings) = (empty(), Settings::default());
    let mut pool4 = Pool4::default();
    pool4.add(&Pool4Entry {
        mark: 5,
        ..entry(Protocol::Tcp, 1, 2)
    });
    nat64.set_pool4(pool4, &[]);
    assert!(!nat64.covers(&HOST, Protocol::Udp, Transport4::new(NEAR, 61_001)));
    assert!(!nat64.covers_address(&HOST, FAR));
    let flow = out(Protocol::Udp, client(1, 5), server(1, 80), ACK);
    let result = nat64.outbound(Tick(0), &settings, &HOST, flow);
    assert_eq!(reason(result), Counter::MaskDomainNotFound);
}

//= jool#pool4
//= type=test
#[test]
fn a_mapping_goes_with_the_hosts_address() {
    let (mut nat64, settings) = (empty(), Settings::default());
    let (udp, far) = (Protocol::Udp, server(200, 80));
    let flow = out(udp, client(1, 5), far, ACK);
    let before = nat64.outbound(Tick(0), &settings, &HOST, flow).unwrap();
    let moved = TwoLinks {
        near: NEAR,
        far: Some(Ipv4Addr::new(198, 51, 100, 2)),
    };
    let mut changes = Vec::new();
    nat64.drain_changes(&mut changes);
    let after = nat64.outbound(Tick(0), &settings, &moved, flow).unwrap();
    assert_eq!(Some(after.addr), moved.far);
    assert_eq!(nat64.table(udp).bib_count(), 1);
    nat64.drain_changes(&mut changes);
    let (v6, v4) = (client(1, 5), before);
    let gone = Change::MappingGone {
        protocol: udp,
        v6,
        v4,
    };
    let session_gone = Change::SessionGone {
        protocol: udp,
        v6,
        v4,
        remote: far,
    };
    assert_eq!(changes.get(..2), Some(&[session_gone, gone][..]));
    // What an operator fixed stays, and needs no address to be there yet.
    let fixed = Transport4::new(Ipv4Addr::new(203, 0, 113, 250), 61_001);
    let low = Transport4::new(NEAR, 61_000);
    assert!(nat64.bib_add(udp, client(2, 5), low).is_err());
    nat64.bib_add(udp, client(2, 5), fixed).unwrap();
    let flow = out(udp, client(2, 5), far, ACK);
    assert_eq!(nat64.outbound(Tick(0), &settings, &HOST, flow), Ok(fixed));
}

/// A route may name a source that the host does not have (yet): nothing would ever come back to it,
/// and every packet would get another mapping.
#[test]
fn an_address_that_is_not_the_hosts_hides_nobody() {
    struct Elsewhere;
    impl Host for Elsewhere {
        fn has_address4(&self, addr: Ipv4Addr) -> bool {
            addr == NEAR
        }

        fn has_broadcast4(&self, _: Ipv4Addr) -> bool {
            false
        }

        fn source4(&self, _: Ipv4Addr) -> Option<Ipv4Addr> {
            Some(FAR)
        }

        fn source6(&self, _: std::net::Ipv6Addr) -> Option<std::net::Ipv6Addr> {
            None
        }
    }
    let (mut nat64, settings) = (empty(), Settings::default());
    let flow = out(Protocol::Udp, client(1, 5), server(1, 80), ACK);
    let result = nat64.outbound(Tick(0), &settings, &Elsewhere, flow);
    assert_eq!(reason(result), Counter::MaskDomainNotFound);
    assert_eq!(nat64.table(Protocol::Udp).bib_count(), 0);
}

#[test]
fn all_ports_of_the_address_are_tried() {
    let (mut nat64, settings) = (empty(), Settings::default());
    let mut ports = std::collections::BTreeSet::new();
    for port in 0..4535 {
        let flow = out(Protocol::Udp, client(1, port), server(1, 80), ACK);
        let v4 = nat64.outbound(Tick(0), &settings, &HOST, flow).unwrap();
        assert!(ports.insert(v4.port));
    }
    let flow = out(Protocol::Udp, client(1, 4535), server(1, 80), ACK);
    let result = nat64.outbound(Tick(0), &settings, &HOST, flow);
    assert_eq!(reason(result), Counter::Bib6NotFound);
}

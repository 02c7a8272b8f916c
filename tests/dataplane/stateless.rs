// SPDX-License-Identifier: GPL-2.0-or-later
//! What only stateless translation needs of the data plane.

use std::net::Ipv4Addr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tylo::base::host::Host as _;
use tylo::dataplane::{Addresses, NetworkWatch, Source, remove_rules, set_routes};

use super::lab::{Lab, STATELESS, Seen, address, checksum, receive, socket, squeeze};
use super::netns::{Netns, privileged, wait};

#[test]
fn fragments_come_raw_beside_a_defragmenter() {
    if !privileged("fragments_come_raw_beside_a_defragmenter") {
        return;
    }
    let lab = Lab::new();
    let dataplane = lab.run_stateless();
    let client = socket(&lab.client, "10.1.0.2:4000");
    let six = socket(&lab.client, "[fd00:1::2]:4000");
    client.send_to(&[7; 3000], "203.0.113.1:7000").unwrap();
    six.send_to(&[7; 3000], "[2001:db8::1]:7000").unwrap();
    // The kernel complains about them afterwards.
    let forwarded = || lab.seen().into_iter().filter(|packet| !packet.from_host);
    wait("the fragments", || forwarded().count() == 6);
    for packet in forwarded() {
        let bytes = &packet.bytes;
        assert_eq!(packet.source, Source::Slot(STATELESS));
        assert!(bytes.len() <= 1500 && packet.ingress_mtu == 1500);
        assert!(!packet.reassembled && !packet.from_host);
        if bytes[0] >> 4 == 4 {
            let field = u16::from_be_bytes([bytes[6], bytes[7]]);
            assert_ne!(field & 0x3fff, 0, "more fragments, or an offset");
        } else {
            assert_eq!(bytes[6], 44, "a fragment header");
        }
    }

    // What is for the stateful instance is whole.
    lab.relay.seen.lock().unwrap().clear();
    let server = lab.server_socket();
    client.send_to(&[7; 3000], "198.51.100.1:7000").unwrap();
    assert_eq!(receive(&server).0, [7; 3000]);
    six.send_to(&[7; 3000], "[64:ff9b::1]:7000").unwrap();
    wait("the IPv6 packet", || forwarded().count() == 2);
    for packet in forwarded() {
        assert_eq!(packet.source, Source::Slot(0));
        assert!(packet.reassembled);
    }
    assert_eq!(dataplane.failed(), None);
}

#[test]
fn errors_of_the_kernel_are_queued_and_complete() {
    if !privileged("errors_of_the_kernel_are_queued_and_complete") {
        return;
    }
    let lab = Lab::new();
    let dataplane = lab.run_stateless();
    // Nobody listens there.
    for (from, to, expected) in [
        ("10.1.0.2:4000", "10.1.0.1:9", [3, 3]),
        ("[fd00:1::2]:4000", "[fd00:1::1]:9", [1, 4]),
    ] {
        lab.relay.seen.lock().unwrap().clear();
        let client = socket(&lab.client, from);
        client.connect(to).unwrap();
        client.send(&[7; 100]).unwrap();
        // It goes on after it was looked at.
        let error = client.recv(&mut [0; 9]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        let seen = lab.seen();
        assert_eq!(seen.len(), 1);
        check_error(&seen[0], expected);
    }
    drop(dataplane);
}

#[test]
fn errors_about_unroutable_sources_are_queued() {
    if !privileged("errors_about_unroutable_sources_are_queued") {
        return;
    }
    let lab = Lab::new();
    let dataplane = lab.run_stateless();
    lab.gateway
        .enter(|| set_routes("tylo0", &[], &[], true))
        .unwrap();
    let stranger = Ipv4Addr::new(192, 0, 2, 77);
    *lab.relay.from.lock().unwrap() = Some(stranger);
    let client = socket(&lab.client, "10.1.0.2:4000");
    client.set_ttl(1).unwrap();
    client.send_to(b"hello", "198.51.100.1:7000").unwrap();
    wait("the error", || lab.seen().len() >= 2);
    let error = &lab.seen()[1];
    check_error(error, [11, 0]);
    assert_eq!(error.bytes[16..20], stranger.octets());
    drop(dataplane);
}

#[test]
fn errors_of_programs_are_left_alone() {
    if !privileged("errors_of_programs_are_left_alone") {
        return;
    }
    let lab = Lab::new();
    let dataplane = lab.run_stateless();
    let raw = |place: &Netns, domain, protocol| {
        let socket = place
            .enter(|| Socket::new(domain, Type::RAW, Some(protocol)))
            .unwrap();
        let timeout = Some(Duration::from_secs(5));
        socket.set_read_timeout(timeout).unwrap();
        socket
    };
    let mut message = vec![3, 1, 0, 0, 0, 0, 0, 0];
    message.extend([0x45; 28]);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    for (domain, protocol, kind, to) in [
        (Domain::IPV4, Protocol::ICMPV4, 3, "10.1.0.2:0"),
        (Domain::IPV6, Protocol::ICMPV6, 1, "[fd00:1::2]:0"),
    ] {
        let client = raw(&lab.client, domain, protocol);
        let program = raw(&lab.gateway, domain, protocol);
        message[0] = kind;
        program.send_to(&message, &address(to).into()).unwrap();
        // Neighbours are asked for by ICMPv6, too.
        let header = if kind == 3 { 20 } else { 0 };
        let mut buffer = [0_u8; 1500];
        while buffer[header..][..2] != [kind, 1] {
            let length = std::io::Read::read(&mut &client, &mut buffer).unwrap();
            assert!(length > header);
        }
    }
    lab.gateway.sh("ping -c 1 10.1.0.2; ping -c 1 fd00:1::2");

    // Nor are those that the translator sends.
    for (from, to, errno) in [
        ("10.1.0.2:4000", "198.51.100.1:5002", libc::EHOSTUNREACH),
        ("[fd00:1::2]:4000", "[64:ff9b::1]:5002", libc::EACCES),
    ] {
        let client = socket(&lab.client, from);
        client.connect(to).unwrap();
        client.send(b"hello").unwrap();
        let error = client.recv(&mut [0; 9]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(errno));
    }
    let seen = lab.seen();
    // The echo reply and the refused packets.
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|packet| packet.source == Source::Slot(0)));
    drop(dataplane);
}

#[test]
fn addresses_are_those_of_the_namespace() {
    if !privileged("addresses_are_those_of_the_namespace") {
        return;
    }
    let lab = Lab::new();
    // With this our device has an address.
    lab.gateway.sh("sysctl -qw net.ipv4.conf.all.rp_filter=1");
    let dataplane = lab.start();
    let (addresses, watch) = lab
        .gateway
        .enter(|| (Addresses::open().unwrap(), NetworkWatch::open().unwrap()));
    let shown = |list: Vec<Ipv4Addr>| {
        let list = list.iter().map(Ipv4Addr::to_string);
        list.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        shown(addresses.addresses4()),
        "10.1.0.1 10.2.0.1 127.0.0.1 192.0.0.8"
    );
    assert_eq!(
        shown(addresses.broadcasts4()),
        "10.1.0.255 10.2.0.255 127.255.255.255"
    );
    // Link-local ones are random, and the order of numbers is not that of their texts.
    let six = addresses.local6();
    assert!(six.contains(&"fd00:1::1".parse().unwrap()), "{six:?}");
    assert!(six.is_sorted(), "{six:?}");

    // Asked from another namespace.
    let (client, server) = (Ipv4Addr::new(10, 1, 0, 2), Ipv4Addr::new(10, 2, 0, 2));
    let stranger = Ipv4Addr::new(192, 0, 2, 77);
    assert_eq!(addresses.source4(client), Some([10, 1, 0, 1].into()));
    assert_eq!(addresses.source4(server), Some([10, 2, 0, 1].into()));
    assert_eq!(addresses.source4(stranger), None);
    let client = "fd00:1::2".parse().unwrap();
    assert_eq!(addresses.source6(client), "fd00:1::1".parse().ok());
    assert_eq!(addresses.source6("2001:db8::1".parse().unwrap()), None);

    assert!(!lab.gateway.enter(|| addresses.refresh()).unwrap());
    lab.gateway
        .sh("ip address add 192.0.2.1 peer 192.0.2.64/26 dev veth1
         ip address add 2001:db8::1/64 dev veth1 nodad");
    wait("the announcement", || watch.wait());
    assert!(lab.gateway.enter(|| addresses.refresh()).unwrap());
    for local in ["192.0.2.1", "192.0.2.127"] {
        assert!(addresses.is_local4(local.parse().unwrap()), "{local}");
    }
    assert!(!addresses.is_local4([192, 0, 2, 64].into()));
    assert!(addresses.local6().contains(&"2001:db8::1".parse().unwrap()));
    assert_eq!(addresses.source4(stranger), Some([192, 0, 2, 1].into()));
    lab.gateway
        .sh("ip address del 192.0.2.1 peer 192.0.2.64/26 dev veth1");
    wait("the announcement", || watch.wait());
    assert!(lab.gateway.enter(|| addresses.refresh()).unwrap());
    assert!(!addresses.is_local4([192, 0, 2, 1].into()));
    while watch.wait() {}
    for change in [
        "ip rule add pref 7 lookup main",
        "ip -6 rule add pref 7 lookup main",
        "ip link set tylo0 down",
    ] {
        lab.gateway.sh(change);
        wait(change, || watch.wait());
    }
    drop(dataplane);
}

#[test]
fn routes_of_last_resort_are_for_the_host_alone() {
    if !privileged("routes_of_last_resort_are_for_the_host_alone") {
        return;
    }
    let lab = Lab::new();
    let dataplane = lab.start();
    let set = |last_resort| {
        lab.gateway
            .enter(|| set_routes("tylo0", &[], &[], last_resort))
            .unwrap();
    };
    let rules = || squeeze(&lab.gateway.sh("ip rule; ip -6 rule"));
    let before = rules();
    for _ in 0..2 {
        set(true);
        let ours = "32800: from all iif lo lookup 164 proto 164";
        assert_eq!(rules().matches(ours).count(), 2, "{}", rules());
        for family in ["-4", "-6"] {
            let main = lab.gateway.sh(&format!("ip {family} route show dev tylo0"));
            assert!(!main.contains("default"), "{main}");
        }
    }
    let get = |what: &str| {
        // Fails where there is no route.
        lab.gateway.sh(&format!("ip route get {what} 2>&1 || true"))
    };
    assert!(get("192.0.2.77").contains("dev tylo0"));
    assert!(get("2001:db8:77::1").contains("dev tylo0"));
    let forwarded = get("192.0.2.77 from 10.1.0.2 iif veth1");
    assert!(!forwarded.contains("tylo0"), "{forwarded}");
    lab.gateway.sh("ip route add default via 10.2.0.2");
    assert!(get("192.0.2.77").contains("via 10.2.0.2"));
    set(false);
    assert_eq!(rules(), before);
    set(true);
    lab.gateway.enter(remove_rules).unwrap();
    assert_eq!(rules(), before);
    drop(dataplane);
}

/// An ICMP error of this type and code that the kernel is about to send, with both checksums.
fn check_error(packet: &Seen, expected: [u8; 2]) {
    let bytes = &packet.bytes;
    assert_eq!(packet.source, Source::Slot(STATELESS));
    assert!(packet.from_host && !packet.reassembled);
    assert_eq!(packet.ingress_mtu, u32::MAX);
    let sum = if bytes[0] >> 4 == 4 {
        assert_eq!((bytes[9], checksum(&bytes[..20])), (1, [0, 0]));
        assert_eq!(bytes[20..22], expected);
        checksum(&bytes[20..])
    } else {
        let (header, message) = bytes.split_at(40);
        assert_eq!((header[6], &message[..2]), (58, &expected[..]));
        let length = (message.len() as u32).to_be_bytes();
        checksum(&[&header[8..], &length, &[0, 0, 0, 58], message].concat())
    };
    assert_eq!(sum, [0, 0], "the checksum of the message");
}

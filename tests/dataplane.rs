// SPDX-License-Identifier: GPL-2.0-or-later
//! The data plane with real queues, devices and rules, in namespaces of its own.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::io::BufRead as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use tylo::dataplane::{
    Dataplane, Error, Inherited, Options, SendReport, Source, monotonic, namespace_id, set_routes,
};
use tylo::ruleset::{install, probe};

use lab::{
    Lab, Relay, Stop, address, checksum, counters, flood, options, receive, rules, socket, squeeze,
};
use netns::{Netns, privileged, wait};

#[path = "dataplane/lab.rs"]
mod lab;
#[path = "dataplane/netns.rs"]
mod netns;
#[path = "dataplane/stateless.rs"]
mod stateless;

#[test]
fn packets_are_reinjected_or_accepted() {
    if !privileged("packets_are_reinjected_or_accepted") {
        return;
    }
    let lab = Lab::new();
    let dataplane = lab.run(false);
    let server = lab.server_socket();
    let client = socket(&lab.client, "10.1.0.2:4000");

    client.send_to(b"hello", "198.51.100.1:7000").unwrap();
    assert_eq!(
        receive(&server),
        (b"hello".to_vec(), address("10.1.0.2:4000"))
    );
    let first = &lab.seen()[0];
    assert_eq!((first.source, first.ingress_mtu), (Source::Slot(0), 1500));
    assert!(!first.reassembled);
    assert_eq!(first.mark, 0);

    // The gateway's own services at a pool4 address.
    let service = socket(&lab.gateway, "10.1.0.1:5001");
    client.send_to(b"service", "10.1.0.1:5001").unwrap();
    assert_eq!(receive(&service).0, b"service");

    // Accepted and taken ones in the same burst, in order.
    for i in 0..200_u32 {
        let to = if i % 3 == 0 {
            "10.1.0.1:5001"
        } else {
            "198.51.100.1:7000"
        };
        client.send_to(&i.to_be_bytes(), to).unwrap();
    }
    for i in 0..200_u32 {
        let socket = if i % 3 == 0 { &service } else { &server };
        assert_eq!(receive(socket).0, i.to_be_bytes());
    }
    // The reports follow the packets.
    wait("the queues to be empty", || {
        counters(&lab, &dataplane).iter().all(|c| c.waiting == 0)
    });
    for queue in counters(&lab, &dataplane) {
        assert_eq!(queue.slot, 0);
        let lost = queue.kernel_dropped + queue.user_dropped;
        assert_eq!((lost, queue.overruns, queue.malformed), (0, 0, 0));
    }
    assert_eq!(lab.report(), SendReport::default());
    assert!(lab.relay.ticks.load(SeqCst) > 0);
    assert_eq!(dataplane.failed(), None);
    dataplane.stop(false).unwrap();
    assert!(!lab.gateway.sh("ip link").contains("tylo0"));
}

/// Rules of the administrator's may put anything into any queue.
#[test]
fn what_is_not_tcp_keeps_its_borders_in_the_queue_for_tcp() {
    if !privileged("what_is_not_tcp_keeps_its_borders_in_the_queue_for_tcp") {
        return;
    }
    let lab = Lab::new();
    let dataplane = lab.start();
    lab.gateway.enter(|| {
        dataplane.open_slot(0).unwrap();
        let tcp = dataplane.tcp_queues(0).unwrap().unwrap();
        install(probe().unwrap(), &rules(tcp, false)).unwrap();
    });
    let server = lab.server_socket();
    // One packet to the kernel, until somebody cuts it.
    lab.client.sh("/usr/bin/python3 -c 'import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(17, 103, 1000)
s.sendto(b\"\".join(bytes([i]) * 1000 for i in range(9)) + b\"end\", (\"198.51.100.1\", 7000))'");
    for i in 0..9_u8 {
        assert_eq!(receive(&server).0, [i; 1000]);
    }
    assert_eq!(receive(&server).0, b"end");
    let cut: u64 = counters(&lab, &dataplane).iter().map(|c| c.cut).sum();
    assert!(cut >= 1, "it came by the other queue");
}

#[test]
fn a_backlog_is_taken_in_bursts() {
    if !privileged("a_backlog_is_taken_in_bursts") {
        return;
    }
    let lab = Lab::new();
    let dataplane = lab.run(false);
    let server = lab.server_socket();
    let client = socket(&lab.client, "10.1.0.2:4000");
    // Find the neighbours, so that none of what follows is lost.
    client.send_to(b"first", "198.51.100.1:7000").unwrap();
    receive(&server);
    // The first report waits for this lock, and the worker with it.
    let hold = lab.relay.report.lock().unwrap();
    for i in 0..500_u32 {
        client
            .send_to(&i.to_be_bytes(), "198.51.100.1:7000")
            .unwrap();
    }
    wait("packets to queue up", || {
        counters(&lab, &dataplane)
            .iter()
            .map(|c| c.waiting)
            .sum::<u32>()
            >= 136
    });
    drop(hold);
    for i in 0..500_u32 {
        assert_eq!(receive(&server).0, i.to_be_bytes());
    }
    assert_eq!(lab.relay.longest_burst.load(SeqCst), 64);
    wait("the queues to be empty", || {
        counters(&lab, &dataplane).iter().all(|c| c.waiting == 0)
    });
}

#[test]
fn slots_open_and_close_under_traffic() {
    if !privileged("slots_open_and_close_under_traffic") {
        return;
    }
    let lab = Lab::new();
    lab.relay.forgetful.store(true, SeqCst);
    let dataplane = lab.run(false);
    let client = socket(&lab.client, "10.1.0.2:4000");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = Stop(&done);
        scope.spawn(|| flood(&client, &done));
        for _ in 0..5 {
            let before = lab.relay.packets.load(SeqCst);
            wait("traffic", || lab.relay.packets.load(SeqCst) > before + 100);
            lab.gateway.enter(|| {
                dataplane.close_slot(0).unwrap();
                assert_eq!(dataplane.counters().unwrap(), []);
                let error = dataplane.close_slot(0).unwrap_err();
                assert!(matches!(error, Error::SlotClosed(0)));
                dataplane.open_slot(7).unwrap();
                dataplane.open_slot(0).unwrap();
                let error = dataplane.open_slot(0).unwrap_err();
                assert!(matches!(error, Error::SlotOpen(0)));
                dataplane.close_slot(7).unwrap();
            });
        }
    });
    wait("the queues to be empty", || {
        // What was lost while the queue was set up goes with the next burst.
        client.send_to(b"last", "198.51.100.1:7000").unwrap();
        counters(&lab, &dataplane).iter().all(|c| c.waiting == 0)
    });
    assert_eq!(dataplane.failed(), None);
}

#[test]
fn a_restart_with_rules_in_force_strands_nothing() {
    if !privileged("a_restart_with_rules_in_force_strands_nothing") {
        return;
    }
    let lab = Lab::new();
    lab.relay.forgetful.store(true, SeqCst);
    let mut dataplane = lab.run(false);
    let client = socket(&lab.client, "10.1.0.2:4000");
    let done = AtomicBool::new(false);
    let dataplane = thread::scope(|scope| {
        let _stop = Stop(&done);
        scope.spawn(|| flood(&client, &done));
        for _ in 0..5 {
            dataplane.stop(true).unwrap();
            dataplane = lab.start();
            lab.gateway.enter(|| dataplane.open_slot(0)).unwrap();
            let before = lab.relay.packets.load(SeqCst);
            wait("traffic", || lab.relay.packets.load(SeqCst) > before + 100);
        }
        dataplane
    });
    let server = lab.server_socket();
    client.send_to(b"last", "198.51.100.1:7000").unwrap();
    while receive(&server).0 != b"last" {}
    wait("the queues to be empty", || {
        counters(&lab, &dataplane).iter().all(|c| c.waiting == 0)
    });
}

#[test]
fn the_kernel_puts_fragments_together_and_tracks_nothing() {
    if !privileged("the_kernel_puts_fragments_together_and_tracks_nothing") {
        return;
    }
    for track in [false, true] {
        let lab = Lab::new();
        let dataplane = lab.run(track);
        let server = lab.server_socket();
        let client = socket(&lab.client, "10.1.0.2:4000");
        let six = socket(&lab.client, "[fd00:1::2]:4000");

        // Nothing but our rules asks for defragmentation.
        client.send_to(&[7; 3000], "198.51.100.1:7000").unwrap();
        assert_eq!(receive(&server).0, [7; 3000]);
        six.send_to(&[7; 3000], "[64:ff9b::1]:7000").unwrap();
        wait("the IPv6 packet", || lab.seen().len() == 2);
        let seen = lab.seen();
        assert_eq!(seen[0].bytes.len(), 20 + 8 + 3000);
        assert_eq!(seen[1].bytes.len(), 40 + 8 + 3000);
        assert_eq!(seen[1].bytes[6], 17, "the fragment header is gone");
        for packet in &seen {
            assert!(packet.reassembled);
            assert_eq!(packet.ingress_mtu, 1500);
        }

        // Now somebody else switches connection tracking on.
        lab.gateway.sh("nft add table inet fw
             nft add chain inet fw f \"{ type filter hook forward priority 0; }\"
             nft add rule inet fw f ct state invalid counter
             nft add rule inet fw f ct state untracked counter");
        let count = || {
            let key = "cat /proc/sys/net/netfilter/nf_conntrack_count";
            lab.gateway.sh(key).trim().parse::<u32>().unwrap()
        };
        let before = count();
        for port in 0..50 {
            let to = SocketAddr::from(([198, 51, 100, 1], 8000 + port));
            client.send_to(b"flow", to).unwrap();
        }
        wait("the flows", || lab.relay.packets.load(SeqCst) == 52);
        wait("the flows to be forwarded", || {
            let counted = lab.gateway.sh("nft list chain inet fw f");
            track || counted.contains("untracked counter packets 50 ")
        });
        if track {
            wait("the flows to be tracked", || count() >= before + 50);
        } else {
            assert!(count() <= before, "{} > {before}", count());
        }
        assert_eq!(dataplane.failed(), None);
    }
}

#[test]
fn what_is_routed_to_the_device_is_read() {
    if !privileged("what_is_routed_to_the_device_is_read") {
        return;
    }
    let lab = Lab::new();
    let dataplane = lab.run(false);
    let pool6 = ["64:ff9b::/96".parse().unwrap()];
    let pool4 = [
        "203.0.113.0/24".parse().unwrap(),
        "10.1.0.1".parse().unwrap(),
    ];
    for _ in 0..2 {
        lab.gateway
            .enter(|| set_routes("tylo0", &pool6, &pool4, false))
            .unwrap();
    }
    let four = lab.gateway.sh("ip route show dev tylo0");
    assert_eq!(
        squeeze(&four),
        "10.1.0.1 proto 164 scope link metric 2048 203.0.113.0/24 proto 164 scope link metric 2048"
    );
    let six = squeeze(&lab.gateway.sh("ip -6 route show dev tylo0"));
    assert!(
        six.starts_with("64:ff9b::/96 proto 164 metric 2048"),
        "{six}"
    );
    assert!(!six.contains("fe80"), "{six}");

    // A pool4 address of the host's own stays its own.
    let service = socket(&lab.gateway, "10.1.0.1:5001");
    let client = socket(&lab.client, "10.1.0.2:4000");
    client.send_to(b"service", "10.1.0.1:5001").unwrap();
    assert_eq!(receive(&service).0, b"service");
    lab.relay.seen.lock().unwrap().clear();

    // Programs on the gateway. Longer than any device on the way out, yet in one piece.
    let program = socket(&lab.gateway, "[fd00:2::1]:4000");
    program.send_to(&[9; 9001], "[64:ff9b::1]:7000").unwrap();
    let program = socket(&lab.gateway, "10.2.0.1:4000");
    program.send_to(&[9; 9001], "203.0.113.1:5001").unwrap();
    wait("the packets", || lab.seen().len() == 2);
    for packet in lab.seen() {
        assert_eq!(packet.source, Source::Tun);
        assert_eq!((packet.mark, packet.ingress_mtu), (0, u32::MAX));
        assert!(!packet.reassembled);
        let (pseudo, header) = match packet.bytes[0] >> 4 {
            6 => (&packet.bytes[8..40], 40),
            _ => (&packet.bytes[12..20], 20),
        };
        let length = (8 + 9001_u32).to_be_bytes();
        assert_eq!(packet.bytes.len(), header + 8 + 9001);
        let sum = [pseudo, &length, &[0, 0, 0, 17], &packet.bytes[header..]].concat();
        assert_eq!(checksum(&sum), [0, 0], "the checksum is complete");
    }

    // Exactly what is asked for, and nothing of anybody else's.
    lab.gateway
        .sh("ip route add 203.0.113.128/25 dev tylo0 metric 5");
    let fewer = ["203.0.113.0/24".parse().unwrap()];
    lab.gateway
        .enter(|| set_routes("tylo0", &[], &fewer, false))
        .unwrap();
    let four = squeeze(&lab.gateway.sh("ip route show dev tylo0"));
    assert_eq!(
        four,
        "203.0.113.0/24 proto 164 scope link metric 2048 203.0.113.128/25 scope link metric 5"
    );
    let six = lab.gateway.sh("ip -6 route show dev tylo0");
    assert!(!six.contains("64:ff9b"), "{six}");
    let error = lab
        .gateway
        .enter(|| set_routes("tylo9", &pool6, &pool4, false))
        .unwrap_err();
    assert!(error.to_string().contains("tylo9"), "{error}");
    drop(dataplane);
}

#[test]
fn the_gateways_own_address_can_be_the_source() {
    if !privileged("the_gateways_own_address_can_be_the_source") {
        return;
    }
    for filter in [0, 1, 2] {
        let lab = Lab::new();
        lab.gateway
            .sh(&format!("sysctl -qw net.ipv4.conf.all.rp_filter={filter}"));
        let dataplane = lab.run(false);
        let server = lab.server_socket();
        let client = socket(&lab.client, "10.1.0.2:4000");
        for source in [[10, 2, 0, 1], [198, 51, 100, 1]] {
            lab.gateway
                .enter(|| set_routes("tylo0", &[], &["198.51.100.1".parse().unwrap()], false))
                .unwrap();
            *lab.relay.from.lock().unwrap() = Some(source.into());
            client.send_to(b"hello", "198.51.100.1:7000").unwrap();
            let from = SocketAddr::from((source, 4000));
            assert_eq!(receive(&server).1, from, "rp_filter={filter}");
        }
        drop(dataplane);
    }
}

#[test]
fn the_kernels_errors_about_reinjected_packets_come_back() {
    if !privileged("the_kernels_errors_about_reinjected_packets_come_back") {
        return;
    }
    let lab = Lab::new();
    let dataplane = lab.run(false);
    lab.gateway.sh("ip link set veth2 mtu 1400");
    lab.gateway
        .enter(|| set_routes("tylo0", &[], &["198.51.100.1".parse().unwrap()], false))
        .unwrap();
    let client = socket(&lab.client, "10.1.0.2:4000");
    // By the loopback device for an address of the gateway's own, by ours for one that is not.
    for (from, source) in [
        ([10, 1, 0, 1], Source::Slot(0)),
        ([198, 51, 100, 1], Source::Tun),
    ] {
        *lab.relay.from.lock().unwrap() = Some(from.into());
        lab.relay.seen.lock().unwrap().clear();
        client.send_to(&[7; 1450], "198.51.100.1:7000").unwrap();
        wait("the error", || lab.seen().len() == 2);
        let error = &lab.seen()[1];
        assert_eq!(error.source, source);
        // Fragmentation needed, to that address.
        assert_eq!((error.bytes[9], &error.bytes[20..22]), (1, &[3, 4][..]));
        assert_eq!(error.bytes[16..20], from);
        assert!(!error.reassembled);
    }
    drop(dataplane);
}

#[test]
fn icmp_errors_are_sent_at_a_limited_rate() {
    if !privileged("icmp_errors_are_sent_at_a_limited_rate") {
        return;
    }
    let lab = Lab::new();
    let dataplane = lab.run(false);
    let client = socket(&lab.client, "10.1.0.2:4000");
    client.connect("198.51.100.1:5002").unwrap();
    client.send(b"hello").unwrap();
    // "Administratively prohibited" shows as this error on a connected socket.
    let error = client.recv(&mut [0; 9]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH));
    let client = socket(&lab.client, "[fd00:1::2]:4000");
    client.connect("[64:ff9b::1]:5002").unwrap();
    client.send(b"hello").unwrap();
    let error = client.recv(&mut [0; 9]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    wait("the reports", || lab.report().icmp6_sent == 1);
    let once = SendReport {
        icmp4_sent: 1,
        icmp6_sent: 1,
        ..SendReport::default()
    };
    assert_eq!(lab.report(), once);

    // The kernel lets one worker see all packets between two hosts.
    let client = socket(&lab.client, "10.1.0.2:4001");
    for _ in 0..400 {
        client.send_to(b"hello", "198.51.100.1:5002").unwrap();
    }
    wait("the reports", || {
        let report = lab.report();
        report.icmp4_sent + report.icmp4_failed == 401
    });
    let report = lab.report();
    assert!(
        report.icmp4_sent > 40 && report.icmp4_failed > 0,
        "{report:?}"
    );
    drop(dataplane);
}

#[test]
fn the_device_outlives_a_killed_daemon() {
    if !privileged("the_device_outlives_a_killed_daemon") {
        return;
    }
    let lab = Lab::new();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "the_daemon_to_be_killed",
            "--ignored",
            "--nocapture",
        ])
        .env("TYLO_TEST_NETNS", lab.gateway.name())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("daemon is ready")));

    let error = lab.gateway.enter(|| {
        Dataplane::start(options(), Arc::new(Relay::default()), Inherited::default()).err()
    });
    assert!(matches!(error, Some(Error::Busy(_))), "{error:?}");

    child.kill().unwrap();
    child.wait().unwrap();
    for (command, expected) in [
        ("ip route get 203.0.113.1", "203.0.113.1 dev tylo0"),
        ("ip -6 route get 64:ff9b::1", "64:ff9b::1 from :: dev tylo0"),
    ] {
        let route = lab.gateway.sh(command);
        assert!(route.starts_with(expected), "{route}");
    }
    let dataplane = lab.run(false);
    let program = socket(&lab.gateway, "10.2.0.1:4000");
    program.send_to(b"hello", "203.0.113.1:5001").unwrap();
    wait("the packet", || lab.seen().len() == 1);
    dataplane.stop(true).unwrap();
    assert!(lab.gateway.sh("ip link").contains("tylo0"));
    lab.start().stop(false).unwrap();
    assert!(!lab.gateway.sh("ip link").contains("tylo0"));
}

/// Not a test: the process that is killed in the one above.
#[test]
#[ignore = "started by another test"]
fn the_daemon_to_be_killed() {
    let Ok(name) = std::env::var("TYLO_TEST_NETNS") else {
        return;
    };
    netns::enter(&name);
    let dataplane =
        Dataplane::start(options(), Arc::new(Relay::default()), Inherited::default()).unwrap();
    let pool6 = ["64:ff9b::/96".parse().unwrap()];
    set_routes("tylo0", &pool6, &["203.0.113.0/24".parse().unwrap()], false).unwrap();
    println!("daemon is ready");
    thread::sleep(Duration::from_secs(60));
    drop(dataplane);
}

#[test]
fn unusable_devices_and_options_are_named() {
    if !privileged("unusable_devices_and_options_are_named") {
        return;
    }
    let gateway = Netns::new();
    let start = |options: Options| {
        gateway
            .enter(|| {
                Dataplane::start(options, Arc::new(Relay::default()), Inherited::default()).err()
            })
            .unwrap()
    };
    gateway.sh("ip link add tylo0 type veth peer name other");
    assert!(matches!(start(options()), Error::NotTun(_)));
    gateway.sh("ip link del tylo0; ip tuntap add tylo0 mode tun");
    assert!(matches!(start(options()), Error::NotTun(_)));
    gateway.sh("ip link del tylo0; sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
    assert!(matches!(start(options()), Error::Ipv6Disabled));
    assert!(!gateway.sh("ip link").contains("tylo0"), "left behind");

    let with = |change: &dyn Fn(&mut Options)| {
        let mut options = options();
        change(&mut options);
        start(options)
    };
    assert!(matches!(with(&|o| o.workers = 0), Error::Workers(0)));
    assert!(matches!(with(&|o| o.mtu = 1499), Error::Mtu(1499)));
    assert!(matches!(with(&|o| o.queue_length = 0), Error::QueueLength));
    assert!(matches!(
        with(&|o| o.tun = "a/b".to_owned()),
        Error::Name(_)
    ));
}

#[test]
fn queue_numbers_end_at_65535_and_belong_to_one_process() {
    if !privileged("queue_numbers_end_at_65535_and_belong_to_one_process") {
        return;
    }
    let lab = Lab::new();
    let dataplane = lab.start();
    assert_eq!(dataplane.queues(0).unwrap(), (6400, 2));
    assert_eq!(dataplane.queues(14783).unwrap(), (35966, 2));
    assert_eq!(dataplane.tcp_queues(0).unwrap(), Some((35968, 2)));
    assert_eq!(dataplane.tcp_queues(14783).unwrap(), Some((65534, 2)));
    for slot in [14784, usize::MAX] {
        let error = dataplane.queues(slot).unwrap_err();
        assert!(matches!(error, Error::NoQueueNumber(..)), "{slot}");
        let error = dataplane.tcp_queues(slot).unwrap_err();
        assert!(matches!(error, Error::NoQueueNumber(..)), "{slot}");
    }
    lab.gateway.enter(|| {
        let mut other = nfq::Queue::open().unwrap();
        other.bind(6403).unwrap();
        let error = dataplane.open_slot(1).unwrap_err();
        assert!(matches!(error, Error::QueueBusy(6403)), "{error}");
        drop(other);
        dataplane.open_slot(1).unwrap();
    });
}

#[test]
fn a_deleted_device_is_reported() {
    if !privileged("a_deleted_device_is_reported") {
        return;
    }
    let lab = Lab::new();
    let dataplane = lab.run(false);
    assert_eq!(dataplane.failed(), None);
    lab.gateway.sh("ip link del tylo0");
    wait("the failure", || dataplane.failed().is_some());
    let failure = dataplane.failed().unwrap();
    assert!(failure.contains("TUN device"), "{failure}");
    let _ = dataplane.stop(false);
}

#[test]
fn time_goes_on_and_namespaces_differ() {
    let before = monotonic();
    thread::sleep(Duration::from_millis(20));
    assert!((20..10_000).contains(&monotonic().since(before)));
    if !privileged("time_goes_on_and_namespaces_differ") {
        return;
    }
    let other = Netns::new();
    assert_ne!(namespace_id().unwrap(), other.enter(namespace_id).unwrap());
}

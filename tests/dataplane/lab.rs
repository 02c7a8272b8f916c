// SPDX-License-Identifier: GPL-2.0-or-later
//! A client, a gateway and a server, and a handler that stands in for the translator.
//!
//! UDP packets to port 5000 and higher of 198.51.100.1 and 10.1.0.1 go on to 10.2.0.2, with a
//! source of the handler's choice.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tylo::base::{Protocol, Tick};
use tylo::dataplane::{
    Dataplane, Handler, Inherited, Options, QueueCounters, Received, SendReport, Source, Verdict,
};
use tylo::model::PortRange;
use tylo::ruleset::{Divert, Pool4Match, Queues, Ruleset, Stateless, install, probe};
use tylo::wire::output::{ErrorMessage, Output};

use super::netns::Netns;

/// Packets to this port go to the kernel.
pub(crate) const ACCEPTED: u16 = 5001;

/// Packets to this port are answered by an ICMP error.
pub(crate) const REFUSED: u16 = 5002;

/// The slot whose packets are only looked at.
pub(crate) const STATELESS: usize = 1;

/// What one packet looked like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) source: Source,
    pub(crate) bytes: Vec<u8>,
    pub(crate) mark: u32,
    pub(crate) ingress_mtu: u32,
    pub(crate) reassembled: bool,
    pub(crate) from_host: bool,
}

#[derive(Default)]
pub(crate) struct Relay {
    pub(crate) seen: Mutex<Vec<Seen>>,
    pub(crate) packets: AtomicU64,
    pub(crate) longest_burst: AtomicU64,
    pub(crate) ticks: AtomicU64,
    pub(crate) report: Mutex<SendReport>,
    /// The source address of what is sent on; that of the packet if there is none.
    pub(crate) from: Mutex<Option<Ipv4Addr>>,
    /// Do not keep what was seen.
    pub(crate) forgetful: AtomicBool,
}

impl Handler for Relay {
    fn burst(
        &self,
        _: Tick,
        source: Source,
        packets: &[Received<'_>],
        verdicts: &mut [Verdict],
        out: &mut Output,
    ) {
        assert_eq!(packets.len(), verdicts.len());
        self.packets.fetch_add(packets.len() as u64, SeqCst);
        self.longest_burst.fetch_max(packets.len() as u64, SeqCst);
        for (packet, verdict) in packets.iter().zip(verdicts) {
            assert_eq!(*verdict, Verdict::Taken);
            if !self.forgetful.load(SeqCst) {
                self.seen.lock().unwrap().push(Seen {
                    source,
                    bytes: packet.bytes.to_vec(),
                    mark: packet.mark,
                    ingress_mtu: packet.ingress_mtu,
                    reassembled: packet.reassembled,
                    from_host: packet.from_host,
                });
            }
            if source == Source::Slot(STATELESS) {
                *verdict = Verdict::Accept;
                continue;
            }
            let bytes = packet.bytes;
            if bytes[0] >> 4 == 6 {
                // To whom it may concern: administratively prohibited.
                if bytes[6] == 17 && port(bytes, 40) == REFUSED {
                    let source: [u8; 16] = bytes[8..24].try_into().unwrap();
                    out.push_error(ErrorMessage {
                        to: Ipv6Addr::from(source).into(),
                        message: [&[1, 1, 0, 0, 0, 0, 0, 0], bytes].concat(),
                    });
                }
                continue;
            }
            if bytes[9] != 17 {
                *verdict = Verdict::Accept;
                continue;
            }
            match port(bytes, 20) {
                ACCEPTED => *verdict = Verdict::Accept,
                REFUSED => {
                    let source: [u8; 4] = bytes[12..16].try_into().unwrap();
                    let mut message = [&[3, 13, 0, 0, 0, 0, 0, 0], &bytes[..28]].concat();
                    let sum = checksum(&message);
                    message[2..4].copy_from_slice(&sum);
                    out.push_error(ErrorMessage {
                        to: Ipv4Addr::from(source).into(),
                        message,
                    });
                }
                _ => {
                    let copy = out.packet(bytes.len());
                    copy.copy_from_slice(bytes);
                    if let Some(from) = *self.from.lock().unwrap() {
                        copy[12..16].copy_from_slice(&from.octets());
                    }
                    copy[16..20].copy_from_slice(&[10, 2, 0, 2]);
                    copy[10..12].fill(0);
                    let sum = checksum(&copy[..20]);
                    copy[10..12].copy_from_slice(&sum);
                    // No checksum.
                    copy[26..28].fill(0);
                }
            }
        }
    }

    fn tick(&self, _: Tick, _: &mut Output) {
        self.ticks.fetch_add(1, SeqCst);
    }

    fn sent(&self, _: Source, report: &SendReport) {
        let mut sum = self.report.lock().unwrap();
        sum.failed_packets += report.failed_packets;
        sum.icmp4_sent += report.icmp4_sent;
        sum.icmp4_failed += report.icmp4_failed;
        sum.icmp6_sent += report.icmp6_sent;
        sum.icmp6_failed += report.icmp6_failed;
    }
}

/// A client, a gateway with a running data plane, a server.
pub(crate) struct Lab {
    pub(crate) client: Netns,
    pub(crate) gateway: Netns,
    pub(crate) server: Netns,
    pub(crate) relay: Arc<Relay>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let lab = Self {
            client: Netns::new(),
            gateway: Netns::new(),
            server: Netns::new(),
            relay: Arc::default(),
        };
        lab.gateway.join(&lab.client, 1);
        lab.gateway.join(&lab.server, 2);
        lab.gateway
            .sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        lab
    }

    pub(crate) fn start(&self) -> Dataplane {
        let handler = Arc::clone(&self.relay);
        self.gateway
            .enter(|| Dataplane::start(options(), handler, Inherited::default()))
            .unwrap()
    }

    /// Starts, opens slot 0, installs the rules for it.
    pub(crate) fn run(&self, track: bool) -> Dataplane {
        let dataplane = self.start();
        self.gateway.enter(|| {
            dataplane.open_slot(0).unwrap();
            let rules = rules(dataplane.queues(0).unwrap(), track);
            install(probe().unwrap(), &rules).unwrap();
        });
        dataplane
    }

    /// As [`Lab::run`], with slot 1 for a stateless instance and for the errors of the kernel.
    pub(crate) fn run_stateless(&self) -> Dataplane {
        let dataplane = self.start();
        self.gateway.enter(|| {
            dataplane.open_slot(0).unwrap();
            dataplane.open_slot(STATELESS).unwrap();
            let queues = dataplane.queues(STATELESS).unwrap();
            let rules = Ruleset {
                stateless: vec![Stateless {
                    label: "stateless".to_owned(),
                    queues: Queues {
                        all: queues,
                        tcp: None,
                    },
                    pool6: None,
                    eam6: vec!["2001:db8::/32".parse().unwrap()],
                    eam4: vec!["203.0.113.0/24".parse().unwrap()],
                    deny4: Vec::new(),
                }],
                kernel_errors: Some(queues),
                ..rules(dataplane.queues(0).unwrap(), false)
            };
            install(probe().unwrap(), &rules).unwrap();
        });
        dataplane
    }

    pub(crate) fn server_socket(&self) -> UdpSocket {
        socket(&self.server, "10.2.0.2:7000")
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.relay.seen.lock().unwrap().clone()
    }

    pub(crate) fn report(&self) -> SendReport {
        *self.relay.report.lock().unwrap()
    }
}

pub(crate) fn options() -> Options {
    Options {
        workers: 2,
        ..Options::default()
    }
}

pub(crate) fn rules(queues: (u16, u16), track: bool) -> Ruleset {
    let entry = |prefix: &str| Pool4Match {
        protocol: Protocol::Udp,
        prefix: prefix.parse().unwrap(),
        ports: PortRange {
            min: 5000,
            max: 9999,
        },
    };
    Ruleset {
        tun: "tylo0".to_owned(),
        track,
        stateless: Vec::new(),
        mapt: Vec::new(),
        local4: Vec::new(),
        local6: Vec::new(),
        kernel_errors: None,
        defragment: true,
        diverts: vec![Divert {
            label: "default".to_owned(),
            queues: Queues {
                all: queues,
                tcp: None,
            },
            pool6: "64:ff9b::/96".parse().unwrap(),
            pool4: vec![entry("198.51.100.1"), entry("10.1.0.1")],
        }],
    }
}

/// Ends a flood, also when the test fails.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

pub(crate) fn flood(client: &UdpSocket, done: &AtomicBool) {
    while !done.load(SeqCst) {
        let _ = client.send_to(b"flood", "198.51.100.1:7000");
        thread::sleep(Duration::from_micros(20));
    }
}

pub(crate) fn counters(lab: &Lab, dataplane: &Dataplane) -> Vec<QueueCounters> {
    lab.gateway.enter(|| dataplane.counters()).unwrap()
}

pub(crate) fn socket(place: &Netns, address: &str) -> UdpSocket {
    let socket = place.enter(|| UdpSocket::bind(address)).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20).unwrap();
    let timeout = Some(Duration::from_secs(5));
    socket.set_read_timeout(timeout).unwrap();
    socket
}

pub(crate) fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65536];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    buffer.truncate(length);
    (buffer, from)
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn port(bytes: &[u8], header: usize) -> u16 {
    u16::from_be_bytes([bytes[header + 2], bytes[header + 3]])
}

pub(crate) fn squeeze(text: &str) -> String {
    let words: Vec<_> = text
        .split_whitespace()
        .filter(|w| *w != "linkdown")
        .collect();
    words.join(" ")
}

pub(crate) fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

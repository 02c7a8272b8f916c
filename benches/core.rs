// SPDX-License-Identifier: GPL-2.0-or-later
//! How many packets one thread takes through the pure core. `tools/bench-core` runs it.
//!
//! Items are packets. They are handled in bursts of 64, as a worker does it, and the output is
//! cleared after every burst. Sizes are those of the whole IPv4 packet; its IPv6 form is 20 bytes
//! longer. The packets of a case differ in ports, data and checksums, lest the processor learn them
//! by heart, but they do stay in its caches. There is no kernel in these figures.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use etherparse::PacketBuilder;
use tylo::base::host::Nameless;
use tylo::base::prefix::{Pool6, Prefix4, Prefix6};
use tylo::base::{Protocol, Tick};
use tylo::engine::{Instance, Meta, Outcome};
use tylo::map::Eamt;
use tylo::model::settings::Settings;
use tylo::model::{EamRow, Flavour, Pool4Entry, PortRange};
use tylo::nat64::pool4::Pool4;
use tylo::wire::output::Output;
use tylo::wire::{Packet4, Packet6};
use tylo::xlat::{self, Plan, Rewrite, Rules};

#[path = "core/contention.rs"]
mod contention;

const BURST: usize = 64;
/// Different packets of a case.
const PACKETS: u16 = 256;

const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0xa);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0xcb00, 0x7107);
const SERVER4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const POOL4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The pool4 of the engine, of more addresses for many sessions.
const POOL4_LEN: u8 = 28;
/// Source and destination, the client's packets; the first is the identifier of echo messages.
const PORTS: [u16; 2] = [4000, 53];

const RULES: Rules<'static> = Rules {
    override_tos: None,
    zeroize_traffic_class: false,
    lowest_ipv6_mtu: 1280,
    plateaus: &[65535, 1492, 68],
    ingress_mtu: u32::MAX,
    egress_mtu: u32::MAX,
    amend_udp_checksum_zero: true,
    reassembled: false,
    identification: 7,
    offload: tylo::wire::offload::Offload::NONE,
    segment: 0,
};
const META: Meta<'_> = Meta {
    mark: 0,
    ingress_mtu: u32::MAX,
    reassembled: false,
    from_host: false,
    may_wait: false,
    offload: tylo::wire::offload::Offload::NONE,
    host: &Nameless,
};

fn main() {
    // divan measures threads apart from each other, and no processor time.
    let mut arguments = std::env::args().skip_while(|argument| argument != "contention");
    if arguments.next().is_some() {
        let seconds = arguments.next().map_or(1.0, |text| text.parse().unwrap());
        return contention::run(Duration::from_secs_f64(seconds));
    }
    divan::main();
}

/// Parse, translate, write.
mod core {
    use super::*;

    #[divan::bench(args = CASES)]
    fn six_to_four(bencher: Bencher<'_, '_>, case: Case) {
        let plan = Plan {
            outer: Rewrite {
                src: POOL4,
                dst: SERVER4,
                ports: Some([61001, PORTS[1]]),
            },
            inner: None,
        };
        let packets = packets(|i| case.over6(CLIENT6, SERVER6, [PORTS[0] + i, PORTS[1]]));
        bursts(bencher, &packets, |bytes, out| {
            let packet = Packet6::parse(bytes).unwrap();
            xlat::six_to_four(&packet, &plan, &RULES, out).unwrap();
        });
    }

    #[divan::bench(args = CASES)]
    fn four_to_six(bencher: Bencher<'_, '_>, case: Case) {
        let plan = Plan {
            outer: Rewrite {
                src: SERVER6,
                dst: CLIENT6,
                ports: Some([PORTS[1], PORTS[0]]),
            },
            inner: None,
        };
        let packets = packets(|i| case.over4(SERVER4, POOL4, [PORTS[1], 61001 + i]));
        bursts(bencher, &packets, |bytes, out| {
            let packet = Packet4::parse(bytes).unwrap();
            xlat::four_to_six(&packet, &plan, &RULES, out).unwrap();
        });
    }

    fn packets(make: impl Fn(u16) -> Vec<u8>) -> Vec<Vec<u8>> {
        (0..PACKETS).map(make).collect()
    }
}

/// What a worker calls for every packet; UDP, 64 bytes, as many sessions as the argument says,
/// all of them established, their packets in turn.
mod engine {
    use super::*;

    const CASE: Case = Case(Kind::Udp, 64);

    #[divan::bench(args = [1, 100_000])]
    fn nat64_six_to_four(bencher: Bencher<'_, '_>, sessions: usize) {
        let mut instance = nat64();
        let out = clients(sessions);
        answers(&mut instance, &out);
        through(bencher, instance, &out);
    }

    #[divan::bench(args = [1, 100_000])]
    fn nat64_four_to_six(bencher: Bencher<'_, '_>, sessions: usize) {
        let mut instance = nat64();
        let back = answers(&mut instance, &clients(sessions));
        through(bencher, instance, &back);
    }

    /// First packets of as many flows into an empty table; `true` tries beside others first, as a
    /// worker does.
    #[divan::bench(args = [false, true])]
    fn nat64_new_sessions(bencher: Bencher<'_, '_>, turn: bool) {
        const NUMBER: usize = 200 * BURST;
        let (packets, mut out, mut changes) = (clients(NUMBER), Output::new(), Vec::new());
        let bencher = bencher.counter(ItemsCount::new(NUMBER)).with_inputs(nat64);
        bencher.bench_local_values(|mut instance| {
            for burst in packets.chunks(BURST) {
                if turn {
                    let mut turn = instance.turn(Tick(1000), 0, BURST);
                    for packet in burst {
                        assert_eq!(turn.handle(&META, packet, &mut out), None);
                    }
                }
                for packet in burst {
                    let outcome = instance.handle(Tick(1000), &META, packet, &mut out);
                    assert_eq!(outcome, Outcome::Translated);
                }
                instance.drain_changes(&mut changes);
                out.clear();
            }
            instance
        });
    }

    /// As [`nat64_six_to_four`], beside other workers.
    #[divan::bench(args = [1, 100_000])]
    fn nat64_turn_six_to_four(bencher: Bencher<'_, '_>, sessions: usize) {
        let mut instance = nat64();
        let packets = clients(sessions);
        answers(&mut instance, &packets);
        turns(bencher, &instance, &packets);
    }

    /// As [`nat64_four_to_six`], beside other workers.
    #[divan::bench(args = [1, 100_000])]
    fn nat64_turn_four_to_six(bencher: Bencher<'_, '_>, sessions: usize) {
        let mut instance = nat64();
        let back = answers(&mut instance, &clients(sessions));
        turns(bencher, &instance, &back);
    }

    fn turns(bencher: Bencher<'_, '_>, instance: &Instance, packets: &[Vec<u8>]) {
        let mut out = Output::new();
        let (bursts, _) = packets.as_chunks::<BURST>();
        let mut bursts = bursts.iter().cycle();
        bencher.counter(ItemsCount::new(BURST)).bench_local(|| {
            let mut turn = instance.turn(Tick(1000), 0, BURST);
            for packet in bursts.next().unwrap() {
                let outcome = turn.handle(&META, black_box(packet), &mut out);
                assert_eq!(outcome, Some(Outcome::Translated));
            }
            black_box(&mut out).clear();
        });
    }

    fn through(bencher: Bencher<'_, '_>, mut instance: Instance, packets: &[Vec<u8>]) {
        bursts(bencher, packets, |bytes, out| {
            let outcome = instance.handle(Tick(1000), &META, bytes, out);
            assert_eq!(outcome, Outcome::Translated);
        });
    }

    pub(super) fn nat64() -> Instance {
        let settings = Settings {
            pool6: Some("64:ff9b::/96".to_owned().try_into().unwrap()),
            ..Settings::default()
        };
        let mut pool4 = Pool4::default();
        pool4.add(&Pool4Entry {
            mark: 0,
            protocol: Protocol::Udp,
            prefix: Prefix4::new(Ipv4Addr::from_bits(POOL4.to_bits() & !15), POOL4_LEN).unwrap(),
            ports: PortRange {
                min: 1024,
                max: 65535,
            },
            max_iterations: None,
        });
        let mut instance = Instance::new(Flavour::Nat64, settings, [3; 16]);
        instance.nat64_mut().unwrap().set_pool4(pool4, &[]);
        instance
    }

    /// The packets of this many clients, of different addresses and ports; at least a burst.
    pub(super) fn clients(number: usize) -> Vec<Vec<u8>> {
        let number = number as u32;
        (0..number.max(BURST as u32))
            .map(|i| {
                let i = i % number;
                let client = Ipv6Addr::from_bits(CLIENT6.to_bits() + u128::from(i));
                CASE.over6(client, SERVER6, [4000 + (i % 1000) as u16, PORTS[1]])
            })
            .collect()
    }

    /// Sends packets of clients to the server; what it answers.
    pub(super) fn answers(instance: &mut Instance, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut out = Output::new();
        let answers = packets
            .iter()
            .map(|bytes| {
                out.clear();
                instance.handle(Tick(1000), &META, bytes, &mut out);
                let sent = Packet4::parse(out.get(0).unwrap()).unwrap();
                let [p0, p1] = *sent.bytes[sent.l4_offset..].first_chunk().unwrap();
                let ports = [PORTS[1], u16::from_be_bytes([p0, p1])];
                CASE.over4(sent.dst, sent.src, ports)
            })
            .collect();
        instance.drain_changes(&mut Vec::new());
        answers
    }

    #[divan::bench]
    fn siit_by_pool6_six_to_four(bencher: Bencher<'_, '_>) {
        let packets = (0..PACKETS).map(|i| {
            let src = PREFIX.embed(Ipv4Addr::from_bits(NET4.to_bits() + u32::from(i)));
            CASE.over6(src, PREFIX.embed(SERVER4), [PORTS[0] + i, PORTS[1]])
        });
        through(bencher, siit(0), &packets.collect::<Vec<_>>());
    }

    #[divan::bench]
    fn siit_by_pool6_four_to_six(bencher: Bencher<'_, '_>) {
        let packets = (0..PACKETS).map(|i| {
            let dst = Ipv4Addr::from_bits(NET4.to_bits() + u32::from(i));
            CASE.over4(SERVER4, dst, [PORTS[1], PORTS[0] + i])
        });
        through(bencher, siit(0), &packets.collect::<Vec<_>>());
    }

    /// Rows of the EAM table, and how many of them the packets use, in turn.
    const TABLES: [(u32, u32); 3] = [(10, 10), (100_000, 10), (100_000, 100_000)];

    #[divan::bench(args = TABLES.map(Table))]
    fn siit_by_eam_six_to_four(bencher: Bencher<'_, '_>, table: Table) {
        let packets = table.used(|i| {
            let src = Ipv6Addr::from_bits(CLIENT6.to_bits() + u128::from(i));
            CASE.over6(src, PREFIX.embed(SERVER4), PORTS)
        });
        through(bencher, siit(table.0.0), &packets);
    }

    #[divan::bench(args = TABLES.map(Table))]
    fn siit_by_eam_four_to_six(bencher: Bencher<'_, '_>, table: Table) {
        let packets = table.used(|i| {
            let dst = Ipv4Addr::from_bits(NET4.to_bits() + i);
            CASE.over4(SERVER4, dst, [PORTS[1], PORTS[0]])
        });
        through(bencher, siit(table.0.0), &packets);
    }

    #[derive(Clone, Copy)]
    struct Table((u32, u32));

    impl fmt::Display for Table {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let Self((rows, used)) = self;
            write!(f, "{used}_of_{rows}_rows")
        }
    }

    impl Table {
        /// A packet for each row that is used, at least a burst; far apart from each other.
        fn used(self, packet: impl Fn(u32) -> Vec<u8>) -> Vec<Vec<u8>> {
            let Self((rows, used)) = self;
            (0..used.max(BURST as u32))
                .map(|i| packet(i % used * (rows / used)))
                .collect()
        }
    }

    const PREFIX: Pool6 = Pool6::WELL_KNOWN;
    const NET4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);

    /// With so many hosts in the table; everybody else by pool6.
    fn siit(rows: u32) -> Instance {
        let settings = Settings {
            pool6: Some(PREFIX),
            ..Settings::default()
        };
        let mut instance = Instance::new(Flavour::Siit, settings, [3; 16]);
        let eamt = &mut instance.siit_mut().unwrap().eamt;
        for row in hosts(rows) {
            eamt.insert(row, false).unwrap();
        }
        instance
    }

    fn hosts(rows: u32) -> Vec<EamRow> {
        let row = |i| EamRow {
            v6: Prefix6::new(Ipv6Addr::from_bits(CLIENT6.to_bits() + u128::from(i)), 128).unwrap(),
            v4: Prefix4::new(Ipv4Addr::from_bits(NET4.to_bits() + i), 32).unwrap(),
        };
        (0..rows).map(row).collect()
    }

    /// Items are rows.
    #[divan::bench]
    fn siit_load_100_000_rows(bencher: Bencher<'_, '_>) {
        let rows = hosts(100_000);
        bencher
            .counter(ItemsCount::new(rows.len()))
            .bench_local(|| {
                let mut eamt = Eamt::default();
                for row in &rows {
                    eamt.insert(*row, false).unwrap();
                }
                eamt
            });
    }
}

/// Measures handling the packets, a burst after the other, again and again.
fn bursts(
    bencher: Bencher<'_, '_>,
    packets: &[Vec<u8>],
    mut handle: impl FnMut(&[u8], &mut Output),
) {
    let mut out = Output::new();
    let (bursts, _) = packets.as_chunks::<BURST>();
    let mut bursts = bursts.iter().cycle();
    bencher.counter(ItemsCount::new(BURST)).bench_local(|| {
        for packet in bursts.next().unwrap() {
            handle(black_box(packet), &mut out);
        }
        black_box(&mut out).clear();
    });
}

/// Kind and size of the IPv4 packet in bytes.
#[derive(Clone, Copy)]
struct Case(Kind, usize);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Tcp,
    Udp,
    Echo,
}

const CASES: [Case; 6] = [
    Case(Kind::Udp, 64),
    Case(Kind::Tcp, 64),
    Case(Kind::Echo, 64),
    Case(Kind::Udp, 1500),
    Case(Kind::Tcp, 1500),
    Case(Kind::Echo, 1500),
];

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(kind, size) = self;
        write!(f, "{kind:?}_{size}")
    }
}

impl Case {
    fn over6(self, src: Ipv6Addr, dst: Ipv6Addr, ports: [u16; 2]) -> Vec<u8> {
        let [sport, dport] = ports;
        let ip = PacketBuilder::ipv6(src.octets(), dst.octets(), 64);
        let mut bytes = Vec::new();
        match self.0 {
            Kind::Tcp => ip
                .tcp(sport, dport, 1, 1000)
                .write(&mut bytes, &self.data(20, ports)),
            Kind::Udp => ip.udp(sport, dport).write(&mut bytes, &self.data(8, ports)),
            Kind::Echo => ip
                .icmpv6_echo_request(sport, 1)
                .write(&mut bytes, &self.data(8, ports)),
        }
        .unwrap();
        assert_eq!(bytes.len(), self.1 + 20);
        bytes
    }

    fn over4(self, src: Ipv4Addr, dst: Ipv4Addr, ports: [u16; 2]) -> Vec<u8> {
        let [sport, dport] = ports;
        let ip = PacketBuilder::ipv4(src.octets(), dst.octets(), 64);
        let mut bytes = Vec::new();
        match self.0 {
            Kind::Tcp => ip
                .tcp(sport, dport, 1, 1000)
                .write(&mut bytes, &self.data(20, ports)),
            Kind::Udp => ip.udp(sport, dport).write(&mut bytes, &self.data(8, ports)),
            Kind::Echo => ip
                .icmpv4_echo_reply(dport, 1)
                .write(&mut bytes, &self.data(8, ports)),
        }
        .unwrap();
        assert_eq!(bytes.len(), self.1);
        assert_ne!(bytes[6] & 0x40, 0, "may not be fragmented");
        bytes
    }

    /// What follows a transport header of this length; not the same for other ports.
    fn data(self, header: usize, [sport, dport]: [u16; 2]) -> Vec<u8> {
        let mut state = u32::from(sport) << 16 | u32::from(dport);
        (0..self.1 - 20 - header)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect()
    }
}

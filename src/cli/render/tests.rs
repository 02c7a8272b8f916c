// SPDX-License-Identifier: GPL-2.0-or-later
use super::*;
use crate::base::Protocol;
use crate::cli::names::Question;
use crate::model::{Framework, PortRange, TcpState};

mod mapt;

macro_rules! recording {
    ($name:literal) => {
        recording!("nat64", $name)
    };
    ($folder:literal, $name:literal) => {
        recorded(include_str!(concat!(
            "../../../tests/fixtures/cli/",
            $folder,
            "/",
            $name,
            ".txt"
        )))
    };
}

/// What a recorded command printed: all but the first line, which is the command.
fn recorded(text: &str) -> &str {
    text.split_once('\n').unwrap().1
}

const CONSOLE: Style = Style {
    csv: false,
    headers: true,
    numeric: true,
};
const BARE: Style = Style {
    headers: false,
    ..CONSOLE
};
const CSV: Style = Style {
    csv: true,
    ..CONSOLE
};
const BARE_CSV: Style = Style {
    headers: false,
    ..CSV
};

fn print(table: Table, style: Style, replies: &[Reply]) -> String {
    finish(Renderer::new(Vec::new(), table, style), replies)
}

fn finish(mut renderer: Renderer<Vec<u8>>, replies: &[Reply]) -> String {
    for reply in replies {
        assert_eq!(renderer.reply(reply).unwrap(), Ok(()));
    }
    renderer.end().unwrap();
    String::from_utf8(renderer.out).unwrap()
}

/// With the names that the machine of the recordings knew.
fn print_named(table: Table, style: Style, replies: &[Reply]) -> String {
    let mut renderer = Renderer::new(Vec::new(), table, style);
    renderer.names = Names::answered_by(|question| {
        Ok(match question {
            Question::Host(addr) if addr.is_ipv6() => "client6.example".to_owned(),
            Question::Host(_) => "server4.example".to_owned(),
            Question::Service(53) => "domain".to_owned(),
            Question::Service(80) => "http".to_owned(),
            Question::Service(8080) => "http-alt".to_owned(),
            Question::Service(8081) => "tproxy".to_owned(),
            Question::Service(port) => port.to_string(),
        })
    });
    finish(renderer, replies)
}

fn instances() -> [Reply; 1] {
    let row = |name: &str, framework| InstanceRow {
        namespace: 0x2ed3480,
        name: name.to_owned(),
        framework,
    };
    [Reply::Instances(vec![
        row("other", Framework::Iptables),
        row("default", Framework::Netfilter),
        row("Example", Framework::Iptables),
    ])]
}

//= jool#instance-display
//= type=test
#[test]
fn instances_as_recorded() {
    let t = Table::Instances;
    let all = instances();
    assert_eq!(print(t, CONSOLE, &all), recording!("instance-display"));
    assert_eq!(
        print(t, BARE, &all),
        recording!("instance-display-noheaders")
    );
    assert_eq!(print(t, CSV, &all), recording!("instance-display-csv"));
    assert_eq!(print(t, CSV, &[]), recording!("instance-display-empty-csv"));
}

/// The row that Jool has had since 4.1.11, and the recordings, of 4.1.9, have not.
const NEW_SETTING: [&str; 2] = [
    "  ss-max-sessions-per-packet: 36\n",
    "ss-max-sessions-per-packet,36\n",
];

//= jool#global-display
//= type=test
#[test]
fn settings_as_recorded() {
    let settings = Settings {
        pool6: Some("64:ff9b::/96".to_owned().try_into().unwrap()),
        // The default of 4.1.9.
        ss_flush_asap: true,
        ..Settings::default()
    };
    let check = |style, settings: &Settings, expected: &str| {
        let reply = [Reply::Settings(Box::new(settings.clone()))];
        let added = NEW_SETTING[usize::from(style == CSV || style == BARE_CSV)];
        assert_eq!(
            print(Table::Settings(Flavour::Nat64), style, &reply),
            format!("{expected}{added}")
        );
    };
    check(CONSOLE, &settings, recording!("global-display"));
    check(BARE, &settings, recording!("global-display"));
    check(CSV, &settings, recording!("global-display-csv"));
    check(
        BARE_CSV,
        &settings,
        recording!("global-display-csv-noheaders"),
    );
    let changed = Settings {
        manually_enabled: false,
        lowest_ipv6_mtu: 1400,
        zeroize_traffic_class: true,
        override_tos: true,
        tos: 16,
        mtu_plateaus: vec![1500, 600, 100],
        address_dependent_filtering: true,
        drop_externally_initiated_tcp: true,
        drop_icmpv6_info: true,
        source_icmpv6_errors_better: false,
        f_args: 15,
        handle_rst_during_fin_rcv: true,
        tcp_est_timeout: 3 * 3_600_000,
        udp_timeout: 360_000,
        icmp_timeout: 120_000,
        logging_bib: true,
        logging_session: true,
        maximum_simultaneous_opens: 20,
        ss_enabled: true,
        ss_flush_asap: false,
        ss_flush_deadline: 3000,
        ss_capacity: 1024,
        ss_max_payload: 1400,
        ..settings
    };
    check(CONSOLE, &changed, recording!("global-display-changed"));
    check(CSV, &changed, recording!("global-display-changed-csv"));
}

#[test]
fn an_unset_prefix_is_marked_or_empty() {
    let reply = [Reply::Settings(Box::default())];
    let lines = |style| print(Table::Settings(Flavour::Nat64), style, &reply);
    assert!(lines(CONSOLE).contains("\n  pool6: (unset)\n"));
    assert!(lines(CSV).contains("\npool6,\n"));
}

fn pool4() -> Vec<Pool4Row> {
    let row = |mark, addr: &str, min, max, iterations, iterations_fixed| Pool4Row {
        mark,
        protocol: Protocol::Tcp,
        iterations,
        iterations_fixed,
        addr: addr.parse().unwrap(),
        ports: PortRange { min, max },
    };
    vec![
        row(8, "198.51.100.16", 5000, 5999, None, true),
        row(8, "198.51.100.17", 5000, 5999, None, true),
        row(7, "198.51.100.8", 5000, 6000, Some(50), true),
        row(7, "198.51.100.9", 5000, 6000, Some(50), true),
        row(7, "198.51.100.10", 5000, 6000, Some(50), true),
        row(7, "198.51.100.11", 5000, 6000, Some(50), true),
        row(0, "192.0.2.1", 1024, 65535, Some(1024), false),
        row(0, "198.51.100.20", 1, 100, Some(1024), false),
    ]
}

//= jool#pool4-display
//= type=test
#[test]
fn pool4_as_recorded() {
    let t = Table::Pool4;
    let all = [Reply::Pool4(pool4())];
    assert_eq!(print(t, CONSOLE, &all), recording!("pool4-display"));
    assert_eq!(print(t, BARE, &all), recording!("pool4-display-noheaders"));
    assert_eq!(print(t, CSV, &all), recording!("pool4-display-csv"));
    assert_eq!(
        print(t, BARE_CSV, &all),
        recording!("pool4-display-csv-noheaders")
    );
    assert_eq!(print(t, CONSOLE, &[]), recording!("pool4-display-empty"));
    assert_eq!(print(t, CSV, &[]), recording!("pool4-display-empty-csv"));
}

#[test]
fn pages_do_not_show() {
    let pages: Vec<_> = pool4().into_iter().map(|r| Reply::Pool4(vec![r])).collect();
    assert_eq!(
        print(Table::Pool4, CONSOLE, &pages),
        recording!("pool4-display")
    );
}

fn bib(protocol: Protocol, port6: u16, port4: u16, is_static: bool) -> BibRow {
    BibRow {
        protocol,
        v6: format!("2001:db8:6::2#{port6}").parse().unwrap(),
        v4: format!("192.0.2.1#{port4}").parse().unwrap(),
        is_static,
    }
}

//= jool#bib-display
//= type=test
#[test]
fn mappings_as_recorded() {
    let t = Table::Bib;
    let tcp = [Reply::Bib(vec![
        bib(Protocol::Tcp, 40001, 7556, false),
        bib(Protocol::Tcp, 8080, 8080, true),
    ])];
    let udp = [Reply::Bib(vec![
        bib(Protocol::Udp, 40002, 6663, false),
        bib(Protocol::Udp, 8081, 8081, true),
    ])];
    let icmp = [Reply::Bib(vec![
        bib(Protocol::Icmp, 99, 99, true),
        bib(Protocol::Icmp, 777, 50873, false),
    ])];
    assert_eq!(print_named(t, CONSOLE, &tcp), recording!("bib-display-tcp"));
    assert_eq!(print_named(t, CONSOLE, &udp), recording!("bib-display-udp"));
    assert_eq!(
        print_named(t, CONSOLE, &icmp),
        recording!("bib-display-icmp")
    );
    assert_eq!(print_named(t, CSV, &udp), recording!("bib-display-csv-udp"));
    assert_eq!(
        print_named(t, CSV, &icmp),
        recording!("bib-display-csv-icmp")
    );
    assert_eq!(print(t, CONSOLE, &tcp), recording!("bib-display-default"));
    assert_eq!(print(t, BARE, &tcp), recording!("bib-display-noheaders"));
    assert_eq!(
        print(t, CONSOLE, &udp),
        recording!("bib-display-numeric-udp")
    );
    assert_eq!(
        print(t, CONSOLE, &icmp),
        recording!("bib-display-numeric-icmp")
    );
    assert_eq!(
        print(t, CSV, &tcp),
        recording!("bib-display-csv-numeric-tcp")
    );
    assert_eq!(
        print(t, BARE_CSV, &tcp),
        recording!("bib-display-csv-noheaders")
    );
    assert_eq!(print(t, CONSOLE, &[]), recording!("bib-display-empty"));
    assert_eq!(print(t, CSV, &[]), recording!("bib-display-empty-csv"));
}

fn session(protocol: Protocol, expires_in: u64) -> [Reply; 1] {
    // Identifiers of ICMP are the same on both ends of one side.
    let (src6, dst6, src4, dst4) = match protocol {
        Protocol::Tcp => (40001, 80, 7556, 80),
        Protocol::Udp => (40002, 53, 6663, 53),
        Protocol::Icmp => (777, 777, 50873, 50873),
    };
    [Reply::Sessions(vec![SessionRow {
        protocol,
        src6: format!("2001:db8:6::2#{src6}").parse().unwrap(),
        dst6: format!("64:ff9b::203.0.113.2#{dst6}").parse().unwrap(),
        src4: format!("192.0.2.1#{src4}").parse().unwrap(),
        dst4: format!("203.0.113.2#{dst4}").parse().unwrap(),
        expires_in,
        state: (protocol == Protocol::Tcp).then_some(TcpState::Established),
    }])]
}

//= jool#session-display
//= type=test
#[test]
fn sessions_as_recorded() {
    let t = Table::Sessions;
    let tcp = |s: u64, ms: u64| session(Protocol::Tcp, (2 * 3600 - s) * 1000 + ms);
    let udp = |s: u64, ms: u64| session(Protocol::Udp, (5 * 60 - s) * 1000 + ms);
    let icmp = |s: u64, ms: u64| session(Protocol::Icmp, (60 - s) * 1000 + ms);
    assert_eq!(
        print_named(t, CONSOLE, &tcp(2, 432)),
        recording!("session-display-tcp")
    );
    assert_eq!(
        print_named(t, CONSOLE, &udp(3, 380)),
        recording!("session-display-udp")
    );
    assert_eq!(
        print_named(t, CONSOLE, &icmp(4, 128)),
        recording!("session-display-icmp")
    );
    assert_eq!(
        print(t, CONSOLE, &udp(3, 236)),
        recording!("session-display-numeric-udp")
    );
    assert_eq!(
        print_named(t, CSV, &tcp(2, 168)),
        recording!("session-display-csv-tcp")
    );
    assert_eq!(
        print_named(t, CSV, &udp(3, 112)),
        recording!("session-display-csv-udp")
    );
    assert_eq!(
        print(t, CSV, &tcp(2, 28)),
        recording!("session-display-csv-numeric-tcp")
    );
    assert_eq!(
        print(t, CSV, &icmp(5, 712)),
        recording!("session-display-csv-numeric-icmp")
    );
    assert_eq!(
        print(t, BARE_CSV, &tcp(5, 236)),
        recording!("session-display-csv-noheaders")
    );
    assert_eq!(print(t, CONSOLE, &[]), recording!("session-display-empty"));
    assert_eq!(print(t, CSV, &[]), recording!("session-display-empty-csv"));
}

fn stats(received6: u64, unknown: u64) -> [Reply; 1] {
    let value = |counter| match counter {
        "JSTAT_RECEIVED6" => received6,
        "JSTAT_RECEIVED4" | "JSTAT_SESSIONS" => 3,
        "JSTAT_SUCCESS" => 7,
        "JSTAT_BIB_ENTRIES" => 6,
        "JSTAT_UNKNOWN_ICMP6_TYPE" => unknown,
        _ => 0,
    };
    // Those of MAP-T and of clusters the daemon keeps to itself.
    let kept = |name: &str| name.starts_with("JSTAT_MAPT_") || name.starts_with("JSTAT_SYNC_");
    let names = Counter::ALL.iter().map(|c| c.name());
    let names = names.filter(|name| !kept(name));
    let rows = names.map(|name| (name, value(name)));
    [Reply::Stats(
        rows.map(|(name, n)| (name.to_owned(), n)).collect(),
    )]
}

/// Without the counters that Jool has had since 4.1.12, and the recordings have not.
fn without_joold(text: &str) -> String {
    let lines = text.split_inclusive('\n');
    lines.filter(|l| !l.starts_with("JSTAT_JOOLD_")).collect()
}

//= jool#stats-display
//= type=test
#[test]
fn counters_as_recorded() {
    let all = Table::Stats {
        all: true,
        explain: false,
    };
    let some = Table::Stats {
        all: false,
        explain: false,
    };
    assert_eq!(
        without_joold(&print(all, CONSOLE, &stats(8, 4))),
        recording!("stats-display-all")
    );
    assert_eq!(
        without_joold(&print(all, CSV, &stats(8, 4))),
        recording!("stats-display-csv-all")
    );
    assert_eq!(
        without_joold(&print(all, BARE_CSV, &stats(9, 5))),
        recording!("stats-display-csv-all-noheaders")
    );
    assert_eq!(
        print(some, CSV, &stats(8, 4)),
        recording!("stats-display-csv")
    );
}

#[test]
fn explanations_follow_the_numbers() {
    let table = Table::Stats {
        all: false,
        explain: true,
    };
    let rows = [Reply::Stats(vec![
        ("JSTAT_SUCCESS".to_owned(), 7),
        ("JSTAT_NEW".to_owned(), 1),
    ])];
    assert_eq!(
        print(table, CONSOLE, &rows),
        "JSTAT_SUCCESS: 7\nPackets translated and sent on.\n\n\
         JSTAT_NEW: 1\nThis command does not know this counter.\n\n"
    );
    assert_eq!(
        print(table, CSV, &rows),
        "Stat,Value,Explanation\n\
         JSTAT_SUCCESS,7,\"Packets translated and sent on.\"\n\
         JSTAT_NEW,1,\"This command does not know this counter.\"\n"
    );
}

#[test]
fn odd_names_do_not_break_csv() {
    let row = |name: &str| InstanceRow {
        namespace: 1,
        name: name.to_owned(),
        framework: Framework::Netfilter,
    };
    let rows = [Reply::Instances(vec![row("a,\"b"), row("CE 11b")])];
    assert_eq!(
        print(Table::Instances, BARE_CSV, &rows),
        "1,\"a,\"\"b\",netfilter\n1,CE 11b,netfilter\n"
    );
}

#[test]
fn answers_to_other_questions_are_refused() {
    let mut renderer = Renderer::new(Vec::new(), Table::Bib, CONSOLE);
    let reply = Reply::Status { running: true };
    assert_eq!(renderer.reply(&reply).unwrap(), Err(Foreign));
    assert!(renderer.out.is_empty());
}

fn eamt() -> [Reply; 1] {
    let row = |v6: &str, v4: &str| EamRow {
        v6: v6.parse().unwrap(),
        v4: v4.parse().unwrap(),
    };
    [Reply::Eamt(vec![
        row("2001:db8:7::/96", "0.0.0.0/0"),
        row("2001:db8:6::8", "203.0.113.8"),
        row("2001:db8:5::/120", "198.51.100.0/24"),
        row("2001:db8:4::/124", "192.0.2.0/28"),
    ])]
}

//= jool#eamt-display
//= type=test
#[test]
fn explicit_mappings_as_recorded() {
    let t = Table::Eamt;
    assert_eq!(
        print(t, CONSOLE, &eamt()),
        recording!("siit", "eamt-display")
    );
    assert_eq!(
        print(t, CSV, &eamt()),
        recording!("siit", "eamt-display-csv")
    );
    assert_eq!(
        print(t, BARE_CSV, &eamt()),
        recording!("siit", "eamt-display-csv-noheaders")
    );
    assert_eq!(
        print(t, CONSOLE, &[]),
        recording!("siit", "eamt-display-empty")
    );
    // Rows begin at once, unlike in other tables.
    let rows = recording!("siit", "eamt-display").lines().skip(3);
    let rows: String = rows.map(|line| format!("{line}\n")).collect();
    assert_eq!(print(t, BARE, &eamt()), rows);
}

//= jool#denylist4-display
//= type=test
#[test]
fn denied_prefixes_as_recorded() {
    let t = Table::Denylist4;
    let all = [Reply::Denylist4(vec![
        "198.51.100.0/24".parse().unwrap(),
        "203.0.113.77".parse().unwrap(),
    ])];
    assert_eq!(
        print(t, CONSOLE, &all),
        recording!("siit", "denylist4-display")
    );
    assert_eq!(
        print(t, BARE, &all),
        recording!("siit", "denylist4-display-noheaders")
    );
    assert_eq!(
        print(t, CSV, &all),
        recording!("siit", "denylist4-display-csv")
    );
    assert_eq!(
        print(t, CONSOLE, &[]),
        recording!("siit", "denylist4-display-empty")
    );
}

fn translation(query: &str, result: &str, rule: AddressRule) -> [Reply; 1] {
    [Reply::Translation(Translation {
        query: query.parse().unwrap(),
        result: result.parse().unwrap(),
        rule,
    })]
}

//= jool#address-query
//= type=test
#[test]
fn translations_as_recorded() {
    let short = Table::Translation { verbose: false };
    let long = Table::Translation { verbose: true };
    let eam = AddressRule::Eam(EamRow {
        v6: "2001:db8:4::/124".parse().unwrap(),
        v4: "192.0.2.0/28".parse().unwrap(),
    });
    let pool6 = AddressRule::Pool6("2001:db8:100::/40".to_owned().try_into().unwrap());
    let by_eam = translation("2001:db8:4::5", "192.0.2.5", eam);
    assert_eq!(
        print(short, CONSOLE, &by_eam),
        recording!("siit", "address-query6")
    );
    assert_eq!(
        print(long, CONSOLE, &by_eam),
        recording!("siit", "address-query6-verbose")
    );
    let (client, server) = ("2001:db8:1c6:3364:2::", "198.51.100.2");
    assert_eq!(
        print(long, CONSOLE, &translation(client, server, pool6)),
        recording!("siit", "address-query-pool6-verbose")
    );
    let (server, client) = ("192.0.2.5", "2001:db8:1c0:2:5::");
    assert_eq!(
        print(long, CONSOLE, &translation(server, client, pool6)),
        recording!("siit", "address-query4-pool6-verbose")
    );
    let back = translation("192.0.2.5", "2001:db8:4::5", eam);
    assert!(
        print(long, CONSOLE, &back).contains(
            "\n  Operation: 192.0.2.5 - 192.0.2.0/28 + 2001:db8:4::/124 = 2001:db8:4::5\n"
        )
    );
}

#[test]
fn settings_of_siit_as_recorded() {
    let t = Table::Settings(Flavour::Siit);
    let settings = Settings {
        pool6: Some("2001:db8:100::/40".to_owned().try_into().unwrap()),
        ..Settings::default()
    };
    let reply = [Reply::Settings(Box::new(settings))];
    assert_eq!(
        print(t, CONSOLE, &reply),
        recording!("siit", "global-display")
    );
    assert_eq!(
        print(t, CSV, &reply),
        recording!("siit", "global-display-csv")
    );
    assert_eq!(
        print(t, CSV, &[Reply::Settings(Box::default())]),
        recording!("siit", "global-display-nopool6-csv")
    );
}

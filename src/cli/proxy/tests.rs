// SPDX-License-Identifier: GPL-2.0-or-later
use super::*;
use crate::cli::JOOL;
use crate::cli::grammar::{Invocation, parse};

fn read(line: &str) -> Result<Invocation, GrammarError> {
    parse(JOOL, line.split_whitespace().map(OsString::from))
}

#[track_caller]
fn config(line: &str) -> ProxyConfig {
    match read(line) {
        Ok(Invocation::Proxy(config)) => *config,
        other => panic!("{line}: {other:?}"),
    }
}

//= jool#session-proxy
//= type=test
#[test]
fn options_become_a_configuration() {
    let defaults = config("session proxy 233.252.0.64");
    let network = Network {
        group: "233.252.0.64".parse().unwrap(),
        port: 6400,
        dev_in: None,
        dev_out: None,
        ttl: 1,
        format: Format::C,
        stats: None,
    };
    assert_eq!(
        defaults,
        ProxyConfig {
            instance: "default".to_owned(),
            network,
        }
    );
    let full = "-i x session proxy ff01::1 ff08::db8:64:64 -p 7000 -i eth0 -o eth1 -t 5 \
                --net.format a --stats.address=192.0.2.1 --stats.port 80";
    assert_eq!(
        config(full),
        ProxyConfig {
            instance: "x".to_owned(),
            network: Network {
                group: "ff08::db8:64:64".parse().unwrap(),
                port: 7000,
                dev_in: Some(Device::Name("eth0".to_owned())),
                dev_out: Some(Device::Name("eth1".to_owned())),
                ttl: 5,
                format: Format::A,
                stats: Some("192.0.2.1:80".parse().unwrap()),
            },
        }
    );
    let long =
        "session proxy --net.mcast.port=7000 --net.dev.in=192.0.2.1 --net.ttl=0 233.252.0.64";
    let long = config(long).network;
    assert_eq!(
        long.dev_in,
        Some(Device::Address("192.0.2.1".parse().unwrap()))
    );
    assert_eq!((long.port, long.ttl), (7000, 0));
    for (option, expected) in [
        ("--stats.address ::1", "[::1]:6401"),
        ("--stats.port 81", "[::]:81"),
    ] {
        let stats = config(&format!("session proxy 233.252.0.64 {option}"))
            .network
            .stats;
        assert_eq!(stats, Some(expected.parse().unwrap()));
    }
}

#[test]
fn nonsense_is_refused() {
    for (line, code, mention) in [
        ("session proxy", 234, "a multicast address"),
        ("session proxy 192.0.2.1", 234, "'192.0.2.1'"),
        ("session proxy hello", 234, "'hello'"),
        ("session proxy 233.252.0.64 -p 0", 234, "'0'"),
        ("session proxy 233.252.0.64 -p 70000", 234, "'70000'"),
        (
            "session proxy 233.252.0.64 -p no-such-service",
            234,
            "no-such",
        ),
        ("session proxy 233.252.0.64 -i eth0", 234, "'eth0'"),
        (
            "session proxy ff08::1 -o an-interface-of-16",
            234,
            "an-interface",
        ),
        ("session proxy ff08::1 -o a/b", 234, "'a/b'"),
        ("session proxy ff08::1 -t 256", 234, "'256'"),
        ("session proxy ff08::1 -t x", 1, "'x'"),
        ("session proxy ff08::1 --stats.address x", 234, "'x'"),
        (
            "session proxy --net.mcast.addr ff08::1",
            64,
            "--net.mcast.addr",
        ),
        ("session proxy ff08::1 --net.format d", 234, "'d'"),
        ("session advertise now", 64, "'now'"),
        ("joold", 234, "advertise"),
    ] {
        let error = read(line).unwrap_err();
        assert_eq!(error.code(), code, "{line}: {error}");
        assert!(error.to_string().contains(mention), "{line}: {error}");
    }
}

#[test]
fn advertisements_have_an_old_place() {
    for line in ["session advertise", "joold advertise", "joold a"] {
        let Ok(Invocation::Call(call)) = read(&format!("-i x {line}")) else {
            panic!("{line}");
        };
        let request = call.request;
        assert_eq!(request.command, Command::SessionAdvertise, "{line}");
        assert_eq!(request.instance, "x");
    }
    assert_eq!(read("jool advertise").unwrap_err().code(), 234);
    assert_eq!(read("joo advertise").unwrap_err().code(), 234, "hidden");
}

#[test]
fn services_have_names() {
    let text = "# ports\nntp 123/tcp\nntp\t123/udp time # clocks\nodd x/udp\n\n";
    assert_eq!(service(text, "ntp", "udp"), Some(123));
    assert_eq!(service(text, "time", "udp"), Some(123));
    assert_eq!(service(text, "time", "tcp"), None);
    assert_eq!(service(text, "clocks", "udp"), None);
    assert_eq!(service(text, "odd", "udp"), None);
}

#[test]
fn a_configuration_is_printed_as_scripts_know_it() {
    let mut config = ProxyConfig::new("ff08::1".parse().unwrap());
    assert_eq!(
        config.to_string(),
        "Config:\n  mod.instance: default\n  net.mcast.addr: ff08::1\n  net.mcast.port: 6400\n  \
         net.dev.in: (null)\n  net.dev.out: (null)\n  net.ttl: 1\n  stats.addr: (null)\n  \
         stats.port: (null)\n"
    );
    config.network.dev_in = Some(Device::Name("eth0".to_owned()));
    config.stats_server().set_port(7);
    let text = config.to_string();
    assert!(text.contains("net.dev.in: eth0\n"), "{text}");
    assert!(
        text.ends_with("stats.addr: ::\n  stats.port: 7\n"),
        "{text}"
    );
}

/// What `joold` makes of two files.
fn files(net: &str, module: &str, stats: Option<&str>) -> Result<ProxyConfig, GrammarError> {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("tylo-joold-{}-{n}", process::id()));
    std::fs::create_dir(&folder).unwrap();
    let (a, b) = (folder.join("net.json"), folder.join("mod.json"));
    std::fs::write(&a, net).unwrap();
    std::fs::write(&b, module).unwrap();
    let result = from_files(&a, Some(&b), stats);
    std::fs::remove_dir_all(&folder).unwrap();
    result
}

//= jool#joold
//= type=test
#[test]
fn the_files_of_joold_are_read() {
    let net = r#"{ "Multicast Address": "233.252.0.64", "multicast port": "6400",
                   "in interface": "192.0.2.1", "out interface": "192.0.2.2",
                   "reuseaddr": 1, "ttl": 3, "format": "b", "comment": 5 }"#;
    let config = files(net, r#"{ "instance": "x" }"#, Some("99")).unwrap();
    assert_eq!(config.instance, "x");
    let network = config.network;
    assert_eq!((network.ttl, network.format), (3, Format::B));
    assert_eq!(
        network.dev_out,
        Some(Device::Address("192.0.2.2".parse().unwrap()))
    );
    assert_eq!(network.stats, Some("[::]:99".parse().unwrap()));
    let short = files(
        r#"{ "multicast address": "ff08::1", "multicast port": 7 }"#,
        "{}",
        None,
    );
    let mut expected = ProxyConfig::new("ff08::1".parse().unwrap());
    expected.network.port = 7;
    assert_eq!(short.unwrap(), expected);
    for (net, module, stats, mention) in [
        ("{}", "{}", None, "'multicast address' is missing"),
        (
            r#"{ "multicast address": "10.0.0.1" }"#,
            "{}",
            None,
            "'10.0.0.1'",
        ),
        (
            r#"{ "multicast address": "ff08::1", "multicast port": 0 }"#,
            "{}",
            None,
            "multicast port: '0'",
        ),
        (
            r#"{ "multicast address": "ff08::1", "ttl": 256 }"#,
            "{}",
            None,
            "ttl",
        ),
        (
            r#"{ "multicast address": "ff08::1", "in interface": "" }"#,
            "{}",
            None,
            "in interface",
        ),
        (
            r#"{ "multicast address": "ff08::1", "mtu": 1 }"#,
            "{}",
            None,
            "mtu",
        ),
        (
            r#"{ "multicast address": "ff08::1" }"#,
            r#"{ "instance": "" }"#,
            None,
            "instance",
        ),
        (
            r#"{ "multicast address": "ff08::1" }"#,
            "{}",
            Some("x y"),
            "PORT",
        ),
    ] {
        let error = files(net, module, stats).unwrap_err().to_string();
        assert!(error.contains(mention), "{net} {module}: {error}");
    }
}

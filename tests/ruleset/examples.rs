// SPDX-License-Identifier: GPL-2.0-or-later
//! Sets of rules to be put into force.

use super::*;

pub(super) fn example() -> Ruleset {
    let entry = |protocol, prefix: &str, min, max| Pool4Match {
        protocol,
        prefix: prefix.parse().unwrap(),
        ports: PortRange { min, max },
    };
    Ruleset {
        tun: "tylo0".to_owned(),
        track: false,
        stateless: Vec::new(),
        mapt: Vec::new(),
        local4: Vec::new(),
        local6: Vec::new(),
        kernel_errors: None,
        defragment: true,
        diverts: vec![Divert {
            label: "default".to_owned(),
            queues: Queues {
                all: (6400, 2),
                tcp: Some((9000, 2)),
            },
            pool6: "64:ff9b::/96".parse().unwrap(),
            pool4: vec![
                entry(Protocol::Tcp, "192.0.2.1", 61001, 65535),
                entry(Protocol::Tcp, "198.51.100.0/25", 61001, 65535),
                entry(Protocol::Tcp, "198.51.100.128/25", 61001, 65535),
                entry(Protocol::Udp, "192.0.2.1", 1, 65535),
                entry(Protocol::Icmp, "192.0.2.1", 0, 65535),
            ],
        }],
    }
}

/// Without queues for TCP.
pub(super) const fn only(first: u16) -> Queues {
    Queues {
        all: (first, 2),
        tcp: None,
    }
}

/// Three stateless instances, the last with nothing but pool6.
pub(super) fn stateless() -> Ruleset {
    let four = |prefixes: &[&str]| prefixes.iter().map(|p| p.parse().unwrap()).collect();
    let six = |prefixes: &[&str]| prefixes.iter().map(|p| p.parse().unwrap()).collect();
    let mut instances = vec![
        Stateless {
            label: "default".to_owned(),
            queues: only(6402),
            pool6: Some("64:ff9b::/96".parse().unwrap()),
            eam6: six(&["2001:db8:2::/64", "2001:db8:1::/120", "2001:db8:2:1::/64"]),
            eam4: four(&["198.51.100.0/25", "255.255.255.255", "198.51.100.128/25"]),
            deny4: four(&["203.0.113.128/25", "192.0.2.8/29"]),
        },
        Stateless {
            label: "second".to_owned(),
            queues: only(6404),
            pool6: None,
            eam6: six(&["ff00::/8"]),
            eam4: four(&["203.0.113.1"]),
            deny4: four(&["203.0.113.1"]),
        },
    ];
    instances.push(Stateless {
        label: "third".to_owned(),
        pool6: Some("64:ff9b:1::/48".parse().unwrap()),
        eam6: Vec::new(),
        eam4: Vec::new(),
        deny4: Vec::new(),
        ..instances[1].clone()
    });
    Ruleset {
        diverts: Vec::new(),
        stateless: instances,
        local4: four(&["224.0.0.0/4", "192.0.2.1", "192.0.2.255", "127.0.0.0/8"]),
        local6: vec![
            "64:ff9b::1".parse().unwrap(),
            "2001:db8:1::1".parse().unwrap(),
        ],
        kernel_errors: Some((6402, 2)),
        defragment: false,
        ..example()
    }
}

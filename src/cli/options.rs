// SPDX-License-Identifier: GPL-2.0-or-later
//! What each operation takes behind its words, as clap is told.
//!
//! Values stay texts here: the [grammar](super::grammar) reads them, with Jool's exit statuses.

use std::path::PathBuf;

use clap::{Arg, ArgAction, value_parser};

use super::keywords::Action;

/// The options and values of an operation.
pub(crate) fn options(action: Action) -> Vec<Arg> {
    let flag = |id: &'static str, short: Option<char>, about: &'static str| {
        let arg = Arg::new(id).long(id).help(about);
        arg.short(short).action(ArgAction::SetTrue)
    };
    let value = |id: &'static str, about: &'static str| {
        // Whatever follows is the value; its own check has the better error message.
        Arg::new(id).long(id).help(about).allow_hyphen_values(true)
    };
    let words = |max: usize, name: &'static str, about: &'static str| {
        let arg = Arg::new("words").value_name(name).help(about);
        if max == 1 {
            arg
        } else {
            arg.num_args(0..).action(ArgAction::Append)
        }
    };
    // The short form was clear before there was another word that begins like it.
    let csv = || flag("csv", None, "Print comma-separated values").alias("c");
    let no_headers = || flag("no-headers", None, "Leave the titles out");
    let count = || {
        let arg = flag("count", None, "Print how many there are");
        arg.conflicts_with_all(["csv", "no-headers"])
    };
    let json = || {
        flag(
            "json",
            None,
            "Print JSON, without names of hosts and services",
        )
    };
    // Those that lay tables out.
    let json_not_csv = || json().conflicts_with_all(["csv", "no-headers"]);
    let json_not_count = || json_not_csv().conflicts_with("count");
    let numeric = || {
        flag(
            "numeric",
            None,
            "Print numbers instead of names of hosts and services",
        )
    };
    let tcp = || {
        flag(
            "tcp",
            Some('t'),
            "TCP (where a default is allowed, this is it)",
        )
    };
    let udp = || flag("udp", Some('u'), "UDP");
    let icmp = || flag("icmp", Some('i'), "ICMP; ports are identifiers of pings");
    let quick = || flag("quick", Some('q'), "Leave the mappings that use it alone");
    let force = |about| flag("force", Some('f'), about);
    let mark = || value("mark", "The packet mark it is for (default 0)").value_name("N");
    match action {
        Action::GlobalDisplay => vec![json_not_csv(), csv(), no_headers()],
        Action::InstanceDisplay
        | Action::EamtDisplay
        | Action::Denylist4Display
        | Action::FmrtDisplay => {
            vec![count(), json_not_count(), csv(), no_headers()]
        }
        Action::InstanceAdd => vec![
            words(1, "NAME", "The instance's name (default 'default')"),
            flag(
                "netfilter",
                None,
                "Divert all matching traffic (the default)",
            ),
            flag(
                "iptables",
                None,
                "Divert what the administrator's rules say",
            ),
            value("pool6", "The IPv6 prefix that stands for the IPv4 Internet")
                .short('6')
                .value_name("PREFIX6"),
        ],
        Action::MaptAdd => vec![
            words(1, "NAME", "The instance's name (default 'default')"),
            flag(
                "netfilter",
                Some('n'),
                "Divert all matching traffic (the default)",
            ),
            flag(
                "iptables",
                Some('i'),
                "Divert what the administrator's rules say",
            ),
            value(
                "dmr",
                "The IPv6 prefix that stands for the IPv4 Internet (default mapping rule)",
            )
            .short('6')
            .value_name("PREFIX6"),
            value(
                "from-dhcp",
                "Be the customer edge that these DHCPv6 options (RFC 7598) describe: their bytes in \
                 hexadecimal, or a file with them",
            )
            .value_name("HEX|FILE"),
            value(
                "end-user-ipv6-prefix",
                "With --from-dhcp: the prefix of this customer, where the options hold none",
            )
            .value_name("PREFIX6"),
        ],
        Action::InstanceRemove => {
            vec![words(1, "NAME", "The instance's name (default 'default')")]
        }
        Action::InstanceFlush
        | Action::EamtFlush
        | Action::Denylist4Flush
        | Action::FmrtFlush
        | Action::SessionAdvertise => vec![],
        Action::SessionProxy => vec![
            words(
                2,
                "GROUP",
                "The multicast address; of several, the last counts",
            ),
            value(
                "net.mcast.port",
                "A port or the name of a service (default 6400)",
            )
            .short('p')
            .value_name("PORT"),
            value(
                "net.dev.in",
                "Where to listen (default: the kernel's choice)",
            )
            .short('i')
            .value_name("DEVICE"),
            value(
                "net.dev.out",
                "Where to send (default: the kernel's choice)",
            )
            .short('o')
            .value_name("DEVICE"),
            value("net.ttl", "Routers that may be passed (default 1)")
                .short('t')
                .value_name("N"),
            value(
                "net.format",
                "What peers read: 'a' for Jool before 4.1.12, 'b' for 4.1.12, 'c' since (default)",
            )
            .value_name("FORMAT"),
            value(
                "stats.address",
                "Address of a server of statistics (default ::)",
            )
            .value_name("ADDRESS"),
            value("stats.port", "Its port (default 6401)").value_name("PORT"),
        ],
        Action::InstanceStatus => vec![json()],
        Action::StatsDisplay => vec![
            flag("all", Some('a'), "Print zeroes, too"),
            flag("explain", Some('e'), "Say what each counter counts"),
            json_not_csv(),
            csv(),
            no_headers(),
        ],
        Action::GlobalUpdate => vec![
            words(4, "VALUE", "The new value"),
            force("Take values that look like mistakes, too"),
        ],
        Action::Pool4Display => vec![
            tcp(),
            udp(),
            icmp(),
            count(),
            json_not_count(),
            csv(),
            no_headers(),
        ],
        Action::Pool4Add => vec![
            words(2, "PREFIX4 PORTS", "Addresses, and their ports as N or N-M"),
            tcp(),
            udp(),
            icmp(),
            mark(),
            value(
                "max-iterations",
                "How many addresses to try: a number, auto or infinity",
            )
            .value_name("N"),
            force("Take entries that look like mistakes, too"),
        ],
        Action::Pool4Remove => vec![
            words(
                2,
                "PREFIX4 [PORTS]",
                "Addresses, and their ports (default: all)",
            ),
            tcp(),
            udp(),
            icmp(),
            mark(),
            quick(),
        ],
        Action::Pool4Flush => vec![quick()],
        Action::BibDisplay | Action::SessionDisplay => {
            vec![
                tcp(),
                udp(),
                icmp(),
                numeric(),
                count(),
                json_not_count(),
                csv(),
                no_headers(),
            ]
        }
        Action::SessionFollow => vec![
            flag(
                "events",
                None,
                "Begin lines with new, update or end, and print ends of sessions, too",
            ),
            flag("json", None, "Print JSON objects"),
        ],
        Action::BibAdd => vec![
            words(
                2,
                "ADDR6#PORT ADDR4#PORT",
                "The client, and what stands for it",
            ),
            tcp(),
            udp(),
            icmp(),
        ],
        Action::BibRemove => vec![
            words(
                2,
                "[ADDR6#PORT] [ADDR4#PORT]",
                "One side of the mapping, or both",
            ),
            tcp(),
            udp(),
            icmp(),
        ],
        Action::AddressQuery => vec![
            words(1, "ADDRESS", "An IPv4 or IPv6 address"),
            flag("verbose", Some('v'), "Say why this is the result"),
            json(),
        ],
        Action::EamtAdd => vec![
            words(2, "PREFIX6 PREFIX4", "The two sides of the mapping"),
            force("Take mappings that overlap others, too"),
        ],
        Action::EamtRemove => vec![words(
            2,
            "[PREFIX6] [PREFIX4]",
            "One side of the mapping, or both",
        )],
        Action::Denylist4Add => vec![
            words(1, "PREFIX4", "The addresses"),
            force("Take addresses that never leave their link, too"),
        ],
        Action::Denylist4Remove => vec![words(1, "PREFIX4", "The prefix, as it was added")],
        Action::FmrtAdd | Action::FmrtRemove => vec![words(
            4,
            "PREFIX6 PREFIX4 EA-BITS [OFFSET]",
            "A mapping rule: its prefixes, how many bits tell customers apart, and how many bits of \
             a port stand before the PSID (default 6)",
        )],
        Action::FileHandle | Action::FileCheck => vec![
            Arg::new("path")
                .value_name("PATH")
                .help("A JSON file")
                .value_parser(value_parser!(PathBuf)),
            force("Take values that look like mistakes, too"),
        ],
    }
}

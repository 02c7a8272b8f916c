// SPDX-License-Identifier: GPL-2.0-or-later
//! Prefixes, transport addresses, and addresses embedded in prefixes.
#![no_main]

use std::fmt::{Debug, Display};
use std::net::Ipv4Addr;
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use tylo::base::prefix::{Pool6, Prefix4, Prefix6};
use tylo::base::{Transport4, Transport6};

fuzz_target!(init: tylo_fuzz::plant(SEEDS), |data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    reads_back::<Prefix4>(text);
    reads_back::<Transport4>(text);
    reads_back::<Transport6>(text);
    let Some(prefix) = reads_back::<Prefix6>(text) else { return };
    assert!(prefix.contains(prefix.network()) && prefix.contains(prefix.last()));
    if let Ok(pool6) = Pool6::new(prefix) {
        for addr in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, Ipv4Addr::new(192, 0, 2, 33)] {
            let six = pool6.embed(addr);
            assert_eq!(pool6.extract(six), Some(addr), "{six}");
            // The bits 64 to 71 are only part of the prefix when it is longer than they are.
            assert!(prefix.prefix_len() == 96 || six.octets()[8] == 0);
        }
    }
    assert!(Pool6::strict(prefix).is_err() || Pool6::new(prefix).is_ok());
});

/// What is written is read as the same value.
fn reads_back<T: FromStr + Display + PartialEq + Debug>(text: &str) -> Option<T> {
    let value = text.parse::<T>().ok()?;
    assert_eq!(
        value.to_string().parse().ok().as_ref(),
        Some(&value),
        "{text}"
    );
    Some(value)
}

const SEEDS: &[&str] = &[
    "192.0.2.0/24",
    "203.0.113.7",
    "64:ff9b::/96",
    "2001:db8:1200::/40",
    "2001:db8::/32",
    "::ffff:0:0/96",
    "192.0.2.1#80",
    "2001:db8::1#65535",
    "1.2.3.4/33",
];

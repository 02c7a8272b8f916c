// SPDX-License-Identifier: GPL-2.0-or-later
//! DHCPv6 options about MAP-T, and what becomes of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tylo::model::dhcp;
use tylo::model::mapt::check_ce;

fuzz_target!(init: tylo_fuzz::plant(seeds()), |data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = dhcp::bytes(text);
    }
    let Ok(found) = dhcp::parse(data) else { return };
    match found.customer_edge(None, None) {
        Ok(edge) => assert!(check_ce(edge.bmr, edge.end_user).is_ok()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "005f 0030 0059 0017 01 0d 18 c0000200 33 20010db800ce00 005d 0004 00 05 d800 \
         005b 000d 60 0064ff9b0000000000000000 0011 0000 \
         0019 0029 00000001 00000e10 00001518 \
         001a 0019 00001c20 00002a30 40 20010db800ce011b0000000000000000",
        "005e 0000",
        "005b 0009 40 20010db8ffff0000",
    ];
    texts.iter().filter_map(|text| dhcp::bytes(text).ok()).collect()
}

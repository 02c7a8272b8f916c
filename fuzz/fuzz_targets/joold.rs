// SPDX-License-Identifier: GPL-2.0-or-later
//! Datagrams of other gateways; what is understood is merged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tylo::base::Tick;
use tylo::engine::Instance;
use tylo::model::Flavour;
use tylo::model::settings::Settings;
use tylo::nat64::merge::Order;
use tylo::replica::joold::wire;

fuzz_target!(init: tylo_fuzz::plant(SEEDS), |data: &[u8]| {
    let Ok(pool6) = "64:ff9b::/96".to_owned().try_into() else {
        return;
    };
    let mut sessions = Vec::new();
    let Ok(found) = wire::decode(pool6, data, &mut sessions) else {
        assert!(sessions.is_empty());
        return;
    };
    let mut again = Vec::new();
    for session in &sessions {
        wire::encode(found.format, pool6, session, &mut again);
    }
    let mut twice = Vec::new();
    if !sessions.is_empty() {
        assert!(wire::decode(pool6, &again, &mut twice).is_ok());
    }
    assert_eq!(twice, sessions);
    let mut instance = Instance::new(Flavour::Nat64, Settings::default(), [7; 16]);
    for (n, session) in sessions.iter().enumerate() {
        let order = match n % 2 {
            0 => Order::Unknown,
            _ => Order::Newer { linger: 0 },
        };
        instance.merge(Tick(n as u64), session, order);
    }
});

const SEEDS: &[&[u8]] = &[
    b"\x28\0\x01\0\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x08\xc0\0\x02\x01\xc0\0\x02\x08\
      \0\x6d\xd6\x18\x93\xf6\xf5\x55\x04\xd2\0\0",
    b"\x34\0\x01\0\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x08\0\x64\xff\x9b\0\0\0\0\0\0\0\0\
      \xc0\0\x02\x08\xc0\0\x02\x01\0\x6d\xd6\x18\x93\xf6\x04\xd2\xf5\x55\0\0",
    b"\x8c\0\x01\x80\x20\0\x01\x80\x14\0\x01\0\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x08\
      \x06\0\x02\0\xf6\x93\0\0\x20\0\x02\x80\x14\0\x01\0\0\x64\xff\x9b\0\0\0\0\0\0\0\0\
      \xc0\0\x02\x08\x06\0\x02\0\xd2\x04\0\0\x14\0\x03\x80\x08\0\x01\0\xc0\0\x02\x01\
      \x06\0\x02\0\x55\xf5\0\0\x14\0\x04\x80\x08\0\x01\0\xc0\0\x02\x08\x06\0\x02\0\
      \xd2\x04\0\0\x05\0\x05\0\0\0\0\0\x05\0\x06\0\0\0\0\0\x05\0\x07\0\0\0\0\0\
      \x08\0\x08\0\x18\xd6\x6d\0",
];

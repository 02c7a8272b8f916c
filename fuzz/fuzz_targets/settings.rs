// SPDX-License-Identifier: GPL-2.0-or-later
//! Values of settings as typed, and all settings as the database has them. The first byte chooses
//! the setting, the flavour and whether to insist.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tylo::model::Flavour;
use tylo::model::settings::{Setting, Settings, format_duration, parse_duration};

fuzz_target!(init: tylo_fuzz::plant(seeds()), |data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    if let Ok(settings) = serde_json::from_slice::<Settings>(rest) {
        let text = serde_json::to_vec(&settings).expect("settings can be written");
        assert_eq!(serde_json::from_slice::<Settings>(&text).ok(), Some(settings));
    }
    let Ok(text) = std::str::from_utf8(rest) else { return };
    if let Ok(ms) = parse_duration(text) {
        assert_eq!(parse_duration(&format_duration(ms)), Ok(ms));
    }
    let flavour = if choice & 0x40 == 0 { Flavour::Nat64 } else { Flavour::Siit };
    let force = choice & 0x80 != 0;
    let all = Setting::of(flavour).count();
    let Some(setting) = Setting::of(flavour).nth(usize::from(choice & 0x3f) % all) else { return };
    let Ok(value) = setting.parse(text) else { return };
    let mut settings = Settings::default();
    match settings.set(flavour, setting.key, value, force) {
        Ok(()) => {
            // Plateaus are sorted; what is shown is taken again and changes nothing.
            let shown = setting.value(&settings);
            let mut again = settings.clone();
            assert_eq!(again.set(flavour, setting.key, shown, force), Ok(()), "{}", setting.key);
            assert_eq!(again, settings);
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert_eq!(settings, Settings::default(), "{}", setting.key);
        }
    }
});

fn seeds() -> Vec<Vec<u8>> {
    let values = [
        "true",
        "off",
        "0",
        "1280",
        "4294967295",
        "2:00:00",
        "5.250",
        "1500,1492,68",
        "64:ff9b::/96",
        "null",
    ];
    let all = (0..=u8::MAX).filter(|choice| choice & 0x3f < 40);
    let mut seeds: Vec<Vec<u8>> = all
        .zip(values.iter().cycle())
        .map(|(n, value)| [&[n], value.as_bytes()].concat())
        .collect();
    let text = serde_json::to_vec(&Settings::default()).expect("settings can be written");
    seeds.push([&[0], &text[..]].concat());
    seeds
}

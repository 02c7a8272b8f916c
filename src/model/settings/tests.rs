// SPDX-License-Identifier: GPL-2.0-or-later
use std::collections::BTreeSet;

use super::table::SETTINGS;
use super::*;

#[test]
fn durations_are_read_and_written() {
    for (text, ms) in [
        ("0", 0),
        ("90", 90_000),
        ("5:00", 300_000),
        ("2:00:00", 7_200_000),
        ("0:00:01.500", 1_500),
        ("99:99", 99 * 60_000 + 99_000),
    ] {
        assert_eq!(parse_duration(text), Ok(ms), "{text}");
    }
    for text in [
        "",
        "soon",
        "1:",
        "1:2:3:4",
        "-1",
        "1.5",
        "1.1234",
        "99999999999999999999",
    ] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
    assert_eq!(format_duration(7_177_123), "1:59:37.123");
    assert_eq!(format_duration(300_000), "0:05:00");
}

#[test]
fn every_default_can_be_set_again() {
    for flavour in Flavour::ALL {
        let mut settings = Settings {
            pool6: Some("64:ff9b::/96".to_owned().try_into().unwrap()),
            ..Settings::default()
        };
        let before = settings.clone();
        for setting in Setting::known(flavour) {
            settings
                .set(flavour, setting.key, setting.value(&before), false)
                .unwrap();
        }
        assert_eq!(settings, before);
    }
}

#[test]
fn flavours_have_settings_of_their_own() {
    let mut settings = Settings::default();
    let mut set = |flavour, key, force| {
        let value = Setting::of(Flavour::Nat64)
            .chain(Setting::of(Flavour::Siit))
            .find(|setting| setting.key == key)
            .unwrap()
            .value(&Settings::default());
        settings.set(flavour, key, value, force)
    };
    let unknown = |key: &str| Err(SettingError::Unknown(key.to_owned()));
    assert_eq!(set(Flavour::Siit, "f-args", true), unknown("f-args"));
    assert_eq!(
        set(Flavour::Nat64, "eam-hairpin-mode", true),
        unknown("eam-hairpin-mode")
    );
    assert_eq!(set(Flavour::Siit, "pool6", false), Ok(()), "may be unset");
    assert_eq!(
        set(Flavour::Nat64, "pool6", true),
        Err(SettingError::Pool6Mandatory)
    );
}

#[test]
fn force_overrides_what_may_be_meant() {
    let mut settings = Settings::default();
    for (key, value) in [
        ("pool6", "2001:db8:0:0:ff00::/96"),
        ("rfc6791v4-prefix", "169.254.1.0/24"),
        ("rfc6791v4-prefix", "0.0.0.0/0"),
    ] {
        let value = Setting::find(Flavour::Siit, key).unwrap().parse(value);
        let mut set = |force| settings.set(Flavour::Siit, key, value.clone().unwrap(), force);
        assert!(set(false).is_err(), "{key}");
        assert_eq!(set(true), Ok(()), "{key}");
    }
}

//= rfc6146#section-4
//= type=test
#[test]
fn bad_values_change_nothing() {
    let mut settings = Settings::default();
    for (key, value) in [
        ("tos", Value::Number(256)),
        ("tos", Value::Bool(true)),
        ("f-args", Value::Number(16)),
        ("lowest-ipv6-mtu", Value::Number(1279)),
        ("udp-timeout", Value::Duration(60_000)),
        ("udp-timeout", Value::Duration((1 << 53) + 1)),
        ("mtu-plateaus", Value::Plateaus(vec![0])),
        ("pool6", Value::Prefix6(None)),
        ("nothing", Value::Bool(true)),
    ] {
        assert!(
            settings.set(Flavour::Nat64, key, value, false).is_err(),
            "{key}"
        );
    }
    assert_eq!(settings, Settings::default());
}

#[test]
fn plateaus_are_sorted_and_cleaned() {
    let mut settings = Settings::default();
    settings
        .set(
            Flavour::Nat64,
            "mtu-plateaus",
            Value::Plateaus(vec![100, 0, 1500, 600, 600]),
            false,
        )
        .unwrap();
    assert_eq!(settings.mtu_plateaus, [1500, 600, 100]);
}

#[test]
fn extensions_can_be_set_but_are_not_displayed() {
    let mut settings = Settings::default();
    for (key, text) in [
        ("maximum-sessions", "1000000"),
        ("maximum-sessions-per-prefix", "2000"),
        ("source-prefix-length", "56"),
        ("history-retention", "4320:00:00"),
        ("history-max-entries", "5000"),
    ] {
        let setting = Setting::find(Flavour::Nat64, key).unwrap();
        let value = setting.parse(text).unwrap();
        assert_eq!(settings.set(Flavour::Nat64, key, value, false), Ok(()));
        assert!(Setting::of(Flavour::Nat64).all(|s| s.key != key));
        assert!(Setting::find(Flavour::Siit, key).is_none());
    }
    assert_eq!(settings.maximum_sessions, 1_000_000);
    assert_eq!(settings.maximum_sessions_per_prefix, 2000);
    assert_eq!(settings.source_prefix_length, 56);
    assert_eq!(settings.history_retention, 180 * 24 * HOUR);
    assert_eq!(settings.history_max_entries, 5000);
    let too_long = Value::Number(129);
    let result = settings.set(Flavour::Nat64, "source-prefix-length", too_long, false);
    assert_eq!(result, Err(SettingError::Range("129".to_owned(), 0, 128)));
}

/// Somebody else may have written to the database.
#[test]
fn stored_settings_are_checked_like_typed_ones() {
    let read = |text: &str| serde_json::from_str::<Settings>(text);
    for text in [
        r#"{"source-prefix-length":129}"#,
        r#"{"lowest-ipv6-mtu":1279}"#,
        r#"{"udp-timeout":18446744073709551615}"#,
        r#"{"tcp-est-timeout":1}"#,
        r#"{"mtu-plateaus":[]}"#,
        r#"{"f-args":16}"#,
    ] {
        assert!(read(text).is_err(), "{text}");
    }
    let sorted = read(r#"{"mtu-plateaus":[576,0,1500]}"#).unwrap();
    assert_eq!(sorted.mtu_plateaus, [1500, 576]);
    let settings = Settings {
        pool6: Some("2001:db8:0:0:ff00::/96".to_owned().try_into().unwrap()),
        rfc6791v4_prefix: Some("127.0.0.0/8".parse().unwrap()),
        rfc6791v6_prefix: Some("2001:db8::/64".parse().unwrap()),
        eam_hairpin_mode: HairpinMode::Off,
        source_prefix_length: 128,
        ..Settings::default()
    };
    for settings in [Settings::default(), settings] {
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(read(&text).unwrap(), settings);
        let fields = text.matches("\":").count();
        // Some are there once more, for a flavour to which they are an extension.
        let keys: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.key).collect();
        assert_eq!(fields, keys.len(), "each field has a setting to check it");
    }
}

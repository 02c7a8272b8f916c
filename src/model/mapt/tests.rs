// SPDX-License-Identifier: GPL-2.0-or-later
use super::*;
use crate::model::Flavour;
use crate::model::settings::{Setting, SettingError, Settings, Value};

fn rule(text: &str) -> Result<MapRule, MapRuleError> {
    text.parse()
}

//= rfc7597#section-5.2
//= type=test
#[test]
fn rules_have_the_lengths_of_the_standard() {
    for (text, p, k, m, subnet) in [
        ("2001:db8::/40 192.0.2.0/24 16", 8, 8, 2, 0),
        ("2001:db8:ce::/51 192.0.2.0/24 13 0", 8, 5, 11, 0),
        ("2001:db8::/56 192.0.2.0/24 8", 8, 0, 10, 0),
        ("2001:db8::/64 192.0.2.0/28 1", 4, 0, 10, 3),
        ("2001:db8::/32 192.0.2.1 0 0", 0, 0, 16, 0),
        ("2001:db8::/32 0.0.0.0/0 48 0", 32, 16, 0, 0),
        ("2001:db8::/32 192.0.2.0/24 8 16", 8, 0, 0, 0),
    ] {
        let rule = rule(text).unwrap();
        assert_eq!(rule.suffix_len(), p, "{text}");
        assert_eq!(rule.psid_len(), k, "{text}");
        assert_eq!(rule.contiguous_len(), m, "{text}");
        assert_eq!(rule.subnet_len(), subnet, "{text}");
        let shown = rule.to_string();
        assert_eq!(shown.parse(), Ok(rule), "{shown}");
        let json = serde_json::to_string(&rule).unwrap();
        assert_eq!(serde_json::from_str::<MapRule>(&json).unwrap(), rule);
    }
}

#[test]
fn impossible_rules_show_the_arithmetic() {
    for (text, error) in [
        (
            "2001:db8::/40 192.0.2.0/24",
            "a mapping rule has 3 or 4 words: IPV6-PREFIX IPV4-PREFIX EA-BITS [PSID-OFFSET], for \
             example '2001:db8:ce::/51 192.0.2.0/24 13 0'; 2 were given",
        ),
        (
            "2001:db8::/40 192.0.2.0/24 +8",
            "'+8' is not a number of bits",
        ),
        (
            "2001:db8::1/40 192.0.2.0/24 8",
            "'2001:db8::1/40' has bits set behind its prefix length; did you mean '2001:db8::/40'?",
        ),
        (
            "2001:db8::/40 192.0.2.0/24 49",
            "the EA-bits length 49 is out of range (0-48)",
        ),
        (
            "2001:db8::/40 192.0.2.0/24 8 17",
            "the PSID offset 17 is out of range (0-16)",
        ),
        (
            "2001:db8::/120 192.0.2.0/24 16",
            "2001:db8::/120 leaves 8 bits, but 16 EA bits need 16; use a shorter IPv6 prefix or \
             fewer EA bits",
        ),
        (
            "2001:db8::/120 192.0.0.0/16 8",
            "2001:db8::/120 leaves 8 bits, but 8 EA bits and the 8 bits of 192.0.0.0/16 behind them \
             need 16; use a shorter IPv6 prefix or fewer EA bits",
        ),
        (
            "2001:db8::/40 192.0.2.0/24 20",
            "192.0.2.0/24 leaves 8 bits of an IPv4 address, so that 12 of the 20 EA bits are the \
             PSID; with the offset 6 that makes 18, more than the 16 bits of a port: use an offset \
             of at most 4 or fewer EA bits",
        ),
        (
            "2001:db8::/40 192.0.2.0/24 25 0",
            "192.0.2.0/24 leaves 8 bits of an IPv4 address, so that 17 of the 25 EA bits are the \
             PSID, more than the 16 bits of a port: use at most 24 EA bits",
        ),
    ] {
        assert_eq!(rule(text).unwrap_err().to_string(), error, "{text}");
    }
    let json = r#"{"v6":"2001:db8::/40","v4":"192.0.2.0/24","ea-bits":20,"psid-offset":6}"#;
    let error = serde_json::from_str::<MapRule>(json).unwrap_err();
    assert!(error.to_string().contains("that makes 18"), "{error}");
}

fn set(settings: &mut Settings, key: &str, text: &str) -> Result<(), SettingError> {
    let setting = Setting::find(Flavour::Mapt, key).unwrap();
    let value = setting.parse(text)?;
    settings.set(Flavour::Mapt, key, value, false)
}

#[test]
fn a_ce_is_known_by_its_prefix_and_rule() {
    let mut settings = Settings::default();
    let mut step = |key, text| {
        set(&mut settings, key, text).unwrap();
        let verdict = settings.check_mapt().map_err(|error| error.to_string());
        (settings.mapt_role(), verdict)
    };
    assert_eq!(
        step("end-user-ipv6-prefix", "2001:db8:ce:11b::/64"),
        (MaptType::Br, Ok(()))
    );
    assert_eq!(
        step("bmr", "2001:db8:ce::/51 192.0.2.0/24 13 0"),
        (MaptType::Ce, Ok(()))
    );
    let wrong = "the BMR's 2001:db8:ce::/51 has 51 bits, which with 12 EA bits makes 63, but the \
                 end-user prefix 2001:db8:ce:11b::/64 has 64; check which of the three is wrong";
    assert_eq!(
        step("bmr", "2001:db8:ce::/51 192.0.2.0/24 12 0"),
        (MaptType::Ce, Err(wrong.to_owned()))
    );
    let outside = "the end-user prefix 2001:db8:ce:11b::/64 is not inside 2001:db8:cf::/51, the \
                   BMR's; choose a BMR that it belongs to";
    assert_eq!(
        step("bmr", "2001:db8:cf::/51 192.0.2.0/24 13 0"),
        (MaptType::Ce, Err(outside.to_owned()))
    );
    assert_eq!(step("map-t-type", "BR"), (MaptType::Br, Ok(())));
    assert_eq!(step("bmr", "null"), (MaptType::Br, Ok(())));
    let (role, verdict) = step("map-t-type", "CE");
    assert_eq!(role, MaptType::Ce);
    assert!(
        verdict
            .unwrap_err()
            .starts_with("a CE needs a basic mapping rule")
    );
    assert_eq!(step("map-t-type", "null"), (MaptType::Br, Ok(())));
}

#[test]
fn words_of_the_settings() {
    let mut settings = Settings::default();
    for (key, text) in [("map-t-type", "ce"), ("bmr", "x"), ("mapt-napt", "maybe")] {
        assert!(set(&mut settings, key, text).is_err(), "{key} {text}");
    }
    assert_eq!(settings, Settings::default());
    let bmr = Setting::find(Flavour::Mapt, "bmr").unwrap();
    assert_eq!(bmr.parse("null"), Ok(Value::MapRule(None)));
    let keys: Vec<_> = Setting::of(Flavour::Mapt).map(|s| s.key).collect();
    assert_eq!(
        keys,
        [
            "manually-enabled",
            "pool6",
            "lowest-ipv6-mtu",
            "logging-debug",
            "zeroize-traffic-class",
            "override-tos",
            "tos",
            "mtu-plateaus",
            "rfc6791v6-prefix",
            "rfc6791v4-prefix",
            "map-t-type",
            "end-user-ipv6-prefix",
            "bmr",
        ]
    );
}

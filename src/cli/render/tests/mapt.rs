// SPDX-License-Identifier: GPL-2.0-or-later
//! What `jool_mapt` prints. There are no recordings of it; widths and titles are those of its
//! source.

use super::*;

//= jool#fmrt-display
//= type=test
#[test]
fn forwarding_rules_in_columns() {
    let rules = ["2001:db8:ce::/51 192.0.2.0/24 13 0", "::/0 0.0.0.0/0 32 16"];
    let rules = rules.map(|text| text.parse().unwrap());
    let replies = [Reply::Fmrt(rules.to_vec())];
    let t = Table::Fmrt;
    let line = "+---------------------------------------------+--------------------+----------------+----+\n";
    let titles = "|                                 IPv6 Prefix |        IPv4 Prefix | EA-bits Length |  a |\n";
    let rows = "|                           2001:db8:ce::/51  |       192.0.2.0/24 | 13             |  0 |\n\
                |                                      ::/0   |         0.0.0.0/0  | 32             | 16 |\n";
    assert_eq!(
        print(t, CONSOLE, &replies),
        format!("{line}{titles}{line}{rows}{line}")
    );
    assert_eq!(
        print(t, CSV, &replies),
        "IPv6 Prefix,IPv4 Prefix,EA-bits Length,a\n\
         2001:db8:ce::/51,192.0.2.0/24,13,0\n::/0,0.0.0.0/0,32,16\n"
    );
    assert_eq!(
        print(t, BARE_CSV, &replies),
        "2001:db8:ce::/51,192.0.2.0/24,13,0\n::/0,0.0.0.0/0,32,16\n"
    );
    let bare = Style {
        headers: false,
        ..CONSOLE
    };
    assert_eq!(print(t, bare, &replies), format!("{rows}{line}"));
    assert_eq!(
        print(t, CONSOLE, &[]),
        format!("{line}{titles}{line}{line}")
    );
}

#[test]
fn the_type_is_shown_as_it_is_in_force() {
    let t = Table::Settings(Flavour::Mapt);
    let shown = |settings: Settings| {
        let reply = [Reply::Settings(Box::new(settings))];
        (print(t, CONSOLE, &reply), print(t, CSV, &reply))
    };
    let (console, csv) = shown(Settings::default());
    assert!(
        console.ends_with("  map-t-type: BR\n  end-user-ipv6-prefix: (unset)\n  bmr: (unset)\n")
    );
    assert!(csv.ends_with("map-t-type,BR\nend-user-ipv6-prefix,\nbmr,\n"));
    let (console, csv) = shown(Settings {
        end_user_ipv6_prefix: Some("2001:db8:ce:11b::/64".parse().unwrap()),
        bmr: Some("2001:db8:ce::/51 192.0.2.0/24 13 0".parse().unwrap()),
        ..Settings::default()
    });
    assert!(console.ends_with(
        "  map-t-type: CE\n  end-user-ipv6-prefix: 2001:db8:ce:11b::/64\n  \
         bmr: 2001:db8:ce::/51 192.0.2.0/24 13 0\n"
    ));
    assert!(csv.ends_with(
        "map-t-type,CE\nend-user-ipv6-prefix,2001:db8:ce:11b::/64\n\
         bmr,2001:db8:ce::/51,192.0.2.0/24,13,0\n"
    ));
}

// SPDX-License-Identifier: GPL-2.0-or-later
//! The fuzz targets as tests of tylo, which includes this: what they start from does no harm, nor does
//! what is nearly that.

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

#[allow(unreachable_pub, clippy::duplicate_mod)] // it is a crate of its own as well
#[path = "lib.rs"]
mod tylo_fuzz;

/// How many inputs each target gets beside its seeds.
const CASES: u32 = 64;

pub(super) fn try_out<T: AsRef<[u8]>>(seeds: &[T], target: fn(&[u8])) {
    for seed in seeds {
        target(seed.as_ref());
    }
    let bends = prop::collection::vec((any::<Index>(), any::<u8>()), 0..6);
    let input = (any::<Index>(), bends, any::<Option<Index>>());
    let mut runner = TestRunner::new(Config::with_cases(CASES));
    let result = runner.run(&input, |(seed, bends, cut)| {
        let mut data = seed.get(seeds).as_ref().to_vec();
        for (at, byte) in bends {
            if !data.is_empty() {
                let at = at.index(data.len());
                data[at] = byte;
            }
        }
        data.truncate(cut.map_or(data.len(), |cut| cut.index(data.len() + 1)));
        target(&data);
        Ok(())
    });
    assert!(result.is_ok(), "{result:?}");
}

macro_rules! targets {
    ($($name:ident: $file:literal;)*) => {
        $(
            #[allow(unused_attributes)] // that it has no main function
            #[path = $file]
            mod $name;
        )*

        const TARGETS: &[&str] = &[$($file),*];
    };
}

targets! {
    command_line: "../fuzz_targets/command_line.rs";
    config_files: "../fuzz_targets/config_files.rs";
    control_line: "../fuzz_targets/control_line.rs";
    database: "../fuzz_targets/database.rs";
    dhcp_options: "../fuzz_targets/dhcp_options.rs";
    joold: "../fuzz_targets/joold.rs";
    netlink_answers: "../fuzz_targets/netlink_answers.rs";
    packet4: "../fuzz_targets/packet4.rs";
    packet6: "../fuzz_targets/packet6.rs";
    peer: "../fuzz_targets/peer.rs";
    prefixes: "../fuzz_targets/prefixes.rs";
    queue_message: "../fuzz_targets/queue_message.rs";
    reply: "../fuzz_targets/reply.rs";
    settings: "../fuzz_targets/settings.rs";
    tun_frame: "../fuzz_targets/tun_frame.rs";
}

/// Stands for the macro of libFuzzer.
#[macro_export]
macro_rules! fuzz_target {
    (init: tylo_fuzz::plant($seeds:expr), |$data:ident: &[u8]| $body:block) => {
        #[allow(unused_imports)]
        use $crate::fuzz_targets::tylo_fuzz;

        fn target($data: &[u8]) $body

        #[test]
        fn seeds_and_what_is_nearly_one_do_no_harm() {
            let seeds = Vec::from_iter($seeds);
            $crate::fuzz_targets::try_out(&seeds, target);
        }
    };
}

/// Every target is here and in the manifest that they are built by.
#[test]
fn no_target_is_left_out() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz");
    let manifest = std::fs::read_to_string(format!("{root}/Cargo.toml")).unwrap();
    let files = std::fs::read_dir(format!("{root}/fuzz_targets")).unwrap();
    for file in files {
        let path = format!(
            "fuzz_targets/{}",
            file.unwrap().file_name().into_string().unwrap()
        );
        assert!(
            TARGETS.contains(&format!("../{path}").as_str()),
            "{path}: not a test"
        );
        assert!(
            manifest.contains(&format!("path = \"{path}\"")),
            "{path}: not built"
        );
    }
}

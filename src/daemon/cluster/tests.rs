// SPDX-License-Identifier: GPL-2.0-or-later
//! The file that makes a gateway a node again.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::model::cluster::{Reach, Secret};

#[test]
fn the_file_is_replaced_whole_and_nobody_else_may_read_it() {
    let dir = std::env::temp_dir().join(format!("tylo-cluster-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let file = dir.join(FILE);
    assert_eq!(read(&file), Ok(None));
    let mut config = ClusterConfig {
        node: 4,
        keys: vec![Secret {
            number: 9,
            bytes: [0xab; 32],
        }],
        reach: Reach::Peers {
            bind: "10.0.0.4:6465".parse().unwrap(),
            peers: vec!["10.0.0.5:6465".parse().unwrap()],
        },
        share: ShareMode::Auto,
    };
    for node in [4, 5] {
        config.node = node;
        // What a killed writer left does not matter, whoever may read it.
        fs::write(file.with_extension("new"), "half").unwrap();
        write(&file, &config).unwrap();
        assert_eq!(read(&file), Ok(Some(config.clone())));
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    // No error shows a key.
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("abab", "axab")).unwrap();
    let error = read(&file).unwrap_err();
    assert!(!error.contains("ab"), "{error}");
    config.node = 0;
    write(&file, &config).unwrap();
    assert!(read(&file).unwrap_err().contains("1 to 65535"));
    fs::remove_dir_all(&dir).unwrap();
}

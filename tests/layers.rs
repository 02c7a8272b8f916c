// SPDX-License-Identifier: GPL-2.0-or-later
//! The house rules, kept by reading the code: imports go down only, nothing below the purity line
//! touches the system, no file grows beyond what one can read.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms by floor. Those of floor 5 are strangers to each other, and so are the pairs in
/// [`STRANGERS`].
const FLOORS: &[(&str, u8)] = &[
    ("base", 0),
    ("model", 0),
    ("wire", 1),
    ("map", 2),
    ("nat64", 2),
    ("xlat", 3),
    ("engine", 4),
    ("dataplane", 5),
    ("ruleset", 5),
    ("store", 5),
    ("replica", 5),
    ("control", 5),
    ("metrics", 5),
    ("daemon", 6),
    ("cli", 6),
];

/// Rooms of one floor that may not import each other, in either direction.
const STRANGERS: &[(&str, &str)] = &[
    ("daemon", "cli"),
    ("cli", "daemon"),
    ("map", "nat64"),
    ("nat64", "map"),
];

/// The highest floor below the purity line.
const PURE: u8 = 4;

/// What must not occur below the purity line: crates of the system, clocks, threads, files.
///
/// Atomics of `core` may: they allow several threads to look, but start none, wait for none and
/// leave it to the floors above which there are.
const IMPURE: &[&str] = &[
    "crossbeam_utils::sync",
    "crossbeam_utils::thread",
    "hyper",
    "libc",
    "mnl",
    "nfq",
    "nftnl",
    "rtnetlink",
    "rusqlite",
    "rustix",
    "sd_notify",
    "socket2",
    "tokio",
    "tracing",
    "std::env",
    "std::fs",
    "std::os",
    "std::process",
    "std::sync",
    "std::thread",
    "std::time",
    "Instant::now",
    "SystemTime",
];

const LINES: usize = 600;

#[test]
fn imports_go_down_only() {
    let floors: BTreeMap<_, _> = FLOORS.iter().copied().collect();
    let mut bad = Vec::new();
    for (path, text) in sources() {
        let Some(room) = room(&path) else { continue };
        let floor = floors.get(room.as_str());
        let Some(floor) = floor else {
            bad.push(format!("{}: '{room}' is on no floor", path.display()));
            continue;
        };
        for (line, other) in mentions(&text) {
            let Some(theirs) = floors.get(other.as_str()) else {
                continue;
            };
            let stranger = *floor == 5 || STRANGERS.contains(&(&room, &other));
            if other != room && (theirs > floor || (theirs == floor && stranger)) {
                bad.push(format!("{}:{line}: {room} imports {other}", path.display()));
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn below_the_purity_line_there_is_no_system() {
    let floors: BTreeMap<_, _> = FLOORS.iter().copied().collect();
    let mut bad = Vec::new();
    for (path, text) in sources() {
        let pure = room(&path).is_some_and(|room| floors.get(room.as_str()) <= Some(&PURE));
        if !pure {
            continue;
        }
        for (number, line) in code_lines(&text) {
            if line.contains("unsafe") {
                bad.push(format!("{}:{number}: unsafe", path.display()));
            }
            for word in IMPURE.iter().filter(|word| has_word(line, word)) {
                bad.push(format!("{}:{number}: {word}", path.display()));
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn files_can_be_read_in_one_go() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = sources();
    files.extend(rust_files(&root.join("tests")));
    files.extend(rust_files(&root.join("benches")));
    let long: Vec<_> = files
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES)
        .collect();
    assert!(long.is_empty(), "more than {LINES} lines: {long:?}");
}

/// A file that nobody declares is not compiled, and its tests pass unseen.
#[test]
fn every_file_is_declared() {
    let all: BTreeMap<_, _> = sources().into_iter().collect();
    let mut bad = Vec::new();
    for path in all.keys() {
        let (mut folder, mut name) = (path.parent().unwrap(), path.file_stem().unwrap());
        if name == "mod" {
            (folder, name) = (folder.parent().unwrap(), folder.file_name().unwrap());
        }
        let above = ["mod.rs", "lib.rs"].map(|file| folder.join(file));
        let mut above = above.into_iter().chain([folder.with_extension("rs")]);
        let line = format!("mod {};", name.to_str().unwrap());
        let declares = |path: PathBuf| {
            let mut lines = all.get(&path).into_iter().flat_map(|text| text.lines());
            lines.any(|l| l.trim_start().trim_start_matches("pub ").ends_with(&line))
        };
        if !["lib", "main"].contains(&name.to_str().unwrap()) && !above.any(declares) {
            bad.push(path.display().to_string());
        }
    }
    assert!(bad.is_empty(), "not compiled: {}", bad.join(", "));
}

#[test]
fn every_file_names_its_licence() {
    let bad: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("// SPDX-License-Identifier: GPL-2.0-or-later\n"))
        .map(|(path, _)| path)
        .collect();
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
fn the_reader_of_imports_is_not_blind() {
    let text = "use crate::store::{Store, journal};\n\
                use crate::{cli, engine::Instance};\n\
                // use crate::daemon;\n\
                fn f() { crate::wire::checksum::f() }\n";
    let found: Vec<_> = mentions(text).into_iter().map(|(_, room)| room).collect();
    assert_eq!(found, ["store", "cli", "engine", "wire"]);
    assert!(has_word("use std::time::Duration;", "std::time"));
    assert!(!has_word("let libcurl = 1;", "libc"));
}

/// The rooms that a text mentions by `crate::room` or `crate::{room, …}`, with line numbers.
fn mentions(text: &str) -> Vec<(usize, String)> {
    let word = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let mut found = Vec::new();
    for (number, line) in code_lines(text) {
        for (at, marker) in line.match_indices("crate::") {
            let rest = &line[at + marker.len()..];
            match rest.strip_prefix('{') {
                None => found.push((number, word(rest))),
                Some(list) => {
                    let mut depth = 0;
                    let mut start = true;
                    for (i, c) in list.char_indices() {
                        if start && !c.is_whitespace() {
                            found.push((number, word(&list[i..])));
                            start = false;
                        }
                        match c {
                            '{' => depth += 1,
                            '}' if depth == 0 => break,
                            '}' => depth -= 1,
                            ',' if depth == 0 => start = true,
                            _ => {}
                        }
                    }
                }
            }
        }
    }
    found
}

/// Lines with their numbers, without comments.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default()))
}

fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(part)
            && !line[at + word.len()..].chars().next().is_some_and(part)
    })
}

/// The room a file is in; `lib.rs` and `main.rs` are in none.
fn room(path: &Path) -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let first = path.strip_prefix(root).ok()?.components().next()?;
    let name = first.as_os_str().to_str()?.trim_end_matches(".rs");
    (name != "lib" && name != "main").then(|| name.to_owned())
}

fn sources() -> Vec<(PathBuf, String)> {
    let files = rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(files.len() > 20, "the sources were not found");
    files
}

fn rust_files(folder: &Path) -> Vec<(PathBuf, String)> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).expect("sources are UTF-8");
            files.push((path, text));
        }
    }
    files
}

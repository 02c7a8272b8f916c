// SPDX-License-Identifier: GPL-2.0-or-later
//! The words before the options: mode, operation and key of a setting.
//!
//! One table says which words there are, for whom and what they do; help and error messages are
//! made from it, too. A word may be abbreviated: an exact match wins, otherwise the one word that
//! begins with what was typed. What follows the words is the [grammar](super::grammar)'s business.

use crate::model::Flavour;
use crate::model::settings::Setting;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    InstanceDisplay,
    InstanceAdd,
    InstanceRemove,
    InstanceFlush,
    InstanceStatus,
    StatsDisplay,
    GlobalDisplay,
    GlobalUpdate,
    Pool4Display,
    Pool4Add,
    Pool4Remove,
    Pool4Flush,
    BibDisplay,
    BibAdd,
    BibRemove,
    SessionDisplay,
}

/// A mode: the first word.
#[derive(Debug)]
pub(crate) struct Mode {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Whose word it is; for others it does not exist.
    pub(crate) flavours: &'static [Flavour],
    /// Not listed, and never abbreviated.
    pub(crate) hidden: bool,
    pub(crate) operations: &'static [Operation],
}

/// An operation: the second word.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) action: Action,
}

impl Mode {
    /// The modes of one flavour, in the order of help and error messages.
    pub(crate) fn of(flavour: Flavour) -> impl Iterator<Item = &'static Self> + Clone {
        MODES.iter().filter(move |m| m.flavours.contains(&flavour))
    }
}

/// A word of the table.
pub(crate) trait Keyword {
    fn word(&self) -> &'static str;

    fn hidden(&self) -> bool {
        false
    }
}

impl Keyword for Mode {
    fn word(&self) -> &'static str {
        self.name
    }

    fn hidden(&self) -> bool {
        self.hidden
    }
}

impl Keyword for Operation {
    fn word(&self) -> &'static str {
        self.name
    }
}

impl Keyword for Setting {
    fn word(&self) -> &'static str {
        self.key
    }
}

/// Why a word was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WordError {
    #[error("'{token}' is not a word that can stand here; choose one of: {}", .options.join(" "))]
    Unexpected {
        token: String,
        options: Vec<&'static str>,
    },
    #[error("'{token}' is ambiguous; it may stand for: {}", .options.join(" "))]
    Ambiguous {
        token: String,
        options: Vec<&'static str>,
    },
    #[error("the command ends too early; continue with one of: {}", .options.join(" "))]
    Missing { options: Vec<&'static str> },
}

/// Finds the word that `token` stands for.
///
/// # Errors
/// No word, several words, or no token.
//= jool#keywords
pub(crate) fn resolve<'a, K: Keyword>(
    token: Option<&str>,
    mut all: impl Iterator<Item = &'a K> + Clone,
) -> Result<&'a K, WordError> {
    let visible = all.clone().filter(|k| !k.hidden());
    let Some(token) = token else {
        return Err(WordError::Missing {
            options: visible.map(Keyword::word).collect(),
        });
    };
    if let Some(exact) = all.find(|k| k.word() == token) {
        return Ok(exact);
    }
    let found: Vec<&K> = visible
        .clone()
        .filter(|k| k.word().starts_with(token))
        .collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(WordError::Unexpected {
            token: token.to_owned(),
            options: visible.map(Keyword::word).collect(),
        }),
        many => Err(WordError::Ambiguous {
            token: token.to_owned(),
            options: many.iter().map(|k| k.word()).collect(),
        }),
    }
}

macro_rules! operations {
    ($($name:literal $action:ident $about:literal)*) => {
        &[$(Operation { name: $name, about: $about, action: Action::$action }),*]
    };
}

const NAT64: &[Flavour] = &[Flavour::Nat64];
const EVERYBODY: &[Flavour] = NAT64;

static MODES: &[Mode] = &[
    Mode {
        name: "instance",
        about: "Translators: make them, list them, take them away",
        flavours: EVERYBODY,
        hidden: false,
        operations: operations! {
            "display" InstanceDisplay "List the instances"
            "add" InstanceAdd "Make an instance"
            "remove" InstanceRemove "Take an instance away, with all it has"
            "flush" InstanceFlush "Take every instance away"
            "status" InstanceStatus "Say whether an instance runs"
        },
    },
    Mode {
        name: "stats",
        about: "Counters",
        flavours: EVERYBODY,
        hidden: false,
        operations: operations! {
            "display" StatsDisplay "Print the counters that are not zero"
        },
    },
    Mode {
        name: "global",
        about: "Settings of an instance",
        flavours: EVERYBODY,
        hidden: false,
        operations: operations! {
            "display" GlobalDisplay "Print the settings"
            "update" GlobalUpdate "Change a setting"
        },
    },
    Mode {
        name: "pool4",
        about: "IPv4 transport addresses that stand for IPv6 clients",
        flavours: NAT64,
        hidden: false,
        operations: operations! {
            "display" Pool4Display "List the entries of a protocol"
            "add" Pool4Add "Add an entry"
            "remove" Pool4Remove "Remove an entry and the mappings that use it"
            "flush" Pool4Flush "Remove every entry, and every mapping"
        },
    },
    Mode {
        name: "bib",
        about: "Mappings between IPv6 and IPv4 transport addresses",
        flavours: NAT64,
        hidden: false,
        operations: operations! {
            "display" BibDisplay "List the mappings of a protocol"
            "add" BibAdd "Add a static mapping"
            "remove" BibRemove "Remove a mapping and its sessions"
        },
    },
    Mode {
        name: "session",
        about: "Connections in progress",
        flavours: NAT64,
        hidden: false,
        operations: operations! {
            "display" SessionDisplay "List the sessions of a protocol"
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    struct Word(&'static str, bool);

    impl Keyword for Word {
        fn word(&self) -> &'static str {
            self.0
        }

        fn hidden(&self) -> bool {
            self.1
        }
    }

    const WORDS: &[Word] = &[
        Word("tos", false),
        Word("tcp-est", false),
        Word("tcp-trans", false),
        Word("tcp", false),
        Word("secret", true),
    ];

    fn find(token: &str) -> Result<&'static str, WordError> {
        resolve(Some(token), WORDS.iter()).map(|w| w.0)
    }

    //= jool#keywords
    //= type=test
    #[test]
    fn exact_words_win_then_unambiguous_prefixes() {
        assert_eq!(find("tcp"), Ok("tcp"));
        assert_eq!(find("to"), Ok("tos"));
        assert_eq!(find("tcp-t"), Ok("tcp-trans"));
        assert_eq!(
            find("tcp-"),
            Err(WordError::Ambiguous {
                token: "tcp-".to_owned(),
                options: vec!["tcp-est", "tcp-trans"],
            })
        );
        assert!(matches!(find(""), Err(WordError::Ambiguous { .. })));
        assert!(matches!(find("TOS"), Err(WordError::Unexpected { .. })));
        assert!(matches!(find("toss"), Err(WordError::Unexpected { .. })));
    }

    #[test]
    fn hidden_words_want_to_be_typed_in_full() {
        assert_eq!(find("secret"), Ok("secret"));
        let error = find("secre").unwrap_err();
        assert_eq!(
            error.to_string(),
            "'secre' is not a word that can stand here; choose one of: tos tcp-est tcp-trans tcp"
        );
    }

    #[test]
    fn a_missing_word_lists_what_could_follow() {
        let error = resolve(None, WORDS.iter()).map(|w| w.0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the command ends too early; continue with one of: tos tcp-est tcp-trans tcp"
        );
    }

    #[test]
    fn every_word_is_there_once() {
        let names: Vec<_> = Mode::of(Flavour::Nat64).map(|m| m.name).collect();
        assert_eq!(
            names,
            ["instance", "stats", "global", "pool4", "bib", "session"]
        );
        for mode in Mode::of(Flavour::Nat64) {
            for operation in mode.operations {
                let found = resolve(Some(operation.name), mode.operations.iter()).unwrap();
                assert_eq!(found.action, operation.action);
            }
        }
    }
}

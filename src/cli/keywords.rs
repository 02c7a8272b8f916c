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
    SessionFollow,
    SessionProxy,
    SessionAdvertise,
    AddressQuery,
    EamtDisplay,
    EamtAdd,
    EamtRemove,
    EamtFlush,
    Denylist4Display,
    Denylist4Add,
    Denylist4Remove,
    Denylist4Flush,
    MaptAdd,
    FmrtDisplay,
    FmrtAdd,
    FmrtRemove,
    FmrtFlush,
    FileHandle,
    FileCheck,
}

/// A mode: the first word.
#[derive(Debug)]
pub(crate) struct Mode {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Whose word it is; for others it does not exist.
    pub(crate) flavours: &'static [Flavour],
    /// The word that has taken its place. Such a mode works, with a warning.
    pub(crate) replaced_by: Option<&'static str>,
    /// Is not listed and cannot be abbreviated.
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
    //= jool#modes
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

    /// Jool's abbreviations keep their meaning.
    fn hidden(&self) -> bool {
        self.extension
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
const SIIT: &[Flavour] = &[Flavour::Siit];
const MAPT: &[Flavour] = &[Flavour::Mapt];
const NAT64_AND_SIIT: &[Flavour] = &[Flavour::Nat64, Flavour::Siit];
const EVERYBODY: &[Flavour] = &Flavour::ALL;

const INSTANCE: &str = "Translators: make them, list them, take them away";

const DENYLIST4: &[Operation] = operations! {
    "display" Denylist4Display "List the prefixes"
    "add" Denylist4Add "Add a prefix"
    "remove" Denylist4Remove "Remove a prefix"
    "flush" Denylist4Flush "Remove every prefix"
};

static MODES: &[Mode] = &[
    Mode {
        name: "instance",
        about: INSTANCE,
        flavours: MAPT,
        replaced_by: None,
        hidden: false,
        operations: operations! {
            "display" InstanceDisplay "List the instances"
            "add" MaptAdd "Make an instance"
            "remove" InstanceRemove "Take an instance away, with all it has"
            "flush" InstanceFlush "Take every instance away"
            "status" InstanceStatus "Say whether an instance runs"
        },
    },
    Mode {
        name: "instance",
        about: INSTANCE,
        flavours: NAT64_AND_SIIT,
        replaced_by: None,
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
        replaced_by: None,
        hidden: false,
        operations: operations! {
            "display" StatsDisplay "Print the counters that are not zero"
        },
    },
    Mode {
        name: "address",
        about: "How addresses are translated",
        flavours: SIIT,
        replaced_by: None,
        hidden: false,
        operations: operations! {
            "query" AddressQuery "Translate an address, as packets would have it"
        },
    },
    Mode {
        name: "global",
        about: "Settings of an instance",
        flavours: EVERYBODY,
        replaced_by: None,
        hidden: false,
        operations: operations! {
            "display" GlobalDisplay "Print the settings"
            "update" GlobalUpdate "Change a setting"
        },
    },
    Mode {
        name: "eamt",
        about: "Explicit mappings between IPv6 and IPv4 prefixes",
        flavours: SIIT,
        replaced_by: None,
        hidden: false,
        operations: operations! {
            "display" EamtDisplay "List the mappings"
            "add" EamtAdd "Add a mapping"
            "remove" EamtRemove "Remove a mapping"
            "flush" EamtFlush "Remove every mapping"
        },
    },
    Mode {
        name: "blacklist4",
        about: "The old name of denylist4",
        flavours: SIIT,
        replaced_by: Some("denylist4"),
        hidden: false,
        operations: DENYLIST4,
    },
    Mode {
        name: "denylist4",
        about: "IPv4 addresses that pool6 does not translate",
        flavours: SIIT,
        replaced_by: None,
        hidden: false,
        operations: DENYLIST4,
    },
    Mode {
        name: "pool4",
        about: "IPv4 transport addresses that stand for IPv6 clients",
        flavours: NAT64,
        replaced_by: None,
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
        replaced_by: None,
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
        replaced_by: None,
        hidden: false,
        operations: operations! {
            "display" SessionDisplay "List the sessions of a protocol"
            "follow" SessionFollow "Print sessions as they begin and change"
            "proxy" SessionProxy "Exchange sessions with other gateways"
            "advertise" SessionAdvertise "Tell other gateways about every session"
        },
    },
    Mode {
        name: "joold",
        about: "The old place of 'session advertise'",
        flavours: NAT64,
        replaced_by: Some("session"),
        hidden: true,
        operations: operations! {
            "advertise" SessionAdvertise "Tell other gateways about every session"
        },
    },
    Mode {
        name: "fmrt",
        about: "Rules for the addresses of other customers of the domain",
        flavours: MAPT,
        replaced_by: None,
        hidden: false,
        operations: operations! {
            "display" FmrtDisplay "List the rules"
            "add" FmrtAdd "Add a rule"
            "remove" FmrtRemove "Remove a rule"
            "flush" FmrtFlush "Remove every rule"
        },
    },
    Mode {
        name: "file",
        about: "The whole configuration of an instance in one file",
        flavours: EVERYBODY,
        replaced_by: None,
        hidden: false,
        operations: operations! {
            "handle" FileHandle "Make an instance be what a file says, or change nothing"
            "check" FileCheck "Say what 'handle' would say, and change nothing"
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

    fn words(flavour: Flavour) -> Vec<&'static str> {
        let shown = Mode::of(flavour).filter(|m| !m.hidden);
        shown.map(|m| m.name).collect()
    }

    //= jool#modes
    //= type=test
    #[test]
    fn every_flavour_has_its_words() {
        assert_eq!(
            words(Flavour::Nat64),
            [
                "instance", "stats", "global", "pool4", "bib", "session", "file"
            ]
        );
        assert_eq!(
            words(Flavour::Siit),
            [
                "instance",
                "stats",
                "address",
                "global",
                "eamt",
                "blacklist4",
                "denylist4",
                "file"
            ]
        );
        assert_eq!(
            words(Flavour::Mapt),
            ["instance", "stats", "global", "fmrt", "file"]
        );
    }

    #[test]
    fn every_operation_is_found_by_its_word() {
        for mode in EVERYBODY.iter().flat_map(|f| Mode::of(*f)) {
            for operation in mode.operations {
                let found = resolve(Some(operation.name), mode.operations.iter()).unwrap();
                assert_eq!(found.action, operation.action);
            }
        }
    }
}

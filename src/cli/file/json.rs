// SPDX-License-Identifier: GPL-2.0-or-later
//! JSON whose every value can still say where it stood.
//!
//! A [`Node`] is a slice of the file's text, so that its place is the place of the slice; lines
//! and keys are looked up only for an error message. Keys are the same in upper and lower case,
//! and `comment` is no key at all.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::super::values::{EXIT_INVALID, ValueError};
use crate::model::settings::SettingError;

/// What is wrong with a value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("this key is unknown here; choose one of: {}", .0.join(", "))]
    Unknown(Vec<&'static str>),
    #[error("this key stands here twice; keep one of them")]
    Twice,
    #[error("the key '{0}' is missing; add it")]
    Missing(&'static str),
    #[error("write {1} instead of {0}")]
    Type(String, &'static str),
    #[error("{0} cannot be read as {1}")]
    Unreadable(String, &'static str),
    #[error("{0} is not a whole number")]
    Fraction(String),
    #[error("'{0}' is none of: {1}")]
    Word(String, &'static str),
    #[error(transparent)]
    Value(#[from] ValueError),
}

impl Problem {
    /// The exit status of the command.
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::Value(error) => error.code(),
            Self::Unknown(_)
            | Self::Twice
            | Self::Missing(_)
            | Self::Type(..)
            | Self::Unreadable(..)
            | Self::Fraction(_)
            | Self::Word(..) => EXIT_INVALID,
        }
    }
}

/// A problem, and the value that has it.
#[derive(Debug)]
pub(super) struct Fault<'a> {
    node: Node<'a>,
    pub(super) problem: Problem,
}

/// Where a value stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// From 1.
    pub(crate) line: usize,
    /// Such as `eamt[3].ipv4 prefix`; empty for the root.
    pub(crate) key: String,
}

impl Span {
    /// The key as a message begins with it.
    pub(crate) fn label(&self) -> String {
        if self.key.is_empty() {
            String::new()
        } else {
            format!("{}: ", self.key)
        }
    }
}

/// A value in a text that is known to be JSON.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a>(&'a RawValue);

impl<'a> Node<'a> {
    /// Checks the syntax of all of `text`.
    pub(super) fn root(text: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(text).map(Self)
    }

    pub(super) fn fault(self, problem: impl Into<Problem>) -> Fault<'a> {
        Fault {
            node: self,
            problem: problem.into(),
        }
    }

    /// Makes an error about the meaning one about this value.
    pub(super) fn judge<T, E: Into<ValueError>>(
        self,
        result: Result<T, E>,
    ) -> Result<T, Fault<'a>> {
        result.map_err(|error| self.fault(error.into()))
    }

    /// The members of an object but for comments, with their keys as they are written.
    pub(super) fn entries(self) -> Result<Vec<(String, Self)>, Fault<'a>> {
        let members: Members<'a> = self.read("an object")?;
        let named = members.0.into_iter().filter(|(key, _)| !same(key, COMMENT));
        Ok(named.map(|(key, value)| (key, Self(value))).collect())
    }

    /// The members of an object that has no others than `keys`, in their order.
    pub(super) fn members<const N: usize>(
        self,
        keys: [&'static str; N],
    ) -> Result<[Option<Self>; N], Fault<'a>> {
        let mut found = [None; N];
        for (name, node) in self.entries()? {
            let known = keys
                .iter()
                .zip(&mut found)
                .find(|(key, _)| same(&name, key));
            match known {
                None => return Err(node.fault(Problem::Unknown(keys.to_vec()))),
                Some((_, Some(_))) => return Err(node.fault(Problem::Twice)),
                Some((_, place)) => *place = Some(node),
            }
        }
        Ok(found)
    }

    /// What stands behind `key`, a member of this object that must be there.
    pub(super) fn must(self, key: &'static str, member: Option<Self>) -> Result<Self, Fault<'a>> {
        member.ok_or_else(|| self.fault(Problem::Missing(key)))
    }

    pub(super) fn array(self) -> Result<impl Iterator<Item = Self>, Fault<'a>> {
        let items: Vec<&'a RawValue> = self.read("an array")?;
        Ok(items.into_iter().map(Self))
    }

    pub(super) fn text(self) -> Result<String, Fault<'a>> {
        self.read("a text")
    }

    pub(super) fn bool(self) -> Result<bool, Fault<'a>> {
        self.read("true or false")
    }

    /// A whole number up to `max`, which may be written like `1e3`.
    pub(super) fn number(self, max: u32) -> Result<u32, Fault<'a>> {
        let number: f64 = self.read("a number")?;
        if number.fract() != 0.0 {
            return Err(self.fault(Problem::Fraction(self.excerpt())));
        }
        if !(0.0..=f64::from(max)).contains(&number) {
            let error = SettingError::Range(self.excerpt(), 0, max.into());
            return Err(self.fault(ValueError::from(error)));
        }
        // Whole and in range, so nothing is lost.
        Ok(number as u32)
    }

    pub(super) fn is_null(self) -> bool {
        self.kind() == "null"
    }

    pub(super) fn is_text(self) -> bool {
        self.kind() == "a text"
    }

    fn read<T: Deserialize<'a>>(self, wanted: &'static str) -> Result<T, Fault<'a>> {
        if self.kind() != wanted {
            return Err(self.fault(Problem::Type(self.excerpt(), wanted)));
        }
        serde_json::from_str(self.0.get())
            .map_err(|_| self.fault(Problem::Unreadable(self.excerpt(), wanted)))
    }

    /// What the first character gives away.
    fn kind(self) -> &'static str {
        match self.0.get().as_bytes().first() {
            Some(b'{') => "an object",
            Some(b'[') => "an array",
            Some(b'"') => "a text",
            Some(b't' | b'f') => "true or false",
            Some(b'n') => "null",
            _ => "a number",
        }
    }

    /// The beginning of the value, for messages.
    fn excerpt(self) -> String {
        let line = self.0.get().lines().next().unwrap_or_default();
        let start: String = line.chars().take(EXCERPT).collect();
        if start.len() < self.0.get().len() {
            start + "..."
        } else {
            start
        }
    }

    fn addr(self) -> usize {
        self.0.get().as_ptr().addr()
    }

    fn holds(self, other: Self) -> bool {
        (self.addr()..self.addr() + self.0.get().len()).contains(&other.addr())
    }
}

impl Fault<'_> {
    /// Where in `text`, whose root is `root`, the value is.
    pub(super) fn span(&self, text: &str, root: Node<'_>) -> Span {
        let offset = self.node.addr().saturating_sub(text.as_ptr().addr());
        let (mut key, mut at) = (String::new(), root);
        while at.addr() != self.node.addr() {
            let step = if at.kind() == "an array" {
                let mut items = at.array().into_iter().flatten().enumerate();
                items
                    .find(|(_, node)| node.holds(self.node))
                    .map(|(n, node)| (format!("[{n}]"), node))
            } else {
                let mut members = at.entries().into_iter().flatten();
                members.find(|(_, node)| node.holds(self.node))
            };
            let Some((step, node)) = step else {
                break;
            };
            if !key.is_empty() && !step.starts_with('[') {
                key.push('.');
            }
            key.push_str(&step);
            at = node;
        }
        Span {
            line: line(text.as_bytes(), offset),
            key,
        }
    }
}

/// The line, from 1, of the byte at `offset`.
pub(super) fn line(text: &[u8], offset: usize) -> usize {
    1 + text.iter().take(offset).filter(|b| **b == b'\n').count()
}

/// Whether two keys are the same.
pub(super) fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

/// An object's members in their order, duplicates included.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Deserialize<'a> for Members<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collector;

        impl<'a> Visitor<'a> for Collector {
            type Value = Members<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collector)
    }
}

/// The key that is no key.
const COMMENT: &str = "comment";

/// How much of a value a message quotes, in characters.
const EXCERPT: usize = 40;

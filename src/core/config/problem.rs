//! The problems of a configuration: what, where, and their messages.

use std::fmt;

/// The fields of a request body that fusion sets itself.
pub const RESERVED_FIELDS: [&str; 3] = ["model", "messages", "stream"];

/// A part of the file that does not parse or validate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The dotted key at fault; empty if the text is not TOML.
    pub key: String,
    pub fault: Fault,
}

/// The kind of a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is not TOML; the reason in words.
    Syntax(String),
    NotUtf8,
    /// There is no such table or key.
    Unknown {
        /// `table`, `key` or `runtime`.
        what: &'static str,
        /// The nearest valid names; all valid names if none is near.
        valid: Vec<String>,
        /// Whether those names are near.
        near: bool,
    },
    /// The value names something that does not exist.
    NoSuch {
        /// `template`, `service` or `placeholder`.
        what: &'static str,
        name: String,
        /// As in [`Fault::Unknown`].
        valid: Vec<String>,
        near: bool,
    },
    /// A table lacks a required key.
    Missing {
        key: String,
    },
    /// The value has the wrong type or is out of range.
    Value {
        expected: String,
        found: String,
    },
    /// The key was renamed after version 2.0.
    Renamed {
        new: String,
    },
    /// fusion sets this itself.
    Reserved {
        /// Why, or what to set instead.
        reason: String,
    },
    /// The value is well formed, and not possible.
    Refused {
        /// Why, in words.
        reason: String,
    },
    /// Two servers are configured at one address.
    SameAddress {
        address: String,
        /// The other table with the address.
        other: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.fault.told_of(&self.key))
    }
}

impl Fault {
    /// Returns the message of the fault of `key`.
    pub(super) fn told_of(&self, key: &str) -> String {
        match self {
            Self::Syntax(message) => message.clone(),
            Self::NotUtf8 => "this is not UTF-8 text".to_owned(),
            Self::Unknown { what, valid, near: true } => {
                format!("unknown {what} `{key}`; did you mean `{}`?", valid.join("` or `"))
            }
            Self::Unknown { what, valid, near: false } => {
                format!("unknown {what} `{key}`; valid here: `{}`", valid.join("`, `"))
            }
            Self::NoSuch { what, name, valid, near } => {
                let names = valid.join(if *near { "` or `" } else { "`, `" });
                match (valid.is_empty(), near) {
                    (true, _) => format!("`{key}`: there is no {what} `{name}`"),
                    (_, true) => format!("`{key}`: there is no {what} `{name}`; did you mean `{names}`?"),
                    (_, false) => format!("`{key}`: there is no {what} `{name}`; valid here: `{names}`"),
                }
            }
            Self::Missing { key: missing } => format!("`{key}` has no `{missing}`"),
            Self::Refused { reason } => format!("`{key}`: {reason}"),
            Self::Value { expected, found } => format!("`{key}`: expected {expected}, found {found}"),
            Self::Renamed { new } => format!("`{key}` is now called `{new}`"),
            Self::Reserved { reason } => format!("`{key}` cannot be set: {reason}"),
            Self::SameAddress { address, other } => {
                format!("`{key}`: {address} is already the address of `[{other}]`")
            }
        }
    }
}

/// Returns line and column of a byte offset, both from 1, the column in characters.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let (text, offset) = match text.strip_prefix('\u{feff}') {
        Some(rest) => (rest, offset.saturating_sub('\u{feff}'.len_utf8())),
        None => (text, offset),
    };
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

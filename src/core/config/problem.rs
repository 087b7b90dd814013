//! What can be wrong in the file, and how it is told.

use std::fmt;

/// The fields of a request body that fusion sets itself.
pub const RESERVED_FIELDS: [&str; 3] = ["stream", "model", "messages"];

/// Something in the file that does not parse or validate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The dotted key that is meant; empty when the text is no TOML.
    pub key: String,
    /// What is wrong.
    pub fault: Fault,
}

/// What can be wrong in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is no TOML; why, in the parser's words.
    Syntax(String),
    /// It is no UTF-8.
    NotUtf8,
    /// There is no such table or key.
    Unknown {
        /// `table` or `key`.
        what: &'static str,
        /// The valid names that are nearest; all of them when none is near.
        valid: Vec<String>,
        /// Whether those names are near.
        near: bool,
    },
    /// The value has the wrong type or is out of range.
    Value {
        /// What it must be.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The key has another name since version 2.0.
    Renamed {
        /// The key that has taken its place.
        new: String,
    },
    /// fusion sets this field of a request itself.
    Reserved,
    /// Two servers cannot be at one address.
    SameAddress {
        /// The address.
        address: String,
        /// The table that has it too.
        other: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.fault.told_of(&self.key))
    }
}

impl Fault {
    /// The fault in words, as that of `key`.
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
            Self::Value { expected, found } => format!("`{key}`: expected {expected}, found {found}"),
            Self::Renamed { new } => format!("`{key}` is now called `{new}`"),
            Self::Reserved => {
                format!("`{key}` cannot be set: fusion sets `{}` itself", RESERVED_FIELDS.join("`, `"))
            }
            Self::SameAddress { address, other } => {
                format!("`{key}`: {address} is the address of `[{other}]` too")
            }
        }
    }
}

//! Why the configuration cannot be used, and why it was not changed.

use std::path::{Path, PathBuf};

use super::problem::{Fault, Problem};
use crate::core::files::FileError;

/// Returns the first problem and its place, for those who have one line.
fn first_problem(path: &Path, problems: &[Problem]) -> String {
    let path = path.display();
    let Some(first) = problems.first() else { return path.to_string() };
    let more = match problems.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    format!("{path}:{}:{}: {first}{more}", first.line, first.column)
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file does not parse or validate.
    #[error("{}", first_problem(path, problems))]
    Invalid {
        path: PathBuf,
        /// Never empty, in the order of the file.
        problems: Vec<Problem>,
    },
    /// The path is a directory or a device.
    #[error("{path} is not a file")]
    NotAFile { path: PathBuf },
    /// The file is too large to be a configuration.
    #[error("{path} has {size} bytes; a configuration has at most {limit}")]
    TooLarge { path: PathBuf, size: u64, limit: u64 },
    /// The file is a symbolic link to nothing.
    #[error("{path} is a link to {target}, which does not exist")]
    Dangling { path: PathBuf, target: PathBuf },
    /// Another user may change the file, or the directory in which it could be replaced.
    #[error(transparent)]
    OfOthers(FileError),
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    /// There is no file, and it cannot be created.
    #[error("cannot make {path}")]
    Create { path: PathBuf, source: FileError },
    /// The lock of the file cannot be used.
    #[error("cannot lock {path}")]
    Lock { path: PathBuf, source: FileError },
    /// Another command held the lock until the timeout.
    #[error("another fusion command is changing {path}")]
    Locked { path: PathBuf },
}

/// Why the file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The configuration has a table of that name.
    #[error("there is {what} {name} already")]
    Taken { what: &'static str, name: String },
    /// The file cannot be used as it is.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The text is not a dotted key.
    #[error("{text:?} is not a key of the configuration")]
    NotAKey { text: String },
    /// There is no such key, or the file would not be valid with the value.
    #[error("{}", fault.told_of(key))]
    Rejected { key: String, fault: Fault },
    /// The key names a whole table.
    #[error("`{key}` is a table, not a key")]
    IsATable { key: String },
    /// A parent of the key is not a table.
    #[error("`{key}` is within something that is not a table")]
    NotInATable { key: String },
    /// Another program has changed the file since it was read.
    #[error("{path} has been changed by another program")]
    Changed { path: PathBuf },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: FileError },
}

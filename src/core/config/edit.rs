//! Changes of the file: one key or the whole of it, checked before the file is replaced, one command at a time.

mod layout;
mod splice;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use toml_edit::Value;

use self::layout::Layout;
use super::key::KeyPath;
use super::parse;
use super::problem::{Fault, Problem};
use super::schema::Spelling;
use super::{ConfigError, file, template};
use crate::core::files::{self, FileError};
use crate::core::runtimes::Table;

/// Why the file was not changed. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file cannot be used as it is.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The text is no dotted key.
    #[error("{text:?} is not a key of the configuration")]
    NotAKey {
        /// The text.
        text: String,
    },
    /// There is no such key, or the file would not be valid with the value.
    #[error("{}", fault.told_of(key))]
    Rejected {
        /// The key that is meant.
        key: String,
        /// What is wrong, or would be.
        fault: Fault,
    },
    /// The key leads to a whole table.
    #[error("`{key}` is a table, not a key")]
    IsATable {
        /// The key.
        key: String,
    },
    /// The key leads through something that is not a table.
    #[error("`{key}` is within something that is not a table")]
    NotInATable {
        /// The key.
        key: String,
    },
    /// Somebody else has changed the file meanwhile.
    #[error("{path} was changed by somebody else meanwhile")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be replaced.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: FileError,
    },
}

/// Sets a key to a value that is written as on the command line: a text without quotes, anything else as in the file.
pub fn set(path: &Path, table: Table, key: &KeyPath, value: &str) -> Result<(), EditError> {
    let (spelling, expected) = key.value(table)?;
    let found = || Fault::Value { expected, found: format!("{value:?}") };
    let value = to_toml(spelling, value).ok_or_else(found).map_err(|fault| key.rejected(fault))?;
    let documented = |path: &[String]| template::documented(table, path);
    change(path, table, key, |text| splice::set(text, key.parts(), &value, key.table_length(), &documented))
}

/// Takes a key, a prompt or an alias out of the file, so that its default holds; false when it is not there.
pub fn unset(path: &Path, table: Table, key: &KeyPath) -> Result<bool, EditError> {
    let text = file::read_or_create(path, table)?;
    let is_there = Layout::of(&text).is_some_and(|layout| layout.has(key.parts()));
    match key.value(table) {
        Err(error @ EditError::IsATable { .. }) if key.parts().len() == 1 => return Err(error),
        Err(EditError::IsATable { .. }) | Ok(_) => {}
        // What is in the file without being valid can be taken out of it.
        Err(error) if !is_there => return Err(error),
        Err(_) => {}
    }
    if !is_there {
        // A file that does not parse holds nothing; that is worth being told.
        return change(path, table, key, |text| Some(text.to_owned())).map(|()| false);
    }
    let documented = |path: &[String]| template::documented(table, path);
    change(path, table, key, |text| splice::unset(text, key.parts(), &documented)).map(|()| true)
}

/// Replaces the file's text, if it still is `before`. The new text is valid: the caller has seen to that.
pub fn replace(path: &Path, before: &[u8], after: &str) -> Result<(), EditError> {
    let _lock = file::lock(path)?;
    if fs::read(path).ok().as_deref() != Some(before) {
        return Err(EditError::Changed { path: path.to_owned() });
    }
    write(path, after)
}

/// Puts the fresh file in place of whatever is there, of which a copy is kept; says where. `None` when there was
/// nothing, or the fresh file already.
pub fn reset(path: &Path, table: Table) -> Result<Option<PathBuf>, EditError> {
    let fresh = template::fresh(table);
    let old = file::source(path, table, u64::MAX)?;
    if old == fresh.as_bytes() {
        return Ok(None);
    }
    let _lock = file::lock(path)?;
    let old = file::read_bytes(path, u64::MAX)?;
    let mut number = 1;
    let backup = loop {
        let backup = path.with_extension(format!("toml.{number}.bak"));
        let made = files::create(&backup, &old);
        if made.map_err(|source| EditError::Write { path: backup.clone(), source })? {
            break backup;
        }
        number += 1;
    };
    write(path, &fresh).map(|()| Some(backup))
}

/// Changes the text under the lock, if the result is valid.
fn change(
    path: &Path,
    table: Table,
    key: &KeyPath,
    change: impl FnOnce(&str) -> Option<String>,
) -> Result<(), EditError> {
    file::read_or_create(path, table)?;
    let _lock = file::lock(path)?;
    let before = file::read(path)?;
    let problems = parse::parse(&before, table).1;
    let invalid = |problems| ConfigError::Invalid { path: path.to_owned(), problems };
    if problems.iter().any(|problem| matches!(problem.fault, Fault::Syntax(_))) {
        return Err(invalid(problems).into());
    }
    let after = change(&before).ok_or_else(|| EditError::NotInATable { key: key.to_string() })?;
    if let Some(Problem { key: at_fault, fault, .. }) = parse::parse(&after, table).1.into_iter().next() {
        // A problem that was there before is told with its place; one that the change would make has none yet.
        let own = key.to_string();
        let is_own =
            |key: &str| key.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let elsewhere: Vec<Problem> = problems.into_iter().filter(|problem| !is_own(&problem.key)).collect();
        return Err(if elsewhere.is_empty() {
            EditError::Rejected { key: at_fault, fault }
        } else {
            invalid(elsewhere).into()
        });
    }
    if after == before { Ok(()) } else { write(path, &after) }
}

/// Replaces the file, or that to which it links.
fn write(path: &Path, text: &str) -> Result<(), EditError> {
    let failed = |source| EditError::Write { path: path.to_owned(), source };
    let target =
        fs::canonicalize(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    files::replace_contents(&target, text.as_bytes()).map_err(failed)
}

/// The value as TOML; `None` when it is none.
fn to_toml(spelling: Spelling, value: &str) -> Option<String> {
    let as_text = || Some(Value::from(value).to_string());
    let as_toml = || value.trim().parse::<Value>().ok().map(|_| value.trim().to_owned());
    match spelling {
        Spelling::Toml => as_toml(),
        Spelling::TomlOrText => as_toml().or_else(as_text),
        Spelling::TextUnless(first) if value.trim_start().starts_with(first) => as_toml(),
        Spelling::Text | Spelling::TextUnless(_) => as_text(),
    }
}

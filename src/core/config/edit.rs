//! Changes one key, one table or the whole file: checks the new text before it replaces the file, one command at a
//! time.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json};
use toml::de::DeValue;
use toml_writer::ToTomlValue as _;

use super::error::{ConfigError, EditError};
use super::key::{KeyPath, ValueFacts};
use super::kind::Spelling;
use super::problem::{Fault, Problem};
use super::{file, parse, render, splice, values};
use crate::core::files;
use crate::core::order;
use crate::core::runtimes::Table;

/// Sets a key to a value written as on the command line: a string without quotes, any other value as in the file.
pub fn set(path: &Path, table: Table, key: &KeyPath, value: &str) -> Result<(), EditError> {
    let ValueFacts { spelling, expected, comment, .. } = key.value(table)?;
    let found = || Fault::Value { expected, found: format!("{value:?}") };
    let value = to_toml(spelling, value).ok_or_else(found).map_err(|fault| key.rejected(fault))?;
    change(path, table, key, &|text| {
        if !has_or_begins_table(text, key) {
            key.check_table(&parse::parse(text, table).0)?;
        }
        splice::set(text, key.parts(), &value, &comment, key.table_length()).ok_or_else(not_in_a_table(key))
    })
}

/// Returns whether the table of the key is there, or the key is the first that an instance or a template must have.
fn has_or_begins_table(text: &str, key: &KeyPath) -> bool {
    let first = key.parts().get(2).map(String::as_str);
    matches!(first, None | Some("template" | "start_command" | "command"))
        || splice::has(text, &key.parts()[..2])
}

fn not_in_a_table(key: &KeyPath) -> impl FnOnce() -> EditError {
    || EditError::NotInATable { key: key.to_string() }
}

/// A new instance of a template. Missing values have their defaults.
#[derive(Debug, Clone, Default)]
pub struct NewInstance {
    pub name: String,
    pub template: String,
    pub port: Option<u16>,
    pub model: Option<String>,
    pub working_dir: Option<String>,
    pub tags: Vec<String>,
    pub env: Vec<(String, String)>,
}

impl NewInstance {
    /// Returns the keys that are set, with their values.
    fn keys(&self) -> Vec<(&'static str, String)> {
        let text = |text: &String| Json::from(text.as_str());
        let keys = [
            ("template", Some(text(&self.template))),
            ("port", self.port.map(Json::from)),
            ("model", self.model.as_ref().map(text)),
            ("working_dir", self.working_dir.as_ref().map(text)),
            ("tags", (!self.tags.is_empty()).then(|| self.tags.as_slice().into())),
            ("env", (!self.env.is_empty()).then(|| order::object(self.env.iter().cloned()))),
        ];
        keys.into_iter().filter_map(|(key, value)| Some((key, values::to_toml(&value?)?))).collect()
    }
}

/// Appends the table of an instance. Writes nothing if there is one of that name, or if the result is not valid.
pub fn create(path: &Path, table: Table, instance: &NewInstance) -> Result<(), EditError> {
    append(path, table, &KeyPath::instance(&instance.name), "an instance", &instance.keys())
}

/// Appends the table of a template with the keys of a JSON object. Writes nothing if there is one of that name, or if
/// the result is not valid.
pub fn create_template(
    path: &Path,
    table: Table,
    name: &str,
    keys: &Map<String, Json>,
) -> Result<(), EditError> {
    let keys: Vec<_> =
        keys.iter().filter_map(|(key, value)| Some((key.as_str(), values::to_toml(value)?))).collect();
    append(path, table, &KeyPath::template(name), "a template", &keys)
}

/// Appends the table of `what`, an instance or a template.
fn append(
    path: &Path,
    table: Table,
    own: &KeyPath,
    what: &'static str,
    keys: &[(&str, String)],
) -> Result<(), EditError> {
    change(path, table, own, &|text| {
        if splice::has(text, own.parts()) {
            return Err(EditError::Taken { what, name: own.parts()[1].clone() });
        }
        let mut text = text.to_owned();
        for (key, value) in keys {
            let key_path = [own.parts(), &[(*key).to_owned()]].concat();
            text = splice::set(&text, &key_path, value, "", 2).ok_or_else(not_in_a_table(own))?;
        }
        Ok(text)
    })
}

/// Removes a key, a saved prompt or an alias from the file, which restores its default; returns false if it is not
/// there.
pub fn unset(path: &Path, table: Table, key: &KeyPath) -> Result<bool, EditError> {
    let text = file::read_or_create(path, table)?;
    let is_there = splice::has(&text, key.parts());
    match key.value(table) {
        Err(error @ EditError::IsATable { .. }) if key.parts().len() == 1 => return Err(error),
        Err(EditError::IsATable { .. }) | Ok(_) => {}
        // An invalid key can be removed, too.
        Err(error) if !is_there => return Err(error),
        Err(_) => {}
    }
    // A file that does not parse has no keys, which is an error here.
    let without = |text: &str| {
        let without = if is_there { splice::unset(text, key.parts()) } else { Some(text.to_owned()) };
        without.ok_or_else(not_in_a_table(key))
    };
    change(path, table, key, &without).map(|()| is_there)
}

/// Replaces the file's text if it is still `before`. The caller has checked the new text.
pub fn replace(path: &Path, before: &[u8], after: &str) -> Result<(), EditError> {
    let _lock = file::lock(path)?;
    if fs::read(path).ok().as_deref() != Some(before) {
        return Err(EditError::Changed { path: path.to_owned() });
    }
    write(path, after)
}

/// Replaces the file with a fresh one, and keeps a copy of the old file; returns the path of the copy. `None` if
/// there was no file, or it was fresh already.
pub fn reset(path: &Path, table: Table) -> Result<Option<PathBuf>, EditError> {
    let fresh = render::fresh(table);
    let old = file::source(path, table, u64::MAX)?;
    if old == fresh.as_bytes() {
        return Ok(None);
    }
    let _lock = file::lock(path)?;
    let old = file::read_bytes(path, u64::MAX)?;
    let backup = back_up(path, &old)?;
    write(path, &fresh).map(|()| Some(backup))
}

/// Writes `config.toml.bak`, or the first of `config.toml.bak.1`, ... that is free: no older copy is lost.
fn back_up(path: &Path, bytes: &[u8]) -> Result<PathBuf, EditError> {
    let mut backup = path.with_extension("toml.bak");
    for number in 1_u64.. {
        let made = files::create(&backup, bytes);
        if made.map_err(|source| EditError::Write { path: backup.clone(), source })? {
            break;
        }
        backup = path.with_extension(format!("toml.bak.{number}"));
    }
    Ok(backup)
}

/// Changes the text under the lock if the result is valid.
fn change(
    path: &Path,
    table: Table,
    key: &KeyPath,
    change: &dyn Fn(&str) -> Result<String, EditError>,
) -> Result<(), EditError> {
    file::read_or_create(path, table)?;
    let _lock = file::lock(path)?;
    let before = file::read(path)?;
    let problems = parse::parse(&before, table).1;
    let invalid = |problems| ConfigError::Invalid { path: path.to_owned(), problems };
    if problems.iter().any(|problem| matches!(problem.fault, Fault::Syntax(_))) {
        return Err(invalid(problems).into());
    }
    let after = change(&before)?;
    if let Some(Problem { key: at_fault, fault, .. }) = parse::parse(&after, table).1.into_iter().next() {
        // A problem of the present file is reported with its place; one that the change would cause has none yet.
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

/// Replaces the file, or the one to which it links.
fn write(path: &Path, text: &str) -> Result<(), EditError> {
    let failed = |source| EditError::Write { path: path.to_owned(), source };
    let target =
        fs::canonicalize(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    files::replace_contents(&target, text.as_bytes()).map_err(failed)
}

/// Returns the value as TOML; `None` if it is not TOML.
pub(super) fn to_toml(spelling: Spelling, value: &str) -> Option<String> {
    let as_text = || Some(value.to_toml_value());
    let as_toml = || DeValue::parse(value.trim()).ok().map(|_| value.trim().to_owned());
    match spelling {
        Spelling::Toml => as_toml(),
        Spelling::TomlOrText => as_toml().or_else(as_text),
        Spelling::TextUnless(first) if value.trim_start().starts_with(first) => as_toml(),
        Spelling::Text | Spelling::TextUnless(_) => as_text(),
    }
}

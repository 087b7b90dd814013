//! The typed, strict configuration: keys, defaults, and edits that keep comments.

mod addresses;
pub mod edit;
mod error;
mod file;
mod key;
mod keys;
mod kind;
mod parse;
mod problem;
mod render;
mod schema;
mod settings;
mod splice;
#[cfg(test)]
mod tests;
mod values;

use std::path::Path;

pub use self::addresses::Located;
pub use self::error::{ConfigError, EditError};
pub use self::key::KeyPath;
pub use self::problem::{Fault, Problem, RESERVED_FIELDS};
pub use self::schema::GATEWAY;
pub use self::settings::{
    Alias, Config, GatewaySettings, IdleStop, InstanceSettings, KeepAwake, Keyword, MemoryLimit,
    ModelSettings, Reasoning, RestartPolicy, RunSettings, SavedPrompt, ServerSettings, ServiceSettings,
    TemplateSettings,
};
pub use self::values::{MAX_SECONDS, parse_size};
use crate::core::runtimes::Table;

impl Config {
    /// Reads the file; creates it with its defaults on first use.
    pub fn load(path: &Path, table: Table) -> Result<Self, ConfigError> {
        let (config, error) = Self::load_sound(path, table);
        error.map_or(Ok(config), Err)
    }

    /// Like [`Config::load`]; if that fails, returns the error with the valid part of the file, and defaults for the
    /// rest: for commands that must work with any file.
    pub fn load_sound(path: &Path, table: Table) -> (Self, Option<ConfigError>) {
        let text = match file::read_or_create(path, table) {
            Ok(text) => text,
            Err(error) => return (Self::default_for(table), Some(error)),
        };
        let (config, problems) = Self::parse(&text, table);
        let error = (!problems.is_empty()).then(|| ConfigError::Invalid { path: path.to_owned(), problems });
        (config, error)
    }

    /// Returns the bytes of the file, valid or not, of any size. If the file cannot be created, returns the fresh
    /// content and the error.
    pub fn source(path: &Path, table: Table) -> Result<(Vec<u8>, Option<ConfigError>), ConfigError> {
        match file::source(path, table, u64::MAX) {
            Err(error @ ConfigError::Create { .. }) => Ok((render::fresh(table).into_bytes(), Some(error))),
            other => other.map(|bytes| (bytes, None)),
        }
    }

    /// Returns the text of a file with `********` in place of every secret.
    pub fn masked(text: &str) -> String {
        parse::masked(text)
    }

    /// Returns the content of the file, without defaults, as JSON. Secrets are masked.
    pub fn file_json(path: &Path, table: Table) -> Result<serde_json::Value, ConfigError> {
        let text = file::read_or_create(path, table)?;
        parse::into_json(&text, table)
            .map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })
    }

    /// Returns the bytes as text if they are a valid configuration; `path` is for the error only.
    pub fn validate(path: &Path, bytes: Vec<u8>, table: Table) -> Result<String, ConfigError> {
        let text = file::into_text(path, bytes)?;
        let problems = parse::parse(&text, table).1;
        if problems.is_empty() {
            Ok(text)
        } else {
            Err(ConfigError::Invalid { path: path.to_owned(), problems })
        }
    }

    /// Returns the configuration of a text, and its problems: keys with problems keep their defaults.
    pub fn parse(text: &str, table: Table) -> (Self, Vec<Problem>) {
        parse::parse(text, table)
    }

    /// Returns the effective value of a key as TOML, a string without quotes; `None` if the key is not set and has no
    /// default.
    pub fn value(&self, table: Table, key: &KeyPath) -> Result<Option<String>, EditError> {
        key.value(table)?;
        key.check_table(self)?;
        Ok(render::value_at(self, table, key).and_then(|value| match value {
            serde_json::Value::String(text) => Some(text),
            other => values::to_toml(&other),
        }))
    }

    /// Returns every key that a file with these saved prompts and aliases may have, dotted.
    pub fn keys(&self, table: Table) -> Vec<String> {
        render::keys(self, table)
    }

    /// Returns every key with its effective value, as TOML.
    pub fn effective_toml(&self, table: Table) -> String {
        render::effective_toml(self, table)
    }

    /// Returns every key with its effective value, as JSON; null if a key is not set and has no default.
    pub fn effective_json(&self, table: Table) -> serde_json::Value {
        render::effective_json(self, table)
    }
}

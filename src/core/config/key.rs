//! Dotted keys: how they are written, and which value belongs to each.

use toml_edit::Key;

use super::EditError;
use super::parse::{section, table_names, unknown, unknown_key, unknown_table};
use super::problem::Fault;
use super::schema::{self, PROMPT, Spelling};
use crate::core::runtimes::{self, Table};

/// A dotted key, of which parts may be quoted: `prompts."code review".model`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPath(Vec<String>);

impl std::str::FromStr for KeyPath {
    type Err = EditError;

    fn from_str(text: &str) -> Result<Self, EditError> {
        let parts = Key::parse(text).map_err(|_| EditError::NotAKey { text: text.to_owned() })?;
        Ok(Self(parts.iter().map(|part| part.get().to_owned()).collect()))
    }
}

impl std::fmt::Display for KeyPath {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&dotted(&self.0))
    }
}

impl KeyPath {
    /// The parts, unquoted.
    pub(super) fn parts(&self) -> &[String] {
        &self.0
    }

    /// How many parts name the table.
    pub(super) fn table_length(&self) -> usize {
        if self.0[0] == "prompts" { 2 } else { 1 }
    }

    pub(super) fn rejected(&self, fault: Fault) -> EditError {
        EditError::Rejected { key: self.to_string(), fault }
    }

    fn is_a_table(&self) -> EditError {
        EditError::IsATable { key: self.to_string() }
    }

    /// How the value is written on the command line, and what it must be.
    pub(super) fn value(&self, table: Table) -> Result<(Spelling, String), EditError> {
        let parts: Vec<&str> = self.0.iter().map(String::as_str).collect();
        match parts.as_slice() {
            [name] if table_names(table).iter().any(|known| known == name) => Err(self.is_a_table()),
            ["prompts", _] => Err(self.is_a_table()),
            ["aliases", _] => Ok((Spelling::TextUnless('{'), "a model name".to_owned())),
            ["aliases", _, runtime] if runtimes::find(table, runtime).is_some() => {
                Ok((Spelling::Text, "a model name".to_owned()))
            }
            ["aliases", _, runtime] => {
                let names = table.iter().map(|runtime| runtime.name().to_owned()).collect::<Vec<_>>();
                Err(self.rejected(unknown("runtime", &dotted(&self.0[..2]), runtime, &names)))
            }
            ["prompts", _, name, members @ ..] => self.value_of(table, PROMPT.iter(), name, members),
            [name, rest @ ..] => match (section(table, name), rest) {
                (Some((_, keys)), [key, members @ ..]) => self.value_of(table, keys, key, members),
                _ => Err(EditError::Rejected {
                    key: dotted(&self.0[..1]),
                    fault: unknown_table(table, name, !rest.is_empty()),
                }),
            },
            [] => Err(EditError::NotAKey { text: String::new() }),
        }
    }

    fn value_of<T: 'static>(
        &self,
        table: Table,
        keys: impl IntoIterator<Item = &'static schema::Key<T>>,
        name: &str,
        members: &[&str],
    ) -> Result<(Spelling, String), EditError> {
        let keys: Vec<_> = keys.into_iter().collect();
        let Some(key) = keys.iter().find(|key| key.name == name) else {
            let path = dotted(&self.0[..self.table_length()]);
            return Err(self.rejected(unknown_key(table, &path, name, &keys)));
        };
        if members.is_empty() {
            return Ok((key.kind.spelling(), key.kind.expected()));
        }
        let not_in_a_table = || EditError::NotInATable { key: self.to_string() };
        let spelling = key.kind.member_spelling().ok_or_else(not_in_a_table)?;
        Ok((spelling, "a value".to_owned()))
    }
}

/// The dotted key, each part quoted where TOML needs it.
pub(super) fn dotted(path: &[String]) -> String {
    path.iter().map(|name| Key::new(name).display_repr().into_owned()).collect::<Vec<_>>().join(".")
}

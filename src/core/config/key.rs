//! Dotted keys: how they are written, and the type of each one's value.

use toml::de::DeValue;
use toml_parser::parser::{Event, EventKind, parse_key};
use toml_parser::{ParseError, Source};
use toml_writer::ToTomlKey;

use super::error::EditError;
use super::keys;
use super::kind::{KeyFacts, Spelling, facts};
use super::parse::{
    no_such, other_table, other_table_of_instance, unknown_key, unknown_runtime, unknown_table,
};
use super::problem::Fault;
use super::schema::{self, ALIASES, GATEWAY, INSTANCES, MODELS, PROMPTS, RUN, TEMPLATES};
use super::settings::Config;
use crate::core::runtimes::{self, Runtime, Table};

/// A dotted key, whose parts may be quoted: `prompts."code review".model`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPath(Vec<String>);

impl std::str::FromStr for KeyPath {
    type Err = EditError;

    fn from_str(text: &str) -> Result<Self, EditError> {
        let (source, mut errors, mut parts) = (Source::new(text), Vec::<ParseError>::new(), Vec::new());
        let mut faults = Vec::new();
        let mut receive = |event: Event| {
            if event.kind() == EventKind::SimpleKey {
                parts.push(decoded(source, &event, &mut faults));
            }
        };
        parse_key(&source.lex().into_vec(), &mut receive, &mut errors);
        if errors.is_empty() && faults.is_empty() {
            Ok(Self(parts))
        } else {
            Err(EditError::NotAKey { text: text.to_owned() })
        }
    }
}

impl std::fmt::Display for KeyPath {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&dotted(&self.0))
    }
}

impl KeyPath {
    /// Returns the key of the table of an instance.
    pub fn instance(name: &str) -> Self {
        Self(vec![INSTANCES.to_owned(), name.to_owned()])
    }

    /// Returns the key of the table of a template.
    pub fn template(name: &str) -> Self {
        Self(vec![TEMPLATES.to_owned(), name.to_owned()])
    }

    /// Returns the parts, unquoted.
    pub(super) fn parts(&self) -> &[String] {
        &self.0
    }

    /// Returns the number of parts that name the table.
    pub(super) fn table_length(&self) -> usize {
        match self.0.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [INSTANCES, _, RUN, _, ..] => 3,
            [PROMPTS | TEMPLATES | INSTANCES | MODELS, ..] => 2,
            [name] if keys::TOP.iter().any(|key| key.facts.name == *name) => 0,
            _ => 1,
        }
    }

    /// Returns whether its value is the name of a model.
    pub fn is_model(&self) -> bool {
        self.0.len() == self.table_length() + 1 && self.0.last().is_some_and(|name| name == "model")
    }

    /// Returns the instance whose port it is.
    pub fn instance_of_port(&self) -> Option<&str> {
        match self.0.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [INSTANCES, name, "port"] => Some(name),
            _ => None,
        }
    }

    /// Returns the runtime whose tables contain it.
    pub fn runtime(&self, table: Table) -> Option<&'static dyn Runtime> {
        schema::section(table, &self.0[0]).map(|(runtime, _)| runtime)
    }

    /// Returns a valid example as on the command line; `None` if none is known.
    pub fn example(&self, table: Table) -> Option<String> {
        let ValueFacts { spelling, example, .. } = self.value(table).ok()?;
        let text = DeValue::parse(example).ok()?.get_ref().as_str().map(str::to_owned);
        text.filter(|_| spelling != Spelling::Toml).or_else(|| Some(example.to_owned()))
    }

    pub(super) fn rejected(&self, fault: Fault) -> EditError {
        EditError::Rejected { key: self.to_string(), fault }
    }

    /// Fails if it is a key of an instance or a template that the configuration does not have.
    pub(super) fn check_table(&self, config: &Config) -> Result<(), EditError> {
        let [kind, name, ..] = self.0.as_slice() else { return Ok(()) };
        let (what, names): (_, Vec<String>) = match kind.as_str() {
            INSTANCES => ("instance", config.instances.iter().map(|(name, _)| name.to_string()).collect()),
            TEMPLATES => ("template", config.templates.iter().map(|one| one.name.to_string()).collect()),
            _ => return Ok(()),
        };
        if names.contains(name) { Ok(()) } else { Err(self.rejected(no_such(what, name, names))) }
    }

    /// Returns the description of its value. Fails if there is no such key.
    pub(super) fn value(&self, table: Table) -> Result<ValueFacts, EditError> {
        let is_a_table = || EditError::IsATable { key: self.to_string() };
        let parts: Vec<&str> = self.0.iter().map(String::as_str).collect();
        match parts.as_slice() {
            [name] if schema::table_names(table).iter().any(|known| known == name) => Err(is_a_table()),
            [PROMPTS | TEMPLATES | INSTANCES | MODELS, _] | [INSTANCES, _, RUN] => Err(is_a_table()),
            [name] if keys::TOP.iter().any(|key| key.facts.name == *name) => {
                self.value_of(&facts(keys::TOP), name, &[], None)
            }
            [ALIASES, _] => Ok(ValueFacts::unnamed(Spelling::TextUnless('{'), "a model name")),
            [ALIASES, _, runtime] if runtimes::find(table, runtime).is_some() => {
                Ok(ValueFacts::unnamed(Spelling::Text, "a model name"))
            }
            [ALIASES, _, runtime] => {
                Err(self.rejected(unknown_runtime(table, &dotted(&self.0[..2]), runtime)))
            }
            [PROMPTS, _, name, members @ ..] => self.value_of(&facts(keys::PROMPT), name, members, None),
            [MODELS, _, name, members @ ..] => self.value_of(&facts(keys::MODEL), name, members, None),
            [TEMPLATES, _, name, members @ ..] => self.value_of(&facts(keys::TEMPLATE), name, members, None),
            [GATEWAY, name, members @ ..] => self.value_of(&facts(keys::GATEWAY), name, members, None),
            [INSTANCES, _, RUN, name, members @ ..] => {
                let elsewhere = other_table_of_instance(&dotted(&self.0[..3]), name);
                self.value_of(&facts(keys::RUN), name, members, elsewhere)
            }
            [INSTANCES, _, name, members @ ..] => {
                let elsewhere = other_table_of_instance(&dotted(&self.0[..2]), name);
                self.value_of(&facts(schema::all_instance_keys()), name, members, elsewhere)
            }
            [name, rest @ ..] => {
                if let (Some((runtime, part)), [key, members @ ..]) = (schema::section(table, name), rest) {
                    return self.value_of(
                        &facts(part.keys(runtime)),
                        key,
                        members,
                        other_table(table, name, key),
                    );
                }
                let fault = unknown_table(table, name, !rest.is_empty());
                Err(EditError::Rejected { key: dotted(&self.0[..1]), fault })
            }
            [] => Err(EditError::NotAKey { text: String::new() }),
        }
    }

    fn value_of(
        &self,
        keys: &[&'static KeyFacts],
        name: &str,
        members: &[&str],
        elsewhere: Option<String>,
    ) -> Result<ValueFacts, EditError> {
        let Some(key) = keys.iter().find(|key| key.name == name) else {
            let path = dotted(&self.0[..self.table_length()]);
            return Err(self.rejected(unknown_key(&path, name, keys, elsewhere)));
        };
        if members.is_empty() {
            let (spelling, expected) = (key.kind.spelling(), key.kind.expected());
            return Ok(ValueFacts { spelling, expected, example: key.example, comment: key.comment() });
        }
        let not_in_a_table = || EditError::NotInATable { key: self.to_string() };
        let spelling = key.kind.member_spelling().ok_or_else(not_in_a_table)?;
        Ok(ValueFacts::unnamed(spelling, "a value"))
    }
}

/// The description of a key's value.
pub(super) struct ValueFacts {
    /// How it is written on the command line.
    pub(super) spelling: Spelling,
    /// Its type and limits.
    pub(super) expected: String,
    /// A valid example, as in the file; empty if none is known.
    example: &'static str,
    /// Its comment in the fresh file.
    pub(super) comment: String,
}

impl ValueFacts {
    /// The description of a value whose name the user has chosen.
    fn unnamed(spelling: Spelling, expected: &str) -> Self {
        Self { spelling, expected: expected.to_owned(), example: "", comment: String::new() }
    }
}

/// Returns one part of a key as it is meant, without quotes.
pub(super) fn decoded(source: Source<'_>, key: &Event, faults: &mut Vec<ParseError>) -> String {
    let mut name = String::new();
    if let Some(raw) = source.get(key) {
        raw.decode_key(&mut name, faults);
    }
    name
}

/// Returns the dotted key, each part quoted where TOML needs it.
pub(super) fn dotted(path: &[String]) -> String {
    path.iter().map(ToTomlKey::to_toml_key).collect::<Vec<_>>().join(".")
}

//! The one table of what the file may say: every key with its type, limits, meaning and place.
//!
//! The fresh file, validation, suggestions, `config get` and `set`, completion and the reference in `docs/` follow
//! from it.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::DeValue;

use super::problem::{Fault, RESERVED_FIELDS};
use super::settings::{Reasoning, SavedPrompt, ServiceSettings};
use super::values;
use crate::core::address::is_host;
use crate::core::runtimes::{self, Runtime, Table};

/// One key of a table that is kept in a `T`.
pub(super) struct Key<T: 'static> {
    pub(super) name: &'static str,
    pub(super) kind: ValueKind<T>,
    /// What it means, in one line.
    pub(super) meaning: &'static str,
    /// A valid value.
    pub(super) example: &'static str,
    pub(super) presence: Presence,
    /// Its name in version 2.0, if that was another one.
    pub(super) formerly: Option<&'static str>,
}

/// Where a key exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// Where it has a default, and in the fresh file; without a default, where the runtime says so.
    Fresh,
    /// Everywhere.
    Optional,
    /// Where the runtime says so.
    OfSome,
}

type ServiceKey = Key<ServiceSettings>;
type PromptKey = Key<SavedPrompt>;

/// The type of a key's value, its limits, and where it is kept.
pub(super) enum ValueKind<T: 'static> {
    /// A host without scheme, port or path.
    Host(Field<T, String>),
    /// 1 to 65535.
    Port(Field<T, u16>),
    Text(Field<T, String>),
    /// A text that is not empty.
    Name(Field<T, String>),
    Switch(Field<T, bool>),
    Number(RangeInclusive<f64>, Field<T, f64>),
    Whole(RangeInclusive<u64>, Field<T, u64>),
    /// A number of bytes: `"50MB"`, or a whole number.
    Size(RangeInclusive<u64>, Field<T, u64>),
    Seconds(Field<T, Duration>),
    /// Arguments of a program.
    Arguments(Field<T, Vec<String>>),
    /// A program and its arguments.
    Command(Field<T, Vec<String>>),
    /// A text, or an array of texts.
    Texts(Field<T, Vec<String>>),
    /// Environment variables.
    Variables(Field<T, BTreeMap<String, String>>),
    Reasoning(Field<T, Reasoning>),
    /// Fields of a request body, but for those of [`RESERVED_FIELDS`].
    Body(Field<T, Map<String, Value>>),
}

/// A place in a `T` for a `V`, or for an `Option<V>`.
pub(super) struct Field<T: 'static, V> {
    get: fn(&T) -> Option<V>,
    set: fn(&mut T, V),
}

macro_rules! field {
    ($($path:tt)+) => {
        Field { get: |owner| owner.$($path)+.clone().into(), set: |owner, value| owner.$($path)+ = value.into() }
    };
}

/// `[NAME_server]`.
static SERVER: &[ServiceKey] = &[
    ServiceKey::fresh("host", ValueKind::Host(field!(server.address.host)), r#""0.0.0.0""#)
        .means("Host name or IP address to listen on; anyone who can reach it can use the server"),
    ServiceKey::fresh("port", ValueKind::Port(field!(server.address.port)), "11500")
        .means("Port to listen on"),
    ServiceKey::fresh("model", ValueKind::Name(field!(server.model)), r#""/data/models/qwen3-4b""#)
        .means("Model that the server is started with: a name or a directory"),
    ServiceKey::of_some("models_dir", ValueKind::Name(field!(server.models_dir)), r#""/data/models""#)
        .means("Directory of models to serve beside those of the hub's cache"),
    ServiceKey::optional(
        "command",
        ValueKind::Command(field!(server.command)),
        r#"["/opt/bin/server", "--verbose"]"#,
    )
    .means("Program and arguments to start, instead of the program that fusion finds"),
    ServiceKey::optional("args", ValueKind::Arguments(field!(server.args)), r#"["--log-level", "debug"]"#)
        .means("Arguments appended to the command"),
    ServiceKey::optional("env", ValueKind::Variables(field!(server.env)), r#"{ HF_HOME = "/data/models" }"#)
        .means("Environment variables of the server"),
    ServiceKey::optional("startup_timeout", ValueKind::Seconds(field!(server.startup_timeout)), "600")
        .means("Seconds that `up` waits for the server to become ready"),
    ServiceKey::optional("stop_timeout", ValueKind::Seconds(field!(server.stop_timeout)), "30")
        .means("Seconds that `down` waits for the server to stop before it is killed"),
    ServiceKey::optional("auto_start", ValueKind::Switch(field!(server.auto_start)), "true")
        .means("Whether `fusion up` without a name starts the server"),
    ServiceKey::optional(
        "log_max_size",
        ValueKind::Size(1_000..=1_000_000_000_000_000, field!(server.log_max_size)),
        r#""20MB""#,
    )
    .means("Size above which the log is rotated")
    .formerly("log_max_mb"),
    ServiceKey::optional("log_keep", ValueKind::Whole(0..=1000, field!(server.log_keep)), "5")
        .means("Number of rotated logs to keep"),
];

/// `[NAME_run]`.
static RUN: &[ServiceKey] = &[
    ServiceKey::fresh("model", ValueKind::Name(field!(run.model)), r#""qwen3:4b""#)
        .means("Model to ask: a name or a directory"),
    ServiceKey::fresh(
        "system_prompt",
        ValueKind::Text(field!(run.system_prompt)),
        r#""Answer in one sentence.""#,
    )
    .means("System message; an empty one is not sent"),
    ServiceKey::fresh("temperature", ValueKind::Number(0.0..=2.0, field!(run.temperature)), "0.2")
        .means("Sampling temperature, 0 to 2; 0 is greedy"),
    ServiceKey::fresh("stream", ValueKind::Switch(field!(run.stream)), "true")
        .means("Whether the answer is printed while it is generated"),
    ServiceKey::optional("max_tokens", ValueKind::Whole(1..=4_294_967_295, field!(run.max_tokens)), "1024")
        .means("Maximum number of tokens to generate"),
    ServiceKey::optional("top_p", ValueKind::Number(0.0..=1.0, field!(run.top_p)), "0.9")
        .means("Nucleus sampling: the share of probability to sample from"),
    ServiceKey::optional("seed", ValueKind::Whole(0..=9_223_372_036_854_775_807, field!(run.seed)), "42")
        .means("Sampling seed, for answers that can be repeated"),
    ServiceKey::optional("stop", ValueKind::Texts(field!(run.stop)), r#"["END"]"#)
        .means("Stop sequences: texts that end the answer"),
    ServiceKey::optional("timeout", ValueKind::Seconds(field!(run.timeout)), "120")
        .means("Idle timeout: seconds without data before the request fails"),
    ServiceKey::optional("start_on_demand", ValueKind::Switch(field!(run.start_on_demand)), "false")
        .means("Whether `run` starts the server if it is not running")
        .formerly("auto_up"),
    ServiceKey::optional("reasoning", ValueKind::Reasoning(field!(run.reasoning)), r#""show""#)
        .means("Whether the model's reasoning is printed on stderr"),
    ServiceKey::optional("extra_body", ValueKind::Body(field!(run.extra_body)), "{ repeat_penalty = 1.1 }")
        .means("Further fields of the request body")
        .formerly("extra"),
];

/// `[prompts.NAME]`.
pub(super) static PROMPT: &[PromptKey] = &[
    PromptKey::optional("system", ValueKind::Text(field!(system)), r#""You are a careful reviewer.""#)
        .means("System message, instead of `system_prompt`"),
    PromptKey::optional("model", ValueKind::Name(field!(model)), r#""qwen2.5-coder:7b""#)
        .means("Model to ask"),
    PromptKey::optional("temperature", ValueKind::Number(0.0..=2.0, field!(temperature)), "0.2")
        .means("Sampling temperature, 0 to 2; 0 is greedy"),
    PromptKey::optional("template", ValueKind::Text(field!(template)), r#""Review this change:\n\n{input}""#)
        .means("User message; `{input}` stands for files, the words of the command line and standard input"),
];

/// The tables that hold names chosen by the user.
pub(super) const PROMPTS: &str = "prompts";
pub(super) const ALIASES: &str = "aliases";

/// The two tables of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TableKind {
    Server,
    Run,
}

impl TableKind {
    pub(super) const ALL: [Self; 2] = [Self::Server, Self::Run];

    /// Returns the name of the table of `service`.
    pub(super) fn table_of(self, service: &str) -> String {
        match self {
            Self::Server => format!("{service}_server"),
            Self::Run => format!("{service}_run"),
        }
    }

    /// Returns the keys that exist in this table for a service of `runtime`.
    pub(super) fn keys(self, runtime: &dyn Runtime) -> Vec<&'static Key<ServiceSettings>> {
        let defaults = ServiceSettings::default_for(runtime);
        let keys = match self {
            Self::Server => SERVER,
            Self::Run => RUN,
        };
        let exists = |key: &&Key<ServiceSettings>| match key.presence {
            Presence::Fresh => {
                key.kind.write(&defaults).is_some() || runtime.optional_keys().contains(&key.name)
            }
            Presence::Optional => true,
            Presence::OfSome => runtime.optional_keys().contains(&key.name),
        };
        keys.iter().filter(exists).collect()
    }
}

/// Returns the runtime whose table is called `name`, and which of its tables that is.
pub(super) fn section(table: Table, name: &str) -> Option<(&'static dyn Runtime, TableKind)> {
    let of = |part: TableKind, end: &str| Some((runtimes::find(table, name.strip_suffix(end)?)?, part));
    of(TableKind::Server, "_server").or_else(|| of(TableKind::Run, "_run"))
}

/// Returns the tables of the runtimes, in the order of the file.
pub(super) fn service_tables(table: Table) -> impl Iterator<Item = String> {
    table.iter().flat_map(|runtime| TableKind::ALL.map(|part| part.table_of(runtime.name())))
}

/// Returns the names of all tables.
pub(super) fn table_names(table: Table) -> Vec<String> {
    service_tables(table).chain([PROMPTS, ALIASES].map(str::to_owned)).collect()
}

impl<T> Key<T> {
    const fn fresh(name: &'static str, kind: ValueKind<T>, example: &'static str) -> Self {
        Self { name, kind, example, meaning: "", presence: Presence::Fresh, formerly: None }
    }

    const fn optional(name: &'static str, kind: ValueKind<T>, example: &'static str) -> Self {
        Self { presence: Presence::Optional, ..Self::fresh(name, kind, example) }
    }

    const fn of_some(name: &'static str, kind: ValueKind<T>, example: &'static str) -> Self {
        Self { presence: Presence::OfSome, ..Self::fresh(name, kind, example) }
    }

    /// Returns the line above it in the fresh file.
    pub(super) fn comment(&self) -> String {
        format!("# {}", self.meaning)
    }

    const fn means(self, meaning: &'static str) -> Self {
        Self { meaning, ..self }
    }

    const fn formerly(self, name: &'static str) -> Self {
        Self { formerly: Some(name), ..self }
    }
}

/// What is wrong with a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The member of a table that is meant, where it is not the value itself.
    pub(super) member: Option<String>,
    /// Where in the text.
    pub(super) span: Range<usize>,
    pub(super) fault: Fault,
}

impl<T> ValueKind<T> {
    /// Keeps the value in its place, if there is nothing wrong with it.
    pub(super) fn read(&self, value: &Spanned<DeValue<'_>>, owner: &mut T) -> Result<(), Vec<Wrong>> {
        let inner = value.get_ref();
        match self {
            Self::Host(field) => {
                field.keep(owner, self.must(value, values::text(inner).filter(|text| is_host(text)))?);
            }
            Self::Port(field) => field.keep(owner, self.must(value, values::whole(inner, &(1..=65_535)))?),
            Self::Text(field) => field.keep(owner, self.must(value, values::text(inner))?),
            Self::Name(field) => field.keep(owner, self.must(value, values::name(inner))?),
            Self::Switch(field) => field.keep(owner, self.must(value, inner.as_bool())?),
            Self::Number(limits, field) => {
                field.keep(owner, self.must(value, values::number(inner, limits))?);
            }
            Self::Whole(limits, field) => field.keep(owner, self.must(value, values::whole(inner, limits))?),
            Self::Size(limits, field) => field.keep(owner, self.must(value, values::size(inner, limits))?),
            Self::Seconds(field) => field.keep(owner, self.must(value, values::seconds(inner))?),
            Self::Arguments(field) => field.keep(owner, self.must(value, values::arguments(inner))?),
            Self::Command(field) => field.keep(owner, self.must(value, values::command(inner))?),
            Self::Texts(field) => field.keep(owner, self.must(value, values::text_or_texts(inner))?),
            Self::Reasoning(field) => {
                let named = |word: &str| Reasoning::ALL.into_iter().find(|value| value.name() == word);
                field.keep(owner, self.must(value, inner.as_str().and_then(named))?);
            }
            Self::Variables(field) => field.keep(owner, self.members(value, variable)?),
            Self::Body(field) => field.keep(owner, self.members(value, body_field)?),
        }
        Ok(())
    }

    /// Returns the value that is kept in its place; `None` when it is not set.
    pub(super) fn write(&self, owner: &T) -> Option<Value> {
        match self {
            Self::Host(field) | Self::Text(field) => field.value(owner).map(Value::from),
            Self::Name(field) => field.value(owner).filter(|name| !name.is_empty()).map(Value::from),
            Self::Port(field) => field.value(owner).map(Value::from),
            Self::Switch(field) => field.value(owner).map(Value::from),
            Self::Number(_, field) => field.value(owner).map(Value::from),
            Self::Whole(_, field) => field.value(owner).map(Value::from),
            Self::Size(_, field) => field.value(owner).map(|size| values::size_text(size).into()),
            Self::Seconds(field) => field.value(owner).map(values::from_seconds),
            Self::Arguments(field) | Self::Command(field) | Self::Texts(field) => {
                field.value(owner).map(Value::from)
            }
            Self::Reasoning(field) => field.value(owner).map(|reasoning| reasoning.name().into()),
            Self::Variables(field) => field.value(owner).map(|variables| variables.into_iter().collect()),
            Self::Body(field) => field.value(owner).map(Value::from),
        }
    }

    /// Returns what the value must be, in words that follow "expected".
    pub(super) fn expected(&self) -> String {
        match self {
            Self::Host(_) => "a host name or an IP address, without scheme, port or path".to_owned(),
            Self::Port(_) => "a whole number from 1 to 65535".to_owned(),
            Self::Text(_) => "a string".to_owned(),
            Self::Name(_) => "a string that is not empty".to_owned(),
            Self::Switch(_) => "true or false".to_owned(),
            Self::Number(limits, _) => format!("a number from {} to {}", limits.start(), limits.end()),
            Self::Whole(limits, _) => format!("a whole number from {} to {}", limits.start(), limits.end()),
            Self::Size(limits, _) => {
                let [least, most] = [limits.start(), limits.end()].map(|size| values::size_text(*size));
                format!("a size from {least} to {most}, such as \"50MB\" or \"64MiB\"")
            }
            Self::Seconds(_) => {
                format!("a number of seconds from {} to {}", values::MIN_SECONDS, values::MAX_SECONDS)
            }
            Self::Arguments(_) => "an array of strings".to_owned(),
            Self::Command(_) => "an array of strings that begins with a program".to_owned(),
            Self::Texts(_) => "a string or an array of strings".to_owned(),
            Self::Variables(_) => "a table of strings".to_owned(),
            Self::Reasoning(_) => Reasoning::ALL.map(|value| format!("\"{}\"", value.name())).join(" or "),
            Self::Body(_) => "a table of values that JSON has".to_owned(),
        }
    }

    /// Returns how a value is written on the command line.
    pub(super) fn spelling(&self) -> Spelling {
        match self {
            Self::Host(_) | Self::Text(_) | Self::Name(_) | Self::Reasoning(_) => Spelling::Text,
            Self::Texts(_) => Spelling::TextUnless('['),
            Self::Size(..) => Spelling::TomlOrText,
            _ => Spelling::Toml,
        }
    }

    /// Returns how a member of this value is written on the command line, if it has members.
    pub(super) fn member_spelling(&self) -> Option<Spelling> {
        match self {
            Self::Variables(_) => Some(Spelling::Text),
            Self::Body(_) => Some(Spelling::TomlOrText),
            _ => None,
        }
    }

    fn must<V>(&self, value: &Spanned<DeValue<'_>>, read: Option<V>) -> Result<V, Vec<Wrong>> {
        read.ok_or_else(|| {
            let fault = Fault::Value { expected: self.expected(), found: values::found(value.get_ref()) };
            vec![Wrong { member: None, span: value.span(), fault }]
        })
    }

    /// Reads a table's members by `read`.
    fn members<V, C: Default + Extend<(String, V)>>(
        &self,
        value: &Spanned<DeValue<'_>>,
        read: fn(&str, &DeValue<'_>) -> Result<V, Fault>,
    ) -> Result<C, Vec<Wrong>> {
        let table = self.must(value, value.get_ref().as_table())?;
        let mut wrong = Vec::new();
        let mut members = C::default();
        for (name, value) in table {
            let name = name.get_ref().to_string();
            match read(&name, value.get_ref()) {
                Ok(member) => members.extend([(name, member)]),
                Err(fault) => wrong.push(Wrong { member: Some(name), span: value.span(), fault }),
            }
        }
        if wrong.is_empty() { Ok(members) } else { Err(wrong) }
    }
}

fn variable(name: &str, value: &DeValue<'_>) -> Result<String, Fault> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(member_fault("a name of an environment variable, without `=`, before a string", value));
    }
    let text = values::text(value).filter(|text| !text.contains('\0'));
    text.ok_or_else(|| member_fault("a string", value))
}

fn body_field(name: &str, value: &DeValue<'_>) -> Result<Value, Fault> {
    if RESERVED_FIELDS.contains(&name) {
        let fields = RESERVED_FIELDS.join("`, `");
        return Err(Fault::Reserved { reason: format!("fusion sets `{fields}` itself") });
    }
    values::to_json(value).ok_or_else(|| member_fault("a value that JSON has: no date, no infinity", value))
}

/// The value of a member may be a secret: no message quotes it.
fn member_fault(expected: &str, value: &DeValue<'_>) -> Fault {
    Fault::Value { expected: expected.to_owned(), found: values::article(value).to_owned() }
}

/// How a value is written on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// The words themselves.
    Text,
    /// As in the file.
    Toml,
    /// The words themselves, or, where they begin with this, as in the file.
    TextUnless(char),
    /// As in the file, or, where that is not TOML, the words themselves.
    TomlOrText,
}

impl<T, V> Field<T, V> {
    fn keep(&self, owner: &mut T, value: V) {
        (self.set)(owner, value);
    }

    fn value(&self, owner: &T) -> Option<V> {
        (self.get)(owner)
    }
}

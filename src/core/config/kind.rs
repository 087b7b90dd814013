//! One key of a table: its meaning, type, limits and place, and how its value is read and written.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::DeValue;

use super::problem::{Fault, RESERVED_FIELDS};
use super::settings::{IdleStop, KeepAwake, Keyword, MemoryLimit, Reasoning, RestartPolicy};
use super::values;
use crate::core::address::is_host;
use crate::core::command_line;
use crate::core::models::catalogue::KeepAlive;
use crate::core::order;
use crate::core::sorted_map::SortedMap;

/// One key of a table, whose value is stored in a `T`.
pub(super) struct Key<T: 'static> {
    pub(super) facts: KeyFacts,
    place: Slot<T>,
}

/// What is known of a key, wherever its value is stored.
pub(super) struct KeyFacts {
    pub(super) name: &'static str,
    pub(super) kind: ValueKind,
    /// Its meaning in one line.
    pub(super) meaning: &'static str,
    /// A valid example.
    pub(super) example: &'static str,
    pub(super) presence: Presence,
    /// Its name in version 2.0, if it differs.
    pub(super) formerly: Option<&'static str>,
}

/// Where a key exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// Where it has a default, and in the fresh file; without a default, where the runtime has it.
    Fresh,
    /// Everywhere.
    Optional,
    /// Where the runtime has it.
    OfSome,
}

/// The type of a key's value, and its limits.
pub(super) enum ValueKind {
    /// A host without scheme, port or path.
    Host,
    /// 1 to 65535.
    Port,
    Text,
    /// A text that is not empty.
    Name,
    Switch,
    Number(RangeInclusive<f64>),
    Whole(RangeInclusive<u64>),
    /// A number of bytes: `"50MB"`, or a whole number.
    Size(RangeInclusive<u64>),
    Seconds,
    /// Arguments of a program.
    Arguments,
    /// A program and its arguments.
    Command,
    /// A text, or an array of texts.
    Texts,
    /// Environment variables.
    Variables,
    Reasoning,
    Restart,
    KeepAwake,
    /// A secret, which is never printed.
    Secret,
    /// Seconds, 0 for never.
    IdleStop,
    Milliseconds,
    /// `"75%"`, or a number of bytes.
    Memory,
    /// A number of seconds, or a duration such as `"10m"`.
    KeepAlive,
    /// The first and the last port.
    Ports,
    Hosts,
    /// Origins of web pages: scheme, host and port.
    Origins,
    /// A program and its arguments as one line; an empty one where `true`.
    CommandLine(bool),
    /// A URL with placeholders, or a path.
    Endpoint,
    /// Fields of a request body, except those of [`RESERVED_FIELDS`].
    Body,
}

/// A value of any kind, as it is stored.
enum Stored {
    Text(String),
    Port(u16),
    Switch(bool),
    Number(f64),
    Whole(u64),
    Time(Duration),
    Texts(Vec<String>),
    Variables(SortedMap<String, String>),
    Reasoning(Reasoning),
    Restart(RestartPolicy),
    KeepAwake(KeepAwake),
    IdleStop(IdleStop),
    Memory(MemoryLimit),
    KeepAlive(KeepAlive),
    Ports(RangeInclusive<u16>),
    Body(Map<String, Value>),
}

/// Where the value of a key is stored.
pub(super) enum Slot<T: 'static> {
    Text(Field<T, String>),
    Port(Field<T, u16>),
    Switch(Field<T, bool>),
    Number(Field<T, f64>),
    Whole(Field<T, u64>),
    Time(Field<T, Duration>),
    Texts(Field<T, Vec<String>>),
    Variables(Field<T, SortedMap<String, String>>),
    Reasoning(Field<T, Reasoning>),
    Restart(Field<T, RestartPolicy>),
    KeepAwake(Field<T, KeepAwake>),
    IdleStop(Field<T, IdleStop>),
    Memory(Field<T, MemoryLimit>),
    KeepAlive(Field<T, KeepAlive>),
    Ports(Field<T, RangeInclusive<u16>>),
    Body(Field<T, Map<String, Value>>),
}

/// A place in a `T` for a `V`, or for an `Option<V>`.
pub(super) struct Field<T: 'static, V> {
    pub(super) get: fn(&T) -> Option<V>,
    pub(super) set: fn(&mut T, V),
}

/// Makes a [`Slot`] from the type and the path of a member.
macro_rules! field {
    ($type:ident, $($path:tt)+) => {
        crate::core::config::kind::Slot::$type(crate::core::config::kind::Field {
            get: |owner| owner.$($path)+.clone().into(),
            set: |owner, value| owner.$($path)+ = value.into(),
        })
    };
}
pub(super) use field;

impl<T> Key<T> {
    pub(super) const fn fresh(
        name: &'static str,
        kind: ValueKind,
        place: Slot<T>,
        example: &'static str,
    ) -> Self {
        let presence = Presence::Fresh;
        Self { facts: KeyFacts { name, kind, example, meaning: "", presence, formerly: None }, place }
    }

    pub(super) const fn optional(
        name: &'static str,
        kind: ValueKind,
        place: Slot<T>,
        example: &'static str,
    ) -> Self {
        let mut key = Self::fresh(name, kind, place, example);
        key.facts.presence = Presence::Optional;
        key
    }

    pub(super) const fn of_some(
        name: &'static str,
        kind: ValueKind,
        place: Slot<T>,
        example: &'static str,
    ) -> Self {
        let mut key = Self::fresh(name, kind, place, example);
        key.facts.presence = Presence::OfSome;
        key
    }

    pub(super) const fn means(mut self, meaning: &'static str) -> Self {
        self.facts.meaning = meaning;
        self
    }

    pub(super) const fn formerly(mut self, name: &'static str) -> Self {
        self.facts.formerly = Some(name);
        self
    }

    /// Stores the value in its place if it is valid.
    pub(super) fn read(&self, value: &Spanned<DeValue<'_>>, owner: &mut T) -> Result<(), Vec<Wrong>> {
        self.facts.kind.read(value).map(|value| self.place.store(owner, value))
    }

    /// Returns the value stored in its place; `None` if it is not set.
    pub(super) fn write(&self, owner: &T) -> Option<Value> {
        self.facts.kind.write(self.place.load(owner)?)
    }
}

/// Returns what is known of each key.
pub(super) fn facts<T: 'static>(keys: impl IntoIterator<Item = &'static Key<T>>) -> Vec<&'static KeyFacts> {
    keys.into_iter().map(|key| &key.facts).collect()
}

impl KeyFacts {
    /// Returns its comment in the fresh file.
    pub(super) fn comment(&self) -> String {
        format!("# {}", self.meaning)
    }
}

impl<T> Slot<T> {
    fn store(&self, owner: &mut T, value: Stored) {
        match (self, value) {
            (Self::Text(field), Stored::Text(value)) => (field.set)(owner, value),
            (Self::Port(field), Stored::Port(value)) => (field.set)(owner, value),
            (Self::Switch(field), Stored::Switch(value)) => (field.set)(owner, value),
            (Self::Number(field), Stored::Number(value)) => (field.set)(owner, value),
            (Self::Whole(field), Stored::Whole(value)) => (field.set)(owner, value),
            (Self::Time(field), Stored::Time(value)) => (field.set)(owner, value),
            (Self::Texts(field), Stored::Texts(value)) => (field.set)(owner, value),
            (Self::Variables(field), Stored::Variables(value)) => (field.set)(owner, value),
            (Self::Reasoning(field), Stored::Reasoning(value)) => (field.set)(owner, value),
            (Self::Restart(field), Stored::Restart(value)) => (field.set)(owner, value),
            (Self::KeepAwake(field), Stored::KeepAwake(value)) => (field.set)(owner, value),
            (Self::IdleStop(field), Stored::IdleStop(value)) => (field.set)(owner, value),
            (Self::Memory(field), Stored::Memory(value)) => (field.set)(owner, value),
            (Self::KeepAlive(field), Stored::KeepAlive(value)) => (field.set)(owner, value),
            (Self::Ports(field), Stored::Ports(value)) => (field.set)(owner, value),
            (Self::Body(field), Stored::Body(value)) => (field.set)(owner, value),
            _ => debug_assert!(false, "a key whose kind does not fit its place"),
        }
    }

    fn load(&self, owner: &T) -> Option<Stored> {
        Some(match self {
            Self::Text(field) => Stored::Text((field.get)(owner)?),
            Self::Port(field) => Stored::Port((field.get)(owner)?),
            Self::Switch(field) => Stored::Switch((field.get)(owner)?),
            Self::Number(field) => Stored::Number((field.get)(owner)?),
            Self::Whole(field) => Stored::Whole((field.get)(owner)?),
            Self::Time(field) => Stored::Time((field.get)(owner)?),
            Self::Texts(field) => Stored::Texts((field.get)(owner)?),
            Self::Variables(field) => Stored::Variables((field.get)(owner)?),
            Self::Reasoning(field) => Stored::Reasoning((field.get)(owner)?),
            Self::Restart(field) => Stored::Restart((field.get)(owner)?),
            Self::KeepAwake(field) => Stored::KeepAwake((field.get)(owner)?),
            Self::IdleStop(field) => Stored::IdleStop((field.get)(owner)?),
            Self::Memory(field) => Stored::Memory((field.get)(owner)?),
            Self::KeepAlive(field) => Stored::KeepAlive((field.get)(owner)?),
            Self::Ports(field) => Stored::Ports((field.get)(owner)?),
            Self::Body(field) => Stored::Body((field.get)(owner)?),
        })
    }
}

/// What is wrong with a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The member of the table at fault, if it is not the value itself.
    pub(super) member: Option<String>,
    /// The position in the text.
    pub(super) span: Range<usize>,
    pub(super) fault: Fault,
}

impl ValueKind {
    /// Returns the value if it is valid.
    fn read(&self, value: &Spanned<DeValue<'_>>) -> Result<Stored, Vec<Wrong>> {
        let inner = value.get_ref();
        let valid = match self {
            Self::Host => values::text(inner).filter(|text| is_host(text)).map(Stored::Text),
            Self::Port => values::whole(inner, &(1..=65_535)).map(Stored::Port),
            Self::Text => values::text(inner).map(Stored::Text),
            Self::Name => values::name(inner).map(Stored::Text),
            Self::Switch => inner.as_bool().map(Stored::Switch),
            Self::Number(limits) => values::number(inner, limits).map(Stored::Number),
            Self::Whole(limits) => values::whole(inner, limits).map(Stored::Whole),
            Self::Size(limits) => values::size(inner, limits).map(Stored::Whole),
            Self::Seconds => values::seconds(inner).map(Stored::Time),
            Self::Arguments => values::arguments(inner).map(Stored::Texts),
            Self::Command => values::command(inner).map(Stored::Texts),
            Self::Texts => values::text_or_texts(inner).map(Stored::Texts),
            Self::Reasoning => choice(inner).map(Stored::Reasoning),
            Self::Restart => choice(inner).map(Stored::Restart),
            Self::KeepAwake => choice(inner).map(Stored::KeepAwake),
            Self::Secret => values::secret(inner).map(Stored::Text),
            Self::IdleStop => values::idle_stop(inner).map(Stored::IdleStop),
            Self::Milliseconds => values::milliseconds(inner).map(Stored::Time),
            Self::Memory => values::memory(inner).map(Stored::Memory),
            Self::KeepAlive => values::keep_alive(inner).map(Stored::KeepAlive),
            Self::Ports => values::ports(inner).map(Stored::Ports),
            Self::Hosts => values::texts_of(inner, is_host).map(Stored::Texts),
            Self::Origins => values::texts_of(inner, values::is_origin).map(Stored::Texts),
            Self::CommandLine(may_be_empty) => {
                return command_line(value, *may_be_empty).map(Stored::Text);
            }
            Self::Endpoint => values::endpoint(inner).map(Stored::Text),
            Self::Variables => return self.members(value, variable).map(Stored::Variables),
            Self::Body => return self.members(value, body_field).map(Stored::Body),
        };
        self.must(value, valid)
    }

    /// Returns the value as it is printed; `None` if it counts as not set.
    fn write(&self, value: Stored) -> Option<Value> {
        Some(match (value, self) {
            (Stored::Text(name), Self::Name) if name.is_empty() => return None,
            (Stored::Text(secret), Self::Secret) if !secret.is_empty() => MASK.into(),
            (Stored::Text(text), _) => text.into(),
            (Stored::Port(port), _) => port.into(),
            (Stored::Switch(is_on), _) => is_on.into(),
            (Stored::Number(number), _) => number.into(),
            (Stored::Whole(size), Self::Size(_)) => values::size_text(size).into(),
            (Stored::Whole(number), _) => number.into(),
            (Stored::Time(time), Self::Milliseconds) => {
                u64::try_from(time.as_millis()).unwrap_or(u64::MAX).into()
            }
            (Stored::Time(time) | Stored::IdleStop(IdleStop::After(time)), _) => values::from_seconds(time),
            (Stored::IdleStop(IdleStop::Never), _) => 0.into(),
            (Stored::Texts(texts), _) => texts.into(),
            (Stored::Variables(variables), _) => order::object(variables),
            (Stored::Reasoning(reasoning), _) => reasoning.name().into(),
            (Stored::Restart(policy), _) => policy.name().into(),
            (Stored::KeepAwake(when), _) => when.name().into(),
            (Stored::Memory(MemoryLimit::Share(percent)), _) => format!("{percent}%").into(),
            (Stored::Memory(MemoryLimit::Bytes(bytes)), _) => values::size_text(bytes).into(),
            (Stored::KeepAlive(time), _) => time.json(),
            (Stored::Ports(ports), _) => vec![Value::from(*ports.start()), (*ports.end()).into()].into(),
            (Stored::Body(fields), _) => fields.into(),
        })
    }

    /// Returns the expected type and limits, in words that follow "expected".
    pub(super) fn expected(&self) -> String {
        match self {
            Self::Host => "a host name or an IP address, without scheme, port or path".to_owned(),
            Self::Port => "a whole number from 1 to 65535".to_owned(),
            Self::Text => "a string".to_owned(),
            Self::Name => "a string that is not empty".to_owned(),
            Self::Switch => "true or false".to_owned(),
            Self::Number(limits) => format!("a number from {} to {}", limits.start(), limits.end()),
            Self::Whole(limits) => format!("a whole number from {} to {}", limits.start(), limits.end()),
            Self::Size(limits) => {
                let [least, most] = [limits.start(), limits.end()].map(|size| values::size_text(*size));
                format!("a size from {least} to {most}, such as \"50MB\" or \"64MiB\"")
            }
            Self::Seconds => {
                format!("a number of seconds from {} to {}", values::MIN_SECONDS, values::MAX_SECONDS)
            }
            Self::Arguments => "an array of strings".to_owned(),
            Self::Command => "an array of strings that begins with a program".to_owned(),
            Self::Texts => "a string or an array of strings".to_owned(),
            Self::Variables => "a table of strings".to_owned(),
            Self::Reasoning => choices::<Reasoning>(),
            Self::Restart => choices::<RestartPolicy>(),
            Self::KeepAwake => choices::<KeepAwake>(),
            Self::Secret => "an ASCII string without spaces and control characters".to_owned(),
            Self::IdleStop => format!("a number of seconds up to {}, or 0 for never", values::MAX_SECONDS),
            Self::Milliseconds => "a whole number of milliseconds from 1 to 3600000".to_owned(),
            Self::Memory => {
                "a share from \"1%\" to \"100%\", or a size such as \"24GB\" or \"16GiB\"".to_owned()
            }
            Self::KeepAlive => "a number of seconds, a time such as \"10m\", or \"forever\"".to_owned(),
            Self::Ports => "an array of two ports from 1 to 65535, the smaller one first".to_owned(),
            Self::Hosts => "an array of host names, without scheme, port or path".to_owned(),
            Self::Origins => "an array of origins such as \"http://localhost:3000\"".to_owned(),
            Self::CommandLine(_) => "a string that begins with a program".to_owned(),
            Self::Endpoint => {
                "a URL such as \"http://localhost:{port}/health\", or a path such as \"/health\"".to_owned()
            }
            Self::Body => "a table of values that JSON has".to_owned(),
        }
    }

    /// Returns how a value is written on the command line.
    pub(super) fn spelling(&self) -> Spelling {
        match self {
            Self::Host
            | Self::Text
            | Self::Name
            | Self::Reasoning
            | Self::Restart
            | Self::KeepAwake
            | Self::Secret
            | Self::CommandLine(_)
            | Self::Endpoint => Spelling::Text,
            Self::Texts => Spelling::TextUnless('['),
            Self::Size(_) | Self::Memory | Self::KeepAlive => Spelling::TomlOrText,
            _ => Spelling::Toml,
        }
    }

    /// Returns how a member of this value is written on the command line, if it has members.
    pub(super) fn member_spelling(&self) -> Option<Spelling> {
        match self {
            Self::Variables => Some(Spelling::Text),
            Self::Body => Some(Spelling::TomlOrText),
            _ => None,
        }
    }

    fn must<V>(&self, value: &Spanned<DeValue<'_>>, read: Option<V>) -> Result<V, Vec<Wrong>> {
        read.ok_or_else(|| {
            let found = match self {
                Self::Secret => values::article(value.get_ref()).to_owned(),
                _ => values::found(value.get_ref()),
            };
            let fault = Fault::Value { expected: self.expected(), found };
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

/// The text printed in place of a secret.
pub(super) const MASK: &str = "********";

fn choice<C: Keyword>(value: &DeValue<'_>) -> Option<C> {
    C::named(value.as_str()?)
}

fn choices<C: Keyword>() -> String {
    C::ALL.iter().map(|choice| format!("\"{}\"", choice.name())).collect::<Vec<_>>().join(" or ")
}

fn command_line(value: &Spanned<DeValue<'_>>, may_be_empty: bool) -> Result<String, Vec<Wrong>> {
    let wrong = |found| {
        let fault = Fault::Value { expected: "a command line".to_owned(), found };
        vec![Wrong { member: None, span: value.span(), fault }]
    };
    let text = values::text(value.get_ref()).ok_or_else(|| wrong(values::found(value.get_ref())))?;
    if may_be_empty && text.trim().is_empty() {
        return Ok(String::new());
    }
    match command_line::split(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(wrong(format!("{}: {error}", values::found(value.get_ref())))),
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
    /// The words themselves; as in the file if they begin with this.
    TextUnless(char),
    /// As in the file; or the words themselves, if they are not TOML.
    TomlOrText,
}

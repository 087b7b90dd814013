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
    pub(super) name: &'static str,
    pub(super) kind: ValueKind<T>,
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

/// The type of a key's value, its limits, and where it is stored.
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
    Variables(Field<T, SortedMap<String, String>>),
    Reasoning(Field<T, Reasoning>),
    Restart(Field<T, RestartPolicy>),
    KeepAwake(Field<T, KeepAwake>),
    /// A secret, which is never printed.
    Secret(Field<T, String>),
    /// Seconds, 0 for never.
    IdleStop(Field<T, IdleStop>),
    Milliseconds(Field<T, Duration>),
    /// `"75%"`, or a number of bytes.
    Memory(Field<T, MemoryLimit>),
    /// A number of seconds, or a duration such as `"10m"`.
    KeepAlive(Field<T, KeepAlive>),
    /// The first and the last port.
    Ports(Field<T, RangeInclusive<u16>>),
    Hosts(Field<T, Vec<String>>),
    /// Origins of web pages: scheme, host and port.
    Origins(Field<T, Vec<String>>),
    /// A program and its arguments as one line; an empty one where `true`.
    CommandLine(bool, Field<T, String>),
    /// A URL with placeholders, or a path.
    Endpoint(Field<T, String>),
    /// Fields of a request body, except those of [`RESERVED_FIELDS`].
    Body(Field<T, Map<String, Value>>),
}

/// A place in a `T` for a `V`, or for an `Option<V>`.
pub(super) struct Field<T: 'static, V> {
    pub(super) get: fn(&T) -> Option<V>,
    pub(super) set: fn(&mut T, V),
}

/// Makes a [`Field`] from the path of a member.
macro_rules! field {
    ($($path:tt)+) => {
        crate::core::config::kind::Field { get: |owner| owner.$($path)+.clone().into(), set: |owner, value| owner.$($path)+ = value.into() }
    };
}
pub(super) use field;

impl<T> Key<T> {
    pub(super) const fn fresh(name: &'static str, kind: ValueKind<T>, example: &'static str) -> Self {
        Self { name, kind, example, meaning: "", presence: Presence::Fresh, formerly: None }
    }

    pub(super) const fn optional(name: &'static str, kind: ValueKind<T>, example: &'static str) -> Self {
        Self { presence: Presence::Optional, ..Self::fresh(name, kind, example) }
    }

    pub(super) const fn of_some(name: &'static str, kind: ValueKind<T>, example: &'static str) -> Self {
        Self { presence: Presence::OfSome, ..Self::fresh(name, kind, example) }
    }

    /// Returns its comment in the fresh file.
    pub(super) fn comment(&self) -> String {
        format!("# {}", self.meaning)
    }

    pub(super) const fn means(self, meaning: &'static str) -> Self {
        Self { meaning, ..self }
    }

    pub(super) const fn formerly(self, name: &'static str) -> Self {
        Self { formerly: Some(name), ..self }
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

impl<T> ValueKind<T> {
    /// Stores the value in its place if it is valid.
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
            Self::Reasoning(field) => field.keep(owner, self.must(value, choice(inner))?),
            Self::Restart(field) => field.keep(owner, self.must(value, choice(inner))?),
            Self::KeepAwake(field) => field.keep(owner, self.must(value, choice(inner))?),
            Self::Secret(field) => field.keep(owner, self.must(value, values::secret(inner))?),
            Self::IdleStop(field) => field.keep(owner, self.must(value, values::idle_stop(inner))?),
            Self::Milliseconds(field) => field.keep(owner, self.must(value, values::milliseconds(inner))?),
            Self::Memory(field) => field.keep(owner, self.must(value, values::memory(inner))?),
            Self::KeepAlive(field) => field.keep(owner, self.must(value, values::keep_alive(inner))?),
            Self::Ports(field) => field.keep(owner, self.must(value, values::ports(inner))?),
            Self::Hosts(field) => field.keep(owner, self.must(value, values::texts_of(inner, is_host))?),
            Self::Origins(field) => {
                field.keep(owner, self.must(value, values::texts_of(inner, values::is_origin))?);
            }
            Self::CommandLine(may_be_empty, field) => {
                field.keep(owner, command_line(value, *may_be_empty)?);
            }
            Self::Endpoint(field) => field.keep(owner, self.must(value, values::endpoint(inner))?),
            Self::Variables(field) => field.keep(owner, self.members(value, variable)?),
            Self::Body(field) => field.keep(owner, self.members(value, body_field)?),
        }
        Ok(())
    }

    /// Returns the value stored in its place; `None` if it is not set.
    pub(super) fn write(&self, owner: &T) -> Option<Value> {
        match self {
            Self::Host(field) | Self::Text(field) | Self::CommandLine(_, field) | Self::Endpoint(field) => {
                field.value(owner).map(Value::from)
            }
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
            Self::Hosts(field) | Self::Origins(field) => field.value(owner).map(Value::from),
            Self::Reasoning(field) => field.value(owner).map(|reasoning| reasoning.name().into()),
            Self::Restart(field) => field.value(owner).map(|policy| policy.name().into()),
            Self::KeepAwake(field) => field.value(owner).map(|when| when.name().into()),
            Self::Secret(field) => {
                field.value(owner).map(|text| if text.is_empty() { text } else { MASK.to_owned() }.into())
            }
            Self::IdleStop(field) => field.value(owner).map(|when| match when {
                IdleStop::Never => 0.into(),
                IdleStop::After(time) => values::from_seconds(time),
            }),
            Self::Milliseconds(field) => {
                field.value(owner).map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).into())
            }
            Self::Memory(field) => field.value(owner).map(|limit| match limit {
                MemoryLimit::Share(percent) => format!("{percent}%").into(),
                MemoryLimit::Bytes(bytes) => values::size_text(bytes).into(),
            }),
            Self::KeepAlive(field) => field.value(owner).map(|time| time.json()),
            Self::Ports(field) => field
                .value(owner)
                .map(|ports| vec![Value::from(*ports.start()), (*ports.end()).into()].into()),
            Self::Variables(field) => field.value(owner).map(order::object),
            Self::Body(field) => field.value(owner).map(Value::from),
        }
    }

    /// Returns the expected type and limits, in words that follow "expected".
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
            Self::Reasoning(_) => choices::<Reasoning>(),
            Self::Restart(_) => choices::<RestartPolicy>(),
            Self::KeepAwake(_) => choices::<KeepAwake>(),
            Self::Secret(_) => "a string without spaces and control characters".to_owned(),
            Self::IdleStop(_) => format!("a number of seconds up to {}, or 0 for never", values::MAX_SECONDS),
            Self::Milliseconds(_) => "a whole number of milliseconds from 1 to 3600000".to_owned(),
            Self::Memory(_) => {
                "a share from \"1%\" to \"100%\", or a size such as \"24GB\" or \"16GiB\"".to_owned()
            }
            Self::KeepAlive(_) => "a number of seconds, a time such as \"10m\", or \"forever\"".to_owned(),
            Self::Ports(_) => "an array of two ports from 1 to 65535, the smaller one first".to_owned(),
            Self::Hosts(_) => "an array of host names, without scheme, port or path".to_owned(),
            Self::Origins(_) => "an array of origins such as \"http://localhost:3000\"".to_owned(),
            Self::CommandLine(..) => "a string that begins with a program".to_owned(),
            Self::Endpoint(_) => {
                "a URL such as \"http://localhost:{port}/health\", or a path such as \"/health\"".to_owned()
            }
            Self::Body(_) => "a table of values that JSON has".to_owned(),
        }
    }

    /// Returns how a value is written on the command line.
    pub(super) fn spelling(&self) -> Spelling {
        match self {
            Self::Host(_)
            | Self::Text(_)
            | Self::Name(_)
            | Self::Reasoning(_)
            | Self::Restart(_)
            | Self::KeepAwake(_)
            | Self::Secret(_)
            | Self::CommandLine(..)
            | Self::Endpoint(_) => Spelling::Text,
            Self::Texts(_) => Spelling::TextUnless('['),
            Self::Size(..) | Self::Memory(_) | Self::KeepAlive(_) => Spelling::TomlOrText,
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
            let found = match self {
                Self::Secret(_) => values::article(value.get_ref()).to_owned(),
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
    let word = value.as_str()?;
    C::ALL.iter().copied().find(|choice| choice.name() == word)
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

impl<T, V> Field<T, V> {
    fn keep(&self, owner: &mut T, value: V) {
        (self.set)(owner, value);
    }

    fn value(&self, owner: &T) -> Option<V> {
        (self.get)(owner)
    }
}

//! The one table of what the file may say: every key with its type, limits, comment and default.
//!
//! The fresh file, validation, suggestions, `config get` and `set`, and completions all follow from it.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use serde_json::Map;
use toml_edit::{Array, InlineTable, Item, Value};

use super::problem::{Fault, RESERVED_FIELDS};
use super::{Prompt, Reasoning, ServiceSettings, values};
use crate::core::address::is_host;
use crate::core::runtimes::Runtime;

/// One key of a table that is kept in a `T`.
pub(super) struct Key<T: 'static> {
    pub(super) name: &'static str,
    /// Its name in version 2.0, if that was another one.
    pub(super) formerly: Option<&'static str>,
    /// One line for the fresh file.
    pub(super) comment: &'static str,
    pub(super) written: Written,
    pub(super) kind: Kind<T>,
}

/// How a key appears in the fresh file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// With its default. Where there is no default, the key does not exist.
    Active,
    /// As a comment, with its default.
    Default,
    /// As a comment, with this example.
    Example(&'static str),
}

/// The type of a key's value, its limits, and where it is kept.
pub(super) enum Kind<T: 'static> {
    /// A host without scheme, port or path.
    Host(Field<T, String>),
    /// 1 to 65535.
    Port(Field<T, u16>),
    /// Any text.
    Text(Field<T, String>),
    /// A text that is not empty.
    Name(Field<T, String>),
    /// `true` or `false`.
    Switch(Field<T, bool>),
    /// A number within limits.
    Number(RangeInclusive<f64>, Field<T, f64>),
    /// A whole number within limits.
    Whole(RangeInclusive<u64>, Field<T, u64>),
    /// A number of bytes within limits: `"50MB"`, or a whole number.
    Size(RangeInclusive<u64>, Field<T, u64>),
    /// A duration in seconds.
    Seconds(Field<T, Duration>),
    /// Arguments of a program.
    Arguments(Field<T, Vec<String>>),
    /// A program and its arguments.
    Command(Field<T, Vec<String>>),
    /// A text, or an array of texts.
    Texts(Field<T, Vec<String>>),
    /// Environment variables.
    Variables(Field<T, BTreeMap<String, String>>),
    /// `"show"` or `"hide"`.
    Reasoning(Field<T, Reasoning>),
    /// Fields of a request body, but for those of [`RESERVED_FIELDS`].
    Body(Field<T, Map<String, serde_json::Value>>),
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
static SERVER: &[Key<ServiceSettings>] = &[
    Key {
        name: "host",
        formerly: None,
        comment: "Where it listens: a host name or an IP address. Whoever reaches it may use it.",
        written: Written::Active,
        kind: Kind::Host(field!(server.address.host)),
    },
    Key {
        name: "port",
        formerly: None,
        comment: "The port it listens on.",
        written: Written::Active,
        kind: Kind::Port(field!(server.address.port)),
    },
    Key {
        name: "model",
        formerly: None,
        comment: "The model it is started with. A relative directory starts at this file's.",
        written: Written::Active,
        kind: Kind::Name(field!(server.model)),
    },
    Key {
        name: "command",
        formerly: None,
        comment: "The program that is started and its arguments, instead of those that fusion finds.",
        written: Written::Example(r#"["/path/to/program", "--option"]"#),
        kind: Kind::Command(field!(server.command)),
    },
    Key {
        name: "args",
        formerly: None,
        comment: "Arguments appended to the command.",
        written: Written::Example(r#"["--option", "value"]"#),
        kind: Kind::Arguments(field!(server.args)),
    },
    Key {
        name: "env",
        formerly: None,
        comment: "Environment variables set for the process.",
        written: Written::Example(r#"{ NAME = "value" }"#),
        kind: Kind::Variables(field!(server.env)),
    },
    Key {
        name: "startup_timeout",
        formerly: None,
        comment: "Seconds that `up` waits for it to be ready.",
        written: Written::Default,
        kind: Kind::Seconds(field!(server.startup_timeout)),
    },
    Key {
        name: "stop_timeout",
        formerly: None,
        comment: "Seconds that `down` waits for it to end before it is killed.",
        written: Written::Default,
        kind: Kind::Seconds(field!(server.stop_timeout)),
    },
    Key {
        name: "auto_start",
        formerly: None,
        comment: "Whether `fusion up` starts it.",
        written: Written::Default,
        kind: Kind::Switch(field!(server.auto_start)),
    },
    Key {
        name: "log_max_size",
        formerly: Some("log_max_mb"),
        comment: "Size above which the log is rotated.",
        written: Written::Default,
        kind: Kind::Size(1_000..=1_000_000_000_000_000, field!(server.log_max_size)),
    },
    Key {
        name: "log_keep",
        formerly: None,
        comment: "How many rotated logs are kept.",
        written: Written::Default,
        kind: Kind::Whole(0..=1000, field!(server.log_keep)),
    },
];

/// `[NAME_run]`.
static RUN: &[Key<ServiceSettings>] = &[
    Key {
        name: "model",
        formerly: None,
        comment: "The model that is asked. A relative directory starts at this file's.",
        written: Written::Active,
        kind: Kind::Name(field!(run.model)),
    },
    Key {
        name: "system_prompt",
        formerly: None,
        comment: "The system message; an empty one is not sent.",
        written: Written::Active,
        kind: Kind::Text(field!(run.system_prompt)),
    },
    Key {
        name: "temperature",
        formerly: None,
        comment: "How freely words are chosen: 0 takes the likeliest, 2 nearly any.",
        written: Written::Active,
        kind: Kind::Number(0.0..=2.0, field!(run.temperature)),
    },
    Key {
        name: "stream",
        formerly: None,
        comment: "Whether the answer is printed while it is generated.",
        written: Written::Active,
        kind: Kind::Switch(field!(run.stream)),
    },
    Key {
        name: "max_tokens",
        formerly: None,
        comment: "The most tokens of an answer.",
        written: Written::Example("1024"),
        kind: Kind::Whole(1..=4_294_967_295, field!(run.max_tokens)),
    },
    Key {
        name: "top_p",
        formerly: None,
        comment: "Words are chosen among the likeliest that add up to this share.",
        written: Written::Example("0.9"),
        kind: Kind::Number(0.0..=1.0, field!(run.top_p)),
    },
    Key {
        name: "seed",
        formerly: None,
        comment: "Makes the choice of words repeatable.",
        written: Written::Example("42"),
        kind: Kind::Whole(0..=9_223_372_036_854_775_807, field!(run.seed)),
    },
    Key {
        name: "stop",
        formerly: None,
        comment: "Texts that end the answer.",
        written: Written::Example(r#"["END"]"#),
        kind: Kind::Texts(field!(run.stop)),
    },
    Key {
        name: "timeout",
        formerly: None,
        comment: "Seconds without a byte after which an answer is given up.",
        written: Written::Default,
        kind: Kind::Seconds(field!(run.timeout)),
    },
    Key {
        name: "start_on_demand",
        formerly: Some("auto_up"),
        comment: "Whether `run` starts the server if it is not running.",
        written: Written::Default,
        kind: Kind::Switch(field!(run.start_on_demand)),
    },
    Key {
        name: "reasoning",
        formerly: None,
        comment: "Whether a model's reasoning is shown on stderr.",
        written: Written::Default,
        kind: Kind::Reasoning(field!(run.reasoning)),
    },
    Key {
        name: "extra_body",
        formerly: Some("extra"),
        comment: "Further fields of the body of every request.",
        written: Written::Example("{ repeat_penalty = 1.1 }"),
        kind: Kind::Body(field!(run.extra_body)),
    },
];

/// `[prompts.NAME]`.
pub(super) static PROMPT: &[Key<Prompt>] = &[
    Key {
        name: "system",
        formerly: None,
        comment: "The system message, instead of `system_prompt`.",
        written: Written::Example(r#""You are a careful reviewer.""#),
        kind: Kind::Text(field!(system)),
    },
    Key {
        name: "model",
        formerly: None,
        comment: "The model that is asked.",
        written: Written::Example(r#""qwen2.5-coder:7b""#),
        kind: Kind::Name(field!(model)),
    },
    Key {
        name: "temperature",
        formerly: None,
        comment: "How freely words are chosen.",
        written: Written::Example("0.2"),
        kind: Kind::Number(0.0..=2.0, field!(temperature)),
    },
    Key {
        name: "template",
        formerly: None,
        comment: "The message; `{input}` stands for the files, the words of the command line and standard input.",
        written: Written::Example(r#""Review this change:\n\n{input}""#),
        kind: Kind::Text(field!(template)),
    },
];

/// The keys of `[NAME_server]` that exist for this runtime.
pub(super) fn server_keys(runtime: &dyn Runtime) -> Vec<&'static Key<ServiceSettings>> {
    existing(SERVER, runtime)
}

/// The keys of `[NAME_run]` that exist for this runtime.
pub(super) fn run_keys(runtime: &dyn Runtime) -> Vec<&'static Key<ServiceSettings>> {
    existing(RUN, runtime)
}

fn existing(
    keys: &'static [Key<ServiceSettings>],
    runtime: &dyn Runtime,
) -> Vec<&'static Key<ServiceSettings>> {
    let defaults = ServiceSettings::default_for(runtime);
    keys.iter().filter(|key| key.written != Written::Active || key.kind.write(&defaults).is_some()).collect()
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

impl<T> Kind<T> {
    /// Keeps the value in its place, if there is nothing wrong with it.
    pub(super) fn read(&self, item: &Item, owner: &mut T) -> Result<(), Vec<Wrong>> {
        match self {
            Self::Host(field) => {
                field.keep(owner, self.must(item, values::text(item).filter(|text| is_host(text)))?);
            }
            Self::Port(field) => field.keep(owner, self.must(item, values::whole(item, &(1..=65_535)))?),
            Self::Text(field) => field.keep(owner, self.must(item, values::text(item))?),
            Self::Name(field) => {
                field.keep(owner, self.must(item, values::text(item).filter(|text| values::is_name(text)))?);
            }
            Self::Switch(field) => field.keep(owner, self.must(item, item.as_bool())?),
            Self::Number(limits, field) => field.keep(owner, self.must(item, values::number(item, limits))?),
            Self::Whole(limits, field) => field.keep(owner, self.must(item, values::whole(item, limits))?),
            Self::Size(limits, field) => field.keep(owner, self.must(item, values::size(item, limits))?),
            Self::Seconds(field) => field.keep(owner, self.must(item, values::seconds(item))?),
            Self::Arguments(field) => field.keep(owner, self.must(item, values::arguments(item))?),
            Self::Command(field) => {
                let command = values::arguments(item)
                    .filter(|words| words.first().is_some_and(|word| values::is_name(word)));
                field.keep(owner, self.must(item, command)?);
            }
            Self::Texts(field) => {
                let one = values::text(item).map(|text| vec![text]);
                field.keep(owner, self.must(item, one.or_else(|| values::texts(item)))?);
            }
            Self::Reasoning(field) => {
                let value = item
                    .as_str()
                    .and_then(|text| Reasoning::ALL.into_iter().find(|value| value.name() == text));
                field.keep(owner, self.must(item, value)?);
            }
            Self::Variables(field) => field.keep(owner, self.members(item, variable)?),
            Self::Body(field) => field.keep(owner, self.members(item, body_field)?),
        }
        Ok(())
    }

    /// The value that is kept in its place; `None` when it is not set.
    pub(super) fn write(&self, owner: &T) -> Option<Value> {
        match self {
            Self::Host(field) | Self::Text(field) | Self::Name(field) => field.value(owner).map(Value::from),
            Self::Port(field) => field.value(owner).map(|port| i64::from(port).into()),
            Self::Switch(field) => field.value(owner).map(Value::from),
            Self::Number(_, field) => field.value(owner).map(Value::from),
            Self::Whole(_, field) => {
                field.value(owner).map(|number| i64::try_from(number).unwrap_or(i64::MAX).into())
            }
            Self::Size(_, field) => field.value(owner).map(values::size_value),
            Self::Seconds(field) => field.value(owner).map(values::seconds_value),
            Self::Arguments(field) | Self::Command(field) | Self::Texts(field) => {
                field.value(owner).map(|texts| texts.into_iter().collect::<Array>().into())
            }
            Self::Reasoning(field) => field.value(owner).map(|reasoning| reasoning.name().into()),
            Self::Variables(field) => {
                field.value(owner).map(|variables| variables.into_iter().collect::<InlineTable>().into())
            }
            Self::Body(field) => field.value(owner).and_then(|members| values::from_json(&members.into())),
        }
    }

    /// What the value must be, in words that follow "expected".
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
                format!("a number of seconds from {} to {}", values::SHORTEST, values::LONGEST)
            }
            Self::Arguments(_) => "an array of strings".to_owned(),
            Self::Command(_) => "an array of strings that begins with a program".to_owned(),
            Self::Texts(_) => "a string or an array of strings".to_owned(),
            Self::Variables(_) => "a table of strings".to_owned(),
            Self::Reasoning(_) => "\"show\" or \"hide\"".to_owned(),
            Self::Body(_) => "a table of values that JSON has".to_owned(),
        }
    }

    /// How a value is written on the command line.
    pub(super) fn spelling(&self) -> Spelling {
        match self {
            Self::Host(_) | Self::Text(_) | Self::Name(_) | Self::Reasoning(_) => Spelling::Text,
            Self::Texts(_) => Spelling::TextUnless('['),
            Self::Size(..) => Spelling::TomlOrText,
            _ => Spelling::Toml,
        }
    }

    /// How a member of this value is written on the command line, if it has members.
    pub(super) fn member_spelling(&self) -> Option<Spelling> {
        match self {
            Self::Variables(_) => Some(Spelling::Text),
            Self::Body(_) => Some(Spelling::TomlOrText),
            _ => None,
        }
    }

    fn must<V>(&self, item: &Item, value: Option<V>) -> Result<V, Vec<Wrong>> {
        value.ok_or_else(|| {
            vec![Wrong {
                member: None,
                span: values::span(item),
                fault: Fault::Value { expected: self.expected(), found: values::found(item) },
            }]
        })
    }

    /// Reads a table's members by `read`. Their values may be secrets: no message quotes them.
    fn members<V, C: Default + Extend<(String, V)>>(
        &self,
        item: &Item,
        read: fn(&str, &Item) -> Result<V, Fault>,
    ) -> Result<C, Vec<Wrong>> {
        let table = self.must(item, item.as_table_like())?;
        let mut wrong = Vec::new();
        let mut values = C::default();
        values.extend(table.iter().filter_map(|(name, item)| {
            let problem = |fault| Wrong { member: Some(name.to_owned()), span: values::span(item), fault };
            read(name, item)
                .map_err(|fault| wrong.push(problem(fault)))
                .ok()
                .map(|value| (name.to_owned(), value))
        }));
        if wrong.is_empty() { Ok(values) } else { Err(wrong) }
    }
}

fn variable(name: &str, item: &Item) -> Result<String, Fault> {
    let wrong = |expected: &str| Fault::Value {
        expected: expected.to_owned(),
        found: values::article(item).to_owned(),
    };
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(wrong("a name of an environment variable, without `=`, before a string"));
    }
    values::text(item).filter(|text| !text.contains('\0')).ok_or_else(|| wrong("a string"))
}

fn body_field(name: &str, item: &Item) -> Result<serde_json::Value, Fault> {
    if RESERVED_FIELDS.contains(&name) {
        return Err(Fault::Reserved);
    }
    values::to_json(item).ok_or_else(|| Fault::Value {
        expected: "a value that JSON has: no date, no infinity".to_owned(),
        found: values::article(item).to_owned(),
    })
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

//! The JSON of an answer: the chunks of a stream, and the whole response, which has `message` in place of `delta`.
//!
//! Texts are borrowed from the JSON unless they have escapes. A field may be null or missing, because servers differ.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::core::json_object::JsonObject;

/// One chunk, or a whole response.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Chunk<'a> {
    /// The model that answers.
    #[serde(borrow)]
    pub model: Anything<'a>,
    #[serde(borrow, deserialize_with = "nullable")]
    pub choices: Vec<Choice<'a>>,
    #[serde(deserialize_with = "usage_if_understood")]
    pub usage: Option<TokenUsage>,
    /// It is an error object if this has content, or `object` is `error`.
    #[serde(borrow)]
    pub error: Anything<'a>,
    #[serde(borrow)]
    pub object: Text<'a>,
}

impl<'a> Chunk<'a> {
    pub fn parse(json: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(json)
    }

    /// Returns the text, if it is borrowed and the chunk has no other content.
    pub fn only_text(&self) -> Option<&'a str> {
        let [Choice { index: 0, delta: Some(delta), message: None, finish_reason }] = self.choices.as_slice()
        else {
            return None;
        };
        let is_bare = self.usage.is_none()
            && finish_reason.is_empty()
            && delta.reasoning_content.is_empty()
            && delta.reasoning.is_empty()
            && delta.tool_calls.is_empty();
        match delta.content.0 {
            Cow::Borrowed(text) if is_bare && !text.is_empty() => Some(text),
            _ => None,
        }
    }
}

/// One choice of the response. fusion requests and uses only the one with index 0.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Choice<'a> {
    #[serde(deserialize_with = "nullable")]
    pub index: u64,
    #[serde(borrow, deserialize_with = "nullable")]
    pub delta: Option<Delta<'a>>,
    #[serde(borrow, deserialize_with = "nullable")]
    pub message: Option<Delta<'a>>,
    #[serde(borrow)]
    pub finish_reason: Text<'a>,
}

/// A part of the answer, or all of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Delta<'a> {
    #[serde(borrow)]
    pub content: Text<'a>,
    /// The field of llama.cpp and vLLM.
    #[serde(borrow)]
    pub reasoning_content: Text<'a>,
    /// The field of Ollama and `mlx_lm.server`.
    #[serde(borrow)]
    pub reasoning: Text<'a>,
    #[serde(deserialize_with = "tool_calls")]
    pub tool_calls: Vec<ToolCallDelta>,
}

/// A part of a tool call. The parts of one call have the same index.
#[derive(Debug, Default)]
pub struct ToolCallDelta {
    pub index: Option<u64>,
    pub id: Option<String>,
    /// The name of the function.
    pub name: Option<String>,
    /// Its arguments arrive in parts.
    pub arguments: Option<String>,
}

impl ToolCallDelta {
    fn read(call: &Value) -> Result<Self, serde_json::Error> {
        let call = JsonObject::new(call, "a tool call")?;
        let function = call.object("function")?;
        let of_function = |name| function.as_ref().map_or(Ok(None), |function| function.text(name));
        Ok(Self {
            index: call.number("index")?,
            id: call.text("id")?,
            name: of_function("name")?,
            arguments: of_function("arguments")?,
        })
    }
}

/// The number of tokens of a request, as the server counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TokenUsage {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens of the answer, with its reasoning.
    pub completion_tokens: u64,
    /// The sum.
    pub total_tokens: u64,
}

impl TokenUsage {
    fn read(usage: &Value) -> Option<Self> {
        let usage = usage.as_object()?;
        let count = |name| usage.get(name).map_or(Some(0), Value::as_u64);
        Some(Self {
            prompt_tokens: count("prompt_tokens")?,
            completion_tokens: count("completion_tokens")?,
            total_tokens: count("total_tokens")?,
        })
    }

    /// Fills in the total, which some servers leave out.
    #[must_use]
    pub fn summed(self) -> Self {
        match self.total_tokens {
            0 => Self { total_tokens: self.prompt_tokens.saturating_add(self.completion_tokens), ..self },
            _ => self,
        }
    }
}

/// A text that may be null or missing, which means empty.
#[derive(Debug, Default)]
pub struct Text<'a>(pub Cow<'a, str>);

impl Text<'_> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string or null")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
            fn visit_unit<E>(self) -> Result<Text<'de>, E> {
                Ok(Text::default())
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

/// A field of any type.
#[derive(Debug, Default)]
pub enum Anything<'a> {
    /// Missing, null or `false`.
    #[default]
    Nothing,
    Text(Cow<'a, str>),
    Other,
}

impl Anything<'_> {
    /// Returns whether it has content.
    pub fn is_said(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Text(text) => !text.is_empty(),
            Self::Other => true,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Anything<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnythingVisitor;
        impl<'de> Visitor<'de> for AnythingVisitor {
            type Value = Anything<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("anything")
            }
            fn visit_unit<E>(self) -> Result<Anything<'de>, E> {
                Ok(Anything::Nothing)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Anything<'de>, E> {
                Ok(if value { Anything::Other } else { Anything::Nothing })
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Anything<'de>, E> {
                Ok(Anything::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Anything<'de>, E> {
                Ok(Anything::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Anything<'de>, E> {
                Ok(Anything::Other)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Anything<'de>, E> {
                Ok(Anything::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Anything<'de>, E> {
                Ok(Anything::Other)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Anything<'de>, A::Error> {
                while sequence.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Anything::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Anything<'de>, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Anything::Other)
            }
        }
        deserializer.deserialize_any(AnythingVisitor)
    }
}

/// Returns the JSON with U+FFFD for each escaped lone surrogate; `None` if there is none. Servers send them when they
/// cut text between two UTF-16 units.
pub fn without_lone_halves(json: &str) -> Option<String> {
    let unit = |start: usize| {
        let digits = json.get(start..start + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut mended, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(escape) = json.get(at..).and_then(|rest| rest.find('\\')) {
        let start = at + escape;
        at = start
            + match (unit(start), unit(start + 6)) {
                (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
                (Some(0xd800..=0xdfff), _) => {
                    mended.push_str(&json[copied..start]);
                    mended.push_str("\\ufffd");
                    copied = start + 6;
                    6
                }
                (Some(_), _) => 6,
                // The backslash and the escaped character.
                (None, _) => 1 + json[start + 1..].chars().next().map_or(0, char::len_utf8),
            };
    }
    (copied > 0).then(|| mended + &json[copied..])
}

/// Reads the usage, which accompanies the text; ignores a value of an unknown form rather than rejecting the chunk.
fn usage_if_understood<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TokenUsage>, D::Error> {
    Ok(TokenUsage::read(&Value::deserialize(deserializer)?))
}

fn tool_calls<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ToolCallDelta>, D::Error> {
    let calls = match Value::deserialize(deserializer)? {
        Value::Null => return Ok(Vec::new()),
        Value::Array(calls) => calls,
        _ => return Err(D::Error::custom("the tool calls are no array")),
    };
    calls.iter().map(|call| ToolCallDelta::read(call).map_err(D::Error::custom)).collect()
}

fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lone_surrogates_are_replaced() {
        for (json, mended) in [
            (r#"{"a":"\ud83d\ude42 \u00e9 \\ud83d \n"}"#, None),
            (r#"{"a":"\ud83d"}"#, Some(r#"{"a":"\ufffd"}"#)),
            (r#"{"a":"\uDE42\ud83d\ude42\uD83Dx"}"#, Some(r#"{"a":"\ufffd\ud83d\ude42\ufffdx"}"#)),
            (r#"{"a":"\ud83d\ud83d\ude42"}"#, Some(r#"{"a":"\ufffd\ud83d\ude42"}"#)),
            (r#"{"a":"\u12"#, None),
            (r#"{"a":"\"#, None),
            ("\\é", None),
        ] {
            assert_eq!(without_lone_halves(json).as_deref(), mended, "{json}");
        }
    }
}

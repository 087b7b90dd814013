//! Asks a model whether it can do something here: call tools, follow a JSON Schema, see images.

use std::io;

use serde_json::{Value, json};

use super::app::App;
use crate::core::address::Address;
use crate::core::api::Client;
use crate::core::api::chat::{Answer, ChatError, Receiver};
use crate::core::api::error::{ServerError, ServerErrorKind};
use crate::core::api::idle_timeout::IdleTimeout;
use crate::core::cancel::CancelToken;
use crate::core::schema::Schema;
use crate::core::services::ManagedService;

/// Maximum length of the answer to a test, with the reasoning before it.
const MAX_TOKENS: u32 = 1_024;

/// Maximum number of characters that are quoted of an answer.
const MAX_QUOTED_CHARACTERS: usize = 100;

/// An image of each colour, as PNG: a model that sees none answers the same to both.
const IMAGES: [(&str, &str); 2] = [
    (
        "red",
        "iVBORw0KGgoAAAANSUhEUgAAAOAAAADgAQMAAAAg4/iiAAAAA1BMVEX/AAAZ4gk3AAAAHUlEQVR42u3BMQEAAADCoPVPbQZ/oAAAAAAAAHgMGWAAAQrTbh4AAAAASUVORK5CYII=",
    ),
    (
        "blue",
        "iVBORw0KGgoAAAANSUhEUgAAAOAAAADgAQMAAAAg4/iiAAAAA1BMVEUAAP+KeNJXAAAAHUlEQVR42u3BMQEAAADCoPVPbQZ/oAAAAAAAAHgMGWAAAQrTbh4AAAAASUVORK5CYII=",
    ),
];

/// The colours among which a model chooses.
const COLORS: [&str; 4] = ["red", "green", "blue", "yellow"];

/// The schema of an answer that no question after it leads to.
const SCHEMA: &str = r#"{"type":"object","properties":{"color":{"enum":["red","green","blue"]},"number":{"type":"integer"}},"required":["color","number"],"additionalProperties":false}"#;

/// One function.
const TOOLS: &str = r#"[{"type":"function","function":{"name":"get_weather","description":"Returns the present weather in a city","parameters":{"type":"object","properties":{"city":{"type":"string","description":"Name of the city"}},"required":["city"]}}}]"#;

/// What every request has, besides its question.
const BODY: &str = r#"{"temperature":0.0,"stream":true,"stream_options":{"include_usage":true}}"#;

/// What a model is asked to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// It calls a tool when it is asked for that.
    Tools,
    /// Its answers satisfy a schema that the request has.
    Schema,
    /// It sees images.
    Vision,
}

/// The result of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AbilityTest {
    Passed,
    /// What the model or its server said instead, or what was wrong with it.
    Failed {
        said: String,
    },
}

/// A test got no answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot ask {model} {}", ability.question())]
pub struct AbilityError {
    pub model: String,
    pub ability: Ability,
    pub source: ChatError,
}

impl Ability {
    /// Returns what is asked of a model, in words that follow "asking MODEL".
    pub fn question(self) -> &'static str {
        match self {
            Self::Tools => "for a tool call",
            Self::Schema => "to follow a JSON Schema",
            Self::Vision => "about two images",
        }
    }

    /// Returns the requests of the test.
    fn bodies(self, model: &str) -> Vec<Value> {
        match self {
            Self::Tools => vec![tools_body(model)],
            Self::Schema => vec![schema_body(model)],
            Self::Vision => IMAGES.iter().map(|(_, image)| vision_body(model, image)).collect(),
        }
    }

    /// Returns whether the answer to the request with this number shows the ability; otherwise what was wrong with it.
    fn judge(self, number: usize, answer: &Answer, text: &str) -> AbilityTest {
        let is_shown = match self {
            Self::Tools => answer.tool_calls.iter().any(|call| is_call(&call.name, &call.arguments)),
            Self::Vision => IMAGES.get(number).is_some_and(|(color, _)| names_only(text, color)),
            Self::Schema => match Schema::parse(SCHEMA).map(|schema| schema.check(text)) {
                Ok(Err(violation)) if answer.finish_reason.as_deref() != Some("length") => {
                    return AbilityTest::Failed { said: format!("{}: {violation}", quoted(text)) };
                }
                checked => matches!(checked, Ok(Ok(()))),
            },
        };
        if is_shown {
            return AbilityTest::Passed;
        }
        let is_cut = answer.finish_reason.as_deref() == Some("length");
        let cut = if is_cut { format!(" (cut at {MAX_TOKENS} tokens)") } else { String::new() };
        AbilityTest::Failed { said: format!("{}{cut}", quoted(text)) }
    }

    /// Returns whether the server refuses a request because the model, or itself, lacks the ability.
    fn is_refused_by(self, error: &ServerError) -> bool {
        let words: &[&str] = match self {
            Self::Tools => &["tool"],
            Self::Schema => &["schema", "grammar", "response_format", "json"],
            Self::Vision => &["image", "vision", "multimodal", "mmproj", "content type"],
        };
        let message = error.message.to_lowercase();
        error.kind != ServerErrorKind::ModelMissing && words.iter().any(|word| message.contains(word))
    }
}

impl App {
    /// Asks the model, by the server's name for it, to show that it can do this. The server must run.
    pub fn test_ability(
        &self,
        service: &ManagedService,
        address: &Address,
        model: &str,
        ability: Ability,
        cancel: &CancelToken,
    ) -> Result<AbilityTest, AbilityError> {
        let _in_use = service.use_it(cancel);
        let idle_timeout = IdleTimeout::cancellable(service.settings.run.timeout, cancel);
        for (number, body) in ability.bodies(model).iter().enumerate() {
            let mut said = Said::default();
            let outcome = Client::with_idle_timeout(address, &idle_timeout).chat(body, &mut said);
            let test = match outcome.result {
                Ok(()) => ability.judge(number, &outcome.answer, &said.0),
                Err(ChatError::Server(error)) if ability.is_refused_by(&error) => {
                    AbilityTest::Failed { said: error.message }
                }
                Err(source) => return Err(AbilityError { model: model.to_owned(), ability, source }),
            };
            if test != AbilityTest::Passed {
                return Ok(test);
            }
        }
        Ok(AbilityTest::Passed)
    }
}

fn quoted(text: &str) -> String {
    text.trim().chars().take(MAX_QUOTED_CHARACTERS).collect()
}

/// Returns the value of a constant, which is JSON.
fn constant(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_default()
}

fn body(model: &str, content: &Value) -> Value {
    let mut body = constant(BODY);
    body["model"] = model.into();
    body["max_tokens"] = MAX_TOKENS.into();
    body["messages"] = json!([{ "role": "user", "content": content }]);
    body
}

/// A question that only the function can answer.
fn tools_body(model: &str) -> Value {
    let mut body = body(model, &"What is the weather in Paris now? Use the tool.".into());
    body["tools"] = constant(TOOLS);
    body
}

/// A schema, and a question to which the natural answer does not satisfy it.
fn schema_body(model: &str) -> Value {
    let mut body = body(model, &"Say hello in one short sentence.".into());
    body["response_format"] = super::request::response_format(&constant(SCHEMA));
    body
}

fn vision_body(model: &str, image: &str) -> Value {
    let url = format!("data:image/png;base64,{image}");
    let question = format!("Which colour is this image: {}? Answer with one word.", COLORS.join(", "));
    let content =
        json!([{ "type": "image_url", "image_url": { "url": url } }, { "type": "text", "text": question }]);
    body(model, &content)
}

fn is_call(name: &str, arguments: &str) -> bool {
    name == "get_weather" && serde_json::from_str::<Value>(arguments).is_ok_and(|value| value.is_object())
}

/// Returns whether the text names this colour and no other.
fn names_only(text: &str, color: &str) -> bool {
    let text = text.to_lowercase();
    let words: Vec<&str> = text.split(|character: char| !character.is_alphanumeric()).collect();
    COLORS.iter().all(|known| words.contains(known) == (*known == color))
}

/// Keeps the text of an answer.
#[derive(Default)]
struct Said(String);

impl Receiver for Said {
    fn text(&mut self, text: &str) -> io::Result<()> {
        self.0.push_str(text);
        Ok(())
    }

    fn reasoning(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn progress(&mut self, _: u64, _: u64) {}

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_json() {
        for json in [BODY, TOOLS, SCHEMA] {
            assert_ne!(constant(json), Value::Null, "{json}");
        }
    }

    #[test]
    fn only_the_function_with_arguments_is_a_call() {
        for (name, arguments, expected) in [
            ("get_weather", r#"{"city":"Paris"}"#, true),
            ("get_weather", "Paris", false),
            ("other", "{}", false),
        ] {
            assert_eq!(is_call(name, arguments), expected, "{name} {arguments}");
        }
    }

    #[test]
    fn an_answer_must_name_one_colour() {
        for (text, expected) in [
            ("Red.", true),
            ("It is coloured", false),
            ("red or blue", false),
            ("", false),
            ("**red**", true),
        ] {
            assert_eq!(names_only(text, "red"), expected, "{text}");
        }
    }

    #[test]
    fn an_answer_must_satisfy_the_schema() {
        let judge = |text: &str, finish: &str| {
            let answer = Answer { finish_reason: Some(finish.to_owned()), ..Answer::default() };
            Ability::Schema.judge(0, &answer, text)
        };
        let failed = |said: &str| AbilityTest::Failed { said: said.to_owned() };
        assert_eq!(judge(r#"{"color":"red","number":1}"#, "stop"), AbilityTest::Passed);
        assert_eq!(judge("Hi!", "stop"), failed("Hi!: it is not JSON: expected value at line 1 column 1"));
        assert_eq!(judge("{\"color\"", "length"), failed("{\"color\" (cut at 1024 tokens)"));
    }

    #[test]
    fn refusals_differ_from_failures() {
        let error = |message: &str| ServerError {
            status: 400,
            message: message.to_owned(),
            kind: ServerErrorKind::BadRequest,
        };
        for (ability, message, expected) in [
            (Ability::Tools, "registry.ollama.ai/library/a does not support tools", true),
            (
                Ability::Vision,
                "image input is not supported - hint: you may need to provide the mmproj",
                true,
            ),
            (Ability::Vision, "Only 'text' content type is supported.", true),
            (Ability::Schema, "Failed to parse grammar", true),
            (Ability::Tools, "CUDA error: out of memory", false),
        ] {
            assert_eq!(ability.is_refused_by(&error(message)), expected, "{message}");
        }
    }
}

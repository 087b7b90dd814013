//! What a user is told about a prompt, before it is sent and after its answer, because the server says nothing.

use std::time::Duration;

use serde_json::Value;

use super::app::App;
use super::models::{LIST_TIMEOUT, Named};
use super::prompt::Server;
use super::request::Request;
use crate::core::address::Address;
use crate::core::api::Client;
use crate::core::api::chat::Answer;
use crate::core::cancel::CancelToken;
use crate::core::models::catalogue::Abilities;
use crate::core::runtimes::{Advice, Runtime};
use crate::core::services::ManagedService;

/// No language has more characters per token: prose has about 4, code 3.
const MAX_CHARACTERS_PER_TOKEN: u64 = 7;

/// A prompt with fewer characters per token may be whole, if its count only looks like a context length.
const MIN_CHARACTERS_PER_TOKEN: u64 = 3;

/// A prompt of rare words may have more characters per token if it is shorter.
const MIN_CHECKED_CHARACTERS: u64 = 2_000;

/// The shortest context length that servers have by default.
const MIN_CONTEXT_TOKENS: u64 = 2_048;

/// No model has a context that is shorter: the server is not asked about fewer tokens.
const MIN_FILLED_TOKENS: u64 = 64;

/// Tokens at the beginning and end of a prompt that stand for no text.
const MAX_BARE_TOKENS: u64 = 4;

/// What a user is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The server ignores the field.
    IgnoredField(Advice),
    /// The model does not see the images of the prompt.
    NoVision,
    /// The prompt will not fit into the context.
    TooLong {
        /// The prompt has at least this many tokens.
        tokens: u64,
        context: u64,
    },
    /// The server has cut the prompt.
    Cut {
        /// What is left of it.
        tokens: u64,
        characters: u64,
        /// Whether the context length is known to be the reason.
        is_certain: bool,
    },
    /// The model has no chat template that the server reads.
    NoTemplate,
}

/// What is known of an answer and its model, to judge whether the prompt was cut.
#[derive(Debug, Clone, Copy)]
struct Counted {
    characters: u64,
    /// As the server counts it.
    prompt_tokens: u64,
    context: Option<u64>,
}

impl Counted {
    /// Returns whether the server has cut the prompt: Ollama cuts it to its context length, older versions to half of
    /// it and two tokens.
    fn is_cut(self) -> bool {
        let Self { characters, prompt_tokens: tokens, context } = self;
        let is_over = |ratio: u64| characters > tokens.saturating_mul(ratio);
        let is_default = |context: u64| context >= MIN_CONTEXT_TOKENS && context.is_power_of_two();
        let is_half = |context: u64| tokens == context / 2 + 2;
        let looks_cut = match context {
            Some(context) if tokens == context => return true,
            Some(context) => is_half(context),
            None => {
                is_default(tokens)
                    || tokens.checked_sub(2).is_some_and(|half| is_default(half.saturating_mul(2)))
            }
        };
        tokens > 0
            && ((looks_cut && is_over(MIN_CHARACTERS_PER_TOKEN))
                || (characters >= MIN_CHECKED_CHARACTERS && is_over(MAX_CHARACTERS_PER_TOKEN)))
    }
}

impl Server {
    /// Returns the context length of `model` in tokens, if the server runs and tells it.
    pub fn context(&self, service: &ManagedService, model: &str) -> Option<u64> {
        context_at(LIST_TIMEOUT, service, self.address()?, model)
    }
}

impl App {
    /// Returns the fields of a request that the server ignores.
    pub fn ignored_fields(service: &ManagedService, request: &Request) -> Vec<Notice> {
        let known = service.runtime().map_or(&[][..], Runtime::ignored_fields).iter();
        let ignored = known.filter(|field| request.body.get(field.about).is_some());
        ignored.copied().map(Notice::IgnoredField).collect()
    }

    /// Returns what to tell about a request before it is sent. Asks the server only about images and about prompts that
    /// exceed the shortest context.
    pub fn notices_before(
        &self,
        service: &ManagedService,
        server: &Server,
        request: &Request,
        cancel: &CancelToken,
    ) -> Vec<Notice> {
        let (Some(runtime), Some(address)) = (service.runtime(), server.address()) else { return Vec::new() };
        let (body, mut notices) = (&request.body, Vec::new());
        if has_images(body) && self.abilities(service, address, request, cancel).vision == Some(false) {
            notices.push(Notice::NoVision);
        }
        let tokens = characters(body) / MAX_CHARACTERS_PER_TOKEN;
        if tokens > MIN_CONTEXT_TOKENS
            && runtime.cuts_prompts()
            && let Some(context) = self.context_before(service, address, request, cancel)
            && tokens > context
        {
            notices.push(Notice::TooLong { tokens, context });
        }
        notices
    }

    /// Returns what to tell about an answer of `server`; `context` is the context length of its model, if known already.
    pub fn notices_after(
        &self,
        service: &ManagedService,
        server: &Server,
        request: &Request,
        answer: &Answer,
        context: Option<u64>,
        cancel: &CancelToken,
    ) -> Vec<Notice> {
        let mut notices = Vec::new();
        let prompt_tokens = answer.usage.map(|usage| usage.prompt_tokens).unwrap_or_default();
        let context = context.or_else(|| {
            (prompt_tokens >= MIN_FILLED_TOKENS)
                .then(|| server.context(service, &request.model.name))
                .flatten()
        });
        let counted = Counted { characters: characters(&request.body), prompt_tokens, context };
        if counted.is_cut() {
            let is_certain = context == Some(prompt_tokens);
            notices.push(Notice::Cut { tokens: prompt_tokens, characters: counted.characters, is_certain });
        }
        if may_lack_template(service, &request.body, prompt_tokens)
            && let Some(address) = server.address()
            && self.abilities(service, address, request, cancel).chat_template == Some(false)
        {
            notices.push(Notice::NoTemplate);
        }
        notices
    }

    /// Returns the context length of `model` in tokens, if the server of this service runs and tells it.
    pub fn context_of(&self, service: &ManagedService, model: &str, cancel: &CancelToken) -> Option<u64> {
        let endpoint = self.manager(cancel).find_endpoint(service).ok()??;
        context_at(LIST_TIMEOUT, service, &endpoint.address, model)
    }

    /// Returns the same of a server that fusion started, unless that takes longer to tell it. Another one would have to
    /// be recognised first.
    pub fn context_of_own_within(
        &self,
        timeout: Duration,
        service: &ManagedService,
        model: &str,
        cancel: &CancelToken,
    ) -> Option<u64> {
        let endpoint = self.manager(cancel).running(service).ok()??;
        context_at(timeout, service, &endpoint.address, model)
    }

    /// Returns the context length before a prompt. Loads the model if it is not loaded, as the prompt would do: the
    /// server tells the length of loaded models only.
    fn context_before(
        &self,
        service: &ManagedService,
        address: &Address,
        request: &Request,
        cancel: &CancelToken,
    ) -> Option<u64> {
        let model = &request.model.name;
        context_at(LIST_TIMEOUT, service, address, model).or_else(|| {
            self.models(service, cancel).ok()?.load_for_prompt(address, &Named::resolved(model)).ok()?;
            context_at(LIST_TIMEOUT, service, address, model)
        })
    }

    fn abilities(
        &self,
        service: &ManagedService,
        address: &Address,
        request: &Request,
        cancel: &CancelToken,
    ) -> Abilities {
        let models = self.models(service, cancel).ok();
        models.and_then(|models| models.abilities(address, &request.model.name)).unwrap_or_default()
    }
}

/// Returns the context length of `model` in tokens, if the server at `address` tells it.
pub(super) fn context_at(
    timeout: Duration,
    service: &ManagedService,
    address: &Address,
    model: &str,
) -> Option<u64> {
    let probe = service.runtime()?.context_probe()?;
    let response = Client::with_timeout(address, timeout).with_long_responses().get(probe.path).ok()?;
    (probe.read)(&response, model)
}

/// Returns whether the model may have no chat template. A bare prompt has at most one token for each byte of its text;
/// with a template it mostly has more. A count of 0 is none.
fn may_lack_template(service: &ManagedService, body: &Value, prompt_tokens: u64) -> bool {
    let is_told_by_count = service.runtime().is_some_and(Runtime::cuts_prompts);
    let bytes = texts(body).last().map_or(0, |text| text.len() as u64);
    !is_told_by_count || (0..=bytes.saturating_add(MAX_BARE_TOKENS)).contains(&prompt_tokens)
}

/// Returns the texts of all messages.
fn texts(body: &Value) -> impl Iterator<Item = &str> {
    let messages = body["messages"].as_array().into_iter().flatten();
    messages.flat_map(|message| {
        let parts = message["content"].as_array().into_iter().flatten();
        message["content"].as_str().into_iter().chain(parts.filter_map(|part| part["text"].as_str()))
    })
}

fn has_images(body: &Value) -> bool {
    let messages = body["messages"].as_array().into_iter().flatten();
    messages
        .filter_map(|message| message["content"].as_array())
        .flatten()
        .any(|part| part["type"] == "image_url")
}

/// Returns the number of characters of all messages; white space in a row counts as one.
fn characters(body: &Value) -> u64 {
    let count = |text: &str| {
        let words = text.split_whitespace();
        let (words, characters) = words
            .fold((0, 0), |(words, characters), word| (words + 1, characters + word.chars().count() as u64));
        characters + u64::saturating_sub(words, 1)
    };
    texts(body).map(count).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cut_prompt_is_known_by_its_counts() {
        for (characters, prompt_tokens, context, is_cut) in [
            // Exactly the known context, whatever the prompt.
            (10, 64, Some(64), true),
            (10, 63, Some(64), false),
            // Half of the context and two, with more than three characters a token.
            (200_000, 2050, Some(4096), true),
            (2050 * 3 + 1, 2050, Some(4096), true),
            (2050 * 3, 2050, Some(4096), false),
            // A power of two, of which nobody tells the meaning.
            (2048 * 3 + 1, 2048, None, true),
            (2048 * 3, 2048, None, false),
            (1_000, 1024, None, false),
            (1024 * 3 + 1, 1024, None, false),
            (110 * 1024, 16_386, None, true),
            (1026 * 3 + 1, 1026, None, true),
            (514 * 3 + 1, 514, None, false),
            (2048 * 4, 2048, Some(8192), false),
            // More than seven characters a token.
            (7_001, 1_000, Some(8192), true),
            (7_000, 1_000, Some(8192), false),
            (1_999, 100, None, false),
            (200_000, 0, None, false),
        ] {
            let counted = Counted { characters, prompt_tokens, context };
            assert_eq!(counted.is_cut(), is_cut, "{counted:?}");
        }
    }

    #[test]
    fn white_space_in_a_row_is_one_character() {
        let text = |text: &str| characters(&json!({ "messages": [{ "role": "user", "content": text }] }));
        assert_eq!(text("one  \n\t two"), 7);
        assert_eq!(text("  "), 0);
        let parts = json!([{ "type": "image_url", "image_url": {} }, { "type": "text", "text": "grün" }]);
        let body = json!({ "messages": [{ "content": "abc" }, { "content": parts }] });
        assert_eq!((characters(&body), has_images(&body)), (7, true));
    }
}

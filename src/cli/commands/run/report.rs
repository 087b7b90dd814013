//! What is said of an answer besides its text: the object of `--json`, statistics, warnings.

use std::time::Duration;

use serde::Serialize;

use super::sink::Sink;
use crate::cli::terminal::ui::Ui;
use crate::core::api::chat::{Answer, TokenUsage, ToolCall};
use crate::core::api::error::clean;
use crate::core::services::ManagedService;

/// The fewest visible characters of a prompt from which a cut by the server is judged.
const JUDGED_PROMPT: u64 = 2_000;

/// More visible characters than this to a token are in no language that a model knows: prose has about 4, code 3.
const CHARACTERS_PER_TOKEN: u64 = 7;

/// The lengths of context that servers cut prompts to are multiples of this.
const CONTEXT_STEP: u64 = 1_024;

/// The object that `--json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    service: &'a str,
    runtime: Option<&'static str>,
    model: &'a str,
    text: &'a str,
    reasoning: &'a str,
    finish_reason: Option<&'a str>,
    usage: Option<TokenUsage>,
    timing: Timing,
    tool_calls: &'a [ToolCall],
    context: Context,
}

/// The context of the loaded model, in tokens; null where it is not known.
#[derive(Debug, Default, Serialize)]
struct Context {
    size: Option<u64>,
    /// What this exchange leaves of it.
    left: Option<u64>,
}

impl<'a> Report<'a> {
    /// Of what `sink` kept of an answer.
    pub(super) fn new(
        service: &'a ManagedService,
        model: &'a str,
        sink: &'a Sink,
        answer: &'a Answer,
        timing: Timing,
    ) -> Self {
        Self {
            service: &service.name,
            runtime: service.runtime().map(crate::core::runtimes::Runtime::name),
            model,
            text: sink.text.as_deref().unwrap_or_default(),
            reasoning: sink.reasoning.as_deref().unwrap_or_default(),
            finish_reason: answer.finish_reason.as_deref(),
            usage: answer.usage,
            timing,
            tool_calls: &answer.tool_calls,
            context: Context::default(),
        }
    }
}

/// How long the answer took.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Timing {
    /// Of an answer that came as a whole, nobody knows.
    first_token_ms: Option<f64>,
    total_ms: f64,
    /// From the first token to the end, the first not counted, because what it took was mostly reading the prompt; of
    /// an answer that came as a whole, from the request on.
    tokens_per_second: Option<f64>,
}

impl Timing {
    /// Of an answer whose first piece came after `first`, and the last after `total`.
    pub(super) fn new(first: Option<Duration>, total: Duration, answer: &Answer) -> Self {
        let first = first.filter(|_| answer.streamed);
        let tokens = answer.usage.map(|usage| usage.completion_tokens).unwrap_or_default();
        let (tokens, spent) = match first {
            Some(first) => (tokens.saturating_sub(1), total.saturating_sub(first)),
            None => (tokens, total),
        };
        #[allow(clippy::cast_precision_loss)] // No answer has 2^52 tokens.
        let speed =
            (tokens > 0).then(|| tokens as f64 / spent.as_secs_f64()).filter(|speed| speed.is_finite());
        Self {
            first_token_ms: first.map(milliseconds),
            total_ms: milliseconds(total),
            tokens_per_second: speed.map(|speed| (speed * 10.0).round() / 10.0),
        }
    }

    /// For people: `first token after 0.21 s, 63.4 tokens/s, 24 + 180 tokens, 3.0 s in all`.
    pub(super) fn in_words(&self, usage: Option<TokenUsage>) -> String {
        let mut parts = Vec::new();
        if let Some(first) = self.first_token_ms {
            parts.push(format!("first token after {:.2} s", first / 1000.0));
        }
        if let Some(speed) = self.tokens_per_second {
            parts.push(format!("{speed:.1} tokens/s"));
        }
        if let Some(usage) = usage {
            parts.push(format!(
                "{} tokens of prompt, {} of answer",
                usage.prompt_tokens, usage.completion_tokens
            ));
        }
        parts.push(format!("{:.2} s in all", self.total_ms / 1000.0));
        parts.join(", ")
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// Warns of what a reader of the answer should know.
pub(super) fn warn(ui: &Ui, answer: &Answer, has_text: bool, prompt: &str) {
    for call in &answer.tool_calls {
        ui.warning(&format!(
            "the model asks for the tool {}({}), which is not called",
            clean(&call.name),
            clean(&call.arguments)
        ));
    }
    match answer.finish_reason.as_deref() {
        Some("length") if has_text => {
            ui.warning("the answer was cut at the token limit; --max-tokens raises it");
        }
        Some("length") => {
            ui.warning("the token limit was reached before the answer began; --max-tokens raises it");
        }
        Some("content_filter") => ui.warning("the server withheld a part of the answer (content_filter)"),
        _ if !has_text && answer.tool_calls.is_empty() => ui.warning("the model returned an empty answer"),
        _ => {}
    }
    if let Some(usage) = answer.usage
        && is_cut_short(prompt, usage.prompt_tokens)
    {
        ui.warning(&format!(
            "the server counted {} tokens in a prompt of {} characters: it has probably cut the prompt to its \
             context length",
            usage.prompt_tokens,
            prompt.chars().count()
        ));
    }
}

/// Whether a server that counted so many tokens has hardly read the whole prompt. A count that is exactly a length of
/// context is suspicious already where it would be possible.
fn is_cut_short(prompt: &str, tokens: u64) -> bool {
    let visible = prompt.chars().filter(|character| !character.is_whitespace()).count() as u64;
    let is_context = tokens.is_multiple_of(CONTEXT_STEP);
    let possible = tokens * if is_context { CHARACTERS_PER_TOKEN / 2 } else { CHARACTERS_PER_TOKEN };
    tokens > 0 && visible > JUDGED_PROMPT && visible > possible
}

//! What is printed about an answer besides its text: the object of `--json`, statistics, warnings.

use std::time::Duration;

use serde::Serialize;

use super::sink::Sink;
use crate::cli::terminal::ui::Ui;
use crate::core::api::chat::{Answer, TokenUsage, ToolCall};
use crate::core::api::error::clean;
use crate::core::services::ManagedService;

/// A shorter prompt is not checked for a cut by the server.
const MIN_CHECKED_CHARACTERS: u64 = 2_000;

/// No language has more visible characters per token: prose has about 4, code 3.
const MAX_CHARACTERS_PER_TOKEN: u64 = 7;

/// The context lengths that servers cut prompts to are multiples of this.
const CONTEXT_STEP_TOKENS: u64 = 1_024;

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

/// The context length of the loaded model, in tokens; null where unknown.
#[derive(Debug, Default, Serialize)]
struct Context {
    size: Option<u64>,
    /// Tokens left after this request.
    left: Option<u64>,
}

impl<'a> Report<'a> {
    /// Returns the report of the answer that `sink` kept.
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
    /// Null for an answer that came as a whole.
    first_token_ms: Option<f64>,
    total_ms: f64,
    /// From the first token to the end, without the first token, whose time was mostly prefill; from the request on for
    /// an answer that came as a whole.
    tokens_per_second: Option<f64>,
}

impl Timing {
    /// Returns the timing of an answer whose first delta came after `first`, and the last after `total`.
    pub(super) fn new(first: Option<Duration>, total: Duration, answer: &Answer) -> Self {
        let first = first.filter(|_| answer.streamed);
        let tokens = answer.usage.map(|usage| usage.completion_tokens).unwrap_or_default();
        let (tokens, spent) = match first {
            Some(first) => (tokens.saturating_sub(1), total.saturating_sub(first)),
            None => (tokens, total),
        };
        #[expect(clippy::cast_precision_loss, reason = "no answer has 2^52 tokens")]
        let speed =
            (tokens > 0).then(|| tokens as f64 / spent.as_secs_f64()).filter(|speed| speed.is_finite());
        Self {
            first_token_ms: first.map(milliseconds),
            total_ms: milliseconds(total),
            tokens_per_second: speed.map(|speed| (speed * 10.0).round() / 10.0),
        }
    }

    /// Returns it in words: `first token after 0.21 s, 63.4 tokens/s, 24 prompt tokens, 180 generated, 3.00 s total`.
    pub(super) fn summary(&self, usage: Option<TokenUsage>) -> String {
        let mut parts = Vec::new();
        if let Some(first) = self.first_token_ms {
            parts.push(format!("first token after {:.2} s", first / 1000.0));
        }
        if let Some(speed) = self.tokens_per_second {
            parts.push(format!("{speed:.1} tokens/s"));
        }
        if let Some(usage) = usage {
            parts.push(format!(
                "{} prompt tokens, {} generated",
                usage.prompt_tokens, usage.completion_tokens
            ));
        }
        parts.push(format!("{:.2} s total", self.total_ms / 1000.0));
        parts.join(", ")
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

/// Warns about what is unusual in the answer.
pub(super) fn warn(ui: &Ui, answer: &Answer, has_text: bool, prompt: &str) {
    for call in &answer.tool_calls {
        ui.warning(&format!(
            "the model requested the tool call {}({}), which fusion does not make",
            clean(&call.name),
            clean(&call.arguments)
        ));
    }
    match answer.finish_reason.as_deref() {
        Some("length") if has_text => {
            ui.warning("the answer was cut at the token limit; raise it with --max-tokens");
        }
        Some("length") => {
            ui.warning("the token limit was reached before the answer began; raise it with --max-tokens");
        }
        Some("content_filter") => ui.warning("the server withheld part of the answer (content_filter)"),
        _ if !has_text && answer.tool_calls.is_empty() => ui.warning("the model returned an empty answer"),
        _ => {}
    }
    if let Some(usage) = answer.usage
        && is_cut_short(prompt, usage.prompt_tokens)
    {
        ui.warning(&format!(
            "the server counted {} tokens in a prompt of {} characters: it probably cut the prompt to its context \
             length",
            usage.prompt_tokens,
            prompt.chars().count()
        ));
    }
}

/// Returns whether a server that counted `tokens` probably cut the prompt. A count that is exactly a context length is
/// suspicious at a lower ratio.
fn is_cut_short(prompt: &str, tokens: u64) -> bool {
    let visible = prompt.chars().filter(|character| !character.is_whitespace()).count() as u64;
    let is_context = tokens.is_multiple_of(CONTEXT_STEP_TOKENS);
    let possible = tokens * if is_context { MAX_CHARACTERS_PER_TOKEN / 2 } else { MAX_CHARACTERS_PER_TOKEN };
    tokens > 0 && visible > MIN_CHECKED_CHARACTERS && visible > possible
}

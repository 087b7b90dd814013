//! What is printed about an answer besides its text: statistics and warnings.

use crate::app::App;
use crate::app::views::Timing;
use crate::cli::terminal::ui::Ui;
use crate::core::api::chat::{Answer, TokenUsage};
use crate::core::api::error::clean;
use crate::core::services::ManagedService;

/// A shorter prompt is not checked for a cut by the server.
const MIN_CHECKED_CHARACTERS: u64 = 2_000;

/// No language has more visible characters per token: prose has about 4, code 3.
const MAX_CHARACTERS_PER_TOKEN: u64 = 7;

/// The context lengths that servers cut prompts to are multiples of this.
const CONTEXT_STEP_TOKENS: u64 = 1_024;

/// Returns the timing in words: `first token after 0.21 s, 63.4 tokens/s, 24 prompt tokens, 180 generated, 3.00 s total`.
pub(in crate::cli::commands) fn summary(timing: &Timing, usage: Option<TokenUsage>) -> String {
    let mut parts = Vec::new();
    if let Some(first) = timing.first_token_ms {
        parts.push(format!("first token after {:.2} s", first / 1000.0));
    }
    let speed = timing.tokens_per_second.map_or_else(|| "-".to_owned(), |speed| format!("{speed:.1}"));
    parts.push(format!("{speed} tokens/s"));
    if let Some(usage) = usage {
        parts.push(format!("{} prompt tokens, {} generated", usage.prompt_tokens, usage.completion_tokens));
    }
    parts.push(format!("{:.2} s total", timing.total_ms / 1000.0));
    parts.join(", ")
}
/// Warns about what is unusual in the answer.
pub(super) fn warn(ui: &Ui, answer: &Answer, has_text: bool, prompt: &str) {
    warn_of_tool_calls(ui, answer);
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

/// Warns if the server names another model than `asked`.
pub(in crate::cli::commands) fn warn_of_other_model(
    ui: &Ui,
    app: &App,
    service: &ManagedService,
    asked: &str,
    answer: &Answer,
) {
    if let Some(named) = &answer.model
        && !app.is_model(service, asked, named)
    {
        ui.warning(&format!("the server names {named} as the model that answered, not {asked}"));
    }
}

/// Warns about tool calls.
pub(in crate::cli::commands) fn warn_of_tool_calls(ui: &Ui, answer: &Answer) {
    for call in &answer.tool_calls {
        ui.warning(&format!(
            "the model requested the tool call {}({}), which fusion does not make",
            clean(&call.name),
            clean(&call.arguments)
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

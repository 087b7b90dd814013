//! What is printed about an answer besides its text: statistics and warnings.

use crate::app::views::Timing;
use crate::app::{App, Notice};
use crate::cli::terminal::ui::Ui;
use crate::cli::units::grouped;
use crate::core::api::chat::{Answer, TokenUsage};
use crate::core::api::error::clean;
use crate::core::services::ManagedService;

/// The usual length of a token, to tell how long a context must be.
const CHARACTERS_PER_TOKEN: u64 = 4;

/// Returns the timing in words: `first token after 0.21 s, 63.4 tokens/s, 24 prompt tokens, 180 generated, 3.00 s
/// total`.
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

/// Warns about what the server does not say.
pub(super) fn tell(ui: &Ui, service: &ManagedService, model: &str, notices: &[Notice]) {
    for notice in notices {
        ui.warning(&in_words(service, model, notice));
    }
}

fn in_words(service: &ManagedService, model: &str, notice: &Notice) -> String {
    let (name, title) = (&service.name, service.template.display_name());
    let longer = |tokens| {
        let advice = service
            .runtime()
            .and_then(|runtime| runtime.longer_context(name, &service.server_table(), tokens));
        advice.map_or_else(
            || "shorten the prompt".to_owned(),
            |advice| format!("shorten the prompt, or {advice}"),
        )
    };
    match notice {
        Notice::IgnoredField(advice) => {
            format!(
                "{title} ignores `{}` in the request; {}",
                advice.about,
                advice.of(name, &service.server_table(), model)
            )
        }
        Notice::NoVision => format!("{model} does not see the images of the prompt"),
        Notice::TooLong { tokens, context } => format!(
            "the prompt has at least {} tokens, and the context of {model} is {}: {title} cuts the prompt, and its \
             beginning is lost; {}",
            grouped(*tokens),
            grouped(*context),
            longer(*tokens)
        ),
        Notice::Cut { tokens, is_certain: true, characters } => format!(
            "{title} cut the prompt to the context of {} tokens, and its beginning with the system message is lost; {}",
            grouped(*tokens),
            longer((characters / CHARACTERS_PER_TOKEN).max(tokens + 1))
        ),
        Notice::Cut { tokens, characters, is_certain: false } => format!(
            "{title} counted {} tokens in a prompt of {} characters: it probably cut the prompt to its context; {}",
            grouped(*tokens),
            grouped(*characters),
            // They may be half of the context and two.
            longer((characters / CHARACTERS_PER_TOKEN).max(tokens.saturating_mul(2).saturating_sub(4)))
        ),
        Notice::NoTemplate => {
            let does = service.runtime().map_or("", |runtime| runtime.without_template());
            format!("{model} has no chat template that {title} reads, so it {does}")
        }
    }
}

/// Warns about what is unusual in the answer.
pub(super) fn warn(ui: &Ui, answer: &Answer, has_text: bool, has_reasoning: bool) {
    warn_of_tool_calls(ui, answer);
    match answer.finish_reason.as_deref() {
        Some("length") if has_text => {
            ui.warning("the answer was cut at the token limit; raise it with --max-tokens");
        }
        Some("length") if has_reasoning => ui.warning(
            "the token limit was reached while the model reasoned; raise it with --max-tokens, or see the reasoning with \
             --reasoning show",
        ),
        Some("length") => {
            ui.warning("the token limit was reached before the answer began; raise it with --max-tokens");
        }
        Some("content_filter") => ui.warning("the server withheld part of the answer (content_filter)"),
        _ if has_text || !answer.tool_calls.is_empty() => {}
        _ if has_reasoning => {
            ui.warning(
                "the model reasoned and returned an empty answer; see the reasoning with --reasoning show",
            );
        }
        _ => ui.warning("the model returned an empty answer"),
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

//! The prompt of a conversation: the model, and how full its context is.

use crate::app::chat::{ContextUse, Fill};
use crate::cli::terminal::line_editor::Tint;
use crate::cli::units::tokens;

/// The end of every prompt.
const END: &str = "> ";

/// Returns `qwen2.5:7b · 4.1k/32k > `, with less where it would take more than half of the `columns`.
pub(super) fn prompt_line(model: &str, used: Option<u64>, size: Option<u64>, columns: usize) -> String {
    let model = base_name(model);
    let filled = match (used, size) {
        (Some(used), Some(size)) => format!("{}/{}", tokens(used), tokens(size)),
        (Some(used), None) => tokens(used),
        (None, _) => String::new(),
    };
    let join = if model.is_empty() || filled.is_empty() { "" } else { " · " };
    let forms = [format!("{model}{join}{filled}"), filled];
    let fits = |form: &&String| form.chars().count() + END.len() < columns.div_ceil(2);
    match forms.iter().find(fits).filter(|form| !form.is_empty()) {
        Some(form) => format!("{form} {END}"),
        None => END.to_owned(),
    }
}

/// Returns the colour of the prompt.
pub(super) fn tint(context: Option<ContextUse>) -> Tint {
    match context.map(ContextUse::fill) {
        None | Some(Fill::Low) => Tint::Plain,
        Some(Fill::High) => Tint::Warning,
        Some(Fill::Full) => Tint::Alarm,
    }
}

/// Returns the name without the directory or owner before it.
fn base_name(model: &str) -> &str {
    model.trim_end_matches('/').rsplit('/').next().unwrap_or(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_shows_what_is_known() {
        let line = |model, used, size| prompt_line(model, used, size, 80);
        assert_eq!(line("qwen2.5:7b", Some(4200), Some(32_768)), "qwen2.5:7b · 4.1k/32k > ");
        assert_eq!(line("mlx-community/Llama-3.2-3B", Some(70), None), "Llama-3.2-3B · 70 > ");
        assert_eq!(line("/home/me/models/tiny/", None, Some(4096)), "tiny > ");
        assert_eq!(line("", None, None), "> ");
    }

    #[test]
    fn a_narrow_terminal_gets_a_short_prompt() {
        let line = |columns| prompt_line("qwen2.5:7b", Some(4200), Some(32_768), columns);
        assert_eq!(
            [line(60), line(26), line(20), line(0)],
            ["qwen2.5:7b · 4.1k/32k > ", "4.1k/32k > ", "> ", "> "]
        );
    }

    #[test]
    fn a_full_context_colours_the_prompt() {
        let tint_of = |used| tint(Some(ContextUse { used, size: 100 }));
        assert_eq!([tint_of(1), tint_of(80), tint_of(99)], [Tint::Plain, Tint::Warning, Tint::Alarm]);
        assert_eq!(tint(None), Tint::Plain);
    }
}

//! Builds the question from words, standard input, files and the template of a saved prompt.

use super::files::{self, Attachment};
use super::{RunArgs, stdin};
use crate::app::Question;
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::units::bytes;
use crate::core::config::SavedPrompt;

/// Replaced by the input in a template.
const INPUT_PLACEHOLDER: &str = "{input}";

/// Returns the question; `saved` is the saved prompt of `--prompt`.
pub(super) fn gather(
    context: &Context,
    args: &RunArgs,
    saved: Option<&SavedPrompt>,
) -> Result<Question, Failure> {
    let mut question = Question::default();
    let mut input = Vec::new();
    for path in &args.files {
        match files::read(context, path, args.timeout)? {
            Attachment::Text(text) => input.push(files::quote(&path.display().to_string(), &text)),
            Attachment::Image(url) => question.images.push(url),
        }
    }
    let dash = args.prompt == ["-"];
    if !dash && !args.prompt.is_empty() {
        input.push(args.prompt.join(" "));
    }
    let template = saved.and_then(|prompt| prompt.template.as_deref());
    let needs_input = template.is_none_or(|template| template.contains(INPUT_PLACEHOLDER));
    let has_own_words = !input.is_empty() || !question.images.is_empty() || !needs_input;
    if wants_stdin(context, args, dash, has_own_words)? {
        let does = if has_own_words { "appended" } else { "read" };
        match stdin::read(&context.ui, args.timeout, "do not read it with --no-stdin")? {
            Attachment::Text(text) => {
                if !text.is_empty() {
                    context.ui.detail(&format!("{does} {} from standard input", bytes(text.len() as u64)));
                }
                input.push(text.trim_end_matches(['\n', '\r']).to_owned());
            }
            Attachment::Image(url) => {
                context.ui.detail(&format!("{does} an image from standard input"));
                question.images.push(url);
            }
        }
    }
    let input = join(input);
    if needs_input && input.trim().is_empty() && question.images.is_empty() {
        return Err(Failure::new(Exit::Usage, "the prompt is empty")
            .hint("pass it as an argument, on standard input, or with --file"));
    }
    question.text = match template {
        Some(template) if needs_input => template.replace(INPUT_PLACEHOLDER, &input),
        Some(template) => join(vec![template.to_owned(), input]),
        None => input,
    };
    Ok(question)
}

/// Returns whether standard input is read: always for `-` and without other words, else only if it is a pipe or a
/// file.
fn wants_stdin(context: &Context, args: &RunArgs, dash: bool, has_own_words: bool) -> Result<bool, Failure> {
    if args.no_stdin {
        return Ok(false);
    }
    if dash {
        return Ok(true);
    }
    if has_own_words {
        return Ok(stdin::is_appended(&context.ui));
    }
    if context.environment.stdin_is_terminal {
        return Err(Failure::new(Exit::Usage, "no prompt was given")
            .hint("pass it as an argument or on standard input; `-` reads it from the terminal"));
    }
    Ok(true)
}

/// Joins the parts that are not empty, with a blank line between them.
pub(in crate::cli::commands) fn join(parts: Vec<String>) -> String {
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("\n\n")
}

//! The prompt: words, standard input, files and a kept template become the messages of the request.

use serde_json::{Value, json};

use super::files::{self, Attachment};
use super::{Args, stdin};
use crate::cli::Context;
use crate::cli::error::{Exit, Failure};
use crate::core::config::Prompt;

/// What stands for the input in a template.
const INPUT: &str = "{input}";

/// What the user asks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Question {
    /// The text.
    pub text: String,
    /// Images as `data:` URLs.
    pub images: Vec<String>,
}

impl Question {
    /// Gathers it from the command line, standard input and files; `kept` is the prompt of `--prompt`.
    pub(super) fn gather(context: &Context, args: &Args, kept: Option<&Prompt>) -> Result<Self, Failure> {
        let mut question = Self::default();
        let mut input = Vec::new();
        for path in &args.files {
            match files::read(&context.ui, path)? {
                Attachment::Text(text) => input.push(files::quote(&path.display().to_string(), &text)),
                Attachment::Image(url) => question.images.push(url),
            }
        }
        let dash = args.prompt == ["-"];
        if !dash && !args.prompt.is_empty() {
            input.push(args.prompt.join(" "));
        }
        let template = kept.and_then(|prompt| prompt.template.as_deref());
        let needs_input = template.is_none_or(|template| template.contains(INPUT));
        let has_own_words = !input.is_empty() || !question.images.is_empty() || !needs_input;
        if wants_stdin(context, args, dash, has_own_words)? {
            match stdin::read(&context.ui)? {
                Attachment::Text(text) => input.push(text.trim_end_matches(['\n', '\r']).to_owned()),
                Attachment::Image(url) => question.images.push(url),
            }
        }
        let input = join(input);
        if needs_input && input.trim().is_empty() && question.images.is_empty() {
            return Err(Failure::new(Exit::Usage, "the prompt is empty")
                .hint("give it as an argument, on standard input, or with --file"));
        }
        question.text = match template {
            Some(template) if needs_input => template.replace(INPUT, &input),
            Some(template) => join(vec![template.to_owned(), input]),
            None => input,
        };
        Ok(question)
    }

    /// The messages of the request: the system's if there is one, then the user's.
    pub(super) fn messages(&self, system: &str) -> Value {
        let text = || json!({ "type": "text", "text": self.text });
        let image = |url: &String| json!({ "type": "image_url", "image_url": { "url": url } });
        let content = match self.images.as_slice() {
            [] => json!(self.text),
            images if self.text.is_empty() => images.iter().map(image).collect(),
            images => images.iter().map(image).chain([text()]).collect(),
        };
        let user = json!({ "role": "user", "content": content });
        if system.is_empty() {
            return json!([user]);
        }
        json!([{ "role": "system", "content": system }, user])
    }
}

/// Whether standard input is to be read: always when it is asked for or there is nothing else, and beside other
/// words when it is a pipe or a file.
fn wants_stdin(context: &Context, args: &Args, dash: bool, has_own_words: bool) -> Result<bool, Failure> {
    if args.no_stdin {
        return Ok(false);
    }
    if dash {
        return Ok(true);
    }
    if has_own_words {
        return Ok(stdin::is_meant());
    }
    if context.environment.stdin_is_terminal {
        return Err(Failure::new(Exit::Usage, "no prompt was given")
            .hint("give it as an argument, or pipe it in; `-` reads it from the terminal"));
    }
    Ok(true)
}

/// Parts that are not empty, with a blank line between them.
fn join(parts: Vec<String>) -> String {
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("\n\n")
}

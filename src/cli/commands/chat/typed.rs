//! What the user typed at the prompt of a conversation, as data.

use serde_json::Value;

use crate::app::RESERVED_FIELDS;
use crate::cli::commands::run::parse_field;
use crate::cli::terminal::line_editor::FENCE;
use crate::core::nearest::nearest;

/// A text that was sent at the prompt.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Typed {
    Empty,
    Message(String),
    Slash(Slash),
    /// `!COMMAND`.
    Shell(String),
}

/// A slash command.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Slash {
    Help,
    /// Shows or changes the model.
    Model(Option<String>),
    /// Shows or changes the system message.
    System(Option<String>),
    File(String),
    Retry,
    Undo,
    Edit,
    Drop(usize),
    /// Shows or sets the fields of the request.
    Set(Option<(String, Value)>),
    Info,
    Save(String),
    Sessions,
    Clear,
    Quit,
}

/// The slash commands with their arguments and descriptions.
pub(super) const SLASH_COMMANDS: [(&str, &str, &str); 14] = [
    ("help", "", "list these commands"),
    ("model", "[NAME]", "show the model, or go on with another one"),
    ("system", "[TEXT]", "show the system message, or change it; \"\" sends none"),
    ("file", "PATH", "add a text file or an image to the next message"),
    ("retry", "", "ask the last question again"),
    ("undo", "", "take out the last question with its answer"),
    ("edit", "", "edit the last question, and ask it again"),
    ("drop", "N", "take out the N oldest questions with their answers"),
    ("set", "[KEY VALUE]", "show the fields of the request, or set one; null removes it"),
    ("info", "", "show service, model, session and context"),
    ("save", "FILE.md", "write the conversation to a file"),
    ("sessions", "", "list the saved conversations"),
    ("clear", "", "take out every message"),
    ("quit", "", "leave; so does Ctrl-D"),
];

/// What `/help` prints after the commands.
pub(super) const KEYS: &str = "\
!COMMAND             run a command, and add its output to the next message
//TEXT               send a text that begins with a slash
\"\"\"TEXT\"\"\"           send a text of several lines
Alt-Enter, or \\ at the end of a line, begins a new line; Ctrl-C stops an answer";

/// Reads what was sent. The error says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Typed, String> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Ok(Typed::Empty);
    }
    if let Some(fenced) = trimmed.strip_prefix(FENCE) {
        let fenced = fenced.strip_suffix(FENCE).unwrap_or(fenced);
        return Ok(Typed::Message(fenced.trim_matches('\n').to_owned()));
    }
    if let Some(rest) = trimmed.strip_prefix("//") {
        return Ok(Typed::Message(format!("/{rest}")));
    }
    if let Some(rest) = trimmed.strip_prefix('/') {
        return slash(rest).map(Typed::Slash);
    }
    match trimmed.strip_prefix('!') {
        Some("") => Err("expected a command after `!`".to_owned()),
        Some(command) => Ok(Typed::Shell(command.trim().to_owned())),
        None => Ok(Typed::Message(text.trim_end().to_owned())),
    }
}

fn slash(text: &str) -> Result<Slash, String> {
    let (name, argument) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let argument = argument.trim();
    let optional = || (!argument.is_empty()).then(|| argument.to_owned());
    let required = |what: &str| optional().ok_or_else(|| format!("expected {what}: /{name} {what}"));
    Ok(match name {
        "help" | "?" => Slash::Help,
        "model" => Slash::Model(optional()),
        "system" => Slash::System(optional().map(|text| if text == "\"\"" { String::new() } else { text })),
        "file" => Slash::File(required("PATH")?),
        "retry" => Slash::Retry,
        "undo" => Slash::Undo,
        "edit" => Slash::Edit,
        "drop" => match argument.parse() {
            Ok(count @ 1..) => Slash::Drop(count),
            _ => return Err("expected a number of questions: /drop N".to_owned()),
        },
        "set" => Slash::Set(optional().map(|argument| setting(&argument)).transpose()?),
        "info" => Slash::Info,
        "save" => Slash::Save(required("FILE.md")?),
        "sessions" => Slash::Sessions,
        "clear" => Slash::Clear,
        "quit" | "exit" | "bye" => Slash::Quit,
        _ => return Err(unknown(name)),
    })
}

/// Reads `KEY VALUE` or `KEY=VALUE`.
fn setting(argument: &str) -> Result<(String, Value), String> {
    let (key, value) = argument
        .split_once(|character: char| character == '=' || character.is_whitespace())
        .ok_or("expected a field and its value: /set KEY VALUE")?;
    if RESERVED_FIELDS.contains(&key) {
        return Err(format!("`{key}` is made from the conversation; /model and /system change it"));
    }
    parse_field(&format!("{key}={}", value.trim_start_matches(['=', ' ', '\t'])))
}

fn unknown(name: &str) -> String {
    match nearest(name, &mut SLASH_COMMANDS.iter().map(|(known, ..)| *known)) {
        Some(known) => format!("unknown command /{name}; did you mean /{known}?"),
        None => format!("unknown command /{name}; /help lists the commands, and // sends a slash"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(text: &str) -> Typed {
        Typed::Message(text.to_owned())
    }

    #[test]
    fn plain_text_is_a_message() {
        for (text, expected) in [
            ("Why?", message("Why?")),
            ("  fn main() {\n  }\n", message("  fn main() {\n  }")),
            ("\"\"\"one\ntwo\"\"\"", message("one\ntwo")),
            ("\"\"\"\n/help\n\"\"\"", message("/help")),
            ("//etc/hosts", message("/etc/hosts")),
            ("Übung", message("Übung")),
            ("日本語", message("日本語")),
            ("🙂", message("🙂")),
            ("", Typed::Empty),
            (" \n ", Typed::Empty),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn commands_take_their_arguments() {
        let set = |key: &str, value: Value| Slash::Set(Some((key.to_owned(), value)));
        for (text, expected) in [
            ("/help", Slash::Help),
            ("/model", Slash::Model(None)),
            ("/model qwen2.5:7b ", Slash::Model(Some("qwen2.5:7b".to_owned()))),
            ("/system Be brief.\nVery.", Slash::System(Some("Be brief.\nVery.".to_owned()))),
            ("/system \"\"", Slash::System(Some(String::new()))),
            ("/file my notes.md", Slash::File("my notes.md".to_owned())),
            ("/drop 2", Slash::Drop(2)),
            ("/set temperature 0.5", set("temperature", json!(0.5))),
            ("/set stop=[\"a\"]", set("stop", json!(["a"]))),
            ("/set seed null", set("seed", Value::Null)),
            ("/set", Slash::Set(None)),
        ] {
            assert_eq!(parse(text), Ok(Typed::Slash(expected)), "{text:?}");
        }
        assert_eq!(parse("! git diff"), Ok(Typed::Shell("git diff".to_owned())));
    }

    #[test]
    fn wrong_commands_say_what_is_expected() {
        let errors: Vec<String> = [
            "/modle x",
            "/usr/bin/env",
            "/drop",
            "/drop 0",
            "/drop x",
            "/file",
            "/set x",
            "/set model y",
            "!",
        ]
        .iter()
        .map(|text| format!("{text:<12} {}", parse(text).unwrap_err()))
        .collect();
        insta::assert_snapshot!(errors.join("\n"), @r"
        /modle x     unknown command /modle; did you mean /model?
        /usr/bin/env unknown command /usr/bin/env; /help lists the commands, and // sends a slash
        /drop        expected a number of questions: /drop N
        /drop 0      expected a number of questions: /drop N
        /drop x      expected a number of questions: /drop N
        /file        expected PATH: /file PATH
        /set x       expected a field and its value: /set KEY VALUE
        /set model y `model` is made from the conversation; /model and /system change it
        !            expected a command after `!`
        ");
    }

    #[test]
    fn every_command_of_the_help_is_known() {
        for (name, argument, _) in SLASH_COMMANDS {
            let text = match argument {
                "N" => format!("/{name} 1"),
                "[KEY VALUE]" => format!("/{name} k v"),
                argument => format!("/{name} {argument}"),
            };
            assert!(matches!(parse(&text), Ok(Typed::Slash(_))), "{text}");
        }
    }
}

//! Completion in bash: splits the line into words, and quotes the candidates for it.
//!
//! bash splits words at `COMP_WORDBREAKS`, among them `:` and `=`, replaces only the last part, and quotes nothing. The
//! script therefore passes the line and that part, and gets the replacement of the part, quoted as the line needs it.
//! (The adapter of `clap_complete` takes the parts for words.)

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_complete::engine;
use clap_complete::env::EnvCompleter;

pub(super) struct Bash;

/// Runs in bash 3.2 too, the version of macOS, which lacks `compopt`, `mapfile` and `-o nosort`. Without `compopt`, a
/// candidate that completes a word must end with the space after it.
const SCRIPT: &str = r#"_complete_NAME() {
    local candidate
    COMPREPLY=()
    while IFS= read -r candidate; do
        [[ -z $candidate ]] || COMPREPLY+=("$candidate")
    done <<< "$(VARIABLE=bash command COMPLETER -- "${COMP_LINE:0:COMP_POINT}" "$2" "$COMP_TYPE" 2> /dev/null)"
}
complete -o nospace -o bashdefault -o default -o nosort -F _complete_NAME PROGRAM 2> /dev/null ||
    complete -o nospace -o bashdefault -o default -F _complete_NAME PROGRAM
"#;

/// Returns whether bash lists the candidates and writes none into the line: its `COMP_TYPE` is the number of `?`.
pub(super) fn only_lists(arguments: &[OsString]) -> bool {
    matches!(arguments, [_, _, kind] if kind == "63")
}

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == self.name()
    }

    fn write_registration(
        &self,
        variable: &str,
        name: &str,
        program: &str,
        completer: &str,
        output: &mut dyn Write,
    ) -> io::Result<()> {
        let script = SCRIPT.replace("VARIABLE", variable).replace("NAME", name);
        output.write_all(script.replace("PROGRAM", program).replace("COMPLETER", completer).as_bytes())
    }

    /// Writes the candidates, with states beside those that are only listed; `arguments` are the line up to the cursor,
    /// the part of it that is replaced, and `COMP_TYPE`.
    fn write_complete(
        &self,
        command: &mut Command,
        arguments: Vec<OsString>,
        current_dir: Option<&Path>,
        output: &mut dyn Write,
    ) -> io::Result<()> {
        let [line, part, ..] = arguments.as_slice() else {
            return Err(io::Error::other("expected the line and the part that is replaced"));
        };
        let (line, part) = (line.to_string_lossy(), part.to_string_lossy());
        // bash never replaces the character at which it splits, but bash-completion passes it when it completes for
        // `sudo`.
        let part = if part.chars().all(|character| ":=".contains(character)) { "" } else { &part };
        let kept = CommandLine::read(line.strip_suffix(part).unwrap_or(&line));
        let line = CommandLine::read(&line);
        if line.redirected {
            return Ok(()); // bash completes the names of files itself.
        }
        let index = line.words.len() - 1;
        let words = line.words.into_iter().map(OsString::from).collect();
        let candidates = engine::complete(command, words, index, current_dir)?;
        let are_listed = candidates.len() > 1 && only_lists(&arguments);
        for candidate in candidates {
            let help = candidate.get_help().filter(|_| are_listed).map(ToString::to_string);
            let candidate = candidate.get_value().to_string_lossy();
            if let Some(rest) = kept.words.last().and_then(|start| candidate.strip_prefix(start.as_str())) {
                let mut text = quoted(rest, kept.quote);
                // The path may go on after a directory. No space after a quote: readline would add another quote.
                if !rest.ends_with('/') {
                    text.push(kept.quote.unwrap_or(' '));
                }
                // A state is one word, also before the description of a command.
                let state = help.as_ref().and_then(|help| help.split(": ").next());
                if let Some(state) = state.filter(|state| !state.contains(' ')) {
                    text = text + "(" + state + ")";
                }
                writeln!(output, "{text}")?;
            }
        }
        Ok(())
    }
}

/// The command line up to the cursor.
#[derive(Default)]
struct CommandLine {
    /// Without quotes and redirections; the last word is being typed and may be empty.
    words: Vec<String>,
    /// The quote that is open at the end.
    quote: Option<char>,
    /// Whether the last word is the target of a redirection.
    redirected: bool,
}

impl CommandLine {
    fn read(text: &str) -> Self {
        let mut line = Self::default();
        let mut word: Option<String> = None;
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match (line.quote, character) {
                (None, ' ' | '\t' | '\n') => {
                    line.end(word.take());
                    continue;
                }
                (None, '<' | '>') => {
                    // The number of a descriptor belongs to the redirection.
                    line.end(
                        word.take()
                            .filter(|word| word != "&" && !word.bytes().all(|byte| byte.is_ascii_digit())),
                    );
                    line.redirected = true;
                    continue;
                }
                (None, '\'' | '"') => line.quote = Some(character),
                (Some(quote), _) if character == quote => line.quote = None,
                (None | Some('"'), '\\') => word.get_or_insert_default().extend(characters.next()),
                _ => word.get_or_insert_default().push(character),
            }
            word.get_or_insert_default();
        }
        line.words.push(word.unwrap_or_default());
        line
    }

    fn end(&mut self, word: Option<String>) {
        if let Some(word) = word
            && !std::mem::take(&mut self.redirected)
        {
            self.words.push(word);
        }
    }
}

/// Returns `text` quoted for bash, within the open `quote`.
fn quoted(text: &str, quote: Option<char>) -> String {
    let mut quoted = String::with_capacity(text.len());
    for character in text.chars() {
        match quote {
            None if character.is_ascii_alphanumeric()
                || !character.is_ascii()
                || "%+,-./:=@_~".contains(character) =>
            {
                quoted.push(character);
            }
            None => quoted.extend(['\\', character]),
            // Characters that are special within the quote are written outside of it.
            Some(quote) if character == quote || quote == '"' && "$`\\!".contains(character) => {
                quoted.extend([quote, '\\', character, quote]);
            }
            Some(_) => quoted.push(character),
        }
    }
    quoted
}

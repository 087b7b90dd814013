//! Completion in bash: the words of the line so far, and how what may come next is written into it.
//!
//! bash cuts words at `COMP_WORDBREAKS`, among them `:` and `=`, replaces only the last piece, and quotes nothing. So it
//! hands over the line and that piece, and is handed what to put in the piece's place, quoted as the line needs it.
//! (The adapter of `clap_complete` takes the pieces for words.)

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_complete::engine;
use clap_complete::env::EnvCompleter;

/// The adapter.
pub(super) struct Bash;

/// It runs in bash 3.2, which macOS has, too: there is no `compopt`, no `mapfile` and no `-o nosort`. Without
/// `compopt`, the space after a word that is complete must come with the word.
const SCRIPT: &str = r#"_complete_NAME() {
    local candidate
    COMPREPLY=()
    while IFS= read -r candidate; do
        [[ -z $candidate ]] || COMPREPLY+=("$candidate")
    done <<< "$(VARIABLE=bash command COMPLETER -- "${COMP_LINE:0:COMP_POINT}" "$2" 2> /dev/null)"
}
complete -o nospace -o bashdefault -o default -o nosort -F _complete_NAME PROGRAM 2> /dev/null ||
    complete -o nospace -o bashdefault -o default -F _complete_NAME PROGRAM
"#;

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

    /// `arguments` are the line up to the cursor and the piece of it that is replaced.
    fn write_complete(
        &self,
        command: &mut Command,
        arguments: Vec<OsString>,
        current_dir: Option<&Path>,
        output: &mut dyn Write,
    ) -> io::Result<()> {
        let [line, piece] = arguments.as_slice() else {
            return Err(io::Error::other("expected the line and the piece that is replaced"));
        };
        let (line, piece) = (line.to_string_lossy(), piece.to_string_lossy());
        // bash never replaces the character at which it cuts; where bash-completion completes for `sudo` it says so.
        let piece = if piece.chars().all(|character| ":=".contains(character)) { "" } else { &piece };
        let kept = Line::read(line.strip_suffix(piece).unwrap_or(&line));
        let line = Line::read(&line);
        if line.redirected {
            return Ok(()); // To a file, and bash completes those.
        }
        let index = line.words.len() - 1;
        let words = line.words.into_iter().map(OsString::from).collect();
        for candidate in engine::complete(command, words, index, current_dir)? {
            let candidate = candidate.get_value().to_string_lossy();
            if let Some(rest) = kept.words.last().and_then(|start| candidate.strip_prefix(start.as_str())) {
                let mut text = quoted(rest, kept.quote);
                // A directory is not complete. After a quote a space cannot come: readline would add another quote.
                if !rest.ends_with('/') {
                    text.push(kept.quote.unwrap_or(' '));
                }
                writeln!(output, "{text}")?;
            }
        }
        Ok(())
    }
}

/// A command line as far as it is typed.
#[derive(Default)]
struct Line {
    /// Without their quotes; the last is being typed, and may be empty. Redirections are left out.
    words: Vec<String>,
    /// The quote that is open at the end.
    quote: Option<char>,
    /// Whether the last word is the target of a redirection.
    redirected: bool,
}

impl Line {
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

/// `text` as bash reads it as itself within `quote`.
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
            // What has a meaning within the quote stands outside of it.
            Some(quote) if character == quote || quote == '"' && "$`\\!".contains(character) => {
                quoted.extend([quote, '\\', character, quote]);
            }
            Some(_) => quoted.push(character),
        }
    }
    quoted
}

//! Command lines as text: split by a shell's rules of quoting, and placeholders in them.

use std::ops::Range;

/// A program with its arguments, and the variables that are set for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShellLine {
    /// The leading words of the form `NAME=value`.
    pub env: Vec<(String, String)>,
    /// The program, then its arguments.
    pub words: Vec<String>,
}

/// Why a text is no command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    #[error("a quote is not closed")]
    OpenQuote,
    #[error("it ends with a backslash")]
    TrailingBackslash,
    #[error("it names no program")]
    NoProgram,
    #[error("it has a NUL character")]
    Nul,
}

/// A word, and how many of its leading bytes were written without quotes.
#[derive(Default)]
struct ShellWord {
    text: String,
    unquoted: usize,
}

/// Splits a text into words as a POSIX shell does: quotes and backslashes count, nothing else does. Nothing is
/// expanded.
pub fn split(text: &str) -> Result<ShellLine, SplitError> {
    if text.contains('\0') {
        return Err(SplitError::Nul);
    }
    let words = words(text)?;
    let is_variable = |word: &ShellWord| word.variable().is_some();
    let first = words.iter().position(|word| !is_variable(word)).ok_or(SplitError::NoProgram)?;
    if words[first].text.is_empty() {
        return Err(SplitError::NoProgram);
    }
    let env = words[..first].iter().filter_map(ShellWord::variable);
    Ok(ShellLine {
        env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        words: words[first..].iter().map(|word| word.text.clone()).collect(),
    })
}

impl ShellWord {
    /// Returns name and value of `NAME=value`, where the name and `=` are without quotes.
    fn variable(&self) -> Option<(&str, &str)> {
        let (name, value) = self.text.split_once('=').filter(|(name, _)| name.len() < self.unquoted)?;
        let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        is_name.then_some((name, value))
    }

    fn push(&mut self, character: char, quoted: bool) {
        if !quoted && self.unquoted == self.text.len() {
            self.unquoted += character.len_utf8();
        }
        self.text.push(character);
    }
}

/// Where in a text the splitter is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum QuoteState {
    Nothing,
    Single,
    Double,
}

fn words(text: &str) -> Result<Vec<ShellWord>, SplitError> {
    let mut words = Vec::new();
    let mut word: Option<ShellWord> = None;
    let mut within = QuoteState::Nothing;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (within, character) {
            (QuoteState::Nothing, ' ' | '\t' | '\n' | '\r') => words.extend(word.take()),
            (QuoteState::Nothing, '\'') => {
                within = QuoteState::Single;
                word.get_or_insert_default();
            }
            (QuoteState::Nothing, '"') => {
                within = QuoteState::Double;
                word.get_or_insert_default();
            }
            (QuoteState::Single, '\'') | (QuoteState::Double, '"') => within = QuoteState::Nothing,
            (QuoteState::Nothing, '\\') => match characters.next() {
                Some('\n') => {}
                Some(next) => word.get_or_insert_default().push(next, true),
                None => return Err(SplitError::TrailingBackslash),
            },
            // Between double quotes a backslash is itself, but before these.
            (QuoteState::Double, '\\')
                if matches!(characters.peek(), Some('"' | '\\' | '$' | '`' | '\n')) =>
            {
                if let Some(next) = characters.next().filter(|next| *next != '\n') {
                    word.get_or_insert_default().push(next, true);
                }
            }
            (_, other) => word.get_or_insert_default().push(other, within != QuoteState::Nothing),
        }
    }
    if within != QuoteState::Nothing {
        return Err(SplitError::OpenQuote);
    }
    words.extend(word);
    Ok(words)
}

/// What stands for a value that is known only at the start of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholder {
    Port,
    Host,
    WorkingDir,
    /// The configuration file.
    Config,
    /// The process of the service, for the command that stops it.
    Pid,
    /// The name of the service.
    Name,
    Model,
    ProjectRoot,
    Home,
}

impl Placeholder {
    pub const ALL: [Self; 9] = [
        Self::Port,
        Self::Host,
        Self::WorkingDir,
        Self::Config,
        Self::Pid,
        Self::Name,
        Self::Model,
        Self::ProjectRoot,
        Self::Home,
    ];

    /// Returns how it is written.
    pub fn text(self) -> &'static str {
        match self {
            Self::Port => "{port}",
            Self::Host => "{host}",
            Self::WorkingDir => "{working_dir}",
            Self::Config => "{config}",
            Self::Pid => "{pid}",
            Self::Name => "{name}",
            Self::Model => "{model}",
            Self::ProjectRoot => "${PROJECT_ROOT}",
            Self::Home => "${HOME}",
        }
    }
}

/// Something in a text that has the form of a placeholder: `{name}` or `${NAME}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceholderUse {
    pub range: Range<usize>,
    /// `None` when there is no such placeholder.
    pub placeholder: Option<Placeholder>,
}

/// Returns what has the form of a placeholder. Other braces, such as those of JSON, are text.
pub fn placeholders(text: &str) -> Vec<PlaceholderUse> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(open) = text[from..].find('{').map(|at| from + at) {
        from = open + 1;
        let length =
            text[from..].bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        let is_name = length > 0 && !text.as_bytes()[from].is_ascii_digit();
        if !is_name || text.as_bytes().get(from + length) != Some(&b'}') {
            continue;
        }
        let start = if text[..open].ends_with('$') { open - 1 } else { open };
        let range = start..from + length + 1;
        from = range.end;
        let placeholder = Placeholder::ALL.into_iter().find(|known| known.text() == &text[range.clone()]);
        found.push(PlaceholderUse { range, placeholder });
    }
    found
}

/// Returns the text with every placeholder replaced; the placeholder that has no value, if there is one. What is not a
/// placeholder stays.
pub fn expand(text: &str, value: &dyn Fn(Placeholder) -> Option<String>) -> Result<String, Placeholder> {
    let mut expanded = String::with_capacity(text.len());
    let mut end = 0;
    for PlaceholderUse { range, placeholder } in placeholders(text) {
        let Some(placeholder) = placeholder else { continue };
        expanded.push_str(&text[end..range.start]);
        expanded.push_str(&value(placeholder).ok_or(placeholder)?);
        end = range.end;
    }
    expanded.push_str(&text[end..]);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, env: &[(&str, &str)], words: &[&str]) {
        let line = split(text).unwrap();
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        assert_eq!(line.env, env.iter().map(own).collect::<Vec<_>>(), "{text}");
        assert_eq!(line.words, words, "{text}");
    }

    #[test]
    fn quotes_count_and_nothing_else() {
        check("python3  -m\thttp.server\n8000 ", &[], &["python3", "-m", "http.server", "8000"]);
        check(r#"a 'b  c' "d 'e'" f\ g"#, &[], &["a", "b  c", "d 'e'", "f g"]);
        check(r#"a '' "" b''c"d"e"#, &[], &["a", "", "", "bcde"]);
        check(r#"a "\"\\\$\x" '\n' \n"#, &[], &["a", r#""\$\x"#, r"\n", "n"]);
        check(
            "a $HOME $(x) `y` *.py ~ | b && c > d; e #f",
            &[],
            &["a", "$HOME", "$(x)", "`y`", "*.py", "~", "|", "b", "&&", "c", ">", "d;", "e", "#f"],
        );
        check("a\\\nb \"c\\\nd\"", &[], &["ab", "cd"]);
        check("é 'ü ö'", &[], &["é", "ü ö"]);
    }

    #[test]
    fn leading_assignments_are_variables() {
        check("A=1 _b2='x y' C= run D=3", &[("A", "1"), ("_b2", "x y"), ("C", "")], &["run", "D=3"]);
        check("'A'=1", &[], &["A=1"]);
        check("A'='1 x", &[], &["A=1", "x"]);
        check("2A=1", &[], &["2A=1"]);
        check("=1", &[], &["=1"]);
        check(
            "OLLAMA_HOST=127.0.0.1:{port} ollama serve",
            &[("OLLAMA_HOST", "127.0.0.1:{port}")],
            &["ollama", "serve"],
        );
    }

    #[test]
    fn faulty_lines_are_told() {
        assert_eq!(split("a 'b"), Err(SplitError::OpenQuote));
        assert_eq!(split("a \"b\\\""), Err(SplitError::OpenQuote));
        assert_eq!(split("a \\"), Err(SplitError::TrailingBackslash));
        for text in ["", "  ", "A=1", "''", "A=1 '' x"] {
            assert_eq!(split(text), Err(SplitError::NoProgram), "{text}");
        }
        assert_eq!(split("a\0"), Err(SplitError::Nul));
    }

    #[test]
    fn only_names_in_braces_are_placeholders() {
        let found = |text: &str| -> Vec<(String, bool)> {
            let all = placeholders(text);
            all.into_iter().map(|found| (text[found.range].to_owned(), found.placeholder.is_some())).collect()
        };
        assert_eq!(found(r#"{"a":1} {} { port } {1} ${ $x {a b} {port"#), []);
        assert_eq!(found("--p={port},{{host}}"), [("{port}".to_owned(), true), ("{host}".to_owned(), true)]);
        assert_eq!(
            found("${HOME}/${home}{PROJECT_ROOT}${port}"),
            [
                ("${HOME}".to_owned(), true),
                ("${home}".to_owned(), false),
                ("{PROJECT_ROOT}".to_owned(), false),
                ("${port}".to_owned(), false),
            ]
        );
    }

    #[test]
    fn placeholders_are_replaced_once() {
        let value = |placeholder: Placeholder| match placeholder {
            Placeholder::Port => Some("80".to_owned()),
            Placeholder::Name => Some("{port} $HOME".to_owned()),
            _ => None,
        };
        assert_eq!(
            expand("{name}:{port} {\"a\":1} {x}", &value),
            Ok("{port} $HOME:80 {\"a\":1} {x}".to_owned())
        );
        assert_eq!(expand("{port}{model}", &value), Err(Placeholder::Model));
    }
}

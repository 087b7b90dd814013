//! Removes control characters and escape sequences from model output, logs and servers' errors.

/// A streaming filter from bytes to text without terminal commands.
///
/// - Escape sequences are dropped whole: CSI up to its final byte, OSC and the other strings (DCS, APC ...) up to
///   BEL or ST, in their 7-bit form (`ESC [`) and in their 8-bit form (U+009B). A character that cannot be part of a
///   sequence ends it, and a newline always does: a truncated sequence removes at most the rest of its line.
/// - Newline and tab pass, `\r\n` becomes `\n`, and so does a lone `\r` after text: each step of a progress bar gets a
///   line of its own. All other control characters are dropped.
/// - Invalid UTF-8 becomes U+FFFD. A character that is split between chunks is held back until it is complete.
///
/// The output does not depend on how the input is divided into chunks.
#[derive(Debug, Default)]
pub struct TerminalFilter {
    sequence: Sequence,
    line: LineState,
    /// The first bytes of an incomplete UTF-8 character: at most 3.
    incomplete: Vec<u8>,
}

/// The position in an escape sequence (ECMA-48, sections 5.3 to 5.6 and 8.3).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Sequence {
    #[default]
    None,
    /// After ESC and intermediate bytes. ESC also ends a string: ST is ESC with a backslash.
    Escape,
    /// In a control sequence, before its final byte.
    Control,
    /// In a string of any kind.
    String,
}

/// The content of the current line of output.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum LineState {
    #[default]
    Empty,
    Text,
    /// Empty, because `\r` was written as a newline: a `\n` that follows belongs to it.
    Returned,
}

const ESCAPE: char = '\u{1b}';

impl TerminalFilter {
    /// Filters `bytes` and appends the text to `output`.
    pub fn push(&mut self, bytes: &[u8], output: &mut String) {
        let mut rest = self.complete_character(bytes, output);
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => return self.text(text, output),
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    self.text(std::str::from_utf8(valid).unwrap_or_default(), output);
                    let Some(length) = error.error_len() else {
                        self.incomplete.extend_from_slice(after);
                        return;
                    };
                    self.character(char::REPLACEMENT_CHARACTER, output);
                    rest = &after[length..];
                }
            }
        }
    }

    /// Ends the input: appends what was held back.
    pub fn finish(&mut self, output: &mut String) {
        if !self.incomplete.is_empty() {
            self.incomplete.clear();
            self.character(char::REPLACEMENT_CHARACTER, output);
        }
    }

    /// Completes the incomplete character of the last chunk; returns the bytes after it.
    fn complete_character<'a>(&mut self, mut bytes: &'a [u8], output: &mut String) -> &'a [u8] {
        while !self.incomplete.is_empty()
            && let Some((&next, after)) = bytes.split_first()
        {
            self.incomplete.push(next);
            let whole = std::mem::take(&mut self.incomplete);
            match std::str::from_utf8(&whole) {
                Ok(text) => self.text(text, output),
                Err(error) if error.error_len().is_none() => self.incomplete = whole,
                // `next` does not continue the character: it begins another one.
                Err(_) => {
                    self.character(char::REPLACEMENT_CHARACTER, output);
                    return bytes;
                }
            }
            bytes = after;
        }
        bytes
    }

    fn text(&mut self, mut text: &str, output: &mut String) {
        while !text.is_empty() {
            if self.sequence == Sequence::None {
                let plain = text.find(char::is_control).unwrap_or(text.len());
                if plain > 0 {
                    output.push_str(&text[..plain]);
                    self.line = LineState::Text;
                    text = &text[plain..];
                }
            }
            let mut characters = text.chars();
            if let Some(character) = characters.next() {
                self.character(character, output);
            }
            text = characters.as_str();
        }
    }

    fn character(&mut self, character: char, output: &mut String) {
        match self.sequence {
            Sequence::None => self.plain(character, output),
            Sequence::Escape => match character {
                '[' => self.sequence = Sequence::Control,
                ']' | 'P' | 'X' | '^' | '_' => self.sequence = Sequence::String,
                ' '..='/' => {}
                '0'..='~' => self.sequence = Sequence::None,
                other => self.plain(other, output),
            },
            Sequence::Control => match character {
                ' '..='?' => {}
                '@'..='~' => self.sequence = Sequence::None,
                other => self.plain(other, output),
            },
            Sequence::String => match character {
                '\u{7}' | '\u{18}' | '\u{1a}' => self.sequence = Sequence::None,
                ESCAPE => self.sequence = Sequence::Escape,
                // Terminals obey the controls of C1 everywhere; one of them is the usual end.
                '\n' | '\u{80}'..='\u{9f}' => self.plain(character, output),
                _ => {}
            },
        }
    }

    /// Handles a character outside of a sequence, which may begin one.
    fn plain(&mut self, character: char, output: &mut String) {
        self.sequence = match character {
            ESCAPE => Sequence::Escape,
            '\u{9b}' => Sequence::Control,
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => Sequence::String,
            _ => Sequence::None,
        };
        match (character, self.line) {
            ('\n', LineState::Returned) => self.line = LineState::Empty,
            ('\n', _) => {
                output.push('\n');
                self.line = LineState::Empty;
            }
            ('\r', LineState::Text) => {
                output.push('\n');
                self.line = LineState::Returned;
            }
            ('\t', _) => {
                output.push('\t');
                self.line = LineState::Text;
            }
            (character, _) if !character.is_control() => {
                output.push(character);
                self.line = LineState::Text;
            }
            _ => {}
        }
    }
}

/// Returns `text` filtered by [`TerminalFilter`].
pub fn printable(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    TerminalFilter::default().push(text.as_bytes(), &mut output);
    output
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filtered<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> String {
        let mut filter = TerminalFilter::default();
        let mut output = String::new();
        for chunk in chunks {
            filter.push(chunk, &mut output);
        }
        filter.finish(&mut output);
        output
    }

    #[test]
    fn sequences_are_dropped_whole() {
        for (input, expected) in [
            ("\x1b[1;31mred\x1b[0m", "red"),
            ("a\x1b[?25lb\x1b[2Jc\x1b[38:2::1:2:3md", "abcd"),
            ("a\x1b]52;c;cm0gLXJm\x07b", "ab"),
            ("a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\b", "alinkb"),
            ("a\x1bPq#0;2;0\x1b\\b\x1b_x\x1b\\c\x1b^x\x1b\\d\x1bXx\x1b\\e", "abcde"),
            ("a\x1b(Bb\x1b7c\x1bcd\x1b#8e", "abcde"),
            ("a\u{9b}31mb\u{9d}0;title\u{9c}c\u{90}x\x1b\\d\u{85}e", "abcde"),
            ("a\x1b]0;t\x18b\x1b]0;t\x1ac", "abc"),
        ] {
            assert_eq!(printable(input), expected, "{input:?}");
        }
    }

    #[test]
    fn a_c1_control_ends_a_string() {
        for (input, expected) in [
            ("a\x1bPq#0\u{9b}31mb", "ab"),
            ("a\x1bPq#0\u{85}b\u{90}x\u{84}c", "abc"),
            ("a\x1b]0;t\u{9d}0;u\x07b", "ab"),
            ("a\x1b_x\u{9c}b", "ab"),
        ] {
            assert_eq!(printable(input), expected, "{input:?}");
        }
    }

    #[test]
    fn a_truncated_sequence_removes_only_its_line() {
        for (input, expected) in [
            ("a\x1b]0;never ended\nb", "a\nb"),
            ("a\x1bPnever ended\nb", "a\nb"),
            ("a\x1b[1;\nb", "a\nb"),
            ("a\x1b\nb", "a\nb"),
            ("a\x1b[1;\x1b[31mb", "ab"),
            ("a\x1b[1;\u{e9}", "a\u{e9}"),
            ("a\x1b\x1b]0;t\x07b", "ab"),
        ] {
            assert_eq!(printable(input), expected, "{input:?}");
        }
    }

    #[test]
    fn line_ends_become_newlines() {
        for (input, expected) in [
            ("a\r\nb\r\n", "a\nb\n"),
            ("10%\r20%\r30%\n", "10%\n20%\n30%\n"),
            ("\r10%\r20%\n", "10%\n20%\n"),
            ("a\r\r\nb", "a\nb"),
            ("a\r\n\r\nb", "a\n\nb"),
            ("a\n\n\tb", "a\n\n\tb"),
        ] {
            assert_eq!(printable(input), expected, "{input:?}");
        }
    }

    #[test]
    fn other_control_characters_are_dropped() {
        assert_eq!(printable("a\x07b\x08c\0d\x7fe\x0bf\x0cg\x05h"), "abcdefgh");
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        assert_eq!(filtered([&b"a\xffb\xe2\x82"[..], &b"c\xe2\x82"[..]]), "a\u{fffd}b\u{fffd}c\u{fffd}");
        assert_eq!(filtered([&b"\xe2"[..], &b"\x82"[..], &b"\xac"[..]]), "\u{20ac}");
        assert_eq!(filtered([&b"\x9b31m"[..]]), "\u{fffd}31m");
    }

    /// Returns bytes in which everything that the filter looks for is frequent.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            3 => any::<u8>(),
            3 => prop::sample::select(b"\x1b\x1b[]P\\\x07\x18\r\n\t;1m \x7f".as_slice()),
            2 => prop::sample::select(b"\xc2\x9b\x9c\x9d\xe2\x82\xac\xf0\x9f\x98\x80".as_slice()),
        ];
        prop::collection::vec(byte, 0..64)
    }

    proptest! {
        #[test]
        fn chunks_do_not_change_the_output(bytes in bytes(), cuts in prop::collection::vec(any::<bool>(), 64)) {
            let mut chunks = vec![Vec::new()];
            for (byte, cut) in bytes.iter().zip(cuts) {
                if cut {
                    chunks.push(Vec::new());
                }
                chunks.last_mut().expect("never empty").push(*byte);
            }
            let divided = filtered(chunks.iter().map(Vec::as_slice));
            prop_assert_eq!(&divided, &filtered([bytes.as_slice()]));
            prop_assert_eq!(divided, filtered(bytes.chunks(1)));
        }

        #[test]
        fn output_has_no_control_characters(bytes in bytes()) {
            let output = filtered([bytes.as_slice()]);
            let obeyed = output.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
            prop_assert_eq!(obeyed, None);
            prop_assert_eq!(printable(&output), output);
        }

        #[test]
        fn text_without_control_characters_passes(text in "\\PC*(\n\\PC*)*") {
            prop_assert_eq!(printable(&text), text);
        }
    }
}

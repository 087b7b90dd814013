//! Splits the text of an answer where the server did not: at a leading `<think>` block, which is reasoning, and at the
//! stop texts of the request, which `mlx_lm.server` sometimes ignores.
//!
//! Both may span several chunks.

use std::mem;

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// A part of the answer: text or reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerPart<'a> {
    Text(&'a str),
    Reasoning(&'a str),
}

/// Separates a leading `<think>` block from the text.
#[derive(Debug, Default)]
pub(super) struct Think {
    state: ThinkState,
    /// Text that may be the beginning of a tag.
    held: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum ThinkState {
    /// Only white space and the beginning of `<think>` so far.
    #[default]
    Start,
    /// Inside the block.
    Thinking,
    /// After the block and before the text; white space is dropped.
    Between,
    /// Inside the text.
    Text,
}

impl Think {
    /// Takes the next chunk of text, and passes on every part that is certain.
    pub(super) fn push<E>(
        &mut self,
        text: &str,
        mut give: impl FnMut(AnswerPart<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.state == ThinkState::Text {
            return give(AnswerPart::Text(text));
        }
        self.held.push_str(text);
        let held = mem::take(&mut self.held);
        let mut rest = held.as_str();
        if self.state == ThinkState::Start {
            let visible = rest.trim_start();
            if let Some(thought) = visible.strip_prefix(OPEN) {
                self.state = ThinkState::Thinking;
                rest = thought;
            } else if OPEN.starts_with(visible) {
                self.held = held;
                return Ok(());
            } else {
                self.state = ThinkState::Text;
            }
        }
        if self.state == ThinkState::Thinking {
            let Some((thought, after)) = rest.split_once(CLOSE) else {
                let (certain, held) = rest.split_at(rest.len() - overlap(rest, CLOSE));
                self.held = held.to_owned();
                return if certain.is_empty() { Ok(()) } else { give(AnswerPart::Reasoning(certain)) };
            };
            give(AnswerPart::Reasoning(thought))?;
            self.state = ThinkState::Between;
            rest = after;
        }
        if self.state == ThinkState::Between {
            rest = rest.trim_start();
            if rest.is_empty() {
                return Ok(());
            }
            self.state = ThinkState::Text;
        }
        give(AnswerPart::Text(rest))
    }

    /// Passes on the held text, at the end of the answer.
    pub(super) fn finish<E>(
        &mut self,
        mut give: impl FnMut(AnswerPart<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let held = mem::take(&mut self.held);
        match mem::replace(&mut self.state, ThinkState::Text) {
            _ if held.is_empty() => Ok(()),
            ThinkState::Thinking => give(AnswerPart::Reasoning(&held)),
            _ => give(AnswerPart::Text(&held)),
        }
    }
}

/// Ends the text at the first stop text.
#[derive(Debug, Default)]
pub(super) struct Stop {
    texts: Vec<String>,
    /// The end of the text so far, if it may begin a stop text.
    held: String,
}

impl Stop {
    /// Stops at the first of `texts`; empty ones have no effect.
    pub(super) fn new(texts: impl IntoIterator<Item = String>) -> Self {
        Self { texts: texts.into_iter().filter(|text| !text.is_empty()).collect(), held: String::new() }
    }

    /// Takes the next chunk of text, passes on what is certain, and returns whether a stop text was found.
    pub(super) fn push<E>(
        &mut self,
        text: &str,
        mut give: impl FnMut(&str) -> Result<(), E>,
    ) -> Result<bool, E> {
        if self.texts.is_empty() {
            return give(text).map(|()| false);
        }
        self.held.push_str(text);
        let held = mem::take(&mut self.held);
        let reached = self.texts.iter().filter_map(|stop| held.find(stop)).min();
        let unsure = self.texts.iter().map(|stop| overlap(&held, stop)).max().unwrap_or_default();
        let certain = reached.unwrap_or(held.len() - unsure);
        if reached.is_none() {
            held[certain..].clone_into(&mut self.held);
        }
        if certain > 0 {
            give(&held[..certain])?;
        }
        Ok(reached.is_some())
    }

    /// Passes on the held text, at the end of the answer.
    pub(super) fn finish<E>(&mut self, mut give: impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
        let held = mem::take(&mut self.held);
        if held.is_empty() { Ok(()) } else { give(&held) }
    }
}

/// Returns the length of the longest end of `text` that begins `wanted` and is shorter than it.
fn overlap(text: &str, wanted: &str) -> usize {
    let longest = text.len().min(wanted.len().saturating_sub(1));
    (1..=longest)
        .rev()
        .find(|&length| text.as_bytes().ends_with(&wanted.as_bytes()[..length]))
        .filter(|&length| wanted.is_char_boundary(length))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// Returns the text and the reasoning of chunks.
    fn think(pieces: &[&str]) -> (String, String) {
        let (mut text, mut reasoning) = (String::new(), String::new());
        let mut give = |piece: AnswerPart<'_>| -> Result<(), Infallible> {
            match piece {
                AnswerPart::Text(piece) => text.push_str(piece),
                AnswerPart::Reasoning(piece) => reasoning.push_str(piece),
            }
            Ok(())
        };
        let mut splitter = Think::default();
        for piece in pieces {
            let Ok(()) = splitter.push(piece, &mut give);
        }
        let Ok(()) = splitter.finish(&mut give);
        (text, reasoning)
    }

    fn stop(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut text = String::new();
        let mut give = |piece: &str| -> Result<(), Infallible> {
            text.push_str(piece);
            Ok(())
        };
        let mut cutter = Stop::new(stops.iter().map(ToString::to_string));
        for piece in pieces {
            let Ok(reached) = cutter.push(piece, &mut give);
            if reached {
                return (text, true);
            }
        }
        let Ok(()) = cutter.finish(&mut give);
        (text, false)
    }

    /// Returns every split of `text` in two, and its characters one by one.
    fn cuts(text: &str) -> Vec<Vec<&str>> {
        let ends = text.char_indices().map(|(index, _)| index);
        let in_two = ends.map(|index| vec![&text[..index], &text[index..]]);
        let singly = text.char_indices().map(|(index, character)| &text[index..index + character.len_utf8()]);
        in_two.chain([singly.collect()]).collect()
    }

    #[test]
    fn leading_think_block_is_reasoning_in_any_chunks() {
        let cases = [
            ("<think>a b</think>\n\nHi", "Hi", "a b"),
            ("\n <think>\nmüde</think>Hi</think>", "Hi</think>", "\nmüde"),
            ("<think>never ends </thin", "", "never ends </thin"),
            ("<think></think>", "", ""),
            ("<thin air", "<thin air", ""),
            ("  indented", "  indented", ""),
            ("Say <think>x</think>", "Say <think>x</think>", ""),
            (" ", " ", ""),
            ("<", "<", ""),
        ];
        for (whole, text, reasoning) in cases {
            for pieces in cuts(whole) {
                assert_eq!(think(&pieces), (text.to_owned(), reasoning.to_owned()), "{pieces:?}");
            }
        }
    }

    #[test]
    fn text_ends_before_stop_text_in_any_chunks() {
        let cases = [
            (&["END"][..], "one END two", "one ", true),
            (&["\n\n", "two"], "one two\n\n", "one ", true),
            (&["ENDE"], "an END", "an END", false),
            (&["aab"], "aaab", "a", true),
            (&["ü", "ßß"], "gr\u{df}\u{df}", "gr", true),
            (&[""], "text", "text", false),
        ];
        for (stops, whole, text, reached) in cases {
            for pieces in cuts(whole) {
                assert_eq!(stop(stops, &pieces), (text.to_owned(), reached), "{stops:?} {pieces:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn splitting_neither_loses_nor_repeats_text(
            pieces in proptest::collection::vec("[<>/think ü]{0,6}", 0..12),
            stops in proptest::collection::vec("[<>think]{1,4}", 0..3),
        ) {
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let whole = pieces.concat();
            prop_assert_eq!(think(&pieces), think(&[&whole]));
            let first = stops.iter().filter_map(|stop| whole.find(stop)).min();
            let (text, reached) = stop(&stops, &pieces);
            prop_assert!(whole.starts_with(&text));
            match first {
                None => prop_assert_eq!((text, reached), (whole, false)),
                Some(first) => prop_assert!(reached && text.len() >= first),
            }
        }
    }
}

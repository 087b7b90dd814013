//! Cuts the text of an answer where the server should have: at a leading `<think>` block, which is reasoning, and
//! at the stop texts of the request, which `mlx_lm.server` does not always honour. Both work across pieces.

use std::mem;

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// A piece of the answer, told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    Reasoning(&'a str),
}

/// Tells a `<think>` block with which the text begins from the text.
#[derive(Debug, Default)]
pub(super) struct Think {
    state: ThinkState,
    /// What cannot be told apart yet.
    held: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum ThinkState {
    /// Nothing but white space and the beginning of `<think>` so far.
    #[default]
    Start,
    /// In the block.
    Thinking,
    /// After it, before the text: white space is dropped.
    Between,
    /// In the text.
    Text,
}

impl Think {
    /// Takes the next piece of text, and gives what is certain now.
    pub(super) fn push<E>(
        &mut self,
        text: &str,
        mut give: impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.state == ThinkState::Text {
            return give(Piece::Text(text));
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
                return if certain.is_empty() { Ok(()) } else { give(Piece::Reasoning(certain)) };
            };
            give(Piece::Reasoning(thought))?;
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
        give(Piece::Text(rest))
    }

    /// Gives what was held back, at the end of the answer.
    pub(super) fn finish<E>(&mut self, mut give: impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        let held = mem::take(&mut self.held);
        match mem::replace(&mut self.state, ThinkState::Text) {
            _ if held.is_empty() => Ok(()),
            ThinkState::Thinking => give(Piece::Reasoning(&held)),
            _ => give(Piece::Text(&held)),
        }
    }
}

/// Ends the text before the first of some stop texts.
#[derive(Debug, Default)]
pub(super) struct Stop {
    texts: Vec<String>,
    /// The end of the text so far, while it may be the beginning of a stop text.
    held: String,
}

impl Stop {
    /// Stops at the first of `texts`; empty ones never stop.
    pub(super) fn new(texts: impl IntoIterator<Item = String>) -> Self {
        Self { texts: texts.into_iter().filter(|text| !text.is_empty()).collect(), held: String::new() }
    }

    /// Takes the next piece of text, gives what is certain now, and says whether a stop text was reached.
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

    /// Gives what was held back, at the end of the answer.
    pub(super) fn finish<E>(&mut self, mut give: impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
        let held = mem::take(&mut self.held);
        if held.is_empty() { Ok(()) } else { give(&held) }
    }
}

/// The length of the longest end of `text` with which `wanted` begins, all of `wanted` excepted.
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

    /// The text and the reasoning, when `text` arrives in these pieces.
    fn think(pieces: &[&str]) -> (String, String) {
        let (mut text, mut reasoning) = (String::new(), String::new());
        let mut give = |piece: Piece<'_>| -> Result<(), Infallible> {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Reasoning(piece) => reasoning.push_str(piece),
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

    /// Every cut of `text` in two, and all its characters one by one.
    fn cuts(text: &str) -> Vec<Vec<&str>> {
        let ends = text.char_indices().map(|(index, _)| index);
        let in_two = ends.map(|index| vec![&text[..index], &text[index..]]);
        let singly = text.char_indices().map(|(index, character)| &text[index..index + character.len_utf8()]);
        in_two.chain([singly.collect()]).collect()
    }

    #[test]
    fn a_leading_think_block_is_reasoning_however_it_is_cut() {
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
    fn the_text_ends_before_the_first_stop_text_however_it_is_cut() {
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
        fn no_text_is_lost_and_none_is_given_twice(
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

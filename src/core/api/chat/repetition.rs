//! Notices a model that repeats itself: Ollama ends such an answer without a word.

/// After this many equal tokens in a row, Ollama ends the answer (server/routes.go, llm/server.go: `tokenRepeatLimit`).
const REPEAT_LIMIT: u32 = 30;

/// How often the last part of the answer has come in a row.
#[derive(Debug, Default)]
pub(super) struct Repetition {
    last: String,
    count: u32,
}

impl Repetition {
    /// Takes the next part of the answer.
    pub(super) fn add(&mut self, text: &str) {
        if self.last == text {
            self.count = self.count.saturating_add(1);
            return;
        }
        self.count = 1;
        text.clone_into(&mut self.last);
    }

    /// Returns whether the last part came so often that the server may have ended the answer for it.
    pub(super) fn is_at_limit(&self) -> bool {
        self.count >= REPEAT_LIMIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_parts_in_a_row_count() {
        let mut repetition = Repetition::default();
        for text in ["a", "b"].iter().cycle().take(100) {
            repetition.add(text);
        }
        assert!(!repetition.is_at_limit());
        for _ in 0..29 {
            repetition.add("b");
        }
        assert!(repetition.is_at_limit());
    }
}

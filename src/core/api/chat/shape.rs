//! A fast path to the text of a chunk: nearly every chunk of a stream equals the one before it, but for its text.

/// A chunk with no other content than its text, and the position of the text in it.
#[derive(Debug, Default)]
pub(super) struct ChunkShape {
    before: Vec<u8>,
    after: Vec<u8>,
}

impl ChunkShape {
    /// Learns the shape of a chunk whose only content is `text`. `text` must be borrowed from `data`, so it has
    /// quotes around it and no escapes.
    pub(super) fn learn(&mut self, data: &str, text: &str) {
        let start = (text.as_ptr() as usize).wrapping_sub(data.as_ptr() as usize);
        let Some(after) = data.as_bytes().get(start.saturating_add(text.len())..) else { return };
        self.before.clear();
        self.before.extend_from_slice(&data.as_bytes()[..start]);
        self.after.clear();
        self.after.extend_from_slice(after);
    }

    /// Returns the text of a chunk that differs only in its text. That text must have no quotes or escapes, so a
    /// parser would return the same.
    pub(super) fn text<'d>(&self, data: &'d str) -> Option<&'d str> {
        if self.after.is_empty() {
            return None;
        }
        let bytes =
            data.as_bytes().strip_prefix(self.before.as_slice())?.strip_suffix(self.after.as_slice())?;
        let is_plain = bytes.iter().all(|byte| *byte >= b' ' && !matches!(byte, b'"' | b'\\'));
        is_plain.then(|| &data[self.before.len()..data.len() - self.after.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(data: &str, text: &str) -> ChunkShape {
        let mut template = ChunkShape::default();
        let start = data.find(text).unwrap();
        template.learn(data, &data[start..start + text.len()]);
        template
    }

    #[test]
    fn shape_matches_only_other_texts() {
        let template = learned(r#"{"c":"Hi","x":1}"#, "Hi");
        assert_eq!(template.text(r#"{"c":"grün 🙂","x":1}"#), Some("grün 🙂"));
        assert_eq!(template.text(r#"{"c":"","x":1}"#), Some(""));
        for other in [
            r#"{"c":"Hi","x":2}"#,
            r#"{"d":"Hi","x":1}"#,
            r#"{"c":"a\nb","x":1}"#,
            r#"{"c":"a","c":"b","x":1}"#,
            "{\"c\":\"a\nb\",\"x\":1}",
            r#"{"c":"#,
            "",
        ] {
            assert_eq!(template.text(other), None, "{other}");
        }
    }

    #[test]
    fn overlapping_ends_have_no_text() {
        let template = learned("aba", "b");
        assert_eq!(template.text("aca"), Some("c"));
        assert_eq!(template.text("aa"), Some(""));
        assert_eq!(template.text("a"), None);
    }

    #[test]
    fn empty_shape_matches_nothing() {
        assert_eq!(ChunkShape::default().text(""), None);
        assert_eq!(ChunkShape::default().text("text"), None);
    }
}

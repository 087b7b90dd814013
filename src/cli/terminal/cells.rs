//! Measures text in the cells of a terminal: a letter of Chinese takes two, a combining accent none.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Returns how many cells `text` takes, which must be one line without control characters.
pub fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.width() }
}

/// Returns the beginning of `line` that fits into so many cells.
pub fn cut(line: &str, cells: usize) -> &str {
    let mut taken = 0;
    for (at, character) in line.char_indices() {
        taken += character.width().unwrap_or_default();
        if taken > cells {
            return &line[..at];
        }
    }
    line
}

//! Reading JSON as Python's `json` module does, which the model servers use: `NaN`, `Infinity`, numbers beyond 64 bits,
//! lone surrogates, and the last of several equal keys.
//!
//! `serde_json` refuses the first four and nesting beyond 128.

use serde_json::{Map, Number, Value};

use crate::core::numbers;

/// Deeper documents are refused: `mlx_lm` on Python 3.11 reads 400 nested arrays, and refuses 500.
const MAX_DEPTH: usize = 500;

/// What some editors write at the start of a file.
pub const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Why a text could not be parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonFault {
    /// The text ends before the document does.
    EndsEarly,
    Malformed,
    /// Python refuses it, too.
    ByteOrderMark,
    /// Python refuses it, too.
    TooDeep,
}

/// Parses a document. Numbers that are not finite become null, lone surrogates U+FFFD.
pub fn parse(text: &[u8]) -> Result<Value, JsonFault> {
    let text = String::from_utf8_lossy(text);
    if text.starts_with(BYTE_ORDER_MARK) {
        return Err(JsonFault::ByteOrderMark);
    }
    let mut reader = JsonReader { rest: &text };
    let value = reader.value(0)?;
    reader.skip_space();
    if reader.rest.is_empty() { Ok(value) } else { Err(JsonFault::Malformed) }
}

struct JsonReader<'a> {
    rest: &'a str,
}

impl JsonReader<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, text: &str) -> Result<(), JsonFault> {
        if self.take(text) { Ok(()) } else { Err(self.fault()) }
    }

    /// Returns what is wrong here.
    fn fault(&self) -> JsonFault {
        if self.rest.is_empty() { JsonFault::EndsEarly } else { JsonFault::Malformed }
    }

    fn value(&mut self, depth: usize) -> Result<Value, JsonFault> {
        if depth > MAX_DEPTH {
            return Err(JsonFault::TooDeep);
        }
        self.skip_space();
        if self.take("{") {
            self.object(depth)
        } else if self.take("[") {
            self.array(depth)
        } else if self.take("\"") {
            self.string().map(Value::String)
        } else {
            self.word()
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, JsonFault> {
        let mut map = Map::new();
        self.skip_space();
        if self.take("}") {
            return Ok(Value::Object(map));
        }
        loop {
            self.skip_space();
            self.expect("\"")?;
            let key = self.string()?;
            self.skip_space();
            self.expect(":")?;
            map.insert(key, self.value(depth + 1)?);
            self.skip_space();
            if self.take("}") {
                return Ok(Value::Object(map));
            }
            self.expect(",")?;
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, JsonFault> {
        let mut items = Vec::new();
        self.skip_space();
        if self.take("]") {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.skip_space();
            if self.take("]") {
                return Ok(Value::Array(items));
            }
            self.expect(",")?;
        }
    }

    /// Reads a string whose opening quote is taken.
    fn string(&mut self) -> Result<String, JsonFault> {
        let mut text = String::new();
        loop {
            let end = self.rest.find(|end: char| matches!(end, '"' | '\\') || end < ' ');
            let (plain, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
            text.push_str(plain);
            self.rest = rest;
            if self.take("\"") {
                return Ok(text);
            }
            self.expect("\\")?;
            text.push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Result<char, JsonFault> {
        let kind = self.rest.chars().next().ok_or(JsonFault::EndsEarly)?;
        self.rest = &self.rest[kind.len_utf8()..];
        Ok(match kind {
            '"' | '\\' | '/' => kind,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = self.code_unit()?;
                return Ok(self.character(first));
            }
            _ => return Err(JsonFault::Malformed),
        })
    }

    /// Joins a code unit with the second half of its surrogate pair, if one follows.
    fn character(&mut self, first: u16) -> char {
        let before = self.rest;
        if (0xD800..0xDC00).contains(&first) && self.take("\\u") {
            if let Ok(second) = self.code_unit()
                && let Some(Ok(pair)) = char::decode_utf16([first, second]).next()
            {
                return pair;
            }
            self.rest = before;
        }
        char::from_u32(u32::from(first)).unwrap_or(char::REPLACEMENT_CHARACTER)
    }

    fn code_unit(&mut self) -> Result<u16, JsonFault> {
        let Some(digits) = self.rest.get(..4) else {
            return Err(if self.rest.len() < 4 { JsonFault::EndsEarly } else { JsonFault::Malformed });
        };
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(JsonFault::Malformed);
        }
        self.rest = &self.rest[4..];
        u16::from_str_radix(digits, 16).map_err(|_| JsonFault::Malformed)
    }

    /// Reads a number or a literal.
    fn word(&mut self) -> Result<Value, JsonFault> {
        let is_word = |part: char| part.is_ascii_alphanumeric() || matches!(part, '-' | '+' | '.');
        let end = self.rest.find(|end| !is_word(end)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        let value = match word {
            "null" | "NaN" | "Infinity" | "-Infinity" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => match number(word) {
                Some(number) => number,
                // A part of a word is the end of a text that was cut.
                None if rest.is_empty() && is_cut(word) => return Err(JsonFault::EndsEarly),
                None => return Err(JsonFault::Malformed),
            },
        };
        self.rest = rest;
        Ok(value)
    }
}

/// Returns whether more text could make a word of this.
fn is_cut(word: &str) -> bool {
    let literals = ["null", "true", "false", "NaN", "Infinity", "-Infinity"];
    literals.iter().any(|literal| literal.starts_with(word)) || number(&format!("{word}0")).is_some()
}

/// Parses a number; one that is not finite is null.
fn number(word: &str) -> Option<Value> {
    let digits = word.strip_prefix('-').unwrap_or(word);
    let has_leading_zero =
        digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
    if !digits.starts_with(|first: char| first.is_ascii_digit()) || has_leading_zero || has_bare_point(digits)
    {
        return None;
    }
    if let Ok(number) = word.parse::<u64>() {
        return Some(Value::from(number));
    }
    if let Ok(number) = word.parse::<i64>() {
        return Some(Value::from(number));
    }
    let number = numbers::parse_float(word)?;
    Some(Number::from_f64(number).map_or(Value::Null, Value::Number))
}

/// Returns whether a point has no digit after it.
fn has_bare_point(digits: &str) -> bool {
    digits.split_once('.').is_some_and(|(_, after)| !after.starts_with(|first: char| first.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Value, JsonFault> {
        parse(text.as_bytes())
    }

    #[test]
    fn what_python_accepts_is_read() {
        let cases = [
            (r#"{"a":NaN,"b":-Infinity,"c":Infinity}"#, json!({ "a": null, "b": null, "c": null })),
            (r#"{"a":1e400,"b":-1e400,"c":1e3}"#, json!({ "a": null, "b": null, "c": 1000.0 })),
            (
                r#"{"a":123456789012345678901234567890}"#,
                json!({ "a": 123_456_789_012_345_678_901_234_567_890.0 }),
            ),
            (
                r#"["\ud800","\ud83d\ude00","\ud800\u0041","\u00e9\n"]"#,
                json!(["\u{fffd}", "😀", "\u{fffd}A", "é\n"]),
            ),
            (r#"{"a":1,"a":2}"#, json!({ "a": 2 })),
            (" [ ] ", json!([])),
            ("[-0, 0.5, 1E-2, true, false, null]", json!([0, 0.5, 0.01, true, false, null])),
        ];
        for (text, value) in cases {
            assert_eq!(read(text), Ok(value), "{text}");
        }
        assert!(read(&("[".repeat(200) + &"]".repeat(200))).is_ok());
    }

    #[test]
    fn what_python_refuses_is_malformed() {
        let cases = [
            r#"{"a":01}"#,
            "{\"a\":\"\t\"}",
            r#"{"a":1}x"#,
            "-NaN",
            r#"{"a":1,}"#,
            "\u{b}{}",
            "[1.]",
            "[.5]",
            "[+1]",
            r#"["\x"]"#,
            r#"["\u12g4"]"#,
            "{1:2}",
            "nul!",
            "[1 2]",
        ];
        for text in cases {
            assert_eq!(read(text), Err(JsonFault::Malformed), "{text:?}");
        }
        assert_eq!(read("\u{feff}{}"), Err(JsonFault::ByteOrderMark));
        for text in ["[".repeat(900) + &"]".repeat(900), "[".repeat(100_000)] {
            assert_eq!(read(&text), Err(JsonFault::TooDeep));
        }
    }

    #[test]
    fn every_cut_of_an_object_ends_early() {
        let whole = r#"{"a": [1, -2.5e3, NaN, -Infinity], "b": {"é": "x\ud83d\ude00\n"}, "c": true}"#;
        assert!(read(whole).is_ok());
        for (at, _) in whole.char_indices() {
            assert_eq!(read(&whole[..at]), Err(JsonFault::EndsEarly), "{:?}", &whole[..at]);
        }
    }
}

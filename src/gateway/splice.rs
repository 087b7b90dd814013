//! The `model` of a JSON request body: found without parsing the rest, and replaced without touching it.

use std::ops::Range;

use hyper::body::Bytes;

use crate::core::json_object;

/// The parts of a request body that the gateway reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// The model, from the last of several equal keys, which is the one that model servers use.
    pub model: String,
    /// Whether the body has `"stream": true`.
    pub stream: bool,
    /// Each value of a top-level key `model`: where it is, with its quotes, and its text.
    places: Vec<(Range<usize>, String)>,
}

/// Why a body names no model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    #[error("the body is empty: a JSON object with `model` is needed")]
    Empty,
    #[error("the body is not a JSON object")]
    NotAnObject,
    #[error("the JSON of the body is malformed at byte {0}")]
    Malformed(usize),
    #[error("the JSON of the body ends early")]
    EndsEarly,
    #[error("the body has no `model`")]
    NoModel,
    #[error("`model` is not a string")]
    NotAString,
}

/// Finds the top-level `model` and `stream` of a body. Values of other keys are skipped, not checked.
pub fn fields(body: &[u8]) -> Result<Fields, BodyFault> {
    let mut scanner = Scanner { body, at: 0 };
    match scanner.next_token() {
        Ok(b'{') => scanner.at += 1,
        Ok(_) => return Err(BodyFault::NotAnObject),
        Err(_) => return Err(BodyFault::Empty),
    }
    let mut places = Vec::new();
    let mut last = Ok(None);
    let mut stream = false;
    if scanner.next_token()? == b'}' {
        return Err(BodyFault::NoModel);
    }
    loop {
        let key = scanner.string()?;
        let key = text(&body[key.clone()]).ok_or(BodyFault::Malformed(key.start))?;
        scanner.expect(b':')?;
        let value = scanner.value()?;
        match key.as_str() {
            "model" => {
                last = model_text(&body[value.clone()]);
                if let Ok(Some(name)) = &last {
                    places.push((value, name.clone()));
                }
            }
            "stream" => stream = &body[value] == b"true",
            _ => {}
        }
        match scanner.next_token()? {
            b',' => scanner.at += 1,
            b'}' => break,
            _ => return Err(BodyFault::Malformed(scanner.at)),
        }
    }
    let model = last?.filter(|model| !model.is_empty()).ok_or(BodyFault::NoModel)?;
    Ok(Fields { model, stream, places })
}

/// Returns the body with `model` as its model. All of several equal keys get the new value, because servers differ in
/// which one they use.
pub fn with_model(body: &Bytes, fields: &Fields, model: &str) -> Vec<Bytes> {
    let mut wrong =
        fields.places.iter().filter(|(_, name)| name != model).map(|(place, _)| place.clone()).peekable();
    if wrong.peek().is_none() {
        return vec![body.clone()];
    }
    replaced(body, wrong, &serde_json::Value::from(model).to_string().into())
}

/// Returns a body in pieces, with `value` in these places. What stays is not copied: a body may be large.
pub fn replaced(body: &Bytes, places: impl IntoIterator<Item = Range<usize>>, value: &Bytes) -> Vec<Bytes> {
    let (mut pieces, mut taken) = (Vec::new(), 0);
    for place in places {
        pieces.extend([body.slice(taken..place.start), value.clone()]);
        taken = place.end;
    }
    pieces.push(body.slice(taken..));
    pieces
}

/// Returns the text of a `model`; `None` if it is null.
fn model_text(value: &[u8]) -> Result<Option<String>, BodyFault> {
    match value {
        b"null" => Ok(None),
        [b'"', ..] => text(value).map(Some).ok_or(BodyFault::NotAString),
        _ => Err(BodyFault::NotAString),
    }
}

/// Returns the text of a JSON string, which includes its quotes.
fn text(string: &[u8]) -> Option<String> {
    match string {
        [b'"', plain @ .., b'"'] if plain.iter().all(|byte| *byte >= b' ' && *byte != b'\\') => {
            String::from_utf8(plain.to_vec()).ok()
        }
        _ => json_object::parse(string).ok(),
    }
}

struct Scanner<'b> {
    body: &'b [u8],
    at: usize,
}

impl Scanner<'_> {
    /// Skips white space and returns the next byte without taking it.
    fn next_token(&mut self) -> Result<u8, BodyFault> {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let space = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.at += space;
        rest.get(space).copied().ok_or(BodyFault::EndsEarly)
    }

    fn expect(&mut self, byte: u8) -> Result<(), BodyFault> {
        if self.next_token()? != byte {
            return Err(BodyFault::Malformed(self.at));
        }
        self.at += 1;
        Ok(())
    }

    /// Takes a string and returns its place, with its quotes.
    fn string(&mut self) -> Result<Range<usize>, BodyFault> {
        self.expect(b'"')?;
        let start = self.at - 1;
        self.finish_string()?;
        Ok(start..self.at)
    }

    /// Moves behind the closing quote of a string.
    fn finish_string(&mut self) -> Result<(), BodyFault> {
        loop {
            let rest = self.body.get(self.at..).unwrap_or_default();
            let end = memchr::memchr2(b'"', b'\\', rest).ok_or(BodyFault::EndsEarly)?;
            self.at += end + 1;
            if rest[end] == b'"' {
                return Ok(());
            }
            self.at += 1;
        }
    }

    /// Takes a value and returns its place.
    fn value(&mut self) -> Result<Range<usize>, BodyFault> {
        let first = self.next_token()?;
        let start = self.at;
        match first {
            b'"' => return self.string(),
            b'{' | b'[' => self.skip_nested()?,
            b',' | b'}' | b']' | b':' => return Err(BodyFault::Malformed(start)),
            _ => {
                let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
                let length = self.body[start..].iter().position(is_end).ok_or(BodyFault::EndsEarly)?;
                self.at += length;
            }
        }
        Ok(start..self.at)
    }

    /// Moves behind the object or array that begins here.
    fn skip_nested(&mut self) -> Result<(), BodyFault> {
        let mut depth = 0_usize;
        loop {
            let byte = *self.body.get(self.at).ok_or(BodyFault::EndsEarly)?;
            self.at += 1;
            match byte {
                b'"' => self.finish_string()?,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn model(body: &str) -> Result<String, BodyFault> {
        fields(body.as_bytes()).map(|fields| fields.model)
    }

    fn spliced(body: &str, name: &str) -> String {
        let fields = fields(body.as_bytes()).expect("a model");
        let pieces = with_model(&Bytes::copy_from_slice(body.as_bytes()), &fields, name);
        String::from_utf8(pieces.concat()).expect("text")
    }

    #[test]
    fn only_the_top_level_model_is_found() {
        for body in [
            r#"{"a":{"model":"x"},"b":[{"model":"y"}],"c":"\"model\":\"z\"","model":"m"}"#,
            r#"{"model":"m","a":{"model":"x"}}"#,
            "\r\n { \"mod\\u0065l\"\t:\n\"\\u006d\" } trailing",
            r#"{"x":"\\","model":"m"}"#,
            r#"{"model":"old","model":"m"}"#,
            r#"{"model":1,"model":"m"}"#,
        ] {
            assert_eq!(model(body), Ok("m".to_owned()), "{body}");
        }
    }

    #[test]
    fn body_without_a_model_says_why() {
        for (body, fault) in [
            ("", BodyFault::Empty),
            (" \n", BodyFault::Empty),
            ("[]", BodyFault::NotAnObject),
            ("\u{feff}{}", BodyFault::NotAnObject),
            ("{}", BodyFault::NoModel),
            (r#"{"model":null}"#, BodyFault::NoModel),
            (r#"{"model":""}"#, BodyFault::NoModel),
            (r#"{"model":"m","model":null}"#, BodyFault::NoModel),
            (r#"{"model":7}"#, BodyFault::NotAString),
            (r#"{"model":["m"]}"#, BodyFault::NotAString),
            (r#"{"model":"\x"}"#, BodyFault::NotAString),
            (r#"{"model":"m"#, BodyFault::EndsEarly),
            (r#"{"model":"m"}"#.trim_end_matches('}'), BodyFault::EndsEarly),
            (r#"{"model":"m\"#, BodyFault::EndsEarly),
            (r#"{"a":[[{"#, BodyFault::EndsEarly),
            (r#"{"a":}"#, BodyFault::Malformed(5)),
            (r#"{"a" 1}"#, BodyFault::Malformed(5)),
            (r#"{"a":1 "b":2}"#, BodyFault::Malformed(7)),
            (r#"{"a":1,}"#, BodyFault::Malformed(7)),
            ("{a:1}", BodyFault::Malformed(1)),
            (r#"{"\q":1}"#, BodyFault::Malformed(1)),
        ] {
            assert_eq!(model(body), Err(fault), "{body:?}");
        }
    }

    #[test]
    fn only_a_true_stream_streams() {
        for (value, stream) in [("true", true), ("false", false), ("null", false), ("\"true\"", false)] {
            let body = format!(r#"{{"model":"m","stream": {value} }}"#);
            assert_eq!(fields(body.as_bytes()).map(|fields| fields.stream), Ok(stream), "{value}");
        }
    }

    #[test]
    fn every_wrong_model_is_replaced() {
        assert_eq!(spliced(r#"{"model":"m","a":1}"#, "m"), r#"{"model":"m","a":1}"#);
        let twice = spliced(r#"{"model":"a","z":1,"model":"m"}"#, "m");
        assert_eq!(twice, r#"{"model":"m","z":1,"model":"m"}"#);
        assert_eq!(spliced(r#"{"model" : "a"}"#, "q\"\\é"), r#"{"model" : "q\"\\é"}"#);
    }

    #[test]
    fn rest_of_the_body_is_not_copied() {
        let body = Bytes::from(r#"{"model":"a","z":1}"#);
        let pieces = with_model(&body, &fields(&body).expect("a model"), "m");
        assert_eq!([pieces[0].as_ptr(), pieces[2].as_ptr()], [body.as_ptr(), body[12..].as_ptr()]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = fields(&body);
        }

        #[test]
        fn spliced_body_parses_to_the_new_model(
            key in "[a-z\"\\\\é]{0,8}", other in ".{0,20}", old in ".{1,12}", new in ".{1,12}"
        ) {
            prop_assume!(key != "model");
            let body = serde_json::json!({ "a": [&other, {"model": &other}], &key: &other, "model": &old }).to_string();
            let found = fields(body.as_bytes()).unwrap();
            prop_assert_eq!(&found.model, &old);
            let changed = with_model(&body.clone().into(), &found, &new).concat();
            let mut expected: serde_json::Value = serde_json::from_str(&body).unwrap();
            expected["model"] = new.into();
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&changed).unwrap(), expected);
        }
    }
}

//! JSON: reads the members of an object by name, which is much less code than a derived reader of each type; writes it
//! indented.

use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::{Map, Value};

/// An object whose members are read by name. A member that is null counts as missing.
pub struct JsonObject<'a>(&'a Map<String, Value>);

impl<'a> JsonObject<'a> {
    /// Takes a value that must be an object; `name` is for the error.
    pub fn new(value: &'a Value, name: &str) -> Result<Self, serde_json::Error> {
        value.as_object().map(Self).ok_or_else(|| wrong(name))
    }

    pub fn text(&self, name: &str) -> Result<Option<String>, serde_json::Error> {
        self.read(name, |value| value.as_str().map(str::to_owned))
    }

    pub fn number(&self, name: &str) -> Result<Option<u64>, serde_json::Error> {
        self.read(name, Value::as_u64)
    }

    pub fn flag(&self, name: &str) -> Result<Option<bool>, serde_json::Error> {
        self.read(name, Value::as_bool)
    }

    pub fn object(&self, name: &str) -> Result<Option<Self>, serde_json::Error> {
        self.read(name, |value| value.as_object().map(Self))
    }

    /// Returns the texts of an array.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<String>>, serde_json::Error> {
        self.read(name, |value| {
            value.as_array()?.iter().map(|text| Some(text.as_str()?.to_owned())).collect()
        })
    }

    /// Returns all members, if they are texts.
    pub fn entries(&self) -> Option<Vec<(String, String)>> {
        self.0.iter().map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
    }

    fn read<T>(
        &self,
        name: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, serde_json::Error> {
        let value = self.0.get(name).filter(|value| !value.is_null());
        value.map(|value| read(value).ok_or_else(|| wrong(name))).transpose()
    }
}

/// Reads JSON as text: the reader of bytes would be a second copy of the parser.
pub fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_str(str::from_utf8(json).map_err(serde_json::Error::custom)?)
}

/// Returns the value as [`serde_json::to_string_pretty`] does, which would bring a second writer of each type.
pub fn indented(value: &impl Serialize) -> Result<String, serde_json::Error> {
    serde_json::to_string(value).map(|json| indent(&json))
}

fn indent(json: &str) -> String {
    let mut indented = String::new();
    let (mut depth, mut is_in_text, mut is_escaped) = (0, false, false);
    let mut characters = json.chars().peekable();
    while let Some(character) = characters.next() {
        if !is_in_text && matches!(character, '}' | ']') {
            depth -= 1;
            new_line(&mut indented, depth);
        }
        indented.push(character);
        if is_in_text {
            is_in_text = is_escaped || character != '"';
            is_escaped = character == '\\' && !is_escaped;
            continue;
        }
        match character {
            '"' => is_in_text = true,
            ':' => indented.push(' '),
            ',' => new_line(&mut indented, depth),
            '{' | '[' => {
                if let Some(end) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    indented.push(end);
                } else {
                    depth += 1;
                    new_line(&mut indented, depth);
                }
            }
            _ => {}
        }
    }
    indented
}

fn new_line(text: &mut String, depth: usize) {
    text.push('\n');
    text.push_str(&"  ".repeat(depth));
}

/// Returns the value of a member that must be there.
pub fn required<T>(name: &str, value: Option<T>) -> Result<T, serde_json::Error> {
    value.ok_or_else(|| serde_json::Error::custom(format_args!("{name} is missing")))
}

/// Returns the error of a member that is not what it must be.
pub fn wrong(name: &str) -> serde_json::Error {
    serde_json::Error::custom(format_args!("{name} is not valid"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn indented_json_is_that_of_serde() {
        let value = json!({"a": [], "b": {}, "c": [1, "[{\"\\", ["}, \"", {"d:": null, "e": [true, -1.5]}]]});
        for value in [value, json!([]), json!("a\\"), json!(1)] {
            assert_eq!(indented(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap());
        }
    }

    #[test]
    fn members_have_their_types() {
        let value = json!({"text": "a", "number": 1, "flag": true, "texts": ["a", "b"], "null": null, "of": {"a": "b"}});
        let object = JsonObject::new(&value, "it").unwrap();
        assert_eq!(object.text("text").unwrap().as_deref(), Some("a"));
        assert_eq!(object.number("number").unwrap(), Some(1));
        assert_eq!(object.flag("flag").unwrap(), Some(true));
        assert_eq!(object.texts("texts").unwrap(), Some(vec!["a".to_owned(), "b".to_owned()]));
        let entries = object.object("of").unwrap().unwrap().entries();
        assert_eq!(entries, Some(vec![("a".to_owned(), "b".to_owned())]));
        assert_eq!((object.text("null").unwrap(), object.text("none").unwrap()), (None, None));
        assert_eq!(object.text("number").unwrap_err().to_string(), "number is not valid");
        assert_eq!(object.number("text").unwrap_err().to_string(), "text is not valid");
        assert_eq!(required::<u64>("none", None).unwrap_err().to_string(), "none is missing");
        assert!(object.object("text").is_err() && object.texts("of").is_err() && object.entries().is_none());
        assert!(JsonObject::new(&json!([]), "it").is_err());
    }
}

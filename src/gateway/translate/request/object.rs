//! JSON of a client, read strictly: a value keeps its bytes until it is needed, and an unknown key is refused by
//! name.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::super::super::wire::ApiFailure;
use crate::core::api::chat::without_lone_halves;

/// An object in the order of its keys.
#[derive(Debug)]
pub(super) struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// Reads an object that is called `what`.
    pub(super) fn read(json: &'a str, what: &str) -> Result<Self, ApiFailure> {
        serde_json::from_str(json).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => wrong(what, "an object"),
            _ => ApiFailure::new(400, format!("{what} is not JSON: {error}")),
        })
    }

    /// Returns the last value of a key; `None` if there is none, or null.
    pub(super) fn get(&self, key: &str) -> Option<&'a RawValue> {
        let found = self.0.iter().rev().find(|(name, _)| name == key).map(|(_, value)| *value);
        found.filter(|value| value.get() != "null")
    }

    /// Returns a text; fails if it is missing.
    pub(super) fn text(&self, key: &str) -> Result<Cow<'a, str>, ApiFailure> {
        let value = self.get(key).ok_or_else(|| ApiFailure::new(400, format!("`{key}` is missing")))?;
        text(value, key)
    }

    /// Returns a text, or an empty one.
    pub(super) fn text_or_empty(&self, key: &str) -> Result<Cow<'a, str>, ApiFailure> {
        self.get(key).map_or(Ok(Cow::Borrowed("")), |value| text(value, key))
    }

    /// Returns the elements of a list; none if there is no such key.
    pub(super) fn list(&self, key: &str) -> Result<Vec<&'a RawValue>, ApiFailure> {
        self.get(key).map_or(Ok(Vec::new()), |value| list(value, key))
    }

    /// Returns whether the value is `true`.
    pub(super) fn flag(&self, key: &str) -> Result<bool, ApiFailure> {
        match self.get(key).map(RawValue::get) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(wrong(key, "true or false")),
        }
    }

    /// Refuses the first key that is in neither list, unless its value asks for nothing. `of` says whose key it is.
    pub(super) fn only(&self, read: &[&str], ignored: &[&str], of: Option<&str>) -> Result<(), ApiFailure> {
        let is_known = |key: &str| read.contains(&key) || ignored.contains(&key);
        let asks_for_nothing =
            |value: &RawValue| matches!(value.get(), "null" | "false" | "[]" | "{}" | "\"\"");
        match self.0.iter().find(|(key, value)| !is_known(key) && !asks_for_nothing(value)) {
            None => Ok(()),
            Some((key, _)) => {
                Err(refused(&of.map_or_else(|| key.to_string(), |of| format!("{key} of {of}"))))
            }
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some(JsonText(key)) = map.next_key::<JsonText<'de>>()? {
                    entries.push((key, map.next_value()?));
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// A key or another text, borrowed if it has no escapes.
#[derive(serde::Deserialize)]
struct JsonText<'a>(#[serde(borrow)] Cow<'a, str>);

/// Returns a text called `what`.
pub(super) fn text<'a>(value: &'a RawValue, what: &str) -> Result<Cow<'a, str>, ApiFailure> {
    let read = |json: &'a str| serde_json::from_str::<JsonText<'a>>(json).map(|text| text.0);
    if let Ok(text) = read(value.get()) {
        return Ok(text);
    }
    let mended = without_lone_halves(value.get()).and_then(|json| serde_json::from_str::<String>(&json).ok());
    mended.map(Cow::Owned).ok_or_else(|| wrong(what, "a string"))
}

/// Returns the elements of a list called `what`.
pub(super) fn list<'a>(value: &'a RawValue, what: &str) -> Result<Vec<&'a RawValue>, ApiFailure> {
    serde_json::from_str(value.get()).map_err(|_| wrong(what, "a list"))
}

pub(super) fn is_string(value: &RawValue) -> bool {
    value.get().starts_with('"')
}

/// Returns the error for a feature that chat completions lack.
pub(super) fn refused(what: &str) -> ApiFailure {
    ApiFailure::new(400, format!("{what} cannot be translated for this server"))
}

fn wrong(what: &str, expected: &str) -> ApiFailure {
    ApiFailure::new(400, format!("`{what}` is not {expected}"))
}

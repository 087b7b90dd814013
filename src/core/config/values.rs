//! Values: read from TOML within limits, turned into JSON and back, and described in words.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use serde_json::Map;
use toml_edit::{Array, InlineTable, Item, Value};

/// The longest time that can be asked for, in seconds: a year. More would overflow the system's clocks.
pub const LONGEST: f64 = 31_536_000.0;

/// The shortest time that can be asked for, in seconds.
pub(super) const SHORTEST: f64 = 0.001;

pub(super) fn text(item: &Item) -> Option<String> {
    item.as_str().map(str::to_owned)
}

/// Neither a program nor its arguments can hold a NUL.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0')
}

pub(super) fn texts(item: &Item) -> Option<Vec<String>> {
    item.as_array()?.iter().map(|value| value.as_str().map(str::to_owned)).collect()
}

pub(super) fn arguments(item: &Item) -> Option<Vec<String>> {
    texts(item).filter(|texts| texts.iter().all(|text| !text.contains('\0')))
}

pub(super) fn whole<N: TryFrom<u64>>(item: &Item, limits: &RangeInclusive<u64>) -> Option<N> {
    let number = u64::try_from(item.as_integer()?).ok()?;
    limits.contains(&number).then(|| N::try_from(number).ok())?
}

pub(super) fn number(item: &Item, limits: &RangeInclusive<f64>) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "every whole number within any limits here is exact")]
    let number = item.as_float().or_else(|| item.as_integer().map(|whole| whole as f64))?;
    limits.contains(&number).then_some(number)
}

pub(super) fn seconds(item: &Item) -> Option<Duration> {
    Duration::try_from_secs_f64(number(item, &(SHORTEST..=LONGEST))?).ok()
}

/// Whole seconds as an integer, as people write them.
pub(super) fn seconds_value(duration: Duration) -> Value {
    match (duration.subsec_nanos(), i64::try_from(duration.as_secs())) {
        (0, Ok(seconds)) => seconds.into(),
        _ => duration.as_secs_f64().into(),
    }
}

/// The units of a size. A unit that ends with another one comes before it.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Returns a number of bytes: `50_000_000` or `"50MB"`.
pub(super) fn size(item: &Item, limits: &RangeInclusive<u64>) -> Option<u64> {
    let size = match item.as_str() {
        Some(text) => parse_size(text)?,
        None => u64::try_from(item.as_integer()?).ok()?,
    };
    limits.contains(&size).then_some(size)
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    let number = number.trim_end();
    // `parse` takes a sign, too.
    number.starts_with(|digit: char| digit.is_ascii_digit()).then_some(())?;
    number.parse::<u64>().ok()?.checked_mul(*unit)
}

/// Writes a size exactly, with the unit that leaves the smallest number.
pub(super) fn size_text(size: u64) -> String {
    let fits = |unit: u64| size >= unit && size.is_multiple_of(unit);
    let unit = UNITS.iter().filter(|(_, unit)| fits(*unit)).max_by_key(|(_, unit)| *unit);
    unit.map_or_else(|| format!("{size}B"), |(name, unit)| format!("{}{name}", size / unit))
}

pub(super) fn size_value(size: u64) -> Value {
    size_text(size).into()
}

/// The same in JSON; `None` when it holds a date, an infinity, or something that is not a number.
pub(super) fn to_json(item: &Item) -> Option<serde_json::Value> {
    match item {
        Item::None => None,
        Item::Value(value) => value_to_json(value),
        Item::Table(table) => table_to_json(table.iter()),
        Item::ArrayOfTables(tables) => tables.iter().map(|table| table_to_json(table.iter())).collect(),
    }
}

pub(super) fn value_to_json(value: &Value) -> Option<serde_json::Value> {
    match value {
        Value::String(text) => Some(text.value().as_str().into()),
        Value::Integer(number) => Some((*number.value()).into()),
        Value::Float(number) => serde_json::Number::from_f64(*number.value()).map(Into::into),
        Value::Boolean(switch) => Some((*switch.value()).into()),
        Value::Datetime(_) => None,
        Value::Array(array) => array.iter().map(value_to_json).collect(),
        Value::InlineTable(table) => object(table.iter().map(|(name, value)| (name, value_to_json(value)))),
    }
}

pub(super) fn table_to_json<'a>(
    members: impl Iterator<Item = (&'a str, &'a Item)>,
) -> Option<serde_json::Value> {
    object(members.map(|(name, item)| (name, to_json(item))))
}

/// An object of these members; `None` when JSON lacks one of them.
fn object<'a>(
    members: impl Iterator<Item = (&'a str, Option<serde_json::Value>)>,
) -> Option<serde_json::Value> {
    let mut object = Map::new();
    for (name, value) in members {
        object.insert(name.to_owned(), value?);
    }
    Some(object.into())
}

/// The same in TOML; `None` for null, which TOML lacks.
pub(super) fn from_json(value: &serde_json::Value) -> Option<Value> {
    Some(match value {
        serde_json::Value::Null => return None,
        serde_json::Value::Bool(switch) => (*switch).into(),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64()?.into(),
        },
        serde_json::Value::String(text) => text.into(),
        serde_json::Value::Array(values) => values.iter().filter_map(from_json).collect::<Array>().into(),
        serde_json::Value::Object(members) => {
            let members = members.iter().filter_map(|(name, value)| Some((name, from_json(value)?)));
            members.collect::<InlineTable>().into()
        }
    })
}

/// Where the item is in the text; a table without a header is where its name is.
pub(super) fn span(item: &Item) -> Range<usize> {
    item.span().unwrap_or_default()
}

/// What is there instead, in words that follow "found".
pub(super) fn found(item: &Item) -> String {
    const LONGEST: usize = 60;
    let quoted = match item {
        Item::Value(Value::String(text)) => format!("the string {:?}", text.value()),
        Item::Value(Value::Integer(number)) => format!("the number {}", number.value()),
        Item::Value(Value::Float(number)) => format!("the number {:?}", number.value()),
        Item::Value(Value::Boolean(switch)) => switch.value().to_string(),
        other => article(other).to_owned(),
    };
    if quoted.chars().count() <= LONGEST {
        return quoted;
    }
    quoted.chars().take(LONGEST).chain("...".chars()).collect()
}

/// What kind of thing is there instead, without its value.
pub(super) fn article(item: &Item) -> &'static str {
    match item {
        Item::None => "nothing",
        Item::Table(_) | Item::Value(Value::InlineTable(_)) => "a table",
        Item::ArrayOfTables(_) => "an array of tables",
        Item::Value(Value::String(_)) => "a string",
        Item::Value(Value::Integer(_)) => "a whole number",
        Item::Value(Value::Float(_)) => "a number",
        Item::Value(Value::Boolean(_)) => "true or false",
        Item::Value(Value::Datetime(_)) => "a date",
        Item::Value(Value::Array(_)) => "an array",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_exactly() {
        let read = |text: &str| size(&toml_edit::value(text), &(0..=u64::MAX));
        for (text, bytes) in [
            ("0B", 0),
            ("50MB", 50_000_000),
            ("50 MB", 50_000_000),
            ("1KB", 1_000),
            ("1KiB", 1_024),
            ("3MiB", 3 << 20),
            ("2GB", 2_000_000_000),
            ("2GiB", 2 << 30),
            ("7TB", 7_000_000_000_000),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(read(text), Some(bytes), "{text}");
        }
        for text in
            ["", "5", "MB", "-1MB", "+1MB", "1.5MB", "1e3MB", "5M", "5mb", "5MBB", "99999999999TB", " 5MB"]
        {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(size(&toml_edit::value(5), &(1..=5)), Some(5));
        assert_eq!(size(&toml_edit::value(-5), &(0..=5)), None);
        assert_eq!(size(&toml_edit::value("1KB"), &(1..=999)), None);
    }

    #[test]
    fn sizes_are_written_as_people_write_them() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (50_000_000, "50MB"),
            (1_500_000, "1500KB"),
            (1_024, "1KiB"),
            (64 << 20, "64MiB"),
        ] {
            assert_eq!(size_text(bytes), text);
        }
    }
}

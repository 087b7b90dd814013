//! Values: read from TOML within limits, turned into JSON and back, and described in words.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeArray, DeFloat, DeInteger, DeTable, DeValue};
use toml_writer::{ToTomlKey as _, ToTomlValue as _};

use super::settings::{IdleStop, MemoryLimit};
use crate::core::address::is_host;
use crate::core::models::catalogue::KeepAlive;
use crate::core::numbers;

/// Maximum duration in seconds: a year. A longer one could overflow the system's clocks.
pub const MAX_SECONDS: f64 = 31_536_000.0;

/// Minimum duration in seconds.
pub(super) const MIN_SECONDS: f64 = 0.001;

/// The units of a size. A unit that ends with another one precedes it.
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

pub(super) fn text(value: &DeValue<'_>) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// Returns a text that is not empty. Neither a program nor its arguments can contain a NUL.
pub(super) fn name(value: &DeValue<'_>) -> Option<String> {
    text(value).filter(|text| !text.is_empty() && !text.contains('\0'))
}

pub(super) fn texts(value: &DeValue<'_>) -> Option<Vec<String>> {
    elements(value.as_array()?).map(text).collect()
}

pub(super) fn arguments(value: &DeValue<'_>) -> Option<Vec<String>> {
    texts(value).filter(|texts| texts.iter().all(|text| !text.contains('\0')))
}

pub(super) fn command(value: &DeValue<'_>) -> Option<Vec<String>> {
    arguments(value).filter(|words| words.first().is_some_and(|program| !program.is_empty()))
}

/// Returns the texts of an array, or a single text as a list of one.
pub(super) fn text_or_texts(value: &DeValue<'_>) -> Option<Vec<String>> {
    text(value).map(|text| vec![text]).or_else(|| texts(value))
}

pub(super) fn whole<N: TryFrom<u64>>(value: &DeValue<'_>, limits: &RangeInclusive<u64>) -> Option<N> {
    let number = u64::try_from(integer(value.as_integer()?)?).ok()?;
    limits.contains(&number).then(|| N::try_from(number).ok())?
}

pub(super) fn number(value: &DeValue<'_>, limits: &RangeInclusive<f64>) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "every whole number within any limits here is exact")]
    let number = match value {
        DeValue::Float(number) => float(number)?,
        other => integer(other.as_integer()?)? as f64,
    };
    limits.contains(&number).then_some(number)
}

/// Returns a number of bytes: `50_000_000` or `"50MB"`.
pub(super) fn size(value: &DeValue<'_>, limits: &RangeInclusive<u64>) -> Option<u64> {
    match value.as_str() {
        Some(text) => parse_size(text).filter(|size| limits.contains(size)),
        None => whole(value, limits),
    }
}

/// Parses a number of bytes with its unit: `50MB`, `1GiB`.
pub fn parse_size(text: &str) -> Option<u64> {
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

/// Returns an array of texts if `is_valid` accepts all of them.
pub(super) fn texts_of(value: &DeValue<'_>, is_valid: fn(&str) -> bool) -> Option<Vec<String>> {
    elements(value.as_array()?).map(|element| text(element).filter(|text| is_valid(text))).collect()
}

/// Returns a text that can be the value of an HTTP header.
pub(super) fn secret(value: &DeValue<'_>) -> Option<String> {
    text(value).filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))
}

/// Returns whether the text is the origin of a web page: scheme, host and port, and nothing behind them.
pub(super) fn is_origin(text: &str) -> bool {
    let Some((scheme, place)) = text.split_once("://") else { return false };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+.-".contains(&byte));
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (place, None),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    is_scheme
        && !text.bytes().any(|byte| byte.is_ascii_uppercase())
        && bare.map_or_else(|| is_host(host), |host| host.parse::<std::net::Ipv6Addr>().is_ok())
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|number| number > 0))
}

pub(super) fn idle_stop(value: &DeValue<'_>) -> Option<IdleStop> {
    match number(value, &(0.0..=0.0)) {
        Some(_) => Some(IdleStop::Never),
        None => seconds(value).map(IdleStop::After),
    }
}

pub(super) fn milliseconds(value: &DeValue<'_>) -> Option<Duration> {
    whole(value, &(1..=3_600_000)).map(Duration::from_millis)
}

pub(super) fn memory(value: &DeValue<'_>) -> Option<MemoryLimit> {
    match value.as_str().and_then(|text| text.strip_suffix('%')) {
        Some(percent) if percent.bytes().all(|digit| digit.is_ascii_digit()) => {
            percent.parse().ok().filter(|percent| (1..=100).contains(percent)).map(MemoryLimit::Share)
        }
        Some(_) => None,
        None => size(value, &(1_000_000..=1_000_000_000_000_000)).map(MemoryLimit::Bytes),
    }
}

pub(super) fn keep_alive(value: &DeValue<'_>) -> Option<KeepAlive> {
    match value.as_integer() {
        Some(number) => KeepAlive::parse(&integer(number)?.to_string()),
        None => KeepAlive::parse(value.as_str()?),
    }
}

/// Returns the first and the last port of a range.
pub(super) fn ports(value: &DeValue<'_>) -> Option<RangeInclusive<u16>> {
    let ports: Option<Vec<u16>> =
        elements(value.as_array()?).map(|port| whole(port, &(1..=65_535))).collect();
    match ports?.as_slice() {
        [first, last] if first <= last => Some(*first..=*last),
        _ => None,
    }
}

/// Returns a URL of HTTP, or a path.
pub(super) fn endpoint(value: &DeValue<'_>) -> Option<String> {
    let is_plain =
        |text: &String| !text.contains(|character: char| character.is_whitespace() || character.is_control());
    let is_url = |text: &String| {
        let place =
            text.strip_prefix("http://").map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
        text.starts_with('/') || place.is_some_and(|place| !place.is_empty() && !place.contains('@'))
    };
    text(value).filter(is_plain).filter(is_url)
}

pub(super) fn seconds(value: &DeValue<'_>) -> Option<Duration> {
    Duration::try_from_secs_f64(number(value, &(MIN_SECONDS..=MAX_SECONDS))?).ok()
}

/// Writes whole seconds as an integer, as people write them.
pub(super) fn from_seconds(duration: Duration) -> Value {
    match duration.subsec_nanos() {
        0 => duration.as_secs().into(),
        _ => duration.as_secs_f64().into(),
    }
}

/// Returns `None` where it does not fit.
fn integer(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// Returns `None` where it does not fit.
fn float(number: &DeFloat<'_>) -> Option<f64> {
    match number.as_str() {
        "nan" | "+nan" | "-nan" => Some(f64::NAN),
        "inf" | "+inf" => Some(f64::INFINITY),
        "-inf" => Some(f64::NEG_INFINITY),
        text => numbers::parse_float(text).filter(|number| number.is_finite()),
    }
}

fn elements<'a, 'i>(array: &'a DeArray<'i>) -> impl Iterator<Item = &'a DeValue<'i>> {
    array.iter().map(Spanned::get_ref)
}

/// Returns the value in JSON; `None` if JSON lacks it: a date, an infinity, a number out of range.
pub(super) fn to_json(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::String(text) => Some((&**text).into()),
        DeValue::Integer(number) => integer(number).map(Into::into),
        DeValue::Float(number) => float(number).and_then(serde_json::Number::from_f64).map(Into::into),
        DeValue::Boolean(switch) => Some((*switch).into()),
        DeValue::Datetime(_) => None,
        DeValue::Array(array) => elements(array).map(to_json).collect(),
        DeValue::Table(table) => table_to_json(table),
    }
}

pub(super) fn table_to_json(table: &DeTable<'_>) -> Option<Value> {
    let mut members = Map::new();
    for (name, value) in table {
        members.insert(name.get_ref().to_string(), to_json(value.get_ref())?);
    }
    Some(members.into())
}

/// Returns the value in TOML; `None` for null, which TOML lacks.
pub(super) fn to_toml(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(switch) => switch.to_string(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.to_string(),
            None => number.as_f64()?.to_toml_value(),
        },
        Value::String(text) => text.to_toml_value(),
        Value::Array(values) => {
            format!("[{}]", values.iter().filter_map(to_toml).collect::<Vec<_>>().join(", "))
        }
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| {
                Some(format!("{} = {}", name.to_toml_key(), to_toml(value)?))
            };
            match members.iter().filter_map(member).collect::<Vec<_>>().join(", ") {
                members if members.is_empty() => "{}".to_owned(),
                members => format!("{{ {members} }}"),
            }
        }
    })
}

/// Describes the wrong value, in words that follow "found".
pub(super) fn found(value: &DeValue<'_>) -> String {
    const MAX_LENGTH: usize = 60;
    let quoted = match value {
        DeValue::String(text) => format!("the string {text:?}"),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {number}"),
        DeValue::Boolean(switch) => switch.to_string(),
        other => article(other).to_owned(),
    };
    if quoted.chars().count() <= MAX_LENGTH {
        return quoted;
    }
    quoted.chars().take(MAX_LENGTH).chain("...".chars()).collect()
}

/// Describes the type of the wrong value, without the value.
pub(super) fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_exactly() {
        let read = |text: &str| size(&DeValue::String(text.into()), &(0..=u64::MAX));
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
        assert_eq!(size(&DeValue::String("1KB".into()), &(1..=999)), None);
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

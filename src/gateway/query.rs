//! The query of a URL, and what is percent-encoded.

/// Returns the last value of a key, decoded; `None` if there is none.
pub(super) fn value(query: &str, key: &str) -> Option<String> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut values = pairs.filter(|(name, _)| percent_decoded(name) == key).map(|(_, value)| value);
    values.next_back().map(|value| percent_decoded(&value.replace('+', " ")))
}

/// Decodes `%2F` and its like.
pub(super) fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let hex = text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let (b'%', Some(value)) = (byte, hex) {
            decoded.push(value);
            at += 3;
        } else {
            decoded.push(*byte);
            at += 1;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_percent_decoded() {
        for (text, id) in [("org%2Fname", "org/name"), ("a%3ab", "a:b"), ("100%", "100%"), ("%zz", "%zz")] {
            assert_eq!(percent_decoded(text), id);
        }
    }

    #[test]
    fn last_value_of_a_key_counts() {
        let query = "lines=5&follow=1&tag=a+b%21&lines=7&empty&x=";
        for (key, found) in [
            ("lines", Some("7")),
            ("follow", Some("1")),
            ("tag", Some("a b!")),
            ("empty", Some("")),
            ("none", None),
        ] {
            assert_eq!(value(query, key).as_deref(), found, "{key}");
        }
    }
}

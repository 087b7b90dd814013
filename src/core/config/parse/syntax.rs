//! Says in the file's own words why a line is not TOML.

use toml::de::DeTable;

/// Returns what is wrong at `column` (from 1) of `line`: what its key or value lacks where that is certain, else
/// `message`, the parser's words.
pub(super) fn explained(line: &str, column: usize, message: &str) -> String {
    let line = line.trim_start_matches('\u{feff}');
    certain(line, column, message).unwrap_or_else(|| message.replace('\n', "; "))
}

fn certain(line: &str, column: usize, message: &str) -> Option<String> {
    if message.starts_with("duplicate key") {
        return Some(duplicate(line, column));
    }
    let (key, value) = line.split_once('=').filter(|_| !is_header(line))?;
    let (key, value) = (key.trim(), without_comment(value));
    if value.is_empty() {
        return Some(format!("`{key}` has no value"));
    }
    let number = value.trim_start_matches('0');
    if value.len() > number.len() && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(format!("`{key}`: a number does not begin with 0"));
    }
    let is_bare = !value.contains(['"', '\'', '[', ']', '{', '}', '\\', '=']);
    let is_value = DeTable::parse(&format!("x = {value}")).is_ok();
    // The value is not quoted: it may be a secret.
    (is_bare && !is_value).then(|| format!("`{key}`: text must be in quotes: {key} = \"...\""))
}

/// Returns the fault of a second key or table. The parser names the place of the second one.
fn duplicate(line: &str, column: usize) -> String {
    if is_header(line) {
        let name = without_comment(line).trim_matches(['[', ']', ' ']);
        return format!("the table `[{name}]` is in the file twice");
    }
    let rest = line.chars().skip(column.saturating_sub(1)).collect::<String>();
    let key = rest.split_once('=').map_or(&*rest, |(key, _)| key);
    format!("`{}` is set twice in this table", key.trim())
}

fn is_header(line: &str) -> bool {
    line.trim_start().starts_with('[')
}

/// Returns the text before a comment. A `#` inside quotes belongs to a text that callers leave alone.
fn without_comment(text: &str) -> &str {
    text.split('#').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_of_syntax_name_their_key() {
        for (line, column, message, expected) in [
            ("port = ", 8, "m", "`port` has no value"),
            ("port = # later", 8, "m", "`port` has no value"),
            ("port = 08", 8, "m", "`port`: a number does not begin with 0"),
            ("host = 127.0.0.1", 13, "m", "`host`: text must be in quotes: host = \"...\""),
            ("\u{feff}host = local host # mine", 8, "m", "`host`: text must be in quotes: host = \"...\""),
            ("port = 2", 1, "duplicate key", "`port` is set twice in this table"),
            ("env = { A = '1', A = '2' }", 18, "duplicate key", "`A` is set twice in this table"),
            ("[mlx_run] # again", 2, "duplicate key", "the table `[mlx_run]` is in the file twice"),
            // What is not certain is left to the parser.
            ("model = 'x", 11, "no\nend", "no; end"),
            ("stop = [a]", 9, "words", "words"),
            ("port 1", 6, "words", "words"),
            ("[zzz", 5, "words", "words"),
        ] {
            assert_eq!(explained(line, column, message), expected, "{line}");
        }
    }
}

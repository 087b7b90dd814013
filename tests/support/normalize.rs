//! Placeholders for what differs between runs and between systems.
//!
//! With them, whole outputs can be compared.

/// A text of one run, and the placeholder that snapshots show for it.
#[derive(Debug, Clone)]
pub struct Mask {
    pub real: String,
    pub placeholder: String,
}

impl Mask {
    pub fn new(real: impl Into<String>, placeholder: impl Into<String>) -> Self {
        Self { real: real.into(), placeholder: placeholder.into() }
    }
}

/// The text before and after a number, and the placeholder for the number.
const NUMBERS: [(&str, &str, &str); 8] = [
    ("pid ", "", "[PID]"),
    ("PID ", "", "[PID]"),
    ("process ", "", "[PID]"),
    ("", " s", "[TIME]"),
    ("", " days ago", "[DAYS]"),
    ("", " ms", "[TIME]"),
    ("about ", "s", "[TIME]"),
    // Linux and macOS number errors differently.
    ("os error ", "", "[ERRNO]"),
];

/// Masks numbers, the version of fusion and the name of the test's own process. Then applies `masks` in their order,
/// and shows control characters as escapes.
pub fn normalize(text: &str, masks: &[Mask]) -> String {
    let version = concat!("fusion ", env!("CARGO_PKG_VERSION"));
    let mut text = text.replace(version, "fusion [VERSION]");
    for name in own_names() {
        text = text.replace(&name, "[TEST]");
    }
    text = replace_pids_of_table(&text);
    text = replace_spare_ports(&text);
    for (before, after, placeholder) in NUMBERS {
        text = replace_number(&text, before, after, placeholder);
    }
    for Mask { real, placeholder } in masks {
        text = text.replace(real, placeholder);
    }
    show_controls(&text)
}

/// The file name of the test's program: whole, and cut as systems cut the name of a process. The longest comes first.
fn own_names() -> Vec<String> {
    let program = std::env::current_exe().expect("the path of the test");
    let name = program.file_name().expect("a file").to_string_lossy().into_owned();
    let cut = [usize::MAX, 32, 16, 15].map(|length| name.chars().take(length).collect());
    cut.into()
}

fn show_controls(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\n' {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Replaces the numbers in the column PID of a table, and gives the column the same width in every run.
fn replace_pids_of_table(text: &str) -> String {
    let header = text.lines().next().filter(|line| line.starts_with("SERVICE "));
    let Some(start) = header.and_then(|header| header.find("  PID")).map(|at| at + 2) else {
        return text.to_owned();
    };
    let is_pid = |cell: &str| !cell.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit());
    let split = |line: &str| -> Option<(String, String, String)> {
        let (before, cell) = (line.get(..start)?, line.get(start..)?);
        let (cell, after) = cell.split_once(' ').unwrap_or((cell, ""));
        Some((before.to_owned(), cell.to_owned(), after.trim_start().to_owned()))
    };
    if !text.lines().filter_map(split).any(|(_, cell, _)| is_pid(&cell)) {
        return text.to_owned();
    }
    let lines = text.lines().map(|line| match split(line) {
        Some((before, cell, after)) if !line.starts_with(' ') => {
            let cell = if is_pid(&cell) { "[PID]".to_owned() } else { cell };
            format!("{before}{cell:5}  {after}").trim_end().to_owned() + "\n"
        }
        _ => format!("{line}\n"),
    });
    lines.collect()
}

/// Replaces the port that a hint says to choose: which one is free depends on what runs.
fn replace_spare_ports(text: &str) -> String {
    let mut parts = text.split("choose another port: fusion config set ");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digit = |character: char| character.is_ascii_digit();
        let shown = match part.split_once(".port ") {
            Some((table, rest)) if rest.starts_with(digit) => {
                format!("{table}.port [SPARE]{}", rest.trim_start_matches(digit))
            }
            _ => part.to_owned(),
        };
        result.extend(["choose another port: fusion config set ", &shown]);
    }
    result
}

/// Replaces every number (digits, also with a point) between `before` and `after`.
fn replace_number(text: &str, before: &str, after: &str, placeholder: &str) -> String {
    let is_number = |character: char| character.is_ascii_digit() || character == '.';
    let mut result = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|character: char| character.is_ascii_digit()) {
        let (head, tail) = rest.split_at(start);
        let end = tail.find(|character| !is_number(character)).unwrap_or(tail.len());
        let (number, tail) = tail.split_at(end);
        result.push_str(head);
        let whole_word = !head.ends_with(char::is_alphanumeric);
        let follows = tail
            .strip_prefix(after)
            .is_some_and(|tail| after.is_empty() || !tail.starts_with(char::is_alphanumeric));
        let is_wanted = head.ends_with(before) && whole_word && follows;
        result.push_str(if is_wanted { placeholder } else { number });
        rest = tail;
    }
    result + rest
}

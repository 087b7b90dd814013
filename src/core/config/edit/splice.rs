//! Changes one key in a text, and not one byte more: comments, order, spacing and line ends stay as they are.

use std::ops::Range;

use super::super::key::dotted;
use super::super::template::Documented;
use super::layout::{Layout, Pair};

/// How the fresh file documents a key.
pub(super) type Lines<'a> = &'a dyn Fn(&[String]) -> Option<Documented>;

/// The text with `value` (TOML) at `path`; `None` when the text is no TOML, or has something else than a table where
/// the path leads through.
///
/// `header_length` is how much of the path becomes a header where no table for it exists. A new key takes the place
/// of its line in the fresh file, which `documented` tells, if its table has that line.
pub(super) fn set(
    text: &str,
    path: &[String],
    value: &str,
    header_length: usize,
    documented: Lines<'_>,
) -> Option<String> {
    let layout = Layout::of(text)?;
    if !layout.has(path) {
        return insert(&layout, path, value, header_length, documented);
    }
    if let Some(pair) = layout.pairs.iter().find(|pair| pair.path == path) {
        return Some(spliced(text, pair.value.clone(), value));
    }
    // A table that is written with headers or dotted keys, all over the file.
    let without = unset(text, path, &|_| None)?;
    set(&without, path, value, header_length, documented)
}

/// The text without what is at `path`; `None` when it is no TOML or has nothing there.
///
/// The line of a key that stands below its `documented` comment becomes a comment again, and so does a header with
/// comments below it. A comment behind a value stays.
pub(super) fn unset(text: &str, path: &[String], documented: Lines<'_>) -> Option<String> {
    if !Layout::of(text)?.has(path) {
        return None;
    }
    let mut text = text.to_owned();
    // One at a time, for each changes where the next one is.
    while let Some((range, replacement)) = first_cut(&Layout::of(&text)?, path, documented) {
        text = spliced(&text, range, &replacement);
    }
    Some(text)
}

fn spliced(text: &str, range: Range<usize>, replacement: &str) -> String {
    [&text[..range.start], replacement, &text[range.end..]].concat()
}

fn insert(
    layout: &Layout<'_>,
    path: &[String],
    value: &str,
    header_length: usize,
    documented: Lines<'_>,
) -> Option<String> {
    let text = layout.text;
    let depth = (0..path.len()).rev().find(|depth| layout.has(&path[..*depth]))?;
    let (place, rest) = path.split_at(depth);
    if !layout.is_table(place) {
        return None;
    }
    // `[place]`
    if let Some(index) = layout.headers.iter().position(|header| header.path == place && !header.is_array) {
        let statement = format!("{} = {}", dotted(&rest[..1]), nested(&rest[1..], value));
        let documented = documented(&path[..=depth]);
        let (range, line) = line_for(layout, index, &rest[0], &statement, documented);
        return Some(spliced(text, range, &line));
    }
    // `place = { ... }`
    if let Some(pair) = layout.pairs.iter().find(|pair| pair.path == place) {
        let entry = format!("{} = {}", dotted(&rest[..1]), nested(&rest[1..], value));
        let last = layout.pairs.iter().rfind(|inner| inner.inside.as_ref() == Some(&pair.value));
        let (range, replacement) = match last {
            Some(last) => (last.value.end..last.value.end, format!(", {entry}")),
            None => (pair.value.clone(), format!("{{ {entry} }}")),
        };
        return Some(spliced(text, range, &replacement));
    }
    // `place.other = ...`
    if let Some(last) = layout.pairs.iter().rfind(|pair| pair.outer < depth && pair.path.starts_with(place)) {
        let entry = format!("{} = {value}", dotted(&path[last.outer..]));
        let (at, addition) = if last.inside.is_some() {
            (last.value.end, format!(", {entry}"))
        } else {
            let indent = layout.indent(last.key.start);
            (layout.line_end(last.value.end), layout.new_line(last.value.end, &format!("{indent}{entry}")))
        };
        return Some(spliced(text, at..at, &addition));
    }
    // Nothing, or only `[place.other]`.
    let (header, rest) = path.split_at(depth.max(header_length));
    let header_line = format!("[{}]", dotted(header));
    if let Some(line) = layout.line_of_unused_header(&format!("#{header_line}")) {
        let text = spliced(text, line, &header_line);
        return set(&text, path, value, header_length, documented);
    }
    let newline = layout.newline;
    let gap = if text.is_empty() || text.ends_with('\n') { "" } else { newline };
    let blank = if text.trim_start_matches('\u{feff}').is_empty() { "" } else { newline };
    let statement = format!("{} = {}", dotted(&rest[..1]), nested(&rest[1..], value));
    Some(format!("{text}{gap}{blank}{header_line}{newline}{statement}{newline}"))
}

/// Where a new statement goes below a header: in place of its documented line, after another line that shows it as
/// a comment, after the last key, or right after the header.
fn line_for(
    layout: &Layout<'_>,
    header: usize,
    key: &str,
    statement: &str,
    documented: Option<Documented>,
) -> (Range<usize>, String) {
    let text = layout.text;
    let mut comments = layout.comment_lines(header);
    let shown = comments.find(|line| shows(&text[line.clone()], key));
    if let (Some(line), Some(documented)) = (&shown, documented)
        && text[line.clone()].trim() == documented.unset
    {
        return (line.clone(), statement.to_owned());
    }
    let header_end = layout.headers[header].span.end;
    let last = layout.pairs_below(header).map(|pair| (pair.value.end, layout.indent(pair.key.start))).last();
    let (after, indent) = match (shown, last) {
        (Some(line), _) => (line.end, layout.indent(line.start)),
        (None, Some(last)) => last,
        (None, None) => (header_end, layout.indent(header_end)),
    };
    let at = layout.line_end(after);
    (at..at, layout.new_line(after, &format!("{indent}{statement}")))
}

/// Whether a comment shows `key = value`.
fn shows(comment: &str, key: &str) -> bool {
    let Some(rest) = comment.trim_start().strip_prefix('#') else { return false };
    // Most comments are prose, which need not be parsed to see that.
    rest.contains('=')
        && Layout::of(rest).is_some_and(|layout| {
            layout.headers.is_empty() && layout.pairs.first().is_some_and(|pair| pair.path == [key])
        })
}

fn nested(rest: &[String], value: &str) -> String {
    rest.iter().rev().fold(value.to_owned(), |value, name| {
        format!("{{ {} = {value} }}", dotted(std::slice::from_ref(name)))
    })
}

fn first_cut(layout: &Layout<'_>, path: &[String], documented: Lines<'_>) -> Option<(Range<usize>, String)> {
    let pair = layout.pairs.iter().enumerate().find(|(_, pair)| pair.path.starts_with(path));
    if let Some((index, pair)) = pair {
        return Some(match &pair.inside {
            Some(table) => cut_entry(layout, index, table),
            None => cut_line(layout, pair, documented(&pair.path)),
        });
    }
    let header = layout.headers.iter().position(|header| header.path.starts_with(path))?;
    Some(layout.cut_header(header))
}

/// `key = value # comment` leaves `# comment`, and its documented line where its documented comment is above.
fn cut_line(layout: &Layout<'_>, pair: &Pair, documented: Option<Documented>) -> (Range<usize>, String) {
    let text = layout.text;
    let (start, end) = (layout.line_start(pair.key.start), layout.line_end(pair.value.end));
    let comment = text[pair.value.end..end].trim();
    let above = text[..start].trim_end_matches(['\n', '\r']);
    let above = above.rsplit('\n').next().unwrap_or_default().trim();
    let kept = match documented.filter(|documented| documented.comment == above) {
        Some(documented) if comment.is_empty() => documented.unset,
        Some(documented) => format!("{} {comment}", documented.unset),
        None => comment.to_owned(),
    };
    if kept.is_empty() {
        return (start..end, String::new());
    }
    // The line keeps its indentation and its end.
    let line_end = text[..end].trim_end_matches(['\n', '\r']).len();
    (start + layout.indent(pair.key.start).len()..line_end, kept)
}

/// `{ a = 1, b = 2 }` leaves `{ b = 2 }`, `{ a = 1 }` or `{}`.
fn cut_entry(layout: &Layout<'_>, index: usize, table: &Range<usize>) -> (Range<usize>, String) {
    let text = layout.text;
    let pair = &layout.pairs[index];
    let is_sibling = |other: &&Pair| other.inside.as_ref() == Some(table);
    let previous = layout.pairs[..index].iter().rfind(is_sibling).map(|other| other.value.end);
    let start = layout.after_blank(previous.unwrap_or(table.start + 1));
    let rest = text[pair.value.end..].trim_start_matches([' ', '\t']);
    if let Some(rest) = rest.strip_prefix(',') {
        let rest = rest.trim_start_matches([' ', '\t']);
        return (start..text.len() - rest.len(), String::new());
    }
    match previous {
        // Only blanks and the comma are between them.
        Some(previous) if !text[previous..start].contains('#') => (previous..pair.value.end, String::new()),
        None if !text[table.clone()].contains('#') => (table.clone(), "{}".to_owned()),
        _ => (start..pair.value.end, String::new()),
    }
}

//! Changes one key in a text, and not one byte more: comments, order, spacing and line ends stay as they are.
//!
//! `toml_edit` says where everything is, and the text itself is changed: written back by `toml_edit`, it would lose its
//! CRs, its BOM, the comments above a removed key, and the order of dotted keys.

use crate::core::order;
use std::ops::Range;

use toml_edit::{Document, Item, Key, Table, TableLike, Value};

use super::key::dotted;

/// Returns the text with `value` (TOML) at `path`; `None` when the text is no TOML, or has something else than a table
/// where the path leads through.
///
/// A new key goes below the line `comment`, if its table has that, or else below the last key of its table. Where there
/// is no table, a header of `header_length` parts is appended.
pub(super) fn set(
    text: &str,
    path: &[String],
    value: &str,
    comment: &str,
    header_length: usize,
) -> Option<String> {
    let layout = Layout::of(text)?;
    let is_table = |length| layout.item(&path[..length]).is_none_or(Item::is_table_like);
    if !(0..path.len()).all(is_table) {
        return None;
    }
    if let Some(piece) = layout.pieces.iter().find(|piece| piece.kind.is_value() && piece.path == path) {
        return Some(spliced(text, piece.span.clone(), value));
    }
    if layout.item(path).is_some() {
        // A table that is written with headers or dotted keys.
        return set(&unset(text, path)?, path, value, comment, header_length);
    }
    let text = layout.with_new_key(path, value, comment, header_length);
    has(&text, path).then_some(text)
}

/// Returns the text without what is at `path`; `None` when it is no TOML or has nothing there. A comment stays, also
/// one behind the value.
pub(super) fn unset(text: &str, path: &[String]) -> Option<String> {
    Layout::of(text)?.item(path)?;
    let mut text = text.to_owned();
    // One at a time, for each cut changes where the next one is.
    while let Some((range, rest)) = Layout::of(&text)?.cut(path) {
        text = spliced(&text, range, &rest);
    }
    Some(text)
}

/// Whether the text has something at `path`.
pub(super) fn has(text: &str, path: &[String]) -> bool {
    Layout::of(text).is_some_and(|layout| layout.item(path).is_some())
}

/// Where everything is in a text.
struct Layout<'t> {
    text: &'t str,
    document: Document<&'t str>,
    /// In the order of the text.
    pieces: Vec<TomlEntry>,
}

/// A header, or a key with its value.
struct TomlEntry {
    path: Vec<String>,
    /// Where the header begins, or the last part of the key.
    start: usize,
    /// The header, or the value.
    span: Range<usize>,
    kind: EntryKind,
}

#[derive(Clone, PartialEq, Eq)]
enum EntryKind {
    /// `[path]`
    Header,
    /// `[[path]]`
    ArrayHeader,
    /// `key = value`, on lines of its own
    Statement,
    /// `key = value`, in this inline table
    TomlEntry(Range<usize>),
}

impl EntryKind {
    fn is_value(&self) -> bool {
        matches!(self, Self::Statement | Self::TomlEntry(_))
    }
}

impl<'t> Layout<'t> {
    fn of(text: &'t str) -> Option<Self> {
        let document = Document::parse(text).ok()?;
        let mut pieces = Vec::new();
        collect(document.as_table(), &EntryKind::Statement, &mut Vec::new(), &mut pieces);
        order::sort_by_key(&mut pieces, |piece| piece.start);
        Some(Self { text, document, pieces })
    }

    fn item(&self, path: &[String]) -> Option<&Item> {
        path.iter().try_fold(self.document.as_item(), |item, name| item.as_table_like()?.get(name))
    }

    fn with_new_key(&self, path: &[String], value: &str, comment: &str, header_length: usize) -> String {
        let around = |piece: &TomlEntry| path.starts_with(&piece.path);
        let inline =
            |piece: &TomlEntry| piece.kind.is_value() && self.text[piece.span.clone()].starts_with('{');
        if let Some(table) = self.pieces.iter().rfind(|piece| around(piece) && inline(piece)) {
            return self.in_inline_table(table, path, value);
        }
        let headers = (0..self.pieces.len())
            .filter(|index| self.pieces[*index].kind == EntryKind::Header && around(&self.pieces[*index]));
        if let Some(header) = headers.max_by_key(|index| self.pieces[*index].path.len()) {
            return self.below(header, path, value, comment);
        }
        let appended = self.with_new_header(path.split_at(header_length), value);
        // A table that dotted keys have made may not have a header.
        if Layout::of(&appended).is_some() { appended } else { self.at_the_top(path, value) }
    }

    fn in_inline_table(&self, table: &TomlEntry, path: &[String], value: &str) -> String {
        let entry = format!("{} = {value}", dotted(&path[table.path.len()..]));
        match self.entries(&table.span).last() {
            Some(last) => spliced(self.text, last.span.end..last.span.end, &format!(", {entry}")),
            None => spliced(self.text, table.span.clone(), &format!("{{ {entry} }}")),
        }
    }

    fn entries(&self, table: &Range<usize>) -> impl Iterator<Item = &TomlEntry> {
        self.pieces
            .iter()
            .filter(move |piece| matches!(&piece.kind, EntryKind::TomlEntry(inside) if inside == table))
    }

    /// Puts a statement below a comment, or below the last statement of a header.
    fn below(&self, header: usize, path: &[String], value: &str, comment: &str) -> String {
        let of_header = self.pieces[header + 1..].iter().take_while(|piece| piece.kind.is_value());
        let last = of_header.filter(|piece| piece.kind == EntryKind::Statement).last();
        let key = dotted(&path[self.pieces[header].path.len()..]);
        let (start, end) = self
            .comment_line(header, comment)
            .unwrap_or_else(|| self.lines(last.unwrap_or(&self.pieces[header])));
        self.with_line((start, end), &format!("{key} = {value}"))
    }

    /// Returns where the line of a comment begins and ends, if it is below this header.
    fn comment_line(&self, header: usize, comment: &str) -> Option<(usize, usize)> {
        if comment.is_empty() {
            return None;
        }
        let next = self.pieces[header + 1..].iter().find(|piece| !piece.kind.is_value());
        let (mut start, last) =
            (self.pieces[header].span.end, next.map_or(self.text.len(), |next| next.start));
        while start < last {
            let end = self.line_end(start);
            let within_value = |piece: &TomlEntry| {
                piece.kind.is_value() && piece.span.start < start && start < piece.span.end
            };
            if self.text[start..end].trim() == comment && !self.pieces.iter().any(within_value) {
                return Some((start, end));
            }
            start = end;
        }
        None
    }

    fn with_new_header(&self, (header, key): (&[String], &[String]), value: &str) -> String {
        let (text, newline) = (self.text, self.newline());
        let is_empty = text.trim_start_matches('\u{feff}').is_empty();
        let end = if is_empty || text.ends_with('\n') { "" } else { newline };
        let blank = if is_empty { "" } else { newline };
        let (header, key) = (dotted(header), dotted(key));
        format!("{text}{end}{blank}[{header}]{newline}{key} = {value}{newline}")
    }

    /// Puts a statement before the first header.
    fn at_the_top(&self, path: &[String], value: &str) -> String {
        let statement = format!("{} = {value}", dotted(path));
        let at_top = self.pieces.iter().take_while(|piece| piece.kind.is_value());
        if let Some(last) = at_top.filter(|piece| piece.kind == EntryKind::Statement).last() {
            return self.with_line(self.lines(last), &statement);
        }
        let start = self.text.len() - self.text.trim_start_matches('\u{feff}').len();
        spliced(self.text, start..start, &format!("{statement}{}", self.newline()))
    }

    /// Puts a line below the lines from `start` to `end`, indented as those are.
    fn with_line(&self, (start, end): (usize, usize), line: &str) -> String {
        let newline = self.newline();
        let before = if self.text[..end].ends_with('\n') { "" } else { newline };
        spliced(self.text, end..end, &format!("{before}{}{line}{newline}", self.indent(start)))
    }

    /// Returns what to replace, and by what, for one piece of `path` to go; `None` when there is none.
    fn cut(&self, path: &[String]) -> Option<(Range<usize>, String)> {
        let of_path = || self.pieces.iter().filter(|piece| piece.path.starts_with(path));
        // From the end: a statement without its header would belong to another table.
        if let Some(piece) = of_path().rfind(|piece| !matches!(piece.kind, EntryKind::TomlEntry(_))) {
            return Some(self.cut_lines(piece));
        }
        let entry = of_path().min_by_key(|piece| piece.path.len())?;
        let EntryKind::TomlEntry(table) = &entry.kind else { return None };
        Some(self.cut_entry(entry, table))
    }

    /// `key = value # comment` leaves `# comment`. A header takes one of two blank lines with it.
    fn cut_lines(&self, piece: &TomlEntry) -> (Range<usize>, String) {
        let (start, end) = self.lines(piece);
        let comment = self.text[piece.span.end..end].trim();
        if !comment.is_empty() {
            let line_end = self.text[..end].trim_end_matches(['\n', '\r']).len();
            return (start + self.indent(start).len()..line_end, comment.to_owned());
        }
        let rest = &self.text[end..];
        let above = self.text[..start].strip_suffix(self.newline()).unwrap_or_default();
        let leaves_two = above.ends_with('\n') && (rest.is_empty() || rest.starts_with(['\n', '\r']));
        let start = if piece.kind == EntryKind::Statement || !leaves_two { start } else { above.len() };
        (start..end, String::new())
    }

    /// `{ a = 1, b = 2 }` leaves `{ b = 2 }`, `{ a = 1 }` or `{}`.
    fn cut_entry(&self, entry: &TomlEntry, table: &Range<usize>) -> (Range<usize>, String) {
        let text = self.text;
        let previous = self.entries(table).take_while(|other| other.start < entry.start).last();
        let previous = previous.map(|other| other.span.end);
        let start = self.after_blank(previous.unwrap_or(table.start + 1));
        let rest = text[entry.span.end..].trim_start_matches([' ', '\t']);
        if let Some(rest) = rest.strip_prefix(',') {
            let rest = rest.trim_start_matches([' ', '\t']);
            return (start..text.len() - rest.len(), String::new());
        }
        match previous {
            // Only blanks and the comma are between them.
            Some(previous) if !text[previous..start].contains('#') => {
                (previous..entry.span.end, String::new())
            }
            None if !text[table.clone()].contains('#') => (table.clone(), "{}".to_owned()),
            _ => (start..entry.span.end, String::new()),
        }
    }

    /// Returns where the blanks, comments and commas at `offset` end.
    fn after_blank(&self, mut offset: usize) -> usize {
        loop {
            let rest = self.text[offset..].trim_start_matches([' ', '\t', '\r', '\n', ',']);
            offset = self.text.len() - rest.len();
            if !rest.starts_with('#') {
                return offset;
            }
            offset = self.line_end(offset);
        }
    }

    /// Returns where the lines of a piece begin and end, the last newline included.
    fn lines(&self, piece: &TomlEntry) -> (usize, usize) {
        let start = self.text[..piece.start].rfind('\n').map_or(0, |newline| newline + 1);
        (start, self.line_end(piece.span.end))
    }

    fn line_end(&self, offset: usize) -> usize {
        self.text[offset..].find('\n').map_or(self.text.len(), |newline| offset + newline + 1)
    }

    /// Returns the blanks at the start of a line.
    fn indent(&self, start: usize) -> &'t str {
        let line = &self.text[start..];
        &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
    }

    fn newline(&self) -> &'static str {
        if self.text.contains("\r\n") { "\r\n" } else { "\n" }
    }
}

/// Collects the pieces of a table whose values are of this kind. The parser has given all of them spans.
fn collect(table: &dyn TableLike, kind: &EntryKind, path: &mut Vec<String>, pieces: &mut Vec<TomlEntry>) {
    for (name, item) in table.iter() {
        path.push(name.to_owned());
        match item {
            Item::Table(inner) if inner.is_dotted() => collect(inner, kind, path, pieces),
            Item::Table(inner) => collect_headed(inner, EntryKind::Header, path, pieces),
            Item::ArrayOfTables(tables) => {
                tables.iter().for_each(|inner| collect_headed(inner, EntryKind::ArrayHeader, path, pieces));
            }
            Item::Value(Value::InlineTable(inner)) if inner.is_dotted() => collect(inner, kind, path, pieces),
            Item::Value(value) => {
                let span = value.span().unwrap_or_default();
                let start = table.key(name).and_then(Key::span).unwrap_or_default().start;
                pieces.push(TomlEntry { path: path.clone(), start, span: span.clone(), kind: kind.clone() });
                if let Value::InlineTable(inner) = value {
                    collect(inner, &EntryKind::TomlEntry(span), path, pieces);
                }
            }
            Item::None => {}
        }
        path.pop();
    }
}

fn collect_headed(table: &Table, kind: EntryKind, path: &mut Vec<String>, pieces: &mut Vec<TomlEntry>) {
    if let Some(span) = table.span().filter(|_| !table.is_implicit()) {
        pieces.push(TomlEntry { path: path.clone(), start: span.start, span, kind });
    }
    collect(table, &EntryKind::Statement, path, pieces);
}

fn spliced(text: &str, range: Range<usize>, replacement: &str) -> String {
    [&text[..range.start], replacement, &text[range.end..]].concat()
}

//! Changes one key in a text and no other byte: comments, order, spacing and line ends stay.
//!
//! The parser says where everything is, and the text itself is changed: written anew, it would lose its CRs, its BOM,
//! the comments above a removed key, and the order of dotted keys.

use std::mem;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml_parser::Source;
use toml_parser::parser::{Event, EventKind as Kind, parse_document};

use super::key::{decoded, dotted};

/// Returns the text with `value` (TOML) at `path`; `None` if the text is not TOML, or a parent of `path` is not a
/// table.
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
    let is_table = |length| layout.value(&path[..length]).is_none_or(DeValue::is_table);
    if !(0..path.len()).all(is_table) {
        return None;
    }
    if let Some(piece) = layout.pieces.iter().find(|piece| piece.kind.is_value() && piece.path == path) {
        return Some(spliced(text, piece.span.clone(), value));
    }
    let add = |layout: &Layout<'_>| layout.with_new_key(path, value, comment, header_length);
    let text = match layout.value(path) {
        None => add(&layout),
        // A table that is written with headers or dotted keys goes first.
        Some(_) => add(&Layout::of(&unset(text, path)?)?),
    };
    has(&text, path).then_some(text)
}

/// Returns the text without the key or table at `path`; `None` if the text is not TOML or has nothing there. Comments
/// stay, even one behind the value.
pub(super) fn unset(text: &str, path: &[String]) -> Option<String> {
    Layout::of(text)?.value(path)?;
    let mut text = text.to_owned();
    // One at a time, for each cut changes where the next one is.
    while let Some((range, rest)) = Layout::of(&text)?.cut(path) {
        text = spliced(&text, range, &rest);
    }
    Some(text)
}

/// Returns whether the text has something at `path`.
pub(super) fn has(text: &str, path: &[String]) -> bool {
    Layout::of(text).is_some_and(|layout| layout.value(path).is_some())
}

/// The positions of all keys and headers in a text.
struct Layout<'t> {
    text: &'t str,
    root: Spanned<DeTable<'t>>,
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
    Inline(Range<usize>),
}

impl EntryKind {
    fn is_value(&self) -> bool {
        matches!(self, Self::Statement | Self::Inline(_))
    }
}

impl<'t> Layout<'t> {
    fn of(text: &'t str) -> Option<Self> {
        let root = DeTable::parse(text).ok()?;
        Some(Self { text, root, pieces: LayoutReader::of(text) })
    }

    fn value(&self, path: &[String]) -> Option<&DeValue<'t>> {
        let (first, rest) = path.split_first()?;
        let value = self.root.get_ref().get(first.as_str())?.get_ref();
        rest.iter().try_fold(value, |value, name| Some(value.as_table()?.get(name.as_str())?.get_ref()))
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
            .filter(move |piece| matches!(&piece.kind, EntryKind::Inline(inside) if inside == table))
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

    /// Returns the span of a comment's line, if it is below this header.
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

    /// Returns the replacement that removes one piece of `path`; `None` if there is no such piece.
    fn cut(&self, path: &[String]) -> Option<(Range<usize>, String)> {
        let of_path = || self.pieces.iter().filter(|piece| piece.path.starts_with(path));
        // From the end: a statement without its header would belong to another table.
        if let Some(piece) = of_path().rfind(|piece| !matches!(piece.kind, EntryKind::Inline(_))) {
            return Some(self.cut_lines(piece));
        }
        let entry = of_path().min_by_key(|piece| piece.path.len())?;
        let EntryKind::Inline(table) = &entry.kind else { return None };
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

    /// Returns the end of the blanks, comments and commas at `offset`.
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

    /// Returns the span of the lines of a piece, with the last newline.
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

/// Collects the pieces of a text that is valid TOML, event by event.
struct LayoutReader<'t> {
    source: Source<'t>,
    pieces: Vec<TomlEntry>,
    /// The tables in which the next key is: the one of the last header, then the inline ones.
    tables: Vec<(Vec<String>, EntryKind)>,
    /// The parts of the last key.
    key: Vec<String>,
    /// Where its last part begins.
    start: usize,
    /// Where the last header begins.
    header: usize,
    /// Where each array begins in which the next value is. Tables in arrays have no pieces.
    arrays: Vec<usize>,
}

impl<'t> LayoutReader<'t> {
    fn of(text: &'t str) -> Vec<TomlEntry> {
        let mut pieces = Self {
            source: Source::new(text),
            pieces: Vec::new(),
            tables: vec![(Vec::new(), EntryKind::Statement)],
            key: Vec::new(),
            start: 0,
            header: 0,
            arrays: Vec::new(),
        };
        let tokens = pieces.source.lex().into_vec();
        parse_document(&tokens, &mut |event: Event| pieces.receive(&event), &mut ());
        pieces.pieces
    }

    fn receive(&mut self, event: &Event) {
        let span = event.span();
        match event.kind() {
            Kind::ArrayOpen => self.arrays.push(span.start()),
            Kind::ArrayClose => {
                let start = self.arrays.pop().unwrap_or_default();
                if self.arrays.is_empty() {
                    self.value(start..span.end());
                }
            }
            _ if !self.arrays.is_empty() => {}
            Kind::StdTableOpen | Kind::ArrayTableOpen => {
                self.header = span.start();
                self.key.clear();
            }
            Kind::SimpleKey => {
                self.key.push(decoded(self.source, event, &mut Vec::new()));
                self.start = span.start();
            }
            Kind::StdTableClose => self.headed(EntryKind::Header, span.end()),
            Kind::ArrayTableClose => self.headed(EntryKind::ArrayHeader, span.end()),
            Kind::Scalar => self.value(span.start()..span.end()),
            Kind::InlineTableOpen => {
                // Its end is not known yet.
                self.value(span.start()..span.end());
                let path = self.pieces.last().map(|piece| piece.path.clone()).unwrap_or_default();
                self.tables.push((path, EntryKind::Inline(span.start()..span.end())));
            }
            Kind::InlineTableClose => self.close(span.end()),
            _ => {}
        }
    }

    fn headed(&mut self, kind: EntryKind, end: usize) {
        let path = mem::take(&mut self.key);
        self.tables = vec![(path.clone(), EntryKind::Statement)];
        self.pieces.push(TomlEntry { path, start: self.header, span: self.header..end, kind });
    }

    fn value(&mut self, span: Range<usize>) {
        let key = mem::take(&mut self.key);
        if let Some((table, kind)) = self.tables.last() {
            let path = [table.as_slice(), &key].concat();
            self.pieces.push(TomlEntry { path, start: self.start, span, kind: kind.clone() });
        }
    }

    /// Sets the end of the innermost inline table, also in its entries.
    fn close(&mut self, end: usize) {
        let Some((_, EntryKind::Inline(table))) = self.tables.pop() else { return };
        for piece in &mut self.pieces {
            if piece.kind.is_value() && piece.span.start == table.start {
                piece.span.end = end;
            }
            if let EntryKind::Inline(inside) = &mut piece.kind
                && inside.start == table.start
            {
                inside.end = end;
            }
        }
    }
}

fn spliced(text: &str, range: Range<usize>, replacement: &str) -> String {
    [&text[..range.start], replacement, &text[range.end..]].concat()
}

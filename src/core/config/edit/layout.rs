//! Where everything is in a text: headers, keys, values and lines, as byte ranges.

use std::ops::Range;

use toml_edit::{Document, Item, TableLike, Value};

/// Where everything is in a text.
pub(super) struct Layout<'t> {
    pub(super) text: &'t str,
    /// How its lines end.
    pub(super) newline: &'static str,
    /// In the order of the text.
    pub(super) headers: Vec<Header>,
    /// In the order of the text.
    pub(super) pairs: Vec<Pair>,
    document: Document<&'t str>,
}

/// `[path]` or `[[path]]`.
pub(super) struct Header {
    pub(super) path: Vec<String>,
    pub(super) span: Range<usize>,
    pub(super) is_array: bool,
}

/// `key = value`, a statement or an entry of an inline table.
pub(super) struct Pair {
    pub(super) path: Vec<String>,
    /// The last part of the key.
    pub(super) key: Range<usize>,
    pub(super) value: Range<usize>,
    /// How many first parts of the path are said by the header or the inline table around it.
    pub(super) outer: usize,
    /// The inline table in which it is.
    pub(super) inside: Option<Range<usize>>,
}

/// What surrounds the keys of a table.
#[derive(Clone)]
struct Around {
    outer: usize,
    inside: Option<Range<usize>>,
}

impl<'t> Layout<'t> {
    /// `None` when the text is no TOML.
    pub(super) fn of(text: &'t str) -> Option<Self> {
        let document = Document::parse(text).ok()?;
        let (mut headers, mut pairs) = (Vec::new(), Vec::new());
        let mut collector = Collector { headers: &mut headers, pairs: &mut pairs, path: Vec::new() };
        collector.table(document.as_table(), &Around { outer: 0, inside: None });
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        Some(Self { text, newline, headers, pairs, document })
    }

    /// Whether there is something at `path`.
    pub(super) fn has(&self, path: &[String]) -> bool {
        self.item(path).is_some()
    }

    /// Whether there is a table at `path`.
    pub(super) fn is_table(&self, path: &[String]) -> bool {
        self.item(path).is_some_and(Item::is_table_like)
    }

    fn item(&self, path: &[String]) -> Option<&Item> {
        path.iter().try_fold(self.document.as_item(), |item, name| item.as_table_like()?.get(name))
    }

    /// The statements below a header.
    pub(super) fn pairs_below(&self, header: usize) -> impl Iterator<Item = &Pair> {
        let range = self.below(header);
        self.pairs.iter().filter(move |pair| pair.inside.is_none() && range.contains(&pair.key.start))
    }

    /// The lines below a header that are comments, without their ends, up to one that shows another header.
    pub(super) fn comment_lines(&self, header: usize) -> impl Iterator<Item = Range<usize>> {
        let range = self.below(header);
        let shows_header = |line: &str| line.trim_start_matches([' ', '\t', '#']).starts_with('[');
        self.lines(range).take_while(move |line| !shows_header(&self.text[line.clone()]))
    }

    /// The line, without its end, that shows a header as a comment, if no key would be below that header.
    pub(super) fn line_of_unused_header(&self, comment: &str) -> Option<Range<usize>> {
        let line = self.lines(0..self.text.len()).find(|line| self.text[line.clone()].trim() == comment)?;
        let next = self.headers.iter().map(|header| header.span.start).find(|start| *start > line.start);
        let below = line.start..next.unwrap_or(self.text.len());
        let unused = !self.pairs.iter().any(|pair| below.contains(&pair.key.start));
        unused.then_some(line)
    }

    /// The lines that are comments, not counting what looks like one within a value.
    fn lines(&self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let mut at = range.start;
        std::iter::from_fn(move || {
            let start = at;
            at = self.line_end(start);
            (start < range.end)
                .then(|| start..self.text[..at].trim_end_matches(['\n', '\r']).len().max(start))
        })
        .filter(|line| self.text[line.clone()].trim_start().starts_with('#'))
        .filter(|line| {
            !self.pairs.iter().any(|pair| pair.value.start < line.start && line.start < pair.value.end)
        })
    }

    /// How a header without statements goes: with comments right below, it becomes a comment too; else its line goes,
    /// with one of two blank lines that this would leave.
    pub(super) fn cut_header(&self, header: usize) -> (Range<usize>, String) {
        let span = &self.headers[header].span;
        let (start, end) = (self.line_start(span.start), self.line_end(span.end));
        let rest = &self.text[end..];
        if rest.trim_start_matches([' ', '\t']).starts_with('#') {
            return (span.start..span.start, "#".to_owned());
        }
        let before = self.text[..start].strip_suffix(self.newline).unwrap_or_default();
        let is_blank = rest.is_empty() || rest.starts_with(['\n', '\r']);
        let start = if is_blank && before.ends_with('\n') { before.len() } else { start };
        let comment = self.text[span.end..end].trim();
        if comment.is_empty() { (start..end, String::new()) } else { (span.clone(), String::new()) }
    }

    fn below(&self, header: usize) -> Range<usize> {
        let next =
            self.headers.get(header + 1).map_or(self.text.len(), |next| self.line_start(next.span.start));
        self.line_end(self.headers[header].span.end)..next
    }

    /// Where the line of `offset` begins.
    pub(super) fn line_start(&self, offset: usize) -> usize {
        self.text[..offset].rfind('\n').map_or(0, |newline| newline + 1)
    }

    /// Where the line of `offset` ends, its newline included.
    pub(super) fn line_end(&self, offset: usize) -> usize {
        self.text[offset..].find('\n').map_or(self.text.len(), |newline| offset + newline + 1)
    }

    /// The blanks before the first word of the line of `offset`.
    pub(super) fn indent(&self, offset: usize) -> &'t str {
        let line = &self.text[self.line_start(offset)..];
        &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
    }

    /// A line to be put after the line of `offset`, which may be the last one and lack its end.
    pub(super) fn new_line(&self, offset: usize, line: &str) -> String {
        let ends = self.text[offset..].contains('\n');
        let before = if ends { "" } else { self.newline };
        format!("{before}{line}{}", self.newline)
    }

    /// After blanks, comments and commas.
    pub(super) fn after_blank(&self, mut offset: usize) -> usize {
        loop {
            let rest = self.text[offset..].trim_start_matches([' ', '\t', '\r', '\n', ',']);
            offset = self.text.len() - rest.len();
            if !rest.starts_with('#') {
                return offset;
            }
            offset = self.line_end(offset);
        }
    }
}

struct Collector<'a> {
    headers: &'a mut Vec<Header>,
    pairs: &'a mut Vec<Pair>,
    path: Vec<String>,
}

impl Collector<'_> {
    /// Notes everything in a table, each in its place: a table may lie in several pieces of the text. The parser has
    /// given all of it spans.
    fn table(&mut self, table: &dyn TableLike, around: &Around) {
        for (name, item) in table.iter() {
            self.path.push(name.to_owned());
            match item {
                Item::Table(inner) if inner.is_dotted() => self.table(inner, around),
                Item::Table(inner) => self.headed(inner, false),
                Item::ArrayOfTables(tables) => tables.iter().for_each(|inner| self.headed(inner, true)),
                Item::Value(Value::InlineTable(inner)) if inner.is_dotted() => self.table(inner, around),
                Item::Value(value) => {
                    let key = table.get_key_value(name).and_then(|(key, _)| key.span()).unwrap_or_default();
                    self.pair(key, value, around);
                }
                Item::None => {}
            }
            self.path.pop();
        }
    }

    fn headed(&mut self, table: &toml_edit::Table, is_array: bool) {
        if let Some(span) = table.span().filter(|_| !table.is_implicit()) {
            let at = self.headers.partition_point(|header| header.span.start < span.start);
            self.headers.insert(at, Header { path: self.path.clone(), span, is_array });
        }
        self.table(table, &Around { outer: self.path.len(), inside: None });
    }

    fn pair(&mut self, key: Range<usize>, value: &Value, around: &Around) {
        let span = value.span().unwrap_or_default();
        let pair = Pair {
            path: self.path.clone(),
            key,
            value: span.clone(),
            outer: around.outer,
            inside: around.inside.clone(),
        };
        let at = self.pairs.partition_point(|other| other.key.start < pair.key.start);
        self.pairs.insert(at, pair);
        if let Value::InlineTable(inner) = value {
            self.table(inner, &Around { outer: self.path.len(), inside: Some(span) });
        }
    }
}

//! Tables: columns aligned in terminal cells, and rows cut at the width of the screen.

use crate::cli::terminal::cells;
use crate::cli::terminal::ui::printable;

/// Lines of text in columns.
#[derive(Debug)]
pub struct TextTable {
    rows: Vec<TableRow>,
}

#[derive(Debug)]
struct TableRow {
    cells: Vec<String>,
    /// Lines below the row, which are not cut.
    notes: Vec<String>,
}

/// The text of a cell whose value is not known.
pub fn unknown() -> String {
    "-".to_owned()
}

impl TextTable {
    pub fn new(header: &[&str]) -> Self {
        let cells = header.iter().map(|name| (*name).to_owned()).collect();
        Self { rows: vec![TableRow { cells, notes: Vec::new() }] }
    }

    /// Adds a row, whose missing cells are unknown. Other programs may have made the text of the cells.
    pub fn row(&mut self, cells: &[String]) {
        let columns = self.rows.first().map_or(0, |header| header.cells.len());
        let mut cells: Vec<String> = cells.iter().map(|cell| one_line(cell)).collect();
        cells.resize(cells.len().max(columns), unknown());
        self.rows.push(TableRow { cells, notes: Vec::new() });
    }

    /// Adds a line below the last row.
    pub fn note(&mut self, note: &str) {
        if let Some(row) = self.rows.last_mut() {
            row.notes.push(format!("  {}", one_line(note)));
        }
    }

    /// Removes the first column.
    pub fn remove_first_column(&mut self) {
        for row in &mut self.rows {
            row.cells.remove(0);
        }
    }

    /// Returns the text, with rows of at most `screen` cells.
    pub fn text(&self, screen: Option<usize>) -> String {
        let columns = self.rows.iter().map(|row| row.cells.len()).max().unwrap_or_default();
        let widest = |column: usize| {
            let column = self.rows.iter().filter_map(|row| row.cells.get(column));
            column.map(|cell| cells::width(cell)).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(widest).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.cells.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width.saturating_sub(cells::width(cell)) + 2));
            }
            text.push_str(cells::cut(line.trim_end(), screen.unwrap_or(usize::MAX)).trim_end());
            text.push('\n');
            for note in &row.notes {
                text.push_str(note);
                text.push('\n');
            }
        }
        text
    }
}

fn one_line(text: &str) -> String {
    // Most cells are plain, and then the filter is most of the work of a table.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    printable(text).replace(['\n', '\t'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_measured_in_cells() {
        let mut table = TextTable::new(&["NAME", "MODEL"]);
        table.row(&["模型".to_owned(), "x".to_owned()]);
        table.row(&["e\u{301}".to_owned(), "a\nb\tc\u{1b}[31m".to_owned()]);
        table.note("a note\nof two lines");
        assert_eq!(table.text(None), "NAME  MODEL\n模型  x\ne\u{301}     a b c\n  a note of two lines\n");
    }

    #[test]
    fn rows_are_cut_at_the_screen() {
        let mut table = TextTable::new(&["NAME", "MODEL"]);
        table.row(&["one".to_owned(), "模型模型".to_owned()]);
        table.note("a note that is longer than the screen");
        assert_eq!(table.text(Some(9)), "NAME  MOD\none   模\n  a note that is longer than the screen\n");
        table.remove_first_column();
        assert_eq!(table.text(Some(4)), "MODE\n模型\n  a note that is longer than the screen\n");
    }
}

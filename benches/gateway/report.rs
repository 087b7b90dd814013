//! The figures: printed as they come, then written into `docs/performance.md`.

use std::path::Path;

use anyhow::Result;

use crate::marks;

const BEGIN: &str = "<!-- `cargo bench --bench gateway` writes from here -->\n";

pub struct Report(String);

impl Report {
    pub fn new() -> Self {
        Self("| | fusion | nginx | ratio | aim |\n|---|---|---|---|---|\n".to_owned())
    }

    pub fn compare(&mut self, what: &str, fusion: f64, nginx: f64, aim: &str) {
        let ratio = fusion / nginx;
        self.add(&format!("| {what} | {fusion:.1} | {nginx:.1} | {ratio:.2} | at most {aim} |\n"));
    }

    pub fn alone(&mut self, what: &str, fusion: f64, aim: &str) {
        self.add(&format!("| {what} | {fusion:.1} |  |  | at most {aim} |\n"));
    }

    /// Adds the first byte of a cold start, in milliseconds.
    pub fn cold(&mut self, through_gateway: f64, run: f64) {
        let ratio = through_gateway / run;
        let what = "first byte of a cold start, ms";
        self.add(&format!(
            "| {what} | {through_gateway:.1} | `fusion ollama run`: {run:.1} | {ratio:.2} |  |\n"
        ));
    }

    fn add(&mut self, row: &str) {
        print!("{row}");
        self.0 += row;
    }

    /// Writes the table into the page.
    pub fn publish(&self) -> Result<()> {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md");
        marks::write(&page, BEGIN, &self.0)
    }
}

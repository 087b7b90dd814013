//! The figures: printed as they come, then written into `docs/` as a table and a chart.

use std::path::Path;

use anyhow::Result;

use crate::measure::{Cost, median};
use crate::programs::Programs;
use crate::row::{Other, Row, Unit};
use crate::{chart, marks};

const BEGIN: &str = "<!-- `cargo bench` writes from here -->\n";

pub(crate) struct Report(Vec<Row>);

impl Report {
    pub(crate) fn new() -> Self {
        println!("\n{:<46} {:>8} {:>8} {:>6}  {:<22}  aim", "", "fusion", "other", "ratio", "to");
        Self(Vec::new())
    }

    /// Adds the median times from start to end; the ratio is the median over the rounds.
    pub(crate) fn times(
        &mut self,
        label: &'static str,
        fusion: &[Cost],
        name: &'static str,
        other: &[Cost],
        aim: &'static str,
    ) {
        let time = |cost: &Cost| cost.wall.as_secs_f64() * 1e3;
        let ratios = fusion.iter().zip(other).map(|(fusion, other)| time(fusion) / time(other));
        let medians = (median(fusion.iter().map(time)), median(other.iter().map(time)), median(ratios));
        if let (Ok(fusion), Ok(value), Ok(ratio)) = medians {
            let other = Some(Other { name, value, ratio });
            self.add(Row { label, unit: Unit::Milliseconds, fusion, other, aim });
        }
    }

    /// Adds two figures and their ratio.
    pub(crate) fn values(
        &mut self,
        label: &'static str,
        unit: Unit,
        fusion: f64,
        name: &'static str,
        value: f64,
        aim: &'static str,
    ) {
        let other = Some(Other { name, value, ratio: fusion / value });
        self.add(Row { label, unit, fusion, other, aim });
    }

    /// Adds a figure that is compared with nothing.
    pub(crate) fn alone(&mut self, label: &'static str, unit: Unit, fusion: f64, aim: &'static str) {
        self.add(Row { label, unit, fusion, other: None, aim });
    }

    fn add(&mut self, row: Row) {
        let Row { label, unit, fusion, ref other, aim } = row;
        let fusion = unit.show(fusion);
        match other {
            Some(Other { name, value, ratio }) => {
                println!("{label:<46} {fusion:>8} {:>8} {ratio:>6.2}  {name:<22}  {aim}", unit.show(*value));
            }
            None => println!("{label:<46} {fusion:>8} {:>8} {:>6}  {:<22}  {aim}", "", "", ""),
        }
        self.0.push(row);
    }

    /// Writes the table into `docs/performance.md` and the chart beside it.
    pub(crate) fn publish(&self, root: &Path, programs: &Programs) -> Result<()> {
        let docs = root.join("docs");
        let path = docs.join("performance.md");
        marks::write(&path, BEGIN, &format!("{}\n\n{}", programs.conditions()?, self.table()))?;
        std::fs::write(docs.join("performance.svg"), chart::draw(&self.0))?;
        println!("\nwritten to {} and performance.svg", path.display());
        Ok(())
    }

    fn table(&self) -> String {
        let head = "| | fusion | compared with | ratio | aim |\n|---|---|---|---|---|\n".to_owned();
        self.0.iter().fold(head, |table, row| {
            let Row { label, unit, fusion, other, aim } = row;
            let (other, ratio) = match other {
                Some(Other { name, value, ratio }) => {
                    (format!("{name}: {}", unit.show(*value)), format!("{ratio:.2}"))
                }
                None => (String::new(), String::new()),
            };
            format!("{table}| {label} | {} | {other} | {ratio} | {aim} |\n", unit.show(*fusion))
        })
    }
}

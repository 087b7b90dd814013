//! The progress of a download on stderr: a bar with bytes, rate and time left on a terminal; elsewhere a line now and
//! then.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use crate::cli::ui::{self, Ui, printable};
use crate::cli::units;
use crate::core::models::catalogue::Step;
use crate::core::process::signals::{self, Terminal};

/// How often the bar is drawn anew.
const DRAW: Duration = Duration::from_millis(100);

/// How often a line is written where lines stay.
const SELDOM: Duration = Duration::from_secs(10);

/// Over how long the rate is taken.
const WINDOW: Duration = Duration::from_secs(5);

/// How many characters the bar itself has, where there is room.
const BAR: usize = 24;

/// With fewer it would show nothing.
const SHORTEST_BAR: usize = 6;

/// Shows one download. What is on the terminal when it is dropped goes away.
pub struct Progress<'a> {
    ui: &'a Ui,
    name: &'a str,
    shown: Option<Instant>,
    stage: String,
    samples: VecDeque<(Instant, u64)>,
}

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Measure {
    done: u64,
    total: Option<u64>,
    /// Bytes in a second.
    rate: Option<u64>,
}

impl<'a> Progress<'a> {
    /// Of the download of `name`.
    pub fn new(ui: &'a Ui, name: &'a str) -> Self {
        Self { ui, name, shown: None, stage: String::new(), samples: VecDeque::new() }
    }

    /// Shows a step, unless another was shown a moment ago.
    pub fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Stage(stage) => {
                if stage != self.stage {
                    stage.clone_into(&mut self.stage);
                    self.draw(stage);
                }
            }
            Step::Bytes { done, total } => {
                let now = Instant::now();
                let measure = Measure { done, total, rate: self.rate(now, done) };
                let pause = if self.ui.redraws() { DRAW } else { SELDOM };
                let is_first_measure = self.samples.len() == 1;
                if is_first_measure || self.shown.is_none_or(|shown| now.duration_since(shown) >= pause) {
                    let line =
                        if self.ui.redraws() { bar(measure, ui::line_width()) } else { sentence(measure) };
                    self.draw(&line);
                }
            }
        }
    }

    fn draw(&mut self, line: &str) {
        if self.shown.is_none() {
            self.ui.note(&format!("downloading {}", self.name));
        }
        self.shown = Some(Instant::now());
        if !self.ui.redraws() {
            return self.ui.note(line);
        }
        signals::showing(Terminal::Line);
        let line = ui::one_line(&printable(line));
        // A closed stderr is no reason to stop.
        let _ = io::stderr().write_all(format!("\r\x1b[K{line}").as_bytes());
    }

    /// Bytes in a second, over the last few seconds; none before it means something.
    fn rate(&mut self, now: Instant, done: u64) -> Option<u64> {
        self.samples.push_back((now, done));
        while self.samples.len() > 2 && self.samples.front().is_some_and(|(then, _)| now - *then > WINDOW) {
            self.samples.pop_front();
        }
        let (then, before) = *self.samples.front()?;
        let millis = u64::try_from((now - then).as_millis()).ok().filter(|millis| *millis >= 1000)?;
        done.saturating_sub(before).saturating_mul(1000).checked_div(millis)
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if self.ui.redraws() && self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
            signals::showing(Terminal::Clean);
        }
    }
}

/// `[=====>     ]  42%  1.2 GB of 2.9 GB  23 MB/s  1m 14s left`, the bar as long as there is room.
fn bar(measure: Measure, width: usize) -> String {
    let Some((percent, total)) = percent(measure) else { return sentence(measure) };
    let mut facts =
        vec![format!("{percent:3}%"), format!("{} of {}", units::bytes(measure.done), units::bytes(total))];
    facts.extend(rate_and_rest(measure));
    let facts = facts.join("  ");
    let length = width.saturating_sub(facts.chars().count() + 3).min(BAR);
    if length < SHORTEST_BAR {
        return facts;
    }
    let filled = usize::try_from(percent).unwrap_or_default() * length / 100;
    let bar: String = (0..length)
        .map(|place| match place {
            place if place < filled => '=',
            place if place == filled => '>',
            _ => ' ',
        })
        .collect();
    format!("[{bar}] {facts}")
}

/// `1.2 GB of 2.9 GB (42%), 23 MB/s, 1m 14s left`
fn sentence(measure: Measure) -> String {
    let amount = match percent(measure) {
        Some((percent, total)) => {
            format!("{} of {} ({percent}%)", units::bytes(measure.done), units::bytes(total))
        }
        None => units::bytes(measure.done),
    };
    std::iter::once(amount).chain(rate_and_rest(measure)).collect::<Vec<_>>().join(", ")
}

fn percent(measure: Measure) -> Option<(u64, u64)> {
    let total = measure.total.filter(|total| *total > 0)?;
    Some((u64::try_from(u128::from(measure.done.min(total)) * 100 / u128::from(total)).ok()?, total))
}

fn rate_and_rest(measure: Measure) -> Vec<String> {
    // What arrives first are the small files, and says nothing of the large ones.
    let has_begun = measure.total.is_none_or(|total| measure.done >= total / 100);
    let Some(rate) = measure.rate.filter(|rate| *rate > 0 && has_begun) else { return Vec::new() };
    let mut facts = vec![format!("{}/s", units::bytes(rate))];
    if let Some(rest) = measure.total.map(|total| total.saturating_sub(measure.done)).filter(|rest| *rest > 0)
    {
        facts.push(format!("{} left", units::duration(Duration::from_secs(rest.div_ceil(rate)))));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measure_is_told_with_what_is_known_of_it() {
        let tell = |done, total, rate| sentence(Measure { done, total, rate });
        assert_eq!(
            tell(1_200_000_000, Some(2_900_000_000), Some(23_000_000)),
            "1.2 GB of 2.9 GB (41%), 23 MB/s, 1m 14s left"
        );
        assert_eq!(tell(500, None, Some(100)), "500 B, 100 B/s");
        assert_eq!(tell(500, Some(500), Some(100)), "500 B of 500 B (100%), 100 B/s");
        assert_eq!(tell(0, Some(500), Some(0)), "0 B of 500 B (0%)");
        assert_eq!(tell(0, Some(0), None), "0 B");
        assert_eq!(tell(9, Some(1000), Some(1)), "9 B of 1.0 kB (0%)");
    }

    #[test]
    fn the_bar_grows_with_the_download() {
        let draw = |done| bar(Measure { done, total: Some(100_000), rate: None }, 79);
        assert_eq!(draw(0), "[>                       ]   0%  0 B of 100 kB");
        assert_eq!(draw(50_000), "[============>           ]  50%  50 kB of 100 kB");
        assert_eq!(draw(100_000), "[========================] 100%  100 kB of 100 kB");
        let narrow = |width| bar(Measure { done: 50_000, total: Some(100_000), rate: Some(1000) }, width);
        assert_eq!(narrow(50), "[===>  ]  50%  50 kB of 100 kB  1.0 kB/s  50s left");
        assert_eq!(narrow(30), " 50%  50 kB of 100 kB  1.0 kB/s  50s left");
        assert_eq!(draw(200_000), "[========================] 100%  200 kB of 100 kB");
    }
}

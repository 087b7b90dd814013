//! The progress of a download on stderr: a bar with bytes, rate and time left on a terminal; elsewhere a line now and
//! then.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use crate::cli::ui::{Ui, printable};
use crate::cli::units;
use crate::core::models::catalogue::Step;
use crate::core::process::signals::{self, Terminal};

/// How often the bar is drawn anew.
const DRAW: Duration = Duration::from_millis(100);

/// How often a line is written where lines stay.
const SELDOM: Duration = Duration::from_secs(10);

/// Over how long the rate is taken.
const WINDOW: Duration = Duration::from_secs(5);

/// How many characters the bar itself has.
const BAR: u64 = 24;

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
                    self.draw(&format!("{}: {stage}", self.name));
                }
            }
            Step::Bytes { done, total } => {
                let now = Instant::now();
                let measure = Measure { done, total, rate: self.rate(now, done) };
                let pause = if self.ui.stderr_is_terminal { DRAW } else { SELDOM };
                let is_first_measure = self.samples.len() == 1;
                if is_first_measure || self.shown.is_none_or(|shown| now.duration_since(shown) >= pause) {
                    let line = if self.ui.stderr_is_terminal { bar(measure) } else { sentence(measure) };
                    self.draw(&format!("{}: {line}", self.name));
                }
            }
        }
    }

    fn draw(&mut self, line: &str) {
        self.shown = Some(Instant::now());
        if self.ui.quiet {
            return;
        }
        if !self.ui.stderr_is_terminal {
            return self.ui.note(line);
        }
        signals::showing(Terminal::Line);
        // Cut by the terminal at its edge rather than wrapped (DECAWM off, and on again): a line that has wrapped
        // cannot be overwritten. A closed stderr is no reason to stop.
        let _ = write!(io::stderr(), "\r\x1b[K\x1b[?7l{}\x1b[?7h", printable(line));
    }

    /// Bytes in a second, over the last few seconds.
    fn rate(&mut self, now: Instant, done: u64) -> Option<u64> {
        self.samples.push_back((now, done));
        while self.samples.len() > 2 && self.samples.front().is_some_and(|(then, _)| now - *then > WINDOW) {
            self.samples.pop_front();
        }
        let (then, before) = *self.samples.front()?;
        let millis = u64::try_from((now - then).as_millis()).ok()?;
        done.saturating_sub(before).saturating_mul(1000).checked_div(millis)
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if self.ui.stderr_is_terminal && !self.ui.quiet && self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
            signals::showing(Terminal::Clean);
        }
    }
}

/// `[=====>     ]  42%  1.2 GB of 2.9 GB  23 MB/s  1m 14s left`
fn bar(measure: Measure) -> String {
    let Some((percent, total)) = percent(measure) else { return sentence(measure) };
    let filled = percent * BAR / 100;
    let bar: String = (0..BAR)
        .map(|place| match place {
            place if place < filled => '=',
            place if place == filled => '>',
            _ => ' ',
        })
        .collect();
    let mut line = format!("[{bar}] {percent:3}%  {} of {}", units::bytes(measure.done), units::bytes(total));
    for fact in rate_and_rest(measure) {
        line.push_str("  ");
        line.push_str(&fact);
    }
    line
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
    let Some(rate) = measure.rate.filter(|rate| *rate > 0) else { return Vec::new() };
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
    }

    #[test]
    fn the_bar_grows_with_the_download() {
        let draw = |done| bar(Measure { done, total: Some(100_000), rate: None });
        assert_eq!(draw(0), "[>                       ]   0%  0 B of 100 kB");
        assert_eq!(draw(50_000), "[============>           ]  50%  50 kB of 100 kB");
        assert_eq!(draw(100_000), "[========================] 100%  100 kB of 100 kB");
        assert_eq!(draw(200_000), "[========================] 100%  200 kB of 100 kB");
    }
}

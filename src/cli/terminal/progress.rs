//! The progress of a download on stderr: a bar with bytes, rate and time left on a terminal, else a line every ten
//! seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::status_line::line_width;
use super::ui::Ui;
use crate::cli::units;

/// How often the bar is drawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);

/// How often a line is written without a status line.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// The rate is an average over this time.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// Maximum width of the bar itself, in characters.
const MAX_BAR_WIDTH: usize = 24;

/// A narrower bar is left out.
const MIN_BAR_WIDTH: usize = 6;

/// Shows one download.
pub struct DownloadProgress {
    ui: Ui,
    name: String,
    shown: Option<Instant>,
    stage: String,
    samples: VecDeque<(Instant, u64)>,
}

/// The state of a download.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Measure {
    done: u64,
    total: Option<u64>,
    /// Bytes per second.
    rate: Option<u64>,
}

impl DownloadProgress {
    pub fn new(ui: &Ui, name: &str) -> Self {
        let (ui, name) = (ui.clone(), name.to_owned());
        Self { ui, name, shown: None, stage: String::new(), samples: VecDeque::new() }
    }

    /// Shows the stage of a download without a byte count.
    pub fn stage(&mut self, stage: &str) {
        if stage != self.stage {
            stage.clone_into(&mut self.stage);
            self.draw(stage);
        }
    }

    /// Shows how many bytes have arrived, at most once per interval.
    pub fn bytes(&mut self, done: u64, total: Option<u64>) {
        let now = Instant::now();
        let measure = Measure { done, total, rate: self.rate(now, done) };
        let redraws = self.ui.redraws();
        let interval = if redraws { DRAW_INTERVAL } else { LINE_INTERVAL };
        let is_first_measure = self.samples.len() == 1;
        if is_first_measure || self.shown.is_none_or(|shown| now.duration_since(shown) >= interval) {
            self.draw(&if redraws { bar(measure, line_width()) } else { sentence(measure) });
        }
    }

    fn draw(&mut self, line: &str) {
        if self.shown.is_none() {
            self.ui.note(&format!("downloading {}", self.name));
        }
        self.shown = Some(Instant::now());
        if self.ui.redraws() { self.ui.status(line) } else { self.ui.note(line) }
    }

    /// Returns the bytes per second, or `None` during the first second.
    fn rate(&mut self, now: Instant, done: u64) -> Option<u64> {
        self.samples.push_back((now, done));
        while self.samples.len() > 2
            && self.samples.front().is_some_and(|(then, _)| now - *then > RATE_WINDOW)
        {
            self.samples.pop_front();
        }
        let (then, before) = *self.samples.front()?;
        let millis = u64::try_from((now - then).as_millis()).ok().filter(|millis| *millis >= 1000)?;
        done.saturating_sub(before).saturating_mul(1000).checked_div(millis)
    }
}

/// Returns `[=====>     ]  42%  1.2 GB of 2.9 GB  23 MB/s  1m 14s left` within `width` characters.
fn bar(measure: Measure, width: usize) -> String {
    let Some((percent, total)) = percent(measure) else { return sentence(measure) };
    let mut facts =
        vec![format!("{percent:3}%"), format!("{} of {}", units::bytes(measure.done), units::bytes(total))];
    facts.extend(rate_and_rest(measure));
    let facts = facts.join("  ");
    let length = width.saturating_sub(facts.chars().count() + 3).min(MAX_BAR_WIDTH);
    if length < MIN_BAR_WIDTH {
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

/// Returns `1.2 GB of 2.9 GB (42%), 23 MB/s, 1m 14s left`.
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
    // The small files arrive first, and their rate does not predict that of the large ones.
    let has_started = measure.total.is_none_or(|total| measure.done >= total / 100);
    let Some(rate) = measure.rate.filter(|rate| *rate > 0 && has_started) else { return Vec::new() };
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
    fn a_sentence_shows_only_known_facts() {
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

//! The lines of `top`: a table of the services with what they did in the last minute, and a line below it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use crate::app::top::{TopService, TopView};
use crate::cli::table::unknown;
use crate::cli::terminal::cells;
use crate::cli::terminal::ui::printable;
use crate::cli::units::{bytes, duration, tokens};
use crate::core::sorted_map::SortedMap;

const HEADER: [&str; COLUMNS] =
    ["SERVICE", "MODEL", "STATE", "MEMORY", "GPU", "CONTEXT", "TOK/S", "TTFT", "IDLE", "LAST"];

const COLUMNS: usize = 10;

/// How many moments are remembered: one a second, for a minute.
const MOMENTS: usize = 60;

/// The cells of a sparkline; each stands for so many moments.
const SPARK_CELLS: usize = 10;

const SPARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A longer name of a model is cut in the middle.
const MAX_MODEL_CELLS: usize = 30;

/// The last column is worth this many cells, which sparklines leave to it.
const MIN_LAST_CELLS: usize = 16;

/// What each service used in the last minute.
#[derive(Debug, Default)]
pub(super) struct LastMinute(SortedMap<Arc<str>, Samples>);

#[derive(Debug, Default)]
struct Samples {
    memory: VecDeque<f64>,
    speed: VecDeque<f64>,
}

impl LastMinute {
    /// Remembers a moment, and forgets what is older than a minute, and services that are gone.
    pub(super) fn add(&mut self, view: &TopView) {
        self.0.retain(|name, _| view.services.iter().any(|service| service.name == *name));
        for service in &view.services {
            let samples = self.0.get_or_default(Arc::clone(&service.name));
            #[expect(clippy::cast_precision_loss, reason = "a cell shows eight heights")]
            let memory = service.memory_bytes.unwrap_or_default() as f64;
            // Between answers nothing is generated.
            let is_busy = service.in_flight.is_some_and(|count| count > 0);
            let speed = service.tokens_per_second.filter(|_| is_busy).unwrap_or_default();
            for (samples, sample) in [(&mut samples.memory, memory), (&mut samples.speed, speed)] {
                samples.push_back(sample);
                while samples.len() > MOMENTS {
                    samples.pop_front();
                }
            }
        }
    }
}

/// What is drawn.
#[derive(Debug)]
pub(super) struct Board<'a> {
    pub(super) view: &'a TopView,
    pub(super) history: &'a LastMinute,
    /// The row that keys are about.
    pub(super) selected: usize,
    /// The line below the table.
    pub(super) message: &'a str,
    pub(super) color: bool,
}

/// A part of a line in one style.
type Span = (String, Style);

impl Board<'_> {
    /// Returns lines that fill at most `columns` and `rows`; the selected one is among them.
    pub(super) fn lines(&self, columns: usize, rows: usize) -> Vec<String> {
        let table = self.table(columns);
        let (header, services) =
            table.split_first().map_or((None, &[][..]), |(first, rest)| (Some(first), rest));
        // The header, and the line below.
        let shown = rows.saturating_sub(2).max(1);
        let first = (self.selected + 1).saturating_sub(shown);
        let visible = header.into_iter().chain(services.iter().skip(first).take(shown));
        let mut lines: Vec<String> = visible.map(|spans| self.line(spans, columns)).collect();
        lines.truncate(rows.saturating_sub(1).max(1));
        if rows > 1 {
            lines.push(cells::cut(&printable(self.message).replace('\n', " "), columns).to_owned());
        }
        lines
    }

    /// Returns the table with sparklines, if they leave room for the last column.
    fn table(&self, columns: usize) -> Vec<Vec<Span>> {
        let with = self.rows(true);
        if width_before_last(&with) + MIN_LAST_CELLS <= columns {
            aligned(&with)
        } else {
            aligned(&self.rows(false))
        }
    }

    fn rows(&self, sparks: bool) -> Vec<[Span; COLUMNS]> {
        let header = HEADER.map(|name| (name.to_owned(), Style::new().bold()));
        let of_service = self.view.services.iter().enumerate().map(|(index, service)| {
            let mut row = cells_of(service).map(|cell| (one_line(&cell), Style::new()));
            if index == self.selected {
                row[0].1 = Style::new().invert();
            }
            if service.gpu_percent.is_some_and(|percent| percent < 100) {
                row[4].1 = AnsiColor::Red.on_default().bold();
            }
            if let Some(samples) = self.history.0.get(&service.name).filter(|_| sparks) {
                row[3].0 = format!("{:7} {}", row[3].0, sparkline(&samples.memory));
                row[6].0 = format!("{:5} {}", row[6].0, sparkline(&samples.speed));
            }
            row
        });
        [header].into_iter().chain(of_service).collect()
    }

    /// Returns the spans as one line of at most so many cells.
    fn line(&self, spans: &[Span], columns: usize) -> String {
        let (mut line, mut left) = (String::new(), columns);
        for (text, style) in spans {
            let text = cells::cut(text, left);
            left -= cells::width(text);
            if self.color && *style != Style::new() {
                line.extend([&style.render().to_string(), text, &style.render_reset().to_string()]);
            } else {
                line.push_str(text);
            }
        }
        line
    }
}

/// Returns the text of each column.
fn cells_of(service: &TopService) -> [String; COLUMNS] {
    let known = |fact: Option<String>| fact.unwrap_or_else(unknown);
    let models = service.models.as_ref().filter(|models| !models.is_empty());
    let models = models.map(|models| models.iter().map(|model| short(model)).collect::<Vec<_>>().join(", "));
    [
        service.name.to_string(),
        known(models),
        service.state.map_or("unknown", |state| state.word()).to_owned(),
        known(service.memory_bytes.map(bytes)),
        known(service.gpu_percent.map(|percent| format!("{percent}%"))),
        known(service.context_used.map(|used| {
            let size = service.context.map(|size| format!("/{}", tokens(size))).unwrap_or_default();
            tokens(used) + &size
        })),
        known(service.tokens_per_second.map(|speed| format!("{speed:.1}"))),
        known(service.first_token_ms.map(milliseconds)),
        known(service.idle_left_s.map(|seconds| duration(Duration::from_secs(seconds)))),
        known(service.last_error.clone()),
    ]
}

fn milliseconds(time: f64) -> String {
    if time < 1000.0 { format!("{time:.0} ms") } else { format!("{:.1} s", time / 1000.0) }
}

/// Returns the last part of a path, and of a long name its beginning and its end.
fn short(model: &str) -> String {
    let name = if model.starts_with('/') { model.rsplit('/').next().unwrap_or(model) } else { model };
    if cells::width(name) <= MAX_MODEL_CELLS {
        return name.to_owned();
    }
    let half = MAX_MODEL_CELLS / 2;
    let start = name.char_indices().rev().nth(half - 1).map_or(0, |(start, _)| start);
    format!("{}…{}", cells::cut(name, half - 1), &name[start..])
}

fn one_line(text: &str) -> String {
    printable(text).replace(['\n', '\t'], " ")
}

/// Returns a line of blocks, the newest at the right; a block is as high as the highest of its moments.
fn sparkline(samples: &VecDeque<f64>) -> String {
    let highest = samples.iter().copied().fold(0.0, f64::max);
    let samples: Vec<f64> = samples.iter().copied().collect();
    let blocks = samples.rchunks(MOMENTS / SPARK_CELLS).map(|moments| {
        let value = moments.iter().copied().fold(0.0, f64::max);
        let height =
            SPARKS.iter().zip(1_u8..).find(|(_, number)| value * 8.0 <= highest * f64::from(*number));
        if highest > 0.0 { height.map_or('█', |(block, _)| *block) } else { ' ' }
    });
    let blocks: Vec<char> = blocks.collect();
    let missing = SPARK_CELLS.saturating_sub(blocks.len());
    std::iter::repeat_n(' ', missing).chain(blocks.into_iter().rev()).collect()
}

fn widths(rows: &[[Span; COLUMNS]]) -> [usize; COLUMNS] {
    std::array::from_fn(|column| {
        rows.iter().map(|row| cells::width(&row[column].0)).max().unwrap_or_default()
    })
}

fn width_before_last(rows: &[[Span; COLUMNS]]) -> usize {
    widths(rows)[..COLUMNS - 1].iter().map(|width| width + 2).sum()
}

/// Returns the rows with spaces between their cells.
fn aligned(rows: &[[Span; COLUMNS]]) -> Vec<Vec<Span>> {
    let widths = widths(rows);
    let spans = |row: &[Span; COLUMNS]| {
        let cells = row.iter().zip(widths).enumerate();
        cells
            .flat_map(|(column, (span, width))| {
                let gap = if column + 1 < COLUMNS { width + 2 - cells::width(&span.0) } else { 0 };
                [span.clone(), (" ".repeat(gap), Style::new())]
            })
            .collect()
    };
    rows.iter().map(spans).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::services::State;

    fn view(services: Vec<TopService>) -> TopView {
        TopView { at: std::time::SystemTime::UNIX_EPOCH.into(), services }
    }

    fn busy() -> TopService {
        TopService {
            name: "ollama".into(),
            state: Some(State::Ready),
            models: Some(vec!["qwen2.5:7b".to_owned(), "/models/a/tiny".to_owned()]),
            memory_bytes: Some(5_100_000_000),
            gpu_percent: Some(71),
            context: Some(32_768),
            last_error: Some("HTTP 503\tto /health\u{1b}[31m".to_owned()),
            in_flight: Some(1),
            context_used: Some(4_100),
            tokens_per_second: Some(23.45),
            first_token_ms: Some(1234.0),
            idle_left_s: Some(125),
        }
    }

    fn stopped() -> TopService {
        TopService { name: "mlx".into(), state: Some(State::Stopped), ..TopService::default() }
    }

    fn drawn(
        services: Vec<TopService>,
        selected: usize,
        (columns, rows): (usize, usize),
        color: bool,
    ) -> Vec<String> {
        let (view, mut history) = (view(services), LastMinute::default());
        history.add(&view);
        let board = Board { view: &view, history: &history, selected, message: "q quit", color };
        board.lines(columns, rows)
    }

    #[test]
    fn every_column_has_its_fact() {
        insta::assert_snapshot!(drawn(vec![busy(), stopped()], 1, (140, 24), false).join("\n"), @"
        SERVICE  MODEL             STATE    MEMORY              GPU  CONTEXT  TOK/S             TTFT   IDLE   LAST
        ollama   qwen2.5:7b, tiny  ready    5.1 GB           █  71%  4k/32k   23.4           █  1.2 s  2m 5s  HTTP 503 to /health
        mlx      -                 stopped  -                   -    -        -                 -      -      -
        q quit
        ");
    }

    #[test]
    fn sparklines_need_room() {
        insta::assert_snapshot!(drawn(vec![busy(), stopped()], 0, (100, 24), false).join("\n"), @"
        SERVICE  MODEL             STATE    MEMORY  GPU  CONTEXT  TOK/S  TTFT   IDLE   LAST
        ollama   qwen2.5:7b, tiny  ready    5.1 GB  71%  4k/32k   23.4   1.2 s  2m 5s  HTTP 503 to /health
        mlx      -                 stopped  -       -    -        -      -      -      -
        q quit
        ");
    }

    #[test]
    fn a_narrow_screen_cuts_lines() {
        insta::assert_snapshot!(drawn(vec![busy(), stopped()], 0, (20, 24), false).join("\n"), @"
        SERVICE  MODEL      
        ollama   qwen2.5:7b,
        mlx      -          
        q quit
        ");
        for (columns, rows) in [(1, 1), (2, 2), (20, 1), (20, 3)] {
            let lines = drawn(vec![busy(), stopped()], 1, (columns, rows), false);
            assert!(
                lines.len() <= rows && lines.iter().all(|line| cells::width(line) <= columns),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn a_share_on_the_cpu_is_red() {
        let lines = drawn(vec![busy()], 0, (140, 24), true);
        assert!(lines[1].contains("\u{1b}[1m\u{1b}[31m71%"), "{lines:?}");
        assert!(lines[1].starts_with("\u{1b}[7mollama"), "{lines:?}");
    }

    #[test]
    fn the_selected_of_many_is_visible() {
        let many: Vec<TopService> = (0..300)
            .map(|number| TopService { name: format!("s{number}").into(), ..TopService::default() })
            .collect();
        for selected in [0, 5, 150, 299] {
            let lines = drawn(many.clone(), selected, (80, 10), false);
            assert_eq!(lines.len(), 10);
            assert!(
                lines.iter().any(|line| line.split(' ').next() == Some(&format!("s{selected}"))),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn a_sparkline_shows_the_last_minute() {
        let line = |samples: &[f64]| sparkline(&samples.iter().copied().collect());
        assert_eq!(line(&[]), "          ");
        assert_eq!(line(&[0.0; 60]), "          ");
        assert_eq!(line(&[1.0; 6]), "         █");
        let rising: Vec<f64> = (1..=60).map(f64::from).collect();
        assert_eq!(line(&rising), "▁▂▃▄▄▅▆▇██");
        let once = [[8.0].as_slice(), &[1.0; 59]].concat();
        assert_eq!(line(&once), "█▁▁▁▁▁▁▁▁▁");
    }

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(short("/home/me/models/tiny"), "tiny");
        assert_eq!(short("mlx-community/Llama-3.2-3B-Instruct-4bit"), "mlx-community/…B-Instruct-4bit");
    }
}

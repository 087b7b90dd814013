//! `fusion top`.

mod board;

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use self::board::{Board, LastMinute};
use crate::app::top::{TopService, TopView};
use crate::app::{App, Named, UpRequest};
use crate::cli::commands::several::SelectionArgs;
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::terminal::screen::{KeyPress, Screen};
use crate::cli::terminal::signals;
use crate::cli::terminal::ui::printable;
use crate::core::logs;
use crate::core::services::{DownOptions, ManagedService};

/// Watch the services, and start and stop them by keys
///
/// Shows state, loaded model, memory, and how much of the model is on the GPU, once a second. While the gateway runs,
/// also how full the context of the last request is, tokens per second, time to the first token, and the time until
/// an idle service is stopped. Sparklines show the last minute where the screen is wide enough.
///
/// Keys: q quits, the arrows or j and k choose a service, u starts it, d stops it, x unloads its models, l shows its
/// log.
#[derive(Debug, clap::Args)]
#[command(
    before_long_help = "Examples:\n  fusion top\n  fusion top --tag code\n  fusion top --json | jq .services[0].memory_bytes\n"
)]
pub struct TopArgs {
    #[command(flatten)]
    which: SelectionArgs,
    /// Print one line of JSON each second until interrupted
    #[arg(long)]
    json: bool,
}

/// How often the services are observed.
const INTERVAL: Duration = Duration::from_secs(1);

const HELP: &str = "q quit  j/k choose  u up  d down  x unload  l log";

/// Runs the command.
pub fn run(context: &Context, args: &TopArgs) -> Result<Exit, Failure> {
    if !args.json {
        check_terminal(context)?;
    }
    let app = context.silent_app()?;
    let selection = args.which.selection();
    let mut services = app.select(&selection)?;
    services.extend(app.recorded_gateway().filter(|_| selection.is_empty()));
    if args.json { print_json(context, &app, &services) } else { watch(context, &app, &services) }
}

fn check_terminal(context: &Context) -> Result<(), Failure> {
    if context.environment.terminal_is_dumb {
        return Err(Failure::new(Exit::Usage, "top needs a terminal that can be drawn on, and TERM is dumb")
            .hint("append the state each second: fusion ps --watch"));
    }
    if !(context.ui.stdout_is_terminal && context.environment.stdin_is_terminal) {
        return Err(Failure::new(Exit::Usage, "top needs a terminal")
            .hint("print the state once: fusion ps --json; or a line each second: fusion top --json"));
    }
    Ok(())
}

/// Prints a line each second until a signal ends fusion or the reader is gone.
fn print_json(context: &Context, app: &App, services: &[&ManagedService]) -> Result<Exit, Failure> {
    loop {
        let begin = Instant::now();
        context.ui.json_line(&app.top(services, &context.cancel))?;
        thread::sleep(INTERVAL.saturating_sub(begin.elapsed()));
    }
}

/// What a key starts; it returns what became of it.
type Work<'scope> = Box<dyn FnOnce() -> Result<String, Failure> + Send + 'scope>;

/// What the screen waits for besides keys.
enum TopNews {
    Observed(TopView),
    /// What a key has started is done; what became of it in words.
    Done(String),
}

type NewsQueue = Mutex<Vec<TopNews>>;

fn take(news: &NewsQueue) -> Vec<TopNews> {
    std::mem::take(&mut *news.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Leaves news, and wakes the screen.
struct Teller<'env> {
    news: &'env NewsQueue,
    wake: PipeWriter,
}

impl Teller<'_> {
    fn tell(&self, news: TopNews) {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).push(news);
        // The screen is gone only when `top` ends.
        let _ = (&self.wake).write_all(b".");
    }

    fn another(&self) -> io::Result<Self> {
        Ok(Self { news: self.news, wake: self.wake.try_clone()? })
    }
}

fn watch(context: &Context, app: &App, services: &[&ManagedService]) -> Result<Exit, Failure> {
    let failed = |error: io::Error| Failure::of(Exit::Failed, &error).about("cannot use the terminal");
    signals::clean_terminal_on_panic();
    let _cancelled = context.cancel_on_signal();
    let (news, is_over) = (NewsQueue::default(), AtomicBool::new(false));
    let (woken, wake) = io::pipe().map_err(failed)?;
    let teller = Teller { news: &news, wake };
    let observer = teller.another().map_err(failed)?;
    let ended = thread::scope(|scope| {
        let observing = scope.spawn(|| observe(context, app, services, &observer, &is_over));
        let ended = Screen::open(context.ui.output()).and_then(|screen| {
            let mut top = Top {
                context,
                app,
                services,
                scope,
                teller,
                view: None,
                history: LastMinute::default(),
                selected: 0,
                mode: Mode::Table,
                message: HELP.to_owned(),
                running: 0,
            };
            top.run(screen, woken)
        });
        is_over.store(true, Ordering::Relaxed);
        observing.thread().unpark();
        ended
    });
    ended.map_err(failed)?;
    if context.cancel.is_cancelled() { Err(Failure::new(Exit::Interrupted, "")) } else { Ok(Exit::Done) }
}

/// Observes the services each second until `is_over` is set and the thread is woken.
fn observe(
    context: &Context,
    app: &App,
    services: &[&ManagedService],
    teller: &Teller<'_>,
    is_over: &AtomicBool,
) {
    let mut next = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        let left = next.saturating_duration_since(Instant::now());
        if left.is_zero() {
            next = Instant::now() + INTERVAL;
            teller.tell(TopNews::Observed(app.top(services, &context.cancel)));
        } else {
            thread::park_timeout(left);
        }
    }
}

/// What the screen shows.
#[derive(Debug, PartialEq, Eq)]
enum Mode {
    Table,
    /// The question whether this service is to be stopped.
    AskDown(Arc<str>),
    /// The log of a service.
    Log(Arc<str>),
    /// What was started is waited for.
    Leaving,
}

/// The state of a running `top`.
struct Top<'scope, 'env> {
    context: &'env Context,
    app: &'env App,
    services: &'env [&'env ManagedService],
    scope: &'scope thread::Scope<'scope, 'env>,
    teller: Teller<'env>,
    view: Option<TopView>,
    history: LastMinute,
    selected: usize,
    mode: Mode,
    message: String,
    /// How many starts and stops are not done.
    running: usize,
}

impl Top<'_, '_> {
    /// Draws and reads keys until the user quits or a signal comes.
    fn run(&mut self, mut screen: Screen, mut woken: PipeReader) -> io::Result<()> {
        loop {
            // A wait that is not cancelled ends with all that was started.
            if self.context.cancel.is_cancelled() || (self.mode == Mode::Leaving && self.running == 0) {
                return Ok(());
            }
            let (columns, rows) = screen.size();
            screen.draw(self.lines(columns, rows))?;
            for key in screen.wait(woken.as_fd())? {
                self.press(key);
            }
            for news in take(self.teller.news) {
                // One byte for each.
                woken.read_exact(&mut [0])?;
                match news {
                    TopNews::Observed(view) => {
                        self.history.add(&view);
                        self.view = Some(view);
                    }
                    TopNews::Done(message) => {
                        self.running -= 1;
                        self.message = message;
                    }
                }
            }
        }
    }

    fn lines(&self, columns: usize, rows: usize) -> Vec<String> {
        if let Mode::Log(name) = &self.mode {
            return self.log(name, columns, rows);
        }
        let Some(view) = &self.view else { return Vec::new() };
        let message = match &self.mode {
            Mode::AskDown(name) => format!("stop {name}? y or n"),
            Mode::Leaving => "waiting for what was started; Ctrl-C cancels it".to_owned(),
            Mode::Table | Mode::Log(_) => self.message.clone(),
        };
        let (history, selected, color) = (&self.history, self.selected, self.context.ui.stdout_color);
        Board { view, history, selected, message: &message, color }.lines(columns, rows)
    }

    /// Returns the end of a log, and how to leave it.
    fn log(&self, name: &str, columns: usize, rows: usize) -> Vec<String> {
        let service = self.services.iter().find(|service| *service.name == *name);
        let shown = rows.saturating_sub(1);
        let text =
            service.map(|service| logs::tail_text(&service.files.log, shown as u64).unwrap_or_default());
        let text = printable(&text.unwrap_or_default()).replace('\t', " ");
        let lines: Vec<&str> = text.lines().collect();
        let visible = lines.iter().skip(lines.len().saturating_sub(shown));
        let below = format!("the log of {name}; any key returns");
        let cut = |line: &str| crate::cli::terminal::cells::cut(line, columns).to_owned();
        visible.copied().map(cut).chain([cut(&below)]).collect()
    }

    fn press(&mut self, key: KeyPress) {
        if key == KeyPress::Gone {
            self.mode = Mode::Leaving;
            return;
        }
        match std::mem::replace(&mut self.mode, Mode::Table) {
            Mode::Leaving => self.mode = Mode::Leaving,
            Mode::Log(_) => {}
            Mode::AskDown(name) => {
                if matches!(key, KeyPress::Char('y' | 'Y')) {
                    self.down(&name);
                }
            }
            Mode::Table => self.act(key),
        }
    }

    /// Does what a key means while the table is shown.
    fn act(&mut self, key: KeyPress) {
        HELP.clone_into(&mut self.message);
        let last = self.services.len().saturating_sub(1);
        match key {
            KeyPress::Char('q') | KeyPress::Escape => self.mode = Mode::Leaving,
            KeyPress::Up | KeyPress::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyPress::Down | KeyPress::Char('j') => self.selected = (self.selected + 1).min(last),
            _ => {}
        }
        let (KeyPress::Char(letter), Some(service)) = (key, self.services.get(self.selected)) else { return };
        let name = Arc::clone(&service.name);
        match letter {
            'd' => self.mode = Mode::AskDown(name),
            'l' => self.mode = Mode::Log(name),
            'u' => self.up(service),
            'x' => self.unload(service),
            _ => {}
        }
    }

    fn up(&mut self, service: &'_ ManagedService) {
        let Some(service) = self.known(&service.name) else { return };
        let (app, context) = (self.app, self.context);
        let work = move || {
            let up = app.up(service, &UpRequest::default(), &context.cancel)?;
            Ok(format!("{} is up at {}", service.name, up.endpoint.address.url()))
        };
        self.start(format!("starting {}", service.name), Box::new(work));
    }

    fn down(&mut self, name: &str) {
        let Some(service) = self.known(name) else { return };
        let (app, context) = (self.app, self.context);
        let work = move || {
            app.manager(&context.cancel).down(service, &DownOptions::default())?;
            Ok(format!("{} is down", service.name))
        };
        self.start(format!("stopping {name}"), Box::new(work));
    }

    /// Unloads every model of the service.
    fn unload(&mut self, service: &ManagedService) {
        let Some(service) = self.known(&service.name) else { return };
        let row = |row: &&TopService| row.name == service.name;
        let rows = self.view.as_ref().map_or(&[][..], |view| &view.services);
        let loaded = rows.iter().find(row).and_then(|row| row.models.clone()).unwrap_or_default();
        if loaded.is_empty() {
            self.message = format!("{} has no model loaded", service.name);
            return;
        }
        let (app, context) = (self.app, self.context);
        let names = loaded.join(", ");
        let message = format!("unloading {names}");
        let work = move || {
            let models = app.models(service, &context.cancel)?;
            for name in &loaded {
                models.unload(&Named::resolved(name))?;
            }
            Ok(format!("{} has unloaded {names}", service.name))
        };
        self.start(message, Box::new(work));
    }
}

impl<'scope, 'env> Top<'scope, 'env> {
    fn known(&self, name: &str) -> Option<&'env ManagedService> {
        self.services.iter().copied().find(|service| *service.name == *name)
    }

    /// Does the work beside the screen, and tells what became of it.
    fn start(&mut self, message: String, work: Work<'scope>) {
        let Ok(teller) = self.teller.another() else {
            "the system has no descriptor left".clone_into(&mut self.message);
            return;
        };
        self.message = message;
        self.running += 1;
        self.scope.spawn(move || {
            teller.tell(TopNews::Done(work().unwrap_or_else(|failure| in_words(&failure))));
        });
    }
}

/// Returns a failure on one line.
fn in_words(failure: &Failure) -> String {
    let facts = failure.facts(": ");
    match &failure.hint {
        Some(hint) => format!("{facts}; {hint}"),
        None => facts,
    }
}

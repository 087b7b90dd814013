//! `fusion <service> run`: one prompt, the answer on stdout.

mod files;
mod prompt;
mod report;
mod schema;
mod sink;
mod stdin;

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use nix::poll::PollTimeout;
use serde_json::Value;

use self::report::{Report, Timing};
use self::schema::Schema;
use self::sink::{Sink, Wishes};
use crate::app::{App, Overrides, Permissions, Question, RESERVED_FIELDS, Request};
use crate::cli::commands::install::installed;
use crate::cli::context::Context;
use crate::cli::error::{Asked, Failure};
use crate::cli::exit::Exit;
use crate::cli::terminal::signals;
use crate::cli::terminal::waiting::{FRAME_INTERVAL, Waiting};
use crate::cli::units::seconds_from;
use crate::core::api::chat::{Answer, ChatError, ChatOutcome};
use crate::core::api::error::clean;
use crate::core::api::idle_timeout::IdleTimeout;
use crate::core::config::{Config, Reasoning, SavedPrompt};
use crate::core::services::ManagedService;

/// Ask a model, and print its answer
///
/// The words of PROMPT are joined by spaces. Without them, or with `-`, the prompt is read from standard input; with
/// them, a pipe or file on standard input is appended.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools)] // Independent switches.
pub struct Args {
    /// What to ask
    #[arg(value_name = "PROMPT")]
    prompt: Vec<String>,
    /// The model, instead of the configured one
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// The sampling temperature, 0 to 2
    #[arg(short, long, value_name = "NUMBER", value_parser = number_up_to::<2>, allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// The system message; empty sends none
    #[arg(short, long, value_name = "TEXT")]
    system: Option<String>,
    /// The most tokens of the answer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// Nucleus sampling, 0 to 1
    #[arg(long, value_name = "NUMBER", value_parser = number_up_to::<1>, allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// The sampling seed
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// A text that ends the answer (repeatable)
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Print the answer as it is made
    #[arg(long, overrides_with = "no_stream")]
    stream: bool,
    /// Print the answer when it is complete
    #[arg(long)]
    no_stream: bool,
    /// A text file, quoted with its name, or an image (repeatable)
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A prompt of the configuration: [prompts.NAME]
    #[arg(long = "prompt", value_name = "NAME")]
    saved: Option<String>,
    /// Print one JSON object: text, reasoning, finish reason, usage, timing
    #[arg(long)]
    json: bool,
    /// Ask for JSON that satisfies the JSON Schema in FILE, and check that it does
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// What happens to the model's reasoning: show (on stderr) or hide
    #[arg(long, value_name = "WHAT", value_enum, hide_possible_values = true)]
    reasoning: Option<Reasoning>,
    /// Give up after so many seconds without a byte [default: `timeout` of the configuration]
    #[arg(long, value_name = "SECONDS", value_parser = seconds_from::<1>)]
    timeout: Option<Duration>,
    /// Do not start the runtime when it is not running
    #[arg(long)]
    no_up: bool,
    /// If its program is missing when it is to be started, install that first, without asking
    #[arg(long, conflicts_with = "no_up")]
    install: bool,
    /// Leave standard input alone
    #[arg(long)]
    no_stdin: bool,
    /// Fail (exit code 9) when the answer was cut at the token limit
    #[arg(long)]
    strict: bool,
    /// Any other field of the request; VALUE is JSON, or else text (repeatable)
    #[arg(short = 'o', value_name = "KEY=VALUE", value_parser = parse_field)]
    options: Vec<(String, Value)>,
    /// Print the request as JSON, and send nothing
    #[arg(long)]
    dry_run: bool,
}

/// How the command is used, for the help of one runtime.
pub fn examples(runtime: &str) -> String {
    format!(
        "Examples:\n  \
         fusion {runtime} run \"Why is the sky blue?\"\n  \
         git diff | fusion {runtime} run \"Write a commit message\"\n  \
         fusion {runtime} run -f notes.md -f photo.png \"Summarise\"\n  \
         fusion {runtime} run -t 0 --json \"Name a prime\" | jq -r .text\n  \
         fusion {runtime} run --schema person.json -o top_k=20 \"Who are you?\"\n"
    )
}

impl Args {
    fn streams(&self) -> Option<bool> {
        (self.stream || self.no_stream).then_some(self.stream)
    }
}

fn number_up_to<const LIMIT: u8>(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=f64::from(LIMIT)).contains(&number) => Ok(number),
        _ => Err(format!("expected a number from 0 to {LIMIT}")),
    }
}

impl ValueEnum for Reasoning {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

/// Runs the command.
pub fn run(context: &Context, app: &App, service: &ManagedService, args: &Args) -> Result<Exit, Failure> {
    let task = Task::prepare(context, app, service, args)?;
    if args.dry_run {
        context.ui.json(&task.request.body)?;
        return Ok(Exit::Done);
    }
    signals::clean_terminal_on_death();
    let answered = task.ask()?;
    task.conclude(answered)
}

/// A prompt with everything that decides how it is sent and what becomes of the answer.
struct Task<'a> {
    context: &'a Context,
    app: &'a App,
    service: &'a ManagedService,
    args: &'a Args,
    question: Question,
    request: Request,
    schema: Option<Schema>,
    reasoning: Reasoning,
    idle_timeout: Duration,
}

impl<'a> Task<'a> {
    fn prepare(
        context: &'a Context,
        app: &'a App,
        service: &'a ManagedService,
        args: &'a Args,
    ) -> Result<Self, Failure> {
        let settings = &service.settings.run;
        let saved = args.saved.as_deref().map(|name| saved_prompt(&app.config, name)).transpose()?;
        let schema = args.schema.as_deref().map(|path| Schema::read(context, path)).transpose()?;
        let question = prompt::gather(context, args, saved)?;
        let overrides = Overrides {
            model: args.model.as_deref(),
            system: args.system.as_deref(),
            temperature: args.temperature,
            max_tokens: args.max_tokens,
            top_p: args.top_p,
            seed: args.seed,
            stop: &args.stop,
            schema: schema.as_ref().map(Schema::value),
            fields: &args.options,
        };
        let request = app.request(service, &question, saved, &overrides);
        if request.model.name.is_empty() {
            return Err(Failure::new(Exit::Usage, "no model is given").hint("name one with --model"));
        }
        let reasoning = args.reasoning.unwrap_or(settings.reasoning);
        let idle_timeout = args.timeout.unwrap_or(settings.timeout);
        Ok(Self { context, app, service, args, question, request, schema, reasoning, idle_timeout })
    }

    /// Sends it, and prints the answer.
    fn ask(&self) -> Result<Answered, Failure> {
        let (context, args) = (self.context, self.args);
        let ui = &context.ui;
        let waiting = Waiting::new(ui, self.service.template.display_name());
        let idle_timeout = IdleTimeout::new(self.idle_timeout, FRAME_INTERVAL, {
            let (waiting, cancel, output) = (waiting.clone(), context.cancel.clone(), ui.output().clone());
            move || {
                waiting.tick();
                let is_over = cancel.is_cancelled() || output.reader_is_gone(PollTimeout::ZERO);
                if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }
        });
        let wishes = Wishes {
            print_text: !args.json,
            print_as_made: args.streams().unwrap_or(self.service.settings.run.stream),
            // What was asked for on the command line is not silenced.
            print_reasoning: self.reasoning == Reasoning::Show && (!ui.quiet || args.reasoning.is_some()),
            keep_text: args.json || self.schema.is_some(),
            keep_reasoning: args.json,
        };
        let mut sink = Sink::new(ui, waiting, context.cancel.clone(), wishes);
        let mut outcome = self.send(&idle_timeout, &mut sink)?;
        // Nothing listens, so nothing was sent: now, and only now, it is worth a closer look.
        if outcome.is_unsent() && self.start()? {
            outcome = self.send(&idle_timeout, &mut sink)?;
        }
        let ChatOutcome { answer, result, finished } = outcome;
        let total = finished.map_or_else(|| sink.elapsed(), |then| then.duration_since(sink.begun));
        let written = sink.finish();
        if let Err(ChatError::Receiver(error)) = &result
            && !context.cancel.is_cancelled()
        {
            return Err(Failure::output(error));
        }
        written.map_err(|error| Failure::output(&error))?;
        if result.is_err() && ui.output().reader_is_gone(PollTimeout::ZERO) {
            return Err(Failure::output(&io::ErrorKind::BrokenPipe.into()));
        }
        Ok(Answered { answer, result, sink, total })
    }

    fn send(&self, idle_timeout: &IdleTimeout, sink: &mut Sink) -> Result<ChatOutcome, Failure> {
        Ok(self.app.prompt(self.service, &self.request, idle_timeout, sink, &self.context.cancel)?)
    }

    /// Starts the service, if it may be; returns whether it was not running.
    fn start(&self) -> Result<bool, Failure> {
        installed(self.context, self.app, self.service, |install| {
            let install = install || self.args.install;
            let permissions = Permissions { start_on_demand: !self.args.no_up, install };
            let model = &self.request.model;
            self.app.start_for_prompt(self.service, model, permissions, &self.context.cancel)
        })
    }

    /// Tells what is to be told of the answer besides its text.
    fn conclude(&self, answered: Answered) -> Result<Exit, Failure> {
        let Answered { answer, result, sink, total } = answered;
        let ui = &self.context.ui;
        let model = &self.request.model.name;
        let timing = Timing::new(sink.first_piece, total, &answer);
        if self.args.json && (result.is_ok() || sink.first_piece.is_some()) {
            ui.json_line(&Report::new(self.service, model, &sink, &answer, timing))?;
        }
        if self.context.cancel.is_cancelled() {
            return Err(Failure::new(Exit::Interrupted, ""));
        }
        let asked = Asked { service: self.service, model, idle_timeout: self.idle_timeout };
        result.map_err(|error| Failure::chat(&error, &asked))?;
        report::warn(ui, &answer, sink.has_text, &self.question.text);
        ui.detail(&timing.in_words(answer.usage));
        // What was cut can hardly satisfy a schema: why it does not is the better answer.
        if self.args.strict && answer.finish_reason.as_deref() == Some("length") {
            return Ok(Exit::Truncated);
        }
        self.check(&sink)?;
        Ok(Exit::Done)
    }

    /// Checks that the answer is what `--schema` asks for.
    fn check(&self, sink: &Sink) -> Result<(), Failure> {
        let (Some(schema), Some(text)) = (&self.schema, &sink.text) else { return Ok(()) };
        schema.check(text).map_err(|violation| {
            let violation = clean(&violation);
            Failure::new(Exit::RequestFailed, format!("the answer does not satisfy the schema: {violation}"))
        })
    }
}

/// What became of a prompt.
struct Answered {
    answer: Answer,
    result: Result<(), ChatError>,
    sink: Sink,
    /// How long it took.
    total: Duration,
}

fn saved_prompt<'a>(config: &'a Config, name: &str) -> Result<&'a SavedPrompt, Failure> {
    config.prompts.get(name).ok_or_else(|| {
        let names: Vec<&str> = config.prompts.keys().map(String::as_str).collect();
        let failure = Failure::new(Exit::Usage, format!("there is no prompt `{name}` in the configuration"));
        match names.as_slice() {
            [] => failure.hint(format!("add a table [prompts.{name}] with `fusion config edit`")),
            names => failure.hint(format!("there are: {}", names.join(", "))),
        }
    })
}

/// Reads `KEY=VALUE`, where VALUE is JSON if it is that, and else text.
fn parse_field(option: &str) -> Result<(String, Value), String> {
    match option.split_once('=') {
        Some(("model", _)) => Err("the model is named with --model".to_owned()),
        Some(("stream", _)) => {
            Err("the answer is always streamed; --stream and --no-stream say when it is printed".to_owned())
        }
        Some((key, _)) if RESERVED_FIELDS.contains(&key) => Err(format!("{key} are made of the prompt")),
        Some((key, value)) if !key.is_empty() => {
            Ok((key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::from(value))))
        }
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

//! `fusion <service> run`: sends one prompt and prints the answer on stdout.

pub(super) mod files;
mod input_wait;
pub(super) mod prompt;
pub(super) mod report;
pub(super) mod sink;
pub(super) mod stdin;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use nix::poll::PollTimeout;
use serde_json::Value;

use self::files::Attachment;
use self::sink::{Sink, SinkOptions};
use crate::app::views::{AnswerView, Timing};
use crate::app::{App, Notice, Overrides, Permissions, RESERVED_FIELDS, Request, Server};
use crate::cli::commands::install::installed;
use crate::cli::context::Context;
use crate::cli::error::{Asked, Failure, loaded_model_hint};
use crate::cli::exit::Exit;
use crate::cli::terminal::signals;
use crate::cli::terminal::waiting::Waiting;
use crate::cli::units::seconds_from;
use crate::core::api::chat::{Answer, Arrivals, ChatError, ChatOutcome};
use crate::core::api::idle_timeout::IdleTimeout;
use crate::core::config::{Config, Keyword as _, Reasoning, SavedPrompt};
use crate::core::numbers;
use crate::core::schema::Schema;
use crate::core::services::ManagedService;

/// Send a prompt to a model and print the answer
///
/// The words of PROMPT are joined by spaces. Without PROMPT, or with `-`, the prompt is read from standard input. With
/// PROMPT, a pipe or file on standard input is appended to it.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub struct RunArgs {
    /// Prompt for the model
    #[arg(value_name = "PROMPT")]
    prompt: Vec<String>,
    /// Model to use in place of the configured one: a name, an alias, or a directory
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// Sampling temperature, 0 to 2; 0 is greedy
    #[arg(short, long, value_name = "NUMBER", value_parser = number_up_to(2.0), allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// System message; an empty one is not sent
    #[arg(short, long, value_name = "TEXT")]
    system: Option<String>,
    /// Maximum number of tokens to generate
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// Nucleus sampling, 0 to 1
    #[arg(long, value_name = "NUMBER", value_parser = number_up_to(1.0), allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Seed for sampling
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Stop sequence: text that ends the answer (repeatable)
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Print the answer as it is generated
    #[arg(long, overrides_with = "no_stream")]
    stream: bool,
    /// Print the answer when it is complete
    #[arg(long)]
    no_stream: bool,
    /// Add a text file, quoted with its name, or an image (repeatable)
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Use a saved prompt: [prompts.NAME] in the configuration
    #[arg(long = "prompt", value_name = "NAME")]
    saved: Option<String>,
    /// Print one JSON object: text, reasoning, finish reason, usage, timing
    #[arg(long)]
    json: bool,
    /// Request JSON that satisfies the JSON Schema in FILE, and check the answer
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Show the reasoning of the model on stderr, or hide it: show, hide
    #[arg(long, value_name = "WHAT", value_parser = reasoning_words(), hide_possible_values = true)]
    reasoning: Option<String>,
    /// Idle timeout: seconds without data before the request fails [default: `timeout` in the configuration]
    #[arg(long, value_name = "SECONDS", value_parser = seconds_from(0.001))]
    timeout: Option<Duration>,
    /// Do not start the server if it is not running
    #[arg(long)]
    no_up: bool,
    /// Install the program without asking if it is missing and the server must be started
    #[arg(long, conflicts_with = "no_up")]
    install: bool,
    /// Do not read standard input
    #[arg(long)]
    no_stdin: bool,
    /// Fail with exit code 9 if the answer was cut at the token limit
    #[arg(long)]
    strict: bool,
    /// Load the model even if it needs more memory than the machine has
    #[arg(long)]
    force: bool,
    /// Set any other field of the request; VALUE is JSON, else text; null removes the field (repeatable)
    #[arg(short = 'o', value_name = "KEY=VALUE", value_parser = parse_field)]
    options: Vec<(String, Value)>,
    /// Print the request as JSON without sending it
    #[arg(long)]
    dry_run: bool,
}

/// The examples of the help; `SERVICE` is replaced by the name of the service.
pub const EXAMPLES: [&str; 5] = [
    "fusion SERVICE run \"Why is the sky blue?\"",
    "git diff | fusion SERVICE run \"Write a commit message\"",
    "fusion SERVICE run -f notes.md -f photo.png \"Summarise\"",
    "fusion SERVICE run -t 0 --json \"Name a prime\" | jq -r .text",
    "fusion SERVICE run --schema person.json -o top_k=20 \"Who are you?\"",
];

impl RunArgs {
    fn streams(&self) -> Option<bool> {
        (self.stream || self.no_stream).then_some(self.stream)
    }
}

/// Returns the parser of a number.
fn number_up_to(limit: f64) -> impl Fn(&str) -> Result<f64, String> + Clone {
    move |text| match numbers::parse_float(text) {
        Some(number) if (0.0..=limit).contains(&number) => Ok(number),
        _ => Err(format!("expected a number from 0 to {limit}")),
    }
}

fn reasoning_words() -> PossibleValuesParser {
    PossibleValuesParser::new(Reasoning::ALL.iter().map(|reasoning| reasoning.name()))
}

/// Runs the command.
pub fn run(context: &Context, app: &App, service: &ManagedService, args: &RunArgs) -> Result<Exit, Failure> {
    let task = Task::prepare(context, app, service, args)?;
    if args.dry_run {
        context.ui.json(&task.request.body)?;
        return Ok(Exit::Done);
    }
    signals::clean_terminal_on_death();
    let answered = task.ask()?;
    task.conclude(answered)
}

/// Runs the command without a service: the one that has the model answers.
pub fn run_any(context: &Context, app: &App, args: &RunArgs) -> Result<Exit, Failure> {
    let saved = args.saved.as_deref().map(|name| saved_prompt(&app.config, name)).transpose()?;
    let (service, _) = app.service_for(args.model.as_deref(), saved, &context.cancel)?;
    context.ui.detail(&format!("{} answers", service.name));
    run(context, app, service, args)
}

/// A prompt, with all that decides how it is sent and how the answer is printed.
struct Task<'a> {
    context: &'a Context,
    app: &'a App,
    service: &'a ManagedService,
    args: &'a RunArgs,
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
        args: &'a RunArgs,
    ) -> Result<Self, Failure> {
        let settings = &service.settings.run;
        let saved = args.saved.as_deref().map(|name| saved_prompt(&app.config, name)).transpose()?;
        let schema =
            args.schema.as_deref().map(|path| read_schema(context, path, args.timeout)).transpose()?;
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
        let mut request = app.request(service, &question, saved, &overrides);
        let is_given = args.model.is_some() || saved.is_some_and(|prompt| prompt.model.is_some());
        if request.model.name.is_empty() && !is_given {
            let only = app.only_model(service, &context.cancel)?;
            request =
                app.request(service, &question, saved, &Overrides { model: Some(&only.name), ..overrides });
        }
        if request.model.name.is_empty() {
            let what =
                if args.model.is_some() { "\"\" is not the name of a model" } else { "no model is set" };
            return Err(Failure::new(Exit::Usage, what).hint("choose one with --model MODEL"));
        }
        app.check_model_name(
            service,
            args.model.as_deref().unwrap_or(&request.model.name),
            &request.model.name,
        )?;
        app.check_model_settings(service, &request.model.name)?;
        let reasoning = args.reasoning.as_deref().and_then(Reasoning::named).unwrap_or(settings.reasoning);
        let idle_timeout = args.timeout.unwrap_or(settings.timeout);
        Ok(Self { context, app, service, args, request, schema, reasoning, idle_timeout })
    }

    /// Sends the request and prints the answer.
    fn ask(&self) -> Result<Answered, Failure> {
        let (context, args) = (self.context, self.args);
        let ui = &context.ui;
        let waiting = Waiting::new(ui, self.service.template.display_name());
        let idle_timeout = sink::observed(ui, self.idle_timeout, &waiting, &context.cancel);
        let options = SinkOptions {
            print_text: !args.json,
            print_as_generated: args.streams().unwrap_or(self.service.settings.run.stream),
            // --quiet does not override --reasoning.
            print_reasoning: self.reasoning == Reasoning::Show && (!ui.quiet || args.reasoning.is_some()),
            keep_text: args.json || self.schema.is_some(),
            keep_reasoning: args.json,
        };
        let mut sink = Sink::new(ui, waiting, context.cancel.clone(), options);
        report::tell(
            ui,
            self.service,
            &self.request.model.name,
            &App::ignored_fields(self.service, &self.request),
        );
        let mut sent = self.send(&idle_timeout, &mut sink)?;
        // Only now is the state of the service examined: a prompt to a running server costs no other request.
        if sent.outcome.is_unsent() && self.start()? {
            sent = self.send(&idle_timeout, &mut sink)?;
        }
        let SentPrompt { outcome, server, is_too_long } = sent;
        let ChatOutcome { answer, result, finished, arrivals } = outcome;
        let total = finished.map_or_else(|| sink.elapsed(), |then| then.duration_since(sink.started));
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
        Ok(Answered { answer, result, sink, total, arrivals, server, is_too_long })
    }

    /// Warns of what the server will not tell, and sends the request.
    fn send(&self, idle_timeout: &IdleTimeout, sink: &mut Sink) -> Result<SentPrompt, Failure> {
        let (app, service, request, cancel) = (self.app, self.service, &self.request, &self.context.cancel);
        let server = app.find_server(service, cancel)?;
        let notices = app.notices_before(service, &server, request, cancel);
        report::tell(&self.context.ui, service, &request.model.name, &notices);
        app.admit_prompt(service, &server, &request.model.name, self.args.force, cancel)?;
        let sent = app.prompt(service, &server, request, idle_timeout, sink, cancel).map_err(|error| {
            let is_missing = error.is_missing_model() && self.is_default_model();
            let loaded =
                is_missing.then(|| app.loaded_instead(service, &request.model.name, cancel)).flatten();
            let failure = Failure::from(error);
            match loaded {
                Some(loaded) => failure.hint(loaded_model_hint(service, &loaded)),
                None => failure,
            }
        });
        let is_too_long = notices.iter().any(|notice| matches!(notice, Notice::TooLong { .. }));
        Ok(SentPrompt { outcome: sent?, server, is_too_long })
    }

    /// Returns whether the model is that of the configuration.
    fn is_default_model(&self) -> bool {
        self.args.model.is_none() && self.args.saved.is_none()
    }

    /// Starts the service if that is permitted; returns whether it was not running.
    fn start(&self) -> Result<bool, Failure> {
        installed(self.context, self.app, self.service, |install| {
            let install = install || self.args.install;
            let permissions =
                Permissions { start_on_demand: !self.args.no_up, install, force: self.args.force };
            let model = &self.request.model;
            self.app.start_for_prompt(self.service, model, permissions, &self.context.cancel)
        })
    }

    /// Prints warnings and statistics, and returns the exit code.
    fn conclude(&self, answered: Answered) -> Result<Exit, Failure> {
        let Answered { answer, result, sink, total, arrivals, server, is_too_long } = answered;
        let (ui, cancel) = (&self.context.ui, &self.context.cancel);
        let model = &self.request.model.name;
        let named = answer.model.as_deref().unwrap_or(model);
        let timing = Timing::new(sink.first_delta, total, &answer, &arrivals);
        let has_json = self.args.json && (result.is_ok() || sink.first_delta.is_some());
        let context = has_json.then(|| server.context(self.service, model)).flatten();
        if has_json {
            ui.json_line(&AnswerView {
                text: sink.text.as_deref().unwrap_or_default(),
                reasoning: sink.reasoning.as_deref().unwrap_or_default(),
                ..AnswerView::new(self.service, named, &answer, timing, context)
            })?;
        }
        if self.context.cancel.is_cancelled() {
            return Err(Failure::new(Exit::Interrupted, ""));
        }
        let tell = || {
            let mut notices =
                self.app.notices_after(self.service, &server, &self.request, &answer, context, cancel);
            notices.retain(|notice| !(is_too_long && matches!(notice, Notice::Cut { .. })));
            report::tell(ui, self.service, model, &notices);
        };
        // A model without its template repeats itself often.
        if matches!(result, Err(ChatError::Repetition)) {
            tell();
        }
        result.map_err(|error| self.failure(&error, &server))?;
        report::warn_of_other_model(ui, self.app, self.service, model, &answer);
        report::warn(ui, &answer, sink.has_text, sink.has_reasoning);
        tell();
        ui.detail(&report::summary(&timing, answer.usage));
        // Before the schema: an answer that was cut cannot satisfy one, and the cut is the cause.
        if self.args.strict && answer.finish_reason.as_deref() == Some("length") {
            return Ok(Exit::Truncated);
        }
        self.check(&sink)?;
        Ok(Exit::Done)
    }

    fn failure(&self, error: &ChatError, server: &Server) -> Failure {
        let (service, request) = (self.service, &self.request);
        let mut diagnosis = self.app.diagnose(service, server, request, error, &self.context.cancel);
        diagnosis.loaded = diagnosis.loaded.filter(|_| self.is_default_model());
        let asked = Asked {
            service,
            model: &request.model.name,
            idle_timeout: self.idle_timeout,
            diagnosis: &diagnosis,
        };
        Failure::chat(error, &asked)
    }

    /// Checks the answer against the schema of `--schema`.
    fn check(&self, sink: &Sink) -> Result<(), Failure> {
        let (Some(schema), Some(text)) = (&self.schema, &sink.text) else { return Ok(()) };
        Ok(schema.check(text)?)
    }
}

/// The result of a prompt.
struct Answered {
    answer: Answer,
    result: Result<(), ChatError>,
    sink: Sink,
    /// From the request to the end of the answer.
    total: Duration,
    arrivals: Arrivals,
    server: Server,
    /// Whether it was told before that the prompt exceeds the context.
    is_too_long: bool,
}

/// A request that was sent.
struct SentPrompt {
    outcome: ChatOutcome,
    server: Server,
    is_too_long: bool,
}

/// Reads the schema of `--schema`.
fn read_schema(context: &Context, path: &Path, timeout: Option<Duration>) -> Result<Schema, Failure> {
    let name = path.display();
    match files::read(context, path, timeout)? {
        Attachment::Text(text) => Schema::parse(&text).map_err(|error| Failure::of_schema(&name, &error)),
        Attachment::Image(_) => Err(Failure::new(Exit::Usage, format!("the schema {name} is an image"))),
    }
}

fn saved_prompt<'a>(config: &'a Config, name: &str) -> Result<&'a SavedPrompt, Failure> {
    config.prompts.get(name).ok_or_else(|| {
        let names: Vec<&str> = config.prompts.keys().map(String::as_str).collect();
        let failure =
            Failure::new(Exit::Usage, format!("there is no saved prompt `{name}` in the configuration"));
        match names.as_slice() {
            [] => failure.hint(format!("add a table [prompts.{name}]: fusion config edit")),
            names => failure.hint(format!("saved prompts: {}", names.join(", "))),
        }
    })
}

/// Parses `KEY=VALUE`, where VALUE is JSON if it is valid JSON, else text.
pub(super) fn parse_field(option: &str) -> Result<(String, Value), String> {
    match option.split_once('=') {
        Some(("model", _)) => Err("use --model to choose the model".to_owned()),
        Some(("stream", _)) => {
            Err("the request is always streamed; use --stream or --no-stream to choose when the answer is printed".to_owned())
        }
        Some((key, _)) if RESERVED_FIELDS.contains(&key) => Err(format!("`{key}` is made from the prompt")),
        Some((key, value)) if !key.is_empty() => {
            Ok((key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::from(value))))
        }
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

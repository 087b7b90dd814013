//! `fusion <runtime> run`: one prompt, the answer on stdout.

mod files;
mod prompt;
mod report;
mod request;
mod schema;
mod server;
mod sink;
mod stdin;
mod waiting;

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde_json::Value;

use self::prompt::Question;
use self::report::{Report, Timing};
use self::request::Request;
use self::schema::Schema;
use self::server::Server;
use self::sink::{Sink, Wishes};
use self::waiting::Waiting;
use crate::cli::Context;
use crate::cli::error::{Asked, Exit, Failure};
use crate::cli::units::seconds_from;
use crate::core::address::Address;
use crate::core::aliases;
use crate::core::api::chat::{Answer, ChatError, Outcome};
use crate::core::api::error::clean;
use crate::core::api::silence::Silence;
use crate::core::api::{ApiError, Client};
use crate::core::config::{Config, Prompt, Reasoning};
use crate::core::models::Model;
use crate::core::process::signals;
use crate::core::runtimes::Runtime;

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
    kept: Option<String>,
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
    #[arg(short = 'o', value_name = "KEY=VALUE", value_parser = request::parse_option)]
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
pub fn run(context: &Context, runtime: &'static dyn Runtime, args: &Args) -> Result<Exit, Failure> {
    let config = context.config()?;
    let task = Task::prepare(context, runtime, args, &config)?;
    if args.dry_run {
        context.ui.json(&task.request.body)?;
        return Ok(Exit::Done);
    }
    signals::clean_terminal_on_death();
    let server = Server::find(context, &config, runtime)?;
    let mut asking = task.ask(&server)?;
    // Nobody listens, so nothing was sent: now, and only now, it is worth looking closer.
    if matches!(asking.result, Err(ChatError::Api(ApiError::Connect { .. })))
        && server.start(&task.model.name, task.auto_up, args.install)?
    {
        // Which may have been starting with another model.
        asking = task.ask(&Server::find(context, &config, runtime)?)?;
    }
    task.conclude(asking)
}

/// A prompt with everything that decides how it is sent and what becomes of the answer.
struct Task<'a> {
    context: &'a Context,
    args: &'a Args,
    runtime: &'static dyn Runtime,
    model: Model,
    /// Whether the runtime may be started for it.
    auto_up: bool,
    /// The user's part of the prompt.
    question: Question,
    request: Request,
    schema: Option<Schema>,
    reasoning: Reasoning,
    /// How long the server may be silent.
    silence: Duration,
}

impl<'a> Task<'a> {
    fn prepare(
        context: &'a Context,
        runtime: &'static dyn Runtime,
        args: &'a Args,
        config: &Config,
    ) -> Result<Self, Failure> {
        let settings = &config.runtime(runtime).run;
        let kept = args.kept.as_deref().map(|name| kept_prompt(config, name)).transpose()?;
        let schema = args.schema.as_deref().map(|path| Schema::read(&context.ui, path)).transpose()?;
        let question = Question::gather(context, args, kept)?;
        let configured = kept.and_then(|prompt| prompt.model.as_ref()).unwrap_or(&settings.model);
        if args.model.as_ref().unwrap_or(configured).is_empty() {
            return Err(Failure::new(Exit::Usage, "no model is given").hint("name one with --model"));
        }
        let model = if let Some(model) = &args.model {
            context.model(config, runtime, model)
        } else {
            let places = context.places(config, runtime).of_configuration();
            aliases::resolve(runtime, config, configured, &places)
        };
        let system = args.system.as_ref().or(kept.and_then(|prompt| prompt.system.as_ref()));
        let messages = question.messages(system.unwrap_or(&settings.system_prompt));
        let wanted = schema.as_ref().map(Schema::value);
        let request = request::request(runtime, settings, kept, args, &model.name, messages, wanted);
        let reasoning = args.reasoning.unwrap_or(settings.reasoning);
        let silence = args.timeout.unwrap_or(settings.timeout);
        let auto_up = settings.start_on_demand && !args.no_up;
        Ok(Self { context, args, runtime, model, auto_up, question, request, schema, reasoning, silence })
    }

    /// Sends it, unless this server is not to be asked, and has the answer printed.
    fn ask(&self, server: &Server<'_>) -> Result<Asking, Failure> {
        let swaps_models = server.expect_model(&self.model)?;
        let asking = self.send(&server.address)?;
        if swaps_models && asking.result.is_err() && asking.sink.first_piece.is_none() {
            server.take_back()?;
        }
        Ok(asking)
    }

    fn send(&self, address: &Address) -> Result<Asking, Failure> {
        let ui = &self.context.ui;
        let waiting = Waiting::new(ui, self.runtime.title());
        let silence = Silence::new(self.silence, waiting::FRAME, {
            let waiting = waiting.clone();
            move || {
                waiting.tick();
                let is_over = signals::pending().is_some() || sink::reader_is_gone();
                if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }
        });
        let wishes = Wishes {
            print_text: !self.args.json,
            print_as_made: self.request.prints_as_made,
            // What was asked for on the command line is not silenced.
            print_reasoning: self.reasoning == Reasoning::Show
                && (!ui.quiet || self.args.reasoning.is_some()),
            keep_text: self.args.json || self.schema.is_some(),
            keep_reasoning: self.args.json,
        };
        let mut sink = Sink::new(ui, waiting, wishes).map_err(|error| Failure::output(&error))?;
        let Outcome { answer, result, finished } =
            Client::with_silence(address, &silence).chat(&self.request.body, &mut sink);
        let total = finished.map_or_else(|| sink.elapsed(), |then| then.duration_since(sink.begun));
        let written = sink.finish();
        if let Err(ChatError::Receiver(error)) = &result
            && signals::pending().is_none()
        {
            return Err(Failure::output(error));
        }
        written.map_err(|error| Failure::output(&error))?;
        if result.is_err() && sink::reader_is_gone() {
            return Err(Failure::output(&io::ErrorKind::BrokenPipe.into()));
        }
        Ok(Asking { answer, result, sink, total })
    }

    /// Tells what is to be told of the answer besides its text.
    fn conclude(&self, asking: Asking) -> Result<Exit, Failure> {
        let Asking { answer, result, sink, total } = asking;
        let ui = &self.context.ui;
        let timing = Timing::new(sink.first_piece, total, &answer);
        if self.args.json && (result.is_ok() || sink.first_piece.is_some()) {
            ui.json_line(&Report::new(self.runtime.name(), &self.model.name, &sink, &answer, timing))?;
        }
        if let Some(signal) = signals::pending() {
            signals::raise_again(signal);
        }
        let asked = Asked { runtime: self.runtime, model: &self.model.name, silence: self.silence };
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

    /// Whether the answer is what `--schema` asks for.
    fn check(&self, sink: &Sink) -> Result<(), Failure> {
        let (Some(schema), Some(text)) = (&self.schema, &sink.text) else { return Ok(()) };
        schema.check(text).map_err(|violation| {
            let violation = clean(&violation);
            Failure::new(Exit::RequestFailed, format!("the answer does not satisfy the schema: {violation}"))
        })
    }
}

/// What came of asking.
struct Asking {
    answer: Answer,
    result: Result<(), ChatError>,
    sink: Sink,
    /// How long it took.
    total: Duration,
}

fn kept_prompt<'a>(config: &'a Config, name: &str) -> Result<&'a Prompt, Failure> {
    config.prompts.get(name).ok_or_else(|| {
        let names: Vec<&str> = config.prompts.keys().map(String::as_str).collect();
        let failure = Failure::new(Exit::Usage, format!("there is no prompt `{name}` in the configuration"));
        match names.as_slice() {
            [] => failure.hint(format!("add a table [prompts.{name}] with `fusion config edit`")),
            names => failure.hint(format!("there are: {}", names.join(", "))),
        }
    })
}

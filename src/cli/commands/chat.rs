//! `fusion <service> chat`: a conversation on the terminal, and the saved ones.

mod prompt_line;
mod saved;
mod shell;
mod slash;
mod talk;
mod turn;
mod typed;

use std::path::PathBuf;

use self::talk::{Saving, Talk};
use crate::app::chat::{ChatSession, Mark, SessionError, SessionHeader, SessionLine};
use crate::app::{App, Overrides, Question};
use crate::cli::commands::run::files::{self, Attachment};
use crate::cli::commands::run::{prompt, stdin};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::terminal::{signals, streams};
use crate::core::files::FileError;
use crate::core::services::ManagedService;

/// Talk with a model
///
/// Each message gets an answer, which is printed as it is generated. The words of PROMPT and a pipe on standard input
/// are the first message. `/help` lists the commands at the prompt; Ctrl-C stops an answer, Ctrl-D leaves. Every
/// conversation is saved as a session, unless `--no-save` is given.
///
/// `ls`, `show` and `rm` are commands only as the first word: `chat -- ls` is a prompt.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct ChatArgs {
    #[command(subcommand)]
    saved: Option<saved::SavedCommand>,
    /// First message
    #[arg(value_name = "PROMPT")]
    prompt: Vec<String>,
    /// Model to use in place of the configured one: a name, an alias, or a directory
    #[arg(short, long, value_name = "MODEL")]
    model: Option<String>,
    /// Open the session NAME, or start it
    #[arg(short, long, value_name = "NAME")]
    session: Option<String>,
    /// Open the newest session
    #[arg(short = 'c', long = "continue", conflicts_with = "session")]
    goes_on: bool,
    /// System message; an empty one is not sent
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Add a text file, quoted with its name, or an image to the first message (repeatable)
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Do not save the conversation
    #[arg(long)]
    no_save: bool,
}

/// The examples of the help; `SERVICE` is replaced by the name of the service.
pub const EXAMPLES: [&str; 4] = [
    "fusion SERVICE chat",
    "git diff | fusion SERVICE chat \"Review this\"",
    "fusion SERVICE chat --continue",
    "fusion SERVICE chat ls",
];

/// Runs the command; `service` is the one that the command line names.
pub fn run(
    context: &Context,
    app: &App,
    service: Option<&ManagedService>,
    args: &ChatArgs,
) -> Result<Exit, Failure> {
    if let Some(command) = &args.saved {
        return saved::run(context, app, service, command);
    }
    require_terminal(context, service)?;
    let opened = open(context, app, service, args)?;
    let first = first_message(context, args)?;
    if !context.environment.stdin_is_terminal {
        streams::take_input_from_terminal()
            .map_err(|error| Failure::of(Exit::Failed, &error).about("cannot read from the terminal"))?;
    }
    signals::clean_terminal_on_death();
    Talk::new(context, app, opened.service, opened.session, opened.saving)?.run(first)
}

/// Refuses to run without a terminal, where `run` is meant.
fn require_terminal(context: &Context, service: Option<&ManagedService>) -> Result<(), Failure> {
    if context.environment.stdout_is_terminal {
        return Ok(());
    }
    let name = service.map(|service| format!("{} ", service.name)).unwrap_or_default();
    Err(Failure::new(Exit::Usage, "a conversation needs a terminal")
        .hint(format!("send one prompt: fusion {name}run \"Why is the sky blue?\"")))
}

/// A session with what decides about its messages.
struct Opened<'a> {
    service: &'a ManagedService,
    session: ChatSession,
    saving: Saving,
}

/// Opens the session that the command line means, or starts one.
fn open<'a>(
    context: &Context,
    app: &'a App,
    service: Option<&'a ManagedService>,
    args: &ChatArgs,
) -> Result<Opened<'a>, Failure> {
    let sessions = app.sessions();
    let name = match &args.session {
        None if args.goes_on => Some(sessions.newest(service.map(|service| &*service.name))?),
        name => name.clone(),
    };
    let saved = match &name {
        Some(name) if args.no_save => sessions.open_unsaved(name)?,
        Some(name) => sessions.open(name)?,
        None => None,
    };
    let recorded = saved.as_ref().and_then(|saved| saved.contents.header.as_ref());
    let recorded = recorded.map(|header| header.service.as_str());
    let service = match (service, recorded) {
        (Some(service), _) => service,
        (None, Some(name)) => app.service(name).ok_or_else(|| gone(name))?,
        (None, None) => app.service_for(args.model.as_deref(), None, &context.cancel)?.0,
    };
    let overrides =
        Overrides { model: args.model.as_deref(), system: args.system.as_deref(), ..Overrides::default() };
    let mut header = app.new_session(service, &overrides);
    if header.model.is_empty() && args.model.is_none() && recorded.is_none() {
        header.model = app.only_model(service, &context.cancel)?.name;
    }
    let asked = args.model.as_deref().unwrap_or(&header.model);
    app.check_model_name(service, asked, &header.model)?;
    let Some(saved) = saved else {
        let mut session = ChatSession::new(header);
        let saving = match name {
            _ if args.no_save => Saving::Off,
            None => Saving::WithQuestion(None),
            Some(name) => {
                warn_unsaved(context, sessions.save_as(&mut session, &name))?;
                // A file that is there gets its lines once they can be written.
                if session.name().is_some() { Saving::On } else { Saving::WithQuestion(Some(name)) }
            }
        };
        return Ok(Opened { service, session, saving });
    };
    tell_damage(context, saved.contents.damaged);
    let changes = changes(args, &header);
    let (mut session, written) = saved.resume(header);
    let mut written = vec![written];
    let saving = if args.no_save { Saving::Off } else { Saving::On };
    written.extend(changes.into_iter().map(|mark| session.push(&SessionLine::Mark(mark))));
    for written in written {
        warn_unsaved(context, written.map_err(SessionError::from))?;
    }
    Ok(Opened { service, session, saving })
}

/// Returns what the command line changes in a saved session.
fn changes(args: &ChatArgs, header: &SessionHeader) -> Vec<Mark> {
    let model = args.model.as_ref().map(|_| Mark::Model { model: header.model.clone() });
    let system = args.system.as_ref().map(|system| Mark::System { system: system.clone() });
    model.into_iter().chain(system).collect()
}

fn gone(name: &str) -> Failure {
    Failure::new(Exit::Usage, format!("the session is with the service {name}, which is gone"))
        .hint("go on with another one: fusion SERVICE chat --session NAME")
}

fn tell_damage(context: &Context, damaged: usize) {
    if damaged > 0 {
        let lines = if damaged == 1 { "1 line".to_owned() } else { format!("{damaged} lines") };
        context
            .ui
            .warning(&format!("skipped {lines} of the session that cannot be read; the file keeps them"));
    }
}

/// Warns that a line is not in the file; the conversation goes on. Other failures are returned.
fn warn_unsaved(context: &Context, written: Result<(), SessionError>) -> Result<(), Failure> {
    warn_of_file(context, written, "the conversation goes on, and is written when that works")
}

/// Warns that the file cannot be written, and what follows from that. Other failures are returned.
fn warn_of_file(
    context: &Context,
    written: Result<(), SessionError>,
    consequence: &str,
) -> Result<(), Failure> {
    match written {
        Err(SessionError::File(error @ FileError::Io { .. })) => {
            let cause =
                std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            context.ui.warning(&format!("{error}{cause}; {consequence}"));
            Ok(())
        }
        other => Ok(other?),
    }
}

/// Returns the first message: files, words, then standard input unless it is the terminal. `None` if all are empty.
fn first_message(context: &Context, args: &ChatArgs) -> Result<Option<Question>, Failure> {
    let mut question = Question::default();
    let mut texts = Vec::new();
    for path in &args.files {
        match files::read(context, path, None)? {
            Attachment::Text(text) => texts.push(files::quote(&path.display().to_string(), &text)),
            Attachment::Image(url) => question.images.push(url),
        }
    }
    texts.push(args.prompt.join(" "));
    if !context.environment.stdin_is_terminal && stdin::is_appended(&context.ui) {
        match stdin::read(&context.ui, None, "the conversation begins then")? {
            Attachment::Text(text) => texts.push(text.trim_end_matches(['\n', '\r']).to_owned()),
            Attachment::Image(url) => question.images.push(url),
        }
    }
    question.text = prompt::join(texts);
    let is_empty = question.text.trim().is_empty() && question.images.is_empty();
    Ok((!is_empty).then_some(question))
}

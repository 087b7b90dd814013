//! `fusion chat ls|show|rm`: the saved conversations.

use clap::Subcommand;

use crate::app::App;
use crate::app::chat::{ChatMessage, Conversation, Role, SessionRow};
use crate::app::views::SessionView;
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::table::{TextTable, unknown};
use crate::cli::units::ago;
use crate::core::services::ManagedService;
use crate::core::timestamp::Timestamp;

// The commands for saved conversations.
#[derive(Debug, Subcommand)]
pub(super) enum SavedCommand {
    /// List the sessions, the newest first
    Ls {
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a session
    Show {
        /// Name of the session
        name: String,
        /// Print it as Markdown, with a heading for each message
        #[arg(long)]
        markdown: bool,
    },
    /// Remove a session
    ///
    /// Asks for confirmation on a terminal; a script must pass --yes.
    Rm {
        /// Name of the session
        name: String,
        /// Do not ask for confirmation
        #[arg(short, long)]
        yes: bool,
    },
}

pub(super) fn run(
    context: &Context,
    app: &App,
    service: Option<&ManagedService>,
    command: &SavedCommand,
) -> Result<Exit, Failure> {
    match command {
        SavedCommand::Ls { json: true } => {
            let rows = rows(app, service)?;
            let view = |row| {
                SessionView::new(
                    row,
                    row.contents.header.as_ref().and_then(|header| app.service(&header.service)),
                )
            };
            let views: Vec<SessionView<'_>> = rows.iter().map(view).collect();
            context.ui.json(&views)?;
        }
        SavedCommand::Ls { json: false } => {
            context.ui.result(&table(app, service)?.text(context.ui.screen_width()))?;
        }
        SavedCommand::Show { name, markdown: as_markdown } => {
            let contents = app.sessions().read(name)?;
            super::tell_damage(context, contents.damaged);
            let text =
                if *as_markdown { markdown(&contents.conversation) } else { plain(&contents.conversation) };
            context.ui.result_bytes(text.as_bytes())?;
        }
        SavedCommand::Rm { name, yes } => return remove(context, app, name, *yes),
    }
    Ok(Exit::Done)
}

fn remove(context: &Context, app: &App, name: &str, is_confirmed: bool) -> Result<Exit, Failure> {
    let questions = app.sessions().read(name)?.conversation.questions();
    if !is_confirmed {
        let asked =
            context.ask(&format!("Remove {name} ({questions} questions)?"), false).ok_or_else(|| {
                let message = format!("cannot ask whether to remove {name}: there is no terminal");
                Failure::new(Exit::Usage, message).hint("pass --yes to remove it without confirmation")
            })?;
        if !asked {
            context.ui.note("nothing was removed");
            return Ok(Exit::Failed);
        }
    }
    app.sessions().remove(name)?;
    context.ui.result(&format!("removed {name}\n"))?;
    Ok(Exit::Done)
}

/// Returns the sessions, of one service if it is given.
fn rows(app: &App, service: Option<&ManagedService>) -> Result<Vec<SessionRow>, Failure> {
    let mut rows = app.sessions().list()?;
    if let Some(service) = service {
        let is_its = |row: &SessionRow| {
            row.contents.header.as_ref().is_some_and(|header| *header.service == *service.name)
        };
        rows.retain(is_its);
    }
    Ok(rows)
}

/// Returns the list of sessions as a table.
pub(super) fn table(app: &App, service: Option<&ManagedService>) -> Result<TextTable, Failure> {
    let mut table = TextTable::new(&["SERVICE", "NAME", "MODEL", "QUESTIONS", "CHANGED"]);
    for row in rows(app, service)? {
        let service = row.contents.header.map_or_else(unknown, |header| header.service);
        let conversation = row.contents.conversation;
        let changed = ago(Timestamp::from(row.changed).age());
        let questions = conversation.questions().to_string();
        table.row(&[service, row.name, conversation.model.clone(), questions, changed]);
    }
    Ok(table)
}

/// Returns the conversation as it looked on the terminal, each question after `> `.
fn plain(conversation: &Conversation) -> String {
    let message = |message: &ChatMessage| match message.role {
        Role::User => format!("> {}\n", body(message).replace('\n', "\n> ")),
        Role::Assistant => format!("{}\n", body(message)),
    };
    conversation.messages().iter().map(message).collect()
}

/// Returns the conversation as Markdown.
pub(super) fn markdown(conversation: &Conversation) -> String {
    let system = (!conversation.system.is_empty()).then(|| section("System", conversation.system.trim_end()));
    let message = |message: &ChatMessage| match message.role {
        Role::User => section("Question", &body(message)),
        Role::Assistant => section("Answer", &body(message)),
    };
    let sections: Vec<String> =
        system.into_iter().chain(conversation.messages().iter().map(message)).collect();
    format!("# {}\n\n{}", conversation.model, sections.join("\n"))
}

fn section(heading: &str, text: &str) -> String {
    format!("## {heading}\n\n{text}\n")
}

/// Returns the text, and the number of images in words.
fn body(message: &ChatMessage) -> String {
    let text = message.text().trim_end().to_owned();
    match message.images().len() {
        0 => text,
        1 => format!("[1 image]\n{text}"),
        count => format!("[{count} images]\n{text}"),
    }
}

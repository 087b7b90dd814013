//! The slash commands of a conversation.

use std::fs::OpenOptions;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::saved;
use super::talk::Talk;
use super::typed::{KEYS, SLASH_COMMANDS, Slash};
use crate::app::Question;
use crate::app::chat::{ChatMessage, Mark, SessionLine};
use crate::cli::commands::config::edit;
use crate::cli::commands::run::files::{self, Attachment};
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::units;
use crate::cli::units::tokens;

impl Talk<'_> {
    /// Obeys a slash command; breaks when the user leaves. A command that fails says why, and the conversation goes on.
    pub(super) fn slash(&mut self, slash: Slash) -> Result<ControlFlow<()>, Failure> {
        match slash {
            Slash::Quit => return Ok(ControlFlow::Break(())),
            Slash::Help => self.context.ui.result(&help())?,
            Slash::Info => self.context.ui.result(&self.info())?,
            Slash::Sessions => {
                let ui = &self.context.ui;
                ui.result(&saved::table(self.app, None)?.text(ui.screen_width()))?;
            }
            Slash::Model(None) => self.show(&self.session.conversation.model)?,
            Slash::Model(Some(name)) => self.set_model(&name)?,
            Slash::System(None) => self.show(&self.session.conversation.system)?,
            Slash::System(Some(system)) => self.mark(Mark::System { system })?,
            Slash::Set(None) => self.context.ui.json(&self.session.conversation.parameters)?,
            Slash::Set(Some((key, value))) => self.mark(Mark::Set { key, value })?,
            Slash::File(path) => self.attach(&path),
            Slash::Save(path) => self.save(&path),
            Slash::Retry => self.retry()?,
            Slash::Undo => self.undo()?,
            Slash::Edit => self.edit()?,
            Slash::Drop(count) => self.drop_oldest(count)?,
            Slash::Clear => self.mark(Mark::Clear)?,
        }
        Ok(ControlFlow::Continue(()))
    }

    fn show(&self, text: &str) -> Result<(), Failure> {
        let text = if text.is_empty() { "(none)" } else { text };
        self.context.ui.result_bytes(format!("{text}\n").as_bytes())
    }

    fn mark(&mut self, mark: Mark) -> Result<(), Failure> {
        self.push(&SessionLine::Mark(mark))
    }

    fn refuse(&self, message: &str) {
        self.context.ui.failure(&Failure::new(Exit::Usage, message));
    }

    fn set_model(&mut self, name: &str) -> Result<(), Failure> {
        let model = self.app.model(self.service, name).name;
        if let Err(error) = self.app.check_model_name(self.service, name, &model) {
            self.context.ui.failure(&error.into());
            return Ok(());
        }
        self.context_size = None;
        self.mark(Mark::Model { model })
    }

    fn attach(&mut self, path: &str) {
        let path = self.path(path);
        match files::read(self.context, &path, None) {
            Ok(attachment) => {
                let (kind, size) = match &attachment {
                    Attachment::Text(text) => ("", text.len()),
                    Attachment::Image(url) => ("image, ", url.len() / 4 * 3),
                };
                let shown = format!("{}: {kind}{}", path.display(), units::bytes(size as u64));
                self.context.ui.note(&format!("{shown}, goes with the next message"));
                self.attached.push(match attachment {
                    Attachment::Text(text) => {
                        Attachment::Text(files::quote(&path.display().to_string(), &text))
                    }
                    image @ Attachment::Image(_) => image,
                });
            }
            Err(failure) => {
                self.context.ui.failure(&failure);
            }
        }
    }

    /// Expands a `~` at the beginning.
    fn path(&self, path: &str) -> PathBuf {
        match (path.strip_prefix("~/"), &self.context.environment.home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(path),
        }
    }

    fn retry(&mut self) -> Result<(), Failure> {
        if self.session.conversation.questions() == 0 {
            self.refuse("there is no question yet");
            return Ok(());
        }
        if !self.session.conversation.is_unanswered() {
            self.mark(Mark::Retry)?;
        }
        self.answer()
    }

    fn undo(&mut self) -> Result<(), Failure> {
        let Some(last) = self.session.conversation.last_question() else {
            self.refuse("there is no question yet");
            return Ok(());
        };
        let question = excerpt(&last.text());
        self.mark(Mark::Undo)?;
        self.context.ui.note(&format!("took out {question}"));
        Ok(())
    }

    fn drop_oldest(&mut self, count: usize) -> Result<(), Failure> {
        let before = self.session.conversation.questions();
        self.mark(Mark::Drop { count })?;
        let left = self.session.conversation.questions();
        self.context.ui.note(&format!("took out {} of {before} questions", before - left));
        Ok(())
    }

    /// Has the last question edited, in the editor or else at the prompt, and asks it again.
    fn edit(&mut self) -> Result<(), Failure> {
        let last = self.session.conversation.last_question();
        let text = last.map(ChatMessage::text).unwrap_or_default();
        let images = last.map(ChatMessage::images).unwrap_or_default();
        let Some(editor) = &self.context.environment.editor else {
            if !text.is_empty() {
                self.mark(Mark::Undo)?;
            }
            self.attached.extend(images.into_iter().map(Attachment::Image));
            self.draft = text;
            return Ok(());
        };
        let edited = match edited(self, editor, &text) {
            Ok(edited) => edited,
            // SIGTERM or SIGHUP.
            Err(failure) if failure.exit == Exit::Interrupted => return Err(failure),
            Err(failure) => {
                self.context.ui.failure(&failure);
                return Ok(());
            }
        };
        let edited = edited.trim_end();
        if edited.trim().is_empty() || edited == text.trim_end() {
            self.context.ui.note("nothing was changed");
            return Ok(());
        }
        if !text.is_empty() {
            self.mark(Mark::Undo)?;
        }
        self.ask(&Question { text: edited.to_owned(), images })
    }

    fn save(&self, path: &str) {
        let path = self.path(path);
        let current = self.context.environment.current_dir.as_deref().unwrap_or(Path::new(""));
        let text = saved::markdown(&self.session.conversation);
        let mut options = OpenOptions::new();
        let created = options.write(true).create_new(true).open(current.join(&path));
        match created.and_then(|mut file| file.write_all(text.as_bytes())) {
            Ok(()) => self.context.ui.note(&format!("{} was written", path.display())),
            Err(error) => {
                let failure =
                    Failure::of(Exit::Failed, &error).about(format!("cannot write {}", path.display()));
                self.context.ui.failure(&failure);
            }
        }
    }

    fn info(&self) -> String {
        let conversation = &self.session.conversation;
        let unknown = || "unknown".to_owned();
        let context = match (conversation.tokens(), self.context_size) {
            (Some(used), Some(size)) => format!("{} of {} tokens", tokens(used), tokens(size)),
            (Some(used), None) => format!("{} tokens; its length is unknown", tokens(used)),
            (None, size) => size.map_or_else(unknown, |size| format!("{} tokens", tokens(size))),
        };
        let system = if conversation.system.is_empty() { "(none)" } else { &conversation.system };
        let parameters = Value::Object(conversation.parameters.clone()).to_string();
        let rows = [
            ("service", self.service.name.to_string()),
            ("model", conversation.model.clone()),
            ("session", self.session.name().unwrap_or("not saved").to_owned()),
            ("questions", conversation.questions().to_string()),
            ("context", context),
            ("system", system.to_owned()),
            ("request", parameters),
        ];
        rows.iter().fold(String::new(), |text, (name, value)| text + &format!("{name:<9}  {value}\n"))
    }
}

fn help() -> String {
    let lines = SLASH_COMMANDS.iter().map(|(name, argument, what)| {
        let command = format!("/{name} {argument}");
        format!("{:<19}  {what}\n", command.trim_end())
    });
    lines.chain([format!("{KEYS}\n")]).collect()
}

fn excerpt(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = line.chars().take(50).collect();
    if short.len() < line.len() { format!("{short:?}...") } else { format!("{short:?}") }
}

/// Opens the text in the editor, and returns what is written there.
fn edited(talk: &Talk<'_>, editor: &std::ffi::OsStr, text: &str) -> Result<String, Failure> {
    let failed =
        |error: &std::io::Error| Failure::of(Exit::Failed, error).about("cannot make a file for the editor");
    let file = tempfile::Builder::new().prefix("fusion-question-").suffix(".md").tempfile();
    let file = file.and_then(|mut file| file.write_all(text.as_bytes()).map(|()| file));
    let file = file.map_err(|error| failed(&error))?.into_temp_path();
    edit::open(talk.context, editor, &file)?;
    std::fs::read_to_string(&file)
        .map_err(|error| Failure::of(Exit::Failed, &error).about("cannot read what the editor wrote"))
}

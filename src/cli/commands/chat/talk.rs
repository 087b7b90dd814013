//! The loop of a conversation: reads what is typed, asks the model, and keeps both in the session.

use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;

use super::prompt_line::{prompt_line, tint};
use super::turn::{Turn, TurnOutcome};
use super::typed::{self, SLASH_COMMANDS, Typed};
use super::{warn_of_file, warn_unsaved};
use crate::app::chat::{ChatMessage, ChatSession, ContextUse, Fill, Role, SessionError, SessionLine};
use crate::app::{App, Question};
use crate::cli::commands::run::files::Attachment;
use crate::cli::commands::run::{prompt, report};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::terminal::line_editor::{Edited, LineEditor, columns};
use crate::cli::terminal::signals;
use crate::cli::units::tokens;
use crate::core::services::ManagedService;

/// How long the first prompt waits for what the server tells of the context.
const FIRST_PROMPT_TIMEOUT: Duration = Duration::from_millis(100);

/// When the conversation gets a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Saving {
    Off,
    /// With the next question; without a name, it is named after the first one.
    WithQuestion(Option<String>),
    On,
}

/// A conversation that is going on.
pub(super) struct Talk<'a> {
    pub context: &'a Context,
    pub app: &'a App,
    pub service: &'a ManagedService,
    pub session: ChatSession,
    editor: LineEditor,
    saving: Saving,
    /// What goes with the next message, each text quoted.
    pub attached: Vec<Attachment>,
    /// The context length of the model, if the server has told it.
    pub context_size: Option<u64>,
    /// The text that the next prompt begins with.
    pub draft: String,
}

impl<'a> Talk<'a> {
    pub(super) fn new(
        context: &'a Context,
        app: &'a App,
        service: &'a ManagedService,
        session: ChatSession,
        saving: Saving,
    ) -> Result<Self, Failure> {
        let words = SLASH_COMMANDS.iter().map(|(name, ..)| format!("/{name}")).collect();
        let is_dumb = context.environment.terminal_is_dumb;
        let mut editor = LineEditor::new(context.ui.stdout_color, is_dumb, words)
            .map_err(|error| terminal_failed(&error))?;
        for message in session.conversation.messages().iter().filter(|message| message.role == Role::User) {
            editor.remember(&message.text());
        }
        let conversation = &session.conversation;
        // Without a count of tokens it would not be shown.
        let context_size = conversation.tokens().and_then(|_| {
            app.context_of_own_within(FIRST_PROMPT_TIMEOUT, service, &conversation.model, &context.cancel)
        });
        let (attached, draft) = (Vec::new(), String::new());
        Ok(Self { context, app, service, session, editor, saving, attached, context_size, draft })
    }

    /// Talks until the user leaves.
    pub(super) fn run(mut self, first: Option<Question>) -> Result<Exit, Failure> {
        // Ctrl-C stops an answer; at the prompt it is a key.
        let _interrupts = signals::remember_interrupts();
        self.welcome();
        self.warn_of_full_context();
        if let Some(question) = first {
            self.editor.remember(&question.text);
            self.ask(&question)?;
        }
        loop {
            match self.read()? {
                Edited::Interrupted => {}
                Edited::NotText => self.context.ui.warning("what was typed is not UTF-8; it is dropped"),
                Edited::End => return self.leave(),
                Edited::Text(text) => {
                    if !text.trim().is_empty() {
                        self.editor.remember(&text);
                    }
                    self.context.cancel.renew();
                    if self.obey(&text)?.is_break() {
                        return self.leave();
                    }
                }
            }
        }
    }

    fn welcome(&self) {
        let conversation = &self.session.conversation;
        let greeting = match (self.session.name(), conversation.questions()) {
            (Some(name), count @ 1..) => {
                let messages = conversation.messages().len();
                let unanswered =
                    if conversation.is_unanswered() { "; /retry asks the last question again" } else { "" };
                let plural = |count: usize| if count == 1 { "" } else { "s" };
                let questions = format!("{count} question{}", plural(count));
                format!("{name}: {questions}, {messages} message{}{unanswered}", plural(messages))
            }
            _ => format!("/help lists the commands, Ctrl-D leaves; the model is {}", conversation.model),
        };
        self.context.ui.note(&greeting);
    }

    fn read(&mut self) -> Result<Edited, Failure> {
        let used = self.session.conversation.tokens();
        let line = prompt_line(&self.session.conversation.model, used, self.context_size, columns());
        let draft = std::mem::take(&mut self.draft);
        self.editor.read(&line, tint(self.context_use()), &draft).map_err(|error| terminal_failed(&error))
    }

    /// Does what was typed; breaks when the user leaves.
    fn obey(&mut self, text: &str) -> Result<ControlFlow<()>, Failure> {
        match typed::parse(text) {
            Ok(Typed::Empty) => {}
            Ok(Typed::Message(text)) => {
                let question = self.question(text);
                self.ask(&question)?;
            }
            Ok(Typed::Shell(command)) => self.shell(&command),
            Ok(Typed::Slash(slash)) => return self.slash(slash),
            Err(message) => {
                self.context.ui.failure(&Failure::new(Exit::Usage, message));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Returns the question with all that was attached to it.
    fn question(&mut self, text: String) -> Question {
        let (mut texts, mut images) = (Vec::new(), Vec::new());
        for attachment in self.attached.drain(..) {
            match attachment {
                Attachment::Text(text) => texts.push(text),
                Attachment::Image(url) => images.push(url),
            }
        }
        texts.push(text);
        Question { text: prompt::join(texts), images }
    }

    /// Adds a question to the conversation, and answers it.
    pub(super) fn ask(&mut self, question: &Question) -> Result<(), Failure> {
        let made = self.make_file(&question.text);
        warn_unsaved(self.context, made)?;
        self.push(&SessionLine::Message(ChatMessage::question(question.content())))?;
        self.answer()
    }

    /// Makes the file of the session if it gets one with this question.
    fn make_file(&mut self, question: &str) -> Result<(), SessionError> {
        let (sessions, session) = (self.app.sessions(), &mut self.session);
        let made = match &self.saving {
            Saving::Off | Saving::On => return Ok(()),
            Saving::WithQuestion(Some(name)) => sessions.save_as(session, name),
            Saving::WithQuestion(None) => sessions.save(session, question, SystemTime::now()),
        };
        // A file that is there gets its lines once they can be written.
        if self.session.name().is_some() {
            self.saving = Saving::On;
        }
        made
    }

    /// Writes what could not be written before: there may be room by now.
    fn leave(mut self) -> Result<Exit, Failure> {
        let first = self.session.conversation.messages().first().map(ChatMessage::text);
        let made = first.map_or(Ok(()), |question| self.make_file(&question));
        let written = made.and_then(|()| Ok(self.session.write_rest()?));
        warn_of_file(self.context, written, "the session is not saved whole")?;
        Ok(Exit::Done)
    }

    /// Adds a line to the conversation and its file.
    pub(super) fn push(&mut self, line: &SessionLine) -> Result<(), Failure> {
        let written = self.session.push(line).map_err(SessionError::from);
        warn_unsaved(self.context, written)
    }

    /// Answers the last question.
    pub(super) fn answer(&mut self) -> Result<(), Failure> {
        let request = self.app.chat_request(self.service, &self.session.conversation);
        if request.model.name.is_empty() {
            self.context
                .ui
                .failure(&Failure::new(Exit::Usage, "no model is set").hint("choose one with /model NAME"));
            return Ok(());
        }
        let outcome = {
            let _cancelled = self.context.cancel_on_signal();
            self.context.cancel.renew();
            let turn =
                Turn { context: self.context, app: self.app, service: self.service, request: &request };
            turn.run()?
        };
        self.keep(&outcome)?;
        if let Some(signal) = signals::cause(&self.context.cancel)
            && signal != Signal::SIGINT
        {
            return Err(Failure::new(Exit::Interrupted, ""));
        }
        self.tell(&outcome, &request.model.name);
        if outcome.result.is_ok() && outcome.answer.usage.is_some() {
            let model = &request.model.name;
            self.context_size = self.app.context_of(self.service, model, &self.context.cancel);
            self.warn_of_full_context();
        }
        Ok(())
    }

    /// Keeps the answer, or the part that arrived.
    fn keep(&mut self, outcome: &TurnOutcome) -> Result<(), Failure> {
        if outcome.text.is_empty() {
            return Ok(());
        }
        let is_whole = outcome.result.is_ok();
        let usage = outcome.answer.usage.filter(|_| is_whole);
        self.push(&SessionLine::Message(ChatMessage {
            role: Role::Assistant,
            content: outcome.text.clone().into(),
            tokens: usage.map(|usage| usage.prompt_tokens.saturating_add(usage.completion_tokens)),
            partial: !is_whole,
        }))
    }

    /// Tells what is unusual about the answer.
    fn tell(&self, outcome: &TurnOutcome, model: &str) {
        let ui = &self.context.ui;
        let has_text = !outcome.text.is_empty();
        let again = "/retry asks again";
        match &outcome.result {
            _ if self.context.cancel.is_cancelled() => ui.note(&if has_text {
                format!("stopped; the part of the answer is kept, {again}")
            } else {
                format!("stopped before the answer began; {again}")
            }),
            Err(failure) => {
                ui.failure(failure);
                let kept = if has_text { "the part of the answer" } else { "the question" };
                ui.note(&format!("{kept} is kept; {again}"));
            }
            Ok(()) => {
                report::warn_of_other_model(ui, self.app, self.service, model, &outcome.answer);
                report::warn_of_tool_calls(ui, &outcome.answer);
                match outcome.answer.finish_reason.as_deref() {
                    Some("length") => ui.warning(
                        "the answer was cut at the token limit; raise it with /set max_tokens N, then /retry",
                    ),
                    Some("content_filter") => {
                        ui.warning("the server withheld part of the answer (content_filter)");
                    }
                    _ if !has_text => ui.warning(&format!("the model returned an empty answer; {again}")),
                    _ => {}
                }
                ui.detail(&report::summary(&outcome.timing, outcome.answer.usage));
            }
        }
    }

    /// Returns how full the context is, if that is known.
    pub(super) fn context_use(&self) -> Option<ContextUse> {
        Some(ContextUse { used: self.session.conversation.tokens()?, size: self.context_size? })
    }

    fn warn_of_full_context(&self) {
        let conversation = &self.session.conversation;
        let Some(context) = self.context_use().filter(|context| context.fill() == Fill::Full) else { return };
        let filled = format!("{} of {} tokens", tokens(context.used), tokens(context.size));
        let advice = match (conversation.surplus_questions(context), conversation.messages().first()) {
            (count @ 1.., Some(first)) => {
                let oldest: String = first.text().split_whitespace().collect::<Vec<_>>().join(" ");
                let oldest: String = oldest.chars().take(40).collect();
                format!(
                    "the server cuts the oldest messages first ({oldest:?}), or refuses the next one; make room: /drop {count}"
                )
            }
            _ => "the server cuts the next message, or refuses it; begin anew: /clear".to_owned(),
        };
        self.context.ui.warning(&format!("the context is full, {filled}: {advice}"));
    }
}

fn terminal_failed(error: &std::io::Error) -> Failure {
    Failure::of(Exit::Failed, error).about("cannot read from the terminal")
}

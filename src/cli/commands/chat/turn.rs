//! One turn of a conversation: sends the request, prints the answer as it arrives, and keeps it.

use crate::app::views::Timing;
use crate::app::{App, Permissions, Request, Server};
use crate::cli::commands::install::installed;
use crate::cli::commands::run::sink::{self, Sink, SinkOptions};
use crate::cli::context::Context;
use crate::cli::error::{Asked, Failure};
use crate::cli::exit::Exit;
use crate::cli::terminal::waiting::Waiting;
use crate::core::api::chat::{Answer, Arrivals, ChatOutcome};
use crate::core::api::idle_timeout::IdleTimeout;
use crate::core::config::Reasoning;
use crate::core::services::ManagedService;

/// A request with what it needs.
pub(super) struct Turn<'a> {
    pub context: &'a Context,
    pub app: &'a App,
    pub service: &'a ManagedService,
    pub request: &'a Request,
}

/// What a turn has brought.
pub(super) struct TurnOutcome {
    /// The text that was printed.
    pub text: String,
    pub answer: Answer,
    pub timing: Timing,
    /// Whether the answer is complete, or why not.
    pub result: Result<(), Failure>,
}

impl Turn<'_> {
    /// Sends the request and prints the answer. Fails only if the answer cannot be printed.
    pub(super) fn run(&self) -> Result<TurnOutcome, Failure> {
        let Self { context, service, .. } = self;
        let (ui, settings) = (&context.ui, &service.settings.run);
        let waiting = Waiting::new(ui, service.template.display_name());
        let idle_timeout = sink::observed(ui, settings.timeout, &waiting, &context.cancel);
        let options = SinkOptions {
            print_text: true,
            print_as_generated: true,
            print_reasoning: settings.reasoning == Reasoning::Show && !ui.quiet,
            keep_text: true,
            keep_reasoning: false,
        };
        let mut sink = Sink::new(ui, waiting, context.cancel.clone(), options);
        let sent = self.send_or_start(&idle_timeout, &mut sink);
        let total = sink.elapsed();
        sink.finish().map_err(|error| Failure::output(&error))?;
        let model = &self.request.model.name;
        let (server, ChatOutcome { answer, result, finished, arrivals }) = match sent {
            Ok(sent) => sent,
            Err(failure) => {
                let answer = Answer::default();
                let timing = Timing::new(None, total, &answer, &Arrivals::default());
                return Ok(TurnOutcome { text: String::new(), answer, timing, result: Err(failure) });
            }
        };
        let result = result.map_err(|error| {
            let diagnosis = &self.app.diagnose(service, &server, self.request, &error, &context.cancel);
            let asked = Asked { service, model, idle_timeout: settings.timeout, diagnosis };
            self.failure(Failure::chat(&error, &asked))
        });
        let total = finished.map_or(total, |then| then.duration_since(sink.started));
        let timing = Timing::new(sink.first_delta, total, &answer, &arrivals);
        Ok(TurnOutcome { text: sink.text.take().unwrap_or_default(), answer, timing, result })
    }

    fn send_or_start(
        &self,
        idle_timeout: &IdleTimeout,
        sink: &mut Sink,
    ) -> Result<(Server, ChatOutcome), Failure> {
        let sent = self.send(idle_timeout, sink)?;
        if sent.1.is_unsent() && self.start()? {
            return self.send(idle_timeout, sink);
        }
        Ok(sent)
    }

    fn send(&self, idle_timeout: &IdleTimeout, sink: &mut Sink) -> Result<(Server, ChatOutcome), Failure> {
        let (app, service, cancel) = (self.app, self.service, &self.context.cancel);
        let server = app.find_server(service, cancel)?;
        let outcome = app.prompt(service, &server, self.request, idle_timeout, sink, cancel)?;
        Ok((server, outcome))
    }

    /// Starts the service if that is permitted; returns whether it was not running.
    fn start(&self) -> Result<bool, Failure> {
        installed(self.context, self.app, self.service, |install| {
            let permissions = Permissions { start_on_demand: true, install, force: false };
            self.app.start_for_prompt(self.service, &self.request.model, permissions, &self.context.cancel)
        })
    }

    /// Returns the failure with a hint for a conversation, which has no flags.
    fn failure(&self, failure: Failure) -> Failure {
        match failure.exit {
            Exit::TimedOut => {
                let hint = format!(
                    "raise the idle timeout: fusion config set {}_run.timeout 1200",
                    self.service.name
                );
                failure.hint(hint)
            }
            _ => failure,
        }
    }
}

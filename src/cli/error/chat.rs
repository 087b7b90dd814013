//! Messages and hints for a prompt without a complete answer.

use std::time::Duration;

use super::{Failure, missing_model_hint};
use crate::app::Diagnosis;
use crate::cli::exit;
use crate::core::api::ApiError;
use crate::core::api::chat::ChatError;
use crate::core::api::error::{ServerError, ServerErrorKind};
use crate::core::models::quoted;
use crate::core::services::{ManagedService, ServerEnd};

/// The service, model and timeout of a prompt, for the message of a failure.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub service: &'a ManagedService,
    /// The model of the request.
    pub model: &'a str,
    pub idle_timeout: Duration,
    /// What was found out about the failure.
    pub diagnosis: &'a Diagnosis,
}

impl Failure {
    /// Returns the failure of a prompt without a complete answer.
    pub fn chat(error: &ChatError, asked: &Asked<'_>) -> Self {
        let name = &asked.service.name;
        let log = format!("see the log: fusion {name} log");
        let mut failure = match error {
            ChatError::Api(error) => Self::api(error, asked),
            ChatError::Server(error) => Self::server(error, asked),
            ChatError::Receiver(error) => Self::output(error),
            ChatError::Cut | ChatError::ModelDied | ChatError::Empty => {
                Self::of(exit::of_chat(error), error).hint(log)
            }
            ChatError::Repetition => Self::of(exit::of_chat(error), error)
                .hint("make repetitions less likely: -o frequency_penalty=1"),
            ChatError::NoContent { .. } => Self::of(exit::of_chat(error), error)
                .hint("another program may listen there; check the address: fusion config show"),
            _ => Self::of(exit::of_chat(error), error),
        };
        if let Some(cause) = &asked.diagnosis.logged
            && !failure.message.contains(cause)
        {
            failure.causes.push(format!("its log: {cause}"));
        }
        if let Some(end) = asked.diagnosis.end {
            let (became, hint) = end_in_words(end);
            failure.causes.push(format!("{name} {became}"));
            if let Some(hint) = hint {
                failure.hint = Some(hint.replace("SERVICE", name));
            }
        }
        failure
    }

    /// Returns the failure of a request.
    pub fn api(error: &ApiError, asked: &Asked<'_>) -> Self {
        let (name, exit) = (&asked.service.name, exit::of_api(error));
        match error {
            ApiError::Connect { .. } => {
                Self::of(exit, error).hint(format!("start the server: fusion {name} up"))
            }
            ApiError::TimedOut { address, connecting: true } => {
                Self::new(exit, format!("timed out: {address} does not accept the connection"))
                    .hint("the server may be overloaded; try again")
            }
            ApiError::TimedOut { address, connecting: false } => Self::new(
                exit,
                format!("timed out: no data from {address} for {} s", asked.idle_timeout.as_secs_f64()),
            )
            .hint("raise the idle timeout with --timeout SECONDS"),
            ApiError::Closed { .. } => Self::of(exit, error).hint(format!("see the log: fusion {name} log")),
            ApiError::Cancelled => Self::new(exit, ""),
            ApiError::Protocol { .. } => Self::of(exit, error),
        }
    }

    /// Returns the failure of an error that a server reports.
    fn server(error: &ServerError, asked: &Asked<'_>) -> Self {
        let name = &asked.service.name;
        let title = asked.service.template.display_name();
        let diagnosis = asked.diagnosis;
        let exit = exit::of_server(error);
        let message = format!("{title}: {error}");
        let found =
            diagnosis.is_incomplete.then(|| format!("the model {} is incomplete on the disk", asked.model));
        let said = [Some(&error.message), diagnosis.logged.as_ref(), found.as_ref()];
        let hint = said.into_iter().flatten().find_map(|said| asked.service.advice(said, asked.model));
        if let Some(hint) = hint {
            return Self::new(exit, message).hint(hint).caused_by(found.into_iter().collect());
        }
        let hint = match error.kind {
            ServerErrorKind::ModelMissing => match &diagnosis.loaded {
                Some(loaded) => loaded_model_hint(asked.service, loaded),
                None => missing_model_hint(asked.model, &pull_command(asked)),
            },
            ServerErrorKind::Auth | ServerErrorKind::Forbidden => "the server requires an API key".to_owned(),
            ServerErrorKind::Busy => "the server is overloaded; try again later".to_owned(),
            ServerErrorKind::Loading => "the server is loading the model; try again in a moment".to_owned(),
            ServerErrorKind::ContextLength => {
                let runtime = asked.service.runtime();
                let longer = runtime.zip(largest_number(&error.message));
                longer
                    .and_then(|(runtime, tokens)| {
                        runtime.longer_context(name, &asked.service.server_table(), tokens)
                    })
                    .unwrap_or_else(|| {
                        "shorten the prompt, or start the server with a longer context".to_owned()
                    })
            }
            ServerErrorKind::OutOfMemory => "choose a smaller model or a shorter context".to_owned(),
            ServerErrorKind::Proxy => {
                "a proxy or another program may have responded; check the address: fusion config show"
                    .to_owned()
            }
            ServerErrorKind::ServerCrash => format!("see the log: fusion {name} log"),
            ServerErrorKind::WrongUrl | ServerErrorKind::Redirect => {
                format!("check that {title} listens there: fusion config show")
            }
            ServerErrorKind::BadRequest | ServerErrorKind::Canceled => return Self::new(exit, message),
        };
        Self::new(exit, message).hint(hint)
    }
}

/// Returns the hint where the default model is missing and another one is loaded.
pub fn loaded_model_hint(service: &ManagedService, loaded: &str) -> String {
    let (table, loaded) = (service.run_table(), quoted(loaded));
    format!("{loaded} is loaded; make it the default: fusion config set {table}.model {loaded}")
}

/// Returns what became of a server, and what to do about it.
fn end_in_words(end: ServerEnd) -> (&'static str, Option<&'static str>) {
    match end {
        ServerEnd::Stopped => {
            ("was stopped meanwhile by another command", Some("start it again: fusion SERVICE up"))
        }
        ServerEnd::Restarted => ("was restarted meanwhile by another command", Some("run the command again")),
        ServerEnd::Died => ("ended without `down`", None),
    }
}

/// Returns the largest number in a message: the tokens of a prompt that exceeds a context.
fn largest_number(said: &str) -> Option<u64> {
    said.split(|character: char| !character.is_ascii_digit()).filter_map(|number| number.parse().ok()).max()
}

/// Returns the command that downloads the model.
fn pull_command(asked: &Asked<'_>) -> String {
    asked.service.pull_command(asked.model)
}

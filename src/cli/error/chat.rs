//! Messages and hints for a prompt without a complete answer.

use std::time::Duration;

use super::{Failure, missing_model_hint};
use crate::cli::exit;
use crate::core::api::ApiError;
use crate::core::api::chat::ChatError;
use crate::core::api::error::{ServerError, ServerErrorKind};
use crate::core::services::ManagedService;

/// The service, model and timeout of a prompt, for the message of a failure.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub service: &'a ManagedService,
    /// The model of the request.
    pub model: &'a str,
    pub idle_timeout: Duration,
}

impl Failure {
    /// Returns the failure of a prompt without a complete answer.
    pub fn chat(error: &ChatError, asked: &Asked<'_>) -> Self {
        let name = &asked.service.name;
        let log = format!("see the log: fusion {name} log");
        match error {
            ChatError::Api(error) => Self::api(error, asked),
            ChatError::Server(error) => Self::server(error, asked),
            ChatError::Receiver(error) => Self::output(error),
            ChatError::Cut | ChatError::ModelDied | ChatError::Empty => {
                Self::of(exit::of_chat(error), error).hint(log)
            }
            _ => Self::of(exit::of_chat(error), error),
        }
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
        let message = format!("{title}: {error}");
        let exit = exit::of_server(error);
        let hint = match error.kind {
            ServerErrorKind::ModelMissing => missing_model_hint(asked.model, &pull_command(asked)),
            ServerErrorKind::Auth | ServerErrorKind::Forbidden => "the server requires an API key".to_owned(),
            ServerErrorKind::Busy => "the server is overloaded; try again later".to_owned(),
            ServerErrorKind::Loading => "the server is loading the model; try again in a moment".to_owned(),
            ServerErrorKind::ContextLength => {
                let (runtime, table) = (asked.service.runtime(), asked.service.server_table());
                runtime.and_then(|runtime| runtime.longer_context(&table, &error.message)).unwrap_or_else(
                    || "shorten the prompt, or start the server with a longer context".to_owned(),
                )
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

/// Returns the command that downloads the model.
fn pull_command(asked: &Asked<'_>) -> String {
    asked.service.pull_command(asked.model)
}

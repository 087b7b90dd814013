//! Why a prompt got no complete answer, beyond what the server says: its record, its log, its models.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};

use super::app::App;
use super::prompt::Server;
use super::request::Request;
use crate::core::api::ApiError;
use crate::core::api::chat::ChatError;
use crate::core::api::error::ServerErrorKind;
use crate::core::cancel::CancelToken;
use crate::core::services::{ManagedService, ServerEnd};

/// The most of the log that is searched for the cause of a failure.
const MAX_LOG_BYTES: u64 = 256 * 1024;

/// What is found out about a failure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// What became of the server.
    pub end: Option<ServerEnd>,
    /// The cause that the log names.
    pub logged: Option<String>,
    /// Files of the model are gone, although the server lists it.
    pub is_incomplete: bool,
    /// The model that the server has loaded, where the default one is missing.
    pub loaded: Option<String>,
}

impl App {
    /// Examines why a request to `server` got no complete answer.
    pub fn diagnose(
        &self,
        service: &ManagedService,
        server: &Server,
        request: &Request,
        error: &ChatError,
        cancel: &CancelToken,
    ) -> Diagnosis {
        let mut found = Diagnosis::default();
        let logged = || model_failure(service, server.log_bytes()?);
        match error {
            ChatError::Cut | ChatError::ModelDied | ChatError::Api(ApiError::Closed { .. }) => {
                found.end =
                    server.started().and_then(|endpoint| self.manager(cancel).end_of(service, endpoint));
                if matches!(error, ChatError::ModelDied) && found.end.is_none() {
                    found.logged = logged();
                }
            }
            ChatError::Server(said) if said.kind == ServerErrorKind::ModelMissing => {
                found.loaded = self.loaded_instead(service, &request.model.name, cancel);
            }
            ChatError::Server(said) if said.message.contains("does not support chat") => {
                let lacks = |address| {
                    let models = self.models(service, cancel).ok()?;
                    Some(models.lacks(address, &request.model.name))
                };
                found.is_incomplete = server.address().and_then(lacks) == Some(true);
            }
            ChatError::Server(said) if said.status >= 500 => found.logged = logged(),
            _ => {}
        }
        found
    }

    /// Returns a model that is loaded in place of a missing one: the one that was used last, where the server tells.
    pub fn loaded_instead(
        &self,
        service: &ManagedService,
        missing: &str,
        cancel: &CancelToken,
    ) -> Option<String> {
        let runtime = service.runtime()?;
        let loaded = self.manager(cancel).status(service).ok()?.models?;
        loaded.into_iter().find(|name| !runtime.is_same_model(name, missing))
    }
}

/// Returns why the model failed, if the log has told since it had `log_bytes`.
pub(super) fn model_failure(service: &ManagedService, log_bytes: u64) -> Option<String> {
    let mut log = File::open(&service.files.log).ok()?;
    let length = log.metadata().ok()?.len();
    // A log that became shorter was rotated.
    let since = if length < log_bytes { 0 } else { log_bytes };
    log.seek(SeekFrom::Start(since.max(length.saturating_sub(MAX_LOG_BYTES)))).ok()?;
    let mut new = Vec::new();
    log.take(MAX_LOG_BYTES).read_to_end(&mut new).ok()?;
    service.runtime()?.explain_model_failure(&String::from_utf8_lossy(&new))
}

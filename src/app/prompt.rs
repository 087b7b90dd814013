//! Running a prompt: find the server, check that it is right to ask it for the model, send; start the service for it.

use std::io;
use std::time::Duration;

use serde_json::Value;

use super::app::App;
use super::error::AppError;
use super::models::Named;
use super::request::Request;
use crate::core::address::Address;
use crate::core::api::Client;
use crate::core::api::chat::{ChatOutcome, Receiver};
use crate::core::api::idle_timeout::IdleTimeout;
use crate::core::cancel::CancelToken;
use crate::core::events::EventKind;
use crate::core::models::Model;
use crate::core::services::{Endpoint, ManagedService, ServiceError, UpOptions};

/// Timeout for an external server to list its models.
const LIST_TIMEOUT: Duration = Duration::from_secs(2);

/// What may be done to have a server that answers.
#[derive(Debug, Clone, Copy)]
pub struct Permissions {
    /// The service may be started if it is not running; the configuration can forbid it, too.
    pub start_on_demand: bool,
    /// The program may be installed if it is missing.
    pub install: bool,
}

/// Where a prompt is sent: to what fusion started, else to the configured address.
struct Server {
    /// Where it is if it runs.
    address: Address,
    /// What fusion started, if that is it.
    started: Option<Endpoint>,
}

impl Server {
    /// Returns the model that the server is known to have, if fusion started it.
    fn loaded(&self) -> Option<&String> {
        self.started.as_ref()?.model.as_ref()
    }
}

impl App {
    /// Sends the request and hands the answer to `receiver` as it arrives. Nothing is started, so a server that runs
    /// costs no request but this one: when the outcome [`is_unsent`](ChatOutcome::is_unsent), start the service with
    /// [`start_for_prompt`](Self::start_for_prompt), and send again. Never downloads a model.
    pub fn prompt(
        &self,
        service: &ManagedService,
        request: &Request,
        idle_timeout: &IdleTimeout,
        receiver: &mut dyn Receiver,
        cancel: &CancelToken,
    ) -> Result<ChatOutcome, AppError> {
        let server = self.find_server(service, cancel)?;
        let replaces_model = self.check_model(service, &server, &request.model, cancel)?;
        receiver.begin();
        let mut receiver = Noting { receiver, has_begun: false };
        let outcome =
            Client::with_idle_timeout(&server.address, idle_timeout).chat(&request.body, &mut receiver);
        if replaces_model && outcome.result.is_err() && !receiver.has_begun {
            // The other model could not be loaded: the server is known by the one that it had.
            self.record_loaded(service, &server, server.loaded(), cancel);
        }
        Ok(outcome)
    }

    /// Reads the record and asks the kernel; makes no request.
    fn find_server(&self, service: &ManagedService, cancel: &CancelToken) -> Result<Server, AppError> {
        let started = self.manager(cancel).running(service)?;
        let configured = &service.server().address;
        let address = started.as_ref().map_or(configured, |endpoint| &endpoint.address).clone();
        Ok(Server { address, started })
    }

    /// Checks that it is right to ask this server for `model`: a server that does not have it might download it, or
    /// unload the one it has before it finds out. Returns whether it loads that model in place of another.
    fn check_model(
        &self,
        service: &ManagedService,
        server: &Server,
        model: &Model,
        cancel: &CancelToken,
    ) -> Result<bool, AppError> {
        let loaded = server.loaded();
        if loaded == Some(&model.name) {
            return Ok(false);
        }
        if model.present == Some(false)
            && (server.started.is_some() || lists_other_models(&server.address, &model.name))
        {
            return Err(ServiceError::missing_model(service, &model.name, None).into());
        }
        let Some(loaded) = loaded else { return Ok(false) };
        if model.present == Some(true)
            && let Ok(models) = self.models(service, cancel)
        {
            models.check_at(&server.address, &Named::resolved(&model.name))?;
        }
        let (loaded, model) = (loaded.clone(), &model.name);
        self.events.emit(&service.name, EventKind::ModelReplaced { loaded, model: model.clone() });
        self.record_loaded(service, server, Some(model), cancel);
        Ok(true)
    }

    fn record_loaded(
        &self,
        service: &ManagedService,
        server: &Server,
        model: Option<&String>,
        cancel: &CancelToken,
    ) {
        if let (Some(endpoint), Some(model)) = (&server.started, model) {
            self.manager(cancel).record_model(service, endpoint, model);
        }
    }

    /// Starts the service with `model`, or waits while another command starts it; returns false when it runs already as
    /// far as can be told. Fails when it may not be started.
    pub fn start_for_prompt(
        &self,
        service: &ManagedService,
        model: &Model,
        permissions: Permissions,
        cancel: &CancelToken,
    ) -> Result<bool, AppError> {
        let manager = self.manager(cancel);
        if !(permissions.start_on_demand && service.settings.run.start_on_demand) {
            return Ok(manager.require_endpoint(service).map(|_| false)?);
        }
        let is_starting = manager.is_starting(service)?;
        self.events.emit(&service.name, EventKind::StartedOnDemand { is_starting });
        let options = UpOptions { model: Some(model.name.clone()), ..UpOptions::default() };
        self.start(service, &options, permissions.install, cancel)?;
        Ok(true)
    }
}

/// Notes whether any part of the answer has come.
struct Noting<'a> {
    receiver: &'a mut dyn Receiver,
    has_begun: bool,
}

impl Receiver for Noting<'_> {
    fn text(&mut self, text: &str) -> io::Result<()> {
        self.has_begun = true;
        self.receiver.text(text)
    }

    fn reasoning(&mut self, text: &str) -> io::Result<()> {
        self.has_begun = true;
        self.receiver.reasoning(text)
    }

    fn progress(&mut self, done: u64, total: u64) {
        self.receiver.progress(done, total);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.receiver.flush()
    }
}

/// Returns whether an external server lists its models, and not this one.
fn lists_other_models(address: &Address, model: &str) -> bool {
    let response = Client::with_timeout(address, LIST_TIMEOUT).get("/v1/models");
    let list = response.ok().and_then(|response| serde_json::from_slice::<Value>(&response.body).ok());
    let models = list.as_ref().and_then(|list| list["data"].as_array());
    models.is_some_and(|models| models.iter().all(|listed| listed["id"] != model))
}

//! Runs a prompt: finds the server, checks that it has the model, sends the request; starts the service on demand.

use std::{fs, io};

use serde_json::Value;

use super::app::App;
use super::error::AppError;
use super::models::{self, LIST_TIMEOUT, Named};
use super::request::Request;
use crate::core::address::Address;
use crate::core::api::Client;
use crate::core::api::chat::{ChatOutcome, Receiver};
use crate::core::api::idle_timeout::IdleTimeout;
use crate::core::cancel::CancelToken;
use crate::core::events::EventKind;
use crate::core::files;
use crate::core::json_object;
use crate::core::models::Model;
use crate::core::models::catalogue::ModelError;
use crate::core::runtimes::Runtime;
use crate::core::services::{Endpoint, Health, ManagedService, ServiceError, StartedBy, UpOptions};

/// What a prompt may do to make the service ready.
#[derive(Debug, Clone, Copy)]
pub struct Permissions {
    /// Start the service if it is not running; the configuration can forbid that, too.
    pub start_on_demand: bool,
    /// Install the program if it is missing.
    pub install: bool,
    /// Load the model although it needs more memory than the machine has.
    pub force: bool,
}

/// The server that gets a prompt: the one that fusion started, else the one at the configured address. Until this is
/// dropped, the gateway does not stop it.
#[derive(Debug)]
pub struct Server {
    /// `None` if no server runs.
    endpoint: Option<Endpoint>,
    /// The length of its log when it was found.
    log_bytes: u64,
    _in_use: Option<files::Lock>,
}

impl Server {
    pub(super) fn address(&self) -> Option<&Address> {
        Some(&self.endpoint.as_ref()?.address)
    }

    /// Returns the endpoint if fusion started the server.
    pub(super) fn started(&self) -> Option<&Endpoint> {
        self.endpoint.as_ref().filter(|endpoint| endpoint.started_by == StartedBy::Fusion)
    }

    /// Returns the length that its log had, if fusion started the server.
    pub(super) fn log_bytes(&self) -> Option<u64> {
        self.started().map(|_| self.log_bytes)
    }

    /// Returns the loaded model, which is known only if fusion started the server.
    fn loaded(&self) -> Option<&String> {
        self.started()?.model.as_ref()
    }
}

impl App {
    /// Sends the request and hands the answer to `receiver` as it arrives. Nothing is started, so a server that fusion
    /// started costs no request but this one: when the outcome [`is_unsent`](ChatOutcome::is_unsent), start the service with
    /// [`start_for_prompt`](Self::start_for_prompt), find its server, and send again. Never downloads a model.
    pub fn prompt(
        &self,
        service: &ManagedService,
        server: &Server,
        request: &Request,
        idle_timeout: &IdleTimeout,
        receiver: &mut dyn Receiver,
        cancel: &CancelToken,
    ) -> Result<ChatOutcome, AppError> {
        let Some(endpoint) = &server.endpoint else { return Ok(ChatOutcome::unsent()) };
        let replaces_model = self.check_model(service, server, endpoint, &request.model, cancel)?;
        receiver.begin();
        let mut receiver = BeginObserver { receiver, has_started: false };
        let inhibitor = self.keep_awake(service);
        let outcome =
            Client::with_idle_timeout(&endpoint.address, idle_timeout).chat(&request.body, &mut receiver);
        self.let_sleep(service, inhibitor);
        if replaces_model && outcome.result.is_err() && !receiver.has_started {
            // The model could not be loaded: the server still has the previous one.
            self.record_loaded(service, server, server.loaded(), cancel);
        }
        Ok(outcome)
    }

    /// Finds the server by the record and the kernel, and takes it into use. A server that fusion did not start is asked
    /// what it is before it gets a prompt.
    pub fn find_server(&self, service: &ManagedService, cancel: &CancelToken) -> Result<Server, AppError> {
        // Before the server is looked up: the gateway may be about to stop it.
        let in_use = service.use_it(cancel);
        let endpoint = self.manager(cancel).find_endpoint(service)?;
        Ok(Server { endpoint, log_bytes: log_bytes(service), _in_use: in_use })
    }

    /// Does what [`check_answers`](Self::check_answers) does, and reports and records a model that will be replaced.
    fn check_model(
        &self,
        service: &ManagedService,
        server: &Server,
        endpoint: &Endpoint,
        model: &Model,
        cancel: &CancelToken,
    ) -> Result<bool, AppError> {
        let replaces_model = self.check_answers(service, endpoint, model, cancel)?;
        if let Some(loaded) = server.loaded().filter(|_| replaces_model) {
            let (loaded, model) = (loaded.clone(), &model.name);
            self.events.emit(&service.name, EventKind::ModelReplaced { loaded, model: model.clone() });
            self.record_loaded(service, server, Some(model), cancel);
        }
        Ok(replaces_model)
    }

    /// Checks that the server can have `model`: a server without it could answer with another one, download it, or unload
    /// its own model before it fails. Returns whether the server will load it in place of another model.
    fn check_answers(
        &self,
        service: &ManagedService,
        endpoint: &Endpoint,
        model: &Model,
        cancel: &CancelToken,
    ) -> Result<bool, AppError> {
        let (address, is_own) = (&endpoint.address, endpoint.started_by == StartedBy::Fusion);
        let loaded = endpoint.model.as_ref().filter(|_| is_own);
        if loaded == Some(&model.name) {
            return Ok(false);
        }
        if let Some(runtime) = service.runtime().filter(|runtime| runtime.served_models().is_some()) {
            return Self::check_served(service, runtime, address, model).map(|()| false);
        }
        if model.present == Some(false)
            && let Ok(models) = self.models(service, cancel)
        {
            models.check_name(address, &Named::resolved(&model.name))?;
        }
        if model.present == Some(false) && (is_own || lists_other_models(address, &model.name)) {
            return Err(ServiceError::missing_model(service, &model.name, None).into());
        }
        if model.present == Some(true)
            && loaded.is_some()
            && let Ok(models) = self.models(service, cancel)
        {
            models.check_at(address, &Named::resolved(&model.name))?;
        }
        Ok(loaded.is_some())
    }

    /// Checks that the server answers by the name of the model. One that does not respond is none of this function's
    /// concern.
    fn check_served(
        service: &ManagedService,
        runtime: &dyn Runtime,
        address: &Address,
        model: &Model,
    ) -> Result<(), AppError> {
        let Some(names) = models::served(runtime, address) else { return Ok(()) };
        if names.contains(&model.name) {
            return Ok(());
        }
        if model.present == Some(false) {
            return Err(ServiceError::missing_model(service, &model.name, None).into());
        }
        let error = Box::new(ModelError::NotServed { name: model.name.clone(), served: names });
        Err(AppError::Model { service: service.name.clone(), asked: model.name.clone(), error })
    }

    /// Generates one token with the model `asked`; by default with the loaded model, else with the one that `run` uses.
    /// Also checks a server that fusion did not start. Like a prompt, it goes to no server that cannot have the model.
    pub fn health(
        &self,
        service: &ManagedService,
        asked: Option<&str>,
        cancel: &CancelToken,
    ) -> Result<Health, AppError> {
        let manager = self.manager(cancel);
        let Some(runtime) = service.runtime() else { return Ok(manager.health_of_program(service)?) };
        let asked = asked.map(|name| (name, self.model(service, name)));
        if let Some((name, model)) = &asked {
            self.check_model_name(service, name, &model.name)?;
        }
        let endpoint = manager.require_endpoint(service)?;
        // One that does not make an external server load another model.
        let resident = || match endpoint.started_by {
            StartedBy::Fusion => endpoint.model.clone(),
            StartedBy::Other => runtime.resident_model().map(str::to_owned),
        };
        let configured = &service.settings.run.model;
        let model = match (asked, resident()) {
            (Some((_, model)), _) => model,
            (None, Some(name)) => Model { name, present: None },
            (None, None) if configured.is_empty() => self.only_model(service, cancel)?,
            (None, None) => self.configured_model(service, configured),
        };
        self.check_answers(service, &endpoint, &model, cancel)?;
        Ok(manager.health(service, endpoint, model.name)?)
    }

    /// Returns the model that is meant where neither the user nor the configuration names one: the one that the server
    /// was started with, else the only one that is loaded, else the only one there is.
    pub fn only_model(&self, service: &ManagedService, cancel: &CancelToken) -> Result<Model, AppError> {
        if let Some(name) = self.manager(cancel).running(service)?.and_then(|endpoint| endpoint.model) {
            return Ok(Model { name, present: None });
        }
        if let Some(name) = &service.server().model {
            return Ok(self.configured_model(service, name));
        }
        let models = self.models(service, cancel)?;
        let mut names: Vec<String> = self.manager(cancel).status(service)?.models.unwrap_or_default();
        if names.len() != 1 {
            names = models.list(false)?.into_iter().flatten().map(|row| row.entry.name).collect();
        }
        match names.as_slice() {
            [name] => Ok(Model { name: name.clone(), present: None }),
            _ => Err(AppError::NoModelChosen {
                service: service.name.clone(),
                table: service.run_table(),
                available: names,
            }),
        }
    }

    /// Returns whether the model that a response names is the one that was asked for.
    pub fn is_model(&self, service: &ManagedService, asked: &str, named: &str) -> bool {
        let Some(runtime) = service.runtime() else { return asked == named };
        if runtime.is_same_model(asked, named) {
            return true;
        }
        // A server may name the model by another of its names.
        let served = service.address().and_then(|address| models::served(runtime, &address));
        served.is_some_and(|all| [asked, named].iter().all(|name| all.iter().any(|other| other == name)))
    }

    /// Checks before a prompt that its model fits into the memory, if fusion started the server and that would have to
    /// load the model first.
    pub fn admit_prompt(
        &self,
        service: &ManagedService,
        server: &Server,
        model: &str,
        force: bool,
        cancel: &CancelToken,
    ) -> Result<(), AppError> {
        match (server.started(), self.models(service, cancel)) {
            (Some(endpoint), Ok(models)) => models.admit_into(endpoint, model, force),
            _ => Ok(()),
        }
    }

    fn record_loaded(
        &self,
        service: &ManagedService,
        server: &Server,
        model: Option<&String>,
        cancel: &CancelToken,
    ) {
        if let (Some(endpoint), Some(model)) = (server.started(), model) {
            self.manager(cancel).record_model(service, endpoint, model);
        }
    }

    /// Starts the service with `model`, or waits while another command starts it; returns false if it is running
    /// already. Fails if starting is not permitted.
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
        // A service without a port of its own chooses another one.
        if service.server().port.is_some() {
            manager.refuse_other_program(service)?;
        }
        self.admit_start(service, Some(&model.name), permissions.force, cancel)?;
        let is_starting = manager.is_starting(service)?;
        self.events.emit(&service.name, EventKind::StartedOnDemand { is_starting });
        let options = UpOptions { model: Some(model.name.clone()), ..UpOptions::default() };
        self.start(service, &options, permissions.install, cancel)?;
        Ok(true)
    }
}

/// Returns the length of the log; 0 if there is none.
pub(super) fn log_bytes(service: &ManagedService) -> u64 {
    fs::metadata(&service.files.log).map_or(0, |log| log.len())
}

/// Records whether any part of the answer has arrived.
struct BeginObserver<'a> {
    receiver: &'a mut dyn Receiver,
    has_started: bool,
}

impl Receiver for BeginObserver<'_> {
    fn text(&mut self, text: &str) -> io::Result<()> {
        self.has_started = true;
        self.receiver.text(text)
    }

    fn reasoning(&mut self, text: &str) -> io::Result<()> {
        self.has_started = true;
        self.receiver.reasoning(text)
    }

    fn progress(&mut self, done: u64, total: u64) {
        self.receiver.progress(done, total);
    }

    fn flush(&mut self) -> io::Result<()> {
        self.receiver.flush()
    }
}

/// Returns whether an external server lists models but not this one.
fn lists_other_models(address: &Address, model: &str) -> bool {
    let response = Client::with_timeout(address, LIST_TIMEOUT).get("/v1/models");
    let list = response.ok().and_then(|response| json_object::parse::<Value>(&response.body).ok());
    let models = list.as_ref().and_then(|list| list["data"].as_array());
    models.is_some_and(|models| models.iter().all(|listed| listed["id"] != model))
}

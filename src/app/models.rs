//! The models of a service: resolves names, starts the server where it is needed, reports downloads as events.

mod loading;

use std::sync::Arc;
use std::time::Duration;

pub use self::loading::{LoadOptions, Unload};
use super::app::App;
use super::error::AppError;
use super::views::{ModelRow, ModelView};
use crate::core::address::Address;
use crate::core::aliases;
use crate::core::api::Client;
use crate::core::cancel::CancelToken;
use crate::core::events::EventKind;
use crate::core::logs;
use crate::core::machine;
use crate::core::models::ModelPlaces;
use crate::core::models::catalogue::{Abilities, Catalogue, Entry, ModelError, PullStep, Site};
use crate::core::order;
use crate::core::runtimes::{Recognition, Runtime, ServerFacts};
use crate::core::services::{Endpoint, ManagedService, State, Status, UpOptions};

/// The shortest timeout for loading a model.
const MIN_LOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Timeout for a server to list its models.
pub(super) const LIST_TIMEOUT: Duration = Duration::from_secs(2);

/// The models of one service.
pub struct Models<'a> {
    app: &'a App,
    service: &'a ManagedService,
    cancel: &'a CancelToken,
    runtime: &'static dyn Runtime,
    catalogue: &'static dyn Catalogue,
    places: ModelPlaces,
}

/// A model as the user named it, and as the server knows it.
#[derive(Debug, Clone)]
pub struct Named<'a> {
    pub asked: &'a str,
    pub name: String,
}

impl<'a> Named<'a> {
    /// Returns a name that was resolved already.
    pub fn resolved(name: &'a str) -> Self {
        Self { asked: name, name: name.to_owned() }
    }
}

impl App {
    /// Returns the models of `service`, whose runtime must be able to manage any.
    pub fn models<'a>(
        &'a self,
        service: &'a ManagedService,
        cancel: &'a CancelToken,
    ) -> Result<Models<'a>, AppError> {
        let managed = service.runtime().and_then(|runtime| Some((runtime, runtime.catalogue()?)));
        let (runtime, catalogue) = managed
            .ok_or_else(|| AppError::NoModels { display_name: service.template.display_name().to_owned() })?;
        Ok(Models { app: self, service, cancel, runtime, catalogue, places: self.places(service) })
    }

    /// Fails if no model of the runtime can have the name, which the user wrote as `asked`.
    pub fn check_model_name(
        &self,
        service: &ManagedService,
        asked: &str,
        name: &str,
    ) -> Result<(), AppError> {
        if service.runtime().is_none_or(|runtime| runtime.is_model_name(name)) {
            return Ok(());
        }
        let (service, asked, name) = (Arc::clone(&service.name), asked.to_owned(), name.to_owned());
        Err(AppError::Model { service, asked, error: Box::new(ModelError::InvalidName { name }) })
    }

    /// Fails if `[models]` sets for the model with this resolved name what the service cannot do.
    pub fn check_model_settings(&self, service: &ManagedService, model: &str) -> Result<(), AppError> {
        let context = self.model_settings(service, model).and_then(|settings| settings.context);
        match service.runtime().zip(context) {
            Some((runtime, tokens)) if runtime.context_args(tokens).is_none() => {
                Err(AppError::NoOwnContext {
                    service: Arc::clone(&service.name),
                    model: model.to_owned(),
                    instead: runtime.longer_context(
                        &service.name,
                        &service.server_table(),
                        tokens.saturating_sub(1),
                    ),
                })
            }
            _ => Ok(()),
        }
    }
}

impl Models<'_> {
    /// Resolves the name. Fails if no model of the runtime can have it.
    pub fn named<'n>(&self, asked: &'n str) -> Result<Named<'n>, AppError> {
        let name = self.app.model(self.service, asked).name;
        self.app.check_model_name(self.service, asked, &name)?;
        Ok(Named { asked, name })
    }

    /// Returns whether only the running server knows the models.
    pub fn needs_server(&self) -> bool {
        self.catalogue.needs_server()
    }

    /// Returns whether the server at `address` lists the model.
    pub(super) fn lists(&self, address: &Address, name: &str) -> bool {
        let listed = self.catalogue.list(&self.site(Some(address))).unwrap_or_default();
        listed.iter().any(|entry| self.runtime.is_same_model(&entry.name, name))
    }

    /// Lists the models by name; `None` if only the server knows them and it neither runs nor may be started.
    pub fn list(&self, start_on_demand: bool) -> Result<Option<Vec<ModelRow>>, AppError> {
        if self.needs_server() && start_on_demand {
            self.endpoint(true, None)?;
        }
        let status = self.status()?;
        if self.needs_server() && !status.state.is_running() {
            return Ok(None);
        }
        self.rows(&status).map(Some)
    }

    /// Lists the models by name, where `status` tells which of them are loaded.
    fn rows(&self, status: &Status) -> Result<Vec<ModelRow>, AppError> {
        let site = self.site(status.address.as_ref());
        let mut entries = self.catalogue.list(&site).map_err(|error| self.failed("", error))?;
        order::sort_by(&mut entries, |one, other| one.name.cmp(&other.name));
        let loaded = loaded(status);
        // A directory of the user is listed only while it is loaded.
        for name in loaded.iter().flatten().filter(|name| name.starts_with('/')) {
            if let Ok(details) = self.catalogue.show(&site, name) {
                entries.push(details.entry);
            }
        }
        let row = |mut entry: Entry| {
            entry.loaded =
                entry.loaded.or_else(|| loaded.as_ref().map(|loaded| loaded.contains(&entry.name)));
            let aliases = self.aliases(&entry.name);
            ModelRow { service: Arc::clone(&self.service.name), runtime: self.runtime.name(), aliases, entry }
        };
        Ok(entries.into_iter().map(row).collect())
    }

    /// Returns what is known about a model.
    pub fn show(&self, model: &Named<'_>, start_on_demand: bool) -> Result<ModelView, AppError> {
        let details = self.catalogue.show(&self.ready_site(start_on_demand)?, &model.name);
        let mut details = details.map_err(|error| self.failed(model.asked, error))?;
        if details.entry.loaded.is_none() {
            details.entry.loaded = loaded(&self.status()?).map(|loaded| loaded.contains(&model.name));
        }
        let is_loaded = details.entry.loaded == Some(true);
        let context = || self.app.context_of(self.service, &model.name, self.cancel);
        Ok(ModelView {
            loaded_context: is_loaded.then(context).flatten(),
            service: Arc::clone(&self.service.name),
            runtime: self.runtime.name(),
            aliases: self.aliases(&model.name),
            machine_memory_bytes: machine::memory().map(|memory| memory.total),
            details,
        })
    }

    /// Downloads the model, or the missing part of it.
    pub fn pull(&self, model: &Named<'_>, start_on_demand: bool) -> Result<(), AppError> {
        let inhibitor = self.app.keep_awake(self.service);
        let pulled = self.ready_site(start_on_demand).and_then(|site| {
            let pulled = self.catalogue.pull(&site, &model.name, &mut |step| self.downloading(model, step));
            pulled.map_err(|error| self.failed(model.asked, error))
        });
        self.app.let_sleep(self.service, inhibitor);
        self.emit(EventKind::DownloadEnded { model: model.name.clone() });
        pulled
    }

    fn downloading(&self, model: &Named<'_>, step: PullStep<'_>) {
        let model = model.name.clone();
        self.emit(match step {
            PullStep::Stage(stage) => EventKind::DownloadStage { model, stage: stage.to_owned() },
            PullStep::Bytes { done, total } => EventKind::Downloaded { model, bytes: done, total },
        });
    }

    /// Checks that the model can be removed; returns its size in bytes, where that is known.
    pub fn check_removal(&self, model: &Named<'_>, start_on_demand: bool) -> Result<Option<u64>, AppError> {
        let site = self.ready_site(start_on_demand)?;
        let bytes = match site.places.directory(&model.name) {
            // Fails: it is a directory of the user.
            Some(_) => self.catalogue.remove(&site, &model.name).map(|_| None),
            None => match self.catalogue.show(&site, &model.name) {
                Err(ModelError::Incomplete { .. }) => Ok(None),
                shown => shown.map(|details| details.entry.size_bytes),
            },
        };
        let bytes = bytes.map_err(|error| self.failed(model.asked, error))?;
        self.refuse_if_in_use(model)?;
        Ok(bytes)
    }

    /// Removes the model from this machine; returns the bytes that became free, where that is known.
    pub fn remove(&self, model: &Named<'_>, start_on_demand: bool) -> Result<Option<u64>, AppError> {
        let site = self.ready_site(start_on_demand)?;
        let removed = self.catalogue.is_loaded(&site, &model.name).and_then(|is_loaded| {
            // A server keeps what it has loaded when the files are gone. One that fails to unload may still remove.
            if is_loaded {
                let _ = self.unload_at(&site, model);
            }
            self.catalogue.remove(&site, &model.name)
        });
        removed.map_err(|error| self.failed(model.asked, error))
    }

    /// A server that reads its model's files while it runs does not notice that they are gone.
    fn refuse_if_in_use(&self, model: &Named<'_>) -> Result<(), AppError> {
        if self.needs_server() {
            return Ok(());
        }
        match loaded(&self.status()?) {
            Some(loaded) if loaded.contains(&model.name) => Err(AppError::ModelInUse {
                service: Arc::clone(&self.service.name),
                model: model.name.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Returns the memory that the model needs, in bytes, if that is known.
    pub(super) fn memory_needed(&self, address: Option<&Address>, name: &str) -> Option<u64> {
        let details = self.catalogue.show(&self.site(address), name).ok()?;
        Some(details.memory?.bytes)
    }

    /// Returns what a prompt to the model must take into account, if that is known.
    pub(super) fn abilities(&self, address: &Address, name: &str) -> Option<Abilities> {
        self.catalogue.abilities(&self.site(Some(address)), name).ok()
    }

    /// Returns what identifies the content of the model, if that is known.
    pub(super) fn identity(&self, address: Option<&Address>, name: &str) -> Option<String> {
        self.catalogue.identity(&self.site(address), name)
    }

    /// Returns whether the server at `address` does not have the model, or only lists it.
    pub(super) fn lacks(&self, address: &Address, name: &str) -> bool {
        matches!(
            self.catalogue.check(&self.site(Some(address)), name),
            Err(ModelError::NotHere { .. } | ModelError::Incomplete { .. })
        )
    }

    /// Fails if the model is incomplete: a server that is told to load such a model unloads its own one before it
    /// fails.
    pub(super) fn check_at(&self, address: &Address, model: &Named<'_>) -> Result<(), AppError> {
        let checked = self.catalogue.check(&self.site(Some(address)), &model.name);
        checked.map_err(|error| self.failed(model.asked, error))
    }

    /// Fails if no model can have this name.
    pub(super) fn check_name(&self, address: &Address, model: &Named<'_>) -> Result<(), AppError> {
        match self.catalogue.check(&self.site(Some(address)), &model.name) {
            Err(error @ ModelError::InvalidName { .. }) => Err(self.failed(model.asked, error)),
            _ => Ok(()),
        }
    }

    /// Returns what the catalogue must be told; starts the server first if only the server knows the models.
    fn ready_site(&self, start_on_demand: bool) -> Result<Site<'_>, AppError> {
        if self.needs_server() {
            return Ok(self.site(Some(&self.endpoint(start_on_demand, None)?.address)));
        }
        Ok(self.site(self.service.address().as_ref()))
    }

    /// Returns what the catalogue must be told of the server at `address`.
    fn site(&self, address: Option<&Address>) -> Site<'_> {
        let server = self.service.server();
        let address = address.cloned();
        Site {
            address: address.clone(),
            places: self.places.of_resolved(),
            find_tool: Box::new(|name| self.app.find_tool(name, self.service)),
            log: Box::new(move || self.own_log(address.as_ref())),
            env: &server.env,
            load_timeout: server.startup_timeout.max(MIN_LOAD_TIMEOUT),
            cancel: self.cancel,
        }
    }

    /// Reads the beginning of the log of the server at `address`; empty unless fusion started it.
    fn own_log(&self, address: Option<&Address>) -> String {
        let running = self.app.manager(self.cancel).running(self.service).ok().flatten();
        let is_own = running.is_some_and(|endpoint| Some(&endpoint.address) == address);
        let log = || logs::beginning(&self.service.files.log).unwrap_or_default();
        is_own.then(log).unwrap_or_default()
    }

    /// Returns where the server listens; starts it first with `model` if it is not running.
    fn endpoint(&self, start_on_demand: bool, model: Option<String>) -> Result<Endpoint, AppError> {
        let options = UpOptions { model, ..UpOptions::default() };
        self.app.ensure_ready(self.service, start_on_demand, &options, self.cancel)
    }

    fn status(&self) -> Result<Status, AppError> {
        Ok(self.app.manager(self.cancel).status(self.service)?)
    }

    fn aliases(&self, model: &str) -> Vec<String> {
        aliases::of(self.app.table, self.runtime, &self.app.config, model, &self.places.of_configuration())
    }

    fn failed(&self, asked: &str, mut error: ModelError) -> AppError {
        match &mut error {
            ModelError::ToolMissing { comes_with, .. } => *comes_with = self.app.brings_hub_tool(),
            ModelError::Server { said, logged, advice } => {
                let said = [Some(&said.message), logged.as_ref()];
                *advice = said.into_iter().flatten().find_map(|said| self.service.advice(said, asked));
            }
            _ => {}
        }
        AppError::Model {
            service: Arc::clone(&self.service.name),
            asked: asked.to_owned(),
            error: Box::new(error),
        }
    }

    fn emit(&self, kind: EventKind) {
        self.app.events.emit(&self.service.name, kind);
    }
}

/// Returns every name by which the server at `address` answers, for a server that may ignore which one a request names;
/// `None` for others, and if it does not respond.
pub(super) fn served(runtime: &dyn Runtime, address: &Address) -> Option<Vec<String>> {
    let probe = runtime.served_models()?;
    let client = Client::with_timeout(address, LIST_TIMEOUT).with_long_responses();
    match client.get(probe.path).map(|response| (probe.read)(&response)) {
        Ok(Recognition::Ready(ServerFacts { models, .. })) => models,
        _ => None,
    }
}

/// Returns the models that are loaded now; `None` if that is not known.
fn loaded(status: &Status) -> Option<Vec<String>> {
    match status.state {
        State::Stopped | State::Exited => Some(Vec::new()),
        _ => status.models.clone(),
    }
}

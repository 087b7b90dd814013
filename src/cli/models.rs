//! How commands get at the models of a runtime: the names resolved, the server there if it is needed.

use std::time::Duration;

use crate::cli::Context;
use crate::cli::error::{Exit, Failure};
use crate::cli::progress::Progress;
use crate::core::address::Address;
use crate::core::aliases;
use crate::core::config::Config;
use crate::core::models::catalogue::{Catalogue, KeepAlive, ModelError, Site};
use crate::core::models::{Model, ModelPlaces};
use crate::core::process::signals;
use crate::core::programs;
use crate::core::runtimes::Runtime;
use crate::core::services::{Endpoint, ServiceManager, StartedBy, State, Status, Up, UpOptions};

/// One runtime's models, and what a command about them needs.
pub struct Models<'a> {
    context: &'a Context,
    /// Which runtime.
    pub runtime: &'static dyn Runtime,
    /// The whole configuration.
    pub config: &'a Config,
    catalogue: &'static dyn Catalogue,
    places: ModelPlaces,
}

/// A model as the user named it, and as the runtime knows it.
pub struct Named<'a> {
    /// As the user wrote it.
    pub asked: &'a str,
    /// As the runtime knows it.
    pub name: String,
}

impl<'a> Named<'a> {
    /// One that was resolved already.
    pub fn resolved(name: &'a str) -> Self {
        Self { asked: name, name: name.to_owned() }
    }
}

impl Context {
    /// The model that the user means by a name on the command line.
    pub fn model(&self, config: &Config, runtime: &dyn Runtime, name: &str) -> Model {
        aliases::resolve(runtime, config, name, &self.places(config, runtime))
    }

    /// Where models may lie, for names on the command line.
    pub fn places(&self, config: &Config, runtime: &dyn Runtime) -> ModelPlaces {
        ModelPlaces::discover(&self.environment, &self.paths, &config.runtime(runtime).server.env)
    }
}

impl<'a> Models<'a> {
    /// The models of `runtime`, which must be able to manage any.
    pub fn of(
        context: &'a Context,
        config: &'a Config,
        runtime: &'static dyn Runtime,
    ) -> Result<Self, Failure> {
        let catalogue = runtime.catalogue().ok_or_else(|| {
            let message = format!("fusion does not manage the models of {}", runtime.title());
            Failure::new(Exit::Failed, message)
        })?;
        Ok(Self { context, runtime, config, catalogue, places: context.places(config, runtime) })
    }

    /// What the name means here.
    pub fn named<'n>(&self, asked: &'n str) -> Named<'n> {
        Named { asked, name: self.context.model(self.config, self.runtime, asked).name }
    }

    /// Whether only the running server knows the models.
    pub fn needs_server(&self) -> bool {
        self.catalogue.needs_server()
    }

    /// Does something that needs the server only where only the server knows the models; it is started if need be.
    pub fn work<T>(
        &self,
        auto_up: bool,
        work: impl FnOnce(&dyn Catalogue, &Site<'_>) -> Result<T, ModelError>,
    ) -> Result<Result<T, ModelError>, Failure> {
        let address = if self.needs_server() {
            self.endpoint(auto_up, None)?.address
        } else {
            self.config.runtime(self.runtime).server.address.clone()
        };
        Ok(self.work_at(&address, work))
    }

    /// Does something with the server at `address`.
    pub fn work_at<T>(
        &self,
        address: &Address,
        work: impl FnOnce(&dyn Catalogue, &Site<'_>) -> Result<T, ModelError>,
    ) -> Result<T, ModelError> {
        let server = &self.config.runtime(self.runtime).server;
        let search = self.context.environment.path.as_deref();
        let program = programs::find(self.runtime, server, &self.context.paths, search);
        let site = Site {
            address,
            places: &self.places.of_resolved(),
            program: program.as_ref().ok().map(|program| program.path.as_path()),
            search,
            env: &server.env,
            load_timeout: server.startup_timeout.max(Duration::from_secs(60)),
            interrupted: &|| signals::pending().is_some(),
        };
        work(self.catalogue, &site)
    }

    /// Where the server answers; it is started first where `auto_up` and the configuration allow it, with `model` (as
    /// the runtime knows it) if it serves one.
    pub fn endpoint(&self, auto_up: bool, model: Option<String>) -> Result<Endpoint, Failure> {
        let auto_up = auto_up && self.config.runtime(self.runtime).run.start_on_demand;
        let options = UpOptions { model, ..UpOptions::default() };
        self.context.starting(self.config, |manager| {
            manager.ensure_ready(&manager.service(self.runtime), auto_up, &options)
        })
    }

    /// Has a server that is up load the model, which is downloaded first if it is missing.
    pub fn have_loaded(&self, model: &Named<'_>, up: Up) -> Result<Up, Failure> {
        match self.work_at(&up.endpoint.address, |catalogue, site| catalogue.check(site, &model.name)) {
            Ok(()) => {}
            Err(ModelError::NotHere { .. } | ModelError::Incomplete { .. }) => self.fetch(model, false)?,
            Err(error) => return Err(self.failure(model, &error)),
        }
        Ok(self.load(model, &up.endpoint, None)?.unwrap_or(up))
    }

    /// Has the server at `endpoint` load the model. One of fusion's own that has another model is started anew, so that
    /// it has this one whenever nobody names another; then that is returned.
    pub fn load(
        &self,
        model: &Named<'_>,
        endpoint: &Endpoint,
        keep_alive: Option<&KeepAlive>,
    ) -> Result<Option<Up>, Failure> {
        let is_other = endpoint.model.as_ref().is_some_and(|loaded| *loaded != model.name);
        if is_other && endpoint.started_by == StartedBy::Fusion && keep_alive.is_none() {
            let options = UpOptions { model: Some(model.name.clone()), ..UpOptions::default() };
            let restart =
                |manager: &ServiceManager<'_>| manager.restart(&manager.service(self.runtime), &options);
            return self.context.starting(self.config, restart).map(Some);
        }
        let loaded =
            self.work_at(&endpoint.address, |catalogue, site| catalogue.load(site, &model.name, keep_alive));
        loaded.map_err(|error| self.failure(model, &error))?;
        Ok(None)
    }

    /// What the server is doing, and where; nothing is started.
    pub fn status(&self) -> Result<Status, Failure> {
        Ok(self
            .context
            .with_services(self.config, |manager| manager.status(&manager.service(self.runtime)))?)
    }

    /// The words for what could not be done with a model.
    pub fn failure(&self, model: &Named<'_>, error: &ModelError) -> Failure {
        Failure::of_model(self.runtime.name(), model.asked, error)
    }

    /// Downloads the model, or what is missing of it, and shows how far that is.
    pub fn fetch(&self, model: &Named<'_>, auto_up: bool) -> Result<(), Failure> {
        let (address, _remembering) = if self.needs_server() {
            let address = self.endpoint(auto_up, None)?.address;
            // It notices by itself that nobody waits any more.
            signals::clean_terminal_on_death();
            (address, None)
        } else {
            // A tool must be ended.
            (self.config.runtime(self.runtime).server.address.clone(), Some(signals::remember()))
        };
        let mut progress = Progress::new(&self.context.ui, &model.name);
        let result = self.work_at(&address, |catalogue, site| {
            catalogue.pull(site, &model.name, &mut |step| progress.step(step))
        });
        drop(progress);
        result.map_err(|error| self.failure(model, &error))
    }

    /// The models that are loaded now; `None` when that is not known.
    pub fn loaded(&self, status: &Status) -> Option<Vec<String>> {
        match status.state {
            State::Stopped | State::Exited => Some(Vec::new()),
            _ => status.models.clone(),
        }
    }
}

//! Loads and unloads models.

use std::time::{Duration, Instant};

use super::{Models, Named, loaded};
use crate::app::diagnosis::model_failure;
use crate::app::error::AppError;
use crate::app::prompt::log_bytes;
use crate::core::address::Address;
use crate::core::models::catalogue::{KeepAlive, ModelError, Site};
use crate::core::services::{Endpoint, StartedBy, Up, UpOptions};

/// How long an unload waits for the model to finish its answer.
const UNLOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How often an unload asks whether the model is unloaded.
const UNLOAD_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What an unload has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unload {
    /// The model is not loaded.
    Done,
    /// The model still answers a request; the server unloads it after that.
    StillAnswering,
    /// Nothing is loaded, for the service is not running.
    NotRunning,
}

/// How a model is loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// How long it stays loaded after its last use.
    pub keep_alive: Option<KeepAlive>,
    /// Load it although it needs more memory than the machine has.
    pub force: bool,
    /// Fail if it is not on the GPU as a whole.
    pub require_gpu: bool,
}

impl Models<'_> {
    /// Loads the model; starts the server if it is not running and `start_on_demand`. A load that fails because the
    /// model is not on the GPU leaves neither the model nor a server that it started.
    pub fn load(
        &self,
        model: &Named<'_>,
        start_on_demand: bool,
        options: &LoadOptions,
    ) -> Result<(), AppError> {
        if !options.require_gpu {
            let endpoint = self.load_anywhere(model, start_on_demand, options)?;
            return self.app.check_gpu(self.service, &endpoint, false, self.cancel);
        }
        let before = self.app.manager(self.cancel).find_endpoint(self.service)?;
        let is_loaded = loaded(&self.status()?).is_some_and(|loaded| loaded.contains(&model.name));
        let endpoint = self.load_anywhere(model, start_on_demand, options)?;
        self.app.check_gpu(self.service, &endpoint, true, self.cancel).inspect_err(|_| {
            match before {
                None => self.app.stop_failed(self.service),
                Some(_) if is_loaded => {}
                // The failure that led to it is the one to be told.
                Some(_) => {
                    let _ = self.unload_at(&self.site(Some(&endpoint.address)), model);
                }
            }
        })
    }

    /// Loads the model, and returns where.
    fn load_anywhere(
        &self,
        model: &Named<'_>,
        start_on_demand: bool,
        options: &LoadOptions,
    ) -> Result<Endpoint, AppError> {
        let LoadOptions { keep_alive, force, .. } = options;
        let force = *force;
        self.app.check_model_settings(self.service, &model.name)?;
        self.app.manager(self.cancel).refuse_other_program(self.service)?;
        if !self.needs_server() {
            let checked = self.catalogue.check(&self.ready_site(false)?, &model.name);
            checked.map_err(|error| self.failed(model.asked, error))?;
            self.app.admit_start(self.service, Some(&model.name), force, self.cancel)?;
        }
        let keep_alive = keep_alive.as_ref().or(self.configured_keep_alive(&model.name));
        let endpoint = self.endpoint(start_on_demand, Some(model.name.clone()))?;
        self.admit_into(&endpoint, &model.name, force)?;
        if !self.catalogue.restarts_to_load() {
            self.load_into(&endpoint.address, model, keep_alive)?;
            return Ok(endpoint);
        }
        Ok(self.load_at(model, &endpoint, keep_alive)?.map_or(endpoint, |up| up.endpoint))
    }

    /// Loads the model into a running server; downloads the model first if it is missing.
    pub(in crate::app) fn ensure_loaded(
        &self,
        model: &Named<'_>,
        up: Up,
        force: bool,
    ) -> Result<Up, AppError> {
        match self.catalogue.check(&self.site(Some(&up.endpoint.address)), &model.name) {
            Ok(()) => {}
            Err(error) if error.is_pullable() => self.pull(model, false)?,
            Err(error) => return Err(self.failed(model.asked, error)),
        }
        self.admit_into(&up.endpoint, &model.name, force)?;
        let keep_alive = self.configured_keep_alive(&model.name);
        Ok(self.load_at(model, &up.endpoint, keep_alive)?.unwrap_or(up))
    }

    /// Loads the model into the server at `endpoint`. A server that fusion started with another model is restarted with
    /// this one, because a request without a model gets the model of the start; then returns that start.
    fn load_at(
        &self,
        model: &Named<'_>,
        endpoint: &Endpoint,
        keep_alive: Option<&KeepAlive>,
    ) -> Result<Option<Up>, AppError> {
        let is_other = endpoint.model.as_ref().is_some_and(|loaded| *loaded != model.name);
        if is_other && endpoint.started_by == StartedBy::Fusion && keep_alive.is_none() {
            let options = UpOptions { model: Some(model.name.clone()), ..UpOptions::default() };
            return self.app.restart(self.service, &options, self.cancel).map(Some);
        }
        self.load_into(&endpoint.address, model, keep_alive)?;
        Ok(None)
    }

    /// Loads the model into the server at `address`, whose log may say why that fails.
    fn load_into(
        &self,
        address: &Address,
        model: &Named<'_>,
        keep_alive: Option<&KeepAlive>,
    ) -> Result<(), AppError> {
        let log_bytes = log_bytes(self.service);
        let is_ours = self.app.manager(self.cancel).running(self.service)?.is_some();
        let loaded = self.catalogue.load(&self.site(Some(address)), &model.name, keep_alive);
        loaded.map_err(|mut error| {
            if let ModelError::Server { logged, .. } = &mut error {
                *logged = is_ours.then(|| model_failure(self.service, log_bytes)).flatten();
            }
            self.failed(model.asked, error)
        })
    }

    /// Returns how long `[models]` keeps the model loaded, for a server that loads and unloads by itself.
    fn configured_keep_alive(&self, model: &str) -> Option<&KeepAlive> {
        let settings = self.app.model_settings(self.service, model).filter(|_| self.needs_server());
        settings?.keep_alive.as_ref()
    }

    /// Checks that the model fits into the memory, for a server that knows its models and has not loaded this one.
    pub(in crate::app) fn admit_into(
        &self,
        endpoint: &Endpoint,
        name: &str,
        force: bool,
    ) -> Result<(), AppError> {
        let is_loaded =
            || self.catalogue.is_loaded(&self.site(Some(&endpoint.address)), name).unwrap_or(true);
        if !self.needs_server() || is_loaded() {
            return Ok(());
        }
        self.app.admit_from(self, self.service, name, Some(&endpoint.address), force)
    }

    /// Loads the model into the server at `address`, as a prompt would.
    pub(in crate::app) fn load_for_prompt(
        &self,
        address: &Address,
        model: &Named<'_>,
    ) -> Result<(), AppError> {
        self.load_into(address, model, self.configured_keep_alive(&model.name))
    }

    /// Unloads the model, and waits until its memory is free, but not long for one that still answers a request.
    pub fn unload(&self, model: &Named<'_>) -> Result<Unload, AppError> {
        let status = self.status()?;
        if !status.state.is_running() {
            return Ok(Unload::NotRunning);
        }
        let unloaded = self.unload_at(&self.site(status.address.as_ref()), model);
        unloaded.map_err(|error| self.failed(model.asked, error))
    }

    /// Unloads the model, and waits as [`unload`](Self::unload) does.
    pub(super) fn unload_at(&self, site: &Site<'_>, model: &Named<'_>) -> Result<Unload, ModelError> {
        self.catalogue.unload(site, &model.name)?;
        let deadline = Instant::now() + UNLOAD_TIMEOUT;
        while self.catalogue.is_loaded(site, &model.name)? {
            self.cancel.check().map_err(|_| ModelError::Cancelled)?;
            if Instant::now() >= deadline {
                return Ok(Unload::StillAnswering);
            }
            std::thread::sleep(UNLOAD_POLL_INTERVAL);
        }
        Ok(Unload::Done)
    }
}

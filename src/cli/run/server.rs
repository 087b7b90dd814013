//! Where the prompt is sent: to what fusion started, else to the configured address, and started only when nobody
//! listens there.

use std::time::Duration;

use serde_json::Value;

use crate::cli::Context;
use crate::cli::error::Failure;
use crate::cli::models::{Models, Named};
use crate::core::address::Address;
use crate::core::api::Client;
use crate::core::config::Config;
use crate::core::models::Model;
use crate::core::runtimes::Runtime;
use crate::core::services::{Endpoint, ServiceError, UpOptions};

/// How long a server that somebody else started may take to list its models.
const LIST_LIMIT: Duration = Duration::from_secs(2);

/// The server of a runtime.
pub(super) struct Server<'a> {
    context: &'a Context,
    config: &'a Config,
    runtime: &'static dyn Runtime,
    /// Where it is if it runs.
    pub(super) address: Address,
    /// What fusion started, if that is it.
    started: Option<Endpoint>,
}

impl<'a> Server<'a> {
    /// Looks at the record and the kernel only, and makes no request.
    pub(super) fn find(
        context: &'a Context,
        config: &'a Config,
        runtime: &'static dyn Runtime,
    ) -> Result<Self, Failure> {
        let started = context.with_services(config, |manager| manager.running(&manager.service(runtime)))?;
        let configured = &config.runtime(runtime).server.address;
        let address = started.as_ref().map_or(configured, |endpoint| &endpoint.address).clone();
        Ok(Self { context, config, runtime, address, started })
    }

    /// Whether it is right to ask this server for `model`: a server that does not have it might download it, or
    /// unload the one it has before it finds out. Then, whether it loads that model in place of another.
    pub(super) fn expect_model(&self, model: &Model) -> Result<bool, Failure> {
        let loaded = self.loaded();
        if loaded == Some(&model.name) {
            return Ok(false);
        }
        if model.present == Some(false) && (self.started.is_some() || self.lacks(&model.name)) {
            return Err(Failure::from(ServiceError::ModelMissing {
                runtime: self.runtime.name(),
                model: model.name.clone(),
                fetch: self.runtime.fetch_command(&model.name),
                said: None,
            }));
        }
        let Some(loaded) = loaded else { return Ok(false) };
        self.expect_whole(model)?;
        let (runtime, model) = (self.runtime.name(), &model.name);
        self.context.ui.note(&format!("{runtime} has {loaded} loaded, and loads {model} instead now"));
        self.record(model)?;
        Ok(true)
    }

    /// The other model could not be loaded: what the server is known by is again the one that it had.
    pub(super) fn take_back(&self) -> Result<(), Failure> {
        self.loaded().map_or(Ok(()), |loaded| self.record(loaded))
    }

    /// The model that the server is known to have, if fusion started it.
    fn loaded(&self) -> Option<&String> {
        self.started.as_ref()?.model.as_ref()
    }

    fn record(&self, model: &str) -> Result<(), Failure> {
        let Some(endpoint) = &self.started else { return Ok(()) };
        Ok(self.context.with_services(self.config, |manager| {
            manager.record_model(&manager.service(self.runtime), endpoint, model);
            Ok(())
        })?)
    }

    /// A server that is told to load a damaged model lets go of the one it has, and then says that it cannot.
    fn expect_whole(&self, model: &Model) -> Result<(), Failure> {
        if self.runtime.catalogue().is_none() || model.present != Some(true) {
            return Ok(());
        }
        let models = Models::of(self.context, self.config, self.runtime)?;
        let named = Named::resolved(&model.name);
        models
            .work_at(&self.address, |catalogue, site| catalogue.check(site, &named.name))
            .map_err(|error| models.failure(&named, &error))
    }

    /// Whether a server of somebody else lists its models, and not this one.
    fn lacks(&self, model: &str) -> bool {
        let reply = Client::with_limit(&self.address, LIST_LIMIT).get("/v1/models");
        let list = reply.ok().and_then(|reply| serde_json::from_slice::<Value>(&reply.body).ok());
        let models = list.as_ref().and_then(|list| list["data"].as_array());
        models.is_some_and(|models| models.iter().all(|listed| listed["id"] != model))
    }

    /// Has it started with `model`, unless it is starting already; false when it runs already as far as can be told.
    /// With `install`, its program is installed first if it is missing.
    pub(super) fn start(&self, model: &str, auto_up: bool, install: bool) -> Result<bool, Failure> {
        if auto_up {
            let is_starting = self
                .context
                .with_services(self.config, |manager| manager.is_starting(&manager.service(self.runtime)))?;
            let what =
                if is_starting { "starting, and is waited for" } else { "not running, and is started first" };
            self.context.ui.note(&format!("{} is {what}", self.runtime.name()));
            let options = UpOptions { model: Some(model.to_owned()), ..UpOptions::default() };
            self.context.up(self.config, self.runtime, &options, install)?;
            return Ok(true);
        }
        let look = self.context.with_services(self.config, |manager| {
            manager.ensure_ready(&manager.service(self.runtime), false, &UpOptions::default())
        });
        look.map(|_| false).map_err(Failure::from)
    }
}

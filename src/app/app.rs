//! [`App`]: the configuration, its services, and what every use case needs.

use std::sync::Arc;

use super::flight::Flights;
use super::gateway;
use super::services;
use crate::core::aliases;
use crate::core::cancel::CancelToken;
use crate::core::config::{Config, ModelSettings};
use crate::core::events::EventBus;
use crate::core::helper::HelperOutput;
use crate::core::models::{Model, ModelPlaces};
use crate::core::paths::Paths;
use crate::core::process::ProcessDriver;
use crate::core::runtimes::Table;
use crate::core::services::{ManagedService, ServiceError, ServiceManager, Up};
use crate::env::Environment;

/// The result of a start, which all who wait for it share.
pub(super) type SharedUp = Result<Up, Arc<ServiceError>>;

/// The entry point of every front end. Owned, so threads can share it and a gateway can keep it.
pub struct App {
    /// The runtimes that fusion knows.
    pub table: Table,
    pub config: Config,
    pub paths: Paths,
    pub environment: Environment,
    pub driver: Arc<dyn ProcessDriver>,
    pub events: EventBus,
    /// Where installers print.
    pub helper_output: HelperOutput,
    services: Vec<ManagedService>,
    gateway: ManagedService,
    pub(super) starts: Flights<SharedUp>,
}

impl App {
    /// Returns an app with the services of the table, of the configuration and of the records.
    pub fn new(
        table: Table,
        config: Config,
        paths: Paths,
        environment: Environment,
        driver: Arc<dyn ProcessDriver>,
        events: EventBus,
        helper_output: HelperOutput,
    ) -> Self {
        let services = services::all(table, &config, &paths);
        let gateway = gateway::service(&config, &paths, &environment);
        let starts = Flights::default();
        Self { table, config, paths, environment, driver, events, helper_output, services, gateway, starts }
    }

    /// Returns the same app with another configuration. It shares no start that is under way.
    #[must_use]
    pub fn with_config(&self, config: Config) -> Self {
        Self::new(
            self.table,
            config,
            self.paths.clone(),
            self.environment.clone(),
            Arc::clone(&self.driver),
            self.events.clone(),
            self.helper_output.clone(),
        )
    }

    /// Returns every service: the built-in ones in the order of the table, then the instances in that of the file, then
    /// those whose table is gone while they run.
    pub fn services(&self) -> &[ManagedService] {
        &self.services
    }

    /// Returns the service called `name`.
    pub fn service(&self, name: &str) -> Option<&ManagedService> {
        self.services.iter().find(|service| *service.name == *name)
    }

    /// Returns the gateway, which is a service of its own kind: it is none of [`services`](Self::services).
    pub fn gateway(&self) -> &ManagedService {
        &self.gateway
    }

    /// Returns the gateway, if fusion has started it.
    pub fn recorded_gateway(&self) -> Option<&ManagedService> {
        Some(&self.gateway).filter(|gateway| gateway.files.state.exists())
    }

    /// Returns the manager that starts, stops and observes services until `cancel` is cancelled.
    pub fn manager<'a>(&'a self, cancel: &'a CancelToken) -> ServiceManager<'a> {
        ServiceManager {
            table: self.table,
            driver: &*self.driver,
            events: &self.events,
            cancel,
            config: &self.config,
            paths: &self.paths,
            environment: &self.environment,
            sockets: None,
        }
    }

    /// Returns where models of `service` are looked up, for names from the command line.
    pub fn places(&self, service: &ManagedService) -> ModelPlaces {
        service.places(&self.environment, &self.paths)
    }

    /// Returns the model that `name` means on the command line.
    pub fn model(&self, service: &ManagedService, name: &str) -> Model {
        match service.runtime() {
            Some(runtime) => aliases::resolve(runtime, &self.config, name, &self.places(service)),
            None => Model { name: name.to_owned(), present: None },
        }
    }

    /// Returns what `[models]` says of the model with this resolved name.
    pub fn model_settings(&self, service: &ManagedService, model: &str) -> Option<&ModelSettings> {
        let places = self.places(service).of_configuration();
        aliases::settings(service.runtime()?, &self.config, model, &places)
    }

    /// Returns the model that `name` means in the configuration.
    pub fn configured_model(&self, service: &ManagedService, name: &str) -> Model {
        let places = self.places(service).of_configuration();
        match service.runtime() {
            Some(runtime) => aliases::resolve(runtime, &self.config, name, &places),
            None => Model { name: name.to_owned(), present: None },
        }
    }
}

//! [`App`]: the configuration, the services it names, and the machinery that every use case works with.

use std::sync::Arc;

use super::flight::Flights;
use crate::core::aliases;
use crate::core::cancel::CancelToken;
use crate::core::config::Config;
use crate::core::events::EventBus;
use crate::core::helper::HelperOutput;
use crate::core::models::{Model, ModelPlaces};
use crate::core::paths::Paths;
use crate::core::process::ProcessDriver;
use crate::core::runtimes::{Runtime, Table};
use crate::core::services::{ManagedService, ServiceError, ServiceManager, Up};
use crate::core::templates::Template;
use crate::env::Environment;

/// What a front end works with. Owned, so that it can be shared between threads and live as long as a gateway.
pub struct App {
    /// The runtimes there are.
    pub table: Table,
    /// The configuration that holds.
    pub config: Config,
    /// Where everything lies.
    pub paths: Paths,
    /// The process environment.
    pub environment: Environment,
    /// The operating system.
    pub driver: Arc<dyn ProcessDriver>,
    /// Brings what happens to subscribers.
    pub events: EventBus,
    /// Where the output of installing programs goes.
    pub helper_output: HelperOutput,
    services: Vec<ManagedService>,
    pub(super) starts: Flights<Result<Up, Arc<ServiceError>>>,
}

impl App {
    /// Returns an app with the services that the configuration names: one for each runtime of the table.
    pub fn new(
        table: Table,
        config: Config,
        paths: Paths,
        environment: Environment,
        driver: Arc<dyn ProcessDriver>,
        events: EventBus,
        helper_output: HelperOutput,
    ) -> Self {
        let service = |runtime: &'static dyn Runtime| {
            Some(ManagedService {
                name: runtime.name().into(),
                template: Template::Runtime(runtime),
                settings: config.service(runtime.name())?,
                files: paths.runtime(runtime.name()),
            })
        };
        let services = table.iter().copied().filter_map(service).collect();
        let starts = Flights::default();
        Self { table, config, paths, environment, driver, events, helper_output, services, starts }
    }

    /// Returns every service, in the order in which they are listed.
    pub fn services(&self) -> &[ManagedService] {
        &self.services
    }

    /// Returns the service called `name`.
    pub fn service(&self, name: &str) -> Option<&ManagedService> {
        self.services.iter().find(|service| *service.name == *name)
    }

    /// Returns what starts, stops and watches services, until `cancel` asks it to stop early.
    pub fn manager<'a>(&'a self, cancel: &'a CancelToken) -> ServiceManager<'a> {
        ServiceManager {
            driver: &*self.driver,
            events: &self.events,
            cancel,
            config: &self.config,
            paths: &self.paths,
            environment: &self.environment,
        }
    }

    /// Returns where the models of `service` may lie, for names that the user gives.
    pub fn places(&self, service: &ManagedService) -> ModelPlaces {
        ModelPlaces::discover(&self.environment, &self.paths, &service.server().env)
    }

    /// Returns the model that the user means by `name`.
    pub fn model(&self, service: &ManagedService, name: &str) -> Model {
        match service.runtime() {
            Some(runtime) => aliases::resolve(runtime, &self.config, name, &self.places(service)),
            None => Model { name: name.to_owned(), present: None },
        }
    }

    /// Returns the model that the configuration means by `name`.
    pub fn configured_model(&self, service: &ManagedService, name: &str) -> Model {
        let places = self.places(service).of_configuration();
        match service.runtime() {
            Some(runtime) => aliases::resolve(runtime, &self.config, name, &places),
            None => Model { name: name.to_owned(), present: None },
        }
    }
}

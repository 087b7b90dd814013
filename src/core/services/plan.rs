//! Plans a start: program, arguments, environment, model; and checks the model before the start.

use std::ffi::OsString;
use std::path::Path;

use super::error::ServiceError;
use super::manager::ServiceManager;
use super::record::{self, InstanceId, Record};
use super::service::ManagedService;
use crate::core::aliases;
use crate::core::models::catalogue::Site;
use crate::core::models::{Model, ModelPlaces, expand_home};
use crate::core::process::ProcessSpec;
use crate::core::programs::{self, Program, ProgramError};
use crate::core::runtimes::{self, Runtime};
use crate::core::templates::Template;

/// A start with everything it needs.
pub(super) struct StartPlan {
    pub(super) spec: ProcessSpec,
    /// The record of the start, without the process.
    pub(super) record: Record,
}

impl ServiceManager<'_> {
    /// Plans a start with `model`, or with the configured model if `None`. Fails when the program or the model is
    /// missing.
    pub(super) fn plan(
        &self,
        service: &ManagedService,
        model: Option<&str>,
        started_at: u64,
    ) -> Result<StartPlan, ServiceError> {
        let instance = InstanceId::random()?;
        let configured = self.server_model(service, None);
        let model = self.server_model(service, model);
        let program = self.program(service)?;
        let spec = self.process_spec(service, &program, model.as_ref(), &instance);
        if let Some(model) = &model {
            self.check_model(service, model)?;
        }
        let address = &service.server().address;
        let mut record = Record::intent(&spec, instance.clone(), address, started_at);
        if configured != model {
            // The fingerprint covers the configuration, so it uses the configured model.
            let spec = self.process_spec(service, &program, configured.as_ref(), &instance);
            record.fingerprint = record::fingerprint(&spec, address);
        }
        record.model = model.map(|model| model.name);
        record.version = service.runtime().and_then(|runtime| programs::version(runtime, &program));
        Ok(StartPlan { spec, record })
    }

    /// Returns whether a start now would differ from `record`; `None` if the program cannot be found.
    pub(super) fn has_changed(&self, service: &ManagedService, record: &Record) -> Option<bool> {
        let model = self.server_model(service, None);
        let program = self.program(service).ok()?;
        let spec = self.process_spec(service, &program, model.as_ref(), &record.instance);
        Some(record::fingerprint(&spec, &service.server().address) != record.fingerprint)
    }

    /// Returns the model for the server: `requested`, else the configured one; `None` for servers that take none.
    fn server_model(&self, service: &ManagedService, requested: Option<&str>) -> Option<Model> {
        let configured = service.server().model.as_deref()?;
        let runtime = service.runtime()?;
        Some(match requested {
            Some(name) => runtime.resolve_model(name, &self.places(service).of_resolved()),
            None => self.configured_model(service, runtime, configured),
        })
    }

    /// Resolves a model name of the configuration.
    pub(super) fn configured_model(
        &self,
        service: &ManagedService,
        runtime: &dyn Runtime,
        name: &str,
    ) -> Model {
        let places = self.places(service).of_configuration();
        aliases::resolve(runtime, self.config, name, &places)
    }

    fn places(&self, service: &ManagedService) -> ModelPlaces {
        service.places(self.environment, self.paths)
    }

    /// Checks the model before the start: a server takes long to fail on an incomplete model, with an unclear
    /// message.
    fn check_model(&self, service: &ManagedService, model: &Model) -> Result<(), ServiceError> {
        let catalogue = service.runtime().and_then(super::super::runtimes::Runtime::catalogue);
        let Some(catalogue) = catalogue.filter(|catalogue| !catalogue.needs_server()) else {
            let is_missing = model.present == Some(false);
            return if is_missing {
                Err(ServiceError::missing_model(service, &model.name, None))
            } else {
                Ok(())
            };
        };
        let server = service.server();
        let site = Site {
            address: &server.address,
            places: &self.places(service).of_resolved(),
            program: None,
            search: self.environment.path.as_deref(),
            env: &server.env,
            load_timeout: server.startup_timeout,
            cancel: self.cancel,
        };
        catalogue.check(&site, &model.name).map_err(|error| ServiceError::Model {
            service: service.name.clone(),
            model: model.name.clone(),
            error: Box::new(error),
        })
    }

    /// Returns the program that a start would run now.
    pub fn program(&self, service: &ManagedService) -> Result<Program, ProgramError> {
        let search = self.environment.path.as_deref();
        match &service.template {
            Template::Runtime(runtime) => {
                programs::find(&service.name, *runtime, service.server(), self.paths, search)
            }
        }
    }

    fn process_spec(
        &self,
        service: &ManagedService,
        program: &Program,
        model: Option<&Model>,
        instance: &InstanceId,
    ) -> ProcessSpec {
        let server = service.server();
        let variables = self.environment.variables.keys();
        let without = variables.filter(|name| runtimes::is_withheld(self.table, name)).cloned().collect();
        let launch = service.template.launch(&server.address, model, &self.places(service).of_resolved());
        let words = program.args.iter().cloned().chain(launch.args).chain(server.args.iter().cloned());
        let home = self.environment.home.as_deref();
        let paths = service.template.path_variables();
        let expanded = |name: &str, value: &str| {
            if paths.contains(&name) {
                expand_home(Path::new(value), home).into_os_string()
            } else {
                value.into()
            }
        };
        let configured = server.env.iter().map(|(name, value)| (name.clone(), expanded(name, value)));
        let cache = self.places(service).hub_cache_variable().map(|(name, value)| (name, value.into()));
        let env =
            launch.env.into_iter().map(|(name, value)| (name, value.into())).chain(configured).chain(cache);
        ProcessSpec {
            program: program.path.clone(),
            args: words.map(OsString::from).collect(),
            without,
            env: env.map(|(name, value)| (name.into(), value)).collect(),
            directory: service.files.directory.clone(),
            log: Some(service.files.log.clone()),
            instance: instance.as_str().to_owned(),
        }
    }
}

//! What exactly is started: program, arguments, environment, model.

use std::ffi::OsString;

use super::record::{self, InstanceId, Record};
use super::{ManagedService, ServiceError, ServiceManager};
use crate::core::aliases;
use crate::core::models::catalogue::Site;
use crate::core::models::{Model, ModelPlaces};
use crate::core::process::ProcessSpec;
use crate::core::programs::{self, Program, ProgramError};

/// A start that can be made.
pub(super) struct Plan {
    pub(super) spec: ProcessSpec,
    /// As it will be recorded, without the process.
    pub(super) record: Record,
}

impl ServiceManager<'_> {
    /// What is to be started, with `model` instead of the configured one if given. An error says what is missing:
    /// the program, or the model.
    pub(super) fn plan(
        &self,
        service: &ManagedService<'_>,
        model: Option<&str>,
        started_at: u64,
    ) -> Result<Plan, ServiceError> {
        let instance = InstanceId::random()?;
        let configured = self.server_model(service, None);
        let model = self.server_model(service, model);
        let program = self.program(service)?;
        let spec = process_spec(service, &program, model.as_ref(), &instance);
        if let Some(model) = &model {
            self.check_model(service, model)?;
        }
        let address = &service.config.server.address;
        let mut record = Record::intent(&spec, instance.clone(), address, started_at);
        if configured != model {
            // What is compared with the configuration is what the configuration said.
            let spec = process_spec(service, &program, configured.as_ref(), &instance);
            record.fingerprint = record::fingerprint(&spec, address);
        }
        record.model = model.map(|model| model.name);
        record.version = programs::version(service.runtime, &program);
        Ok(Plan { spec, record })
    }

    /// Whether the service would be started differently now. `None` when that cannot be told.
    pub(super) fn has_changed(&self, service: &ManagedService<'_>, record: &Record) -> Option<bool> {
        let model = self.server_model(service, None);
        let program = self.program(service).ok()?;
        let spec = process_spec(service, &program, model.as_ref(), &record.instance);
        Some(record::fingerprint(&spec, &service.config.server.address) != record.fingerprint)
    }

    /// The model a server is started with: `asked`, else the configured one; `None` for servers that take none.
    fn server_model(&self, service: &ManagedService<'_>, asked: Option<&str>) -> Option<Model> {
        let configured = service.config.server.model.as_deref()?;
        Some(match asked {
            Some(name) => service.runtime.resolve_model(name, &self.places(service).of_resolved()),
            None => self.configured_model(service, configured),
        })
    }

    /// What the name of a model in the configuration means.
    pub(super) fn configured_model(&self, service: &ManagedService<'_>, name: &str) -> Model {
        let places = self.places(service).of_configuration();
        aliases::resolve(service.runtime, self.config, name, &places)
    }

    fn places(&self, service: &ManagedService<'_>) -> ModelPlaces {
        ModelPlaces::discover(self.environment, self.paths, &service.config.server.env)
    }

    /// A server that is started with a model that is not whole takes long to say so, and says it badly.
    fn check_model(&self, service: &ManagedService<'_>, model: &Model) -> Result<(), ServiceError> {
        let Some(catalogue) = service.runtime.catalogue().filter(|catalogue| !catalogue.needs_server())
        else {
            let is_missing = model.present == Some(false);
            return if is_missing { Err(missing_model(service, &model.name, None)) } else { Ok(()) };
        };
        let server = &service.config.server;
        let site = Site {
            address: &server.address,
            places: &self.places(service).of_resolved(),
            program: None,
            search: self.environment.path.as_deref(),
            env: &server.env,
            load_timeout: server.startup_timeout,
            interrupted: &|| (self.interrupted)().is_some(),
        };
        catalogue.check(&site, &model.name).map_err(|error| ServiceError::Model {
            runtime: service.runtime.name(),
            model: model.name.clone(),
            error: Box::new(error),
        })
    }

    /// The program that would be started now.
    pub fn program(&self, service: &ManagedService<'_>) -> Result<Program, ProgramError> {
        let search = self.environment.path.as_deref();
        programs::find(service.runtime, &service.config.server, self.paths, search)
    }
}

fn process_spec(
    service: &ManagedService<'_>,
    program: &Program,
    model: Option<&Model>,
    instance: &InstanceId,
) -> ProcessSpec {
    let server = &service.config.server;
    let launch = service.runtime.launch(&server.address, model);
    let words = program.args.iter().cloned().chain(launch.args).chain(server.args.iter().cloned());
    let configured = server.env.iter().map(|(name, value)| (name.clone(), value.clone()));
    let env = launch.env.into_iter().chain(configured);
    ProcessSpec {
        program: program.path.clone(),
        args: words.map(OsString::from).collect(),
        env: env.map(|(name, value)| (name.into(), value.into())).collect(),
        directory: service.files.directory.clone(),
        log: Some(service.files.log.clone()),
        instance: instance.as_str().to_owned(),
    }
}

pub(super) fn missing_model(service: &ManagedService<'_>, model: &str, said: Option<String>) -> ServiceError {
    ServiceError::ModelMissing {
        runtime: service.runtime.name(),
        model: model.to_owned(),
        fetch: service.runtime.fetch_command(model),
        said,
    }
}

//! Plans a start: program, arguments, environment, model; and checks the model before the start.

use std::ffi::OsString;
use std::path::Path;
use std::time::SystemTime;

use super::error::ServiceError;
use super::facets;
use super::manager::ServiceManager;
use super::presets::PresetFile;
use super::record::{self, InstanceId, Record};
use super::scope::Scope;
use super::service::{ManagedService, Origin};
use crate::core::address::Address;
use crate::core::aliases;
use crate::core::models::catalogue::Site;
use crate::core::models::{Model, ModelPlaces, expand_home};
use crate::core::process::ProcessSpec;
use crate::core::programs::{self, Program, ProgramError, Source};
use crate::core::runtimes::{self, Runtime};
use crate::core::templates::Template;

/// A start with everything it needs.
pub(super) struct StartPlan {
    pub(super) spec: ProcessSpec,
    /// The record of the start, without the process.
    pub(super) record: Record,
    /// A file that must be there before the start.
    pub(super) preset: Option<PresetFile>,
}

impl ServiceManager<'_> {
    /// Plans a start on `address` with `model`, or with the configured model if `None`. Fails when the program or the
    /// model is missing.
    pub(super) fn plan(
        &self,
        service: &ManagedService,
        address: &Address,
        model: Option<&str>,
        started_at: SystemTime,
    ) -> Result<StartPlan, ServiceError> {
        let instance = InstanceId::random(&self.mark_of(service)?)?;
        let configured = self.server_model(service, None);
        let model = self.server_model(service, model);
        let program = self.program(service)?;
        let project_root = self.environment.project_directory();
        let scope = self.scope(service, Some(address), project_root.as_deref())?;
        let spec = self.process_spec(&scope, service, &program, address, model.as_ref(), &instance)?;
        check_directory(service, &spec.directory)?;
        if let Some(model) = &model {
            self.check_model(service, model)?;
        }
        let preset = if model.is_none() { self.preset_file(service) } else { None };
        let mut record = Record::intent(&spec, instance.clone(), address, started_at);
        let names_directory = service.settings.instance.working_dir.is_some();
        record.facets = facets::of(&spec, address, names_directory);
        if configured != model {
            // The fingerprint covers the configuration, so it uses the configured model.
            let spec =
                self.process_spec(&scope, service, &program, address, configured.as_ref(), &instance)?;
            record.fingerprint = record::fingerprint(&spec, address);
            record.facets = facets::of(&spec, address, names_directory);
        }
        record.template = Some(service.template.name().to_owned());
        record.runtime = service.runtime().map(|runtime| runtime.name().to_owned());
        record.project_root = project_root.filter(|_| service.has_placeholders());
        record.model = model.map(|model| model.name);
        record.version = service.runtime().and_then(|runtime| programs::version(runtime, &program));
        Ok(StartPlan { spec, record, preset })
    }

    /// Returns the mark in the instance ids of the service.
    pub(super) fn mark_of(&self, service: &ManagedService) -> Result<String, ServiceError> {
        Ok(InstanceId::mark(&self.driver.host()?, self.paths.directory(), &service.name))
    }

    /// Returns in what a start now would differ from `record`, and `None` if in nothing, or if the program cannot be
    /// found. Of a start by an older version it is not known in what.
    pub(super) fn changes(&self, service: &ManagedService, record: &Record) -> Option<Vec<String>> {
        // A record that was lost and found again does not know it.
        if service.origin == Origin::Removed || record.fingerprint.is_empty() {
            return None;
        }
        // Every other difference follows from it, also where the program of the new one is missing.
        if record.template.as_ref().is_some_and(|template| template != service.template.name()) {
            return Some(vec!["template".to_owned()]);
        }
        let model = self.server_model(service, None);
        let program = self.program(service).ok()?;
        // A chosen port is no part of the configuration.
        let (host, port) = (service.server().host.clone(), service.server().port);
        let address = Address { host, port: port.unwrap_or(record.address.port) };
        let spec_at = |address: &Address| {
            let scope = self.scope(service, Some(address), record.project_root.as_deref()).ok()?;
            self.process_spec(&scope, service, &program, address, model.as_ref(), &record.instance).ok()
        };
        let has_changed = record::fingerprint(&spec_at(&address)?, &address) != record.fingerprint;
        let names_directory = service.settings.instance.working_dir.is_some();
        if !has_changed && !names_directory && !record.facets.contains_key(facets::WORKING_DIR) {
            return None;
        }
        // At the recorded address, so what follows from another one is not named beside it.
        let now = facets::of(&spec_at(&record.address)?, &address, names_directory);
        let recorded = Some(&record.facets).filter(|facets| !facets.is_empty());
        let differences = recorded.map_or_else(Vec::new, |recorded| facets::differences(recorded, &now));
        (has_changed || !differences.is_empty()).then_some(differences)
    }

    /// Returns the model for the server: `requested`, else the configured one; `None` for servers that take none.
    fn server_model(&self, service: &ManagedService, requested: Option<&str>) -> Option<Model> {
        let Template::Runtime(runtime) = service.template else { return None };
        let configured = service.server().model.as_deref().filter(|_| runtime.takes_model())?;
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
            address: None,
            places: self.places(service).of_resolved(),
            find_tool: Box::new(|_| None),
            log: Box::new(String::new),
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

    /// Fails if the working directory of an instance is missing.
    pub fn check_working_dir(&self, service: &ManagedService) -> Result<(), ServiceError> {
        let project_root = self.environment.project_directory();
        let address = service.address();
        let scope = self.scope(service, address.as_ref(), project_root.as_deref())?;
        scope.working_dir().map_or(Ok(()), |directory| check_directory(service, directory))
    }

    /// Returns the program that a start would run now.
    pub fn program(&self, service: &ManagedService) -> Result<Program, ProgramError> {
        let search = self.environment.path.as_deref();
        match &service.template {
            Template::Runtime(runtime) => {
                programs::find(&service.name, *runtime, service.server(), self.paths, search)
            }
            Template::Program(template) => {
                let words = template.settings.command_line().words;
                let program = words.first().map_or("", String::as_str);
                let project_root = self.environment.project_directory();
                let address = service.address();
                let scope = self.scope(service, address.as_ref(), project_root.as_deref());
                // A placeholder without a value is told at the start.
                let scope = scope.ok();
                let expanded = scope.as_ref().and_then(|scope| scope.expand(program).ok());
                let program = expanded.unwrap_or_else(|| program.to_owned());
                let directory = scope.as_ref().and_then(|scope| scope.working_dir());
                programs::of_template(&program, directory, search)
                    .map(|path| Program { path, args: words[1..].to_vec(), source: Source::Configuration })
                    .ok_or_else(|| ProgramError::OfTemplate {
                        service: service.name.to_string(),
                        program,
                        template: template.settings.name.to_string(),
                    })
            }
        }
    }

    /// Returns what is started: the words of the program, the arguments of its runtime, those of the template, those of
    /// the service. Of the variables the last one with a name counts.
    fn process_spec(
        &self,
        scope: &Scope<'_>,
        service: &ManagedService,
        program: &Program,
        address: &Address,
        model: Option<&Model>,
        instance: &InstanceId,
    ) -> Result<ProcessSpec, ServiceError> {
        let server = service.server();
        // What the tables of a built-in service say is passed on as it is.
        let own = |text: &str| if service.is_built_in() { Ok(text.to_owned()) } else { scope.expand(text) };
        let settings = match &service.template {
            Template::Runtime(_) => None,
            Template::Program(template) => Some(&template.settings),
        };
        let launch = service.template.launch(address, model, &self.places(service).of_resolved());
        let context = service.runtime().zip(model).and_then(|(runtime, model)| {
            let places = self.places(service).of_configuration();
            runtime.context_args(aliases::settings(runtime, self.config, &model.name, &places)?.context?)
        });
        let mut words = Vec::new();
        for word in &program.args {
            words.push(if settings.is_some() { scope.expand(word)? } else { word.clone() });
        }
        words.extend(launch.args);
        words.extend(context.unwrap_or_default());
        if model.is_none()
            && let Some(preset) = self.preset_file(service)
        {
            words.extend([preset.flag.to_owned(), preset.path.to_string_lossy().into_owned()]);
        }
        if let Some(settings) = settings {
            for word in &settings.args {
                words.push(scope.expand(word)?);
            }
        }
        for word in &server.args {
            words.push(own(word)?);
        }
        let env = self.variables(scope, service, address, model)?;
        let directory = scope.working_dir().filter(|_| !service.is_built_in());
        Ok(ProcessSpec {
            program: program.path.clone(),
            args: words.into_iter().map(OsString::from).collect(),
            without: self.withheld(),
            home: self.environment.home.clone(),
            env,
            directory: directory.unwrap_or(&service.files.directory).to_owned(),
            log: Some(service.files.log.clone()),
            instance: instance.as_str().to_owned(),
        })
    }

    /// Returns the variables of the caller that no server inherits.
    pub(super) fn withheld(&self) -> Vec<OsString> {
        let names = self.environment.variables.iter().map(|(name, _)| name);
        names.filter(|name| runtimes::is_withheld(self.table, name)).cloned().collect()
    }

    /// Returns the variables that are set for the processes of the service, the last one with a name counts: those of
    /// its runtime, those of its template, the leading words of its command, those of its own table.
    pub(super) fn variables(
        &self,
        scope: &Scope<'_>,
        service: &ManagedService,
        address: &Address,
        model: Option<&Model>,
    ) -> Result<Vec<(OsString, OsString)>, ServiceError> {
        let server = service.server();
        // What the tables of a built-in service say is passed on as it is.
        let own = |text: &str| if service.is_built_in() { Ok(text.to_owned()) } else { scope.expand(text) };
        let settings = match &service.template {
            Template::Runtime(_) => None,
            Template::Program(template) => Some(&template.settings),
        };
        let launch = service.template.launch(address, model, &self.places(service).of_resolved());
        let home = self.environment.home.as_deref();
        let paths = service.template.path_variables();
        let expanded = |name: &str, value: &str| {
            if paths.contains(&name) {
                expand_home(Path::new(value), home).into_os_string()
            } else {
                value.into()
            }
        };
        let mut all: Vec<(OsString, OsString)> = Vec::new();
        for (name, value) in launch.env {
            all.push((name.into(), value.into()));
        }
        if let Some(settings) = settings {
            for (name, value) in &settings.env {
                all.push((name.into(), expanded(name, &scope.expand(value)?)));
            }
            for (name, value) in settings.command_line().env {
                all.push((name.as_str().into(), expanded(&name, &scope.expand(&value)?)));
            }
        }
        for (name, value) in &server.env {
            all.push((name.into(), expanded(name, &own(value)?)));
        }
        if let Some((name, value)) = self.places(service).hub_cache_variable() {
            all.push((name.into(), value.into()));
        }
        Ok(all)
    }
}

fn check_directory(service: &ManagedService, directory: &Path) -> Result<(), ServiceError> {
    if service.is_built_in() || directory.is_dir() {
        return Ok(());
    }
    let (path, exists) = (directory.to_owned(), directory.exists());
    Err(ServiceError::NoWorkingDir { service: service.name.clone(), path, exists })
}

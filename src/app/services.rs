//! The services there are: the built-in ones, the instances of the configuration, and those that outlive their table.

use std::path::Path;
use std::sync::Arc;

use crate::core::config::{Config, ServiceSettings, TemplateSettings};
use crate::core::files;
use crate::core::names;
use crate::core::paths::Paths;
use crate::core::runtimes::{self, Runtime, Table};
use crate::core::services::record::Record;
use crate::core::services::{ManagedService, Origin};
use crate::core::templates::Template;

/// Returns every service: the built-in ones in the order of the table, then the instances in that of the file, then
/// those that fusion started and whose table is not in the file any longer, by name.
pub(super) fn all(table: Table, config: &Config, paths: &Paths) -> Vec<ManagedService> {
    let mut services = Vec::new();
    for runtime in table {
        if let Some(settings) = config.service(runtime.name()) {
            services.push(ManagedService {
                name: runtime.name().into(),
                origin: Origin::BuiltIn,
                template: Template::Runtime(*runtime),
                settings,
                files: paths.service(runtime.name()),
            });
        }
    }
    for (name, settings) in &config.instances {
        if let Some(template) = template_of(table, config, name, settings) {
            services.push(ManagedService {
                name: Arc::clone(name),
                origin: Origin::Instance,
                template,
                settings: Arc::clone(settings),
                files: paths.service(name),
            });
        }
    }
    let removed = removed(table, paths, &services);
    services.extend(removed);
    services
}

/// Returns whether fusion has a record of a service called `name`, whatever the configuration says.
pub fn is_recorded(table: Table, paths: &Paths, name: &str) -> bool {
    is_instance_name(table, name) && paths.service(name).state.exists()
}

fn is_instance_name(table: Table, name: &str) -> bool {
    names::check(name, table.iter().flat_map(|runtime| [runtime.name(), runtime.alias()])).is_ok()
}

/// Returns the template of an instance: one of the file, which may replace the start of a runtime, else a runtime.
fn template_of(table: Table, config: &Config, name: &str, settings: &ServiceSettings) -> Option<Template> {
    let wanted = &settings.instance.template;
    let runtime = runtimes::find(table, wanted);
    match config.template(wanted) {
        Some(template) => {
            let model = settings.server.model.as_deref();
            Some(Template::program(Arc::clone(template), runtime, name, model))
        }
        None => runtime.map(Template::Runtime),
    }
}

/// Returns the recorded services that are not among `known`.
fn removed(table: Table, paths: &Paths, known: &[ManagedService]) -> Vec<ManagedService> {
    let is_known = |name: &str| known.iter().any(|service| *service.name == *name);
    let mut names = files::names(paths.directory());
    names.retain(|name| !is_known(name) && is_recorded(table, paths, name));
    names.iter().map(|name| removed_service(table, paths, name)).collect()
}

/// Returns the service of a record. Its record says of which kind it is; its settings are the defaults.
fn removed_service(table: Table, paths: &Paths, name: &str) -> ManagedService {
    let files = paths.service(name);
    let (template, runtime) = recorded_kind(table, &files.state);
    let settings = TemplateSettings::new(&template);
    ManagedService {
        name: name.into(),
        origin: Origin::Removed,
        settings: Arc::new(ServiceSettings::default_for_template(&settings, runtime)),
        template: Template::program(Arc::new(settings), runtime, name, None),
        files,
    }
}

fn recorded_kind(table: Table, state: &Path) -> (String, Option<&'static dyn Runtime>) {
    match Record::read(state) {
        Ok(Some(record)) => {
            let runtime = record.runtime.and_then(|runtime| runtimes::find(table, &runtime));
            (record.template.unwrap_or_default(), runtime)
        }
        _ => (String::new(), None),
    }
}

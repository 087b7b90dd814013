//! The gateway as a service: it is started, stopped and watched as any other program.

use std::sync::Arc;

use crate::core::command_line::Placeholder;
use crate::core::config::{Config, ServiceSettings, TemplateSettings};
use crate::core::paths::Paths;
use crate::core::services::{ManagedService, Origin};
use crate::core::templates::Template;
use crate::env::{Environment, PROJECT_ROOT};

pub use crate::core::config::GATEWAY;

/// Only the gateway has this path, and it is served without a token.
pub(super) const HEALTH_PATH: &str = "/api/health";

/// Returns the service of the gateway.
pub(super) fn service(config: &Config, paths: &Paths, environment: &Environment) -> ManagedService {
    let gateway = &config.gateway;
    let program = environment.program.as_ref().map(|program| program.to_string_lossy().into_owned());
    let has_project = environment.project_directory().is_some();
    let project_root =
        has_project.then(|| (PROJECT_ROOT.to_owned(), Placeholder::ProjectRoot.text().to_owned()));
    let template = TemplateSettings {
        display_name: Some("the gateway".to_owned()),
        description: Some("One API in front of every service".to_owned()),
        command: Some(program.into_iter().chain(["serve".to_owned()]).collect()),
        health_endpoint: Some(format!("http://{{host}}:{{port}}{HEALTH_PATH}")),
        // The services that it starts get the one that it was started with.
        env: project_root.into_iter().collect(),
        ..TemplateSettings::new(GATEWAY)
    };
    let mut settings = ServiceSettings::default_for_template(&template, None);
    settings.server.host.clone_from(&gateway.host);
    settings.server.port = Some(gateway.port);
    // The same configuration, whatever the working directory is.
    let variables = environment.for_login(paths.directory()).into_iter();
    let text = |(name, value): (&str, std::ffi::OsString)| Some((name.to_owned(), value.into_string().ok()?));
    settings.server.env = variables.filter_map(text).collect();
    ManagedService {
        name: GATEWAY.into(),
        origin: Origin::BuiltIn,
        template: Template::program(Arc::new(template), None, GATEWAY, None),
        settings: Arc::new(settings),
        files: paths.service(GATEWAY),
    }
}

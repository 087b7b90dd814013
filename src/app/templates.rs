//! Templates and their services, in the JSON shape of every front end.

use std::sync::Arc;

use serde::Serialize;

use super::app::App;
use crate::core::runtimes;
use crate::core::templates::Template;

/// A template, as `templates` shows it. Unknown values are null.
#[derive(Debug, Serialize)]
pub struct TemplateView {
    pub name: String,
    /// Null for a program that is not a runtime.
    pub runtime: Option<&'static str>,
    pub display_name: String,
    pub description: Option<String>,
    pub category: Option<String>,
    pub default_port: Option<u16>,
    /// The first and the last port.
    pub port_range: Option<[u16; 2]>,
    /// The services that are made from it.
    pub instances: Vec<Arc<str>>,
}

impl App {
    /// Returns the built-in templates that the file does not replace, then those of the file.
    pub fn templates(&self) -> Vec<TemplateView> {
        let mut templates = Vec::new();
        for runtime in self.table {
            if self.config.template(runtime.name()).is_none() {
                templates.push(self.template_view(&Template::Runtime(*runtime)));
            }
        }
        for settings in &self.config.templates {
            let runtime = runtimes::find(self.table, &settings.name);
            let template = Template::program(Arc::clone(settings), runtime, "", None);
            templates.push(self.template_view(&template));
        }
        templates
    }

    fn template_view(&self, template: &Template) -> TemplateView {
        let is_its = |name: &str| name == template.name();
        let services = self.services().iter().filter(|service| is_its(service.template.name()));
        TemplateView {
            name: template.name().to_owned(),
            runtime: template.runtime().map(runtimes::Runtime::name),
            display_name: template.display_name().to_owned(),
            description: template.description().map(str::to_owned),
            category: template.category().map(str::to_owned),
            default_port: template.default_port(),
            port_range: template.port_range().map(|range| [*range.start(), *range.end()]),
            instances: services.map(|service| Arc::clone(&service.name)).collect(),
        }
    }
}

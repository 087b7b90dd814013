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
        let built_in = self.table.iter().map(|runtime| Template::Runtime(*runtime));
        let built_in = built_in.filter(|template| self.config.template(template.name()).is_none());
        let of_file = self.config.templates.iter().map(|settings| {
            let runtime = runtimes::find(self.table, &settings.name);
            Template::program(Arc::clone(settings), runtime, "", None)
        });
        built_in.chain(of_file).map(|template| self.template_view(&template)).collect()
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

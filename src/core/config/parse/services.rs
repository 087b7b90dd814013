//! The tables of the user's own services: templates and instances.

use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::{ConfigReader, all, dotted, no_such, other_table_of_instance};
use crate::core::command_line::{self, Placeholder, PlaceholderUse};
use crate::core::config::keys;
use crate::core::config::kind::facts;
use crate::core::config::problem::Fault;
use crate::core::config::schema::{self, INSTANCES, RUN, TEMPLATES};
use crate::core::config::settings::{Config, ServiceSettings, TemplateSettings};
use crate::core::names;
use crate::core::order;
use crate::core::runtimes::{self, Runtime};

/// The template of an instance.
struct Blueprint {
    /// `None` for a built-in template.
    of_file: Option<Arc<TemplateSettings>>,
    runtime: Option<&'static dyn Runtime>,
}

/// The placeholders that are known before the process runs.
fn before_start(placeholder: Placeholder) -> bool {
    placeholder != Placeholder::Pid
}

/// What placeholders themselves stand for is taken as it is.
fn nowhere(_: Placeholder) -> bool {
    false
}

/// A working directory cannot stand for itself.
fn in_working_dir(placeholder: Placeholder) -> bool {
    before_start(placeholder) && placeholder != Placeholder::WorkingDir
}

/// The placeholders that are known before a start.
fn in_endpoint(placeholder: Placeholder) -> bool {
    !matches!(placeholder, Placeholder::Pid | Placeholder::WorkingDir)
}

impl ConfigReader<'_> {
    pub(super) fn templates(&mut self, value: &Spanned<DeValue<'_>>, config: &mut Config) {
        let Some(templates) = self.members(TEMPLATES, value, "a table of templates") else { return };
        for (name, value) in in_order(templates) {
            let path = dotted(TEMPLATES, name.get_ref());
            let mut template = TemplateSettings::new(name.get_ref());
            if template.name.is_empty() || template.name.contains(char::is_control) {
                let reason = "a name has at least one character, and no control characters".to_owned();
                self.report(name.span(), path, Fault::Refused { reason });
                continue;
            }
            let before = self.problems.len();
            self.keys(&path, value, &all(keys::TEMPLATE), &mut template, &|_| None);
            self.template_placeholders(&path, value);
            match (&template.start_command, &template.command) {
                (None, None) if self.problems.len() == before => {
                    let key = "start_command` or `command".to_owned();
                    self.report(name.span(), path.clone(), Fault::Missing { key });
                }
                (Some(_), Some(_)) => {
                    let span = value.get_ref().get("command").map_or(name.span(), Spanned::span);
                    let reason = format!("`{path}.start_command` is set already");
                    self.report(span, dotted(&path, "command"), Fault::Reserved { reason });
                }
                _ => {}
            }
            if let (Some(port), Some(range)) = (template.default_port, &template.port_range)
                && !range.contains(&port)
            {
                let span = value.get_ref().get("default_port").map_or(name.span(), Spanned::span);
                let expected = format!("a port of `port_range`, {} to {}", range.start(), range.end());
                let fault = Fault::Value { expected, found: format!("the number {port}") };
                self.report(span, dotted(&path, "default_port"), fault);
                template.default_port = None;
            }
            // Also one with a problem: its instances have none for that.
            config.templates.push(Arc::new(template));
        }
    }

    fn template_placeholders(&mut self, path: &str, template: &Spanned<DeValue<'_>>) {
        let none = |_: Placeholder| true;
        for (key, is_valid) in [
            ("start_command", before_start as fn(Placeholder) -> bool),
            ("command", before_start),
            ("stop_command", none),
            ("health_endpoint", in_endpoint),
            ("args", before_start),
            ("env", before_start),
        ] {
            self.placeholders(path, key, template, is_valid);
        }
    }

    pub(super) fn instances(&mut self, value: &Spanned<DeValue<'_>>, config: &mut Config) {
        let Some(instances) = self.members(INSTANCES, value, "a table of instances") else { return };
        for (name, value) in in_order(instances) {
            if let Some(settings) = self.instance(name, value, config) {
                config.instances.push((Arc::from(&**name.get_ref()), Arc::new(settings)));
            }
        }
    }

    /// Reads an instance; `None` if its name or its template cannot be used.
    fn instance(
        &mut self,
        name: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
        config: &Config,
    ) -> Option<ServiceSettings> {
        let path = dotted(INSTANCES, name.get_ref());
        let built_in = self.table.iter().flat_map(|runtime| [runtime.name(), runtime.alias()]);
        if let Err(fault) = names::check(name.get_ref(), built_in) {
            self.report(name.span(), path, Fault::Refused { reason: fault.to_string() });
            return None;
        }
        let members = self.members(&path, value, "a table")?;
        let blueprint = self.blueprint(&path, name, members, config)?;
        let runtime = blueprint.runtime;
        let mut settings = match (&blueprint.of_file, runtime) {
            (Some(template), _) => ServiceSettings::default_for_template(template, runtime.map(|it| it as _)),
            (None, Some(runtime)) => ServiceSettings::default_for_instance(runtime),
            (None, None) => return None,
        };
        let keys = schema::instance_keys(runtime, blueprint.of_file.is_some());
        for (name, value) in members {
            let elsewhere = || other_table_of_instance(&path, name.get_ref()).filter(|_| runtime.is_some());
            match (keys.iter().find(|key| key.facts.name == name.get_ref()), runtime) {
                (Some(key), _) => self.key(&path, key, value, &mut settings),
                (None, Some(_)) if name.get_ref() == RUN => {
                    let path = dotted(&path, RUN);
                    let elsewhere = |name: &str| other_table_of_instance(&path, name);
                    self.keys(&path, value, &all(keys::RUN), &mut settings, &elsewhere);
                }
                (None, _) => {
                    let keys = facts(keys.iter().copied());
                    let fault = super::unknown_key(&path, name.get_ref(), &keys, elsewhere());
                    self.report(name.span(), dotted(&path, name.get_ref()), fault);
                }
            }
        }
        let run = members.get(RUN).map(Spanned::get_ref);
        if let Some(model) = settings.server.model.clone()
            && run.and_then(|run| run.get("model")).is_none()
            && (members.contains_key("model") || settings.run.model.is_empty())
        {
            settings.run.model = model;
        }
        if let (Some(runtime), None) = (runtime, &blueprint.of_file) {
            self.variables_of_address(&path, value, runtime, &mut settings);
        }
        self.placeholders(&path, "working_dir", value, in_working_dir);
        for key in ["command", "args", "env"] {
            self.placeholders(&path, key, value, before_start);
        }
        for key in ["host", "model", "models_dir"] {
            self.placeholders(&path, key, value, nowhere);
        }
        if let Some(template) = &blueprint.of_file {
            self.limits_of_template(&path, name, value, template, &mut settings, config);
        }
        Some(settings)
    }

    fn blueprint(
        &mut self,
        path: &str,
        name: &Spanned<DeString<'_>>,
        members: &DeTable<'_>,
        config: &Config,
    ) -> Option<Blueprint> {
        let Some(value) = members.get("template") else {
            self.report(name.span(), path.to_owned(), Fault::Missing { key: "template".to_owned() });
            return None;
        };
        let template = self.model_name(&dotted(path, "template"), value, "the name of a template")?;
        let of_file = config.template(&template).cloned();
        let runtime = runtimes::find(self.table, &template);
        if of_file.is_none() && runtime.is_none() {
            let built_in = self.table.iter().map(|runtime| runtime.name().to_owned());
            let names = config.templates.iter().map(|template| template.name.to_string()).chain(built_in);
            let fault = no_such("template", &template, names.collect());
            self.report(value.span(), dotted(path, "template"), fault);
            return None;
        }
        Some(Blueprint { of_file, runtime })
    }

    /// Checks the port and the number of instances against the template.
    fn limits_of_template(
        &mut self,
        path: &str,
        name: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
        template: &TemplateSettings,
        settings: &mut ServiceSettings,
        config: &Config,
    ) {
        if let (Some(port), Some(range)) = (settings.server.port, &template.port_range)
            && !range.contains(&port)
        {
            let span = value.get_ref().get("port").map_or(name.span(), Spanned::span);
            let (first, last, table) = (range.start(), range.end(), dotted(TEMPLATES, &template.name));
            let expected = format!("a port from {first} to {last}, the `port_range` of `[{table}]`");
            let fault = Fault::Value { expected, found: format!("the number {port}") };
            self.report(span, dotted(path, "port"), fault);
            settings.server.port = None;
        }
        if settings.server.port.is_none() && template.default_port.is_none() && template.port_range.is_none()
        {
            self.report(name.span(), path.to_owned(), Fault::Missing { key: "port".to_owned() });
        }
        let is_sibling = |settings: &ServiceSettings| *settings.instance.template == *template.name;
        let first = config.instances.iter().find(|(_, settings)| is_sibling(settings));
        if let Some((first, _)) = first.filter(|_| !template.supports_multiple) {
            let table = dotted(TEMPLATES, &template.name);
            let reason =
                format!("`[{table}]` has `supports_multiple = false`, and `{first}` is its instance");
            self.report(name.span(), path.to_owned(), Fault::Refused { reason });
        }
    }

    /// Checks the placeholders in a key of a table: a text, an array of texts, or a table of texts.
    fn placeholders(
        &mut self,
        path: &str,
        key: &str,
        table: &Spanned<DeValue<'_>>,
        is_valid: fn(Placeholder) -> bool,
    ) {
        let Some(value) = table.get_ref().get(key) else { return };
        let path = dotted(path, key);
        match value.get_ref() {
            DeValue::Array(values) => {
                values.iter().for_each(|value| self.placeholders_of_text(&path, value, is_valid));
            }
            DeValue::Table(members) => members.iter().for_each(|(name, value)| {
                self.placeholders_of_text(&dotted(&path, name.get_ref()), value, is_valid);
            }),
            _ => self.placeholders_of_text(&path, value, is_valid),
        }
    }

    fn placeholders_of_text(
        &mut self,
        path: &str,
        value: &Spanned<DeValue<'_>>,
        is_valid: fn(Placeholder) -> bool,
    ) {
        let Some(text) = value.get_ref().as_str() else { return };
        for PlaceholderUse { range, placeholder } in command_line::placeholders(text) {
            if placeholder.is_some_and(is_valid) {
                continue;
            }
            let name = &text[range];
            let valid: Vec<String> = Placeholder::ALL
                .into_iter()
                .filter(|known| is_valid(*known))
                .map(|known| known.text().to_owned())
                .collect();
            let refused = |reason: &str| Fault::Refused { reason: format!("`{name}` {reason}") };
            let fault = match placeholder {
                Some(Placeholder::Pid) => refused("is known only in `stop_command`, while the server runs"),
                Some(_) if valid.is_empty() => refused("is not replaced here"),
                Some(_) => refused("cannot stand for something that depends on it"),
                None if valid.is_empty() => continue,
                None => no_such("placeholder", name, valid),
            };
            // An escape before it would move it: then the value itself is named.
            let offset = self.text[value.span()].find(name).unwrap_or_default();
            self.report(value.span().start + offset..value.span().end, path.to_owned(), fault);
        }
    }
}

/// Returns the members of a table in the order of the file.
fn in_order<'v, 'i>(table: &'v DeTable<'i>) -> Vec<(&'v Spanned<DeString<'i>>, &'v Spanned<DeValue<'i>>)> {
    let mut members: Vec<_> = table.iter().collect();
    order::sort_by_key(&mut members, |(name, _)| name.span().start);
    members
}

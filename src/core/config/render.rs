//! The configuration as text: the fresh file, and every key with its effective value.

use std::fmt::Write as _;

use serde_json::Value;

use super::key::{KeyPath, dotted};
use super::keys;
use super::kind::{Key, Presence};
use super::schema::{self, ALIASES, GATEWAY, INSTANCES, MODELS, PROMPTS, RUN, TEMPLATES, TableKind};
use super::settings::{Alias, Config, ServiceSettings};
use super::values::to_toml;
use crate::core::order;
use crate::core::runtimes::{self, Table};

/// One table with all its keys.
struct Section {
    /// The parts of its name.
    path: Vec<String>,
    /// Each key with its value; `None` if it is not set and has no default.
    rows: Vec<(String, Option<Value>)>,
}

/// Returns every table and key, with their effective values.
fn sections(config: &Config, table: Table) -> Vec<Section> {
    let mut sections = vec![Section { path: Vec::new(), rows: rows(keys::TOP, config) }];
    for runtime in table {
        let Some(settings) = config.services.get(runtime.name()) else { continue };
        sections.extend(TableKind::ALL.map(|part| Section {
            path: vec![part.table_of(runtime.name())],
            rows: rows(part.keys(*runtime), settings.as_ref()),
        }));
    }
    sections.push(Section { path: vec![GATEWAY.to_owned()], rows: rows(keys::GATEWAY, &config.gateway) });
    for template in &config.templates {
        sections.push(own(TEMPLATES, &template.name, rows(keys::TEMPLATE, template.as_ref())));
    }
    for (name, settings) in &config.instances {
        sections.extend(instance(config, table, name, settings));
    }
    for (name, model) in &config.models {
        sections.push(own(MODELS, name, rows(keys::MODEL, model)));
    }
    for (name, prompt) in &config.prompts {
        sections.push(own(PROMPTS, name, rows(keys::PROMPT, prompt)));
    }
    sections.extend((!config.aliases.is_empty()).then(|| aliases(config)));
    sections
}

/// Returns a table whose name the user chose.
fn own(kind: &str, name: &str, rows: Vec<(String, Option<Value>)>) -> Section {
    Section { path: vec![kind.to_owned(), name.to_owned()], rows }
}

fn instance(config: &Config, table: Table, name: &str, settings: &ServiceSettings) -> Vec<Section> {
    let template = &settings.instance.template;
    let runtime = runtimes::find(table, template);
    let path = vec![INSTANCES.to_owned(), name.to_owned()];
    let keys = schema::instance_keys(runtime, config.template(template).is_some());
    let run = runtime.map(|_| Section {
        path: [path.as_slice(), &[RUN.to_owned()]].concat(),
        rows: rows(keys::RUN, settings),
    });
    [Section { path, rows: rows(keys, settings) }].into_iter().chain(run).collect()
}

fn rows<T: 'static>(
    keys: impl IntoIterator<Item = &'static Key<T>>,
    owner: &T,
) -> Vec<(String, Option<Value>)> {
    keys.into_iter().map(|key| (key.facts.name.to_owned(), key.write(owner))).collect()
}

fn aliases(config: &Config) -> Section {
    let value = |alias: &Alias| match alias {
        Alias::Everywhere(model) => Value::from(model.as_str()),
        Alias::ForRuntimes(models) => {
            order::object(models.iter().map(|(name, model)| (name.clone(), model.as_str())))
        }
    };
    let rows = config.aliases.iter().map(|(name, alias)| (name.clone(), Some(value(alias)))).collect();
    Section { path: vec![ALIASES.to_owned()], rows }
}

/// Returns the content of a fresh file.
pub(super) fn fresh(table: Table) -> String {
    let mut sections = Vec::new();
    for runtime in table.iter().filter(|runtime| runtime.in_fresh_config()) {
        let defaults = ServiceSettings::default_for(*runtime);
        for part in TableKind::ALL {
            let mut text = format!("[{}]\n", part.table_of(runtime.name()));
            for key in part.keys(*runtime).into_iter().filter(|key| key.facts.presence == Presence::Fresh) {
                let value = key.write(&defaults);
                let _ = writeln!(text, "{}\n{}", key.facts.comment(), line(key.facts.name, value.as_ref()));
            }
            sections.push(text);
        }
    }
    sections.join("\n")
}

/// Returns the effective value of a key; `None` if it is not set and has no default.
pub(super) fn value_at(config: &Config, table: Table, key: &KeyPath) -> Option<Value> {
    let (name, rest) = key.parts().split_at_checked(key.table_length())?;
    let (first, members) = rest.split_first()?;
    let section = sections(config, table).into_iter().find(|section| section.path == name)?;
    let value = section.rows.into_iter().find(|(name, _)| name == first)?.1?;
    members.iter().try_fold(value, |value, member| value.get(member).cloned())
}

/// Returns every dotted key that a file with these tables may have, with the existing members.
pub(super) fn keys(config: &Config, table: Table) -> Vec<String> {
    let mut keys = Vec::new();
    for Section { mut path, rows } in sections(config, table) {
        for (name, value) in rows {
            path.push(name);
            push_keys(&mut path, value.as_ref(), &mut keys);
            path.pop();
        }
    }
    keys
}

fn push_keys(path: &mut Vec<String>, value: Option<&Value>, keys: &mut Vec<String>) {
    keys.push(dotted(path));
    for (name, value) in value.and_then(Value::as_object).into_iter().flatten() {
        path.push(name.clone());
        push_keys(path, Some(value), keys);
        path.pop();
    }
}

/// Returns `name = value`, or a comment if there is no value.
fn line(name: &str, value: Option<&Value>) -> String {
    let name = dotted(&[name.to_owned()]);
    match value.and_then(to_toml) {
        Some(value) => format!("{name} = {value}"),
        None => format!("# {name} is not set"),
    }
}

/// Returns every key with its effective value, as TOML.
pub(super) fn effective_toml(config: &Config, table: Table) -> String {
    let tables = sections(config, table).into_iter().map(|section| {
        let header = dotted(&section.path);
        let mut text = if header.is_empty() { String::new() } else { format!("[{header}]\n") };
        for (name, value) in section.rows {
            let _ = writeln!(text, "{}", line(&name, value.as_ref()));
        }
        text
    });
    tables.collect::<Vec<_>>().join("\n")
}

/// Returns every key with its effective value, as JSON; null if a key is not set and has no default.
pub(super) fn effective_json(config: &Config, table: Table) -> serde_json::Value {
    let mut root = serde_json::json!({ TEMPLATES: {}, INSTANCES: {}, MODELS: {}, PROMPTS: {}, ALIASES: {} });
    for section in sections(config, table) {
        let place = section.path.iter().fold(&mut root, |place, name| &mut place[name.as_str()]);
        for (name, value) in section.rows {
            place[name] = value.unwrap_or_default();
        }
    }
    root
}

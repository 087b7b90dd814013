//! Reads the file strictly: every problem with its line and column, and the values of the valid keys.
//!
//! `toml`'s parser goes on after an error and reports every mistake of syntax. serde would stop at the first wrong
//! value; so each value is checked by its entry in the table of keys.

mod services;
mod syntax;

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};
use toml_writer::ToTomlKey as _;

use super::addresses::{self, Located};
use super::keys;
use super::kind::{Key, KeyFacts, MASK, ValueKind, Wrong, facts};
use super::problem::{Fault, Problem, position};
use super::schema::{self, ALIASES, GATEWAY, INSTANCES, MODELS, PROMPTS, TEMPLATES, TableKind};
use super::settings::{Alias, Config, ModelSettings, SavedPrompt, ServiceSettings};
use super::values::{self, article, found};
use crate::core::address::Address;
use crate::core::models::ModelPlaces;
use crate::core::nearest::nearest;
use crate::core::order;
use crate::core::runtimes::{self, Runtime, Table};
use crate::core::sorted_map::SortedMap;

/// Returns the configuration of a text, and its problems: keys with problems keep their defaults.
pub(super) fn parse(text: &str, table: Table) -> (Config, Vec<Problem>) {
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut config = Config::default_for(table);
    let mut reader = ConfigReader { table, text, problems: Vec::new() };
    reader.root(root.get_ref(), &mut config);
    reader.addresses(root.get_ref(), &config);
    if !errors.is_empty() {
        reader.syntax(&errors);
    }
    (config, reader.problems)
}

/// Returns the content of the text, without defaults, as JSON. Fails with the problems of an invalid text.
pub(super) fn into_json(text: &str, table: Table) -> Result<serde_json::Value, Vec<Problem>> {
    let (_, problems) = parse(text, table);
    let text = masked(text);
    // A valid configuration holds nothing that JSON lacks.
    let json = values::table_to_json(DeTable::parse_recoverable(&text).0.get_ref());
    json.filter(|_| problems.is_empty()).ok_or(problems)
}

/// Returns the text with a mask in place of every secret. The parser finds them also in a text with mistakes.
pub(super) fn masked(text: &str) -> String {
    let (root, _) = DeTable::parse_recoverable(text);
    let mut spans: Vec<Range<usize>> = Vec::new();
    let gateway = root.get_ref().get(GATEWAY).and_then(|table| table.get_ref().as_table());
    for key in keys::GATEWAY.iter().filter(|key| matches!(key.facts.kind, ValueKind::Secret)) {
        let value = gateway.and_then(|table| table.get(key.facts.name));
        let is_set = value.filter(|value| value.get_ref().as_str() != Some(""));
        spans.extend(is_set.map(Spanned::span));
    }
    order::sort_by_key(&mut spans, |span| std::cmp::Reverse(span.start));
    let mut text = text.to_owned();
    for span in spans.into_iter().filter(|span| !span.is_empty()) {
        text.replace_range(span, &format!("\"{MASK}\""));
    }
    text
}

/// Returns the problem of bytes that are not UTF-8 after the first `valid` ones.
pub(super) fn not_utf8(bytes: &[u8], valid: usize) -> Problem {
    let before = String::from_utf8_lossy(&bytes[..valid]);
    let (line, column) = position(&before, before.len());
    Problem { line, column, key: String::new(), fault: Fault::NotUtf8 }
}

struct ConfigReader<'a> {
    table: Table,
    text: &'a str,
    /// In the order of the text.
    problems: Vec<Problem>,
}

impl ConfigReader<'_> {
    fn root(&mut self, root: &DeTable<'_>, config: &mut Config) {
        for (name, value) in root {
            match &**name.get_ref() {
                PROMPTS => self.prompts(value, config),
                ALIASES => self.aliases(value, config),
                MODELS => self.models(value, config),
                TEMPLATES => self.templates(value, config),
                GATEWAY => {
                    self.keys(GATEWAY, value, &all(keys::GATEWAY), &mut config.gateway, &|_| None);
                }
                // Its template may come later in the file, and so may the service that is the default.
                INSTANCES => {}
                other if keys::TOP.iter().any(|key| key.facts.name == other) => {
                    self.top(other, value, config);
                }
                _ => self.service(name, value, config),
            }
        }
        if let Some(instances) = root.get(INSTANCES) {
            self.instances(instances, config);
        }
        if let Some(value) = root.get("default_service") {
            self.default_service(value, config);
        }
    }

    /// Reads a key above the first header.
    fn top(&mut self, name: &str, value: &Spanned<DeValue<'_>>, config: &mut Config) {
        let Some(key) = keys::TOP.iter().find(|key| key.facts.name == name) else { return };
        self.key("", key, value, config);
    }

    fn default_service(&mut self, value: &Spanned<DeValue<'_>>, config: &mut Config) {
        let Some(name) = config.default_service.clone() else { return };
        if config.service(&name).is_none() {
            let instances = config.instances.iter().map(|(name, _)| name.to_string());
            let names: Vec<String> =
                self.table.iter().map(|runtime| runtime.name().to_owned()).chain(instances).collect();
            self.report(value.span(), "default_service".to_owned(), no_such("service", &name, names));
            config.default_service = None;
        }
    }

    fn models(&mut self, value: &Spanned<DeValue<'_>>, config: &mut Config) {
        let Some(models) = self.members(MODELS, value, "a table of models") else { return };
        for (name, value) in models {
            let mut model = ModelSettings::default();
            self.keys(&dotted(MODELS, name.get_ref()), value, &all(keys::MODEL), &mut model, &|_| None);
            config.models.insert(name.get_ref().to_string(), model);
        }
    }

    /// Reads a table of a built-in service.
    fn service(&mut self, name: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>, config: &mut Config) {
        let path = &**name.get_ref();
        let section = schema::section(self.table, path);
        let of_service = section.and_then(|(runtime, part)| {
            config.services.get_mut(runtime.name()).map(|settings| (runtime, part, Arc::make_mut(settings)))
        });
        let Some((runtime, part, settings)) = of_service else {
            let fault = unknown_table(self.table, path, value.get_ref().is_table());
            return self.report(name.span(), path.to_owned(), fault);
        };
        let table = self.table;
        self.keys(path, value, &part.keys(runtime), settings, &|name| other_table(table, path, name));
        if part == TableKind::Server {
            self.variables_of_address(path, value, runtime, settings);
        }
    }

    /// A variable that says where the server listens would contradict `host` and `port`.
    fn variables_of_address(
        &mut self,
        path: &str,
        section: &Spanned<DeValue<'_>>,
        runtime: &dyn Runtime,
        settings: &mut ServiceSettings,
    ) {
        let Some(env) = section.get_ref().get("env").and_then(|env| env.get_ref().as_table()) else { return };
        let places = ModelPlaces::default();
        let launch = |port| {
            let address = Address { host: settings.server.host.clone(), port };
            runtime.launch(&address, None, &places).env
        };
        let elsewhere = launch(2);
        // Others that a launch sets are defaults, which the configuration may change.
        let of_address = launch(1).into_iter().filter(|set| !elsewhere.contains(set));
        for (variable, _) in of_address {
            let Some((name, _)) = env.get_key_value(&*variable) else { continue };
            let reason = format!("`{path}.host` and `{path}.port` say where the server listens");
            self.report(name.span(), dotted(&dotted(path, "env"), &variable), Fault::Reserved { reason });
            settings.server.env.remove(&variable);
        }
    }

    /// Reads a table. `elsewhere` returns the place of a key that another table of the same service has.
    // In the callers, there would be a copy for each table.
    #[inline(never)]
    fn keys<T>(
        &mut self,
        path: &str,
        value: &Spanned<DeValue<'_>>,
        keys: &[&'static Key<T>],
        owner: &mut T,
        elsewhere: &dyn Fn(&str) -> Option<String>,
    ) {
        let Some(members) = self.members(path, value, "a table") else { return };
        for (name, value) in members {
            if let Some(key) = keys.iter().find(|key| key.facts.name == name.get_ref()) {
                self.key(path, key, value, owner);
            } else {
                let keys = facts(keys.iter().copied());
                let fault = unknown_key(path, name.get_ref(), &keys, elsewhere(name.get_ref()));
                self.report(name.span(), dotted(path, name.get_ref()), fault);
            }
        }
    }

    fn key<T>(&mut self, path: &str, key: &Key<T>, value: &Spanned<DeValue<'_>>, owner: &mut T) {
        if let Err(wrong) = key.read(value, owner) {
            self.wrong(&dotted(path, key.facts.name), wrong);
        }
    }

    /// Reports what is wrong with the value of the key at `path`.
    fn wrong(&mut self, path: &str, wrong: Vec<Wrong>) {
        for Wrong { member, span, fault } in wrong {
            self.report(span, member.map_or_else(|| path.to_owned(), |member| dotted(path, &member)), fault);
        }
    }

    fn prompts(&mut self, value: &Spanned<DeValue<'_>>, config: &mut Config) {
        let Some(prompts) = self.members(PROMPTS, value, "a table of saved prompts") else { return };
        for (name, value) in prompts {
            let mut prompt = SavedPrompt::default();
            self.keys(&dotted(PROMPTS, name.get_ref()), value, &all(keys::PROMPT), &mut prompt, &|_| None);
            config.prompts.insert(name.get_ref().to_string(), prompt);
        }
    }

    fn aliases(&mut self, value: &Spanned<DeValue<'_>>, config: &mut Config) {
        let Some(aliases) = self.members(ALIASES, value, "a table of model names") else { return };
        for (name, value) in aliases {
            if let Some(alias) = self.alias(&dotted(ALIASES, name.get_ref()), value) {
                config.aliases.insert(name.get_ref().to_string(), alias);
            }
        }
    }

    fn alias(&mut self, path: &str, value: &Spanned<DeValue<'_>>) -> Option<Alias> {
        let Some(members) = value.get_ref().as_table() else {
            let expected = "a model name, or a table with a model name for each runtime";
            return self.model_name(path, value, expected).map(Alias::Everywhere);
        };
        let mut models = SortedMap::new();
        for (name, value) in members {
            if runtimes::find(self.table, name.get_ref()).is_none() {
                let fault = unknown_runtime(self.table, path, name.get_ref());
                self.report(name.span(), dotted(path, name.get_ref()), fault);
            } else if let Some(model) = self.model_name(&dotted(path, name.get_ref()), value, "a model name")
            {
                models.insert(name.get_ref().to_string(), model);
            }
        }
        Some(Alias::ForRuntimes(models))
    }

    fn model_name(&mut self, path: &str, value: &Spanned<DeValue<'_>>, expected: &str) -> Option<String> {
        let name = values::name(value.get_ref());
        if name.is_none() {
            let fault = Fault::Value { expected: expected.to_owned(), found: found(value.get_ref()) };
            self.report(value.span(), path.to_owned(), fault);
        }
        name
    }

    fn members<'v, 'i>(
        &mut self,
        path: &str,
        value: &'v Spanned<DeValue<'i>>,
        expected: &str,
    ) -> Option<&'v DeTable<'i>> {
        let members = value.get_ref().as_table();
        if members.is_none() {
            let found = article(value.get_ref()).to_owned();
            self.report(value.span(), path.to_owned(), Fault::Value { expected: expected.to_owned(), found });
        }
        members
    }

    /// Of two servers that start by themselves on one address, the later one in the file is at fault.
    fn addresses(&mut self, root: &DeTable<'_>, config: &Config) {
        let mut servers: Vec<(usize, Range<usize>, Located)> = addresses::located(config)
            .into_iter()
            .map(|server| {
                let section = match server.table.split_once('.') {
                    Some((table, name)) => root.get(table).and_then(|table| table.get_ref().get(name)),
                    None => root.get(&*server.table),
                };
                let place = |key| section.and_then(|section| section.get_ref().get(key)).map(Spanned::span);
                let place = place("port").or_else(|| place("host")).unwrap_or_default();
                (place.start, place, server)
            })
            .collect();
        order::sort_by_key(&mut servers, |(start, ..)| *start);
        let starting: Vec<(Range<usize>, Located)> = servers
            .into_iter()
            .map(|(_, place, server)| (place, server))
            .filter(|(_, server)| server.auto_start)
            .collect();
        for (index, (place, server)) in starting.iter().enumerate() {
            let earlier = starting[..index].iter().map(|(_, other)| other);
            if let Some(other) = earlier.into_iter().find(|other| other.shares_address_with(server)) {
                let (address, other) = (server.address.to_string(), other.table.clone());
                self.report(
                    place.clone(),
                    dotted(&server.table, "port"),
                    Fault::SameAddress { address, other },
                );
            }
        }
    }

    /// Reports syntax errors, one for each line. Other problems near them may be consequences.
    fn syntax(&mut self, errors: &[toml::de::Error]) {
        let text = self.text;
        let place =
            |error: &toml::de::Error| position(text, error.span().map_or(text.len(), |span| span.start));
        let mut places: Vec<_> = errors.iter().map(|error| (place(error), error.message())).collect();
        order::sort_by_key(&mut places, |(place, _)| *place);
        places.dedup_by_key(|(place, _)| place.0);
        for ((line, column), message) in places {
            let misread = misread_lines(text, line);
            self.problems.retain(|problem| {
                matches!(problem.fault, Fault::Syntax(_)) || !misread.contains(&problem.line)
            });
            let own_line = text.lines().nth(line - 1).unwrap_or_default();
            let fault = Fault::Syntax(syntax::explained(own_line, column, message));
            self.insert(Problem { line, column, key: String::new(), fault });
        }
    }

    fn report(&mut self, span: Range<usize>, key: String, fault: Fault) {
        let (line, column) = position(self.text, span.start);
        self.insert(Problem { line, column, key, fault });
    }

    fn insert(&mut self, problem: Problem) {
        let place = (problem.line, problem.column);
        let at = self.problems.partition_point(|other| (other.line, other.column) <= place);
        self.problems.insert(at, problem);
    }
}

/// Returns the lines that an error in `line` makes the parser misread: the keys below a broken header, too.
fn misread_lines(text: &str, line: usize) -> Range<usize> {
    let is_header = |line: &str| line.trim_start().starts_with('[');
    let mut rest = text.lines().skip(line - 1);
    let is_broken_header = |line: &str| is_header(line) && DeTable::parse(line).is_err();
    let below = if rest.next().is_some_and(is_broken_header) {
        rest.take_while(|line| !is_header(line)).count()
    } else {
        0
    };
    line..line + 1 + below
}

fn all<T>(keys: &'static [Key<T>]) -> Vec<&'static Key<T>> {
    keys.iter().collect()
}

/// Returns `path.name`, the name quoted where TOML needs it.
fn dotted(path: &str, name: &str) -> String {
    if path.is_empty() {
        return name.to_toml_key();
    }
    format!("{path}.{}", name.to_toml_key())
}

/// Returns the fault of an unknown key: it was renamed, it belongs `elsewhere`, or a similar key exists.
pub(super) fn unknown_key(
    path: &str,
    name: &str,
    keys: &[&'static KeyFacts],
    elsewhere: Option<String>,
) -> Fault {
    if let Some(key) = keys.iter().find(|key| key.formerly == Some(name)) {
        return Fault::Renamed { new: dotted(path, key.name) };
    }
    match elsewhere {
        Some(place) => Fault::Unknown { what: "key", valid: vec![place], near: true },
        None => unknown("key", path, name, &keys.iter().map(|key| key.name.to_owned()).collect::<Vec<_>>()),
    }
}

/// Returns the place of a key that the other table of the same built-in service has.
pub(super) fn other_table(table: Table, path: &str, name: &str) -> Option<String> {
    let (service, _) = path.rsplit_once('_')?;
    let owners = tables_with_key(table, name);
    let owner =
        owners.into_iter().find(|owner| owner.rsplit_once('_').is_some_and(|(of, _)| of == service))?;
    Some(dotted(&owner, name))
}

/// Returns the place of a key that the other table of the same instance has.
pub(super) fn other_table_of_instance(path: &str, name: &str) -> Option<String> {
    let has = |keys: &[Key<ServiceSettings>]| keys.iter().any(|key| key.facts.name == name);
    match path.strip_suffix(".run") {
        Some(instance) => (has(keys::INSTANCE) || has(keys::SERVER)).then(|| dotted(instance, name)),
        None => has(keys::RUN).then(|| dotted(&dotted(path, schema::RUN), name)),
    }
}

/// Returns the fault of an unknown table. A value that is not a table may be a key of one.
pub(super) fn unknown_table(table: Table, name: &str, is_table: bool) -> Fault {
    let owners = if is_table { Vec::new() } else { tables_with_key(table, name) };
    if owners.is_empty() {
        let top = keys::TOP.iter().filter(|_| !is_table).map(|key| key.facts.name.to_owned());
        let names: Vec<String> = schema::table_names(table).into_iter().chain(top).collect();
        return unknown(if is_table { "table" } else { "key" }, "", name, &names);
    }
    let valid = owners.iter().map(|owner| dotted(owner, name)).collect();
    Fault::Unknown { what: "key", valid, near: true }
}

/// Returns the fault of an unknown runtime.
pub(super) fn unknown_runtime(table: Table, path: &str, name: &str) -> Fault {
    let names: Vec<String> = table.iter().map(|runtime| runtime.name().to_owned()).collect();
    unknown("runtime", path, name, &names)
}

/// Returns the fault of a value that is not one of `names`.
pub(super) fn no_such(what: &'static str, name: &str, names: Vec<String>) -> Fault {
    let near = nearest(name, &mut names.iter().map(String::as_str)).map(str::to_owned);
    let (near, valid) = (near.is_some(), near.map_or(names, |near| vec![near]));
    Fault::NoSuch { what, name: name.to_owned(), valid, near }
}

/// Returns the fault of a name that is not one of `names`, all of which are at `path`.
fn unknown(what: &'static str, path: &str, name: &str, names: &[String]) -> Fault {
    match nearest(name, &mut names.iter().map(String::as_str)) {
        Some(nearest) if path.is_empty() => {
            Fault::Unknown { what, valid: vec![nearest.to_owned()], near: true }
        }
        Some(nearest) => Fault::Unknown { what, valid: vec![dotted(path, nearest)], near: true },
        None => Fault::Unknown { what, valid: names.to_vec(), near: false },
    }
}

fn tables_with_key(table: Table, key: &str) -> Vec<String> {
    let has_key = |name: &String| {
        schema::section(table, name).is_some_and(|(runtime, part)| {
            part.keys(runtime).iter().any(|candidate| candidate.facts.name == key)
        })
    };
    schema::service_tables(table).filter(has_key).collect()
}

//! Strict reading of the file: every problem with its line and column, and whatever is sound all the same.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml_edit::{Document, Item, TableLike};

use super::problem::{Fault, Problem};
use super::schema::{self, Key, PROMPT, Wrong};
use super::values::{article, found, span, to_json};
use super::{Alias, Config, Prompt};
use crate::core::runtimes::{self, Runtime, Table};

/// What the text says, and what is wrong with it: keys with problems keep their defaults.
pub(super) fn parse(text: &str, table: Table) -> (Config, Vec<Problem>) {
    let mut config = Config::default_for(table);
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(error) => return (config, vec![syntax(text, &error)]),
    };
    let mut reader = Reader { table, text, problems: Vec::new() };
    reader.root(document.as_table(), &mut config);
    reader.addresses(document.as_table(), &config);
    (config, reader.problems)
}

/// What the text says, without defaults, as JSON; its problems when it is not valid.
pub(super) fn into_json(text: &str, table: Table) -> Result<serde_json::Value, Vec<Problem>> {
    let (_, problems) = parse(text, table);
    // A valid configuration holds nothing that JSON lacks.
    let json = Document::parse(text).ok().and_then(|document| to_json(document.as_item()));
    json.filter(|_| problems.is_empty()).ok_or(problems)
}

/// The problem that the bytes are no UTF-8 after `valid` of them.
pub(super) fn not_utf8(bytes: &[u8], valid: usize) -> Problem {
    let before = String::from_utf8_lossy(&bytes[..valid]);
    let (line, column) = position(&before, before.len());
    Problem { line, column, key: String::new(), fault: Fault::NotUtf8 }
}

fn syntax(text: &str, error: &toml_edit::TomlError) -> Problem {
    let (line, column) = position(text, error.span().map_or(text.len(), |span| span.start));
    Problem { line, column, key: String::new(), fault: Fault::Syntax(error.message().replace('\n', "; ")) }
}

/// Line and column of a byte offset, both from 1, the column in characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let text = text.strip_prefix('\u{feff}').map_or((text, offset), |rest| (rest, offset.saturating_sub(3)));
    let (text, mut offset) = (text.0, text.1.min(text.0.len()));
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

struct Reader<'a> {
    table: Table,
    text: &'a str,
    /// In the order of the text.
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn root(&mut self, root: &toml_edit::Table, config: &mut Config) {
        for (name, item) in root {
            match name {
                "prompts" => self.prompts(item, config),
                "aliases" => self.aliases(item, config),
                _ => match section(self.table, name) {
                    Some((runtime, keys)) => {
                        if let Some(owner) = config.services.get_mut(runtime.name()) {
                            self.table(name, item, &keys, Arc::make_mut(owner));
                        }
                    }
                    None => self.unknown_table(root, name, item),
                },
            }
        }
    }

    fn unknown_table(&mut self, root: &toml_edit::Table, name: &str, item: &Item) {
        let fault = unknown_table(self.table, name, item.is_table_like());
        self.report(key_span(root, name), name.to_owned(), fault);
    }

    fn table<T>(&mut self, path: &str, item: &Item, keys: &[&'static Key<T>], owner: &mut T) {
        let Some(members) = self.members(path, item, "a table") else { return };
        for (name, item) in members.iter() {
            let Some(key) = keys.iter().find(|key| key.name == name) else {
                let fault = unknown_key(self.table, path, name, keys);
                self.report(key_span(members, name), dotted(path, name), fault);
                continue;
            };
            if let Err(wrongs) = key.kind.read(item, owner) {
                self.wrong(&dotted(path, name), wrongs);
            }
        }
    }

    fn prompts(&mut self, item: &Item, config: &mut Config) {
        let Some(prompts) = self.members("prompts", item, "a table of prompts") else { return };
        let keys: Vec<&Key<Prompt>> = PROMPT.iter().collect();
        for (name, item) in prompts.iter() {
            let mut prompt = Prompt::default();
            self.table(&dotted("prompts", name), item, &keys, &mut prompt);
            config.prompts.insert(name.to_owned(), prompt);
        }
    }

    fn aliases(&mut self, item: &Item, config: &mut Config) {
        let Some(aliases) = self.members("aliases", item, "a table of model names") else { return };
        for (name, item) in aliases.iter() {
            if let Some(alias) = self.alias(&dotted("aliases", name), item) {
                config.aliases.insert(name.to_owned(), alias);
            }
        }
    }

    fn alias(&mut self, path: &str, item: &Item) -> Option<Alias> {
        let Some(members) = item.as_table_like() else {
            let expected = "a model name, or a table with a model name for each runtime";
            return self.model_name(path, item, expected).map(Alias::Everywhere);
        };
        let mut models = BTreeMap::new();
        for (name, item) in members.iter() {
            if runtimes::find(self.table, name).is_none() {
                let names: Vec<String> = self.table.iter().map(|runtime| runtime.name().to_owned()).collect();
                let fault = unknown("runtime", path, name, &names);
                self.report(key_span(members, name), dotted(path, name), fault);
            } else if let Some(model) = self.model_name(&dotted(path, name), item, "a model name") {
                models.insert(name.to_owned(), model);
            }
        }
        Some(Alias::ForRuntimes(models))
    }

    fn model_name(&mut self, path: &str, item: &Item, expected: &str) -> Option<String> {
        let name = item.as_str().filter(|name| !name.is_empty() && !name.contains('\0'));
        if name.is_none() {
            let fault = Fault::Value { expected: expected.to_owned(), found: found(item) };
            self.report(span(item), path.to_owned(), fault);
        }
        name.map(str::to_owned)
    }

    fn members<'i>(&mut self, path: &str, item: &'i Item, expected: &str) -> Option<&'i dyn TableLike> {
        let members = item.as_table_like();
        if members.is_none() {
            let fault = Fault::Value { expected: expected.to_owned(), found: article(item).to_owned() };
            self.report(span(item), path.to_owned(), fault);
        }
        members
    }

    /// Two servers on one address: the one that comes later in the file is at fault.
    fn addresses(&mut self, root: &toml_edit::Table, config: &Config) {
        let servers: Vec<_> = self
            .table
            .iter()
            .enumerate()
            .map(|(index, runtime)| {
                let name = server_table(*runtime);
                let section = root.get(&name).and_then(Item::as_table_like);
                let place = |key| section.and_then(|section| section.get(key)).map(span);
                let place = place("port").or_else(|| place("host")).unwrap_or_default();
                let order = (place.start, index);
                (name, place, order, &config.runtime(*runtime).server.address)
            })
            .collect();
        for (name, place, order, address) in &servers {
            let other =
                servers.iter().find(|(.., other, theirs)| other < order && theirs.collides_with(address));
            if let Some((other, ..)) = other {
                let fault = Fault::SameAddress { address: address.to_string(), other: other.clone() };
                self.report(place.clone(), dotted(name, "port"), fault);
            }
        }
    }

    fn wrong(&mut self, path: &str, wrongs: Vec<Wrong>) {
        for Wrong { member, span, fault } in wrongs {
            let key = member.map_or_else(|| path.to_owned(), |member| dotted(path, &member));
            self.report(span, key, fault);
        }
    }

    fn report(&mut self, span: Range<usize>, key: String, fault: Fault) {
        let (line, column) = position(self.text, span.start);
        let at = self.problems.partition_point(|other| (other.line, other.column) <= (line, column));
        self.problems.insert(at, Problem { line, column, key, fault });
    }
}

/// The runtime whose table is called `name`, and the keys of that table.
pub(super) fn section(
    table: Table,
    name: &str,
) -> Option<(&'static dyn Runtime, Vec<&'static Key<super::ServiceSettings>>)> {
    if let Some(runtime) = name.strip_suffix("_server").and_then(|stem| runtimes::find(table, stem)) {
        return Some((runtime, schema::server_keys(runtime)));
    }
    let runtime = name.strip_suffix("_run").and_then(|stem| runtimes::find(table, stem))?;
    Some((runtime, schema::run_keys(runtime)))
}

pub(super) fn server_table(runtime: &dyn Runtime) -> String {
    format!("{}_server", runtime.name())
}

pub(super) fn run_table(runtime: &dyn Runtime) -> String {
    format!("{}_run", runtime.name())
}

/// The tables of the runtimes, in the order of the file.
pub(super) fn runtime_tables(table: Table) -> impl Iterator<Item = String> {
    table.iter().flat_map(|runtime| [server_table(*runtime), run_table(*runtime)])
}

/// All tables.
pub(super) fn table_names(table: Table) -> Vec<String> {
    runtime_tables(table).chain(["prompts".to_owned(), "aliases".to_owned()]).collect()
}

fn tables_with_key(table: Table, key: &str) -> Vec<String> {
    let has_key = |name: &String| {
        section(table, name).is_some_and(|(_, keys)| keys.iter().any(|candidate| candidate.name == key))
    };
    runtime_tables(table).filter(has_key).collect()
}

fn key_span(table: &dyn TableLike, name: &str) -> Range<usize> {
    table.get_key_value(name).and_then(|(key, _)| key.span()).unwrap_or_default()
}

/// `path.name`, the name quoted where TOML needs it.
fn dotted(path: &str, name: &str) -> String {
    format!("{path}.{}", toml_edit::Key::new(name).display_repr())
}

/// The fault of a key that is none of `keys`. One that is near, or one that another table of the same runtime has.
pub(super) fn unknown_key<T>(table: Table, path: &str, name: &str, keys: &[&'static Key<T>]) -> Fault {
    if let Some(key) = keys.iter().find(|key| key.formerly == Some(name)) {
        return Fault::Renamed { new: dotted(path, key.name) };
    }
    let names: Vec<String> = keys.iter().map(|key| key.name.to_owned()).collect();
    let stem = path.rsplit_once('_').map(|(stem, _)| format!("{stem}_"));
    let elsewhere =
        stem.and_then(|stem| tables_with_key(table, name).into_iter().find(|owner| owner.starts_with(&stem)));
    match elsewhere {
        Some(owner) => Fault::Unknown { what: "key", valid: vec![dotted(&owner, name)], near: true },
        None => unknown("key", path, name, &names),
    }
}

/// The fault of a name that is none of the tables. What is not a table may be the key of one.
pub(super) fn unknown_table(table: Table, name: &str, is_table: bool) -> Fault {
    let owners = if is_table { Vec::new() } else { tables_with_key(table, name) };
    if owners.is_empty() {
        return unknown("table", "", name, &table_names(table));
    }
    let valid = owners.iter().map(|owner| dotted(owner, name)).collect();
    Fault::Unknown { what: "key", valid, near: true }
}

/// The fault of a name that is none of `names`, all of which are at `path`.
pub(super) fn unknown(what: &'static str, path: &str, name: &str, names: &[String]) -> Fault {
    match nearest(name, names) {
        Some(nearest) if path.is_empty() => {
            Fault::Unknown { what, valid: vec![nearest.to_owned()], near: true }
        }
        Some(nearest) => Fault::Unknown { what, valid: vec![dotted(path, nearest)], near: true },
        None => Fault::Unknown { what, valid: names.to_vec(), near: false },
    }
}

/// The name that `name` was most likely meant to be: at most a third of its letters are other ones.
fn nearest<'n>(name: &str, names: &'n [String]) -> Option<&'n str> {
    let name: String = name.chars().take(64).flat_map(char::to_lowercase).collect();
    let distance = |candidate: &str| strsim::damerau_levenshtein(&name, candidate);
    let (distance, candidate) = names
        .iter()
        .map(|candidate| (distance(candidate), candidate.as_str()))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= candidate.chars().count().div_ceil(3)).then_some(candidate)
}

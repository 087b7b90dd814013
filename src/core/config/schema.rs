//! The tables of the file: their names, and the keys of each.

use super::keys;
use super::kind::{Key, Presence};
use super::settings::ServiceSettings;
use crate::core::runtimes::{self, Runtime, Table};

/// The tables whose members the user names.
pub(super) const TEMPLATES: &str = "templates";
pub(super) const INSTANCES: &str = "instances";
pub(super) const MODELS: &str = "models";
pub(super) const PROMPTS: &str = "prompts";
pub(super) const ALIASES: &str = "aliases";

/// The table of the gateway, its name as a service, and the command.
pub const GATEWAY: &str = "gateway";

/// The table of an instance with its run keys.
pub(super) const RUN: &str = "run";

/// The two tables of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TableKind {
    Server,
    Run,
}

impl TableKind {
    pub(super) const ALL: [Self; 2] = [Self::Server, Self::Run];

    /// Returns the name of the table of `service`.
    pub(super) fn table_of(self, service: &str) -> String {
        match self {
            Self::Server => format!("{service}_server"),
            Self::Run => format!("{service}_run"),
        }
    }

    /// Returns the keys that exist in this table for a service of `runtime`.
    pub(super) fn keys(self, runtime: &dyn Runtime) -> Vec<&'static Key<ServiceSettings>> {
        let defaults = ServiceSettings::default_for(runtime);
        let keys = match self {
            Self::Server => keys::SERVER,
            Self::Run => keys::RUN,
        };
        let exists = |key: &&Key<ServiceSettings>| match key.facts.presence {
            Presence::Fresh => {
                key.write(&defaults).is_some() || runtime.optional_keys().contains(&key.facts.name)
            }
            Presence::Optional => true,
            Presence::OfSome => runtime.optional_keys().contains(&key.facts.name),
        };
        keys.iter().filter(exists).collect()
    }
}

/// Returns the runtime whose table is called `name`, and which of its two tables that is.
pub(super) fn section(table: Table, name: &str) -> Option<(&'static dyn Runtime, TableKind)> {
    let of = |part: TableKind, end: &str| Some((runtimes::find(table, name.strip_suffix(end)?)?, part));
    of(TableKind::Server, "_server").or_else(|| of(TableKind::Run, "_run"))
}

/// Returns the tables of the runtimes, in the order of the file.
pub(super) fn service_tables(table: Table) -> impl Iterator<Item = String> {
    table.iter().flat_map(|runtime| TableKind::ALL.map(|part| part.table_of(runtime.name())))
}

/// Returns the names of all tables.
pub(super) fn table_names(table: Table) -> Vec<String> {
    service_tables(table)
        .chain([GATEWAY, TEMPLATES, INSTANCES, MODELS, PROMPTS, ALIASES].map(str::to_owned))
        .collect()
}

/// Returns the keys of the table of an instance whose server speaks the API of `runtime`, and whether the file has its
/// template.
pub(super) fn instance_keys(
    runtime: Option<&dyn Runtime>,
    of_file: bool,
) -> Vec<&'static Key<ServiceSettings>> {
    let exists = |key: &&Key<ServiceSettings>| match runtime {
        None => keys::OF_ANY_PROGRAM.contains(&key.facts.name),
        // The template of the file has the command.
        Some(_) if of_file && key.facts.name == "command" => false,
        Some(runtime) => {
            key.facts.presence != Presence::OfSome || runtime.optional_keys().contains(&key.facts.name)
        }
    };
    keys::INSTANCE.iter().chain(keys::SERVER.iter().filter(exists)).collect()
}

/// Returns every key that the table of some instance has.
pub(super) fn all_instance_keys() -> Vec<&'static Key<ServiceSettings>> {
    keys::INSTANCE.iter().chain(keys::SERVER).collect()
}

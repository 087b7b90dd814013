//! The commands of instances, which only the configuration knows: it is read when the first word of a command line is
//! no command of fusion's own.

use std::ffi::OsString;

use clap::Command;

use crate::app::services;
use crate::core::config::{Config, ConfigError};
use crate::core::names;
use crate::core::paths::Paths;
use crate::core::runtimes::{self, Table};
use crate::env::Environment;

/// The configuration as it was read before the command line was parsed.
pub type ReadConfig = (Config, Option<ConfigError>);

/// A service that has commands because the configuration or a record names it.
pub struct NamedService {
    pub name: String,
    /// Its template, and whether that is a runtime.
    pub template: String,
    pub has_runtime: bool,
}

impl NamedService {
    /// Returns its command. `commands` adds those of a service, or of one that is no model server.
    pub fn command(&self, commands: impl Fn(bool) -> fn(Command) -> Command) -> Command {
        let Self { name, template, has_runtime } = self;
        let about = match (template.as_str(), has_runtime) {
            ("", _) => format!("Stop {name}, which is not in the configuration any longer"),
            (template, true) => format!("Start, stop, watch and prompt {name}, an instance of {template}"),
            (template, false) => format!("Start, stop and watch {name}, an instance of {template}"),
        };
        Command::new(name.clone()).about(about).defer(commands(*has_runtime))
    }
}

/// Returns the instances of a configuration, in the order of the file.
pub fn of_config(table: Table, config: &Config) -> Vec<NamedService> {
    let named = config.instances.iter().map(|(name, settings)| NamedService {
        name: name.to_string(),
        template: settings.instance.template.clone(),
        has_runtime: runtimes::find(table, &settings.instance.template).is_some(),
    });
    named.collect()
}

/// Returns the configuration, if there is a valid file. Makes no file.
pub fn existing_config(table: Table, environment: &Environment) -> Option<Config> {
    let file = Paths::discover(environment).ok()?.config_file();
    file.exists().then(|| Config::load(&file, table).ok())?
}

/// Returns the instances, and the configuration that was read for that, if the first word of `arguments` may name one.
/// Makes no file.
pub fn asked_for(
    table: Table,
    environment: &Environment,
    arguments: &[OsString],
) -> (Vec<NamedService>, Option<ReadConfig>) {
    let mut words = words(arguments).skip_while(|word| *word == "help");
    let Some(word) = words.next().filter(|word| may_be_instance(table, word)) else {
        return (Vec::new(), None);
    };
    let Ok(paths) = Paths::discover(environment) else { return (Vec::new(), None) };
    let file = paths.config_file();
    let read = file.exists().then(|| Config::load_sound(&file, table));
    let mut named = read.as_ref().map_or_else(Vec::new, |(config, _)| of_config(table, config));
    if !named.iter().any(|known| known.name == word) && services::is_recorded(table, &paths, word) {
        named.push(NamedService { name: word.to_owned(), template: String::new(), has_runtime: false });
    }
    (named, read)
}

fn may_be_instance(table: Table, word: &str) -> bool {
    names::check(word, table.iter().flat_map(|runtime| [runtime.name(), runtime.alias()])).is_ok()
}

/// Returns what is wrong with the configuration, and the options before the first word, if that word may be an instance
/// that the configuration does not show for that reason.
pub fn hidden<'r>(
    instances: &[NamedService],
    read: Option<&'r ReadConfig>,
    arguments: &'r [OsString],
) -> Option<(&'r ConfigError, &'r [OsString])> {
    let error = read?.1.as_ref()?;
    let word = words(arguments).next().filter(|word| instances.iter().all(|known| known.name != *word))?;
    let at = arguments.iter().position(|argument| argument == word)?;
    Some((error, arguments.get(..at)?))
}

/// Returns the arguments that are no options, nor the value of a global one.
pub fn words(arguments: &[OsString]) -> impl Iterator<Item = &str> {
    let mut arguments = arguments.iter().skip(1).filter_map(|argument| argument.to_str());
    std::iter::from_fn(move || {
        loop {
            match arguments.next()? {
                // The one global option with a value.
                "--color" => _ = arguments.next(),
                option if option.starts_with('-') => {}
                word => return Some(word),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_no_options() {
        let found = |line: &str| {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            words(&arguments).take(2).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(found("fusion coder up -n"), "coder up");
        assert_eq!(found("fusion -q --color never -v coder --json"), "coder");
        assert_eq!(found("fusion --color=never coder"), "coder");
        assert_eq!(found("fusion --color"), "");
        assert_eq!(found("fusion -V"), "");
    }
}

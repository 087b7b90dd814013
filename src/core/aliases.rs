//! Short names that mean the right model on every runtime.

use std::collections::BTreeSet;

use crate::core::config::Config;
use crate::core::models::{Model, ModelPlaces};
use crate::core::runtimes::{Runtime, Table};

/// What `name` means on `runtime`: a directory, else an alias of the configuration, else one that is built in, else
/// the name itself. An alias is looked up once: one that leads to another alias does not go on.
pub fn resolve(runtime: &dyn Runtime, config: &Config, name: &str, places: &ModelPlaces) -> Model {
    if places.directory(name).is_some() {
        return runtime.resolve_model(name, places);
    }
    match configured(runtime, config, name) {
        Some(model) => runtime.resolve_model(model, &places.of_configuration()),
        None => runtime.resolve_model(built_in(runtime, name).unwrap_or(name), places),
    }
}

/// Every alias, by name: those of the configuration and those built into any runtime of the table.
pub fn all(table: Table, config: &Config) -> BTreeSet<String> {
    let built_in = table.iter().flat_map(|runtime| runtime.model_aliases());
    let mut all = BTreeSet::new();
    all.extend(config.aliases.keys().cloned());
    all.extend(built_in.map(|(alias, _)| (*alias).to_owned()));
    all
}

/// What the alias stands for on `runtime`; `None` when it does not know the alias.
pub fn meaning<'a>(runtime: &dyn Runtime, config: &'a Config, alias: &str) -> Option<&'a str> {
    configured(runtime, config, alias).or_else(|| built_in(runtime, alias))
}

/// The aliases of a model on `runtime`.
pub fn of(table: Table, runtime: &dyn Runtime, config: &Config, model: &str) -> Vec<String> {
    let stands_for_it = |alias: &String| alias != model && meaning(runtime, config, alias) == Some(model);
    all(table, config).into_iter().filter(stands_for_it).collect()
}

fn configured<'a>(runtime: &dyn Runtime, config: &'a Config, alias: &str) -> Option<&'a str> {
    config.aliases.get(alias)?.model(runtime.name())
}

fn built_in(runtime: &dyn Runtime, alias: &str) -> Option<&'static str> {
    runtime.model_aliases().iter().find(|(known, _)| *known == alias).map(|(_, model)| *model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::config::Alias;
    use crate::core::runtimes::{self, TABLE};

    fn runtime(name: &str) -> &'static dyn Runtime {
        runtimes::find(TABLE, name).unwrap()
    }

    #[test]
    fn a_short_name_means_the_right_model_on_either_runtime() {
        let config = Config::default_for(TABLE);
        let places = ModelPlaces::default();
        let name = |name: &str, alias: &str| resolve(runtime(name), &config, alias, &places).name;
        assert_eq!(name("ollama", "llama3.2:3b"), "llama3.2:3b");
        assert_eq!(name("mlx", "llama3.2:3b"), "mlx-community/Llama-3.2-3B-Instruct-4bit");
        assert_eq!(name("mlx", "org/name"), "org/name");
    }

    #[test]
    fn every_alias_is_known_to_every_runtime_that_knows_any() {
        let config = Config::default_for(TABLE);
        for runtime in TABLE.iter().filter(|runtime| !runtime.model_aliases().is_empty()) {
            for alias in all(TABLE, &config) {
                assert!(built_in(*runtime, &alias).is_some(), "{} does not know {alias}", runtime.name());
            }
            let names: Vec<&str> = runtime.model_aliases().iter().map(|(alias, _)| *alias).collect();
            assert!(
                names.is_sorted_by(|one, other| one < other),
                "{names:?} is not in order, or has one twice"
            );
        }
    }

    #[test]
    fn the_configuration_wins_over_what_is_built_in_and_a_directory_over_both() -> std::io::Result<()> {
        let mut config = Config::default_for(TABLE);
        let mine = Alias::Everywhere("org/mine".to_owned());
        config.aliases.insert("qwen3:4b".to_owned(), mine);
        let root = tempfile::tempdir()?;
        let base = root.path().canonicalize()?;
        let places = ModelPlaces { base: Some(base.clone()), ..ModelPlaces::default() };
        assert_eq!(resolve(runtime("mlx"), &config, "qwen3:4b", &places).name, "org/mine");
        assert_eq!(of(TABLE, runtime("mlx"), &config, "org/mine"), ["qwen3:4b"]);
        let directory = base.join("qwen3:4b");
        std::fs::create_dir(&directory)?;
        std::fs::write(directory.join("config.json"), "{}")?;
        let model = resolve(runtime("mlx"), &config, "qwen3:4b", &places);
        assert_eq!(Some(model.name.as_str()), directory.to_str());
        // A path in the configuration starts there, wherever the alias is used.
        config.aliases.insert("mine".to_owned(), Alias::Everywhere("./mine".to_owned()));
        let places = ModelPlaces { config_dir: "/config".into(), ..places };
        assert_eq!(resolve(runtime("mlx"), &config, "mine", &places).name, "/config/mine");
        Ok(())
    }
}

//! Aliases: names that mean the right model on every runtime.

use crate::core::config::{Config, ModelSettings};
use crate::core::models::{Model, ModelPlaces};
use crate::core::order;
use crate::core::runtimes::{Runtime, Table};

/// Returns what `name` means on `runtime`: a directory, else an alias of the configuration, else a built-in one, else
/// the name itself. An alias of an alias is not followed.
pub fn resolve(runtime: &dyn Runtime, config: &Config, name: &str, places: &ModelPlaces) -> Model {
    if places.directory(name).is_some() {
        return runtime.resolve_model(name, places);
    }
    match configured(runtime, config, name) {
        Some(model) => runtime.resolve_model(model, &places.of_configuration()),
        None => runtime.resolve_model(built_in(runtime, name).unwrap_or(name), places),
    }
}

/// Returns what `[models]` says of the model, which is named there in any way that means it on `runtime`; `places` are
/// those of the configuration.
pub fn settings<'a>(
    runtime: &dyn Runtime,
    config: &'a Config,
    model: &str,
    places: &ModelPlaces,
) -> Option<&'a ModelSettings> {
    let means_it = |name: &String| {
        name == model || runtime.is_same_model(&resolve(runtime, config, name, places).name, model)
    };
    config.models.iter().find(|(name, _)| means_it(name)).map(|(_, settings)| settings)
}

/// Returns the names of all aliases: of the configuration, and built into any runtime of the table.
pub fn all(table: Table, config: &Config) -> Vec<String> {
    let built_in = table.iter().flat_map(|runtime| runtime.model_aliases());
    let built_in = built_in.map(|(alias, _)| (*alias).to_owned());
    order::unique(config.aliases.keys().cloned().chain(built_in))
}

/// Returns the model of the alias on `runtime`.
pub fn meaning<'a>(runtime: &dyn Runtime, config: &'a Config, alias: &str) -> Option<&'a str> {
    configured(runtime, config, alias).or_else(|| built_in(runtime, alias))
}

/// Returns the aliases of a model on `runtime`. The server may know more of its name than the alias says.
pub fn of(
    table: Table,
    runtime: &dyn Runtime,
    config: &Config,
    model: &str,
    places: &ModelPlaces,
) -> Vec<String> {
    let is_completed =
        |name: &str| model.starts_with(name) && runtime.resolve_model(name, places).name == model;
    let is_it = |name: &str| name == model || is_completed(name);
    let means_it = |alias: &String| alias != model && meaning(runtime, config, alias).is_some_and(is_it);
    all(table, config).into_iter().filter(means_it).collect()
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
    fn an_alias_means_each_runtimes_model() {
        let config = Config::default_for(TABLE);
        let places = ModelPlaces::default();
        let name = |name: &str, alias: &str| resolve(runtime(name), &config, alias, &places).name;
        assert_eq!(name("ollama", "llama3.2:3b"), "llama3.2:3b");
        assert_eq!(name("mlx", "llama3.2:3b"), "mlx-community/Llama-3.2-3B-Instruct-4bit");
        assert_eq!(name("llama", "llama3.2:3b"), "bartowski/Llama-3.2-3B-Instruct-GGUF");
        assert_eq!(name("mlx", "org/name"), "org/name");
    }

    #[test]
    fn runtimes_with_aliases_know_all_of_them() {
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
    fn directories_and_configured_aliases_win() -> std::io::Result<()> {
        let mut config = Config::default_for(TABLE);
        let mine = Alias::Everywhere("org/mine".to_owned());
        config.aliases.insert("qwen3:4b".to_owned(), mine);
        let root = tempfile::tempdir()?;
        let base = root.path().canonicalize()?;
        let places = ModelPlaces { base: Some(base.clone()), ..ModelPlaces::default() };
        assert_eq!(resolve(runtime("mlx"), &config, "qwen3:4b", &places).name, "org/mine");
        assert_eq!(of(TABLE, runtime("mlx"), &config, "org/mine", &places), ["qwen3:4b"]);
        let directory = base.join("qwen3:4b");
        std::fs::create_dir(&directory)?;
        std::fs::write(directory.join("config.json"), "{}")?;
        let model = resolve(runtime("mlx"), &config, "qwen3:4b", &places);
        assert_eq!(Some(model.name.as_str()), directory.to_str());
        // A relative path in the configuration starts in the configuration's directory.
        config.aliases.insert("mine".to_owned(), Alias::Everywhere("./mine".to_owned()));
        let places = ModelPlaces { config_dir: "/config".into(), ..places };
        assert_eq!(resolve(runtime("mlx"), &config, "mine", &places).name, "/config/mine");
        Ok(())
    }
}

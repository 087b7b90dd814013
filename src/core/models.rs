//! Models: where they lie, what the user's names for them mean, and what a runtime can do with them.

pub mod catalogue;
pub mod directory;
pub mod hub_cache;
pub mod hub_download;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::core::paths::Paths;
use crate::env::Environment;

/// Where model files may lie on this machine.
#[derive(Debug, Clone, Default)]
pub struct ModelPlaces {
    /// Where a relative directory starts; without it, none is meant.
    pub base: Option<PathBuf>,
    /// Where one in the configuration starts: the configuration's own directory.
    pub config_dir: PathBuf,
    /// What `~` stands for.
    pub home: Option<PathBuf>,
    /// The Hugging Face hub cache.
    pub hub_cache: Option<PathBuf>,
}

/// A model as the server must be told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// The exact string for the command line and for every request.
    pub name: String,
    /// Whether its files are on this machine; `None` when only the server knows.
    pub present: Option<bool>,
}

impl ModelPlaces {
    /// The places of a server that gets `server_env` (from its configuration) on top of this environment: it looks
    /// for the hub cache as the hub's own tool does (`huggingface_hub/constants.py`). Names are those that the user
    /// types where fusion was started.
    pub fn discover(environment: &Environment, paths: &Paths, server_env: &BTreeMap<String, String>) -> Self {
        let home = environment.home.clone();
        let variables = &environment.hugging_face;
        let pick = |name: &str, inherited: &Option<PathBuf>| {
            let configured = server_env.get(name).filter(|value| !value.is_empty()).map(PathBuf::from);
            configured.or_else(|| inherited.clone()).map(|path| expand_home(&path, home.as_deref()))
        };
        let hub_cache = pick("HF_HUB_CACHE", &variables.hub_cache)
            .or_else(|| pick("HUGGINGFACE_HUB_CACHE", &variables.legacy_hub_cache))
            .or_else(|| Some(pick("HF_HOME", &variables.home)?.join("hub")))
            .or_else(|| Some(pick("XDG_CACHE_HOME", &variables.xdg_cache_home)?.join("huggingface/hub")))
            .or_else(|| Some(home.as_ref()?.join(".cache/huggingface/hub")));
        let config_dir = paths.directory().to_owned();
        Self { base: environment.current_dir.clone(), config_dir, home, hub_cache }
    }

    /// The same places for names in the configuration, which mean the same wherever fusion is started.
    #[must_use]
    pub fn of_configuration(&self) -> Self {
        Self { base: Some(self.config_dir.clone()), ..self.clone() }
    }

    /// The same places for names that [`crate::core::aliases::resolve`] has given.
    #[must_use]
    pub fn of_resolved(&self) -> Self {
        Self { base: None, ..self.clone() }
    }

    /// The absolute path that `name` is as a path; `None` where no relative one is meant.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        let path = expand_home(Path::new(name), self.home.as_deref());
        if path.is_absolute() { Some(path) } else { Some(self.base.as_ref()?.join(path)) }
    }

    /// The directory that a user means by `name`, absolute and without symbolic links; `None` when it is the name of
    /// a model. A path (`/x`, `./x`, `../x`, `~/x`) is always a directory, whether it exists or not; other names only
    /// where a directory of that name holds a model.
    pub fn directory(&self, name: &str) -> Option<PathBuf> {
        let path = self.path(name)?;
        let path = path.canonicalize().unwrap_or_else(|_| path.components().collect());
        (is_path(name) || path.join("config.json").is_file()).then_some(path)
    }
}

/// Whether a name can only be a path.
fn is_path(name: &str) -> bool {
    matches!(name, "." | ".." | "~") || ["/", "./", "../", "~/"].iter().any(|start| name.starts_with(start))
}

fn expand_home(path: &Path, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

/// A model's name as a shell takes it: as it is, where that means the same.
pub fn quoted(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:~".contains(&byte);
    if !name.is_empty() && name.bytes().all(is_plain) {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::HuggingFaceVariables;

    fn hub_cache(variables: &[(&str, &str)], server_env: &[(&str, &str)]) -> Option<PathBuf> {
        let variable =
            |name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value));
        let environment = Environment {
            home: Some(PathBuf::from("/home/me")),
            config_dir: Some(PathBuf::from("/config")),
            hugging_face: HuggingFaceVariables {
                hub_cache: variable("HF_HUB_CACHE"),
                legacy_hub_cache: variable("HUGGINGFACE_HUB_CACHE"),
                home: variable("HF_HOME"),
                xdg_cache_home: variable("XDG_CACHE_HOME"),
            },
            ..Environment::default()
        };
        let server_env =
            server_env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let paths = Paths::discover(&environment).unwrap();
        ModelPlaces::discover(&environment, &paths, &server_env).hub_cache
    }

    #[test]
    fn the_hub_cache_is_where_the_hubs_tool_looks() {
        let is = |expected: &str, variables: &[(&str, &str)]| {
            assert_eq!(hub_cache(variables, &[]), Some(PathBuf::from(expected)), "{variables:?}");
        };
        is("/home/me/.cache/huggingface/hub", &[]);
        is("/xdg/huggingface/hub", &[("XDG_CACHE_HOME", "/xdg")]);
        is("/hf/hub", &[("HF_HOME", "/hf"), ("XDG_CACHE_HOME", "/xdg")]);
        is("/old", &[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/hf")]);
        is("/cache", &[("HF_HUB_CACHE", "/cache"), ("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/hf")]);
        is("/home/me/hf/hub", &[("HF_HOME", "~/hf")]);
    }

    #[test]
    fn the_servers_own_environment_wins() {
        let found = hub_cache(&[("HF_HOME", "/hf")], &[("HF_HOME", "/disk")]);
        assert_eq!(found, Some(PathBuf::from("/disk/hub")));
        assert_eq!(hub_cache(&[("HF_HOME", "/hf")], &[("HF_HOME", "")]), Some(PathBuf::from("/hf/hub")));
    }

    #[test]
    fn a_path_is_a_directory_and_a_name_is_one_only_if_it_holds_a_model() -> std::io::Result<()> {
        let root = tempfile::tempdir()?;
        let root = root.path().canonicalize()?;
        std::fs::create_dir_all(root.join("org/model"))?;
        std::fs::create_dir_all(root.join("org/other"))?;
        std::fs::write(root.join("org/model/config.json"), "{}")?;
        let places = ModelPlaces {
            base: Some(root.clone()),
            home: Some(root.clone()),
            config_dir: root.join("org"),
            hub_cache: None,
        };
        assert_eq!(places.directory("org/model"), Some(root.join("org/model")));
        assert_eq!(places.directory("org/other"), None);
        assert_eq!(places.directory("llama3.2:3b"), None);
        assert_eq!(places.directory("./org/other"), Some(root.join("org/other")));
        assert_eq!(places.directory("org/../org/model"), Some(root.join("org/model")));
        assert_eq!(places.directory("~/nowhere"), Some(root.join("nowhere")));
        assert_eq!(places.directory("/nowhere"), Some(PathBuf::from("/nowhere")));
        assert_eq!(places.directory("./nowhere"), Some(root.join("nowhere")));
        assert_eq!(places.of_configuration().directory("model"), Some(root.join("org/model")));
        assert_eq!(places.of_configuration().directory("./x"), Some(root.join("org/x")));
        assert_eq!(places.of_resolved().directory("org/model"), None);
        assert_eq!(places.of_resolved().directory("/nowhere"), Some(PathBuf::from("/nowhere")));
        Ok(())
    }
}
